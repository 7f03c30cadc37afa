"""Estimates with the bounds that their kind has, for the schema of run files."""

from dataclasses import dataclass
from typing import Annotated

from prefrank.io.schema import Between, Wrong
from prefrank.stats.estimates import Estimate

LARGEST = 1e90
"""A figure further from 0 is none that was measured."""


@dataclass(frozen=True, slots=True)
class _Bounded:
    """A value inside its interval's kind, and the interval whole."""

    bounds: Between

    def __call__(self, estimate: Estimate) -> None:
        ends = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
        for name, number in ends.items():
            try:
                if number is not None:
                    self.bounds(number)
            except Wrong as wrong:
                raise wrong.inside(name) from None
        value, low, high = ends.values()
        if (low is None) != (high is None) or (value is None and low is not None):
            raise Wrong([value, low, high], "value, low and high all there, or no interval")
        if low is not None and high is not None and low > high:
            raise Wrong([low, high], "low at most as large as high")
        if estimate.prompts > estimate.n:
            raise Wrong(estimate.prompts, f"at most n = {estimate.n}").inside("prompts")


Free = Annotated[Estimate, _Bounded(Between(-LARGEST, LARGEST))]
Share = Annotated[Estimate, _Bounded(Between(0.0, 1.0))]
Signed = Annotated[Estimate, _Bounded(Between(-1.0, 1.0))]
Probability = Annotated[float, Between(0.0, 1.0)]
