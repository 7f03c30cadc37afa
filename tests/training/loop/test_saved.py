"""What a run saves scores the same here and in transformers, and how precise the scores are that it learns from."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prefrank import RewardModel
from prefrank.training import train
from prefrank.training.loop import train as loop
from prefrank.training.loop.step import accumulate_gradient
from tests.parity.reference import CONFIGS, OTHERS, model_of, saved
from tests.tiny import bert_folder, decoder_folder, wordpiece_folder

PROMPT = "how do I bake bread"
REPLIES = ["good flour water", "no", "mix flour water salt and yeast; the dough needs an hour to rise"]


def ours(folder: Path) -> Tensor:
    return torch.tensor([score.value for score in RewardModel.load(folder).score(PROMPT, REPLIES)])


def theirs(folder: Path, *, chat: bool) -> Tensor:
    """transformers' scores, all texts in one batch padded by the folder's own tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    if chat:
        turns = [[{"role": "user", "content": PROMPT}, {"role": "assistant", "content": reply}] for reply in REPLIES]
        texts = [tokenizer.apply_chat_template(turn, tokenize=False) for turn in turns]
        batch = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
    else:
        batch = tokenizer([PROMPT] * len(REPLIES), REPLIES, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model(**batch).logits[:, 0]


@pytest.mark.parametrize("padding", ["end", "none"])
@pytest.mark.parametrize("extra", [{}, {"lora_rank": 2}, {"ema_decay": 0.5}], ids=["whole", "lora", "average"])
def test_a_trained_decoder_scores_alike_in_padded_batches_of_transformers(recipe, tmp_path, padding, extra):
    """From a base whose padding is its end token, and from one that names none."""
    base = decoder_folder(tmp_path / "base")
    if padding == "none":
        path = base / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"pad_token_id": None}))
    made = recipe(model_name=str(base), new_head=True, max_steps=3, max_length=128, **extra)
    trained = train(made)
    for folder in (trained.last, trained.best):
        torch.testing.assert_close(theirs(folder, chat=True), ours(folder), atol=1e-5, rtol=0)
    assert ours(trained.last).std() > 1e-3


def test_a_decoder_that_is_resumed_keeps_its_padding_and_its_bits(recipe, tmp_path):
    base = decoder_folder(tmp_path / "base")
    keys: dict[str, Any] = {"model_name": str(base), "new_head": True, "max_length": 128, "max_steps": 4}
    straight = train(recipe(**keys, output_dir=str(tmp_path / "straight"))).last
    parts = recipe(**keys, save_steps=2)
    last = train(parts).last
    last.rename(tmp_path / "gone")
    again = train(parts.model_copy(update={"resume": True})).last
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"):
        assert (again / name).read_bytes() == (straight / name).read_bytes(), name
    assert RewardModel.load(again).fingerprint == RewardModel.load(straight).fingerprint


@pytest.mark.parametrize("typed", [True, False], ids=["with token types", "without"])
def test_a_trained_encoder_scores_alike_in_transformers(recipe, tmp_path, typed):
    """From a base whose tokenizer gives token types, and from one whose tokenizer gives none."""
    base = bert_folder(tmp_path / "base", seed=3)
    path = base / "tokenizer_config.json"
    names = ["input_ids", *(["token_type_ids"] if typed else []), "attention_mask"]
    path.write_text(
        json.dumps(
            json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": names}
        )
    )
    assert ("token_type_ids" in AutoTokenizer.from_pretrained(base)("a", "b")) == typed
    trained = train(recipe(model_name=str(base), max_steps=3)).last
    assert ("token_type_ids" in AutoTokenizer.from_pretrained(trained)("a", "b")) == typed
    torch.testing.assert_close(theirs(trained, chat=False), ours(trained), atol=1e-5, rtol=0)
    more = train(recipe(model_name=str(trained), max_steps=3, output_dir=str(tmp_path / "more"))).last
    torch.testing.assert_close(theirs(more, chat=False), ours(more), atol=1e-5, rtol=0)


def with_words(kind: str, folder: Path) -> Path:
    """A reward model of this family with the WordPiece tokenizer."""
    wordpiece_folder(folder)
    config, size = (CONFIGS | OTHERS)[kind]
    return saved(model_of(config, size | {"vocab_size": 200}), folder)


@pytest.mark.parametrize("kind", ["bert", "electra", "deberta-v2", "llama", "modernbert cls", "distilbert"])
def test_losses_and_evaluations_get_scores_of_float32_under_autocast(recipe, tmp_path, monkeypatch, kind):
    scored: dict[str, list[Tensor]] = {"training": [], "evaluation": []}

    def listening(forward: Any, examples: Any, chosen: Any, loss: Any, **options: Any) -> Any:
        def heard_by(scores: Tensor, preferences: Any) -> Tensor:
            scored["training"].append(scores.detach().clone())
            return loss(scores, preferences)

        return accumulate_gradient(forward, examples, chosen, heard_by, **options)

    def evaluate(score: Any, sets: Any) -> Any:
        scored["evaluation"] += [score(examples) for examples in sets.values()]
        return {}

    monkeypatch.setattr(loop, "accumulate_gradient", listening)
    made = recipe(model_name=str(with_words(kind, tmp_path / "base")), bf16=True, max_steps=2, early_stop=0)
    monkeypatch.setattr(loop, "judged", lambda recipe, metrics: loop.pool([]))
    train(made, evaluate=evaluate)
    for scores in scored.values():
        values = torch.cat(scores)
        assert values.dtype == torch.float32
        rounded = (values == values.bfloat16().float()).float().mean()
        assert rounded < 0.2, "the head was rounded to bfloat16"
