"""What a function computes, as text: the same text, the same results; any change shows in it.

A run is cached under what made it. That includes the measures, which are functions that a learner
writes in a notebook: their bytecode, their defaults, and the values of what they use from outside.
Bytecode rather than source, because it is what will run: comments, docstrings and line breaks are
not in it, two lambdas on one line differ in it, and a cell or a file changed since does not matter.
"""

import builtins
import datetime
import decimal
import enum
import fractions
import functools
import operator
import random
import re
import sys
import types
import uuid
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any

from sftlab.train.sweeps.bytecode import code_text, globals_of, imports_of
from sftlab.train.sweeps.sources import INSTALLED, LAB, origin

TOLD_BY_REPR = (bool, int, float, complex, str, bytes, range, type(None), type(...), datetime.date,
                datetime.time, datetime.timedelta, decimal.Decimal, fractions.Fraction, uuid.UUID,
                re.Pattern, operator.itemgetter, operator.attrgetter, operator.methodcaller,
                types.GenericAlias, types.UnionType)  # fmt: skip
NAMED = (types.BuiltinFunctionType, types.MethodDescriptorType, types.MethodWrapperType,
         types.WrapperDescriptorType, types.ClassMethodDescriptorType)  # fmt: skip


class FingerprintError(ValueError):
    """Something that a measure uses, and that can't be told from another by its value."""


class Fingerprint:
    """Describes values and functions; one for each thing that is described.

    `modules` then holds the names of the lab's and the learner's modules that were met: those whose
    source counts too. `live` holds the learner's modules whose functions were described themselves.
    """

    def __init__(self, what: str) -> None:
        """`what` opens the message of an error, such as `the measure 'facts'`."""
        self.modules: set[str] = set()
        self.live: set[str] = set()
        self._what = what
        self._met: dict[int, int] = {}
        self._kept: list[Any] = []  # an id is only an object's own while the object lives
        self._inside: set[int] = set()

    def text(self, value: Any, *, name: str = "") -> str:
        """A text that equal values share, and different ones do not.

        Args:
            value: plain data, arrays, frames, functions, classes, modules.
            name: how the learner calls it, for the error.

        Raises:
            FingerprintError: it is, or holds, a thing such as a model.
        """
        kind = type(value)
        if isinstance(value, enum.Enum):
            return f"{self.text(kind, name=name)}.{value.name}"
        if kind in TOLD_BY_REPR or (kind.__module__ == "typing" and not hasattr(kind, "_fields")):
            return f"{kind.__name__}:{value!r}"
        if isinstance(value, type):
            return self._once(value, name, self._class)
        if isinstance(value, types.FunctionType):
            return self._once(value, name, self._function)
        if isinstance(value, types.ModuleType):
            return self._module(value.__name__)
        if isinstance(value, NAMED):
            owner = getattr(value, "__objclass__", None) or getattr(value, "__self__", None)
            plain = owner is None or isinstance(owner, type | types.ModuleType)
            owner = getattr(owner, "__name__", "") if plain else self.text(owner, name=name)
            where = getattr(value, "__module__", "") if plain else ""
            return f"{where}.{owner}.{value.__qualname__}"
        if id(value) in self._inside:
            return "itself"
        self._inside.add(id(value))
        try:
            return self._composed(value, name)
        finally:
            self._inside.discard(id(value))

    def _once(self, value: Any, name: str, describe: Callable[[Any, str], str]) -> str:
        """The description where it is met first, a number after that: functions call each other."""
        if id(value) in self._met:
            return f"#{self._met[id(value)]}"
        self._met[id(value)] = len(self._met)
        self._kept.append(value)
        return describe(value, name)

    def _composed(self, value: Any, name: str) -> str:
        def each(items) -> list[str]:
            return [self.text(item, name=name) for item in items]

        def state(pairs) -> str:
            told = (f"{key}={self.text(part, name=f'{name}.{key}')}" for key, part in pairs)
            return f"{self.text(kind, name=name)}({', '.join(told)})"

        kind, top = type(value), type(value).__module__.partition(".")[0]
        if isinstance(value, list | tuple):
            label = kind.__name__ if kind in (list, tuple) else self.text(kind, name=name)
            return f"{label}[{', '.join(each(value))}]"
        if isinstance(value, set | frozenset):
            return f"set[{', '.join(sorted(each(value)))}]"
        if isinstance(value, Mapping):
            pairs = sorted((self.text(key, name=name), key) for key in value)
            told = [f"{text}: {self.text(value[key], name=name)}" for text, key in _by_text(pairs)]
            return f"map[{', '.join(told)}]"
        if isinstance(value, PurePath):
            return f"path:{str(value)!r}"
        if isinstance(value, functools.partial):
            return f"partial{each([value.func, value.args, value.keywords])}"
        if isinstance(value, types.MethodType):
            return f"method{each([value.__func__, value.__self__])}"
        if isinstance(value, staticmethod | classmethod) or hasattr(value, "cache_info"):
            return f"{kind.__name__}{each([value.__wrapped__])}"
        if isinstance(value, property):
            return f"property{each([value.fget, value.fset, value.fdel])}"
        if isinstance(value, slice):
            return f"slice{each([value.start, value.stop, value.step])}"
        if isinstance(value, random.Random):
            return f"random{value.getstate()!r}"
        if top == "numpy" and hasattr(value, "dtype"):
            return f"{value.dtype}{value.shape}{each([value.tolist()])}"
        if top == "numpy" and kind.__name__ in ("ufunc", "dtype"):
            return f"numpy:{value!r}"
        if top == "pandas" and hasattr(value, "columns"):
            return f"frame{each([[(c, str(value[c].dtype), value[c].tolist()) for c in value]])}"
        if top == "pandas" and hasattr(value, "dtype") and hasattr(value, "tolist"):
            return f"column{each([value.name, str(value.dtype), value.tolist()])}"
        if top == "torch" and kind.__name__ == "Tensor":
            return f"{value.dtype}{tuple(value.shape)}{each([value.detach().cpu().tolist()])}"
        if top == "torch" and kind.__name__ in ("dtype", "device"):
            return repr(value)
        if is_dataclass(value):
            return state((field.name, getattr(value, field.name)) for field in fields(value))
        if origin(kind.__module__) != INSTALLED and hasattr(value, "__dict__"):
            return state(sorted(vars(value).items()))
        raise FingerprintError(
            f"{self._what} uses {name or 'something'}, a {kind.__name__}, from outside. A run is "
            "found again by the values it was made from, and this has none that could be compared: "
            "take it from the run that the measure gets (run.model, run.tokenizer, run.answer), or "
            "make it inside the measure from numbers, texts, lists or frames"
        )

    def _module(self, name: str) -> str:
        if origin(name) == INSTALLED:
            top = sys.modules.get(name.partition(".")[0])
            return f"module {name} {getattr(top, '__version__', '')}"
        self.modules.add(name)
        return f"module {name}"

    def _class(self, kind: type, name: str) -> str:
        label = f"class {kind.__module__}.{kind.__qualname__}"
        if origin(kind.__module__) == LAB:
            self.modules.add(kind.__module__)
        if origin(kind.__module__) in (LAB, INSTALLED):
            return label
        self.live.add(kind.__module__)
        bases = [self.text(base, name=name) for base in kind.__bases__]
        parts = [
            f"{key}={self.text(part, name=f'{name}.{key}')}"
            for key, part in sorted(vars(kind).items())
            if not re.fullmatch(r"__(?!init|call|post_init|eq|lt|len|iter|get|set|add).*__", key)
            and not isinstance(part, types.MemberDescriptorType | types.GetSetDescriptorType)
            and key != "_abc_impl"
        ]
        return f"{label}{bases}{parts}"

    def _function(self, function: types.FunctionType, name: str) -> str:
        where = function.__module__ or "__main__"
        label = f"function {where}.{function.__qualname__}"
        if origin(where) == LAB:
            self.modules.add(where)
        parts = [("defaults", function.__defaults__), ("keywords", function.__kwdefaults__)]
        for cell_name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            try:
                parts.append((cell_name, cell.cell_contents))
            except ValueError:  # named, and not yet given a value
                parts.append((cell_name, None))
        if origin(where) in (LAB, INSTALLED):
            if "<locals>" not in function.__qualname__:
                return label
            return label + str([(key, self.text(part, name=key)) for key, part in parts])
        self.live.add(where)
        code = code_text(function.__code__, self.text)
        for key in sorted(globals_of(function.__code__)):
            if key in function.__globals__:
                parts.append((key, function.__globals__[key]))
            elif not hasattr(builtins, key):
                parts.append((key, "there is no such name"))
        for module, names in imports_of(function.__code__):
            self._module(module)
            self.modules |= {f"{module}.{n}" for n in names if origin(module) == LAB}
        return f"{code}{[(key, self.text(part, name=key)) for key, part in parts]}"


def _by_text(pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return sorted(pairs, key=lambda pair: pair[0])
