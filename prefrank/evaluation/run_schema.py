"""What a run file holds, as one table: everything that is made of runs (pages, cards, boards, comparisons) reads a file
that was checked against it, and so checks nothing itself.

A check is a function of a value that raises `Wrong`; checks of lists and objects are made of those of their parts, and
add the place. Other keys than those of the table are let through. What a table cannot say (columns of one length,
counts that agree with the items) stands in `check_run`'s last part.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prefrank.errors import short

Check = Callable[[Any], None]

MOST = 1 << 53
"""The largest whole number that every reader of JSON keeps whole."""
DEEPEST = 20
"""Levels of plain settings inside each other."""
_ROUNDING = 1e-9


class Wrong(Exception):
    """A value that is not what the table wants; `place` grows on its way up."""

    def __init__(self, value: Any, wanted: str) -> None:
        super().__init__()
        self.said = f"is {short(value)}; wanted {wanted}"
        self.place = ""

    def inside(self, key: str) -> "Wrong":
        self.place = key + self.place if self.place.startswith("[") or not self.place else f"{key}.{self.place}"
        return self

    def __str__(self) -> str:
        return f"{self.place} {self.said}".strip()


def _missing(key: str) -> Wrong:
    wrong = Wrong(None, "it there")
    wrong.said = "is missing"
    return wrong.inside(key)


# Checks


def text(value: Any) -> None:
    if type(value) is not str:
        raise Wrong(value, "a string")


def flag(value: Any) -> None:
    if type(value) is not bool:
        raise Wrong(value, "true or false")


def count(value: Any) -> None:
    if type(value) is not int or not 0 <= value <= MOST:
        raise Wrong(value, f"a whole number from 0 to {MOST:,}")


def number(least: float = -math.inf, most: float = math.inf) -> Check:
    """A finite number in these bounds, but for rounding."""
    wanted = "a finite number" + ("" if math.isinf(least) and math.isinf(most) else f" from {least:g} to {most:g}")

    def check(value: Any) -> None:
        try:
            fits = type(value) in (int, float) and math.isfinite(value)
        except OverflowError:  # a whole number of hundreds of digits
            fits = False
        if not fits or not least - _ROUNDING <= value <= most + _ROUNDING:
            raise Wrong(value, wanted)

    return check


def maybe(check: Check) -> Check:
    """Null, or what passes."""
    return lambda value: None if value is None else check(value)


def each(check: Check) -> Check:
    """A list of what passes."""

    def checked(value: Any) -> None:
        if type(value) is not list:
            raise Wrong(value, "a list")
        for place, one in enumerate(value):
            try:
                check(one)
            except Wrong as wrong:
                raise wrong.inside(f"[{place}]") from None

    return checked


def named(check: Check) -> Check:
    """An object of any keys, each value of which passes."""

    def checked(value: Any) -> None:
        if type(value) is not dict:
            raise Wrong(value, "an object")
        for key, one in value.items():
            try:
                check(one)
            except Wrong as wrong:
                raise wrong.inside(key) from None

    return checked


def shape(parts: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """An object with these keys; optional ones may be absent or null."""
    rest = optional or {}

    def checked(value: Any) -> None:
        if type(value) is not dict:
            raise Wrong(value, "an object")
        for key, check in parts.items():
            if key not in value:
                raise _missing(key)
            try:
                check(value[key])
            except Wrong as wrong:
                raise wrong.inside(key) from None
        for key, check in rest.items():
            if (one := value.get(key)) is not None:
                try:
                    check(one)
                except Wrong as wrong:
                    raise wrong.inside(key) from None

    return checked


def plain(value: Any, depth: int = 0) -> None:
    """Any JSON that is not nested out of all reason."""
    if type(value) in (dict, list):
        if depth == DEEPEST:
            raise Wrong(value, f"at most {DEEPEST} levels inside each other")
        for one in value.values() if type(value) is dict else value:
            plain(one, depth + 1)
    elif type(value) in (int, float):
        number()(value)


def settings(value: Any) -> None:
    """An object of plain values."""
    if type(value) is not dict:
        raise Wrong(value, "an object")
    plain(value)


# The table


def estimate(least: float = -math.inf, most: float = math.inf) -> Check:
    """A value and its interval, in these bounds."""
    parts = shape({name: maybe(number(least, most)) for name in ("value", "low", "high")} | _RESTS_ON)

    def check(value: Any) -> None:
        parts(value)
        low, high = value["low"], value["high"]
        if (low is None) != (high is None) or (value["value"] is None and low is not None):
            raise Wrong([value["value"], low, high], "value, low and high all there, or no interval")
        if low is not None and low > high:
            raise Wrong([low, high], "low at most as large as high")
        if value["prompts"] > value["n"]:
            raise Wrong(value["prompts"], f"at most n = {value['n']}").inside("prompts")

    return check


_RESTS_ON: dict[str, Check] = {"n": count, "unit": text, "prompts": count}
LARGEST = 1e90
"""A figure further from 0 is none that was measured."""
_FREE, _SHARE, _SIGNED = estimate(-LARGEST, LARGEST), estimate(0.0, 1.0), estimate(-1.0, 1.0)
_PART, _P, _NUMBER = number(0.0, 1.0), maybe(number(0.0, 1.0)), number()
_COEFFICIENT = number(-LARGEST, LARGEST)
_ENDS = {"low": _PART, "high": _PART}
_MAYBE_ENDS = {"accuracy": maybe(_PART), "low": maybe(_PART), "high": maybe(_PART)}

_COUNTS = (
    "comparisons", "prompts", "replies", "pairs", "ties", "score_ties", "failures", "failed_pairs",
    "cut_prompts", "cut_replies",
)  # fmt: skip
_SHARES = (
    "accuracy", "accuracy_ties_lost", "accuracy_by_pair", "best_worst", "best_worst_published", "length_accuracy",
)  # fmt: skip
_METRICS = shape(
    dict.fromkeys(_SHARES, _SHARE)
    | {"log_loss": _FREE, "margin": _FREE, "kendall_tau": _SIGNED}
    | {"counts": shape(dict.fromkeys(_COUNTS, count))}
)
_BINS = each(shape({"confidence": _PART, "accuracy": _PART, "n": count} | _ENDS))
_RELIABILITY = shape(
    dict.fromkeys(("ece", "ece_equal_mass", "mce", "log_loss", "auroc"), _FREE)
    | {"brier": _SHARE, "n": count, "bins": _BINS, "bins_equal_mass": _BINS}
)
_TEMPERATURE = number(0.0)
_CALIBRATION = shape(
    {"raw": _RELIABILITY, "scaled": maybe(_RELIABILITY), "temperature": maybe(_TEMPERATURE), "note": maybe(text)},
    {"fitted_on": text},
)
_REGRESSION = shape(
    {
        "terms": each(shape({"name": text} | dict.fromkeys(("coefficient", "low", "high"), _COEFFICIENT))),
        "n": count,
    },
    {"gain": shape({"statistic": _COEFFICIENT, "p": _PART}), "at_equal_style": _SHARE},
)
_STYLE = shape(
    dict.fromkeys(("pearson", "spearman", "within_prompt"), _SIGNED)
    | dict.fromkeys(("longer", "shorter", "balanced"), _SHARE)
    | {"buckets": each(shape({"from": number(-1.0, 1.0), "to": number(-1.0, 1.0), "accuracy": _SHARE}))},
    {"regression": _REGRESSION, "note": text},
)
_ERROR = shape(
    dict.fromkeys(("subset", "id", "prompt", "preferred", "other"), text)
    | {"margin": maybe(_NUMBER), "scores": each(maybe(_NUMBER))}
)
_RESULT = shape(
    {
        "headline": text,
        "figures": named(_FREE),
        "overall": _METRICS,
        "subsets": named(_METRICS),
        "calibration": _CALIBRATION,
        "abstention": each(shape({"coverage": _PART, "threshold": number(0.0), "n": count} | _MAYBE_ENDS)),
        "style": _STYLE,
        "slices": each(shape({"slice": text, "value": text, "accuracy": _SHARE, "worst": flag})),
        "scores": each(each(maybe(_NUMBER))),
    }
    | dict.fromkeys(("tokens", "cut_prompt", "cut_reply"), each(each(count))),
    {
        "shares": each(text),
        "contamination": named(maybe(_FREE)),
        "errors": each(_ERROR),
    },
)
_COMBINATION = shape(
    {"engine": text, "format": text, "padding_side": maybe(text), "dtype": text, "batch_size": count}
    | {"reason": text, "flips": maybe(count), "pairs": maybe(count)},
    dict.fromkeys(("max_difference", "rms_difference", "max_spreads", "rms_spreads", "batch_difference"), number(0.0))
    | {"gained": count, "lost": count, "failures": count, "cut": _PART},
)
_AUDIT = shape({"combinations": each(_COMBINATION), "summary": each(text), "reference": text})
_SCORER = shape(
    {"name": text, "kind": text, "model": text, "format": settings, "scoring_s": number(0.0), "replies": count}
    | {"tokens": count, "evaluating_s": number(0.0), "results": named(_RESULT)}
    | {"audit": maybe(_AUDIT)},
    {"control_strings": count},
)
_ITEM = shape(
    {"subset": text, "id": text, "prompt": _NUMBER, "preferences": each(each(_NUMBER)), "turns": count}
    | {"prompt_length": count, "language": text, "lengths": each(count), "styles": each(each(count))},
    {"gold": each(maybe(_NUMBER)), "ranks": each(maybe(count))},
)
_CHART = shape(
    {"title": text, "rows": each(text), "columns": each(plain), "figures": each(text), "kind": text} | {"x_label": text}
)
_CONTAMINATION = shape(
    {"train": count, "items": count, "found": named(count), "ways": named(text)}
    | {"dirty": each(shape({"subset": text, "id": text}))}
)
_SUITE = shape(
    dict.fromkeys(("title", "source", "data", "ties", "from"), text)
    | {"rows": shape({"read": count, "dropped": named(count), "missing": named(each(maybe(count)))})}
    | {"charts": each(_CHART), "items": each(_ITEM), "contamination": maybe(_CONTAMINATION)},
    {"noise_ceiling": _SHARE},
)
_MCNEMAR = shape(dict.fromkeys(("n", "b", "c"), count) | {"exact": _PART, "mid_p": _PART, "clustered": flag})
_DIFFERENCE = shape(
    dict.fromkeys(("a", "b", "suite", "figure"), text)
    | {"headline": flag, "difference": _FREE, "p": _P, "p_holm": _P, "detectable": maybe(number(0.0))}
    | {"verdict": maybe(text), "mcnemar": maybe(_MCNEMAR)}
)
_INTERVALS = shape({"resamples": count, "seed": count, "confidence": _PART})
_HARDWARE = shape(
    {}, {"cpu": text, "cores": count, "usable_cores": count, "memory_bytes": count, "gpus": each(text), "system": text}
)
_RUN = shape(
    {"suites": named(_SUITE), "scorers": each(_SCORER), "command": maybe(text)}
    | {"prefrank": text, "created": text, "versions": named(text), "hardware": _HARDWARE, "intervals": _INTERVALS},
    {"comparison": shape({}, {"pairs": each(_DIFFERENCE), "refused": each(text)})},
)


def check_run(run: Any) -> None:
    """See that a run is whole: every part that is read there, of its type and in its bounds, and all of one story.

    Raises:
        Wrong: says where it is not.
    """
    _RUN(run)
    made = run["intervals"]
    if not made["resamples"] or not 0 < made["confidence"] < 1:
        raise Wrong(made, "at least 1 resample, and a confidence between 0 and 1").inside("intervals")
    for name, suite in run["suites"].items():
        _checked(_suite, (suite,), f"suites.{name}")
    names: set[str] = set()
    for place, scorer in enumerate(run["scorers"]):
        if scorer["name"] in names:
            raise Wrong(scorer["name"], "a name for each scorer").inside(f"scorers[{place}].name")
        names.add(scorer["name"])
        for name, result in scorer["results"].items():
            where = f"scorers[{place}].results.{name}"
            if name not in run["suites"]:
                raise Wrong(name, "a suite of the run").inside(where)
            _checked(_result, (result, run["suites"][name]["items"]), where)


def _checked(check: Callable[..., None], given: tuple[Any, ...], place: str) -> None:
    try:
        check(*given)
    except Wrong as wrong:
        raise wrong.inside(place) from None


def _suite(suite: Mapping[str, Any]) -> None:
    if not suite["items"]:
        raise Wrong([], "at least one item").inside("items")
    for place, item in enumerate(suite["items"]):
        if wanted := _odd_item(item):
            raise Wrong(item["preferences"][:3], wanted).inside(f"items[{place}].preferences")
    for place, missing in enumerate(suite["rows"]["missing"].values()):
        if len(missing) != 2 or missing[0] is None:
            raise Wrong(missing, "the items that are here and those published").inside(f"rows.missing[{place}]")
    for place, chart in enumerate(suite["charts"]):
        if wanted := _odd_chart(chart):
            raise Wrong(chart, wanted).inside(f"charts[{place}]")


def _odd_item(item: Mapping[str, Any]) -> str:
    """What is wanted of an item whose parts do not go together; "" for one that is sound."""
    size = len(item["lengths"])
    if size < 2 or len(item["styles"]) != size or any(len(one) != 3 for one in item["styles"]):
        return "two or more lengths, and three styles for each"
    if item.get("gold") and len(item["gold"]) != size:
        return f"gold for each of {size} replies, or none"
    for one in item["preferences"]:
        if len(one) != 4:
            return "[winner, loser, probability, weight]"
        winner, loser, probability, weight = one
        if type(winner) is not int or type(loser) is not int or not (0 <= winner < size and 0 <= loser < size):
            return f"[winner, loser, probability, weight] of replies 0 to {size - 1}"
        if winner == loser or not 0 <= probability <= 1 or not weight > 0:
            return "two replies, a probability from 0 to 1 and a weight above 0"
    if "ranks" in item:
        if item["preferences"] or len(item["ranks"]) != size or _num_pairs(item) < 1:
            return f"ranks of {size} replies in place of preferences, two or more of them known"
        return ""
    return "" if item["preferences"] else "at least one preference"


def _num_pairs(item: Mapping[str, Any]) -> int:
    """How many preferences there are; a long ranking has all pairs of the replies that have a rank."""
    known = sum(rank is not None for rank in item.get("ranks", ()))
    return len(item["preferences"]) + known * (known - 1) // 2


def _odd_chart(chart: Mapping[str, Any]) -> str:
    if chart["kind"] not in ("matrix", "curves"):
        return "the kind matrix or curves"
    if not chart["rows"] or not chart["columns"] or len(chart["figures"]) != len(chart["rows"]) * len(chart["columns"]):
        return "a figure for each row and column"
    columns = chart["columns"]
    if chart["kind"] == "matrix" or all(type(one) in (int, float) and 0 < one < MOST for one in columns):
        return "" if all(type(one) in (str, int, float) for one in columns) else "columns that are strings or numbers"
    return "columns that are numbers above 0, for curves"


def _result(result: Mapping[str, Any], items: list[Mapping[str, Any]]) -> None:
    if result["headline"] not in result["figures"]:
        raise Wrong(result["headline"], "one of its figures").inside("headline")
    if set(result["subsets"]) != (there := {item["subset"] for item in items}):
        odd = sorted(set(result["subsets"]) ^ there)
        raise Wrong(odd[0], "a result for each subset of the items").inside("subsets")
    sizes = [len(item["lengths"]) for item in items]
    for column in ("scores", "tokens", "cut_prompt", "cut_reply"):
        if [len(one) for one in result[column]] != sizes:
            raise Wrong(f"of {len(result[column])} items", f"one for each reply of {len(sizes)} items").inside(column)
    scaled = result["calibration"]
    if scaled.get("scaled") and not scaled.get("temperature"):
        raise Wrong(scaled.get("temperature"), "a number above 0").inside("calibration.temperature")
    if any(len(error["scores"]) != 2 for error in result.get("errors") or ()):
        raise Wrong("of another length", "two scores for each error").inside("errors")
    _counts(result["overall"]["counts"], _seen(items, result["scores"]), "overall.counts")


def _seen(items: Iterable[Mapping[str, Any]], scores: Iterable[list[Any]]) -> dict[str, int]:
    """Counts that follow from the items and scores themselves."""
    items = list(items)
    return {
        "comparisons": len(items),
        "replies": sum(len(item["lengths"]) for item in items),
        "pairs": sum(map(_num_pairs, items)),
        "failures": sum(each.count(None) for each in scores),
    }


def _counts(counts: Mapping[str, int], seen: Mapping[str, int], place: str) -> None:
    for name, there in seen.items():
        if counts[name] != there:
            raise Wrong(counts[name], f"{there}, as the items and scores have it").inside(f"{place}.{name}")
    most = {"prompts": "comparisons", "ties": "pairs", "score_ties": "pairs", "failed_pairs": "pairs"}
    most |= {"cut_prompts": "replies", "cut_replies": "replies"}
    for name, of in most.items():
        if counts[name] > counts[of]:
            raise Wrong(counts[name], f"at most the {counts[of]:,} {of}").inside(f"{place}.{name}")
