"""Private names of other libraries: each one that prefrank uses, why there is no public one, and that it still stands.

A new version of a library that moves one of them fails here first, by its name, and nothing private that is not in the
list is used anywhere.
"""

import ast
import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from jinja2.compiler import CodeGenerator
from torch.nn import functional as F
from transformers import BertConfig

import prefrank

ROOT = Path(prefrank.__file__).parent
DOCUMENTED = {"_exit", "_replace", "_asdict", "_fields", "_make", "_fields_"}
"""Of os, named tuples and ctypes: part of their public interface."""


class Private(NamedTuple):
    """A private name of another library.

    Args:
        name: as it stands in the source: an attribute, an imported name, or a method that a class of ours overrides.
        why: no public name does.
        stands: fails where the name has moved or takes other arguments.
    """

    name: str
    why: str
    stands: Callable[[], None]


def arguments(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def schema(operator: Any) -> list[str]:
    return [argument.name for argument in operator.default._schema.arguments]


def linear_pointwise() -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch is built without oneDNN")
    operator = torch.ops.mkldnn._linear_pointwise
    assert schema(operator) == ["X", "W", "B", "attr", "scalars", "algorithm"]
    x, weight, bias = torch.randn(3, 8), torch.randn(5, 8), torch.randn(5)
    torch.testing.assert_close(operator(x, weight, bias, "none", [], ""), F.linear(x, weight, bias))


def flash_kernels() -> None:
    kernels = pytest.importorskip("disentangled_flash.training._kernels", reason="the gpu extra is not installed")
    wanted = {"max_seqlen", "score_scale", "strict_fp32", "dropout_p", "gradient_band"}
    assert wanted <= set(arguments(kernels.training_attention_packed))


def attention_of_a_config() -> None:
    config = BertConfig(attn_implementation="eager")
    assert config._attn_implementation == "eager"
    config._attn_implementation = None
    assert config._attn_implementation is None


def experts_of_a_config() -> None:
    assert "_experts_implementation" in dir(BertConfig())


def output_child_to_const() -> None:
    assert arguments(CodeGenerator._output_child_to_const) == ["self", "node", "frame", "finalize"]


def output_child_pre() -> None:
    assert arguments(CodeGenerator._output_child_pre) == ["self", "node", "frame", "finalize"]


PRIVATE = (
    Private("_linear_pointwise", "the public way to oneDNN's product copies the input; torch.compile calls this one",
            linear_pointwise),
    Private("disentangled_flash.training._kernels", "the public modules bring projections of their own; the version is"
            " pinned in pyproject.toml", flash_kernels),
    Private("_attn_implementation", "a config.json's own wish must be taken out of a config that is read, and of its"
            " parts, before a program is looked for", attention_of_a_config),
    Private("_experts_implementation", "as _attn_implementation", experts_of_a_config),
    Private("_output_child_to_const", "a template's constants are folded when it is compiled, before any budget",
            output_child_to_const),
    Private("_output_child_pre", "jinja2 has no hook for what a template puts out", output_child_pre),
)  # fmt: skip
LISTED = {private.name for private in PRIVATE}


@pytest.mark.parametrize("private", PRIVATE, ids=lambda private: private.name)
def test_each_private_name_is_where_it_was(private: Private) -> None:
    private.stands()


def test_no_other_private_name_of_a_library_is_used() -> None:
    used = set().union(*map(private_names, sorted(ROOT.rglob("*.py"))))
    assert used - LISTED == set(), "find a public name, or add a line to PRIVATE that says why there is none"
    assert LISTED - used == set(), "not used any more: delete the line"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in DOCUMENTED


def defined_here(path: Path) -> set[str]:
    """Names that a module of ours gives to something itself."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                names.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                names.add(name)
    return names


OURS = set().union(*map(defined_here, ROOT.rglob("*.py")))


def private_names(path: Path) -> set[str]:
    """Private names of other libraries in a module: attributes, imports, names in strings, and overridden methods."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Attribute(attr=name) if is_private(name) and name not in OURS:
                names.add(name)
            case ast.Constant(value=str(name)) if name in LISTED:
                names.add(name)
            case ast.Call(func=ast.Name(id="getattr" | "setattr" | "hasattr"), args=[_, ast.Constant(value=name), *_]):
                names |= {name} if is_private(name) and name not in OURS else set()
            case ast.ImportFrom(module=str(module), level=0) if not module.startswith("prefrank"):
                names |= {module} if any(map(is_private, module.split("."))) else set()
                names |= {alias.name for alias in node.names if is_private(alias.name)}
            case ast.Import():
                names |= {alias.name for alias in node.names if any(map(is_private, alias.name.split(".")))}
    return names | overridden(path)


def overridden(path: Path) -> set[str]:
    """Private methods of other libraries' classes that classes of a module override."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts == ("__main__",):
        return set()
    module = import_module(".".join(("prefrank", *parts)).removesuffix(".__init__"))
    return {
        name
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__
        for base in value.__mro__[1:]
        if not base.__module__.startswith("prefrank")
        for name in vars(value).keys() & vars(base).keys()
        if is_private(name) and inspect.isfunction(vars(value)[name])
    }
