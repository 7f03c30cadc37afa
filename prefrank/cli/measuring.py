"""The commands that measure: evaluate, compare, leaderboard, card, calibrate, suites."""

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prefrank.cli.commands import AsJson, app, print_result
from prefrank.cli.options import ScoringOptions, scoring_options
from prefrank.cli.places import check_files, local_places
from prefrank.cli.screen import say
from prefrank.errors import BadData, BadInput, NotFound, PrefrankError

if TYPE_CHECKING:
    from prefrank.evaluation.run_file import Run
    from prefrank.evaluation.runs import Entrant, Task
    from prefrank.evaluation.scorers import ModelOptions, OpenedScorer
    from prefrank.evaluation.servers import ServerOptions
    from prefrank.io.columns import Columns
    from prefrank.types import Comparison

Runs = Annotated[list[Path], typer.Argument(help="Run files that prefrank evaluate --json wrote.")]
Resamples = Annotated[int, typer.Option(help="Resamples of prompts behind each interval.")]


@app.command()
@scoring_options()
def evaluate(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="A folder, hub id, URL, python:module:function or scores:FILE; or NAME=that; give several.",
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="Comparisons: SOURCE or SOURCE:SPLIT (:eval: validation, else test); give several."),
    ] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(help="A benchmark: NAME (from the hub) or NAME=FOLDER; `prefrank suites` lists them."),
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines/--no-baselines", help="What length, chance and a bag of words get.")
    ] = True,
    train: Annotated[
        list[str] | None,
        typer.Option(help="What the model was trained on: for the bag of words and the check for contamination."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most this many comparisons of each --data.")] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="Own names of columns in --data, --train and scores:FILE: prompt=question,chosen=good."),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="Of a server, where its URL does not tell; a key is read from PREFRANK_SERVER_KEY."),
    ] = None,
    server_template: Annotated[
        str | None,
        typer.Option(help="Of a server that takes whole texts: a folder or hub id whose chat template writes them."),
    ] = None,
    resamples: Resamples = 10_000,
    audit: Annotated[
        bool, typer.Option("--audit", help="Also score some pairs in other formats, paddings and precisions.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--json", help="Write the run, every score in it, to this file (.json or .json.gz).")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a report with plots to this file.")] = None,
    *,
    scoring: ScoringOptions,
) -> None:
    """Measure how well models agree with people, beside the baselines, with an interval on every figure."""
    from prefrank.cli import measured, progress
    from prefrank.evaluation.pages.report import write_report
    from prefrank.evaluation.protocols import SUITES
    from prefrank.evaluation.run_file import write_run
    from prefrank.evaluation.runs import compare_runs, run_all
    from prefrank.evaluation.scorers import ModelOptions
    from prefrank.evaluation.servers import ServerOptions
    from prefrank.io.columns import parse_columns
    from prefrank.model.hardware import hardware
    from prefrank.stats.bootstrap import Bootstrap

    if not (model or baselines):
        raise BadInput("there is nothing to evaluate; give --model, or leave --no-baselines out")
    if not (data or suite):
        raise BadInput("there is nothing to evaluate on; give --data, --suite or both (prefrank suites lists them)")
    # What would fail after hours of scoring fails now
    read = local_places(*(model or ()), *(data or ()), *(suite or ()), *(train or ()), server_template)
    check_files({"--json": output, "--html": html}, read)
    if html:
        import jinja2  # noqa: F401
    options = ModelOptions(**asdict(scoring))
    named = parse_columns(columns) if columns is not None else {}
    server = ServerOptions(protocol=protocol, chat_template=server_template, key=os.environ.get("PREFRANK_SERVER_KEY"))
    _check_options(model or [], options, server)
    style = Bootstrap(resamples=resamples)
    trained_on = [one for source in train or [] for one in _trained_on(source, _of_data(named))]
    tasks = _tasks(data or [], suite or [], limit, scoring.head, named)
    entrants, opened = _entrants(model or [], options, server, baselines, tasks, trained_on, named)
    for name, scorer in opened.items():
        if scorer.doubt:
            say(f"{name}: its scores are {scorer.doubt}", style="yellow")
    _say_control_strings(opened, tasks)
    run = run_all(
        entrants,
        tasks,
        bootstrap=style,
        train=trained_on,
        command="prefrank " + shlex.join(sys.argv[1:]),
        hardware=hardware(),
        scoring=lambda name, scorer: progress.counted(name, scorer) if name in opened else scorer,
    )
    if opened and len(entrants) > 1:
        run["comparison"] = compare_runs({"": run}, SUITES)
    if audit:
        _audit(run, opened, tasks, options)
    if output:
        write_run(output, run)
    if html:
        write_report(run, html)
    measured.run(run)
    if output:
        say(f"The run, with every score, is in {output}")
    if html:
        say(f"The report is in {html}")


def _say_control_strings(opened: "Mapping[str, OpenedScorer]", tasks: "Sequence[Task]") -> None:
    from prefrank.cli import tables

    pairs = [(item.prompt, reply) for task in tasks for item in task.data.items for reply in item.replies]
    for name, one in opened.items():
        if one.control_strings is not None:
            tables.say_control_strings(one.control_strings(pairs), name)


def _tasks(
    data: Sequence[str], suites: Sequence[str], limit: int | None, head: str | None, columns: "Columns"
) -> "list[Task]":
    """What is to be scored: data sets, then suites."""
    from prefrank.cli import tables
    from prefrank.data import load_comparisons, parse_source
    from prefrank.data.candidates import labelled
    from prefrank.evaluation.items import as_item
    from prefrank.evaluation.language import languages_of
    from prefrank.evaluation.protocols import find_suite, load_suite
    from prefrank.evaluation.protocols.suite import SuiteData
    from prefrank.evaluation.runs import Task, comparisons_suite

    found = []
    of_data = _of_data(columns)
    for source, shown in zip(data, _suite_names(data), strict=True):
        name, split = parse_source(source)
        loaded = load_comparisons(name, split=split, limit=limit, columns=of_data or None)
        if not loaded.comparisons:
            raise NotFound(f"{source} has no usable comparison; `prefrank data describe {source}` says why")
        tables.say_report(source, loaded.report)
        items = tuple(map(as_item, labelled(loaded.comparisons, head)))
        rows = SuiteData(items, loaded.report.rows, dict(loaded.report.dropped))
        found.append((comparisons_suite(shown), rows, source))
    for one in suites:
        name, equals, folder = one.partition("=")
        read = load_suite(name, folder if equals else None)
        found.append((find_suite(name), read, folder or find_suite(name).hub or "prefrank"))
    return [
        Task(kind, SuiteData(languages_of(rows.items), rows.read, rows.dropped), where) for kind, rows, where in found
    ]


def _suite_names(sources: Sequence[str]) -> list[str]:
    """The last part of each source, with its split; of two that end alike, as many parts as tell them apart."""
    parts = [source.rstrip("/").replace("\\", "/").split("/") for source in sources]
    names = []
    for own in parts:
        others = [one for one in parts if one != own]
        count = next((n for n in range(1, len(own)) if all(one[-n:] != own[-n:] for one in others)), len(own))
        names.append("/".join(own[-count:]))
    return names


def _named(model: str) -> tuple[str, str]:
    """`NAME=MODEL` as (NAME, MODEL); else the model is its own name."""
    name, equals, place = model.partition("=")
    named = bool(equals) and re.fullmatch(r"[\w. +-]+", name) is not None and not Path(model).exists()
    return (name, place) if named else (model, model)


def _entrants(
    models: Sequence[str],
    options: "ModelOptions",
    server: "ServerOptions",
    beside: bool,
    tasks: "Sequence[Task]",
    trained_on: "list[Comparison]",
    columns: "Columns",
) -> "tuple[list[Entrant], dict[str, OpenedScorer]]":
    from prefrank.evaluation.baselines import baselines
    from prefrank.evaluation.runs import Entrant
    from prefrank.evaluation.scorers import kind_of, open_scorer

    items = [item for task in tasks for item in task.data.items]
    opened = {}
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
    found = [
        Entrant(name, one.kind, one.score_pairs, one.format, one.calibration, one.control_strings)
        for name, one in opened.items()
    ]
    others = baselines(trained_on or None) if beside else {}
    return [*found, *(Entrant(name, "baseline", scorer) for name, scorer in others.items())], opened


def _of_data(columns: "Columns") -> "Columns":
    """Those of the columns that comparisons have."""
    from prefrank.evaluation.scorers import ONLY_SCORED

    return {name: own for name, own in columns.items() if name not in ONLY_SCORED}


def _trained_on(source: str, columns: "Columns") -> "list[Comparison]":
    """Training comparisons under the names of `columns`, or, where the source has none of these, the usual ones."""
    from prefrank.cli.commands import read_comparisons

    if not columns:
        return read_comparisons([source])
    try:
        return read_comparisons([source], columns)
    except BadData as error:
        try:
            return read_comparisons([source])
        except BadData:
            raise error from None


def _check_options(models: Sequence[str], options: "ModelOptions", server: "ServerOptions") -> None:
    """Raises BadInput for options that no scorer here has a use for; a head also names the labels of data."""
    from prefrank.evaluation.scorers import ModelOptions, kind_of
    from prefrank.evaluation.servers import ServerOptions

    kinds = {kind_of(_named(given)[1]) for given in models}
    if "http" not in kinds and server != ServerOptions(key=server.key):
        raise BadInput("--protocol and --server-template are for servers, and no --model is one; leave them out")
    if "model" not in kinds and options != ModelOptions(head=options.head):
        raise BadInput("no --model is a model folder or hub id, so device, precision and the like cannot be set")


@app.command()
def compare(
    runs: Runs,
    resamples: Resamples = 10_000,
    html: Annotated[Path | None, typer.Option("--html", help="Write a report of all of them to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare scorers item by item: which differences are real? One run file with several scorers will do."""
    from prefrank.cli import measured
    from prefrank.evaluation.pages.report import merged, write_report
    from prefrank.evaluation.protocols import SUITES
    from prefrank.evaluation.run_file import read_run
    from prefrank.evaluation.runs import compare_runs
    from prefrank.stats.bootstrap import Bootstrap

    check_files({"--html": html}, runs)
    loaded, style = {str(path): read_run(path) for path in runs}, Bootstrap(resamples=resamples)
    found = compare_runs(loaded, SUITES, bootstrap=style)
    if html:
        whole = merged(list(loaded.values()))  # where two scorers of one name are told apart by number
        write_report({**whole, "comparison": compare_runs({"": whole}, SUITES, bootstrap=style)}, html)
    print_result(found, as_json, lambda: measured.comparison(found))
    if html:
        say(f"The report is in {html}")


@app.command()
def leaderboard(
    folder: Annotated[Path, typer.Argument(help="A folder of run files.")],
    suite: Annotated[str | None, typer.Option(help="Sort by this one; by default the one most models have.")] = None,
    resamples: Resamples = 10_000,
    html: Annotated[Path | None, typer.Option("--html", help="Write the table and charts to this page.")] = None,
    as_json: AsJson = False,
) -> None:
    """Models side by side from their run files, with groups that cannot be told apart."""
    from prefrank.cli import measured
    from prefrank.evaluation.pages.leaderboard import leaderboard as rank_runs
    from prefrank.evaluation.pages.leaderboard import run_files, write_leaderboard
    from prefrank.stats.bootstrap import Bootstrap

    check_files({"--html": html}, run_files(folder))
    found = rank_runs(folder, suite=suite, bootstrap=Bootstrap(resamples=resamples))
    if html:
        write_leaderboard(found, html)
    print_result(found.to_json(), as_json, lambda: measured.leaderboard(found))
    if html:
        say(f"The page is in {html}")


@app.command()
def card(
    folder: Annotated[Path, typer.Argument(help="A model folder; its README.md becomes the card.")],
    run: Annotated[list[Path] | None, typer.Option("--run", help="A run file of this model; give several.")] = None,
    fact: Annotated[
        list[str] | None, typer.Option("--fact", help="What nothing records, as NAME=TEXT; give several.")
    ] = None,
    facts: Annotated[Path | None, typer.Option("--facts", help="The same from a YAML file of names and texts.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a README.md of another origin.")] = False,
) -> None:
    """Write a model card from the training record and run files; what is missing is asked for, never left blank."""
    from prefrank.evaluation.pages.card import FILE, write_card
    from prefrank.evaluation.pages.card_facts import read_facts
    from prefrank.evaluation.run_file import read_run
    from prefrank.model.hub import resolve_model

    if folder.is_dir():
        check_files({"README.md": resolve_model(str(folder)) / FILE}, [*(run or []), *([facts] if facts else [])])
    given = read_facts(facts, fact or [])
    path = write_card(folder, [read_run(path) for path in run or []], given, overwrite=overwrite)
    say(f"The model card is in {path}")


@app.command()
@scoring_options()
def calibrate(
    folder: Annotated[Path, typer.Argument(help="A model folder; its prefrank.json keeps the temperature.")],
    data: Annotated[list[str], typer.Option(help="Held-out comparisons: SOURCE or SOURCE:SPLIT; give several.")],
    as_json: AsJson = False,
    *,
    scoring: ScoringOptions,
) -> None:
    """Fit the temperature that makes score differences probabilities, and store it with the model."""
    from prefrank.cli import measured
    from prefrank.cli.commands import read_comparisons
    from prefrank.data.candidates import labelled
    from prefrank.evaluation.temperature_fit import calibrate as fit
    from prefrank.model.hub import resolve_model

    if folder.is_dir():
        check_files({"prefrank.json": resolve_model(str(folder)) / "prefrank.json"}, local_places(*data))
    comparisons = labelled(read_comparisons(data), scoring.head)
    found = fit(
        folder,
        comparisons,
        fitted_on=", ".join(data),
        **asdict(scoring),
    )
    place = resolve_model(str(folder))  # of a run's folder, its best checkpoint
    print_result(found, as_json, lambda: measured.calibrated(place, found))


@app.command()
def suites(as_json: AsJson = False) -> None:
    """List the benchmarks that prefrank evaluate --suite knows, and where their data come from."""
    from prefrank.cli import measured
    from prefrank.evaluation.protocols import SUITES

    plain = [
        {"name": one.name, "title": one.title, "hub": one.hub, "files": list(one.layout), "source": one.source}
        for one in SUITES.values()
    ]
    print_result(plain, as_json, lambda: measured.suites(list(SUITES.values())))


def _audit(run: "Run", opened: "Mapping[str, OpenedScorer]", tasks: "Sequence[Task]", options: "ModelOptions") -> None:
    """The models that can be run in other formats are, on the first data set or suite; what cannot be is said, since
    the scores that are there by now must not be lost."""
    from prefrank.cli import progress
    from prefrank.evaluation.audit import audit

    for scorer in run["scorers"]:
        one = opened.get(scorer["name"])
        if one is not None and one.kind in ("model", "transformers"):
            try:
                with progress.auditing() as report:
                    found = audit(
                        one.name,
                        tasks[0].data.items,
                        head=options.head,
                        device=options.device,
                        max_length=options.max_length,
                        pre_rendered=options.pre_rendered,
                        trust_remote_code=options.trust_remote_code,
                        progress=report,
                    )
            except PrefrankError as error:
                say(f"{one.name} was not audited: {error}", style="yellow")
            else:
                scorer["audit"] = found.to_json()
