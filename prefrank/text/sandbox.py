"""Chat templates as transformers renders them, with a budget: Jinja's sandbox, its tags, filters and globals, counted.

The code that Jinja makes of a template counts itself: each body of a loop, macro, block or condition charges the number
of nodes that it holds before it runs, and operators, calls, filters and texts go through the rendering's budget.

One rendering has one `Budget` (`budget.py`) of steps of work and bytes of memory. `compiled` refuses a source that is
too large or too deep, then has Jinja write Python in which `_Sandbox` and its code generator put a charge before all
that costs: `step(n)` where a body of n nodes begins, `add`, `binary` and `compare` for operators, and the functions of
`charged.py` for filters, tests and methods. Each charge comes before the work that it pays for. So `'a' * 10**9` is
refused before a byte of it is made, and a loop in a loop when the steps are used up. What is left never grows during a
rendering and no clock is read: the same template and messages are refused at the same place on every machine. A
`Refused` is the template's fault and becomes a BadModel of one line in `rendering.py`; what a template raises itself
becomes a BadText.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from types import BuiltinMethodType, MethodType
from typing import Any, NamedTuple

from jinja2 import Template, TemplateError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.compiler import operators as signs
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Cycler, Joiner, Namespace
from markupsafe import EscapeFormatter, Markup

from prefrank.limits import limit, past
from prefrank.text.budget import CALLS, Budget, Refused
from prefrank.text.charged import (
    arguments,
    charged_filters,
    charged_tests,
    check_field,
    other_method,
    text_method,
)

_BODIES = (nodes.For, nodes.If, nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.AssignBlock, nodes.With,
           nodes.Block, nodes.Scope)  # fmt: skip
_MAKES = (nodes.List, nodes.Tuple, nodes.Dict, nodes.Call, nodes.Macro, nodes.CallBlock)
"""Nodes that make a value with room of its own."""
DEEPEST_BODY, MOST_IN_LOOPS, MOST_COPIES = 60, 300_000, 500_000
"""Bodies in each other; nodes inside loops, once for each loop around them; bodies times names. Those that the
tests know have a fifteenth of the first and a thousandth of the others."""


class FormatMethod(NamedTuple):
    """`str.format` of a text, which only the sandbox can call."""

    text: str
    mapped: bool


def _weight(body: Sequence[nodes.Node]) -> int:
    """The nodes of a body, without the bodies in it, which charge themselves."""
    weight, left = 1, list(body)
    while left:
        node = left.pop()
        weight += 8 if isinstance(node, _MAKES) else 1
        inside = (
            node.iter_child_nodes(exclude=("body", "else_")) if isinstance(node, _BODIES) else node.iter_child_nodes()
        )
        left.extend(inside)
    return weight


class _Counting(CodeGenerator):
    """Python code that charges the budget of its context."""

    def write_commons(self) -> None:
        super().write_commons()
        self.writeline("budget = context.budget")
        self.writeline(
            "step, compare, weighed, key, cut = budget.step, budget.compare, budget.weighed, budget.key, budget.cut"
        )
        self.writeline(
            "text, concat, str_join, markup_join = budget.text, budget.together, budget.beside, budget.beside_escaped"
        )
        self.writeline("escape, add = budget.escape, budget.add")

    def blockvisit(self, nodes: Any, frame: Frame) -> None:
        self.writeline(f"step({_weight(nodes)})")
        super().blockvisit(nodes, frame)

    def visit_For(self, node: nodes.For, frame: Frame) -> None:  # noqa: N802
        if node.test is not None:
            node.test = nodes.And(nodes.EnvironmentAttribute(f"step({_weight([node.test])})"), node.test)
        super().visit_For(node, frame)

    def visit_EnvironmentAttribute(self, node: nodes.EnvironmentAttribute, frame: Frame) -> None:  # noqa: N802
        self.write(node.name)  # no template has these: it is our own call

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: Any) -> str:
        if not isinstance(node, nodes.TemplateData):
            raise nodes.Impossible()  # nothing is worked out before there is a budget
        return super()._output_child_to_const(node, frame, finalize)

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        if frame.eval_ctx.volatile:
            self.write("(escape if context.eval_ctx.autoescape else text)(")
        else:
            self.write("escape(" if frame.eval_ctx.autoescape else "text(")

    def visit_Add(self, node: nodes.BinExpr, frame: Frame) -> None:  # noqa: N802
        self.write("add(")
        self.visit(node.left, frame)
        self.write(", ")
        self.visit(node.right, frame)
        self.write(")")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:  # noqa: N802
        fixed = [isinstance(side, nodes.Const) for side in (node.expr, *(operand.expr for operand in node.ops))]
        inside = node.ops[0].op in ("in", "notin") and not _is_constant(node.ops[0].expr)
        if len(node.ops) == 1 and (inside or not any(fixed)) and not _is_constant(node.ops[0].expr):
            self.write(f"compare({node.ops[0].op!r}, ")
            self.visit(node.expr, frame)
            self.write(", ")
            self.visit(node.ops[0].expr, frame)
            self.write(")")
            return
        self.write("(weighed(" if not fixed[0] and len(node.ops) > 1 else "((")
        self.visit(node.expr, frame)
        self.write(")")
        for operand in node.ops:
            self.write(f" {signs[operand.op]} " + ("weighed(" if len(node.ops) > 1 else "("))
            self.visit(operand.expr, frame)
            self.write(")")
        self.write(")")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        if isinstance(node.arg, nodes.Const):
            super().visit_Getitem(node, frame)
            return
        sliced = isinstance(node.arg, nodes.Slice)
        self.write("cut(" if sliced else "environment.getitem(")
        self.visit(node.node, frame)
        self.write(", slice(" if sliced else ", key(")
        parts = (node.arg.start, node.arg.stop, node.arg.step) if isinstance(node.arg, nodes.Slice) else (node.arg,)
        for place, part in enumerate(parts):
            self.write(", " if place else "")
            self.visit(part, frame) if part is not None else self.write("None")
        self.write("))")

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        self.write("{")
        for pair in node.items:
            self.write("" if isinstance(pair.key, nodes.Const) else "key")
            self.write("(")
            self.visit(pair.key, frame)
            self.write("): ")
            self.visit(pair.value, frame)
            self.write(", ")
        self.write("}")


def _is_constant(node: nodes.Node) -> bool:
    if isinstance(node, nodes.List | nodes.Tuple):
        return all(isinstance(item, nodes.Const) for item in node.items)
    return isinstance(node, nodes.Const)


class _Context(Context):
    """The variables of one rendering, and its budget."""

    budget: Budget

    def derived(self, locals: dict[str, Any] | None = None) -> Context:
        made: Any = super().derived(locals)  # of the environment's class, which is this one
        made.budget = self.budget
        return made


class _Formatter(SandboxedFormatter):
    def __init__(self, environment: Any, budget: Budget) -> None:
        super().__init__(environment)
        self.budget = budget

    def format_field(self, value: Any, format_spec: str) -> Any:
        check_field(self.budget, value, format_spec)
        return self.budget.spent(super().format_field(value, format_spec))

    def convert_field(self, value: Any, conversion: Any) -> Any:
        if conversion:
            check_field(self.budget, value, "")
        return super().convert_field(value, conversion)


class _EscapeFormatter(_Formatter, EscapeFormatter):
    def __init__(self, environment: Any, budget: Budget) -> None:
        EscapeFormatter.__init__(self, Markup.escape)
        self._env, self.budget = environment, budget


class _Generation(Extension):
    """`{% generation %}`, which says what a model has written: here that stands as it is."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's own)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Attributes(Namespace):
    """A namespace without names that begin with an underscore."""

    def __init__(
        *args: Any, **named: Any
    ) -> None:  # its first argument has no name, as an attribute may be called self
        self, *given = args
        attributes = dict(*given, **named)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace has no attribute {name!r}, whose name begins with an underscore")


class _Dictionary:
    """What a template may call of Python's `dict`."""

    def __call__(self, *args: Any, **named: Any) -> dict[Any, Any]:
        return dict(*args, **named)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def _raise_exception(message: Any) -> None:
    raise TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _lipsum(*_: Any, **__: Any) -> None:
    raise Refused("chooses by chance, so that a row would be another at each call")


_DICTIONARY = _Dictionary()
_NESTING = (Macro, LoopContext, BlockReference)
_OF_DICTIONARIES = frozenset(dir(dict))
_OF_LOOPS = frozenset(("first", "last", "index", "index0", "length", "previtem", "nextitem", "revindex", "revindex0"))
_METHODS = (BuiltinMethodType, MethodType)
_OWNERS = (list, tuple, dict, range, int, float, bytes, LoopContext, Cycler, _Dictionary)
"""Whose methods a template may call, beside those of texts."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, counted."""

    code_generator_class = _Counting
    context_class = _Context
    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=[_Generation, loopcontrols])
        self.filters = charged_filters()
        self.tests = charged_tests()
        self.globals |= {
            "raise_exception": _raise_exception, "strftime_now": _strftime_now, "lipsum": _lipsum,
            "dict": _DICTIONARY, "namespace": _Attributes,
        }  # fmt: skip
        self.callables = {id(self.globals[name]) for name in ("range", "cycler", "joiner", *self.globals)}

    def wrap_str_format(self, value: Any) -> Any:
        named = isinstance(value, _METHODS) and value.__name__
        if named in ("format", "format_map") and isinstance(value.__self__, str):
            return FormatMethod(value.__self__, named == "format_map")
        return None

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict and attribute in obj and attribute not in _OF_DICTIONARIES:
            return obj[attribute]  # what the sandbox comes to after an error and several checks
        if type(obj) is LoopContext and attribute in _OF_LOOPS:
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        return context.budget.binary(operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 (as arguments may be called self)
        budget: Budget = __context.budget
        budget.step(4 + len(args) + len(kwargs))
        if isinstance(__obj, _NESTING):
            budget.depth += 1
            if budget.depth > CALLS:
                raise Refused(f"calls its macros and loops inside each other more than {CALLS} deep")
            try:
                return __context.call(__obj, *args, **kwargs)
            finally:
                budget.depth -= 1
        if isinstance(__obj, Undefined):
            return __obj(*args)
        kwargs = {name: value for name, value in kwargs.items() if name not in ("_loop_vars", "_block_vars")}
        if type(__obj) is FormatMethod:
            return __self._formatted(budget, __obj, args, kwargs)
        if isinstance(__obj, _METHODS):
            owner = __obj.__self__
            if isinstance(owner, str):
                return text_method(budget, owner, __obj.__name__, args, kwargs)
            if isinstance(owner, _OWNERS):
                return other_method(budget, owner, __obj.__name__, args, kwargs)
        elif id(__obj) in __self.callables or isinstance(__obj, Joiner):
            for value in arguments(args, kwargs):
                budget.weighed(value)
            budget.make(256)
            return budget.spent(__obj(*args, **kwargs))
        raise Refused(f"calls a {type(__obj).__name__}, which a chat template may not")

    def _formatted(self, budget: Budget, target: FormatMethod, args: Sequence[Any], named: Mapping[str, Any]) -> str:
        if target.mapped:
            (named,), args = args, ()
        kind = _EscapeFormatter if isinstance(target.text, Markup) else _Formatter
        budget.step((len(target.text) >> 2) + 1)
        made = kind(self, budget).vformat(target.text, args, named)
        return budget.spent(type(target.text)(made))


@lru_cache(maxsize=1)
def _environment() -> _Sandbox:
    return _Sandbox()


@lru_cache(maxsize=64)
def compiled(source: str) -> Template:
    """A chat template as Python code that counts its work.

    Raises:
        Refused: a source that is longer or nested more deeply than any model's.
        TemplateSyntaxError: it is not Jinja's language.
    """
    if len(source) > limit("template_characters"):
        raise Refused(f"has {len(source):,} characters, {past('template_characters')}")
    environment = _environment()
    try:
        tree = environment.parse(source)
        _check_size(tree)
        code = environment.compile(tree)
    except (RecursionError, MemoryError, SyntaxError, ValueError, OverflowError) as error:
        raise Refused("is nested more deeply than any model's, or holds a number of thousands of digits") from error
    return Template.from_code(environment, code, environment.make_globals(None))


def _check_size(tree: nodes.Template) -> None:
    """Jinja's compiler looks at a loop's nodes for each loop around them, and copies the names for each body."""
    names: set[str] = set()
    bodies = within = 0
    left: list[tuple[nodes.Node, int, int]] = [(tree, 0, 0)]
    while left:
        node, loops, depth = left.pop()
        loops, depth = loops + isinstance(node, nodes.For), depth + isinstance(node, _BODIES)
        if isinstance(node, nodes.Macro) or (isinstance(node, nodes.Name) and node.ctx != "load"):
            names.add(node.name)
        bodies, within = bodies + isinstance(node, _BODIES), within + loops
        if depth > DEEPEST_BODY or within > MOST_IN_LOOPS or bodies * len(names) > MOST_COPIES:
            raise Refused("has more loops, conditions or names, or more inside each other, than any model's")
        left.extend((child, loops, depth) for child in node.iter_child_nodes())


def render(source: str, messages: Sequence[Mapping[str, Any]], tokens: Mapping[str, str], *, cue: bool = False) -> str:
    """What a chat template writes for messages.

    Args:
        messages: as `Turn.message` gives them; the template cannot change them.
        tokens: special tokens by name.
        cue: whether what opens a reply is asked for.

    Raises:
        Refused: the template costs more than it may, or does what none may.
        Exception: what the template itself raises.
    """
    template = compiled(source)
    budget = Budget(messages)
    variables = {"messages": [_with_thoughts(message) for message in messages], "tools": None, "documents": None}
    context: Any = template.new_context({**variables, "add_generation_prompt": cue, **tokens})
    context.budget = budget
    pieces, size = [], 0
    for piece in template.root_render_func(context):
        pieces.append(piece)
        size += len(piece) + 16
        if size > budget.bytes:
            budget.room(size)
    return "".join(pieces)


def _with_thoughts(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """The message with its reasoning under both of the names that templates read, as transformers gives it."""
    reasoning = message.get("reasoning_content")
    return message if reasoning is None else {"thinking": reasoning, **message}
