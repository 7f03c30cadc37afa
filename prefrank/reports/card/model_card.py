"""A model card for the hub: README.md of a checkpoint, every section filled from records, measurements and answers.

Sources, in this order: the files (`checkpoint_info`, config.json), the training record in prefrank.json, run files in
which this model was a scorer (found by its fingerprint), and facts that people state (`facts.py`). The headings are
those of the hub's own template. Nothing is left blank and nothing is made up: what is missing is one error that names
it all. Carbon that was not measured is estimated by a published rule, and the card says so.
"""

import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefrank.errors import BadInput, printable
from prefrank.evaluation.results import Hardware, Run
from prefrank.io.atomic import write_file
from prefrank.reports.card.emissions import emissions
from prefrank.reports.card.example_code import EXAMPLE, transformers_code
from prefrank.reports.card.facts import KEYS
from prefrank.reports.card.hub_metadata import hub_metadata
from prefrank.reports.card.subject import Subject, read_subject
from prefrank.reports.card.terms import BASES, public_name
from prefrank.reports.card.training_record import LOSSES
from prefrank.reports.card.training_words import papers, reasons, recipe_yaml, sets_drawn, training_sets
from prefrank.reports.card.weaknesses import advice, weaknesses
from prefrank.reports.markdown import Markdown, bare, bibtex, code, fence, plain, prose, sentence
from prefrank.reports.numbers import Real, stated, stated_count, stated_estimate, stated_interval
from prefrank.reports.page import template

FILE = "README.md"
MARK = "<!-- Written by prefrank card"


def write_card(folder: Path, runs: Sequence[Run], facts: Mapping[str, str], *, overwrite: bool = False) -> Path:
    """Write README.md into a checkpoint's folder and return its path.

    Args:
        overwrite: replace a README.md that prefrank did not write, too.

    Raises:
        BadInput: as `model_card`; or there is a README.md of somebody else.
        CannotWrite: the folder cannot be written.
    """
    subject = read_subject(folder, runs, facts)
    text, path = _render(subject), subject.folder / FILE
    if path.exists() and not overwrite and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        raise BadInput(f"{path} was not written by prefrank card; move it away, or overwrite it on purpose")
    write_file(path, text.encode("utf-8", "replace"))  # a lone surrogate in a name is shown as "?"
    return path


def model_card(folder: Path, runs: Sequence[Run], facts: Mapping[str, str]) -> str:
    """The card as Markdown with the hub's metadata on top.

    Args:
        folder: of a checkpoint, or of a training run (its best one).
        runs: those count in which this model's fingerprint is a scorer's.
        facts: answers by key, as `read_facts` gives them.

    Raises:
        NotFound: no such folder; or jinja2 is not installed.
        BadModel: as `RewardModel.load`; or a part of the training record is of a wrong type.
        BadInput: facts are missing, all named at once; the weights are not those that were saved; or no run is of
            this model.
    """
    return _render(read_subject(folder, runs, facts))


def _render(subject: Subject) -> str:
    shown: dict[str, Callable[..., str]] = {
        "number": stated,
        "estimate": stated_estimate,
        "interval": stated_interval,
        "counted": stated_count,
        "duration": _duration,
        "size": _size,
        "machine": _machine,
        "plain": plain,
        "prose": prose,
        "sentence": sentence,
        "code": code,
        "bibtex": bibtex,
        "flat": _flat,
        "literal": json.dumps,
        "fence": fence,
    }
    filters: dict[str, Callable[..., object]] = {name: _made(show) for name, show in shown.items()}
    filters |= {"public": public_name, "reasons": reasons, "verbatim": Markdown}
    page = template("card.md.jinja", "a model card", filters=filters, finalize=_as_markdown)
    lines = (printable(line) for line in page.render(_context(subject)).split("\n"))  # what YAML writes as it is, too
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def _made(show: Callable[..., str]) -> Callable[..., Markdown]:
    """A filter whose result is Markdown."""
    return lambda value: Markdown(show(value))


def _as_markdown(value: object) -> str:
    """A value of the template: Markdown as it is, all else as text, with the spaces around it."""
    if value is None:
        raise TypeError("the template shows a value that is not there")
    if isinstance(value, Markdown):
        return value.text
    text = str(value)
    inner = text.strip(" ")
    return text if not inner else text.replace(inner, plain(inner), 1)


def _context(subject: Subject) -> dict[str, Any]:
    training, facts, main = subject.training, subject.facts, subject.main
    base = subject.base or ""
    started = training.started if training else main.run.created
    version = re.sub(r"[^\w.+]", "", main.run.prefrank)
    runs = {id(measured.run): measured.run for measured in subject.measured.values()}.values()
    return {
        "metadata": Markdown(hub_metadata(subject)),
        "mark": Markdown(f"{MARK} {version}: change the facts and write it again. -->"),
        "name": subject.name,
        "model_id": subject.model_id,
        "example": EXAMPLE,
        "code": transformers_code(subject),
        "facts": dict.fromkeys(KEYS, "") | dict(facts),
        "info": subject.checkpoint,
        "config": subject.config,
        "objective": LOSSES[training.recipe.loss][0] if training else "as stated under Training Procedure",
        "quantised": subject.quantised,
        "training": training,
        "base": "none: trained from scratch" if subject.from_scratch else base,
        "base_license": facts.get("base_license") or (BASES[base].license if base in BASES else ""),
        "languages": ", ".join(subject.languages),
        "item_languages": subject.item_languages,
        "suites": list(subject.measured.values()),
        "main": main,
        "probes": subject.probes,
        "limits": [Markdown(weakness) for weakness in weaknesses(subject)],
        "advice": [Markdown(line) for line in advice(subject)],
        "sets": training_sets(subject),
        "drawn": [Markdown(line) for line in sets_drawn(subject)],
        "recipe": recipe_yaml(training.recipe) if training else "",
        "speed": _speed(subject),
        "bytes": sum(path.stat().st_size for path in subject.folder.iterdir() if path.is_file() and path.name != FILE),
        "emissions": Markdown(emissions(training, facts) or ""),
        "papers": papers(subject),
        "year": facts.get("year") or started[:4],
        "key": re.sub(r"\W+", "-", subject.name).strip("-").lower(),
        "commands": "\n".join(bare(run.command) for run in runs if run.command),
    }


def _speed(subject: Subject) -> float | None:
    """Tokens a second, the median of the log."""
    logged = subject.training.curve if subject.training else ()
    speeds = [line.tokens_per_s for line in logged if line.tokens_per_s is not None]
    return statistics.median(speeds) if speeds else None


def _duration(seconds: Real) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _size(count: Real) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB" if count < 1000 else f"{count / 1000:.3g} TB"


def _machine(hardware: Hardware) -> str:
    """The hardware of a record in a phrase."""
    if hardware == Hardware():
        return "machine not recorded"
    gpus = ", ".join(hardware.gpus) or "no GPU"
    cores = f"{hardware.usable_cores} of {hardware.cores} cores"
    memory = "memory not recorded" if hardware.memory_bytes is None else f"{_size(hardware.memory_bytes)} memory"
    return plain(f"{hardware.cpu}, {cores}, {memory}, {gpus}")


def _flat(values: Mapping[str, Any]) -> str:
    """The plain numbers and words of a record as a phrase; lists by their length, parts of parts left out."""
    counted = {key: len(value) if isinstance(value, list) else value for key, value in values.items()}
    kept = {key: value for key, value in counted.items() if isinstance(value, int | float | str) and value != ""}
    return ", ".join(f"{plain(key.replace('_', ' '))} {plain(value)}" for key, value in kept.items())
