"""What a Python function does, read from its bytecode."""

import dis
import inspect
import types
from collections.abc import Callable
from typing import Any

SKIPPED = {"NOP", "RESUME", "CACHE", "EXTENDED_ARG", "PRECALL", "NOT_TAKEN"}
"""Instructions that compute nothing; some are there for the sake of line numbers."""
CONSTANTS = ("LOAD_CONST", "RETURN_CONST", "KW_NAMES")
"""Instructions with a constant. Python 3.11's `dis` tells it only for the first."""


def code_text(code: types.CodeType, constant: Callable[[Any], str]) -> str:
    """The instructions of a function as text, without lines and names of files.

    Args:
        code: of the function; those inside it are told too.
        constant: tells a constant, so that 1, 1.0 and True differ.
    """
    kept = [i for i in dis.get_instructions(code) if i.opname not in SKIPPED]
    places = {i.offset: number for number, i in enumerate(kept)}

    def place(offset: int) -> int:
        later = [number for start, number in places.items() if start >= offset]
        return min(later, default=len(kept))

    lines = []
    for i in kept:
        value = code.co_consts[i.arg] if i.opname in CONSTANTS else None
        if isinstance(value, types.CodeType):
            told = code_text(value, constant)
        elif i.opcode in dis.hasjrel or i.opcode in dis.hasjabs:
            told = place(i.argval)
        elif i.opname in CONSTANTS:
            told = constant(value)
        else:
            told = repr(i.argval)
        lines.append(f"{i.opname} {told}")
    handlers = [
        (place(entry.start), place(entry.end), place(entry.target), entry.depth)
        for entry in dis.Bytecode(code).exception_entries
    ]
    starred = code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
    sizes = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, starred,
             code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])  # fmt: skip
    return f"code{sizes}{lines}{handlers}"


def _all_codes(code: types.CodeType):
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _all_codes(constant)


def globals_of(code: types.CodeType) -> set[str]:
    """Names that are looked up outside; `co_names` would count attributes too."""
    found = ("LOAD_GLOBAL", "LOAD_NAME")
    return {i.argval for part in _all_codes(code) for i in dis.get_instructions(part)
            if i.opname in found}  # fmt: skip


def attributes_of(code: types.CodeType) -> set[str]:
    """Names of attributes that are read, at any depth."""
    found = ("LOAD_ATTR", "LOAD_METHOD")
    return {i.argval for part in _all_codes(code) for i in dis.get_instructions(part)
            if i.opname in found}  # fmt: skip


def imports_of(code: types.CodeType) -> list[tuple[str, list[str]]]:
    """(module, names taken from it) of each import statement inside a function."""
    found: list[tuple[str, list[str]]] = []
    for part in _all_codes(code):
        for i in dis.get_instructions(part):
            if i.opname == "IMPORT_NAME":
                found.append((i.argval, []))
            elif i.opname == "IMPORT_FROM" and found:
                found[-1][1].append(i.argval)
    return found
