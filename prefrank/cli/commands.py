"""The commands: each parses, calls one library function and shows the result.

Imports stand inside the commands, so that `prefrank --help` loads none of what they need.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefrank.cli.allocator import keep_freed_memory
from prefrank.cli.options import ScoringOptions, scoring_options
from prefrank.cli.places import check_files, local_places, own_files, recipe_places
from prefrank.cli.screen import check_output, say, show_json
from prefrank.errors import BadInput, NotFound
from prefrank.io.outputs import check_outputs
from prefrank.reports.rich_tables import joined

if TYPE_CHECKING:
    from prefrank.io.columns import Columns
    from prefrank.training import Recipe
    from prefrank.types import Comparison

app = typer.Typer(
    name="prefrank",
    help="Reward models: train on human comparisons, score and rank replies, measure.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Look at comparison data.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Model = Annotated[str, typer.Option("--model", "-m", help="A model folder or hub id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from importlib.metadata import version as version_of

        check_output()
        print(version_of("prefrank"))
        raise typer.Exit


@app.command()
@keep_freed_memory()
def train(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe, such as recipes/demo.yaml.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a key: --set learning_rate=2e-6.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only report counts, tokens, steps, memory and time.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the newest checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start over if there is a run already.")] = False,
    find_lr: Annotated[bool, typer.Option("--find-lr", help="Suggest a learning rate after a short test.")] = False,
    sweep: Annotated[
        Path | None, typer.Option(help="A YAML grid of changes: one run each, in subfolders; run again to continue.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="With --find-lr or --sweep: a PNG of the losses.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a reward model from a recipe."""
    from prefrank.cli import progress, tables
    from prefrank.training import load_recipe
    from prefrank.training import train as run
    from prefrank.training.loop.processes import close_processes

    _check_modes(plot, dry_run=dry_run, find_lr=find_lr, sweep=sweep is not None)
    overrides = [*(set_ or ()), *(["resume=true"] if resume else ()), *(["overwrite=true"] if overwrite else ())]
    if sweep:
        _sweep(recipe, overrides, sweep, plot, as_json)
        return
    loaded = load_recipe(recipe, overrides)
    _check_training(loaded.model_dump(), plot, recipe)
    if find_lr:
        _find_rate(loaded, plot, as_json)
        return
    if dry_run:
        from prefrank.training import dry_run as forecast_run

        forecast = forecast_run(loaded)
        print_result(forecast.to_json(), as_json, lambda: tables.dry_run(forecast))
        return
    with progress.training() as report:
        trained = run(loaded, callback=report)
    if not close_processes():
        return
    facts = {"last": str(trained.last), "best": trained.best and str(trained.best), "steps": trained.steps}
    print_result(facts, as_json, lambda: tables.say_place("The model", trained.best or trained.last))


@app.command()
@scoring_options()
def score(
    source: Annotated[
        str, typer.Argument(help="JSON lines, CSV, Parquet, Arrow, or a saved data set; - for standard input.")
    ],
    model: Model,
    output: Annotated[
        str, typer.Option("--output", "-o", help=".jsonl, .jsonl.gz, .parquet, .arrow or .csv; - for stdout.")
    ] = "-",
    columns: Annotated[
        str | None,
        typer.Option(
            help="Names of the columns prompt, system, reply, replies or messages: prompt=question,reply=a.b."
        ),
    ] = None,
    prompt_column: Annotated[str | None, typer.Option(help="The same for the prompt: a string or messages.")] = None,
    reply_column: Annotated[str | None, typer.Option(help="The same for the reply or list of replies.")] = None,
    prefix: Annotated[str, typer.Option(help="Prefix of the added columns: rm_ gives rm_score.")] = "",
    *,
    scoring: ScoringOptions,
) -> None:
    """Score every row of a file; the rows come back with their scores."""
    from prefrank.cli import progress, tables
    from prefrank.io.atomic import folder_for
    from prefrank.io.columns import parse_columns
    from prefrank.scoring.files import score_file

    named = parse_columns(columns) if columns is not None else None
    check_files({"--output": Path(output)}, local_places(model, source, scoring.template))
    loaded = scoring.load(model)
    with folder_for(Path(output)), progress.scoring() as report:
        done = score_file(
            loaded,
            source,
            output,
            columns=named,
            prompt_column=prompt_column,
            reply_column=reply_column,
            prefix=prefix,
            progress=report,
        )
    say(
        f"{done.replies:,} replies of {done.rows:,} rows scored, {done.tokens:,} tokens;"
        f" {done.cut_prompts:,} with the prompt cut, {done.cut_replies:,} with the reply cut"
    )
    if not scoring.pre_rendered:
        tables.say_control_strings(done.control_strings)


@app.command()
@scoring_options()
def rank(
    model: Model,
    prompt: Annotated[str, typer.Option(help="The prompt: one user turn.")],
    reply: Annotated[list[str], typer.Option(help="A reply; repeat it for each one.")],
    calibrated: Annotated[
        bool, typer.Option("--calibrated", help="Probabilities by the temperature that prefrank calibrate stored.")
    ] = False,
    as_json: AsJson = False,
    *,
    scoring: ScoringOptions,
) -> None:
    """Rank replies to one prompt, best first."""
    from dataclasses import asdict

    from prefrank.cli import tables

    loaded = scoring.load(model)
    if calibrated and loaded.calibration is None:
        raise BadInput(
            f"{model} has no stored temperature for these scores; run: prefrank calibrate {model} --data ..."
        )
    temperature = loaded.calibration["temperature"] if calibrated and loaded.calibration else 1.0
    ranked = loaded.rank(prompt, reply)
    if not scoring.pre_rendered:
        tables.say_control_strings(loaded.control_strings([(prompt, text) for text in reply]))
    record = {"prompt": prompt, "temperature": temperature, "replies": [asdict(entry) for entry in ranked]}
    print_result(record, as_json, lambda: tables.ranking(prompt, ranked, temperature))


@app.command()
@scoring_options("head", "kernels", "num_threads", "max_tokens", "template")
def quantise(
    model: Annotated[str, typer.Argument(help="A float model folder or hub id.")],
    output: Annotated[Path, typer.Argument(help="The new folder.")],
    precision: Annotated[str, typer.Option(help="int16 (near float32) or int8 (coarser and faster).")] = "int16",
    data: Annotated[str, typer.Option(help="SOURCE or SOURCE:SPLIT whose texts both models score.")] = "starter",
    rows: Annotated[int, typer.Option(help="At most this many of its replies.")] = 500,
    max_flips: Annotated[
        float | None, typer.Option(help="Percent of pairs whose order may change; by default 0.5.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write the folder whatever the differences are.")] = False,
    as_json: AsJson = False,
    *,
    scoring: ScoringOptions,
) -> None:
    """Write a folder with integer weights, after measuring what they do to the scores."""
    from prefrank.cli import tables
    from prefrank.scoring.quantise import quantise_folder

    check_outputs({}, local_places(model, data), folders={"OUTPUT": output})
    parity = quantise_folder(
        model,
        output,
        precision,
        head=scoring.head,
        kernels=scoring.kernels,
        num_threads=scoring.num_threads,
        max_tokens=scoring.max_tokens,
        template=scoring.template,
        data=data,
        num_rows=rows,
        max_flips=max_flips,
        force=force,
    )
    print_result(parity.to_json(), as_json, lambda: tables.parity(model, output, precision, parity))


@app.command()
@scoring_options("template")
def merge(
    adapter: Annotated[str, typer.Argument(help="A LoRA adapter: a folder or hub id, as peft writes them.")],
    output: Annotated[Path, typer.Argument(help="The new folder.")],
    *,
    scoring: ScoringOptions,
) -> None:
    """Write a LoRA adapter and its base as one plain model folder."""
    from prefrank.cli import tables
    from prefrank.scoring import merge_adapter

    check_outputs({}, local_places(adapter), folders={"OUTPUT": output})
    tables.say_place("The merged model", merge_adapter(adapter, output, template=scoring.template))


@app.command()
def runs(
    places: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of runs, or folders that hold some; by default runs."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the curves of the runs to this PNG.")] = None,
    as_json: AsJson = False,
) -> None:
    """List training runs, or compare the ones you name: settings, metrics, curves."""
    from prefrank.cli import run_tables
    from prefrank.training.records.runs import differing_keys, find_runs

    training_runs, skipped = find_runs(places or [Path("runs")])
    folders = [
        *(run.folder for run in training_runs),
        *(left_out.folder for left_out in skipped),
    ]  # a torn run has files to lose too
    check_files({"--plot": plot}, [path for folder in folders for path in own_files(folder)])
    named = len(places or ()) == len(training_runs) > 1  # each place is a run: they are to be compared
    differing = differing_keys(training_runs)
    table = (
        (lambda: run_tables.comparison(training_runs, differing)) if named else (lambda: run_tables.runs(training_runs))
    )
    if plot:
        from prefrank.training.records.plots import plot_runs

        plot_runs(training_runs, run_tables.in_picture(run_tables.run_names(training_runs)), plot)
    listed = {"runs": [run.to_json() for run in training_runs], "differing": differing}
    print_result(listed | {"skipped": [left_out.to_json() for left_out in skipped]}, as_json, table)
    for left_out in skipped:
        say(f"{left_out.folder} is left out: {left_out.reason}", style="yellow")
    if plot:
        say(f"The curves are in {plot}")


@data_app.command("describe")
def describe(
    source: Annotated[str, typer.Argument(help="A known name, a hub id, a file or a folder; SOURCE:SPLIT for one.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Count this model's tokens instead of words.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Names of its columns: prompt=question,chosen=good; dots reach nested ones.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Count prompts, replies, pairs, ties, lengths and drops by reason; show what length alone would get."""
    from prefrank.cli import tables
    from prefrank.data import describe as describe_loaded
    from prefrank.data import load_comparisons, load_splits, parse_source
    from prefrank.io.columns import parse_columns

    count = None
    if model:
        from prefrank.model.hub import resolve_model
        from prefrank.text import load_tokenizer

        count = load_tokenizer(resolve_model(model)).texts.count
    name, split = parse_source(source)
    named = parse_columns(columns) if columns else None
    loaded = {split: load_comparisons(name, split=split, columns=named)} if split else load_splits(name, columns=named)
    description = describe_loaded(loaded, count_tokens=count)
    print_result(description.to_json(), as_json, lambda: tables.description(source, description))


@app.command()
@scoring_options("head", "max_length", "precision", "kernels", "template", "trust_remote_code")
def info(
    model: Annotated[str, typer.Argument(help="A model folder or hub id.")],
    as_json: AsJson = False,
    *,
    scoring: ScoringOptions,
) -> None:
    """Show a checkpoint: architecture, size, text settings, fingerprint, training."""
    from prefrank.cli import tables
    from prefrank.scoring import checkpoint_info

    facts = checkpoint_info(
        model,
        head=scoring.head,
        max_length=scoring.max_length,
        precision=scoring.precision,
        kernels=scoring.kernels,
        template=scoring.template,
        trust_remote_code=scoring.trust_remote_code,
    )
    print_result(facts, as_json, lambda: tables.checkpoint(model, facts))


def read_comparisons(sources: list[str], columns: "Columns | None" = None) -> "list[Comparison]":
    from prefrank.cli import tables
    from prefrank.data import load_comparisons, parse_source

    comparisons: list[Comparison] = []
    for source in sources:
        name, split = parse_source(source)
        loaded = load_comparisons(name, split=split, columns=columns)
        if not loaded.comparisons:
            raise NotFound(f"{source} has no usable comparison; `prefrank data describe {source}` says why")
        tables.say_report(source, loaded.report)
        comparisons += loaded.comparisons
    return comparisons


def _check_modes(plot: Path | None, *, dry_run: bool, find_lr: bool, sweep: bool) -> None:
    if dry_run + find_lr + sweep > 1:
        raise BadInput("--dry-run, --find-lr and --sweep exclude each other; give one of them")
    if plot and not (find_lr or sweep):
        raise BadInput("--plot goes with --find-lr or --sweep; for the curves of runs there is prefrank runs --plot")


def _check_training(recipe: Mapping[str, Any], plot: Path | None, *files: Path) -> None:
    """Raises BadInput for a run's folder in place of what it is trained from, or a picture in place of any file read;
    CannotWrite for a picture that cannot be written."""
    read, output = recipe_places(recipe), recipe.get("output_dir")
    if isinstance(output, str) and output:  # which may be a link: only what we make in it is ever replaced
        check_outputs({}, read, folders={"output_dir": Path(os.path.realpath(os.path.expanduser(output)))})
    check_files({"--plot": plot}, [*read, *files])


def _find_rate(recipe: "Recipe", plot: Path | None, as_json: bool) -> None:
    from prefrank.cli import progress, run_tables
    from prefrank.training.tools.find_rate import find_rate

    with progress.training() as report:
        search = find_rate(recipe, callback=report)
    if plot:
        from prefrank.training.records.plots import plot_rate_search

        plot_rate_search(search, plot)
    print_result(search.to_json(), as_json, lambda: run_tables.rate_search(search))
    if plot:
        say(f"The curve is in {plot}")


def _sweep(recipe: Path, overrides: list[str], grid: Path, plot: Path | None, as_json: bool) -> None:
    from prefrank.cli import progress, run_tables
    from prefrank.training.recipe_file import load_sweep, read_values
    from prefrank.training.tools.sweep import run_sweep

    base, changes = read_values(recipe, overrides), load_sweep(grid)
    _check_training(base.values, plot, recipe, grid)
    with progress.training() as report:
        rows = run_sweep(
            base,
            changes,
            callback=report,
            next_run=lambda name, number, total: say(joined(f"run {number} of {total}", style="bold"), f": {name}"),
        )
    if plot:
        from prefrank.training.records.plots import plot_runs

        shown = [row for row in rows if row.run is not None]
        plot_runs([row.run for row in shown if row.run], run_tables.in_picture([row.name for row in shown]), plot)
    print_result([row.to_json() for row in rows], as_json, lambda: run_tables.sweep(rows))
    if plot:
        say(f"The curves are in {plot}")


def print_result(record: Any, as_json: bool, show: Callable[[], None]) -> None:
    """Print the results after all files are written: standard output may lead to a reader that has gone."""
    show_json(record) if as_json else show()
