"""The page that every big job leaves: `report.html`, made from what it stored alone.

`page.py` says what a page is made of, `render.py` and ``page.html.j2`` how it looks, `registry.py` which file makes the
page of which job. A job's page is one file here with one pure function, ``page(run, root) -> Page``.
"""
