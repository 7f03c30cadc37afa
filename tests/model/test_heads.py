"""Several named heads: made, saved as transformers reads them, loaded whole for training and cut to one for scoring."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from prefrank import RewardModel
from prefrank.errors import BadInput, BadModel
from prefrank.model import load_network, make_engine, save_network, score_batches
from prefrank.model.checkpoint import heads_in, load_for_scoring, load_quantised
from prefrank.model.heads import head_names
from prefrank.model.save import write_checkpoint
from prefrank.scoring import checkpoint_info
from prefrank.scoring.quantise import quantise_folder
from prefrank.text import TextEncoder
from tests.parity.reference import CONFIGS, OTHERS, TABLE, alone, batch_of, model_of, reference_scores, saved
from tests.tiny import bert_folder

HEADS = ("overall", "accuracy", "coverage")
BATCH = batch_of([2, 5, 5, 17, 31])
KINDS = [*TABLE, "electra projected"]


def foreign(folder: Path, kind: str, names: tuple[str, ...] = HEADS) -> Path:
    """A classifier of another program with these outputs."""
    model = model_of(*(CONFIGS | OTHERS)[kind], num_labels=len(names))
    saved(model, folder)
    path = folder / "config.json"
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: n for n, name in enumerate(names)}}
    path.write_text(json.dumps(json.loads(path.read_text()) | labels))
    return folder


def ours(folder: Path) -> Path:
    """A folder of several heads as training leaves it, with a tokenizer."""
    plain = bert_folder(folder / "plain", num_labels=1)
    torch.manual_seed(3)
    network = load_network(plain, heads=HEADS, new_head=True)
    (folder / "ours").mkdir()
    write_checkpoint(folder / "ours", network, TextEncoder.load(plain, max_length=64), None)
    return folder / "ours"


@pytest.mark.parametrize("kind", [*KINDS, "llama"])
def test_a_new_output_layer_has_a_score_for_every_head(kind: str, tmp_path: Path) -> None:
    saved(model_of(*(CONFIGS | OTHERS)[kind]), tmp_path)
    torch.manual_seed(0)
    network = load_network(tmp_path, heads=HEADS, new_head=True)
    assert network.heads == HEADS
    assert network(BATCH).shape == (5, 3)
    scores = score_batches(network, [BATCH])
    assert scores.shape == (5, 3)
    assert (scores.std(0) > 0).all()
    torch.testing.assert_close(scores[0], score_batches(network, alone(BATCH)[:1])[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [*KINDS, "llama", "modernbert cls"])
def test_a_saved_model_of_several_heads_loads_in_transformers_with_the_same_logits(kind: str, tmp_path: Path) -> None:
    saved(model_of(*(CONFIGS | OTHERS)[kind]), tmp_path)
    network = load_network(tmp_path, heads=HEADS, new_head=True)
    folder = tmp_path / "several"
    folder.mkdir()
    save_network(network, folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager")
    assert model.config.id2label == dict(enumerate(HEADS))
    assert model.config.label2id == {name: number for number, name in enumerate(HEADS)}
    with torch.no_grad():
        theirs = torch.cat([reference_scores(model, row).view(1, 3) for row in alone(BATCH)])
    torch.testing.assert_close(score_batches(network, [BATCH]), theirs, atol=1e-5, rtol=0)
    again = load_network(folder, heads=HEADS)
    torch.testing.assert_close(score_batches(again, [BATCH]), score_batches(network, [BATCH]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["bert", "roberta", "deberta-v2", "qwen2"])
def test_a_classifier_of_several_outputs_is_refused_with_their_names_and_scores_with_one(
    kind: str, tmp_path: Path
) -> None:
    foreign(tmp_path, kind)
    for load in (load_network, lambda folder: load_for_scoring(folder, precision=None)):
        with pytest.raises(BadModel, match=r"a classifier with 3 outputs \(overall, accuracy, coverage\).*head="):
            load(tmp_path)
    whole = score_batches(load_network(tmp_path, heads=HEADS), [BATCH])
    for number, name in enumerate(HEADS):
        network = load_for_scoring(tmp_path, precision=None, head=name)
        assert network.heads == (name,)
        torch.testing.assert_close(score_batches(network, [BATCH]), whole[:, number], atol=1e-6, rtol=0)
    swapped = load_network(tmp_path, heads=("coverage", "overall"))
    torch.testing.assert_close(score_batches(swapped, [BATCH]), whole[:, [2, 0]], atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_an_unknown_head_is_an_error_that_names_those_there_are(kind: str, tmp_path: Path) -> None:
    foreign(tmp_path, kind)
    with pytest.raises(BadInput, match="no head 'humour'; wanted one of overall, accuracy, coverage"):
        load_for_scoring(tmp_path, precision=None, head="humour")


def test_engines_score_one_head_alike(tmp_path: Path) -> None:
    foreign(tmp_path, "deberta-v2")
    whole = load_network(tmp_path, heads=HEADS)
    network = load_for_scoring(tmp_path, precision=None, head="accuracy")
    for kernels in (None, "torch"):
        scores = make_engine(network, kernels=kernels)(BATCH)
        torch.testing.assert_close(scores, score_batches(whole, [BATCH])[:, 1], atol=1e-5, rtol=0)
    with pytest.raises(BadInput, match="the heads overall, accuracy, coverage; name one"):
        make_engine(whole)


def test_integer_weights_keep_one_head(tmp_path: Path) -> None:
    foreign(tmp_path, "bert")
    whole = score_batches(load_network(tmp_path, heads=HEADS), [BATCH])
    network = load_quantised(tmp_path, "int16", heads=("coverage",))
    torch.testing.assert_close(score_batches(network, [BATCH]), whole[:, 2], atol=1e-2, rtol=0)


def test_what_prefrank_trained_scores_with_its_first_head(tmp_path: Path) -> None:
    folder = ours(tmp_path)
    assert load_network(folder).heads == heads_in(folder) == HEADS
    default, first, second = (RewardModel.load(folder, head=head) for head in (None, *HEADS[:2]))
    values = [model.score("bake bread", ["flour", "salt"]) for model in (default, first, second)]
    assert values[0] == values[1]
    assert values[1][0].value != values[2][0].value
    assert first.fingerprint != second.fingerprint, "a head is part of what a score means"
    info = checkpoint_info(str(folder))
    assert info["heads"] == list(HEADS)
    assert info["as_saved"]


def test_a_scorer_saves_its_one_head(tmp_path: Path) -> None:
    model = RewardModel.load(ours(tmp_path), head="accuracy")
    again = RewardModel.load(model.save(tmp_path / "one"))
    assert again.network.heads == ("accuracy",)
    assert again.score("bake bread", ["flour"]) == model.score("bake bread", ["flour"])


def test_quantising_takes_a_head_by_name(tmp_path: Path) -> None:
    folder = ours(tmp_path)
    quantise_folder(folder, tmp_path / "int16", "int16", head="coverage", num_rows=20, force=True)
    model = RewardModel.load(tmp_path / "int16")
    assert model.network.heads == ("coverage",)
    value = RewardModel.load(folder, head="coverage").score("bake bread", ["flour"])[0].value
    assert model.score("bake bread", ["flour"])[0].value == pytest.approx(value, abs=1e-2)
    assert checkpoint_info(str(tmp_path / "int16"))["heads"] == ["coverage"]


@pytest.mark.parametrize(
    ("raw", "count", "names"),
    [
        ({}, 1, ("REWARD",)),
        ({"id2label": {"0": "LABEL_0"}}, 1, ("REWARD",)),
        ({"id2label": {"0": "helpful"}}, 1, ("helpful",)),
        ({"id2label": {"0": "a", "1": "b"}}, 1, ("REWARD",)),
        ({"id2label": {str(n): f"h{n}" for n in (10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)}}, 11,
         tuple(f"h{n}" for n in range(11))),
        ({"id2label": {"0": "same", "1": "same"}}, 2, ("LABEL_0", "LABEL_1")),
        ({"id2label": {"0": "a"}}, 2, ("LABEL_0", "LABEL_1")),
    ],
)  # fmt: skip
def test_heads_are_named_as_config_json_counts_them(raw: dict, count: int, names: tuple[str, ...]) -> None:
    assert head_names(raw, count) == names
