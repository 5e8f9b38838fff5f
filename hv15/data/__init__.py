"""Media files, captions and clips: finding, naming, choosing frames, reading and writing pixels. Knows no model.

Planning (`media`, `captions`, `scan`, `index`, `buckets`, `frames`, `clips`, `musubi`) is plain Python and starts
fast; only the modules that touch pixels (`probe`, `pixels`, `images`, `decode`, `ahead`, `encode`) import PyAV, Pillow
and numpy.
"""
