"""Limits under which a chat template is compiled and rendered, since it is code from elsewhere.

    {% for i in range(99999) %}{% for j in range(99999) %}     too many passes
    {{ "x" * 10**9 }}                                          too much text
    {% set l = [l, l] %}, thirty times                         too much text once it is written

jinja2's sandbox bounds a single `range` and nothing else. `limited` adds a `Budget` to it: passes
of loops are counted, an operation that could give far more than it takes is estimated beforehand,
and each operation spends what it gives. So single operations are short, and between them the clock
is read. There is no signal, thread or process in it: it holds in a notebook, in any thread and on
Windows, and the counts come out alike everywhere.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping, ValuesView
from contextvars import ContextVar
from functools import wraps
from itertools import chain
from typing import Any

import jinja2
import jinja2.compiler
from jinja2 import nodes

PASSES = 1_000_000
"""Passes of loops in one render; to these come 4 for each pair of messages, for a template that
looks back from each message. Templates of TRL make below 10 a message."""
CHARACTERS = 20_000_000
"""Characters and items that the operations of one render may give in all; to these come 50 for
each character of its messages and tools. Templates of TRL make below 10 of each."""
SECONDS = 20.0
"""Processor time of one render. A conversation of 2 MB takes one or two, followed by shadows."""
SOURCE = 300_000
"""Characters of a template's text. The longest of TRL has 17,000."""
NESTING = 100
"""Depth of lists and dicts in messages, and in what a template makes of them."""
ITEMS = 1_000_000  # of a text or list that a filter of Python code goes through item by item
WIDTH = 100_000  # that a text is padded to, and other whole numbers that a filter takes
BITS = 100_000  # of a product of whole numbers
EVERY = 500  # spent characters between two looks at the clock, which take 1 us each
SLOW = 100_000  # characters for a filter that may take the square of their number of steps

_WIDTHS = set("center ljust rjust zfill to_bytes round batch slice truncate wordwrap".split())
_PRODUCTS = set("translate indent expandtabs tojson sum xmlattr".split())
_SEARCHES = set("rfind rindex rsplit rpartition strip lstrip rstrip trim".split())
_SLOW = set("striptags urlize wordwrap wordcount title urlencode pprint xmlattr".split())
_ITERATING = set("sort unique groupby min max sum list batch slice join map select reject".split())
_ITERATING |= set("selectattr rejectattr dictsort reverse last random".split())
_GUARDED = _WIDTHS | _PRODUCTS | _SEARCHES | _SLOW | _ITERATING | {"replace", "format"}
_COMPARING = set("in == eq equalto != ne > gt greaterthan >= ge < lt lessthan <= le".split())
_CONTAINERS = (list, tuple, dict, set, frozenset, KeysView, ValuesView, type({}.items()))


class LimitError(Exception):
    """What a template does that goes beyond a limit, in words."""


class Budget:
    """What one render may still do. `values` are those that the template is rendered with."""

    current: ContextVar["Budget"] = ContextVar("budget")

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values: Mapping[str, Any] | None = values
        self.passes, self.left, self.extra = PASSES, CHARACTERS, 0
        self.mark, self.end = self.left - EVERY, time.thread_time() + SECONDS
        self.weights: dict[int, tuple[Any, int, int]] = {}

    def one_pass(self) -> bool:
        self.passes -= 1
        if self.passes < 0:
            self._extend()
            if self.passes < 0:
                raise LimitError(f"its loops make over {PASSES:,} passes in one render")
        self.spend(1)
        return True

    def spend(self, amount: int) -> None:
        self.left -= amount
        if self.left < self.mark:
            self.look()

    def look(self) -> None:
        if self.left < 0:
            self._extend()
        if self.left < 0:
            raise LimitError(f"it makes over {CHARACTERS + self.extra:,} characters in one render")
        if time.thread_time() > self.end:
            raise LimitError(f"it takes over {SECONDS:g} seconds of processor time")
        self.mark = max(self.left - EVERY, 0)

    def _extend(self) -> None:
        """Allow more for a large conversation; it is measured where it matters only."""
        if self.values is not None:
            given, self.values = self.values, None
            self.passes += 4 * len(given.get("messages") or ()) ** 2
            self.extra = 50 * self.weigh([given.get("messages"), given.get("tools")])
            self.left += self.extra

    def weigh(self, value: Any) -> int:
        """Characters and items of a value with all that it holds, each time that it holds it."""
        return self._measure(value)[0]

    def _measure(self, value: Any) -> tuple[int, int]:
        """Weight and depth. A container can't change in this sandbox, so each is counted once."""
        if isinstance(value, str | bytes):
            return len(value) + 1, 0
        if not isinstance(value, _CONTAINERS):
            return 1, 0
        known = self.weights.get(id(value))
        if known is None:
            parts = chain(value, value.values()) if isinstance(value, dict) else value
            weight, depth = 1, 0
            for part in parts:
                more, deep = self._measure(part)
                weight, depth = weight + more, max(depth, deep)
            if depth >= NESTING:
                raise LimitError(f"it nests lists and dicts more than {NESTING} deep")
            known = self.weights[id(value)] = value, weight, depth + 1  # kept, so the id is its own
        return known[1:]

    def fits(self, amount: int) -> None:
        """Refuse what would give `amount` characters, before it is done."""
        if amount > self.left:
            self._extend()
            if amount > self.left:
                raise LimitError(f"one operation makes over {self.left:,} characters")

    def guard(self, name: str, given: list[Any]) -> None:
        """Refuse a filter or method that would give or do too much with these arguments."""
        sizes = [
            len(value) if isinstance(value, str | bytes) else self.weigh(value) for value in given
        ]
        self.fits(max(sizes, default=0))
        if name not in _GUARDED or not given:
            return
        first, rest = given[0], given[1:]
        widths = [abs(value) for value in rest if isinstance(value, int)]
        if name in _WIDTHS and max(widths, default=0) > WIDTH:
            raise LimitError(f"{name} is given {max(widths):.4g}, over {WIDTH:,}")
        limit = SLOW if name in _SLOW else ITEMS
        if name in _SLOW | _ITERATING and hasattr(first, "__len__") and len(first) > limit:
            raise LimitError(f"{name} goes through over {limit:,} characters or items")
        each = max([*widths, *sizes[1:], 1])
        if name in _PRODUCTS:
            self.fits(sizes[0] * each * (self._measure(first)[1] or 1))
        elif name in _SEARCHES:
            self.spend(sizes[0] * each // 100)
        elif name == "replace" and len(rest) > 1 and isinstance(first, str | bytes):
            self.fits(sizes[0] + sizes[2] * first.count(rest[0]))
        elif name == "join":
            items = zip(given, given[1:] or [""], strict=False)  # the method's text is the first
            for one, other in (*items, *((b, a) for a, b in zip(given, rest, strict=False))):
                if hasattr(one, "__len__") and isinstance(other, str):
                    self.fits(self.weigh(one) + len(one) * len(other))
        elif name == "format" and isinstance(first, str):
            dynamic = max(widths, default=0) if "*" in first or re.search(r"{[^}]*{", first) else 0
            fixed = max(map(float, re.findall(r"\d+", first)), default=0)
            fields = first.count("%") + first.count("{")
            self.fits(sizes[0] + fields * (max(sizes[1:], default=0) + dynamic + fixed))
        if name in _ITERATING and hasattr(first, "__len__"):
            self.spend(len(first))

    def made(self, value: Any) -> Any:
        """The value, after what it weighs is checked and its length is spent."""
        if isinstance(value, str | bytes):
            self.spend(len(value) + 1)
        elif isinstance(value, _CONTAINERS):
            self.fits(self.weigh(value))
            self.spend(len(value) + 1)
        elif isinstance(value, Iterator):
            return self._counted(value)
        else:
            self.spend(1)
        return value

    def _counted(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            yield self.made(item)


def _current(name: str) -> Callable[..., Any]:
    """A method of the budget of the render in which it is called."""
    return lambda value: getattr(Budget.current.get(), name)(value)


class _Code(jinja2.compiler.CodeGenerator):
    """Code that reports passes, slices, comparisons and literals; joins `~` by `concat`."""

    def visit_For(self, node: nodes.For, frame: Any) -> None:
        place = {"lineno": node.lineno, "environment": self.environment}
        once = nodes.EnvironmentAttribute("one_pass", **place)
        count = nodes.Call(once, [], [], None, None, **place)
        node.body.insert(0, nodes.ExprStmt(count, **place))
        if node.test is not None:
            node.test = nodes.And(count, node.test, **place)
        super().visit_For(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Any) -> None:
        self.write("environment.concat(map(str, map(environment.finalize, (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))))")

    def visit_Compare(self, node: nodes.Compare, frame: Any) -> None:
        sides = [node.expr, *(operand.expr for operand in node.ops)]
        alike = all(operand.op in ("eq", "ne") for operand in node.ops)
        short = alike and any(isinstance(side, nodes.Const) for side in sides)
        self._reported("visit_Compare", node, frame, not short)

    def visit_Getitem(self, node: nodes.Getitem, frame: Any) -> None:
        self._reported("visit_Getitem", node, frame, isinstance(node.arg, nodes.Slice))

    def visit_List(self, node: nodes.List, frame: Any) -> None:
        constant = all(isinstance(item, nodes.Const) for item in node.items)
        self._reported("visit_List", node, frame, not constant)

    def visit_Tuple(self, node: nodes.Tuple, frame: Any) -> None:
        self._reported("visit_Tuple", node, frame, node.ctx == "load")

    def visit_Dict(self, node: nodes.Dict, frame: Any) -> None:
        self._reported("visit_Dict", node, frame, True)

    def _reported(self, visit: str, node: nodes.Node, frame: Any, report: bool) -> None:
        self.write("environment.made(" if report else "")
        getattr(super(), visit)(node, frame)
        self.write(")" if report else "")


def limited(environment: jinja2.Environment) -> jinja2.Environment:
    """The sandboxed environment with limits. Render in it within a `Budget.current`."""
    environment = environment.overlay()
    environment.code_generator_class = _Code
    environment.made, environment.one_pass = _current("made"), _current("one_pass")
    environment.intercepted_binops = frozenset("+ * ** % //".split())
    plain_call, operators, join = environment.call, environment.binop_table, environment.concat

    def call(context: Any, called: Any, *args: Any, **options: Any) -> Any:
        budget = Budget.current.get()
        if called is environment.one_pass:
            return budget.one_pass()
        name = getattr(called, "__name__", "")
        if args or options:
            of = getattr(getattr(called, "__wrapped__", called), "__self__", None)
            given = [*args, *options.values()]
            budget.guard(name, [of, *given] if isinstance(of, str | bytes | int) else given)
        return budget.made(plain_call(context, called, *args, **options))

    def call_binop(context: Any, operator: str, left: Any, right: Any) -> Any:
        budget = Budget.current.get()
        if operator == "+":
            if isinstance(left, str | list | tuple) and isinstance(right, type(left)):
                budget.spend(len(left) + len(right))
            return left + right
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * (right if operator == "**" else 1) + right.bit_length()
            if bits > BITS:
                raise LimitError(f"{operator} makes or takes a number of over {BITS:,} bits")
        elif operator == "*":
            for one, times in ((left, right), (right, left)):
                if isinstance(times, int) and hasattr(one, "__len__"):
                    budget.fits(budget.weigh(one) * times)
        elif operator == "%" and isinstance(left, str | bytes):
            budget.guard("format", [left, *(right if isinstance(right, tuple) else [right])])
        return budget.made(operators[operator](left, right))

    def finalize(value: Any) -> Any:
        if not isinstance(value, str):
            budget = Budget.current.get()
            budget.fits(weight := budget.weigh(value))
            budget.spend(weight)
        return value

    def concat(parts: Iterable[str]) -> str:
        parts = list(parts)
        Budget.current.get().spend(sum(map(len, parts)))
        return join(parts)

    def guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)  # with the marks by which jinja2 knows what to pass
        def run(*args: Any, **options: Any) -> Any:
            budget = Budget.current.get()
            given = args[1:] if hasattr(function, "jinja_pass_arg") else args
            budget.guard(name, [*given, *options.values()])
            return budget.made(function(*args, **options))

        return run

    def compared(name: str, function: Callable[..., bool]) -> Callable[..., bool]:
        @wraps(function)
        def run(value: Any, other: Any) -> bool:
            Budget.current.get().look()
            return function(value, other)

        return run if name in _COMPARING else function

    class Namespace(environment.globals["namespace"]):
        def __repr__(self) -> str:  # jinja2's writes all that it holds, which is never measured
            return "<Namespace>"

    environment.call, environment.call_binop = call, call_binop
    environment.finalize, environment.concat = finalize, concat
    environment.filters = {k: guarded(k, v) for k, v in environment.filters.items()}
    environment.tests = {k: compared(k, v) for k, v in environment.tests.items()}
    unlimited = ("lipsum",)  # random words, as many as it is asked for
    environment.globals = {k: v for k, v in environment.globals.items() if k not in unlimited}
    environment.globals["namespace"] = Namespace
    return environment
