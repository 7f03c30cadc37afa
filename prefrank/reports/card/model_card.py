"""A model card for the hub: README.md of a checkpoint, every section filled from records, measurements and answers.

Sources, in this order: the files (`checkpoint_info`, config.json), the training record in prefrank.json, run files in
which this model was a scorer (found by its fingerprint), and facts that people state (`card_facts.py`). The headings
are those of the hub's own template. Surprising: nothing is left blank and nothing is made up; what is missing is one
error that names it all. Carbon that was not measured is estimated by a published rule, and the card says so.
"""

import json
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefrank.data.candidates import OTHER_SPLIT
from prefrank.errors import BadInput, NotFound, printable
from prefrank.evaluation.protocols import missing_in_words
from prefrank.evaluation.run_file import Run
from prefrank.io.atomic import write_file
from prefrank.io.json_files import read_object
from prefrank.reports.card.facts import (
    BASES,
    CONDITIONAL,
    DATA,
    KEYS,
    REQUIRED,
    WITHOUT_RECORD,
    base_of,
    catalogue_name,
    check_facts,
    data_license,
    hub_name,
    is_blank,
    is_hub_id,
    public_name,
)
from prefrank.reports.markdown import Markdown, bare, bibtex, code, fence, plain, prose, sentence
from prefrank.reports.page import made_from
from prefrank.scoring.info import checkpoint_info

FILE = "README.md"
MARK = "<!-- Written by prefrank card"
PROBES = "probes"

CORE_WATTS, MEMORY_WATTS_PER_GB, OVERHEAD, GRAMS_PER_KWH = 12.0, 0.3725, 1.67, 475.0
"""Green Algorithms (Lannelongue et al. 2021, eq. 1 and the tool's defaults v2.2): an unknown core, memory, the mean
overhead of data centres, the world's mean electricity."""

_PRIVATE_KEYS = {"output_dir", "overwrite", "resume", "trackers"}
"""Recipe keys that say nothing of the model."""
_FEW_SURE = 0.9
"""A probe that is told from a good reply less often than this is named as a weakness."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run says of this model on one suite.

    Args:
        name: of the suite.
        suite: its entry in the run.
        result: the model's results.
        scorer: the model's entry.
        others: entries of the other scorers that were measured beside it.
        run: the whole.
    """

    name: str
    suite: Json
    result: Json
    scorer: Json
    others: tuple[Json, ...]
    run: Run

    @property
    def headline(self) -> Json:
        return self.result["figures"][self.result["headline"]]

    @property
    def baseline(self) -> tuple[str, Json] | None:
        """The best baseline and its headline; None where none has a value."""
        found = [
            (one["name"], one["results"][self.name]["figures"][self.result["headline"]])
            for one in self.others
            if one["kind"] == "baseline"
        ]
        return max((one for one in found if one[1]["value"] is not None), key=lambda one: one[1]["value"], default=None)

    @property
    def tested(self) -> Json | None:
        """The paired test of this model against the best baseline, if the run holds it."""
        pairs = (self.run.get("comparison") or {}).get("pairs", ())
        wanted = (self.scorer["name"], self.baseline and self.baseline[0], self.name)
        return next((one for one in pairs if one["headline"] and (one["a"], one["b"], one["suite"]) == wanted), None)


@dataclass(frozen=True, slots=True)
class Subject:
    """The model a card is of.

    Args:
        folder: its checkpoint.
        info: as `checkpoint_info` gives it.
        config: config.json.
        training: the training record; None where it is missing or lacks what a card needs.
        quantised: how a quantised folder was made; None for float weights.
        measured: suite -> the newest results.
        facts: answers.
    """

    folder: Path
    info: Json
    config: Json
    training: Json | None
    quantised: Json | None
    measured: Mapping[str, Measured]
    facts: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.facts.get("name") or _own_name(self.folder)

    @property
    def datasets(self) -> Sequence[Json]:
        """The training data sets, as the recipe has them."""
        return self.training["recipe"]["datasets"] if self.training else ()

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one["source"] for one in self.datasets))

    @property
    def read(self) -> Sequence[Json]:
        """The account of each set that was read whole, for training or evaluation."""
        return self.training["data"]["read"] if self.training else ()

    @property
    def base(self) -> str | None:
        """The model it started from; None where nobody knows."""
        recorded = base_of(self.training["recipe"]["model_name"]) if self.training else None
        return self.facts.get("base_model") or recorded

    @property
    def main(self) -> Measured:
        """What the first figures are of: the first suite that is no probe."""
        return sorted(self.measured.values(), key=lambda one: one.name == PROBES)[0]


def write_card(folder: Path, runs: Sequence[Run], facts: Mapping[str, str], *, overwrite: bool = False) -> Path:
    """Write README.md into a checkpoint's folder and return its path.

    Args:
        overwrite: replace a README.md that prefrank did not write, too.

    Raises:
        BadInput: as `model_card`; or there is a README.md of somebody else.
        CannotWrite: the folder cannot be written.
    """
    text, place = _card(folder, runs, facts)
    path = place / FILE
    if path.exists() and not overwrite and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        raise BadInput(f"{path} was not written by prefrank card; move it away, or overwrite it on purpose")
    write_file(path, text.encode("utf-8", "replace"))  # a lone surrogate in a name is shown as "?"
    return path


def model_card(folder: Path, runs: Sequence[Run], facts: Mapping[str, str]) -> str:
    """The card as Markdown with the hub's metadata on top.

    Args:
        folder: of a checkpoint, or of a training run (its best one).
        runs: run files; those count in which this model's fingerprint is a scorer's.
        facts: answers by key, as `read_facts` gives them.

    Raises:
        NotFound, BadModel: as `RewardModel.load`; or jinja2 is not installed.
        BadInput: facts are missing, all named at once; the weights are not those that were saved; or no run is of
            this model.
    """
    return _card(folder, runs, facts)[0]


def _card(folder: Path, runs: Sequence[Run], facts: Mapping[str, str]) -> tuple[str, Path]:
    """The card, and the checkpoint's folder."""
    with made_from(f"the card of {folder}, from its prefrank.json, its config.json and run files,"):
        subject = _subject(folder, runs, facts)
        return _render(subject), subject.folder


def _subject(folder: Path, runs: Sequence[Run], facts: Mapping[str, str]) -> Subject:
    info = checkpoint_info(str(folder))
    if info["as_saved"] is False:
        raise BadInput(
            f"the weights, tokenizer or text settings in {info['folder']} are not those its prefrank.json was written"
            " for, so its record is not of them; save or train the model again"
        )
    place = Path(info["folder"])
    record = _read(place / "prefrank.json")
    training = info["training"] or {}
    whole = {"recipe", "data", "hardware", "spent", "versions"} <= training.keys()
    subject = Subject(
        folder=place,
        info=info,
        config=_read(place / "config.json"),
        training=training if whole else None,
        quantised=record.get("quantised"),
        measured=_measured(runs, info["fingerprint"]),
        facts={key: value for key, value in facts.items() if not is_blank(value)},
    )
    check_facts(facts, _wanted(subject))
    return subject


def _read(path: Path) -> Json:
    return read_object(path) if path.is_file() else {}


def _own_name(folder: Path) -> str:
    """A checkpoint's name; `best` and the like have their run's."""
    return _beside(folder).partition("/")[0]


def _beside(folder: Path) -> str:
    """A checkpoint as seen from beside it, or from beside its run."""
    inside = re.fullmatch(r"best|last|adapter|checkpoint-\d+", folder.name) and folder.parent.name
    return f"{_beside(folder.parent)}/{folder.name}" if inside else folder.name


def _measured(runs: Sequence[Run], model: str) -> dict[str, Measured]:
    """The newest results of each suite; suites in the order in which they first appear."""
    found: dict[str, Measured] = {}
    for run in runs:
        for scorer in run["scorers"]:
            for suite, result in scorer["results"].items() if scorer["model"] == model else ():
                if suite in found and found[suite].run["created"] >= run["created"]:
                    continue
                others = tuple(one for one in run["scorers"] if one is not scorer and suite in one["results"])
                found[suite] = Measured(suite, run["suites"][suite], result, scorer, others, run)
    if not found:
        seen = ", ".join(sorted({f"{one['name']} ({one['model'][:12]})" for run in runs for one in run["scorers"]}))
        raise BadInput(
            f"no run file is of this model (fingerprint {model[:12]}; found: {seen or 'no run'}); make one with"
            " prefrank evaluate --model FOLDER --json FILE, and name it"
        )
    return found


def _wanted(subject: Subject) -> dict[str, str]:
    """The facts that this model's card needs, with what is wanted."""
    wanted = dict(REQUIRED)
    if subject.training is None:
        wanted |= WITHOUT_RECORD | {"data_license": CONDITIONAL["data_license"]}
    if subject.base is None:
        wanted["base_model"] = CONDITIONAL["base_model"]
    if subject.base not in BASES and not _from_scratch(subject.base):
        wanted["base_license"] = CONDITIONAL["base_license"]
    for source in subject.sources:
        if data_license(source, subject.facts) is None:
            wanted[f"data_license.{public_name(source)}"] = f"licence of the training data {public_name(source)}"
    if not _languages(subject):
        wanted["language"] = CONDITIONAL["language"]
    if _emissions(subject) is None:
        wanted["co2"] = CONDITIONAL["co2"]
    return wanted


def _from_scratch(base: str | None) -> bool:
    return base is not None and base.lower().startswith("none")


def _languages(subject: Subject) -> tuple[str, ...]:
    """Of the training data where they are known, else of the items it was measured on, commonest first."""
    if "language" in subject.facts:
        return tuple(code.strip() for code in subject.facts["language"].split(",") if code.strip())
    known = [DATA[name].languages for source in subject.sources if (name := catalogue_name(source)) in DATA]
    asked = [one["lang"] for one in subject.datasets if one["lang"]]
    trained = dict.fromkeys([*asked, *(code for codes in known for code in codes)])
    return tuple(trained or _item_languages(subject))


def _item_languages(subject: Subject) -> dict[str, float]:
    """Share of the items in each language, among those whose language is known; below 1 % it may be a wrong guess."""
    codes = [item["language"] for one in subject.measured.values() for item in one.suite["items"] if item["language"]]
    shares = {code: codes.count(code) / len(codes) for code in dict.fromkeys(codes)}
    return {code: share for code, share in sorted(shares.items(), key=lambda one: -one[1]) if share >= 0.01}


def _emissions(subject: Subject) -> str | None:
    """Carbon: measured, else as stated, else estimated; None where none of these can be."""
    spent = subject.training["spent"] if subject.training else {}
    if spent.get("co2e_kg") is not None:
        return f"{_weight(spent['co2e_kg'])} CO2eq from {spent['energy_kwh']:.3g} kWh, by codecarbon's reading"
    if "co2" in subject.facts:
        return sentence(subject.facts["co2"])
    if subject.training is None or not subject.training["device"].startswith("cpu"):
        return None  # what a GPU draws cannot be told from the record
    kwh = _estimated_kwh(spent) * subject.training["processes"]
    why = spent.get("energy_missing") or "it was not recorded"
    return (
        f"{_weight(kwh * GRAMS_PER_KWH / 1000)} CO2eq from {kwh:.2g} kWh: estimated, not measured ({plain(why)}), by"
        f" the rule of Green Algorithms (Lannelongue et al. 2021): {CORE_WATTS:g} W for each busy core over the CPU"
        f" time, {MEMORY_WATTS_PER_GB} W for each GB of peak memory, times {OVERHEAD} for the data centre and"
        f" {GRAMS_PER_KWH:g} g/kWh, the world's mean"
    )


def _estimated_kwh(spent: Json) -> float:
    memory = spent["peak_memory_bytes"] / 1e9 * MEMORY_WATTS_PER_GB * spent["wall_s"]
    return (spent["cpu_s"] * CORE_WATTS + memory) / 3.6e6 * OVERHEAD


def _weight(kilograms: int | float) -> str:
    if kilograms >= 1:
        return f"{kilograms:.3g} kg"
    grams = kilograms * 1000
    return f"{grams:.3g} g" if grams >= 0.1 else f"{grams * 1000:.2g} mg"


# What the card says of the figures


def number(value: int | float | None) -> str:
    """A figure for people; a missing one is said to be missing."""
    if value is None:
        return "no value"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}"


def estimate(found: Json) -> str:
    """Value, interval and n in one phrase."""
    return f"{interval(found)} ({counted(found)})"


def interval(found: Json) -> str:
    bounds = "" if found["low"] is None else f" [{number(found['low'])}, {number(found['high'])}]"
    return f"{number(found['value'])}{bounds}"


def counted(found: Json) -> str:
    return f"{found['n']:,} {plain(found['unit'])}"


def duration(seconds: int | float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def size(count: int | float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB" if count < 1000 else f"{count / 1000:.3g} TB"


def machine(hardware: Mapping[str, Any]) -> str:
    """The hardware of a record in a phrase."""
    if not hardware:
        return "machine not recorded"
    gpus = ", ".join(hardware["gpus"]) or "no GPU"
    cores = f"{hardware['usable_cores']} of {hardware['cores']} cores"
    return plain(f"{hardware['cpu']}, {cores}, {size(hardware['memory_bytes'])} memory, {gpus}")


def _limits(subject: Subject) -> list[str]:
    """Measured weaknesses as sentences."""
    found = [*_training_limits(subject)]
    for one in subject.measured.values():
        found += [*_length_limits(one), *_part_limits(one), *_slice_limits(one), *_count_limits(one)]
    return found


def _training_limits(subject: Subject) -> Iterator[str]:
    if subject.training:
        yield (
            f"It learned from {_learned_from(subject.training):,} comparisons. What they do not hold (other languages,"
            " subjects, or people with other tastes) it does not know."
        )
    for one in subject.read:
        for kind, said in _DOUBTS.items():
            if one.get(kind):
                yield f"Training data: {one[kind]:,} comparisons of {plain(_set_name(one['name']))} {said}."
    chose = {one["name"] for one in subject.read if one["role"] == "evaluation"}
    for name in subject.measured:
        if name in chose:
            yield f"{plain(name)} also chose the checkpoint, which makes its figures a little too good."


_DOUBTS = {
    "contradicting": "prefer a reply that an earlier one of the same prompt judged worse",
    "leaks": "nearly stand in evaluation sets, so figures on those are too good",
}
"""What a training record counts among the comparisons it kept -> what that means."""


def _length_limits(one: Measured) -> Iterator[str]:
    style = one.result["style"]
    if one.name == PROBES or style["longer"]["value"] is None or style["shorter"]["value"] is None:
        return
    less, more = sorted(("longer", "shorter"), key=lambda side: style[side]["value"])
    ends = style[less]["high"], style[more]["low"]
    lean = f"It leans towards {more} replies" if None not in ends and ends[0] < ends[1] else "No clear lean"
    yield (
        f"Length, {plain(one.suite['title'])}: accuracy is {estimate(style['longer'])} where people preferred the"
        f" longer reply and {estimate(style['shorter'])} where they preferred the shorter one. {lean}; rank correlation"
        f" of score lead and length difference {estimate(style['spearman'])}."
    )


def _part_limits(one: Measured) -> Iterator[str]:
    """Probes by kind; of other suites the weakest and the strongest part, and those about harm and help."""
    parts = _parts(one)
    order = sorted(parts, key=lambda name: parts[name]["value"])
    if one.name == PROBES:
        yield "Probes, how often a good reply beats a cheat: " + _listed(order, parts) + "."
    elif len(parts) > 1:
        rest = [name for name in order[1:-1] if re.search("harm|help|safe|refus", name.lower())]
        more = f"; parts on help and harm: {_listed(rest, parts)}" if rest else ""
        yield (
            f"Parts of {plain(one.suite['title'])}: weakest {_listed(order[:1], parts)}, strongest"
            f" {_listed(order[-1:], parts)}{more}."
        )


def _parts(one: Measured) -> dict[str, Json]:
    """Accuracy of each part that has one; equal scores are lost where they are in the suite, else half."""
    kind = "accuracy_ties_lost" if one.suite["ties"] == "wrong" else "accuracy"
    return {name: found[kind] for name, found in one.result["subsets"].items() if found[kind]["value"] is not None}


def _listed(names: Sequence[str], parts: Mapping[str, Json]) -> str:
    return ", ".join(f"{plain(name)} {estimate(parts[name])}" for name in names) or "none has a value"


def _slice_limits(one: Measured) -> Iterator[str]:
    for found in one.result["slices"]:
        if found["worst"] and found["slice"] != "subset":  # those are told as parts
            where = f"{plain(found['slice'])} = {plain(found['value'])}"
            yield f"Worst slice of {plain(one.suite['title'])}: {where}, accuracy {estimate(found['accuracy'])}."


def _count_limits(one: Measured) -> Iterator[str]:
    counts, title = one.result["overall"]["counts"], plain(one.suite["title"])
    cut, replies = max(counts["cut_prompts"], counts["cut_replies"]), counts["replies"]
    if cut:
        yield (
            f"Truncation, {title}: of {replies:,} replies {counts['cut_prompts']:,} lost a part of their prompt and"
            f" {counts['cut_replies']:,} a part of their own end, at least {cut / replies:.1%} of all."
        )
    if counts["failures"]:
        yield f"Failures, {title}: {counts['failures']:,} of {replies:,} scores are no finite number and count as lost."
    missing = one.suite["rows"].get("missing")
    if missing:
        counted = {name: counts for name, counts in missing.items() if counts[1] is not None}
        rows = ", ".join(f"{plain(name)} {here:,} of {published:,}" for name, (here, published) in counted.items())
        gone = missing_in_words({name: counts for name, counts in missing.items() if name not in counted})
        parts = "; ".join([*([f"rows of {rows}"] if rows else []), *map(plain, gone)])
        yield f"Not the whole of {title}, and not comparable with published figures: {parts}."
    found = one.suite["contamination"]
    if found:
        accuracies = one.result.get("contamination") or {}
        clean, dirty = accuracies.get("clean"), accuracies.get("dirty")
        apart = (
            f"; accuracy on the others {estimate(clean)}, on these {estimate(dirty)}"
            if clean and dirty and dirty["n"]
            else ""
        )
        yield (
            f"Overlap, {title}: {len(found['dirty']):,} of {found['items']:,} items stand, or nearly stand, in the"
            f" training data{apart}."
        )


def _flat(values: Mapping[str, Any]) -> str:
    """The plain numbers and words of a record as a phrase; lists by their length, parts of parts left out."""
    said = {key: len(value) if isinstance(value, list) else value for key, value in values.items()}
    kept = {key: value for key, value in said.items() if isinstance(value, int | float | str) and value != ""}
    return ", ".join(f"{plain(key.replace('_', ' '))} {plain(value)}" for key, value in kept.items())


def _advice(subject: Subject) -> list[str]:
    """What follows from the limits."""
    found = ["Compare scores of replies to one prompt only, and read a small lead as a guess."]
    main = subject.main
    scaled = main.result["calibration"]["temperature"]
    if scaled is not None:
        found.append(
            f"Where a probability is needed, divide the difference of two scores by the temperature {scaled:.3g} before"
            f" the sigmoid (fitted: {plain(main.result['calibration']['fitted_on'])})."
        )
    probes = subject.measured.get(PROBES)
    weak = _weak_probes(probes) if probes else []
    if weak:
        found.append(f"Filter replies before scoring where these cheats can occur: {', '.join(map(plain, weak))}.")
    if not probes:
        found.append("It was not measured on prefrank's probes; measure it before optimising against it.")
    found.append(
        f"Keep prompt and reply within {plain(subject.info['text']['max_length'])} tokens, and look at how many of your"
        " own rows are cut (every score says so)."
    )
    found.append("Measure it on comparisons of your own before relying on it; what people prefer differs by task.")
    return found


def _weak_probes(probes: Measured) -> list[str]:
    return [name for name, found in _parts(probes).items() if found["value"] < _FEW_SURE]


# What the card says of the training


def _training_sets(subject: Subject) -> list[Json]:
    """One row for each set that was read whole, as the record counts them."""
    return [
        {
            "name": _set_name(one["name"]),
            "hub": hub_name(one["read"]["source"]),
            "license": data_license(one["read"]["source"], subject.facts),
            "rows": one["read"]["rows"],
            "made": one["read"]["kept"],
            "kept": one["comparisons"],
            "dropped": _reasons(one["dropped"]),
            "pairs": one["read"]["pairs"],
            "ties": one["read"]["ties"],
            "role": one["role"],
        }
        for one in subject.read
    ]


def _learned_from(training: Json) -> int:
    """Comparisons: those of the sets that were read whole, or, of a run that streams, those drawn."""
    data = training["data"]
    kept = sum(one["comparisons"] for one in data["read"] if one["role"] == "training")
    return kept or sum(one.get("drawn", 0) for one in data["drawn"])


def _drawn(subject: Subject) -> Iterator[str]:
    """What was streamed or drawn in part, from which set and under which licence."""
    for one in subject.training["data"]["drawn"] if subject.training else ():
        counts = {key: value for key, value in one.items() if key not in ("name", "dropped")}
        dropped = {why: count for why, count in one.get("dropped", {}).items() if why != OTHER_SPLIT}
        if counts or any(dropped.values()):
            said = ", ".join(f"{plain(key.replace('_', ' '))} {value:,}" for key, value in counts.items())
            yield f"{plain(_set_name(one['name']))}: {said or 'nothing drawn'}; dropped: {plain(_reasons(dropped))}."
    for one in subject.datasets:
        if one["stream"]:
            license = data_license(one["source"], subject.facts)
            yield f"{plain(public_name(one['source']))} was streamed; its licence: {plain(license)}."


def _set_name(name: str) -> str:
    """`source:split` with a public source."""
    source, colon, split = name.rpartition(":")
    return f"{public_name(source)}:{split}" if colon else public_name(name)


def _reasons(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items() if count) or "none"


def _recipe_yaml(recipe: Json) -> str:
    """The recipe as a file that trains again; places on the trainer's machine are left to whoever does."""
    import yaml

    kept = {key: value for key, value in recipe.items() if key not in _PRIVATE_KEYS}
    kept["model_name"] = public_name(kept["model_name"])
    for key in ("datasets", "evaluation"):
        if kept[key] is not None:
            kept[key] = [{**one, "source": public_name(one["source"])} for one in kept[key]]
            kept[key] = [{name: value for name, value in one.items() if value is not None} for one in kept[key]]
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=100).strip()


def _speed(curve: Sequence[Json]) -> float | None:
    found = [one["tokens_per_s"] for one in curve if "tokens_per_s" in one]
    return statistics.median(found) if found else None


def _checkpoint_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file() and path.name != FILE)


def _papers(subject: Subject) -> list[str]:
    """Of the likelihood, the base model and the data, as far as they are known."""
    loss = _LOSSES[subject.training["recipe"]["loss"]][1] if subject.training else ""
    data = [DATA[name].paper for source in subject.sources if (name := catalogue_name(source)) in DATA]
    base = BASES[subject.base].paper if subject.base in BASES else ""
    return [one for one in dict.fromkeys([loss, base, *data]) if one]


_LOSSES = {
    "bradley_terry": ("Bradley-Terry", "Bradley and Terry (1952), Rank analysis of incomplete block designs"),
    "plackett_luce": ("Plackett-Luce", "Plackett (1975), The analysis of permutations"),
    "rao_kupper": ("Rao-Kupper", "Rao and Kupper (1967), Ties in paired-comparison experiments"),
    "davidson": ("Davidson", "Davidson (1970), On extending the Bradley-Terry model to accommodate ties"),
    "ordinal": ("ordinal", "McCullagh (1980), Regression models for ordinal data"),
    "regression": ("normal errors of ratings", "Thurstone (1927), A law of comparative judgment"),
}
"""Recipe's loss -> what the likelihood is called, and its paper."""


# The page


def _render(subject: Subject) -> str:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise NotFound("a model card needs jinja2; pip install 'prefrank[evaluate]'") from error

    environment = Environment(  # Markdown, so escaping is our business: what no filter has made Markdown is text
        loader=PackageLoader("prefrank.reports"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_as_markdown,
    )
    for show in (number, estimate, interval, counted, duration, size, machine, plain, prose, sentence, code, bibtex):
        environment.filters[show.__name__] = _made(show)
    environment.filters |= {"public": public_name, "reasons": _reasons, "verbatim": Markdown}
    environment.filters |= {"flat": _made(_flat), "literal": _made(json.dumps), "fence": _made(fence)}
    text = environment.get_template("card.md.jinja").render(_context(subject))
    lines = (printable(line) for line in text.split("\n"))  # what YAML writes as it is, too
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
    before, inner, after = re.fullmatch(r"( *)(.*?)( *)", str(value), re.S).groups()  # type: ignore[union-attr]
    return f"{before}{plain(inner)}{after}"


def _context(subject: Subject) -> Json:
    info, training, facts = subject.info, subject.training, subject.facts
    base = subject.base or ""
    started = training["started"] if training else subject.main.run["created"]
    runs = {id(one.run): one.run for one in subject.measured.values()}.values()
    return {
        "metadata": Markdown(_metadata(subject)),
        "mark": Markdown(f"{MARK} {_version(subject)}: change the facts and write it again. -->"),
        "name": subject.name,
        "model_id": _model_id(subject),
        "example": EXAMPLE,
        "code": _code(subject),
        "facts": dict.fromkeys(KEYS, "") | dict(facts),
        "info": info,
        "config": subject.config,
        "objective": _LOSSES[training["recipe"]["loss"]][0] if training else "as stated under Training Procedure",
        "quantised": subject.quantised,
        "training": training,
        "base": {
            "name": "none: trained from scratch" if _from_scratch(base) else base,
            "license": facts.get("base_license") or (BASES[base].license if base in BASES else ""),
        },
        "languages": ", ".join(_languages(subject)),
        "item_languages": _item_languages(subject),
        "measured": list(subject.measured.values()),
        "main": subject.main,
        "probes": subject.measured.get(PROBES),
        "limits": [Markdown(one) for one in _limits(subject)],
        "advice": [Markdown(one) for one in _advice(subject)],
        "sets": _training_sets(subject),
        "drawn": [Markdown(one) for one in _drawn(subject)],
        "recipe": _recipe_yaml(training["recipe"]) if training else "",
        "speed": _speed(training["curve"]) if training else None,
        "bytes": _checkpoint_bytes(subject.folder),
        "emissions": Markdown(_emissions(subject) or ""),
        "papers": _papers(subject),
        "year": facts.get("year") or started[:4],
        "key": re.sub(r"\W+", "-", subject.name).strip("-").lower(),
        "commands": "\n".join(bare(run["command"]) for run in runs if run.get("command")),
    }


def _version(subject: Subject) -> str:
    return re.sub(r"[^\w.+]", "", str(subject.main.run["prefrank"]))


def _model_id(subject: Subject) -> str:
    """As the code of the card loads it: beside the folder, if nothing else is said."""
    return subject.facts.get("model_id") or _beside(subject.folder)


def _code(subject: Subject) -> str:
    """How plain transformers scores one reply to one prompt as prefrank does; "" where it cannot read the folder."""
    if subject.quantised or not (subject.folder / "config.json").is_file():
        return ""
    text = subject.info["text"]
    opening = [
        "import torch",
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
        "",
        f"name = {json.dumps(_model_id(subject))}",
        'tokenizer = AutoTokenizer.from_pretrained(name, truncation_side="left")',
        "model = AutoModelForSequenceClassification.from_pretrained(name, dtype=torch.float32).eval()",
        f"prompt, replies = {json.dumps(EXAMPLE[0])}, {json.dumps(list(EXAMPLE[1]))}",
    ]
    last = [_LAST_TOKEN] if subject.info["scored_token"] == "the last" else []
    match text["template"]:
        case "pair":
            encode = f'tokenizer(prompt, reply, truncation="only_first", max_length={text["max_length"]}'
            rows = [f'rows = [{encode}, return_tensors="pt") for reply in replies]']
        case "chat":
            opening += last
            turns = '[{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]'
            rows = [
                "rows = [",
                f'    tokenizer.apply_chat_template({turns}, return_tensors="pt", return_dict=True)',
                "    for reply in replies",
                "]",
            ]
        case _:  # fixed strings around each turn, for which transformers' tokenizers have no call
            opening += last
            opening[0] = "import torch\nfrom prefrank import RewardModel, Turn"
            encode = 'RewardModel.load(name).encoder.encode((Turn("user", prompt),), replies)'
            rows = [f'rows = [{{"input_ids": torch.tensor(row.ids)[None]}} for row in {encode}]']
    closing = ["with torch.no_grad():", "    print([model(**row).logits[0, 0].item() for row in rows])"]
    return "\n".join([*opening, *rows, *closing])


_LAST_TOKEN = "model.config.pad_token_id = None  # or a closing token that is padding too would be passed over"
EXAMPLE = ("How do I bake bread?", ("Mix flour, water, salt and yeast; let it rise; bake it.", "No idea."))
"""Prompt and replies of the card's code."""


def _metadata(subject: Subject) -> str:
    from huggingface_hub import ModelCardData

    base = subject.base if subject.base and is_hub_id(subject.base) else None
    data = [name for source in subject.sources if (name := hub_name(source))]
    return ModelCardData(
        language=list(_languages(subject)),
        license=subject.facts["license"],
        base_model=base,
        datasets=list(dict.fromkeys(data)) or None,
        tags=["reward-model", "human-feedback", "preference", "prefrank"],
        pipeline_tag="text-classification",
        library_name="transformers",
        metrics=["accuracy"],
        model_name=subject.name,
        eval_results=[result for one in subject.measured.values() for result in _eval_results(one)] or None,
    ).to_yaml(line_break="\n")


def _eval_results(one: Measured) -> list[Any]:
    """Accuracy and, where it is another figure, the headline, for the hub's `model-index`."""
    found = {"accuracy": ("Accuracy", one.result["overall"]["accuracy"])}
    headline = one.result["headline"]
    if headline.lower() != "accuracy":
        found[re.sub(r"\W+", "_", headline).strip("_").lower()] = (headline, one.headline)
    return [_eval_result(one, kind, *what) for kind, what in found.items() if what[1]["value"] is not None]


def _eval_result(one: Measured, kind: str, title: str, found: Json) -> Any:
    from huggingface_hub import EvalResult

    interval = "" if found["low"] is None else f"{one.run['intervals']['confidence']:.0%} interval"
    bounds = interval and f"{interval} {number(found['low'])} to {number(found['high'])}, "
    return EvalResult(
        task_type="text-classification",
        task_name="Reward modelling",
        dataset_type=_hub_id(one.name),
        dataset_name=bare(one.suite["title"]),
        dataset_config=bare(one.name),
        dataset_args={"sha256": one.suite["data"]},
        metric_type=kind,
        metric_name=f"{title} ({bounds}n = {found['n']} {found['unit']})",
        metric_value=round(found["value"], 4),
        metric_args={key: found[key] for key in ("low", "high", "n", "unit", "prompts")},
    )


def _hub_id(suite: str) -> str:
    """Where a suite's data are on the hub; its own name where they are not there."""
    from prefrank.evaluation.protocols import SUITES

    published = SUITES[suite].hub if suite in SUITES else hub_name(suite.rpartition(":")[0] or suite)
    return published or bare(suite)
