"""Pages of results that are one file: no other file, nothing from the network, and no script but one of hv15's own.

- html: jinja2 templates, whose values are escaped, and what a page tells that it was made from
- vector: figures of matplotlib as SVG in the page, in the colours of the page, light and dark
- inlined: pictures and videos as data URLs, up to a limit

`base.html` has the style of all pages.
"""
