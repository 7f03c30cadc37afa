"""Run files: one JSON for each run, with what every figure came from, so that runs compare later without a model.

The file is `results.Run` as it stands, its fields for keys. It is strict JSON; a score that is not finite is null.
"""

import gzip
import io
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefrank.errors import BadData, BadInput, short
from prefrank.evaluation.results import Run, SuiteRecord, SuiteResult, check_run
from prefrank.io.atomic import write_file
from prefrank.io.json_files import parse_json
from prefrank.io.plain_files import read_bytes
from prefrank.io.schema import Wrong, plain, read
from prefrank.limits import limit, past

FORMAT = 2


def write_run(path: Path, run: Run) -> None:
    """Write a run file; a name that ends in .gz is compressed.

    Raises:
        CannotWrite: the file cannot be written.
        BadInput: no run, or a number in it that is not finite, which JSON does not have.
    """
    check_run(run)
    try:
        text = json.dumps({"format": FORMAT} | plain(run), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise BadInput(f"the run for {path} holds a number that is not finite ({error}); wanted null there") from None
    content = f"{text}\n".encode("utf-8", "backslashreplace")  # half a character, in JSON's own words
    write_file(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def read_run(path: Path) -> Run:
    """Read a run file, of this format or of format 1.

    Raises:
        NotFound: no such file.
        BadData: not a run file, one of another format, or one with a part that is missing, of a wrong type, or at odds
            with the rest; names the part.
    """
    value = parse_json(_content(path), path, BadData)
    if not isinstance(value, dict) or not {"suites", "scorers"} <= value.keys():
        raise BadData(f"{path} is not a run file: no suites and scorers; write one with prefrank evaluate --json")
    form = value.pop("format", None)
    if type(form) is not int or form not in (1, FORMAT):
        raise BadData(f"{path} has format {short(form)}, this prefrank reads 1 and {FORMAT}; evaluate again")
    try:
        run = read(Run, value) if form == FORMAT else read(Run, _from_format_1(value), strict=False)
        _check(run)
    except Wrong as wrong:
        raise BadData(f"{path} is not a whole run file: {wrong}; evaluate again") from None
    return run


def _content(path: Path) -> bytes:
    """The file's bytes, unpacked, up to a bound."""
    content = read_bytes(path, BadData)
    if path.suffix != ".gz":
        return content
    most = limit("json_bytes")
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            content = file.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BadData(f"{path} is not a run file: it cannot be unpacked ({error}); copy it again") from None
    if len(content) > most:
        raise BadData(f"{path} unpacks to {past('json_bytes')}")
    return content


# Format 1, of prefrank 0.1.0


def _from_format_1(run: dict[str, Any]) -> dict[str, Any]:
    """The same run with today's keys; a value of a wrong type stays as it is, for the schema to name."""
    suites = _each(run["suites"], _suite_1)
    scorers = [
        scorer | {"results": _each(scorer.get("results"), _result_1)} if isinstance(scorer, dict) else scorer
        for scorer in (run["scorers"] if isinstance(run["scorers"], list) else ())
    ]
    return run | {"suites": suites, "scorers": scorers if isinstance(run["scorers"], list) else run["scorers"]}


_FIGURES_1 = {"Lead and agreement": "Margin and agreement"}
_CONTAMINATION_1 = {"found": "counts", "dirty": "contaminated", "dirty_accuracy": "contaminated_accuracy"}


def _suite_1(suite: dict[str, Any]) -> dict[str, Any]:
    contamination = _inside(suite, "contamination", lambda value: _renamed(value, _CONTAMINATION_1))
    return _renamed(suite, {"from": "where"}) | _part(suite, "items", _item_1) | contamination


def _item_1(item: dict[str, Any]) -> dict[str, Any]:
    ranked = "ranks" in item and item.get("preferences") == []
    return item | {"preferences": {"ranks": item["ranks"]}} if ranked else item


def _result_1(result: dict[str, Any]) -> dict[str, Any]:
    changed = dict(result)
    if isinstance(points := result.get("abstention"), list):
        changed["abstention"] = {"points": points, "area": None}
    changed |= _inside(result, "figures", lambda figures: _renamed(figures, _FIGURES_1))
    changed |= _inside(result, "contamination", lambda value: _renamed(value, _CONTAMINATION_1))
    changed |= _part(result, "slices", lambda part: _renamed(part, {"slice": "name"}))
    if isinstance(style := result.get("style"), dict):
        changed["style"] = style | _part(style, "buckets", lambda part: _renamed(part, {"from": "low", "to": "high"}))
        changed["style"] |= _inside(style, "regression", _regression_1)
    # What format 1 let be null or left out
    return {key: value for key, value in changed.items() if value is not None or key not in ("shares", "errors")}


def _regression_1(regression: dict[str, Any]) -> dict[str, Any]:
    gain = regression.get("gain")
    terms = _part(regression, "terms", lambda term: term | ({"name": "margin"} if term.get("name") == "lead" else {}))
    return regression | (gain if isinstance(gain, dict) else {}) | terms


def _each(parts: Any, change: Any) -> Any:
    if not isinstance(parts, dict):
        return parts
    return {name: change(part) if isinstance(part, dict) else part for name, part in parts.items()}


def _part(value: Mapping[str, Any], key: str, change: Any) -> dict[str, Any]:
    """The list under a key with each part changed, to be merged into its object."""
    if not isinstance(parts := value.get(key), list):
        return {}
    return {key: [change(part) if isinstance(part, dict) else part for part in parts]}


def _inside(value: Mapping[str, Any], key: str, change: Any) -> dict[str, Any]:
    """The same for an object under a key."""
    return {key: change(part)} if isinstance(part := value.get(key), dict) else {}


def _renamed(value: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key): part for key, part in value.items()}


# What the types do not say


def _check(run: Run) -> None:
    """Check that the parts of a run agree.

    Raises:
        Wrong: they do not; says where.
    """
    for name, suite in run.suites.items():
        _checked(_check_suite, (suite,), f"suites.{name}")
    names: set[str] = set()
    for place, scorer in enumerate(run.scorers):
        if scorer.name in names:
            raise Wrong(scorer.name, "a name for each scorer").inside(f"scorers[{place}].name")
        names.add(scorer.name)
        for name, result in scorer.results.items():
            where = f"scorers[{place}].results.{name}"
            if name not in run.suites:
                raise Wrong(name, "a suite of the run").inside(where)
            _checked(_check_result, (result, run.suites[name]), where)


def _checked(check: Any, given: tuple[Any, ...], place: str) -> None:
    try:
        check(*given)
    except Wrong as wrong:
        raise wrong.inside(place) from None


def _check_suite(suite: SuiteRecord) -> None:
    if not suite.items:
        raise Wrong([], "at least one item").inside("items")


def _check_result(result: SuiteResult, suite: SuiteRecord) -> None:
    if result.headline not in result.figures:
        raise Wrong(result.headline, "one of its figures").inside("headline")
    if set(result.subsets) != (there := {item.subset for item in suite.items}):
        odd = sorted(set(result.subsets) ^ there)
        raise Wrong(odd[0], "a result for each subset of the items").inside("subsets")
    sizes = [len(item.lengths) for item in suite.items]
    columns = {
        "scores": result.scores,
        "tokens": result.tokens,
        "cut_prompt": result.cut_prompt,
        "cut_reply": result.cut_reply,
    }
    for name, column in columns.items():
        if [len(item) for item in column] != sizes:
            raise Wrong(f"of {len(column)} items", f"one for each reply of {len(sizes)} items").inside(name)
    if result.calibration.scaled and not result.calibration.temperature:
        raise Wrong(result.calibration.temperature, "a number above 0").inside("calibration.temperature")
    _check_counts(result, suite)


def _check_counts(result: SuiteResult, suite: SuiteRecord) -> None:
    counts = plain(result.overall.counts)
    seen = {
        "comparisons": len(suite.items),
        "replies": sum(len(item.lengths) for item in suite.items),
        "pairs": sum(len(item.preferences) for item in suite.items),
        "failures": sum(item.count(None) for item in result.scores),
    }
    for name, there in seen.items():
        if counts[name] != there:
            raise Wrong(counts[name], f"{there}, as the items and scores have it").inside(f"overall.counts.{name}")
    most = {"prompts": "comparisons", "ties": "pairs", "score_ties": "pairs", "failed_pairs": "pairs"}
    most |= {"cut_prompts": "replies", "cut_replies": "replies"}
    for name, of in most.items():
        if counts[name] > counts[of]:
            place = f"overall.counts.{name}"
            raise Wrong(counts[name], f"at most the {counts[of]:,} {of}").inside(place)
