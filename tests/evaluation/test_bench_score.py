"""The scoring benchmark's arithmetic: what it batches, counts and reports. Nothing is timed here."""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import score  # noqa: E402
import score_models  # noqa: E402
import score_report  # noqa: E402
import score_worker  # noqa: E402

from prefrank.types import Row, reply_types  # noqa: E402

sys.path.remove(str(BENCHMARKS))

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)


@given(lengths=LENGTHS, budget=st.integers(1, 300))
def test_sorted_batches_hold_every_row_once_and_no_padding_beyond_the_budget(lengths: list[int], budget: int) -> None:
    sizes = np.array(lengths)
    batches = list(score_worker.sorted_batches(sizes, budget))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * sizes[batch].max() <= budget for batch in batches)


def test_the_cards_batches_are_sixteen_rows_as_they_come() -> None:
    batches = list(score_worker.arrival_batches(35, score_worker.CARD_ROWS))
    assert [batch.tolist() for batch in batches] == [list(range(16)), list(range(16, 32)), [32, 33, 34]]


def rows_of(*lengths: int) -> list[Row]:
    return [
        Row(np.arange(101, 101 + length), reply_types(length, length // 2), length // 2, 0, 0) for length in lengths
    ]


def packed(tmp_path: Path, rows: list[Row]) -> score_worker.Rows:
    score_models.write_rows(rows, tmp_path / "rows.npz")
    return score_worker.Rows.read(str(tmp_path / "rows.npz"))


def test_padded_rows_carry_a_mask_and_the_replys_token_type(tmp_path: Path) -> None:
    inputs = score_worker.pad(packed(tmp_path, rows_of(3, 4, 6)), np.array([2, 1]), typed=True)
    assert inputs["input_ids"].tolist() == [[101, 102, 103, 104, 105, 106], [101, 102, 103, 104, 0, 0]]
    assert inputs["attention_mask"].tolist() == [[1] * 6, [1, 1, 1, 1, 0, 0]]
    assert inputs["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 0, 0]]


def test_scores_come_back_in_arrival_order_under_any_budget(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    rows = packed(tmp_path, rows_of(9, 3, 7, 3, 8))
    for arrival, budget in ((True, 2), (False, 1), (False, 12), (False, 1000)):
        score = score_worker.padded(lambda inputs: inputs["attention_mask"].sum(1), tmp_path, arrival=arrival)
        assert score(rows, budget).tolist() == [9, 3, 7, 3, 8]


def test_the_words_of_a_row_are_tokenised_to_its_own_ids(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    config = {"model_type": "bert", "vocab_size": 1200, "hidden_size": 8}
    (tmp_path / "config.json").write_text(json.dumps(config))
    score_models.save_words_tokenizer(tmp_path, config)
    first, separator = score_models.CLASSIFIER_ID, score_models.SEPARATOR_ID
    ids = np.array([first, 7, 1021, separator, 1013, 5, separator, 10, 102, 1111, separator])
    row = Row(ids, reply_types(11, 7), 7, 0, 0)
    prompt, reply = packed(tmp_path, [row]).texts[0]
    encoded = AutoTokenizer.from_pretrained(tmp_path)(prompt, reply)
    assert encoded["input_ids"] == ids.tolist()
    assert encoded["token_type_ids"] == [0] * 7 + [1] * 4


def bert(layers: int, width: int = 8, inner: int = 16) -> dict[str, Any]:
    return {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers}


def test_multiply_adds_of_a_bert_layer_are_those_counted_by_hand() -> None:
    # 4 products of 8 x 8 and 2 of 8 x 16 for each of 5 tokens, scores and context of 5 x 5 x 8, and a head of 8 x 8 + 8
    assert score_models.multiply_adds(bert(1), [5]) == 5 * (4 * 64 + 2 * 128) + 2 * 25 * 8 + 72


def test_multiply_adds_count_only_the_relative_positions_a_row_reads() -> None:
    deberta = {
        "relative_attention": True, "position_buckets": 4, "max_relative_positions": -1,
        "max_position_embeddings": 16, "pos_att_type": "p2c|c2p",
    }  # fmt: skip
    plain = score_models.multiply_adds(bert(3), [3])
    # distances -2 to 2 are 5 rows of the table, for the queries and for the keys
    assert score_models.multiply_adds(bert(3) | deberta, [3]) - plain == 3 * 2 * (3 * 5 * 8)
    # with buckets of 4, distances beyond 2 share row 3: -14 to 14 are 7 rows
    long = score_models.multiply_adds(bert(3) | deberta, [15]) - score_models.multiply_adds(bert(3), [15])
    assert long == 3 * 2 * (15 * 7 * 8)


def test_multiply_adds_count_the_convolution_once() -> None:
    convolved = bert(3) | {"conv_kernel_size": 3}
    assert score_models.multiply_adds(convolved, [4]) - score_models.multiply_adds(bert(3), [4]) == 4 * 3 * 64


def test_spread_blocks_are_whole_runs_of_rows_in_arrival_order() -> None:
    rows = [Row(np.array([101, n, 102]), reply_types(3, 2), 2, 0, 0) for n in range(200)]
    chosen = [int(row.ids[1]) for row in score_models.spread_blocks(rows, 40)]
    assert len(chosen) == 40
    assert chosen == sorted(set(chosen))
    assert all(n % 16 == 0 for n in chosen[::16])
    assert chosen[:16] == list(range(chosen[0], chosen[0] + 16))


def test_spread_blocks_are_the_choice_most_like_all_the_data() -> None:
    even, uneven = [50] * 16, [5] * 8 + [95] * 8
    rows = rows_of(*(even + uneven) * 2, *even * 3 + uneven)
    # as many tokens in each block; all the data are padded 1.34 times, an even and an uneven block together 1.45 times
    chosen = [len(row.ids) for row in score_models.spread_blocks(rows, 32)]
    assert sorted(chosen) == sorted(even + uneven)


def test_padding_counts_the_longest_row_of_each_batch() -> None:
    assert score_models.padding([1, 3, 2], rows=2) == (2 * 3 + 2) / 6


def test_many_rows_are_all_different_and_as_long_as_their_models() -> None:
    rows = score_models.many(rows_of(40, 80), 9)
    assert len({tuple(row.ids.tolist()) for row in rows}) == 9
    assert [len(row.ids) for row in rows[:4]] == [10, 20, 10, 20]


def test_a_difference_counts_every_pair_in_another_order() -> None:
    gap = score_report.difference([0.0, 1.0, 2.0, 3.0], [0.0, 2.0, 1.0, 3.0])
    assert gap.largest == 1.0
    assert gap.rms == pytest.approx(np.sqrt(0.5))
    assert gap.spread == pytest.approx(np.sqrt(1.25))
    assert gap.flips_percent == pytest.approx(100 / 6)
    assert gap.rank_correlation == pytest.approx(0.8)
    assert score_report.difference([0.0, 1.0], [0.5, 0.5]).flips_percent == 100


@pytest.mark.filterwarnings("ignore::scipy.stats.ConstantInputWarning")
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=20))
def test_rank_correlation_is_scipys(pairs: list[tuple[int, int]]) -> None:
    from scipy.stats import spearmanr

    a, b = ([float(pair[k]) for pair in pairs] for k in (0, 1))
    if statistics.pstdev(a) and statistics.pstdev(b):
        assert score_report.difference(a, b).rank_correlation == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


class FakeWorker:
    """Takes as many seconds as its table says for a choice and a budget; fails where it says nothing."""

    def __init__(self, name: str, seconds: dict[tuple[str, int], float]) -> None:
        self.name, self.seconds = name, seconds
        self.asked: list[tuple[str, int]] = []

    def ask(self, *, rows: str, choice: str, budget: int) -> dict[str, float]:
        self.asked.append((choice, budget))
        if (choice, budget) not in self.seconds:
            raise score.Failed(f"no file for {choice}")
        return {"cpu_s": self.seconds[choice, budget]}


def test_tuning_keeps_the_fastest_setting_of_all_choices_and_passes_over_one_that_fails() -> None:
    seconds = {
        ("fused", 128): 3.0,
        ("fused", 256): 3.0,
        ("fused", 512): 2.0,
        ("fused", 1024): 2.1,
        ("fused", 2048): 2.1,
    }
    worker: Any = FakeWorker("onnxruntime", seconds)
    assert score.tune(worker, Path("rows.npz")) == ("fused", 512)
    assert ("model", 128) in worker.asked


def test_tuning_stops_after_a_budget_that_is_a_tenth_slower() -> None:
    worker: Any = FakeWorker("openvino", {("", 128): 2.2, ("", 256): 2.0, ("", 512): 2.1, ("", 1024): 2.5})
    assert score.tune(worker, Path("rows.npz")) == ("", 256)
    assert ("", 2048) not in worker.asked


def test_tuning_reports_the_reason_where_nothing_works() -> None:
    worker: Any = FakeWorker("onnxruntime", {})
    with pytest.raises(score.Failed, match="no file for model"):
        score.tune(worker, Path("rows.npz"))


def test_a_setting_found_once_is_kept_between_runs_until_it_is_asked_for_again(tmp_path: Path) -> None:
    model = score_models.Model("minilm", "a title", tmp_path / "minilm-1234")
    first: Any = FakeWorker("openvino", {("", 128): 2.0, ("", 256): 2.0, ("", 512): 1.0, ("", 1024): 2.5})
    assert score.Tuned(tmp_path / "tuned.json", again=False).find(first, model, Path("rows.npz")) == ("", 512)
    second: Any = FakeWorker("openvino", {("", 128): 1.0, ("", 256): 1.0, ("", 512): 2.0})
    assert score.Tuned(tmp_path / "tuned.json", again=False).find(second, model, Path("rows.npz")) == ("", 512)
    assert second.asked == [("", 512)]
    assert score.Tuned(tmp_path / "tuned.json", again=True).find(second, model, Path("rows.npz")) == ("", 128)


def measured(cpu_s: list[float], error: float = 0.0) -> score_report.Measured:
    scores = [0.1, 0.2, 0.3, 0.4]
    return score_report.Measured(
        choice="", budget=512, versions={"torch": "1"}, cpu_s=cpu_s, wall_s=cpu_s, peak_mb=10.0,
        scores=[score + error * (-1) ** n for n, score in enumerate(scores)],
    )  # fmt: skip


def a_result(name: str, **variants: score_report.Measured) -> score_report.ModelResult:
    return score_report.ModelResult(
        name=name, title="a shape", family="deberta-v2", lengths=[10, 20], cut=0, all_lengths=[10, 20, 30],
        multiply_adds=10**9, rates=[{"a": 2.0, "b": 1.0}, {"a": 2.0, "b": 4.0}], measured=variants, skipped={},
        curve={},
    )  # fmt: skip


def test_ratios_are_taken_inside_a_round() -> None:
    assert score_report.ratio([2.0, 9.0, 8.0], [1.0, 3.0, 2.0]) == score_report.Ratio(3.0, 2.0, 4.0)


def test_the_limit_is_each_rounds_best_product() -> None:
    result = a_result("v3-base", card=measured([8.0, 8.0]), ours_float32=measured([2.0, 1.0]))
    assert result.limit_s == [1.0, 0.5]
    figures = score_report.summary([result])
    assert figures["exact_limit_percent"] == 50
    assert figures["exact_x_card"] == 6


def test_an_exact_variant_is_held_against_exact_peers_and_a_quantised_one_against_the_others() -> None:
    result = a_result(
        "v3-base",
        card=measured([8.0, 8.0]),
        onnxruntime=measured([4.0, 4.0], 1e-7),
        onnxruntime_int8=measured([2.0, 2.0], 1e-2),
        ours_float32=measured([2.0, 2.0], 1e-7),
        ours_int16=measured([1.0, 1.0], 1e-4),
    )
    figures = score_report.summary([result])
    assert (figures["exact_x_peer"], figures["quantised_x_peer"], figures["quantised_x_card"]) == (2, 2, 8)
    assert figures["torch_x_card"] is None
    assert figures["minilm_exact_x_peer"] is None


def test_the_quantised_figure_is_of_the_fastest_that_keeps_its_promise() -> None:
    fast_and_rough = a_result(
        "v3-base",
        card=measured([8.0, 8.0]), ours_int16=measured([2.0, 2.0], 1e-4), ours_int8=measured([1.0, 1.0], 2e-2),
    )  # fmt: skip
    assert score_report.summary([fast_and_rough])["quantised_precision"] == "int16"
    both_fine = a_result(
        "v3-base",
        card=measured([8.0, 8.0]), ours_int16=measured([2.0, 2.0], 1e-4), ours_int8=measured([1.0, 1.0], 5e-4),
    )  # fmt: skip
    assert score_report.summary([both_fine])["quantised_precision"] == "int8"


def test_nothing_measured_is_null_in_the_closing_line() -> None:
    figures = score_report.summary([])
    assert set(figures.values()) == {None}
    assert {"exact_x_card", "quantised_x_peer", "minilm_exact_x_default"} <= set(figures)


def test_a_record_comes_back_as_it_was_saved() -> None:
    result = a_result("minilm", card=measured([8.0, 8.0]))
    saved = json.loads(json.dumps(result.to_json()))
    assert score_report.ModelResult.from_json(saved) == result


def test_a_whole_run_replaces_what_stands_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"above\n{score_report.BEGIN}\nold\n{score_report.END}\nbelow\n")
    for text in ("first", "second"):
        score_report.write_page(page, text)
    assert page.read_text() == f"above\n{score_report.BEGIN}\n\nsecond\n\n{score_report.END}\nbelow\n"


def test_the_page_names_what_was_not_measured_and_why() -> None:
    result = a_result("v3-base", card=measured([8.0, 8.0]), ours_int16=measured([1.0, 1.0], 1e-4))
    result.skipped["zentorch"] = "cannot be installed: no matching distribution"
    machine = {"processor": "a processor", "family": "1.2", "flags": ["avx2"], "cores": 2, "memory_gib": 24.0,
               "system": "Linux x86_64", "python": "3.11.0"}  # fmt: skip
    text = score_report.page([result], machine, "python benchmarks/score.py")
    assert "- zentorch: cannot be installed: no matching distribution" in text
    assert "| **ours, int16** | 512 |" in text
    assert "a processor" in text


def test_every_variant_of_a_peer_has_requirements_that_pin_everything() -> None:
    for variant in score_worker.VARIANTS.values():
        if variant.environment != "own":
            lines = (BENCHMARKS / "score-requirements" / f"{variant.environment}.txt").read_text().splitlines()
            assert all("==" in line for line in lines)
            assert "torch==2.13.0" in lines


def test_names_at_line_ends_keep_their_order_and_their_distance() -> None:
    ends = {name: 1000.0 + n for n, name in enumerate("abcdef")}
    heights = list(score_report.spaced(ends, 100.0, 10_000.0).values())
    gaps = np.diff(np.log(heights))
    assert gaps.min() > 0.9 * np.log(100) / 30
