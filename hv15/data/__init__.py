"""Media files, captions and clips: finds them, chooses frames, reads and writes pixels. Does not depend on models.

The modules for planning (`media`, `captions`, `paths`, `survey`, `folder`, `rows`, `scan`, `index`, `buckets`,
`frames`, `clips`, `musubi`) are plain Python and start fast; only those for pixels (`video`, `probe`, `pixels`,
`images`, `icc`, `decode`, `ahead`, `encode`) import PyAV, Pillow and numpy.
"""
