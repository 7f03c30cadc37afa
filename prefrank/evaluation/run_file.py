"""Run files: one JSON for each run, with what every figure came from, so that runs compare later without a model.

A run is some scorers on some suites. The file holds no prompt or reply (but for a few errors to read): of each item its
labels, lengths and styles, of each scorer every score. It is strict JSON; a score that is not finite is null.
"""

import gzip
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefrank.errors import BadData, BadInput, NotFound, short, suggest
from prefrank.evaluation.items import Facts, Sample
from prefrank.evaluation.run_schema import Wrong, check_run
from prefrank.io.atomic import write_file
from prefrank.io.inputs import read_bytes
from prefrank.io.json_files import parse_json
from prefrank.limits import limit, past
from prefrank.types import Preference, Preferences, RankedPairs, Score

FORMAT = 1

Run = dict[str, Any]
"""A run as its file holds it: plain values; the keys are in docs/evaluation.md."""


def facts_json(facts: Facts) -> dict[str, Any]:
    """An item's facts as plain values."""
    return {
        "subset": facts.subset,
        "id": facts.id,
        "prompt": facts.prompt,
        **_preferences_json(facts.preferences),
        **({"gold": list(facts.gold)} if facts.gold else {}),
        "turns": facts.turns,
        "prompt_length": facts.prompt_length,
        "language": facts.language,
        "lengths": list(facts.lengths),
        "styles": [list(style) for style in facts.styles],
    }


def _preferences_json(preferences: Preferences) -> dict[str, Any]:
    """Every preference; of a long ranking the ranks, and no pair."""
    if isinstance(preferences, RankedPairs):
        return {"preferences": [], "ranks": preferences.levels}
    return {"preferences": [[p.winner, p.loser, p.probability, p.weight] for p in preferences]}


def preferences_from(value: Mapping[str, Any]) -> Preferences:
    """The preferences of an item of a run file."""
    if "ranks" in value:
        return RankedPairs(tuple(value["ranks"]))
    return tuple(Preference(winner, *rest) for winner, *rest in value["preferences"])


def facts_from(value: Mapping[str, Any]) -> Facts:
    return Facts(
        subset=value["subset"],
        id=value["id"],
        prompt=value["prompt"],
        preferences=preferences_from(value),
        gold=tuple(value.get("gold", ())),
        turns=value["turns"],
        prompt_length=value["prompt_length"],
        language=value["language"],
        lengths=tuple(value["lengths"]),
        styles=tuple((h, items, bold) for h, items, bold in value["styles"]),
    )


def write_run(path: Path, run: Run) -> None:
    """Write a run file; a name that ends in .gz is compressed.

    Raises:
        CannotWrite: the file cannot be written.
        BadInput: a number that is not finite, which JSON does not have.
    """
    try:
        text = json.dumps(run, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
    except ValueError as error:
        raise BadInput(f"the run for {path} holds a number that is not finite ({error}); wanted null there") from None
    content = text.encode("utf-8", "backslashreplace")  # half a character, in JSON's own words
    write_file(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def read_run(path: Path) -> Run:
    """Read a run file.

    Raises:
        NotFound: no such file.
        BadData: not a run file, one of another format, or one with a part that is not there, of another type, or that
            says otherwise than the rest; names the part.
    """
    run = parse_json(_content(path), path, BadData)
    if not isinstance(run, dict) or not {"suites", "scorers"} <= run.keys():
        raise BadData(f"{path} is no run file: it has no suites and scorers; write one with prefrank evaluate --json")
    if run.get("format") != FORMAT or type(run["format"]) is not int:
        raise BadData(f"{path} has format {short(run.get('format'))}, this prefrank reads {FORMAT}; evaluate again")
    try:
        check_run(run)
    except Wrong as wrong:
        raise BadData(f"{path} is no whole run file: {wrong}; evaluate again") from None
    return run


def _content(path: Path) -> bytes:
    """What the file holds, unpacked; no more than memory is meant to hold."""
    content = read_bytes(path, BadData)
    if path.suffix != ".gz":
        return content
    most = limit("json_bytes")
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            content = file.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BadData(f"{path} is no run file: it cannot be unpacked ({error}); copy it again") from None
    if len(content) > most:
        raise BadData(f"{path} unpacks to {past('json_bytes')}")
    return content


def scorer_of(run: Run, name: str) -> dict[str, Any]:
    """The entry of one scorer.

    Raises:
        NotFound: the run has no scorer of that name.
    """
    for scorer in run["scorers"]:
        if scorer["name"] == name:
            return scorer
    raise NotFound(f"the run has no scorer {name!r}{suggest(name, [scorer['name'] for scorer in run['scorers']])}")


def sample_of_run(run: Run, scorer: str, suite: str) -> Sample:
    """The scored items of one scorer on one suite, as they were measured.

    Raises:
        NotFound: the run has no such scorer or suite.
    """
    entry = scorer_of(run, scorer)
    if suite not in entry["results"]:
        raise NotFound(f"{scorer} has no results of {suite!r}{suggest(suite, entry['results'])}")
    facts = tuple(facts_from(item) for item in run["suites"][suite]["items"])
    return Sample(facts, scores_from(entry["results"][suite], entry["model"]))


def scores_json(scores: Sequence[Sequence[Score]]) -> dict[str, Any]:
    """Every score and its facts, item by item."""
    from prefrank.evaluation.run import plain_values

    return {
        "scores": [plain_values(each) for each in scores],
        "tokens": [[score.tokens for score in each] for each in scores],
        "cut_prompt": [[score.cut_prompt for score in each] for each in scores],
        "cut_reply": [[score.cut_reply for score in each] for each in scores],
    }


def scores_from(value: Mapping[str, Any], model: str) -> tuple[tuple[Score, ...], ...]:
    columns = zip(value["scores"], value["tokens"], value["cut_prompt"], value["cut_reply"], strict=True)
    return tuple(
        tuple(
            Score(float("nan") if one is None else one, tokens, cut_prompt, cut_reply, model)
            for one, tokens, cut_prompt, cut_reply in zip(*each, strict=True)
        )
        for each in columns
    )
