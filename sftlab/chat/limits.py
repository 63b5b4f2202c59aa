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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
CHARACTERS = 5_000_000
"""Characters and items that the operations of one render may give in all; to these come 50 for
each character of its messages and tools. Templates of TRL make below 10 of each."""
SECONDS = 5.0
"""Processor time of one render, the last line where the counts say too little."""
SOURCE = 200_000
"""Characters of a template's text. The longest of TRL has 17,000."""
NESTING = 100
"""Depth of lists and dicts in messages, and in what a template makes of them."""
ITEMS = 1_000_000  # of a text or list that a filter of Python code goes through item by item
WIDTH = 100_000  # that a text is padded to, and other whole numbers that a filter takes
BITS = 100_000  # of a product of whole numbers
EVERY = 1000  # spent characters between two looks at the clock
PAUSE = 0.1  # seconds between two looks at the processor's time, which can take 10 us
CALL = 4  # spent by an operation, whatever it gives
SLOW = 100_000  # characters for a filter that may take the square of their number of steps

_WIDTHS = set("center ljust rjust zfill to_bytes round batch slice truncate wordwrap".split())
_PRODUCTS = set("translate indent expandtabs tojson sum xmlattr".split())
_SEARCHES = set("rfind rindex rsplit rpartition strip lstrip rstrip trim".split())
_SLOW = set("striptags urlize wordwrap wordcount title urlencode pprint xmlattr".split())
_ITERATING = set("sort unique groupby min max sum list batch slice join map select reject".split())
_ITERATING |= set("selectattr rejectattr dictsort reverse last random".split())
_GUARDED = (
    _WIDTHS | _PRODUCTS | _SEARCHES | _SLOW | _ITERATING | {"replace", "format", "format_map"}
)
_COMPARING = set("in == eq equalto != ne > gt greaterthan >= ge < lt lessthan <= le".split())
INNER = ("_loop_vars", "_block_vars")
_VIEWS = (type({}.keys()), type({}.values()), type({}.items()))
_CONTAINERS = (list, tuple, dict, set, frozenset, *_VIEWS)
_SINGLE = {str, int, float, bool, type(None)}


class LimitError(Exception):
    """What a template does that goes beyond a limit, in words."""


class Budget:
    """What one render may still do. `values` are those that the template is rendered with."""

    current: ContextVar["Budget"] = ContextVar("budget")

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values: Mapping[str, Any] | None = values
        self.passes, self.left, self.extra = PASSES, CHARACTERS, 0
        self.mark, self.end, self.next = self.left - EVERY, 0.0, time.monotonic() + PAUSE
        self.weights: dict[int, tuple[Any, int, int]] = {}

    def one_pass(self) -> bool:
        self.passes -= 1
        if self.passes < 0:
            self._extend()
            if self.passes < 0:
                raise LimitError(f"its loops make over {PASSES:,} passes in one render")
        self.left -= 1
        if self.left < self.mark:
            self.look()
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
        if time.monotonic() > self.next:
            used = time.thread_time()
            self.end = self.end or used + SECONDS
            if used > self.end:
                raise LimitError(f"it takes over {SECONDS:g} seconds of processor time")
            self.next = time.monotonic() + PAUSE
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
        if isinstance(value, (str, bytes)):
            return len(value) + 1, 0
        if not isinstance(value, _CONTAINERS):
            return 1, 0
        known = self.weights.get(id(value))
        if known is None:
            parts = chain(value, value.values()) if isinstance(value, dict) else value
            weight, depth = 1, 0
            for part in parts:
                if type(part) in _SINGLE:
                    weight += len(part) + 1 if type(part) is str else 1
                    continue
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

    def guard(self, name: str, given: Sequence[Any]) -> None:
        """Refuse a filter or method that would give or do too much with these arguments."""
        first, rest = given[0], given[1:]
        sizes = [*map(self.weigh, given), 0]
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
        elif name in ("format", "format_map") and isinstance(first, str):
            dynamic = max(widths, default=0) if "*" in first or re.search(r"{[^}]*{", first) else 0
            fixed = max(map(float, re.findall(r"\d+", first)), default=0)
            fields = first.count("%") + first.count("{")
            self.fits(sizes[0] + fields * (max(sizes[1:]) + dynamic + fixed))
        if name in _ITERATING and hasattr(first, "__len__"):
            self.spend(len(first))

    def made(self, value: Any) -> Any:
        """The value, after what it weighs is checked and its length is spent."""
        if type(value) in _SINGLE:
            self.spend(len(value) + CALL if type(value) is str else CALL)
        elif isinstance(value, _VIEWS):
            self.spend(CALL)
        elif isinstance(value, _CONTAINERS):
            self.fits(self.weigh(value))
            self.spend(len(value) + CALL)
        elif isinstance(value, Iterator):
            return self._counted(value)
        else:
            self.spend(len(value) + CALL if isinstance(value, (str, bytes)) else CALL)
        return value

    def _counted(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            yield self.made(item)


class _Code(jinja2.compiler.CodeGenerator):
    """Code that reports passes, slices, comparisons and literals; joins `~` by `concat`."""

    def visit_For(self, node: nodes.For, frame: Any) -> None:
        place = {"lineno": node.lineno, "environment": self.environment}
        count = nodes.EnvironmentAttribute("one_pass", **place)
        node.body.insert(0, nodes.ExprStmt(count, **place))
        if node.test is not None:
            node.test = nodes.And(count, node.test, **place)
        super().visit_For(node, frame)

    def visit_EnvironmentAttribute(self, node: nodes.EnvironmentAttribute, frame: Any) -> None:
        super().visit_EnvironmentAttribute(node, frame)
        self.write("()" if node.name == "one_pass" else "")

    def visit_Add(self, node: nodes.Add, frame: Any) -> None:
        """A sum as one call: `'<|im_start|>' + message.role + '\\n'` is nearly every template."""
        parts: list[nodes.Expr] = [node]
        while isinstance(parts[0], nodes.Add):
            parts[:1] = [parts[0].left, parts[0].right]
        numbers = (isinstance(part, nodes.Const) and type(part.value) is int for part in parts)
        if len(parts) == 2 and any(numbers):
            super().visit_Add(node, frame)
            return
        self.write("environment.plus(")
        for part in parts:
            self.visit(part, frame)
            self.write(", ")
        self.write(")")

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
        report = isinstance(node.arg, nodes.Slice)
        self._reported("visit_Getitem", node, frame, report, by="sliced")

    def visit_List(self, node: nodes.List, frame: Any) -> None:
        constant = all(isinstance(item, nodes.Const) for item in node.items)
        self._reported("visit_List", node, frame, not constant)

    def visit_Tuple(self, node: nodes.Tuple, frame: Any) -> None:
        self._reported("visit_Tuple", node, frame, node.ctx == "load")

    def visit_Dict(self, node: nodes.Dict, frame: Any) -> None:
        self._reported("visit_Dict", node, frame, True)

    def _reported(
        self, visit: str, node: nodes.Node, frame: Any, report: bool, by: str = "made"
    ) -> None:
        self.write(f"environment.{by}(" if report else "")
        getattr(super(), visit)(node, frame)
        self.write(")" if report else "")


def limited(environment: jinja2.Environment) -> jinja2.Environment:
    """The sandboxed environment with limits. Render in it within a `Budget.current`."""
    # Folding constants takes the cube of an expression's depth in jinja2 3.1.6.
    environment = environment.overlay(optimized=False)
    environment.code_generator_class = _Code
    environment.intercepted_binops = frozenset("* ** % //".split())
    plain_call, operators, join = environment.call, environment.binop_table, environment.concat
    current = Budget.current.get

    def made(value: Any) -> Any:
        return current().made(value)

    def sliced(value: Any) -> Any:
        current().spend(len(value) + CALL if hasattr(value, "__len__") else CALL)
        return value

    def one_pass() -> bool:
        return current().one_pass()

    def call(context: Any, called: Any, *args: Any, **options: Any) -> Any:
        budget = current()
        budget.spend(4 * CALL)  # macros that call each other take some 10 us a call
        given = args
        if options:  # jinja2 adds variables of the loop and block, for macros that read a context
            own = (value for key, value in options.items() if key not in INNER)
            given = (*args, *own)
        if given and (name := getattr(called, "__name__", "")) in _GUARDED:
            of = getattr(getattr(called, "__wrapped__", called), "__self__", None)
            budget.guard(name, [of, *given])
        if len(given) > 1:  # a macro's varargs, a namespace
            for value in given:
                if isinstance(value, _CONTAINERS):
                    budget.fits(budget.weigh(value))
        return budget.made(plain_call(context, called, *args, **options))

    def plus(total: Any, *rest: Any) -> Any:
        for part in rest:
            total = total + part
        if type(total) is str:
            current().spend((len(total) + CALL) * len(rest))
        elif type(total) is not int:  # a part is at most as long, and each operation has a look
            size = len(total) if isinstance(total, (str, list, tuple)) else 1
            current().spend((size + CALL) * len(rest))
            if isinstance(total, (list, tuple)):
                current().fits(current().weigh(total))
        return total

    def call_binop(context: Any, operator: str, left: Any, right: Any) -> Any:
        budget = current()
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
        if type(value) is not str:
            budget = current()
            budget.fits(weight := budget.weigh(value))
            budget.spend(weight)
        return value

    def concat(parts: Iterable[str]) -> str:
        parts = list(parts)
        current().spend(sum(map(len, parts)))
        return join(parts)

    def guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        passed = hasattr(function, "jinja_pass_arg")
        fewest = 1 if name in _ITERATING | _SLOW | {"format"} else 2

        @wraps(function)  # with the marks by which jinja2 knows what to pass
        def run(*args: Any, **options: Any) -> Any:
            budget = current()
            if name in _GUARDED and len(args) - passed + len(options) >= fewest:
                budget.guard(name, [*args[passed:], *options.values()])
            return budget.made(function(*args, **options))

        return run

    def compared(name: str, function: Callable[..., bool]) -> Callable[..., bool]:
        @wraps(function)
        def run(value: Any, other: Any) -> bool:
            current().look()
            return function(value, other)

        return run if name in _COMPARING else function

    class Namespace(environment.globals["namespace"]):
        def __repr__(self) -> str:  # jinja2's writes all that it holds, which is never measured
            return "<Namespace>"

    environment.sliced = sliced
    environment.made, environment.one_pass, environment.plus = made, one_pass, plus
    environment.call, environment.call_binop = call, call_binop
    environment.finalize, environment.concat = finalize, concat
    environment.filters = {k: guarded(k, v) for k, v in environment.filters.items()}
    environment.tests = {k: compared(k, v) for k, v in environment.tests.items()}
    unlimited = ("lipsum",)  # random words, as many as it is asked for
    environment.globals = {k: v for k, v in environment.globals.items() if k not in unlimited}
    environment.globals["namespace"] = Namespace
    return environment
