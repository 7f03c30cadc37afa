"""The table of families: what a line of it needs to say, and that one line is enough for a new family."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from prefrank.errors import BadInput, BadModel
from prefrank.io.json_files import Fields
from prefrank.model import fingerprint, load_network, make_engine, run, save_network, score_batches
from prefrank.model.checkpoint import load_quantised
from prefrank.model.families import FAMILIES, Family, family_of, find_family
from prefrank.model.heads import ONLY_HEAD, HeadLinear
from prefrank.model.network import PackedNetwork, parameters_by_depth
from prefrank.model.pack import pack_batch
from prefrank.types import Batch
from tests.parity.reference import OTHERS, TABLE, VOCAB, batch_of, model_of, saved

BATCH = batch_of([3, 5, 5, 17])


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_line_is_a_sequence_classifier_of_transformers(model_type: str) -> None:
    assert MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES[model_type] == FAMILIES[model_type].architecture


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_line_gives_a_network_of_its_own(model_type: str, tmp_path: Path) -> None:
    network = load_network(saved(model_of(*TABLE[model_type]), tmp_path))
    assert isinstance(network, PackedNetwork)
    assert family_of(network) is FAMILIES[model_type]
    names = [name for names in parameters_by_depth(network)[:-1] for name in names]
    assert all(name.startswith(f"{network.backbone}.") for name in names)


def test_what_is_not_in_the_table_runs_through_transformers(tmp_path: Path) -> None:
    assert family_of(load_network(saved(model_of(*OTHERS["gemma"]), tmp_path))) is None
    assert find_family(Fields({"model_type": "bert"}, "config.json")) is FAMILIES["bert"]
    assert find_family(Fields({"model_type": "bert", "is_decoder": True}, "config.json")) is None
    assert find_family(Fields({"model_type": "llama", "is_decoder": True}, "config.json")) is FAMILIES["llama"]
    assert find_family(Fields({"model_type": "gemma"}, "config.json")) is None


class Bag(nn.Module):
    """A new family with as little as there can be: the mean of a row's embeddings through one layer."""

    max_positions = None
    output_layer = "score"
    backbone = "bag"
    gradient_checkpointing = fused = False
    causal = None

    def __init__(self, raw: Mapping[str, Any], *, dropout: float | None = None) -> None:
        super().__init__()
        config = Fields.of(raw)
        width, self.vocab_size = config.integer("hidden_size"), config.integer("vocab_size")
        self.config, self.heads, self.uncut = dict(raw), (ONLY_HEAD,), dict[str, Tensor]()
        self.bag = nn.Module()
        self.bag.embed_tokens = nn.Embedding(self.vocab_size, width)
        self.bag.layers = nn.ModuleList([nn.Linear(width, width)])
        self.score = HeadLinear(width, 1, bias=False)

    def obstacle(self) -> str | None:
        return "it has no attention"

    def sharing(self, ids: np.ndarray) -> AbstractContextManager[None]:
        return nullcontext()

    def forward(self, batch: Batch) -> Tensor:
        pack = pack_batch(batch, vocab_size=self.vocab_size, max_positions=None, device=self.score.weight.device)
        lengths = torch.from_numpy(np.diff(batch.starts))
        owners = torch.arange(len(lengths)).repeat_interleave(lengths)
        sums = torch.zeros(len(lengths), self.score.in_features).index_add(0, owners, self.bag.embed_tokens(pack.ids))
        return self.score(torch.tanh(self.bag.layers[0](sums / lengths[:, None]))).squeeze(-1)


@pytest.fixture
def bag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the new family, which is one line in the table."""
    monkeypatch.setitem(FAMILIES, "bag", Family("BagForSequenceClassification", Bag))
    torch.manual_seed(0)
    raw = {"model_type": "bag", "hidden_size": 8, "vocab_size": VOCAB, "num_hidden_layers": 1}
    (tmp_path / "bag").mkdir()
    save_network(Bag(raw), tmp_path / "bag")
    return tmp_path / "bag"


def test_one_line_is_enough_to_load_score_and_save(bag: Path, tmp_path: Path) -> None:
    network = load_network(bag)
    assert network.config["architectures"] == ["BagForSequenceClassification"]
    wanted = score_batches(network, [BATCH])
    assert wanted.std() > 0
    torch.testing.assert_close(run(make_engine(network), [BATCH]), wanted)
    (tmp_path / "again").mkdir()
    save_network(network, tmp_path / "again")
    assert fingerprint(load_network(tmp_path / "again"), extra=b"") == fingerprint(network, extra=b"")
    two = load_network(bag, heads=("a", "b"), new_head=True)
    assert score_batches(two, [BATCH]).shape == (4, 2)
    assert [len(names) for names in parameters_by_depth(network)] == [1, 2, 1]


def test_without_a_layout_no_kernels_run_it_and_it_cannot_be_quantised(bag: Path) -> None:
    network = load_network(bag)
    assert make_engine(network).kernels == "torch"
    with pytest.raises(BadInput, match="this model has no kernels 'portable'"):
        make_engine(network, kernels="portable")
    with pytest.raises(BadInput, match="'flash' cannot be used: it has no attention"):
        make_engine(network, kernels="flash")
    with pytest.raises(BadModel, match="holds a 'bag' model, which cannot be quantized"):
        load_quantised(bag, "int16")
