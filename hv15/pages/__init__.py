"""Pages of results that are one file: no other file, no script, nothing from the network.

- html: jinja2 templates, whose values are escaped, and what a page tells that it was made from
- vector: figures of matplotlib as SVG in the page, in the colours of the page, light and dark
- inlined: pictures and videos as data URLs, up to a limit

`base.html` has the style of all pages.
"""
