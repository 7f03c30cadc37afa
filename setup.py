"""Builds the native kernels, one library for each instruction set; what does not compile is left out with a warning."""

import ast
from pathlib import Path

from setuptools import Extension, setup

ROOM = Path("prefrank/native")
COMMON = (
    *("-std=c++17", "-O3", "-g0"),
    *("-fno-strict-aliasing", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
)


def flags() -> dict[str, tuple[str, ...]]:
    """FLAGS of the package's own module, read without importing it."""
    for node in ast.parse((ROOM / "__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "FLAGS":
            return ast.literal_eval(node.value)
    raise LookupError("FLAGS")


setup(
    ext_modules=[
        Extension(
            f"prefrank.native._{name}",
            [str(path) for path in sorted(ROOM.glob("*.cpp"))],
            depends=[str(path) for path in sorted(ROOM.glob("*.h"))],
            extra_compile_args=[*COMMON, *own],
            optional=True,
        )
        for name, own in flags().items()
    ],
)
