"""Results as tables on standard output, and one-line remarks on standard error."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefrank.cli.progress import clock
from prefrank.cli.screen import say, show
from prefrank.io.json_files import Fields
from prefrank.io.names import short_names
from prefrank.reports.rich_tables import add_row, joined, lines, new_table

if TYPE_CHECKING:
    from prefrank.data import Description, ReadingReport
    from prefrank.data.describe import SplitDescription
    from prefrank.scoring import Ranked
    from prefrank.scoring.quantise import Parity
    from prefrank.training.foresight.dry_run import Forecast
    from prefrank.training.foresight.layouts import LayoutForecast
    from prefrank.training.foresight.memory import Memory
    from prefrank.types import Score

SHOWN = 240
"""Characters of a prompt above its ranking."""
_EQUAL = "dropped_replies_equal_after_cutting"


def ranking(prompt: str, ranked: "Sequence[Ranked]", temperature: float) -> None:
    """Replies, best first, with the probability of being preferred to the best."""
    from prefrank.scoring import win_probability

    table = new_table(lines(_short(prompt)), "rank", "score", "beats best", "reply", left=0)
    table.columns[3].justify = "left"
    for entry in ranked:
        chance = win_probability(entry.score, ranked[0].score, temperature=temperature)
        beats = "" if entry is ranked[0] else f"{chance:.0%}"
        reply = joined(lines(entry.reply), joined(_cut_mark(entry.score), style="yellow"))
        add_row(table, str(entry.rank + 1), f"{entry.score.value:+.3f}", beats, reply)
    show(table)


def _short(text: str) -> str:
    """A text of which the user has the whole, as far as it fits some lines."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text):,} characters)"


def _cut_mark(score: "Score") -> str:
    """How many tokens of prompt and reply were not scored, or stand where the model was not trained; "" for none."""
    counts = {"prompt": score.cut_prompt, "reply": score.cut_reply}
    cuts = [f"{name} cut by {count:,} tokens" for name, count in counts.items() if count]
    cuts += [f"{score.past_trained:,} tokens past the trained positions"] if score.past_trained else []
    return f" ({', '.join(cuts)})" if cuts else ""


def say_place(what: str, place: Path) -> None:
    """Where something was written."""
    say(f"{what} is in ", joined(str(place), style="bold"))


def say_control_strings(count: int, model: str | None = None) -> None:
    """A remark on texts that may have been rendered already, where there are any."""
    if count:
        whose = f"control strings of {model}" if model else "this model's control strings"
        texts = "1 text holds" if count == 1 else f"{count:,} texts hold"
        say(f"{texts} {whose}; --pre-rendered takes them as tokens", style="yellow")


def say_report(source: str, report: "ReadingReport") -> None:
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in report.dropped.items() if count)
    say(
        f"{source}: {report.kept:,} comparisons of {report.rows:,} rows"
        + (f"; dropped: {dropped}" if dropped else "")
        + (f"; {report.warning}" if report.warning else "")
    )


def facts(title: str, values: Mapping[str, Any]) -> None:
    """Nested plain values as name and value."""
    table = new_table(title, "", "", left=2)
    table.show_header = False
    for name, value in _flat(values):
        add_row(table, name, value)
    show(table)


def checkpoint(name: str, info: Mapping[str, Any]) -> None:
    """What a checkpoint is; of its training and calibration what is asked most."""
    record = Fields(info, str(Path(info["folder"]) / "prefrank.json"))
    training, calibration = record.object("training", None), record.object("calibration", None)
    shown = dict(info) | {"training": (training and _trained(training)) or None, "calibration": None}
    shown["heads"] = ", ".join(info["heads"])
    shown["dtypes"] = ", ".join(f"{dtype} ({count:,} tensors)" for dtype, count in info["dtypes"].items())
    if calibration:
        shown["calibration"] = _present(calibration, "temperature", "fitted_on", "pairs", "prompts")
    facts(name, shown)
    if training or calibration:
        say("the whole record: prefrank info --json")


def _trained(training: Fields) -> dict[str, Any]:
    """The data, settings and figures of a training record, as far as it has them.

    Raises:
        BadModel: one of them is of a wrong type.
    """
    data, metrics = training.object("data", None), training.object("metrics", None)
    sets = metrics.object("sets", None) if metrics else None
    recipe = training.object("recipe", None)
    read = data.objects("read", ()) if data else ()
    names = dict(zip(names := [data_set.text("name") for data_set in read], short_names(names), strict=True))
    on = [
        names[data_set.text("name")]
        + (f" ({count:,})" if (count := data_set.integer("comparisons", None)) is not None else "")
        for data_set in read  # a stream has no count
        if data_set.get("role") == "training"
    ]
    with_length = _with_length(training.object("scores", None))
    held_out = {names.get(name, name): _held_out(sets.object(name)) for name in sets or () if sets}
    return {
        **({"on": ", ".join(on)} if on else {}),
        **_present(recipe or {}, "model_name", "loss", "learning_rate"),
        **_present(training, "step", "comparisons_per_step", "device", "started"),
        **({"held_out": held_out} if held_out else {}),
        **({"score_and_length": with_length} if with_length else {}),
    }


def _held_out(figures: Fields) -> str:
    accuracy, loss = figures.number("accuracy"), figures.number("log_loss")
    return f"accuracy {accuracy:.1%}, log loss {loss:.3f}, {figures.integer('comparisons'):,} comparisons"


def _with_length(scores: Fields | None) -> dict[str, str]:
    """How far the scores of each head went with the length of the reply, on held-out replies."""
    heads = Fields.of({}) if scores is None else scores.object("heads")
    texts = {}
    for name in heads:
        length = heads.object(name).object("length")
        if (spearman := length.number("spearman", None)) is not None:
            texts[name] = f"rank correlation {spearman:+.2f}, {length.integer('n'):,} replies"
    return texts


def _present(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: values[name] for name in names if values.get(name) is not None}


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name.replace("_", " "), _plain(value)))
    return rows


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def parity(source: str, target: Path, precision: str, measured: "Parity") -> None:
    """What integer weights do to the scores, and where the folder is."""
    values = {
        "replies scored by both": f"{measured.rows:,}",
        "rms difference": f"{measured.rms:.2g} ({measured.rms_percent:.2g} % of the scores' spread)",
        "largest difference": f"{measured.largest:.2g} ({measured.largest_percent:.2g} %)",
        "found in a row of": f"{measured.largest_tokens} tokens",
        "rank correlation": f"{measured.spearman:.6f}",
        "pairs in another order": f"{measured.flips_percent:.2g} % of {measured.pairs:,}",
    }
    facts(f"{source} in float32 and {precision}", values)
    say_place(f"The {precision} model", target)


def dry_run(forecast: "Forecast") -> None:
    """A run before it is made: what is read, how long rows are, and what it will take."""
    sets = list(dict.fromkeys([*forecast.encoding, *(data["name"] for data in forecast.data)]))
    short = dict(zip(sets, short_names(sets), strict=True))
    columns = ("comparisons", "rows", "tokens", "prompts\ncut", "replies\ncut", "equal\nafter\ncutting")
    table = new_table("Data", "set", *columns)
    for name, counts in forecast.encoding.items():
        keys = ("comparisons", "rows", "tokens", "rows_with_cut_prompt", "rows_with_cut_reply", _EQUAL)
        add_row(table, short[name], *(f"{counts[key]:,}" for key in keys))
    show(table)
    for data in forecast.data:
        held_out = f" ({data['held_out']:,} in the other part)" if data["held_out"] else ""
        say(f"{short[data['name']]}, for {data['role']}: {data['rule']}{held_out}")
    if left_out := _left_out(forecast):
        table = new_table("Left out", "set", "why", "count", left=2)
        for name, why, count in left_out:
            add_row(table, short[name], why, f"{count:,}")
        show(table)
    if forecast.drawn:
        draw(forecast.drawn)
    table = new_table("Row lengths in tokens", "up to", "rows", "")
    most = max(count for _, count in forecast.histogram)
    for edge, count in forecast.histogram:
        add_row(table, f"{edge:,}", f"{count:,}", "█" * round(40 * count / most))
    table.columns[2].justify = "left"
    show(table)
    table = new_table("The run", "", "", left=2)
    table.show_header = False
    done = f" ({forecast.first_step:,} of them done)" if forecast.first_step else ""
    add_row(table, "steps", f"{forecast.steps:,}{done} of {forecast.prompts_per_step:,} prompts, on {forecast.device}")
    add_row(table, "evaluations", f"{forecast.evaluations:,} of {forecast.evaluation_rows:,} rows")
    padded = forecast.step_tokens / (1 - forecast.padding_saved)
    add_row(table, "padding saved", f"{forecast.padding_saved:.0%} of the {padded:,.0f} tokens of a padded step")
    if (shared := 1 - forecast.computed_tokens / forecast.step_tokens) > 0:
        add_row(table, "sharing saved", f"{shared:.0%} of the {forecast.step_tokens:,.0f} tokens of a step's rows")
    add_row(table, "encodings saved", f"{forecast.rows:,} rows in place of {forecast.pairwise_rows:,} in pairs")
    if forecast.flops is not None:
        add_row(table, "operations", f"{forecast.flops:.2g} of floating point in the steps")
    if forecast.seconds is not None:
        parts = {name: _span(value) for name, value in _fields(forecast.seconds).items()}
        add_row(table, "time", f"about {_span(forecast.seconds.total)}: " + _listed(parts))
    if forecast.memory is not None:
        kind = "measured" if forecast.memory.measured else "counted"
        add_row(table, "memory", f"{_gib(forecast.memory.peak)} at the peak, {kind}: {_memory_parts(forecast.memory)}")
    show(table)
    if forecast.layouts:
        _layouts(forecast.layouts)
    for note in forecast.notes:
        say(note, style="yellow")


def _left_out(forecast: "Forecast") -> list[tuple[str, str, int]]:
    """(set, why, comparisons or rows) of all that is read and not used."""
    drops = [(data["name"], why, count) for data in forecast.data for why, count in data["dropped"].items()]
    for name, counts in forecast.encoding.items():
        drops += [(name, key.partition("dropped_")[2], n) for key, n in counts.items() if key.startswith("dropped_")]
    return [(name, why.replace("_", " "), count) for name, why, count in drops if count]


def _layouts(layouts: "Sequence[LayoutForecast]") -> None:
    """Memory of one device, for every layout."""
    parts = [part for part in _fields(layouts[0].memory) if part not in ("process", "measured")]
    title = f"Forecast for each of {layouts[0].devices} GPUs, in GB, with the largest micro-batch the recipe allows"
    table = new_table(title, "sharding", *parts)
    for layout in layouts:
        name = layout.layout + (", checkpointed" if layout.checkpointing else "")
        add_row(table, name, *(f"{_fields(layout.memory)[part] / 1e9:.1f}" for part in parts))
    show(table)


def _memory_parts(memory: "Memory") -> str:
    return _listed({name: _gib(n) for name, n in _fields(memory).items() if name not in ("peak", "measured") and n})


def _span(seconds: "tuple[float, float]") -> str:
    low, high = map(clock, seconds)
    return low if low == high else f"{low} to {high}"


def _listed(parts: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in parts.items())


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def draw(drawn: Sequence[Mapping[str, Any]]) -> None:
    """What an epoch draws from each training set."""
    keys = ("comparisons", "drawn", "beyond_per_prompt", "longer_preferred", "shorter_preferred")
    columns = ("comparisons", "drawn", "beyond\nper prompt", "longer\npreferred", "shorter\npreferred")
    table = new_table("Drawn for each epoch", "set", *columns)
    for data_set, name in zip(drawn, short_names([data_set["name"] for data_set in drawn]), strict=True):
        add_row(table, name, *(f"{data_set[key]:,}" if key in data_set else "-" for key in keys))
    show(table)


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"


def description(source: str, description: "Description") -> None:
    """One column per split."""
    splits = description.splits
    table = new_table(source, f"lengths in {description.unit}", *splits)
    sizes = sorted({k for split in splits.values() for k in split.num_replies})
    rows = {name: _split_facts(split, sizes) for name, split in splits.items()}
    for fact in dict.fromkeys(fact for facts in rows.values() for fact in facts):
        add_row(table, fact, *(facts.get(fact, "0") for facts in rows.values()))
    show(table)
    if description.warning:
        say(description.warning, style="yellow")
    for overlap in description.overlaps:
        if overlap.opening or overlap.normalised:
            say(
                f"{overlap.normalised:,} of {overlap.prompts:,} prompts of {overlap.split} stand in"
                f" {overlap.other} too, and {overlap.opening:,} open like one there",
                style="yellow",
            )
    if len(splits) > 1 and not any(overlap.opening or overlap.normalised for overlap in description.overlaps):
        say("No prompt stands in two splits")


def _split_facts(split: "SplitDescription", sizes: Sequence[int]) -> dict[str, str]:
    longer = split.longer_wins
    facts = {
        "rows read": f"{split.rows:,}",
        "comparisons": f"{split.comparisons:,}",
        **{f"  of {k} replies": f"{split.num_replies.get(k, 0):,}" for k in sizes},
        "distinct prompts": f"{split.distinct_prompts:,}",
        "replies": f"{split.replies:,}",
        "pairs": f"{split.pairs:,}",
        "  of them ties": f"{split.ties:,}",
        "further votes on earlier replies": f"{split.votes:,}",
    }
    for name, lengths in (("prompt", split.prompt_lengths), ("reply", split.reply_lengths)):
        facts[f"{name} length: median, 95 %, longest"] = f"{lengths.median:,.0f}  {lengths.p95:,.0f}  {lengths.max:,}"
    facts["the longer reply is preferred in"] = f"{longer.value:.1%}"
    facts["  95 % interval, n"] = f"{longer.low:.1%} to {longer.high:.1%}, {longer.n:,}"
    facts |= {f"rows dropped: {reason}": f"{count:,}" for reason, count in split.dropped.items() if count}
    return facts | {f"left out: {reason}": f"{count:,}" for reason, count in split.left_out.items() if count}
