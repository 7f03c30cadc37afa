"""Turns the options of `prefrank evaluate` into tasks (suites with data) and entrants (scorers).

Imported only when the command runs: it loads what scores.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from prefrank.cli import tables
from prefrank.cli.commands import read_comparisons
from prefrank.data import load_comparisons, parse_source
from prefrank.data.candidates import labelled
from prefrank.errors import BadData, BadInput, NotFound
from prefrank.evaluation.baselines import baselines
from prefrank.evaluation.items import as_item
from prefrank.evaluation.language import languages_of
from prefrank.evaluation.protocols import find_suite, load_suite
from prefrank.evaluation.protocols.suite import Suite, SuiteData
from prefrank.evaluation.running import Entrant, Task, comparisons_suite
from prefrank.evaluation.scorers import ModelOptions, OpenedScorer, kind_of, open_scorer
from prefrank.evaluation.scores_file import ONLY_SCORED
from prefrank.io.columns import Columns
from prefrank.scoring.remote import ServerOptions
from prefrank.types import Comparison


def check_options(models: Sequence[str], options: ModelOptions, server: ServerOptions) -> None:
    """See that the options are of use to some scorer; a head also names the labels of data.

    Raises:
        BadInput: they are not.
    """
    kinds = {kind_of(_named(given)[1]) for given in models}
    if "http" not in kinds and server != ServerOptions(key=server.key):
        raise BadInput("--protocol and --server-template are for servers, and no --model is one; leave them out")
    if "model" not in kinds and options != ModelOptions(head=options.head):
        raise BadInput("no --model is a model folder or hub id, so device, precision and the like cannot be set")


def make_tasks(
    data: Sequence[str], suites: Sequence[str], limit: int | None, head: str | None, columns: Columns
) -> list[Task]:
    """What is to be scored: data sets, then suites."""
    given: list[tuple[Suite, SuiteData, str]] = []
    of_comparisons = comparison_columns(columns)
    for source, shown in zip(data, _suite_names(data), strict=True):
        name, split = parse_source(source)
        loaded = load_comparisons(name, split=split, limit=limit, columns=of_comparisons or None)
        if not loaded.comparisons:
            raise NotFound(f"{source} has no usable comparison; `prefrank data describe {source}` says why")
        tables.say_report(source, loaded.report)
        items = tuple(map(as_item, labelled(loaded.comparisons, head)))
        rows = SuiteData(items, loaded.report.rows, dict(loaded.report.dropped))
        given.append((comparisons_suite(shown), rows, source))
    for suite in suites:
        name, equals, folder = suite.partition("=")
        rows = load_suite(name, folder if equals else None)
        given.append((find_suite(name), rows, folder or find_suite(name).hub or "prefrank"))
    return [
        Task(suite, SuiteData(languages_of(rows.items), rows.read, rows.dropped), where) for suite, rows, where in given
    ]


def _suite_names(sources: Sequence[str]) -> list[str]:
    """The last part of each source, with its split; of two that end alike, as many parts as tell them apart."""
    parts = [source.rstrip("/").replace("\\", "/").split("/") for source in sources]
    names = []
    for own in parts:
        others = [other for other in parts if other != own]
        count = next((n for n in range(1, len(own)) if all(other[-n:] != own[-n:] for other in others)), len(own))
        names.append("/".join(own[-count:]))
    return names


def make_entrants(
    models: Sequence[str],
    options: ModelOptions,
    server: ServerOptions,
    with_baselines: bool,
    tasks: Sequence[Task],
    trained_on: Sequence[Comparison],
    columns: Columns,
) -> tuple[list[Entrant], dict[str, OpenedScorer]]:
    """The scorers, and those among them that are not baselines, opened, by name."""
    items = [item for task in tasks for item in task.data.items]
    opened: dict[str, OpenedScorer] = {}
    for given in models:
        name, place = _named(given)
        if name in opened:
            raise BadInput(f"two models are called {name}; name them: --model first={place} --model second=...")
        kind = kind_of(place)
        opened[name] = open_scorer(
            place,
            model=options if kind == "model" else None,
            server=server if kind == "http" else None,
            items=items,
            columns=columns,
        )
    entrants = [
        Entrant(name, scorer.kind, scorer.score_pairs, scorer.format, scorer.calibration, scorer.control_strings)
        for name, scorer in opened.items()
    ]
    beside = baselines(trained_on or None) if with_baselines else {}
    return [*entrants, *(Entrant(name, "baseline", scorer) for name, scorer in beside.items())], opened


def say_control_strings(opened: Mapping[str, OpenedScorer], tasks: Sequence[Task]) -> None:
    """A remark on texts that may have been rendered already."""
    pairs = [(item.prompt, reply) for task in tasks for item in task.data.items for reply in item.replies]
    for name, scorer in opened.items():
        if scorer.control_strings is not None:
            tables.say_control_strings(scorer.control_strings(pairs), name)


def _named(model: str) -> tuple[str, str]:
    """`NAME=MODEL` as (NAME, MODEL); else the model is its own name."""
    name, equals, place = model.partition("=")
    named = bool(equals) and re.fullmatch(r"[\w. +-]+", name) is not None and not Path(model).exists()
    return (name, place) if named else (model, model)


def comparison_columns(columns: Columns) -> Columns:
    """The columns that comparisons have; the others are for files of scores."""
    return {name: own for name, own in columns.items() if name not in ONLY_SCORED}


def read_training(source: str, columns: Columns) -> list[Comparison]:
    """Training comparisons under the names of `columns`, or, where the source has none of these, the usual ones."""
    if not columns:
        return read_comparisons([source])
    try:
        return read_comparisons([source], columns)
    except BadData as error:
        try:
            return read_comparisons([source])
        except BadData:
            raise error from None
