"""Report pages: `report.html` of a finished run, made from its stored files alone.

`page` holds the parts of a page, `render` and ``page.html.j2`` turn them into HTML, `charts` draws, `leave` writes. A
job's own page is ``steps/<job>/page.py`` with one pure function, ``page(run, root) -> Page``.
"""
