"""Run files: one JSON for each run, with what every figure came from, so that runs compare later without a model.

A run is some scorers on some suites. The file holds no prompt or reply (but for a few errors to read): of each item its
labels, lengths and styles, of each scorer every score. It is strict JSON; a score that is not finite is null.
"""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefrank.errors import BadData, NotFound, suggest
from prefrank.evaluation.items import Facts, Sample
from prefrank.io.atomic import write_file
from prefrank.types import Preference, Score

FORMAT = 1

Run = dict[str, Any]
"""A run as its file holds it: plain values; the keys are in docs/evaluation.md."""


def facts_json(facts: Facts) -> dict[str, Any]:
    """An item's facts as plain values."""
    return {
        "subset": facts.subset,
        "id": facts.id,
        "prompt": facts.prompt,
        "preferences": [[p.winner, p.loser, p.probability, p.weight] for p in facts.preferences],
        **({"gold": list(facts.gold)} if facts.gold else {}),
        "turns": facts.turns,
        "prompt_length": facts.prompt_length,
        "language": facts.language,
        "lengths": list(facts.lengths),
        "styles": [list(style) for style in facts.styles],
    }


def facts_from(value: Mapping[str, Any]) -> Facts:
    return Facts(
        subset=value["subset"],
        id=value["id"],
        prompt=value["prompt"],
        preferences=tuple(Preference(winner, *rest) for winner, *rest in value["preferences"]),
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
    """
    text = json.dumps(run, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
    content = text.encode()
    write_file(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def read_run(path: Path) -> Run:
    """Read a run file.

    Raises:
        NotFound: no such file.
        BadData: not a run file, or one of another format.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotFound(f"the run file {path} cannot be read ({error.strerror or error})") from error
    try:
        run = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except (ValueError, OSError, EOFError) as error:
        raise BadData(f"{path} is no run file: {error}; write one with prefrank evaluate --json") from error
    if not isinstance(run, dict) or not {"suites", "scorers"} <= run.keys():
        raise BadData(f"{path} is no run file: it has no suites and scorers; write one with prefrank evaluate --json")
    if run.get("format") != FORMAT:
        raise BadData(f"{path} has format {run.get('format')}, this prefrank reads {FORMAT}; evaluate again")
    if torn := _torn(run):
        raise BadData(f"{path} is no whole run file: {torn}; evaluate again")
    return run


_SCORER, _SUITE = ("name", "kind", "model", "format", "results"), ("data", "items", "ties", "rows")


def _torn(run: Run) -> str:
    """Which of the parts that everything reads is not there; "" where all are."""
    scorers, suites = run["scorers"], run["suites"]
    if not isinstance(scorers, list) or not isinstance(suites, dict):
        return "its scorers are no list, or its suites no object"
    parts = [("a scorer", one, _SCORER) for one in scorers] + [(name, one, _SUITE) for name, one in suites.items()]
    for what, one, keys in parts:
        lacking = [key for key in keys if not isinstance(one, dict) or key not in one]
        if lacking:
            return f"{what} has no {lacking[0]}"
    try:
        counts = {name: [len(facts_from(item).lengths) for item in suite["items"]] for name, suite in suites.items()}
        for one in scorers:
            for name, result in one["results"].items():
                if [len(scores) for scores in scores_from(result, one["model"])] != counts[name]:
                    return f"the scores of {one['name']} do not fit the items of {name}"
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        return f"an item or its scores cannot be read ({type(error).__name__}: {error})"
    return ""


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
