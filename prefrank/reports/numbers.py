"""Numbers and estimates as text: for HTML with a true minus, for Markdown in words, for tables of plain characters."""

from collections.abc import Callable

from prefrank.stats.estimates import Estimate

Real = float | int
"""Whole numbers too, as they come from counts and from pixels."""

# For HTML


def digits(value: Real | None, places: int = 3) -> str:
    """A value with a true minus and no negative zero; "-" if there is none."""
    if value is None:
        return "-"
    text = f"{value:.{places}f}"
    return f"−{text[1:]}" if text[0] == "-" and float(text) != 0 else text.removeprefix("-")


def interval(estimate: Estimate) -> str:
    """An interval in brackets, never broken across lines; or why there is none."""
    if estimate.value is None:
        return "not defined" if estimate.n else "nothing to measure"
    if estimate.low is None:
        return "no interval"
    return f"[{digits(estimate.low)},\u00a0{digits(estimate.high)}]"


def count(estimate: Estimate) -> str:
    """What an estimate rests on: n and its unit."""
    return f"{estimate.n:,}\u00a0{estimate.unit if estimate.n != 1 else estimate.unit.removesuffix('s')}"


def in_words(estimate: Estimate) -> str:
    """Value, interval and what it rests on, in a line."""
    return f"{digits(estimate.value)} {interval(estimate)}, {count(estimate)}"


def p_value(p: float | None) -> str:
    return "-" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


# For Markdown, where a missing number is said to be missing


def stated(value: Real | None) -> str:
    if value is None:
        return "no value"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}"


def stated_interval(estimate: Estimate) -> str:
    """Value and interval."""
    bounds = "" if estimate.low is None else f" [{stated(estimate.low)}, {stated(estimate.high)}]"
    return f"{stated(estimate.value)}{bounds}"


def stated_count(estimate: Estimate) -> str:
    return f"{estimate.n:,} {estimate.unit}"


def stated_estimate(estimate: Estimate) -> str:
    """Value, interval and what it rests on, in a phrase."""
    return f"{stated_interval(estimate)} ({stated_count(estimate)})"


# For tables of plain characters; "-" where there is no value


def three_places(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def points(difference: float | None) -> str:
    """A difference in percentage points, with its sign."""
    return "-" if difference is None else f"{100 * difference:+.1f}"


def from_to(estimate: Estimate, show: Callable[[float | None], str]) -> str:
    """The interval's ends as `show` writes them, without the percent sign."""
    if estimate.low is None:
        return "-"
    return f"{show(estimate.low).removesuffix(' %')} to {show(estimate.high).removesuffix(' %')}"
