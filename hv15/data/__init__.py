"""Media files, captions and clips: finding, naming, choosing frames, reading and writing pixels. Knows no model.

Planning (`media`, `captions`, `paths`, `survey`, `folder`, `rows`, `scan`, `index`, `buckets`, `frames`, `clips`,
`musubi`) is plain Python and starts fast; only the modules that touch pixels (`video`, `probe`, `pixels`, `images`,
`icc`, `decode`, `ahead`, `encode`) import PyAV, Pillow and numpy.
"""
