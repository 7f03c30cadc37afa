"""Checks of what callers give: whole numbers, numbers and names. True is no number, and NaN none either."""

import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import TypeGuard

from prefrank.errors import BadInput, short


def is_count(value: object) -> bool:
    """Whether it is a whole number of at least 1, numpy's too."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def is_finite(value: object) -> TypeGuard[float]:
    """Whether it is a finite number, numpy's too."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number past every float
        return False


def check_whole(name: str, value: object, *, least: int, most: int | None = None) -> None:
    """See that an option is a whole number in these bounds.

    Raises:
        BadInput: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        small = most is None or (isinstance(value, int) and value < least)
        wanted = f"at least {least:,}" if small else f"{least:,} to {most:,}"
        raise BadInput(f"{name} is {short(value)}; wanted {wanted}, a whole number")


def check_number(
    name: str, value: object, *, least: float = -math.inf, above: float = -math.inf, below: float = math.inf
) -> None:
    """See that an option is a finite number, at least or above a bound.

    Raises:
        BadInput: it is not.
    """
    if not (isinstance(value, int | float) and is_finite(value) and value >= least and above < value < below):
        bound = f" above {above:g}" if above > -math.inf else f" of at least {least:g}" if least > -math.inf else ""
        bound += f" and below {below:g}" if below < math.inf else ""
        raise BadInput(f"{name} is {short(value)}; wanted a finite number{bound}")


def check_strings(name: str, values: object) -> None:
    """See that an option is a list of strings, at least one, and no string itself.

    Raises:
        BadInput: it is not.
    """
    given = values if isinstance(values, Collection) and not isinstance(values, str | bytes) else None
    if not given or not all(isinstance(text, str) for text in given):
        raise BadInput(f"{name} is {short(values)}; wanted a list of strings, at least one")
