"""Scorers, data, and how intervals were made, in a compact block."""

from collections.abc import Mapping, Sequence

from prefrank.evaluation.protocols import missing_in_words
from prefrank.evaluation.results import RowCounts, Run, ScorerRecord
from prefrank.io.names import short_names
from prefrank.reports.blocks import Cell, FactList, Section, Table, name_cell

TIES = {"half": "half a win", "wrong": "lost", "shared": "shared"}


def what_was_run(run: Run, names: Sequence[str], made: Sequence[Run]) -> Section:
    """The first section.

    Args:
        names: of the scorers, whole.
        made: the runs that are shown together.
    """
    scorers = tuple(
        (
            name_cell(scorer.name, "" if whole == scorer.name else whole),
            Cell(scorer.kind),
            Cell(scorer.model[:12], tone="code", title=scorer.model),
            Cell(_format(scorer.format), _control_strings(scorer), tone="text"),
            Cell(_speed(scorer)),
        )
        for scorer, whole in zip(run.scorers, names, strict=True)
    )
    places = short_names([suite.where for suite in run.suites.values()])
    suites = tuple(
        (
            name_cell(suite.title or name, name),
            Cell(f"{len(suite.items):,}"),
            Cell(f"{suite.rows.read:,}", _left_out(suite.rows), tone="text"),
            Cell(TIES.get(suite.ties, suite.ties)),
            Cell(place, title=suite.where),
            Cell(suite.data[:12], tone="code", title=suite.data),
            Cell(suite.source, tone="text"),
        )
        for (name, suite), place in zip(run.suites.items(), places, strict=True)
    )
    tables = [
        Table("Scorers", ("Scorer", "Kind", "Fingerprint", "Format", "Scoring"), scorers),
        Table("Data", ("Suite", "Items", "Rows read", "Equal scores", "From", "Hash", "Protocol"), suites),
    ]
    facts = FactList(how_made(run.command, made))
    return Section("run", "What was run", (*(table for table in tables if table.rows), facts))


def how_made(command: str | None, made: Sequence[Run]) -> tuple[tuple[str, str], ...]:
    """How the runs were made, each way once, a line for each."""
    ways = [_way(run) for run in made]
    facts = {name: "\n".join(dict.fromkeys(way[name] for way in ways)) for name in ways[0]}
    time = facts.pop("Time")
    return (*facts.items(), ("Command", command or "called from Python"), ("Time", time))


def _way(run: Run) -> dict[str, str]:
    bootstrap, machine = run.intervals, run.hardware
    cores, used = machine.cores, machine.usable_cores or machine.cores
    parts = [
        machine.cpu,
        f"{used} of {cores} cores used" if cores else None,
        f"{machine.memory_bytes / 2**30:.1f} GiB" if machine.memory_bytes else None,
        *machine.gpus,
        machine.system,
    ]
    return {
        "Intervals": f"{bootstrap.confidence * 100:g} %, {bootstrap.resamples:,} resamples of prompts,"
        f" seed {bootstrap.seed}",
        "Versions": ", ".join(f"{name} {version}" for name, version in run.versions.items()),
        "Hardware": ", ".join(part for part in parts if part) or "not recorded",
        "Time": run.created,
    }


def _format(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {_plain(value)}" for key, value in settings.items()) or "-"


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_plain(inner)}" for key, inner in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    return "none" if value is None else {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _control_strings(scorer: ScorerRecord) -> str:
    """A remark on texts that hold control strings of the model and were scored as text."""
    count = scorer.control_strings
    return f"{count:,} text{'s hold' if count > 1 else ' holds'} control strings of this model" if count else ""


def _speed(scorer: ScorerRecord) -> str:
    seconds, tokens = scorer.scoring_s, scorer.tokens
    return f"{seconds:,.1f} s" + (f", {tokens / seconds:,.0f} tokens/s" if tokens and seconds >= 0.1 else "")


def _left_out(rows: RowCounts) -> str:
    """Rows dropped by reason, and published rows that were not there."""
    drops = [f"{n:,} dropped: {reason}" for reason, n in rows.dropped.items() if n]
    return "; ".join([*drops, *missing_in_words(rows.missing)]) or "none dropped"
