"""The table of model families: which models run on networks of our own, by config.json's model_type.

The next family is one module in this folder and one line in `FAMILIES`: everything else reads the table, and the tests
hold every line against transformers (tests/parity). A family's module has

- a network, an `nn.Module` that is a `PackedNetwork` and whose parameters have transformers' names; it reads and checks
  config.json when it is made;
- where the engines that only score can run it, `lay_out`: the network's weights as a `Layout`, or a decoder's as a
  `DecoderLayout`. Without it torch alone scores, by the network's own forward pass, and the model cannot be quantized.

Models that are not in the table run through transformers (`other.py`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from prefrank.io.json_files import Fields
from prefrank.model.families import bert, deberta, decoder, mpnet
from prefrank.model.families.bert import BertNetwork
from prefrank.model.families.deberta import DebertaNetwork
from prefrank.model.families.decoder import DecoderNetwork
from prefrank.model.families.mpnet import MPNetNetwork
from prefrank.model.integer_weights import stored_precision
from prefrank.model.layout import DecoderLayout, Layout
from prefrank.model.network import Network, PackedNetwork
from prefrank.model.other import OtherNetwork
from prefrank.types import Batch

N_co = TypeVar("N_co", bound=PackedNetwork, covariant=True)
N = TypeVar("N", bound=PackedNetwork)


@runtime_checkable
class MakesNetwork(Protocol[N_co]):
    """The class of a network: makes one for a raw config.json, with a dropout rate in place of the config's."""

    def __call__(self, raw: Mapping[str, Any], *, dropout: float | None = None) -> N_co: ...


@dataclass(frozen=True, slots=True)
class Family(Generic[N]):
    """How the models of one model_type run here.

    Args:
        architecture: transformers' class of its sequence classifiers, which a saved config.json names.
        network: makes the network.
        lay_out: its weights for the engines that only score; None where they cannot run it.
        fix_positions: what quantizing replaces beside linear layers, before them, given a reader of float weights by
            name.
        scorer: the network's forward pass for weights that stay as they are, with what depends on them alone computed
            once; None where nothing does.
        tiny: settings of config.json that a tiny random model for the tests has beside sizes.
        decoder: whether the models read from left to right.
    """

    architecture: str
    network: MakesNetwork[N]
    lay_out: Callable[[N], Layout | DecoderLayout] | None = None
    fix_positions: Callable[[N, Callable[[str], Tensor]], None] | None = None
    tiny: Mapping[str, Any] = field(default_factory=dict)
    scorer: Callable[[N], Callable[[Batch], Tensor]] | None = None
    decoder: bool = False


_AFTER_PADDING = {"max_position_embeddings": 66, "type_vocab_size": 1}
_GROUPED = {"num_key_value_heads": 2, "pad_token_id": None}
_DEBERTA_V3 = {
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
    "type_vocab_size": 0,
}


def _decoder(architecture: str, **tiny: Any) -> Family[DecoderNetwork]:
    return Family(architecture, DecoderNetwork, decoder.lay_out, tiny=_GROUPED | tiny, decoder=True)


FAMILIES: dict[str, Family[Any]] = {
    "bert": Family("BertForSequenceClassification", BertNetwork, bert.lay_out),
    "roberta": Family("RobertaForSequenceClassification", BertNetwork, bert.lay_out, tiny=_AFTER_PADDING),
    "xlm-roberta": Family("XLMRobertaForSequenceClassification", BertNetwork, bert.lay_out, tiny=_AFTER_PADDING),
    "camembert": Family("CamembertForSequenceClassification", BertNetwork, bert.lay_out, tiny=_AFTER_PADDING),
    "electra": Family("ElectraForSequenceClassification", BertNetwork, bert.lay_out, tiny={"embedding_size": 32}),
    "deberta-v2": Family(
        "DebertaV2ForSequenceClassification",
        DebertaNetwork,
        deberta.lay_out,
        deberta.fix_positions,
        _DEBERTA_V3,
        deberta.scorer,
    ),
    "mpnet": Family(
        "MPNetForSequenceClassification", MPNetNetwork, mpnet.lay_out, tiny={"max_position_embeddings": 66}
    ),
    "llama": _decoder("LlamaForSequenceClassification"),
    "mistral": _decoder("MistralForSequenceClassification", sliding_window=5),
    "qwen2": _decoder("Qwen2ForSequenceClassification"),
    "qwen3": _decoder("Qwen3ForSequenceClassification", head_dim=10),
    "phi3": _decoder("Phi3ForSequenceClassification", partial_rotary_factor=0.5),
}


def find_family(config: Fields) -> Family[Any] | None:
    """The family of a config.json, None where transformers runs the model.

    Raises:
        BadModel: a model_type that is missing or no text.
    """
    family = FAMILIES.get(config.text("model_type"))
    if family is None:
        return None
    if family.decoder:  # other programs' integers are unpacked by transformers, with the libraries that it names
        return None if config.get("quantization_config") and stored_precision(config) is None else family
    return None if config.flag("is_decoder", False) else family


def family_of(network: Network) -> Family[Any] | None:
    """The family of a network, None where transformers runs it."""
    return None if isinstance(network, OtherNetwork) else FAMILIES[network.config["model_type"]]


def lay_out(network: Network) -> Layout | DecoderLayout | None:
    """A network's weights, float or quantized, for the engines that only score; None where they cannot run it."""
    family = family_of(network)
    if family is None or family.lay_out is None:
        return None
    with torch.no_grad():
        return family.lay_out(network)


def scorer(network: Network) -> Callable[[Batch], Tensor]:
    """The forward pass of a network in evaluation mode whose weights stay as they are. It has no gradient."""
    family = family_of(network)
    return network if family is None or family.scorer is None else family.scorer(network)
