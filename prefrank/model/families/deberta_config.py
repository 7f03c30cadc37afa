"""config.json of DeBERTa-v2 and v3, read and checked."""

from dataclasses import dataclass

from prefrank.io.json_files import Fields
from prefrank.model.distances import Distances
from prefrank.model.packed_encoder import (
    MOST,
    MOST_WIDTH,
    Activation,
    EncoderConfig,
    activation,
    rate,
    read_encoder_config,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DebertaConfig:
    """A DeBERTa-v2 or v3 model.

    Args:
        absolute: whether positions are also added to the embeddings.
        relative: whether attention knows relative positions at all.
        terms: of "c2p" (query reads position) and "p2c" (key reads position), those in use.
        shared: whether positions go through the layer's own query and key projections.
        distances: which row of the table of relative embeddings a distance reads.
        conv_kernel: width of the convolution beside layer 0, 0 for none.
    """

    encoder: EncoderConfig
    absolute: bool
    relative: bool
    terms: frozenset[str]
    shared: bool
    distances: Distances
    normed: bool
    conv_kernel: int
    conv_groups: int
    conv_activation: Activation
    pooler_activation: Activation
    pooler_dropout: float
    head_dropout: float


def read_deberta_config(config: Fields, *, dropout: float | None) -> DebertaConfig:
    """config.json of a DeBERTa-v2 model; BadModel for what cannot be run here."""
    width = config.integer("embedding_size", config.integer("hidden_size"), least=1, most=MOST_WIDTH)
    encoder = read_encoder_config(
        config, dropout=dropout, embedding_width=width, num_types=0, norm_eps=1e-7, padding_id=0
    )
    buckets = max(0, config.integer("position_buckets", -1, least=-1, most=MOST))
    max_distance = config.integer("max_relative_positions", -1, least=-1, most=MOST)
    max_distance = max_distance if max_distance > 0 else encoder.num_positions
    if buckets == 1:
        config.refuse("position_buckets", "at least 2, or -1 for none")
    conv_kernel = max(0, config.integer("conv_kernel_size", 0, least=-1, most=1 << 10))
    if conv_kernel and conv_kernel % 2 == 0:
        config.refuse("conv_kernel_size", "an odd number")
    conv_groups = config.integer("conv_groups", 1, least=1, most=MOST_WIDTH)
    if conv_kernel and encoder.width % conv_groups:
        config.refuse("conv_groups", f"a number that divides the hidden_size, {encoder.width}")
    return DebertaConfig(
        encoder=encoder,
        absolute=config.flag("position_biased_input", True),
        relative=config.flag("relative_attention", False),
        terms=_terms(config),
        shared=config.flag("share_att_key", False),
        distances=Distances(buckets or max_distance, buckets, max_distance),
        normed="layer_norm" in _words(config.text("norm_rel_ebd", "none")),
        conv_kernel=conv_kernel,
        conv_groups=conv_groups,
        conv_activation=activation(config, "conv_act", "tanh"),
        pooler_activation=activation(config, "pooler_hidden_act", "gelu"),
        pooler_dropout=rate(config, "pooler_dropout", 0.0, dropout),
        head_dropout=rate(config, "cls_dropout", encoder.hidden_dropout, dropout),
    )


def _terms(config: Fields) -> frozenset[str]:
    key = "pos_att_type"
    words = _words(config.text(key, "")) if isinstance(config.get(key), str) else config.texts(key, ())
    return frozenset(words) & {"c2p", "p2c"}


def _words(text: str) -> list[str]:
    """Lists in these configs are strings such as "p2c|c2p"."""
    return [word.strip() for word in text.lower().split("|")]
