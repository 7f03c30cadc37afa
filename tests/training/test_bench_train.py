"""The training benchmark: contenders train the same, and what is made of the measurements. Nothing is timed here."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from prefrank.text import TextEncoder
from prefrank.types import Comparison
from tests.training.conftest import make_comparisons

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import train as bench  # noqa: E402
import train_data  # noqa: E402
import train_report  # noqa: E402
import train_worker  # noqa: E402
from peers import Failed  # noqa: E402

sys.path.remove(str(BENCHMARKS))

STOPS = [1, 3]


@pytest.fixture(scope="module")
def model(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> train_data.Model:
    """A tiny BERT of one token type and 512 positions, whose parameters all start differently."""
    model = train_data.Model("tiny", "a tiny BERT", tmp_path_factory.mktemp("model"))
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: value + 0.05 * torch.empty(value.shape).normal_(generator=generator)
        for name, value in load_file(bert / "model.safetensors").items()
    }
    types, places = (f"bert.embeddings.{name}_embeddings.weight" for name in ("token_type", "position"))
    tensors[types] = tensors[types][:1].clone()
    tensors[places] = tensors[places].repeat(4, 1)
    config = json.loads((bert / "config.json").read_text()) | train_data.MINILM | {"max_position_embeddings": 512}
    for folder in (model.texts, model.words):
        shutil.copytree(bert, folder)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config))
    return model


def read(_: Path) -> tuple[list[Comparison], list[Comparison]]:
    made = list(make_comparisons(18, replies=3))
    return made[:14], made[14:]


@pytest.fixture
def made(model: train_data.Model, tmp_path: Path) -> train_data.Made:
    data = train_data.Data("made up", read)
    return train_data.make_task(
        data, model, tmp_path, tmp_path / "task", per_step=4, stops=STOPS, held_out=4, settings=bench.SETTINGS
    )


@pytest.fixture
def go(model: train_data.Model, made: train_data.Made, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Trains a contender as its process would, and returns its answers."""

    def run(contender: Callable[..., Any], folder: Path) -> list[Any]:
        monkeypatch.setattr(sys, "stdin", io.StringIO("{}\n" * 9))
        output = made.folder / contender.__name__
        output.mkdir()
        answers = io.StringIO()
        course = train_worker.Course(train_worker.Task.read(made.folder), answers, output, 1.0)
        train_worker.save(contender(folder, course.task, course), output / "model.safetensors")
        return [json.loads(line) for line in answers.getvalue().splitlines()]

    return run


def test_ours_and_a_plain_padded_loop_take_the_same_steps(
    model: train_data.Model, made: train_data.Made, go: Callable[..., list[Any]]
) -> None:
    ours, plain = go(train_worker.ours, model.texts), go(train_worker.plain, model.words)
    with np.load(made.folder / "plain/gradient.npz") as a, np.load(made.folder / "ours/gradient.npz") as b:
        assert bench.relative_difference(a, b, 1.0) < train_report.GRADIENT
    for own, other in zip(ours[1:], plain[1:], strict=True):
        assert own["losses"] == pytest.approx(other["losses"], abs=1e-5)
        assert (own["encodings"], own["tokens"]) == (other["encodings"], other["tokens"])
        assert own["slots"] == own["tokens"] < other["slots"]
    assert [answer["tokens"] for answer in ours[1:]] == [made.tokens[0], *made.per_stretch(made.tokens)]
    scores = [bench.held_out(model, made.folder / name, made.held_out).log_loss for name in ("ours", "plain")]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_a_contender_answers_before_the_first_step_and_at_every_stop(
    model: train_data.Model, go: Callable[..., list[Any]]
) -> None:
    begin, warm_up, stretch = go(train_worker.plain, model.words)
    assert set(begin) == {"base_mb"}
    assert (len(warm_up["losses"]), len(stretch["losses"])) == (1, 2)
    assert (warm_up["encodings"], stretch["encodings"]) == (12, 24)


def test_too_few_groups_for_the_steps_are_said_before_anything_runs(model: train_data.Model, tmp_path: Path) -> None:
    data = train_data.Data("made up", read)
    with pytest.raises(Failed, match="3 steps want 15 groups of 14"):
        train_data.make_task(
            data, model, tmp_path, tmp_path, per_step=5, stops=STOPS, held_out=4, settings=bench.SETTINGS
        )


def test_a_group_with_one_cut_row_is_left_out_whole(model: train_data.Model) -> None:
    encoder = TextEncoder.load(model.texts, max_length=64)
    first, second, third = make_comparisons(3)
    short, other = second.replies
    one = Comparison(second.prompt, (short * 20, other), second.preferences, "made", "one row")
    both = Comparison(second.prompt, (short * 20, other * 20), second.preferences, "made", "both rows")
    assert train_data.uncut([first, one, both, third], encoder) == [first, third]


def test_parameters_that_start_alike_are_refused(model: train_data.Model, tmp_path: Path) -> None:
    alike = train_data.Model("alike", "two equal parameters", tmp_path)
    shutil.copytree(model.words, alike.words)
    tensors = load_file(model.words / "model.safetensors")
    a, b = (f"bert.encoder.layer.0.attention.self.{name}.bias" for name in ("query", "key"))
    save_file(tensors | {a: tensors[b].clone()}, alike.words / "model.safetensors")
    with pytest.raises(ValueError, match="1 parameters of alike start like another one"):
        train_data.digests(alike)


def test_finegrained_preferences_are_read_in_the_order_of_pairs_and_ties_are_left_out() -> None:
    row = {f"prediction {n}": f"answer {n}" for n in range(1, 5)} | {"question": "why?"}
    one = train_data.finegrained({**row, "preference": [1, 2, 0, 1, 0, 2]}, "dev/1")
    assert one is not None
    assert [(p.winner, p.loser) for p in one.preferences] == [(0, 1), (2, 0), (1, 2), (3, 2)]
    assert train_data.finegrained({**row, "preference": [0] * 6}, "dev/2") is None


def test_a_ranking_becomes_pairs_of_rows_and_a_relevance_for_each_reply() -> None:
    rows = train_worker.Rows(np.arange(10), np.arange(0, 11, 2), np.ones(5))
    pairs = [[(0, 1)], [(2, 0), (2, 1), (1, 0)]]
    task = train_worker.Task(rows, 3, pairs, 2, [1], {}, {}, "")  # type: ignore[arg-type]
    assert task.row_pairs(range(1, 2)) == [(5, 3), (5, 4), (4, 3)]
    assert task.wins(1) == [0.0, 1.0, 2.0]


def test_ranknets_gradient_counts_as_the_same_once_its_base_is_taken_out() -> None:
    gradient = {"a": np.array([[3.0, -4.0]]), "b": np.array([12.0])}
    ranknet = {name: value * train_worker.RANKNET for name, value in gradient.items()}
    assert bench.relative_difference(gradient, ranknet, train_worker.RANKNET) < 1e-12
    assert bench.relative_difference(gradient, ranknet, 1.0) == pytest.approx(train_worker.RANKNET - 1)
    assert bench.relative_difference(gradient, {"a": gradient["a"]}, 1.0) == pytest.approx(12 / 13)


def stretch(wall_s: float, losses: tuple[float, ...] = (0.7, 0.6), peak_mb: float = 100.0) -> train_report.Stretch:
    return train_report.Stretch(2 * wall_s, wall_s, list(losses), encodings=12, tokens=300, slots=400, peak_mb=peak_mb)


def measured(*wall_s: float, peak_mb: float = 100.0) -> train_report.Measured:
    return train_report.Measured(
        base_mb=50.0,
        warm_up=stretch(1.0, (0.7,)),
        stretches=[stretch(seconds, peak_mb=peak_mb) for seconds in wall_s],
        gradient=1e-6,
        held_out=train_report.HeldOut(0.69, 0.68, 0.7, 40),
        versions={"torch": "1"},
    )


def result(**contenders: train_report.Measured) -> train_report.TaskResult:
    return train_report.TaskResult(
        name="minilm-hh", title="pairs", per_step=4, group_size=2, lengths=[10, 20], pairs=[8, 8, 8],
        distinct_tokens=[200, 200, 200], others=[0.01, 0.02, 0.0], measured=contenders, skipped={},
    )  # fmt: skip


def test_a_ratio_is_taken_inside_each_round_and_only_in_those_that_both_ran() -> None:
    found = result(trl=measured(4.0, 9.0, 8.0), trl_checkpointing=measured(6.0), ours=measured(1.0, 3.0, 2.0))
    assert str(train_report.speedup(found, "trl")) == "4.00 (3.00–4.00)"
    assert str(train_report.speedup(found, "trl_checkpointing")) == "6.00 (6.00–6.00)"
    assert train_report.speedup(found, "plain") is None


def test_a_row_of_the_table_says_speed_padding_encodings_and_memory() -> None:
    cells = train_report.cells(result(plain=measured(2.0, 4.0, 8.0), ours=measured(1.0, 2.0, 4.0)), "plain")
    row = dict(zip(train_report.HEADINGS, cells, strict=True))
    assert row["comparisons/s"] == "2.00"
    assert row["per CPU s"] == "1.00"
    assert row["ours, × (wall)"] == "2.00 (2.00–2.00)"
    assert (row["tokens/s"], row["distinct tokens/s"]) == ("75", "50")
    assert (row["padding %"], row["encodings per comparison"]) == ("25", "1.50")
    assert (row["peak MB"], row["above start, MB"]) == ("100", "50")
    assert row["log loss held out"] == "0.6900 [0.6800, 0.7000]"


def test_another_gradient_or_another_course_of_the_loss_makes_the_comparison_void() -> None:
    wrong, astray = measured(1.0), measured(1.0)
    wrong.gradient = 1e-3
    astray.stretches[0].losses[1] += 0.01
    found = train_report.failures([result(plain=measured(1.0), trl=wrong, ours=astray)])
    assert found == ["pairs, TRL: gradient differs by 1.0e-03", "pairs, ours: a step's loss differs by 1.0e-02"]
    assert not train_report.failures([result(plain=measured(1.0), ours=measured(1.0))])


def test_the_closing_line_has_every_promised_figure_even_where_nothing_was_measured() -> None:
    promised = ("pairs_x_trl", "k4_x_trl", "k4_x_sentence_transformers", "peak_memory_x_trl")
    assert all(train_report.summary([])[key] is None for key in promised)
    found = train_report.summary([result(plain=measured(1.0), trl=measured(4.0, peak_mb=200.0), ours=measured(1.0))])
    assert found["pairs_x_trl"] == 4.0
    assert found["peak_memory_x_trl"] == 0.5
    assert found["peak_memory_above_start_x_trl"] == pytest.approx(1 / 3, abs=1e-3)
    assert found["k4_x_trl"] is None


def test_a_record_reads_back_as_it_was_written_and_makes_the_same_page() -> None:
    first = result(plain=measured(1.0, 2.0, 3.0), ours=measured(1.0, 1.0, 1.0))
    again = train_report.TaskResult.from_json(json.loads(json.dumps(first.to_json())))
    assert again == first
    machine = {"processor": "p", "family": "1", "flags": [], "cores": 2, "memory_gib": 1, "system": "s", "python": "3"}
    text = train_report.page([again], machine, "command", [0, 1])
    assert "| **ours** |" in text
    assert "Held out: 40 comparisons." in text
