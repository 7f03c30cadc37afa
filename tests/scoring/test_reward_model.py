import copy
import errno
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prefrank import RewardModel, Score, Turn, win_probability
from prefrank.errors import BadInput, BadModel, CannotWrite, NotFound
from prefrank.text import count_tokens
from prefrank.types import as_prompt
from tests.tiny import bert_folder, decoder_folder, seed_folder

PROMPT = "how do I bake bread at home"
REPLIES = ["mix flour water salt and yeast", "the dough needs an hour to rise", "", "what?", "flour " * 200]
TEXTS = st.text(alphabet="abcdef ghi.\n[]SEP", max_size=60)


def reference_scores(folder: Path, prompt: str, replies: list[str]) -> list[float]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        # lists, since tokenizer(prompt, "") drops the empty reply's separator and tokenizer([prompt], [""]) does not
        return [network(**tokenizer([prompt], [reply], return_tensors="pt")).logits.item() for reply in replies]


def test_a_plain_checkpoint_scores_as_transformers_does(model: RewardModel, plain_folder: Path) -> None:
    replies = REPLIES[:4]
    ours = [score.value for score in model.score(PROMPT, replies)]
    assert ours == pytest.approx(reference_scores(plain_folder, PROMPT, replies), abs=1e-5)
    assert max(ours) - min(ours) > 1e-3


@settings(deadline=None, max_examples=25)
@given(pairs=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8), budget=st.integers(1, 300), seed=st.randoms())
def test_a_score_is_the_same_alone_in_any_batch_and_in_any_order(
    model: RewardModel, pairs: list[tuple[str, str]], budget: int, seed: object
) -> None:
    alone = [model.score_pairs([pair])[0].value for pair in pairs]
    order = list(range(len(pairs)))
    seed.shuffle(order)
    other = RewardModel(model.network, model.encoder, max_tokens=budget)
    together = other.score_pairs([pairs[n] for n in order])
    assert [score.value for score in together] == pytest.approx([alone[n] for n in order], abs=1e-5)


def test_the_model_cards_files_load_as_they_are_and_save_as_a_whole_checkpoint(tmp_path: Path) -> None:
    folder = seed_folder(tmp_path / "card")
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "pytorch_model.bin", "spm.model", "tokenizer_config.json",
    }  # fmt: skip
    model = RewardModel.load(folder)
    replies = ["mix flour water", "hello there", "the dough needs an hour"]
    values = [score.value for score in model.score(PROMPT, replies)]
    assert values == pytest.approx(reference_scores(folder, PROMPT, replies), abs=1e-5)
    assert max(values) - min(values) > 1e-3
    saved = model.save(tmp_path / "saved")
    assert reference_scores(saved, PROMPT, replies) == pytest.approx(values, abs=1e-5)
    assert RewardModel.load(saved).fingerprint == model.fingerprint


def test_a_score_carries_its_facts(model: RewardModel) -> None:
    short, long = model.score(PROMPT, [REPLIES[0], REPLIES[4]])
    assert (short.cut_prompt, short.cut_reply) == (0, 0)
    assert long.tokens == 128
    assert long.cut_prompt > 0
    assert long.cut_reply > 0
    assert short.model == long.model == model.fingerprint
    assert len(model.fingerprint) == 64


def test_equal_pairs_are_scored_once_and_equal(model: RewardModel, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    encode = model.encoder.encode_pairs
    monkeypatch.setattr(model.encoder, "encode_pairs", lambda pairs: seen.extend(pairs) or encode(pairs))
    scores = model.score_pairs([(PROMPT, "a"), ("other", "a"), (PROMPT, "a")])
    assert scores[0] == scores[2]
    assert len(seen) == 2


def test_a_string_prompt_is_one_user_turn(model: RewardModel) -> None:
    string, turns = model.score(PROMPT, ["a"])[0], model.score([Turn("user", PROMPT)], ["a"])[0]
    assert (string.value, string.tokens) == (pytest.approx(turns.value, abs=1e-5), turns.tokens)
    conversation = [Turn("user", PROMPT), Turn("assistant", "why"), Turn("user", "hungry")]
    assert model.score(conversation, ["a"])[0].tokens > string.tokens


def test_ranking_puts_the_best_first_and_ties_share_a_rank(model: RewardModel) -> None:
    ranked = model.rank(PROMPT, ["a", "bread", "a", "yeast"])
    values = [entry.score.value for entry in ranked]
    assert values == sorted(values, reverse=True)
    assert sorted(entry.index for entry in ranked) == [0, 1, 2, 3]
    ties = [entry for entry in ranked if entry.reply == "a"]
    assert ties[0].rank == ties[1].rank
    assert [entry.index for entry in ties] == [0, 2]


def test_ranking_many_replies_takes_no_comparison_of_each_with_each(
    model: RewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 20_000  # 4e8 comparisons would take a minute
    value = [float(n * 7919 % 1000) for n in range(count)]
    monkeypatch.setattr(model, "_score", lambda pairs: [Score(v, 1, 0, 0, "m") for v in value])
    start = time.process_time()
    ranked = model.rank("p", [str(n) for n in range(count)])
    assert time.process_time() - start < 5
    assert [entry.rank for entry in ranked] == [n - n % 20 for n in range(count)]  # 20 replies share each value
    assert [entry.index for entry in ranked[:20]] == sorted(n for n in range(count) if value[n] == 999)


def test_options_that_are_nothing_are_refused_and_not_the_default(plain_folder: Path) -> None:
    for options, message in (
        ({"max_tokens": 0}, "max_tokens is 0; wanted a whole number of at least 1"),
        ({"max_tokens": -5}, "max_tokens is -5"),
        ({"max_length": 0}, "max_length is 0"),
        ({"num_threads": 0}, "num_threads is 0; wanted a whole number from 1 to 4,096"),
        ({"num_threads": 0, "kernels": "torch"}, "num_threads is 0; wanted a whole number from 1 to 4,096"),
        ({"empty_score": float("nan")}, "empty_score is nan; wanted a finite number"),
        ({"head": ""}, "head is ''; give a name, or leave it out"),
        ({"device": ""}, "device is ''; give a name, or leave it out"),
        ({"precision": ""}, "precision is ''; give a name, or leave it out"),
        ({"kernels": ""}, "kernels is ''; give a name, or leave it out"),
        ({"device": "gpu"}, "the device 'gpu' cannot be used"),
        ({"device": "cuda:99"}, "the device 'cuda:99' cannot be used"),
        ({"device": "meta"}, "the device 'meta' cannot be used"),
    ):
        with pytest.raises(BadInput, match=message):
            RewardModel.load(plain_folder, **options)
    with pytest.raises(NotFound, match="the name of the model is empty"):
        RewardModel.load("")


def test_any_name_of_the_cpu_has_its_budget_of_tokens(plain_folder: Path) -> None:
    loaded = [RewardModel.load(plain_folder, device=name) for name in ("cpu", "cpu:0")]
    assert [model.max_tokens for model in loaded] == [1024, 1024]
    assert {model.engine.kernels for model in loaded} == {loaded[0].engine.kernels}


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_torch_computes_on_the_threads_that_were_asked_for(
    kind: str, plain_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = plain_folder if kind == "bert" else decoder_folder(tmp_path)
    model = RewardModel.load(folder, kernels="torch", num_threads=3)
    seen, before = [], torch.get_num_threads()
    call = type(model.engine.engine).__call__

    def watched(engine: object, batch: object) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return call(engine, batch)

    monkeypatch.setattr(type(model.engine.engine), "__call__", watched)
    model.score(PROMPT, REPLIES)
    assert (set(seen), torch.get_num_threads()) == ({3}, before)


def test_saving_and_loading_keeps_every_score_and_the_fingerprint(model: RewardModel, tmp_path: Path) -> None:
    model.save(tmp_path / "saved")
    again = RewardModel.load(tmp_path / "saved")
    assert again.fingerprint == model.fingerprint
    assert again.encoder.settings == model.encoder.settings
    before, after = model.score(PROMPT, REPLIES), again.score(PROMPT, REPLIES)
    assert [score.value for score in after] == pytest.approx([score.value for score in before], abs=1e-5)
    assert [replace(score, value=0.0) for score in after] == [replace(score, value=0.0) for score in before]


def test_a_saved_checkpoint_is_a_plain_transformers_folder(model: RewardModel, tmp_path: Path) -> None:
    model.save(tmp_path / "saved")
    want = [score.value for score in model.score(PROMPT, REPLIES[:4])]
    assert reference_scores(tmp_path / "saved", PROMPT, REPLIES[:4]) == pytest.approx(want, abs=1e-5)


def test_the_fingerprint_tells_other_weights_and_other_settings_apart(tmp_path: Path, plain_folder: Path) -> None:
    other = RewardModel.load(bert_folder(tmp_path, seed=1), max_length=128).fingerprint
    shorter = RewardModel.load(plain_folder, max_length=64).fingerprint
    assert len({other, shorter, RewardModel.load(plain_folder, max_length=128).fingerprint}) == 3


def test_an_empty_score_is_given_only_when_asked_for(model: RewardModel) -> None:
    floored = RewardModel(model.network, model.encoder, empty_score=-4.0)
    values = [score.value for score in floored.score(PROMPT, ["", " \n", "OK"])]
    assert values == [-4.0, -4.0, pytest.approx(model.score(PROMPT, ["OK"])[0].value, abs=1e-5)]
    assert model.score(PROMPT, [""])[0].value != -4.0


def test_decoders_score_the_same_alone_and_beside_others(decoder: RewardModel) -> None:
    replies = ["bake it", "mix flour water salt and yeast", "the end<|end|>", ""]
    alone = [decoder.score(PROMPT, [reply])[0].value for reply in replies]
    assert [score.value for score in decoder.score(PROMPT, replies)] == pytest.approx(alone, abs=1e-5)


def test_a_decoders_batches_hold_more_tokens_and_count_shared_ones_once(decoder: RewardModel) -> None:
    assert decoder.max_tokens == 2048
    rows = decoder.encoder.encode_pairs([(as_prompt(PROMPT * 20), f"mix flour {n}") for n in range(8)])
    decoder = copy.copy(decoder)
    decoder.engine = SimpleNamespace(streams=2)
    whole, distinct = count_tokens(rows, None), count_tokens(rows, decoder.network.causal)
    assert distinct < whole / 2
    assert decoder._budget(rows, decoder.network.causal) == -(-distinct // 2)


def test_bfloat16_decoders_are_the_same_in_any_batch_when_asked_and_near_otherwise(tmp_path: Path) -> None:
    folder = decoder_folder(tmp_path)
    pairs = [(PROMPT * (1 + n % 3), "mix flour water " * n) for n in range(12)]
    for deterministic, tolerance in ((True, 0.0), (False, 0.05)):
        model = RewardModel.load(folder, precision="bfloat16", deterministic=deterministic)
        together = [score.value for score in model.score_pairs(pairs)]
        alone = [model.score_pairs([pair])[0].value for pair in pairs]
        assert together == pytest.approx(alone, abs=tolerance, rel=0)


def test_a_plain_checkpoint_is_read_at_the_length_it_allows(tmp_path: Path) -> None:
    folder = decoder_folder(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    for positions, length in ((256, 256), (1024, 1024), (100_000, 4096)):
        (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": positions}))
        model = RewardModel.load(folder)
        assert model.encoder.settings.max_length == length
        score = model.score("hello", ["mix flour water salt and yeast " * 80])[0]
        assert (score.cut_reply > 0, score.tokens > 512) == (length == 256, length > 256)
    assert RewardModel.load(folder, max_length=9000).encoder.settings.max_length == 9000


def test_a_folders_own_code_is_not_run_unless_trusted(tmp_path: Path) -> None:
    folder = bert_folder(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "auto_map": {"AutoModelForSequenceClassification": "modeling_odd.OddModel"},
        "architectures": ["OddModel"],
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_odd.py").write_text("raise SystemExit('this code was run')")
    with pytest.raises(BadModel, match="trust_remote_code=True"):
        RewardModel.load(folder)
    with pytest.raises((SystemExit, BadModel), match="this code was run"):
        RewardModel.load(folder, trust_remote_code=True)


def test_win_probability_is_the_sigmoid_of_the_difference(model: RewardModel, plain_folder: Path) -> None:
    first, second = model.score(PROMPT, ["a", "bread"])
    want = torch.sigmoid(torch.tensor(first.value - second.value)).item()
    assert win_probability(first, second) == pytest.approx(want, abs=1e-5)
    assert win_probability(first, second) + win_probability(second, first) == pytest.approx(1)
    with pytest.raises(BadInput, match="not on one scale"):
        win_probability(first, RewardModel.load(plain_folder, max_length=64).score(PROMPT, ["a"])[0])


UNUSABLE = {
    "'p', []": "BadInput: there are no replies to score; give at least one",
    "'p', 'reply'": "BadInput: replies is one string; wanted a list of strings, such as [reply]",
    "'p', ['ok', None]": "BadText: reply 1 is of type NoneType (null); wanted a string",
    "'p', ['ok', chr(0xD800)]": "BadText: the reply of pair 1 has a lone surrogate (half of a character) "
    "at position 0; remove it or decode the text again from its bytes",
    "[], ['ok']": "BadInput: a prompt has no turns; give a string or at least one turn",
    "[{'role': 'user'}], ['ok']": "BadInput: a message has no content; wanted a string",
    "Turn('user', 3), ['ok']": "BadInput: a turn's text is of type int; wanted a string",
    "Turn('narrator', ''), ['ok']": "BadInput: a turn's role is 'narrator'; wanted one of system, user, assistant, "
    "developer, tool, function",
    "None, ['ok']": "BadInput: a prompt is of type NoneType; wanted a string or a list of turns",
}


def test_unusable_texts_are_refused_in_one_line(plain_folder: Path) -> None:
    """In a process of its own: here the type checker of the test run would speak first."""
    calls = ", ".join(f"lambda: model.score({case})" for case in UNUSABLE)
    code = f"""
from prefrank import PrefrankError, RewardModel, Turn
model = RewardModel.load({str(plain_folder)!r}, max_length=128)
for call in [{calls}]:
    try:
        print(call())
    except PrefrankError as error:
        print(f"{{type(error).__name__}}: {{error}}")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == list(UNUSABLE.values())


def test_a_missing_model_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises((NotFound, BadModel)):
        RewardModel.load(tmp_path / "nothing")


def test_a_classifier_with_several_outputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="3 outputs"):
        RewardModel.load(bert_folder(tmp_path, num_labels=3))


def test_a_limit_beyond_the_models_positions_is_refused(plain_folder: Path) -> None:
    with pytest.raises(BadModel, match="max_length is 400 tokens but the model has positions for 128"):
        RewardModel.load(plain_folder, max_length=400)


def test_weights_that_are_not_numbers_are_an_error_not_a_score(tmp_path: Path) -> None:
    broken = RewardModel.load(bert_folder(tmp_path))
    with torch.no_grad():
        next(iter(broken.network.parameters())).fill_(float("nan"))
    with pytest.raises(BadModel, match="is nan"):
        broken.score(PROMPT, ["a"])


def test_a_full_disk_leaves_the_old_checkpoint_whole(
    model: RewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "saved"
    model.save(target)
    before = {path.name: path.read_bytes() for path in target.iterdir()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(model.encoder, "save", full)
    with pytest.raises(CannotWrite):
        model.save(target)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    assert list(tmp_path.iterdir()) == [target]


def test_saving_never_deletes_somebodys_own_files(model: RewardModel, tmp_path: Path) -> None:
    target = model.save(tmp_path / "saved")
    (target / "README.md").write_text("mine")
    with pytest.raises(CannotWrite, match=r"it holds other files \(README\.md\); give a new or empty folder"):
        model.save(target)
    assert (target / "README.md").read_text() == "mine"
    assert RewardModel.load(target).fingerprint == model.fingerprint
    (target / "README.md").unlink()
    (target / "pytorch_model.bin").touch()  # a checkpoint's own older weights go
    assert not (model.save(target) / "pytorch_model.bin").exists()


def test_a_torn_record_is_named(model: RewardModel, tmp_path: Path) -> None:
    folder = model.save(tmp_path / "saved")
    record = folder / "prefrank.json"
    record.write_text(record.read_text()[:40])
    with pytest.raises(BadModel, match=r"prefrank\.json cannot be read"):
        RewardModel.load(folder)
    record.write_text(json.dumps({"format": 99}))
    with pytest.raises(BadModel, match="has format 99"):
        RewardModel.load(folder)
