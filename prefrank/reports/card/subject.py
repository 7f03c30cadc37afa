"""The model that a card is of: its files, its training record, its results in run files, and the facts stated of it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefrank.errors import BadInput
from prefrank.evaluation.results import PairedTest, Run, ScorerRecord, SuiteRecord, SuiteResult, check_run
from prefrank.io.json_files import Fields, read_fields
from prefrank.io.schema import read
from prefrank.reports.card.emissions import emissions
from prefrank.reports.card.facts import CONDITIONAL, REQUIRED, WITHOUT_RECORD, check_facts, is_blank
from prefrank.reports.card.terms import BASES, DATA, base_of, catalogue_name, data_license, public_name
from prefrank.reports.card.training_record import TrainingRecord, read_training
from prefrank.scoring.info import checkpoint_info
from prefrank.stats.estimates import Estimate

PROBES = "probes"


@dataclass(frozen=True, slots=True)
class TextFormat:
    """How texts become rows."""

    template: str
    max_length: int
    labels: bool = False


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The files of a model, as `checkpoint_info` finds them."""

    folder: str
    kind: str
    architecture: str | None
    parameters: int
    dtypes: Mapping[str, int]
    heads: tuple[str, ...]
    precision: str
    scored_token: str
    positions: int | None
    vocabulary: int
    text: TextFormat
    fingerprint: str
    as_saved: bool | None
    training: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run says of this model on one suite.

    Args:
        name: of the suite.
        scorer: the model's entry.
    """

    name: str
    scorer: ScorerRecord
    run: Run

    @property
    def suite(self) -> SuiteRecord:
        return self.run.suites[self.name]

    @property
    def result(self) -> SuiteResult:
        return self.scorer.results[self.name]

    @property
    def others(self) -> tuple[ScorerRecord, ...]:
        """The scorers that were measured beside it."""
        return tuple(scorer for scorer, _ in self.run.results_on(self.name) if scorer.name != self.scorer.name)

    @property
    def headline(self) -> Estimate:
        return self.result.value

    @property
    def baseline(self) -> tuple[ScorerRecord, Estimate] | None:
        """The best one and its headline; None where none has a value."""
        return self.run.best_baseline(self.name, besides=self.scorer.name)

    @property
    def tested(self) -> PairedTest | None:
        """The paired test of this model against the best baseline, if the run holds it."""
        if self.run.comparison is None or self.baseline is None:
            return None
        return self.run.comparison.of(self.scorer.name, self.baseline[0].name, self.name, self.result.headline)


@dataclass(frozen=True, slots=True)
class Subject:
    """The model a card is of.

    Args:
        folder: its checkpoint.
        config: config.json.
        training: the training record; None where it is missing or lacks what a card needs.
        quantised: how a quantized folder was made; None for float weights.
        measured: suite -> the newest results.
        facts: answers.
    """

    folder: Path
    checkpoint: Checkpoint
    config: Fields
    training: TrainingRecord | None
    quantised: Fields | None
    measured: Mapping[str, Measured]
    facts: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.facts.get("name") or self.beside.partition("/")[0]

    @property
    def beside(self) -> str:
        """The checkpoint as seen from beside it, or from beside its run."""
        return _beside(self.folder)

    @property
    def model_id(self) -> str:
        """The name by which the card's code loads the model: the folder's, unless the facts give one."""
        return self.facts.get("model_id") or self.beside

    @property
    def sources(self) -> tuple[str, ...]:
        """The data sets it was trained on, as the recipe names them."""
        sets = self.training.recipe.datasets if self.training else ()
        return tuple(dict.fromkeys(data_set.source for data_set in sets))

    @property
    def base(self) -> str | None:
        """The model it started from; None where nobody knows."""
        recorded = base_of(self.training.recipe.model_name) if self.training else None
        return self.facts.get("base_model") or recorded

    @property
    def from_scratch(self) -> bool:
        return self.base is not None and self.base.lower().startswith("none")

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages of the training data if known, else of the items it was measured on, most frequent first."""
        if "language" in self.facts:
            return tuple(code.strip() for code in self.facts["language"].split(",") if code.strip())
        known = [DATA[name].languages for source in self.sources if (name := catalogue_name(source)) in DATA]
        sets = self.training.recipe.datasets if self.training else ()
        asked = [data_set.lang for data_set in sets if data_set.lang]
        trained = dict.fromkeys([*asked, *(code for codes in known for code in codes)])
        return tuple(trained or self.item_languages)

    @property
    def item_languages(self) -> dict[str, float]:
        """Share of the items in each language, of those whose language is known; below 1 % it may be a wrong guess."""
        items = [item for measured in self.measured.values() for item in measured.suite.items]
        codes = [item.language for item in items if item.language]
        shares = {code: codes.count(code) / len(codes) for code in dict.fromkeys(codes)}
        return {code: share for code, share in sorted(shares.items(), key=lambda entry: -entry[1]) if share >= 0.01}

    @property
    def main(self) -> Measured:
        """What the first figures are of: the first suite that is not a probe."""
        return sorted(self.measured.values(), key=lambda measured: measured.name == PROBES)[0]

    @property
    def probes(self) -> Measured | None:
        return self.measured.get(PROBES)


def _beside(folder: Path) -> str:
    inside = re.fullmatch(r"best|last|adapter|checkpoint-\d+", folder.name) and folder.parent.name
    return f"{_beside(folder.parent)}/{folder.name}" if inside else folder.name


def read_subject(folder: Path, runs: Sequence[Run], facts: Mapping[str, str]) -> Subject:
    """Everything that the card of a model is made from.

    Raises:
        BadInput, BadModel: as `model_card`.
    """
    checkpoint = read(Checkpoint, checkpoint_info(str(folder)), strict=False)
    if checkpoint.as_saved is False:
        raise BadInput(
            f"the weights, tokenizer or text settings in {checkpoint.folder} are not those its prefrank.json was"
            " written for, so its record is not of them; save or train the model again"
        )
    place = Path(checkpoint.folder)
    subject = Subject(
        folder=place,
        checkpoint=checkpoint,
        config=_fields(place / "config.json"),
        training=read_training(checkpoint.training, place / "prefrank.json"),
        quantised=_fields(place / "prefrank.json").object("quantised", None),
        measured=_newest_results(runs, checkpoint.fingerprint),
        facts={key: value for key, value in facts.items() if not is_blank(value)},
    )
    check_facts(facts, _wanted(subject))
    return subject


def _fields(path: Path) -> Fields:
    return read_fields(path) if path.is_file() else Fields({}, str(path))


def _newest_results(runs: Sequence[Run], model: str) -> dict[str, Measured]:
    """The newest results of each suite; suites in the order in which they first appear."""
    newest: dict[str, Measured] = {}
    for run in runs:
        check_run(run)
        for scorer in run.scorers:
            for suite in scorer.results if scorer.model == model else ():
                if suite not in newest or newest[suite].run.created < run.created:
                    newest[suite] = Measured(suite, scorer, run)
    if not newest:
        seen = ", ".join(sorted({f"{scorer.name} ({scorer.model[:12]})" for run in runs for scorer in run.scorers}))
        raise BadInput(
            f"no run file is of this model (fingerprint {model[:12]}; found: {seen or 'no run'}); make one with"
            " prefrank evaluate --model FOLDER --json FILE, and name it"
        )
    return newest


def _wanted(subject: Subject) -> dict[str, str]:
    """The facts that this model's card needs, with what is wanted."""
    wanted = dict(REQUIRED)
    if subject.training is None:
        wanted |= WITHOUT_RECORD | {"data_license": CONDITIONAL["data_license"]}
    if subject.base is None:
        wanted["base_model"] = CONDITIONAL["base_model"]
    if subject.base not in BASES and not subject.from_scratch:
        wanted["base_license"] = CONDITIONAL["base_license"]
    for source in subject.sources:
        if data_license(source, subject.facts) is None:
            wanted[f"data_license.{public_name(source)}"] = f"license of the training data {public_name(source)}"
    if not subject.languages:
        wanted["language"] = CONDITIONAL["language"]
    if emissions(subject.training, subject.facts) is None:
        wanted["co2"] = CONDITIONAL["co2"]
    return wanted
