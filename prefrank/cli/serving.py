"""The command that serves models over HTTP; its options are the fields of `ServeSettings`."""

import functools
import inspect
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import MISSING, Field, asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from prefrank.cli.commands import app
from prefrank.cli.options import ScoringOptions, scoring_options
from prefrank.cli.screen import say
from prefrank.serving.settings import ServeSettings

if TYPE_CHECKING:
    from prefrank.serving.loading import Loaded
    from prefrank.serving.run import Started


def serve_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each field of `ServeSettings` that has a text, in place of its parameter `given`,
    which gets those that the user named."""
    hints = get_type_hints(ServeSettings)
    chosen = [part for part in fields(ServeSettings) if "says" in part.metadata]
    options = [
        inspect.Parameter(part.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(part, hints))
        for part in chosen
    ]
    own = inspect.signature(command, eval_str=True).parameters

    @functools.wraps(command)
    def run(**named: Any) -> None:
        values = {part.name: named.pop(part.name) for part in chosen}
        command(**named, given={name: value for name, value in values.items() if value not in (None, [])})

    shown = []
    for name, parameter in own.items():
        shown += options if name == "given" else [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
    vars(run)["__signature__"] = inspect.Signature(shown)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return run


def _option(part: "Field[Any]", hints: dict[str, Any]) -> Any:
    """The annotation that typer reads. No option has a default of its own: one that is not given leaves the word to the
    environment and the file."""
    kind = hints[part.name]
    default = part.default if part.default is not MISSING else None
    shown = {True: "yes", False: "no"}.get(default) if isinstance(default, bool) else default
    if get_origin(kind) is tuple:
        kind = list[str]
    elif get_origin(kind) is Literal:
        kind = str
    elif type(None) in get_args(kind):
        kind = next(each for each in get_args(kind) if each is not type(None))
    flag = part.metadata["flag"] or f"--{part.name.replace('_', '-')}"
    names = [f"{flag}/--no-{part.name.replace('_', '-')}"] if kind is bool else [flag]
    says = part.metadata["says"] if shown in (None, "", ()) else f"{part.metadata['says']} Default: {shown}."
    return Annotated[
        kind | None,
        typer.Option(*names, help=says, rich_help_panel=part.metadata["heading"], show_default=False),
    ]


@app.command()
@scoring_options()
@serve_options
def serve(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="A model folder or hub id; or NAME=that, repeatable."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings; PREFRANK_SERVE_... variables and options go before it.")
    ] = None,
    *,
    given: dict[str, Any],
    scoring: ScoringOptions,
) -> None:
    """Serve models over HTTP, to the clients of many servers at once; docs/serving.md says which, and how."""
    from prefrank.serving.configure import configure, named_models
    from prefrank.serving.listener import open_listener, takes_anybody

    loading = {option.name: option.default for option in fields(ScoringOptions)}
    how = {name: value for name, value in asdict(scoring).items() if value != loading[name]}
    flags = {**given, **({"models": named_models(model)} if model else {}), **({"loading": how} if how else {})}
    settings = configure(flags, os.environ, config, list(loading))
    with open_listener(settings) as listener, _log_to_standard_error(settings.log_format):
        if takes_anybody(settings):
            logging.getLogger("prefrank.serving").warning(
                "whoever reaches %s can use the models, as no keys are set; set some with --api-key-file",
                settings.host,
            )
        from prefrank.serving.run import serve as run  # which loads torch, and the port is known to be free by now

        ended = run(settings, listener, started=lambda facts: _show_start(facts, settings.log_format))
    if not ended:  # a thread may be in a library's code still, which must not meet the end of the interpreter
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(0)


def _show_start(started: "Started", log_format: str) -> None:
    """What is served, on one screen."""
    if log_format == "json":
        logging.getLogger("prefrank.serving").info("ready", extra={"facts": asdict(started)})
        return
    for loaded in started.models:
        say(_line(loaded))
    keys = "with a key" if started.needs_key else "without keys"
    say(f"Ready on {started.url} after {started.seconds:.1f} s, {keys}; SIGHUP reloads, SIGTERM or Ctrl-C drains")


def _line(loaded: "Loaded") -> str:
    about = loaded.about
    grown = "" if loaded.grown_bytes is None else f", process + {loaded.grown_bytes / 1e6:,.0f} MB"
    where = f"{loaded.cores} core{'s' * (loaded.cores > 1)}" if about.device == "cpu" else about.device
    default = " (the default)" if about.is_default else ""
    return (
        f"{about.name}{default}: {about.architecture}, {about.parameters:,} parameters, {about.precision} on"
        f" {about.kernels} ({where}), weights {loaded.weight_bytes / 1e6:,.0f} MB{grown}, at most"
        f" {about.max_length:,} tokens, fingerprint {about.fingerprint[:12]}"
    )


class _Json(logging.Formatter):
    """A line of a log as a JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        facts = vars(record).get("facts", {})
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        message = record.getMessage().removeprefix(f"{record.levelname.lower()}: ")
        return json.dumps({"time": at, "level": record.levelname.lower(), "message": message, **facts})


@contextmanager
def _log_to_standard_error(log_format: str) -> Iterator[None]:
    """Inside the block, what the server says while it runs."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if log_format == "json" else logging.Formatter("%(asctime)s %(message)s"))
    # What uvicorn warns of, each client can cause without end: bytes that are no HTTP, offers of other protocols
    levels = {"prefrank.serving": logging.INFO, "uvicorn": logging.ERROR}
    logs = [logging.getLogger(name) for name in levels]
    before = [(log.handlers, log.propagate, log.level) for log in logs]
    for log, level in zip(logs, levels.values(), strict=True):
        log.handlers, log.propagate = [handler], False
        log.setLevel(level)
    try:
        yield
    finally:
        for log, (handlers, propagate, number) in zip(logs, before, strict=True):
            log.handlers, log.propagate = handlers, propagate
            log.setLevel(number)
