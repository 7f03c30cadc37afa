"""The commands that measure: evaluate, compare, leaderboard, card, calibrate, suites."""

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefrank.cli.commands import AsJson, app, print_result
from prefrank.cli.options import ScoringOptions, scoring_options
from prefrank.cli.places import check_files, local_places
from prefrank.cli.screen import say, show_all
from prefrank.errors import BadInput, PrefrankError

if TYPE_CHECKING:
    from prefrank.evaluation import Run, Task
    from prefrank.evaluation.results import PairedTests
    from prefrank.evaluation.scorers import ModelOptions, OpenedScorer

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
            help="A folder, hub id, URL, python:module:function or scores:FILE; or NAME=that; repeatable.",
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="Comparisons: SOURCE or SOURCE:SPLIT (:eval is validation, else test); repeatable."),
    ] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(help="A benchmark: NAME (from the hub) or NAME=FOLDER; `prefrank suites` lists them."),
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines/--no-baselines", help="Also evaluate length, chance and a bag of words.")
    ] = True,
    train: Annotated[
        list[str] | None,
        typer.Option(help="Training data of the model, for the bag of words and the contamination check."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most this many comparisons of each --data.")] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="Names of columns in --data, --train and scores:FILE: prompt=question,chosen=good."),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="Of a server, if its URL does not show it; the key is read from PREFRANK_SERVER_KEY."),
    ] = None,
    server_template: Annotated[
        str | None,
        typer.Option(help="For servers that take whole texts: a folder or hub id whose chat template makes them."),
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
    from prefrank.cli import progress
    from prefrank.cli.entrants import (
        check_options,
        comparison_columns,
        make_entrants,
        make_tasks,
        read_training,
        say_control_strings,
    )
    from prefrank.evaluation.compare_runs import compare_runs
    from prefrank.evaluation.protocols import SUITES
    from prefrank.evaluation.results import Hardware
    from prefrank.evaluation.run_file import write_run
    from prefrank.evaluation.running import run_all
    from prefrank.evaluation.scorers import ModelOptions
    from prefrank.io.columns import parse_columns
    from prefrank.io.schema import read
    from prefrank.model.hardware import hardware
    from prefrank.reports import terminal
    from prefrank.reports.html import write_report
    from prefrank.scoring.remote import ServerOptions
    from prefrank.stats.bootstrap import Bootstrap

    if not (model or baselines):
        raise BadInput("there is nothing to evaluate; give --model, or leave --no-baselines out")
    if not (data or suite):
        raise BadInput("there is nothing to evaluate on; give --data, --suite or both (prefrank suites lists them)")
    # What would fail after hours of scoring fails now
    named_files = (*(data or ()), *(suite or ()), *(train or ()), server_template, scoring.template)
    places = local_places(*(model or ()), *named_files)
    check_files({"--json": output, "--html": html}, places)
    if html:
        import jinja2  # noqa: F401
    options = ModelOptions(**asdict(scoring))
    named = parse_columns(columns) if columns is not None else {}
    server = ServerOptions(protocol=protocol, chat_template=server_template, key=os.environ.get("PREFRANK_SERVER_KEY"))
    check_options(model or [], options, server)
    bootstrap = Bootstrap(resamples=resamples)
    trained_on = [
        comparison for source in train or [] for comparison in read_training(source, comparison_columns(named))
    ]
    tasks = make_tasks(data or [], suite or [], limit, scoring.head, named)
    entrants, opened = make_entrants(model or [], options, server, baselines, tasks, trained_on, named)
    for name, scorer in opened.items():
        if scorer.doubt:
            say(f"{name}: its scores are {scorer.doubt}", style="yellow")
    say_control_strings(opened, tasks)
    run = run_all(
        entrants,
        tasks,
        bootstrap=bootstrap,
        train=trained_on,
        command="prefrank " + shlex.join(sys.argv[1:]),
        hardware=read(Hardware, hardware()),
        scoring=lambda name, scorer: progress.counted(name, scorer) if name in opened else scorer,
    )
    if opened and len(entrants) > 1:
        run = replace(run, comparison=compare_runs({"": run}, SUITES))
    if audit:
        run = _audited(run, opened, tasks[0], options)
    if output:
        write_run(output, run)
    if html:
        write_report(run, html)
    show_all(terminal.run(run))
    if output:
        say(f"The run, with every score, is in {output}")
    if html:
        say(f"The report is in {html}")


@app.command()
def compare(
    runs: Runs,
    resamples: Resamples = 10_000,
    html: Annotated[Path | None, typer.Option("--html", help="Write a report of all of them to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare scorers item by item: which differences are real? One run file with several scorers will do."""
    from prefrank.evaluation.compare_runs import compare_runs
    from prefrank.evaluation.merging import merged
    from prefrank.evaluation.protocols import SUITES
    from prefrank.evaluation.run_file import read_run
    from prefrank.reports import terminal
    from prefrank.reports.html import write_report
    from prefrank.stats.bootstrap import Bootstrap

    check_files({"--html": html}, runs)
    loaded, bootstrap = {str(path): read_run(path) for path in runs}, Bootstrap(resamples=resamples)
    tests = compare_runs(loaded, SUITES, bootstrap=bootstrap)
    if html:
        whole = merged(list(loaded.values()))  # where two scorers of one name are told apart by number
        write_report(list(loaded.values()), html, comparison=compare_runs({"": whole}, SUITES, bootstrap=bootstrap))
    print_result(_tests_json(tests), as_json, lambda: show_all(terminal.paired_tests(tests)))
    if html:
        say(f"The report is in {html}")


def _tests_json(tests: "PairedTests") -> dict[str, Any]:
    """The tests as plain values, with the number of discordant pairs."""
    from prefrank.io.schema import plain

    record = plain(tests)
    for pair, test in zip(record["pairs"], tests.pairs, strict=True):
        if test.mcnemar is not None:
            pair["mcnemar"] = test.mcnemar.to_json()
    return record


@app.command()
def leaderboard(
    folder: Annotated[Path, typer.Argument(help="A folder of run files.")],
    suite: Annotated[
        str | None, typer.Option(help="The suite to sort by; by default the one most models have.")
    ] = None,
    resamples: Resamples = 10_000,
    html: Annotated[Path | None, typer.Option("--html", help="Write the table and charts to this page.")] = None,
    as_json: AsJson = False,
) -> None:
    """Models side by side from their run files, with groups that cannot be told apart."""
    from prefrank.reports import terminal
    from prefrank.reports.leaderboard import leaderboard as rank_runs
    from prefrank.reports.leaderboard import run_files
    from prefrank.reports.leaderboard_page import write_leaderboard
    from prefrank.stats.bootstrap import Bootstrap

    check_files({"--html": html}, run_files(folder))
    board = rank_runs(folder, suite=suite, bootstrap=Bootstrap(resamples=resamples))
    if html:
        write_leaderboard(board, html)
    print_result(board.to_json(), as_json, lambda: show_all(terminal.leaderboard(board)))
    if html:
        say(f"The page is in {html}")


@app.command()
def card(
    folder: Annotated[Path, typer.Argument(help="A model folder; its README.md becomes the card.")],
    run: Annotated[list[Path] | None, typer.Option("--run", help="A run file of this model; repeatable.")] = None,
    fact: Annotated[
        list[str] | None, typer.Option("--fact", help="What no record holds, as NAME=TEXT; repeatable.")
    ] = None,
    facts: Annotated[Path | None, typer.Option("--facts", help="The same from a YAML file of names and texts.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a README.md that prefrank did not write.")
    ] = False,
) -> None:
    """Write a model card from the training record and run files; what is missing is asked for, never left blank."""
    from prefrank.evaluation.run_file import read_run
    from prefrank.model.hub import resolve_model
    from prefrank.reports.card.facts import read_facts
    from prefrank.reports.card.model_card import FILE, write_card

    if folder.is_dir():
        check_files({"README.md": resolve_model(str(folder)) / FILE}, [*(run or []), *([facts] if facts else [])])
    given = read_facts(facts, fact or [])
    path = write_card(folder, [read_run(path) for path in run or []], given, overwrite=overwrite)
    say(f"The model card is in {path}")


@app.command()
@scoring_options()
def calibrate(
    folder: Annotated[Path, typer.Argument(help="A model folder; its prefrank.json keeps the temperature.")],
    data: Annotated[list[str], typer.Option(help="Held-out comparisons: SOURCE or SOURCE:SPLIT; repeatable.")],
    as_json: AsJson = False,
    *,
    scoring: ScoringOptions,
) -> None:
    """Fit the temperature that makes score differences probabilities, and store it with the model."""
    from prefrank.cli.commands import read_comparisons
    from prefrank.data.candidates import labelled
    from prefrank.evaluation.temperature_fit import calibrate as fit
    from prefrank.model.hub import resolve_model
    from prefrank.reports import terminal

    if folder.is_dir():
        check_files({"prefrank.json": resolve_model(str(folder)) / "prefrank.json"}, local_places(*data))
    comparisons = labelled(read_comparisons(data), scoring.head)
    facts = fit(
        folder,
        comparisons,
        fitted_on=", ".join(data),
        **asdict(scoring),
    )
    place = resolve_model(str(folder))  # of a run's folder, its best checkpoint
    print_result(facts, as_json, lambda: show_all(terminal.calibrated(place, facts)))


@app.command()
def suites(as_json: AsJson = False) -> None:
    """List the benchmarks that prefrank evaluate --suite knows, and where their data come from."""
    from prefrank.evaluation.protocols import SUITES
    from prefrank.reports import terminal

    record = [
        {
            "name": suite.name,
            "title": suite.title,
            "hub": suite.hub,
            "files": list(suite.layout),
            "source": suite.source,
        }
        for suite in SUITES.values()
    ]
    print_result(record, as_json, lambda: show_all(terminal.suites(SUITES.values())))


def _audited(run: "Run", opened: "Mapping[str, OpenedScorer]", task: "Task", options: "ModelOptions") -> "Run":
    """The run with an audit of each model that can be run in other formats; one that fails is said, since the scores
    that are there by now must not be lost."""
    from prefrank.cli import progress
    from prefrank.evaluation.audit import audit

    scorers = list(run.scorers)
    for place, record in enumerate(scorers):
        scorer = opened.get(record.name)
        if scorer is not None and scorer.kind in ("model", "transformers"):
            try:
                with progress.auditing() as report:
                    audited = audit(
                        scorer.name,
                        task.data.items,
                        head=options.head,
                        device=options.device,
                        max_length=options.max_length,
                        pre_rendered=options.pre_rendered,
                        template=options.template,
                        trust_remote_code=options.trust_remote_code,
                        progress=report,
                    )
            except PrefrankError as error:
                say(f"{scorer.name} was not audited: {error}", style="yellow")
            else:
                scorers[place] = replace(record, audit=audited)
    return replace(run, scorers=tuple(scorers))
