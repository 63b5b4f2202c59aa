"""What a function computes, as text: a change of what it computes shows in it.

A run is cached under what made it. That includes the measures, which are functions that a learner
writes in a notebook: their bytecode, their defaults, and the values of what they use from outside.
Bytecode rather than source, because it is what will run: comments, docstrings and line breaks are
not in it, two lambdas on one line differ in it, and a cell or a file changed since does not matter.

Not seen: a file that is opened by a text, not a `Path`; the network; the time; what a library of
somebody else keeps to itself.
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
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

from sftlab.sweeps.arrays import array_text
from sftlab.sweeps.bytecode import attributes_of, code_text, globals_of, imports_of
from sftlab.sweeps.sources import INSTALLED, LAB, file_hash, origin, stamped

TOLD_BY_REPR = (bool, int, float, complex, str, bytes, bytearray, range, type(None), type(...),
                datetime.date, datetime.time, datetime.datetime, datetime.timedelta,
                decimal.Decimal, fractions.Fraction, uuid.UUID, re.Pattern, operator.itemgetter,
                operator.attrgetter, operator.methodcaller, types.GenericAlias,
                types.UnionType)  # fmt: skip
NAMED = (types.BuiltinFunctionType, types.MethodDescriptorType, types.MethodWrapperType,
         types.WrapperDescriptorType, types.ClassMethodDescriptorType)  # fmt: skip
BOOKKEEPING = {
    "__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__annotations__",
    "__annotate__", "__annotate_func__", "__annotations_cache__", "__dataclass_fields__",
    "__dataclass_params__", "__match_args__", "__orig_bases__", "__parameters__", "__slots__",
    "__firstlineno__", "__static_attributes__", "__abstractmethods__", "_abc_impl",
}  # fmt: skip
"""What Python writes into a class, and no behaviour of it depends on alone."""
MARKERS = ("_tuplegetter", "_HAS_DEFAULT_FACTORY_CLASS")
"""Types of the standard library whose objects tell no more than that they are there."""


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

        def own(names) -> str:
            """Its attributes, those called `names` among them."""
            found = dict(_attributes(value)) | {key: getattr(value, key) for key in names}
            told = (
                f"{key}={self.text(part, name=f'{name}.{key}')}"
                for key, part in sorted(found.items())
            )
            return f"({', '.join(told)})" if found else ""

        def plain(*types_: type) -> str:
            return "" if kind in types_ else self.text(kind, name=name)

        kind = type(value)
        if isinstance(value, list | tuple | deque):
            label = kind.__name__ if kind in (list, tuple) else self.text(kind, name=name)
            return f"{label}[{', '.join(each(value))}]{own(())}"
        if isinstance(value, set | frozenset):
            return f"{plain(set, frozenset) or 'set'}[{self._in_any_order(value, name)}]{own(())}"
        if isinstance(value, Mapping):
            pairs = ", ".join(": ".join(each([key, value[key]])) for key in value)
            others = each([value.default_factory]) if hasattr(value, "default_factory") else ""
            return f"{plain(dict) or 'map'}[{pairs}]{others}{own(())}"
        if isinstance(value, PurePath):
            file = Path(value)  # of a file its content counts
            return f"path:{str(value)!r}" + (file_hash(*stamped(file)) if file.is_file() else "")
        if isinstance(value, functools.partial):
            return f"partial{each([value.func, value.args, value.keywords])}"
        if isinstance(value, types.MethodType):
            return f"method{each([value.__func__, value.__self__])}"
        if isinstance(value, staticmethod | classmethod) or hasattr(value, "cache_info"):
            return f"{kind.__name__}{each([value.__wrapped__])}"
        if isinstance(value, property):
            return f"property{each([value.fget, value.fset, value.fdel])}"
        if isinstance(value, functools.cached_property):
            return f"cached_property{each([value.func])}"
        if isinstance(value, slice):
            return f"slice{each([value.start, value.stop, value.step])}"
        if isinstance(value, random.Random):
            return f"random{value.getstate()!r}"
        if (told := array_text(value, each)) is not None:
            return told
        if kind.__name__ in MARKERS and origin(kind.__module__) == INSTALLED:
            return kind.__name__
        if is_dataclass(value):
            return self.text(kind, name=name) + own(field.name for field in fields(value))
        if kind is types.SimpleNamespace or origin(kind.__module__) != INSTALLED:
            return self.text(kind, name=name) + (own(()) or "()")
        raise FingerprintError(
            f"{self._what} uses {name or 'something'}, a {kind.__name__}, from outside. A run is "
            "found again by the values it was made from, and this has none that could be compared: "
            "take it from the run that the measure gets (run.model, run.tokenizer, run.answer), or "
            "make it inside the measure from numbers, texts, lists or frames"
        )

    def _in_any_order(self, values: set | frozenset, name: str) -> str:
        """Each described as if it came first: what is met in one is not told short in the next."""
        told = []
        for value in values:
            alone = Fingerprint(self._what)
            alone._met, alone._inside = dict(self._met), self._inside
            told.append(alone.text(value, name=name))
            self._kept += [value, *alone._kept]
            self.modules |= alone.modules
            self.live |= alone.live
        return ", ".join(sorted(told))

    def _module(self, name: str, attributes: Iterable[str] = ()) -> str:
        """`attributes` are names that may be those of modules within: `package.module.function`."""
        if origin(name) == INSTALLED:
            return f"module {_released(name)}"
        self.modules.add(name)
        for within in {f"{name}.{attribute}" for attribute in attributes} & set(sys.modules):
            self._module(within, attributes)
        return f"module {name}"

    def _class(self, kind: type, name: str) -> str:
        label = f"class {_released(kind.__module__)}.{kind.__qualname__}"
        if origin(kind.__module__) == LAB:
            self.modules.add(kind.__module__)
        if origin(kind.__module__) in (LAB, INSTALLED):
            return label
        self.live.add(kind.__module__)
        bases = [self.text(base, name=name) for base in kind.__bases__]
        parts = [
            f"{key}={self.text(part, name=f'{name}.{key}')}"
            for key, part in sorted(vars(kind).items())
            if key not in BOOKKEEPING
            and not isinstance(part, types.MemberDescriptorType | types.GetSetDescriptorType)
        ]
        return f"{label}{bases}{parts}"

    def _function(self, function: types.FunctionType, name: str) -> str:
        where = function.__module__ or "__main__"
        label = f"function {_released(where)}.{function.__qualname__}"
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
        if vars(function):
            parts.append(("attributes", vars(function)))
        code = code_text(function.__code__, self.text)
        for key in sorted(globals_of(function.__code__)):
            if key in function.__globals__:
                parts.append((key, function.__globals__[key]))
            elif not hasattr(builtins, key):
                parts.append((key, "there is no such name"))
        imported = []
        for module, names in imports_of(function.__code__):
            imported.append(self._module(module))
            self.modules |= {f"{module}.{n}" for n in names if origin(module) != INSTALLED}
        attributes = attributes_of(function.__code__)
        for _, part in parts:
            if isinstance(part, types.ModuleType):
                self._module(part.__name__, attributes)
        return f"{code}{[(key, self.text(part, name=key)) for key, part in parts]}{imported}"


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """What an object keeps, in its `__dict__` and in the slots of its classes."""
    yield from getattr(value, "__dict__", {}).items()
    for kind in type(value).__mro__:
        if origin(kind.__module__) == INSTALLED:
            continue
        for key, slot in vars(kind).items():
            if isinstance(slot, types.MemberDescriptorType) and hasattr(value, key):
                yield key, getattr(value, key)


def _released(module: str) -> str:
    """A module's name; of an installed one with the version, where there is one."""
    top = module.partition(".")[0]
    if origin(module) != INSTALLED or top in sys.stdlib_module_names:
        return module
    return f"{module} {_version(top)}"


@functools.cache
def _version(package: str) -> str:
    """Told alike whether it has been imported yet or not, where it is released under its name."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(package), "__version__", ""))
