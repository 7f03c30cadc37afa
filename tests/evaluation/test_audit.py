import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from prefrank import RewardModel
from prefrank.errors import BadData, BadInput
from prefrank.evaluation.audit import _TEXTS, _attempt, _compared, _open_theirs, audit
from prefrank.evaluation.audit_results import Audit, Combination
from prefrank.evaluation.samples import flatten
from prefrank.io.schema import plain, read
from prefrank.types import Comparison, Preference, Turn, as_prompt
from tests.evaluation.making import comparison, preference, ranking
from tests.tiny import CORPUS, bert_folder, decoder_folder

SINGLE_TURN = [
    comparison([CORPUS[(n + 1) % 6], f"{CORPUS[(n + 2) % 6]} {CORPUS[n % 5] * (n % 3)}"], [preference(0, 1)],
               prompt=prompt, id=str(n))
    for n, prompt in enumerate(["how do I bake bread", "what is the capital", "hello there " * 5, "user a b c",
                                "the dough", "x y z " * 9])
]  # fmt: skip
TALK = Comparison(
    (*as_prompt("hello"), Turn("assistant", "what is"), Turn("user", "bake bread")),
    ("the dough", "mix flour"), (Preference(0, 1),), "set", "talk",
)  # fmt: skip


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def bert_audit(bert: Path) -> Audit:
    return audit(bert, [*SINGLE_TURN, TALK], dtypes=("float32", "bfloat16"), batch_sizes=(8,), device="cpu")


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoder_folder(tmp_path_factory.mktemp("decoder"))


def changed(folder: Path, target: Path, *, config: dict | None = None, tokenizer: dict | None = None) -> Path:
    """A copy of a folder with other settings; None takes one away."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    for name, change in (("config.json", config), ("tokenizer_config.json", tokenizer)):
        values = json.loads((target / name).read_text()) | (change or {})
        (target / name).write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    return target


def combination_of(
    result: Audit, engine: str, form: str, size: int, side: str | None = None, dtype: str = "float32"
) -> Combination:
    wanted = (engine, form, side, dtype, size)
    return next(
        c for c in result.combinations if (c.engine, c.format, c.padding_side, c.dtype, c.batch_size) == wanted
    )  # fmt: skip


def in_float32(folder: Path, **options: object) -> Audit:
    return audit(folder, SINGLE_TURN, dtypes=("float32",), batch_sizes=(8,), device="cpu", **options)


def test_prefranks_scores_do_not_depend_on_the_batch(bert_audit: Audit, decoder: Path) -> None:
    for result in (bert_audit, in_float32(decoder, engines=("prefrank",))):
        batched = combination_of(result, "prefrank", "own", 8)
        assert batched.batch_difference == pytest.approx(0, abs=1e-5)
        assert batched.max_difference == pytest.approx(0, abs=1e-5)
        assert batched.flips == 0
        assert any(line.startswith("prefrank: no score depends on its batch") for line in result.summary)


def test_the_reference_is_each_reply_alone_in_float32(bert: Path, bert_audit: Audit) -> None:
    model = RewardModel.load(bert, device="cpu")
    rows = list(dict.fromkeys((c.prompt, reply) for c in [*SINGLE_TURN, TALK] for reply in c.replies))
    values = [model.score_pairs([row])[0].value for row in rows]
    assert (bert_audit.rows, bert_audit.pairs) == (len(rows), 7)
    assert bert_audit.spread == pytest.approx(np.std(values), abs=1e-6)
    assert combination_of(bert_audit, "prefrank", "own", 1).max_difference == pytest.approx(0, abs=1e-6)


def test_the_same_tokens_score_the_same_in_transformers_until_they_are_padded_on_the_left(bert_audit: Audit) -> None:
    """An encoder with absolute positions counts them from the padding on."""
    for combination in (
        combination_of(bert_audit, "transformers", "own", 1),
        combination_of(bert_audit, "transformers", "own", 8, "right"),
    ):
        assert combination.max_difference == pytest.approx(0, abs=1e-5)
        assert combination.flips == 0
    left = combination_of(bert_audit, "transformers", "own", 8, "left")
    assert left.batch_difference > 0.1 * bert_audit.spread
    assert any("depend on their batch" in line and "left" in line for line in bert_audit.summary)


def test_another_format_changes_scores_and_turns_are_what_the_pair_encoding_loses(
    bert: Path, bert_audit: Audit
) -> None:
    assert combination_of(bert_audit, "transformers", "raw", 1).max_spreads > 0.1
    assert combination_of(bert_audit, "transformers", "pair", 1).max_spreads > 0.1
    without_talk = in_float32(bert, engines=("transformers",), formats=("pair",))
    assert combination_of(without_talk, "transformers", "pair", 1).max_difference == pytest.approx(0, abs=1e-5)


def test_the_formats_of_other_programs_join_all_turns_by_line_breaks() -> None:
    assert _TEXTS["pair"](None, TALK.prompt, "why") == ("hello\nwhat is\nbake bread", "why")
    assert _TEXTS["raw"](None, TALK.prompt, "why") == ("hello\nwhat is\nbake bread\nwhy",)


def test_rounding_to_bfloat16_is_measured_in_both_engines(bert_audit: Audit) -> None:
    for engine in ("prefrank", "transformers"):
        rounded = combination_of(bert_audit, engine, "own", 1, dtype="bfloat16")
        assert 1e-4 < rounded.rms_difference <= rounded.max_difference
        assert rounded.rms_spreads == pytest.approx(rounded.rms_difference / bert_audit.spread)


def test_what_cannot_run_is_listed_with_its_reason(bert_audit: Audit) -> None:
    assert len(bert_audit.combinations) == 2 * 4 * 2 + 2 * 4 * 3
    for engine in ("prefrank", "transformers"):
        chat = combination_of(bert_audit, engine, "chat", 1)
        assert "no chat template" in chat.reason
        assert chat.flips is chat.max_difference is None
    assert combination_of(bert_audit, "prefrank", "pair", 1).reason == "pair is the model's own format"
    assert (
        "prefrank, raw format: 4 combinations did not run: prefrank never joins prompt and reply into one string."
        in bert_audit.summary
    )


@pytest.mark.filterwarnings("ignore:the model in .* is not the one that was saved there")  # its fingerprint is made up
def test_an_end_of_text_that_is_also_padding_is_found_without_any_padding(decoder: Path, tmp_path: Path) -> None:
    """As in folders of ours that were saved before their padding was one that ends no row."""
    folder = changed(decoder, tmp_path / "older")
    text = {"template": "chat", "max_length": 128}
    record = {"prefrank": "0", "format": 1, "text": text, "fingerprint": "", "training": None}
    (folder / "prefrank.json").write_text(json.dumps(record))
    result = in_float32(folder, formats=("own",))
    alone = combination_of(result, "transformers", "own", 1)
    assert alone.max_difference > 0.1 * result.spread
    assert alone.batch_difference == 0.0
    assert any("the same tokens without padding score differently" in line for line in result.summary)


def test_a_planted_padding_fault_is_found(decoder: Path, tmp_path: Path) -> None:
    """The config names another padding token than the tokenizer pads with: the last padding is taken for the end."""
    result = in_float32(changed(decoder, tmp_path / "planted", config={"pad_token_id": 5}), formats=("own",))
    right, left = (combination_of(result, "transformers", "own", 8, side) for side in ("right", "left"))
    assert combination_of(result, "transformers", "own", 1).max_difference == pytest.approx(0, abs=1e-5)
    assert right.batch_difference > 0.1 * result.spread
    assert left.batch_difference == pytest.approx(0, abs=1e-5)
    assert combination_of(result, "prefrank", "own", 8).batch_difference == pytest.approx(0, abs=1e-5)
    assert any("depend on their batch" in line and "padded on the right" in line for line in result.summary)


def test_without_a_padding_token_batches_are_listed_as_impossible(decoder: Path, tmp_path: Path) -> None:
    folder = changed(decoder, tmp_path / "bare", config={"pad_token_id": None}, tokenizer={"pad_token": None})
    result = in_float32(folder, formats=("own",))
    assert combination_of(result, "transformers", "own", 1).reason == ""
    assert "pad" in combination_of(result, "transformers", "own", 8, "right").reason
    assert combination_of(result, "prefrank", "own", 8).reason == ""


def test_the_head_that_scores_is_the_same_in_both_engines(tmp_path: Path) -> None:
    folder = bert_folder(tmp_path / "two", num_labels=2)
    result = in_float32(folder, formats=("own",), head="LABEL_1")
    assert combination_of(result, "transformers", "own", 8, "right").max_difference == pytest.approx(0, abs=1e-5)
    assert result.spread != pytest.approx(in_float32(folder, engines=("prefrank",), head="LABEL_0").spread, abs=1e-3)


def test_rows_that_are_cut_are_counted(bert: Path) -> None:
    long = [comparison(["flour " * 200, "a b"], [preference(0, 1)], prompt="how")]
    result = audit(bert, long, dtypes=("float32",), batch_sizes=(1,), formats=("own", "raw"), device="cpu")
    assert [c.cut for c in result.combinations if not c.reason] == [0.5, 0.5, 0.5]


def test_flips_gains_and_losses_by_hand() -> None:
    """Five decided pairs: kept right, lost, gained, failed, kept equal; and a human tie, which counts nowhere."""
    preferences = [preference(0, 1), preference(2, 3), preference(4, 5), preference(6, 7), preference(1, 7),
                   preference(0, 2, 0.5)]  # fmt: skip
    pairs = flatten([preferences], [0.0], [8])
    reference = np.array([1.0, 0, 2, 0, 0, 2, 4, 0])
    values = np.array([1.5, 0, 0, 2, 2, 0, math.inf, 0])
    way = Combination("prefrank", "own", None, "float32", 8)
    result = _compared(way, values, None, reference, pairs)
    assert (result.flips, result.gained, result.lost, result.pairs, result.failures) == (3, 1, 2, 5, 1)
    assert result.max_difference is result.rms_difference is result.max_spreads is None
    whole = _compared(way, np.where(np.isfinite(values), values, 4.0), reference, reference, pairs)
    assert whole.max_difference == whole.batch_difference == 2.0
    assert whole.rms_difference == pytest.approx(math.sqrt((0.25 + 4 * 4) / 8))
    assert (whole.flips, whole.failures) == (2, 0)


def test_equal_scores_of_a_decided_pair_are_a_flip_and_a_loss() -> None:
    pairs = flatten([[preference(0, 1)]], [0.0], [2])
    way = Combination("prefrank", "own", None, "float32", 8)
    result = _compared(way, np.zeros(2), None, np.array([1.0, 0.0]), pairs)
    assert (result.flips, result.gained, result.lost) == (1, 0, 1)


def test_at_most_so_many_comparisons_are_scored_and_each_row_once(bert: Path) -> None:
    calls: list[Combination] = []
    many = [ranking(3, id=str(n)) for n in (0, 5, 1, 5, 0, 5, 2)]
    result = audit(
        bert, many, num_comparisons=4, engines=("prefrank",), formats=("own",), dtypes=("float32",), batch_sizes=(2,),
        device="cpu", progress=calls.append,
    )  # fmt: skip
    assert (result.rows, result.pairs) == (9, 12)
    assert [combination.flips for combination in result.combinations] == [0, 0]
    assert calls == list(result.combinations)


BOTH = {"formats": ("own",), "dtypes": ("float32",), "batch_sizes": (2,), "sides": ("right",), "device": "cpu"}


def ran(result: Audit) -> list[tuple[str, bool]]:
    """(engine, whether the two agree) of what ran."""
    return [(c.engine, (c.max_difference or 0) < 1e-4) for c in result.combinations if not c.reason]


def test_of_a_runs_folder_both_engines_run_the_best_checkpoint(bert: Path, tmp_path: Path) -> None:
    RewardModel.load(bert).save(tmp_path / "runs/demo/best")
    result = audit(tmp_path / "runs/demo", SINGLE_TURN, **BOTH)
    assert ran(result) == [("prefrank", True)] * 2 + [("transformers", True)] * 2


def test_of_an_adapter_both_engines_run_the_merged_model(bert: Path, tmp_path: Path) -> None:
    base = RewardModel.load(bert).save(tmp_path / "base")
    module = "base_model.model.bert.encoder.layer.0.attention.self.query"
    torch.manual_seed(0)
    factors = {f"{module}.lora_A.weight": torch.randn(2, 32), f"{module}.lora_B.weight": torch.randn(32, 2)}
    (tmp_path / "adapter").mkdir()
    save_file(factors, tmp_path / "adapter" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 2, "lora_alpha": 2}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    result = audit(tmp_path / "adapter", SINGLE_TURN, **BOTH)
    assert ran(result) == [("prefrank", True)] * 2 + [("transformers", True)] * 2
    assert result.spread != pytest.approx(audit(base, SINGLE_TURN, **BOTH).spread)


def test_a_model_of_several_outputs_is_audited_with_the_head_and_length_that_were_asked_for(tmp_path: Path) -> None:
    folder = changed(
        bert_folder(tmp_path / "two", num_labels=2), tmp_path / "named",
        config={"id2label": {"0": "first", "1": "second"}, "label2id": {"first": 0, "second": 1}},
    )  # fmt: skip
    result = audit(folder, SINGLE_TURN, head="second", max_length=16, **BOTH)
    assert ran(result) == [("prefrank", True)] * 2 + [("transformers", True)] * 2
    assert max(c.cut or 0 for c in result.combinations) > 0


def test_a_reason_refers_to_no_report_that_nobody_sees(bert: Path, tmp_path: Path) -> None:
    folder = changed(bert, tmp_path / "torn", config={"intermediate_size": 47})
    reason = _attempt(partial(_open_theirs, folder, RewardModel.load(bert), "float32", trust=False))
    assert reason.text == "its weights do not fit its config.json, in shape or on conversion"


def test_a_folders_own_code_is_neither_run_nor_asked_about(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"AutoConfig": "own.Config", "AutoModelForSequenceClassification": "own.Model"}
    folder = changed(bert, tmp_path / "own", config={"model_type": "own", "auto_map": own})
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    asked: list[object] = []
    monkeypatch.setattr("builtins.input", lambda *words: asked.append(words) or "y")
    with pytest.raises(ValueError, match="trust_remote_code"):
        _open_theirs(folder, RewardModel.load(bert), "float32", trust=False)
    assert asked == []
    assert not (tmp_path / "ran").exists()


def test_the_record_is_strict_json(bert_audit: Audit) -> None:
    record = json.loads(json.dumps(plain(bert_audit), allow_nan=False))
    assert read(Audit, record) == bert_audit
    assert record["reference"] == "prefrank, own format (pair), float32, one at a time"
    assert set(record) == {"rows", "pairs", "reference", "spread", "combinations"}
    failed = replace(bert_audit.combinations[0], max_difference=None, failures=1)
    assert any("not numbers" in line for line in replace(bert_audit, combinations=(failed,)).summary)


def test_unknown_settings_and_undecided_comparisons_are_refused(bert: Path) -> None:
    with pytest.raises(BadInput, match="no number type 'float23'; did you mean 'float32'"):
        audit(bert, SINGLE_TURN, dtypes=("float23",))
    with pytest.raises(BadInput, match="a batch size is 0"):
        audit(bert, SINGLE_TURN, batch_sizes=(0,))
    with pytest.raises(BadData, match="none of the 1 comparisons prefers one reply"):
        audit(bert, [comparison(["a", "b"], [preference(0, 1, 0.5)])])
    with pytest.raises(BadData, match="there are no comparisons to audit with"):
        audit(bert, [])
