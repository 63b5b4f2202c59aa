"""Limits under which a chat template is compiled and rendered, since it is code from elsewhere.

    {% for i in range(99999) %}{% for j in range(99999) %}     too many passes
    {{ "x" * 10**9 }}                                          too much text
    {% set l = [l, l] %}, thirty times                         too much text once it is written

jinja2's sandbox bounds a single `range` and nothing else. Here a `Budget` counts, told by filters
that `compiled` puts around loops and operations; between these it reads the clock, in any thread
and on Windows. Not covered is one operation that takes long and gives little, such as `striptags`
of many comments or `rfind` in millions of letters.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import wraps
from itertools import chain
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.visitor import NodeTransformer

PASSES = 2_000_000  # of loops in one render: from each of 1,400 messages to all others
CHARACTERS = 20_000_000  # and items that operations give in a render; TRL's take below 10 for each
SECONDS = 5.0  # processor time of one render
SOURCE = 200_000  # characters of a template's text; the longest of TRL has 17,000
NESTING = 100  # of lists and dicts in messages; Python's own limit bounds what a template makes
WIDTH = 100_000  # the largest whole number for a filter or method, as in the sandbox's `range`
BITS = 14_000  # of a product of whole numbers; Python writes none of over 4,300 digits
EVERY = 500  # operations and passes between two looks at the clock, which can take 100 us

_METHODS = "center ljust rjust zfill to_bytes expandtabs replace join translate format format_map"
_METHODS = set(_METHODS.split())
_PRODUCTS = set("indent expandtabs tojson translate wordwrap".split())
_INNER = ("_loop_vars", "_block_vars")  # which jinja2 adds for macros that read a context
_SIZED = (list, tuple, dict, set, frozenset)
_CONTAINERS = (*_SIZED, type({}.keys()), type({}.values()), type({}.items()))


class LimitError(Exception):
    """What a template does that goes beyond a limit, in words."""


class Budget:
    """What one render may still do."""

    current: ContextVar["Budget"] = ContextVar("budget")

    def __init__(self) -> None:
        self.passes, self.left, self.events, self.end = PASSES, CHARACTERS, EVERY, 0.0
        self.weights: dict[int, tuple[Any, int]] = {}

    def spend(self, amount: int) -> None:
        """Count an operation that gave so many characters or items."""
        self.left -= amount
        self.events -= 1
        if self.left < 0:
            raise LimitError(f"it makes over {CHARACTERS:,} characters in one render")
        if self.events < 0:
            self.events = EVERY
            used = time.thread_time()
            self.end = self.end or used + SECONDS
            if used > self.end:
                raise LimitError(f"it takes over {SECONDS:g} seconds of processor time")

    def passing(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items of a loop, each counted."""
        for item in items:
            self.passes -= 1
            if self.passes < 0:
                raise LimitError(f"its loops make over {PASSES:,} passes in one render")
            self.spend(0)
            yield item

    def made(self, value: Any) -> Any:
        """The value, counted; nested containers may not hold more than could be written."""
        if type(value) is str:  # nearly always
            self.spend(len(value))
            return value
        if isinstance(value, _SIZED):
            self.fits(self.weigh(value))
        self.spend(len(value) if isinstance(value, (str, bytes, *_SIZED)) else 0)
        return value

    def fits(self, amount: int) -> None:
        """Refuse what would give `amount` characters, before it is done."""
        if amount > self.left:
            raise LimitError(f"one operation makes over {self.left:,} characters")

    def weigh(self, value: Any) -> int:
        """Characters and items of a value with all that it holds, each time that it holds it."""
        if isinstance(value, (str, bytes)):
            return len(value) + 1
        if not isinstance(value, _CONTAINERS):
            return 1
        known = self.weights.get(id(value))  # a container can't change in this sandbox
        if known is None:
            parts = chain(value, value.values()) if isinstance(value, dict) else value
            known = value, 1 + sum(map(self.weigh, parts))
            self.weights[id(value)] = known  # with the value, so that its id stays its own
        return known[1]

    def guard(self, name: str, first: Any, *rest: Any) -> None:
        """Refuse a filter or method that would give too much with these arguments."""
        numbers = [abs(value) for value in rest if isinstance(value, int)]
        sizes = [self.weigh(value) for value in rest]
        if name.startswith("format"):
            text = str(first)
            taken = re.findall(r"\d+", text)
            if "*" in text or re.search(r"{[^}]*{", text):  # widths that are arguments
                taken += numbers
            each = max(map(float, taken), default=0) + max(sizes, default=0)
            self.fits(len(text) + (text.count("%") + text.count("{")) * each)
        elif max(numbers, default=0) > WIDTH:
            raise LimitError(f"{name} is given a whole number over {WIDTH:,}")
        elif name in _PRODUCTS:
            self.fits(self.weigh(first) * max([*numbers, *sizes, 1]))
        elif name == "sum" and any(isinstance(value, _SIZED) for value in rest):
            self.fits(self.weigh(first) ** 2)  # each list is added to a copy of those before
        elif name == "replace" and len(rest) > 1:
            found = first.count(str(rest[0])) if isinstance(first, str) else self.weigh(first)
            self.fits(self.weigh(first) + found * sizes[1])
        elif name == "join" and rest:
            length = len(first) if hasattr(first, "__len__") else WIDTH
            self.fits(self.weigh(first) + length * sizes[0])


class _Counting(NodeTransformer):
    """Puts filters of `limited` around the loops and operations of a parsed template."""

    def __init__(self, environment: jinja2.Environment) -> None:
        self.environment = environment

    def _through(self, name: str, node: nodes.Expr) -> nodes.Filter:
        around = nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
        return around.set_environment(self.environment)

    def _made(self, node: nodes.Expr) -> nodes.Filter:
        return self._through("(made)", self.generic_visit(node))

    visit_List = visit_Dict = _made

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:
        return self._made(node) if node.ctx == "load" else node

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = self._through("(passing)", node.iter)
        return node

    def visit_Add(self, node: nodes.Add) -> nodes.Filter:
        """A sum as one operation: `'<|im_start|>' + message.role + '\\n'`."""
        part = node
        while isinstance(part.left, nodes.Add):
            part.right = self.visit(part.right)
            part = part.left
        self.generic_visit(part)
        return self._through("(made)", node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        parts = self.generic_visit(node).nodes
        return self._through("(joined)", nodes.List(parts, lineno=node.lineno))

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        sliced = isinstance(node.arg, nodes.Slice)
        return self._made(node) if sliced else self.generic_visit(node)


def compiled(text: str, environment: jinja2.Environment) -> jinja2.Template:
    """The template of a text for an environment made by `limited`, with its counts."""
    if len(text) > SOURCE:
        raise LimitError(f"it has {len(text):,} characters, over {SOURCE:,}")
    tree = _Counting(environment).visit(environment.parse(text))
    return within_limits(environment.from_string, tree)  # jinja2 runs filters of constants here


def within_limits(function: Callable[..., Any], *args: Any) -> Any:
    """Call the function with a new budget."""
    token = Budget.current.set(Budget())
    try:
        return function(*args)
    finally:
        Budget.current.reset(token)


def limited(environment: jinja2.Environment) -> jinja2.Environment:
    """The sandboxed environment with limits. Compile for it with `compiled`."""
    # Folding constants takes the cube of an expression's depth in jinja2 3.1.6.
    environment = environment.overlay(optimized=False)
    environment.intercepted_binops = frozenset("* ** % //".split())
    plain_call, operators, join = environment.call, environment.binop_table, environment.concat
    current = Budget.current.get

    def call(context: Any, called: Any, *args: Any, **options: Any) -> Any:
        budget, given = current(), args
        if options:
            given = (*args, *(options[key] for key in options if key not in _INNER))
        if given and (name := getattr(called, "__name__", "")) in _METHODS:
            of = getattr(getattr(called, "__wrapped__", called), "__self__", None)
            first, *rest = [*given, of] if name == "join" else [of, *given]
            budget.guard(name, first, *rest)
        for value in given:
            if isinstance(value, _SIZED):  # it may become one of a macro's varargs
                budget.fits(budget.weigh(value))
        return budget.made(plain_call(context, called, *args, **options))

    def call_binop(context: Any, operator: str, left: Any, right: Any) -> Any:
        budget = current()
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * (right if operator == "**" else 1) + right.bit_length()
            if bits > BITS:
                raise LimitError(f"{operator} makes or takes a number of over {BITS:,} bits")
        elif operator == "*":
            for one, times in ((left, right), (right, left)):
                if isinstance(times, int):
                    budget.fits(budget.weigh(one) * times)
        elif operator == "%" and isinstance(left, str):
            budget.guard("format", left, *(right if isinstance(right, tuple) else [right]))
        return budget.made(operators[operator](left, right))

    def finalize(value: Any) -> Any:
        """For what is written: a list is counted before it becomes text."""
        if type(value) is not str:
            current().spend(current().weigh(value))
        return value

    def concat(parts: Iterable[str]) -> str:
        parts = list(parts)
        current().spend(sum(map(len, parts)))
        return join(parts)

    def guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        passed = hasattr(function, "jinja_pass_arg")

        @wraps(function)  # with the marks by which jinja2 knows what to pass
        def run(*args: Any, **options: Any) -> Any:
            budget = current()
            if hasattr(args[passed], "__len__"):  # most go through it item by item
                budget.spend(len(args[passed]))
            if len(args) - passed + len(options) > 1 and name not in ("default", "d"):
                budget.guard(name, *args[passed:], *options.values())
            return budget.made(function(*args, **options))

        return run

    class Namespace(environment.globals["namespace"]):
        def __repr__(self) -> str:  # jinja2's writes all that it holds, which is never counted
            return "<Namespace>"

    environment.call, environment.call_binop = call, call_binop
    environment.finalize, environment.concat = finalize, concat
    # The names in parentheses are those of `_Counting`; no template can write them.
    environment.filters = {k: guarded(k, v) for k, v in environment.filters.items()} | {
        "(made)": lambda value: current().made(value),
        "(passing)": lambda items: current().passing(items),
        "(joined)": lambda parts: concat(map(str, map(finalize, parts))),
    }
    environment.globals = {**environment.globals, "namespace": Namespace}
    del environment.globals["lipsum"]  # random words, as many as it is asked for
    return environment
