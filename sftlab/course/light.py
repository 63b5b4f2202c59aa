"""An import that costs what is used of it."""

import sys


def import_jsonschema() -> None:
    """Import jsonschema without its check of the format `iri`, which nothing here asks for.

    nbformat, and so papermill and nbconvert, import jsonschema. Where rfc3987_syntax is installed,
    as it is beside JupyterLab, jsonschema imports it, and that builds 39 parsers: 2 of the 2.5
    seconds of `import papermill`. jsonschema does without where there is none; `None` in
    `sys.modules` says so (Python's reference, "The module cache"), and only while it is imported.
    """
    if "jsonschema" in sys.modules or "rfc3987_syntax" in sys.modules:
        return
    sys.modules["rfc3987_syntax"] = None
    try:
        import jsonschema  # noqa: F401
    finally:
        del sys.modules["rfc3987_syntax"]
