"""Arrays, frames and tensors as text, for `fingerprint.py`."""

import datetime
from collections.abc import Callable, Iterable
from typing import Any


def array_text(value: Any, each: Callable[[Iterable], list[str]]) -> str | None:
    """All that tells one value of numpy, pandas or torch from another; `None` for any other.

    `each` describes the items of a list.
    """
    kind, top = type(value), type(value).__module__.partition(".")[0]
    if top == "numpy" and hasattr(value, "dtype"):
        return f"{value.dtype}{value.shape}{each([value.tolist()])}"
    if top == "numpy" and kind.__name__ in ("ufunc", "dtype"):
        return f"numpy:{value!r}"
    if top == "pandas" and hasattr(value, "columns"):
        columns = [value.iloc[:, n] for n in range(value.shape[1])]
        parts = [(c.name, str(c.dtype), c.tolist()) for c in columns]
        return f"frame{each([parts])}{_labels(value.index, each)}"
    if top == "pandas" and hasattr(value, "dtype") and hasattr(value, "tolist"):
        told = each([getattr(value, "name", None), str(value.dtype), value.tolist()])
        index = getattr(value, "index", None)  # an index has none itself
        return f"column{told}" + ("" if index is None else _labels(index, each))
    if top == "pandas" and isinstance(value, datetime.datetime | datetime.timedelta):
        return f"{kind.__name__}:{value!r}"
    if top == "torch" and kind.__name__ == "Tensor":
        return f"{value.dtype}{tuple(value.shape)}{each([value.detach().cpu().tolist()])}"
    if top == "torch" and kind.__name__ in ("dtype", "device"):
        return repr(value)
    return None


def _labels(index, each: Callable[[Iterable], list[str]]) -> str:
    if type(index).__name__ == "RangeIndex":
        return repr(index)
    return f"index{each([list(index.names), index.tolist()])}"
