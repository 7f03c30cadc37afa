"""config.json of decoders like Llama, as one frozen specification: what differs between families, and their defaults.

What a config.json leaves out is as in transformers' configurations of the same model_type.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from prefrank.io.json_files import Fields
from prefrank.limits import limit
from prefrank.model.packed_encoder import MOST, MOST_WIDTH, Activation, activation, rate
from prefrank.model.rope import Rope, read_rope


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What differs between the models of this family, and what stands for keys that a config.json leaves out.

    Args:
        positions: max_position_embeddings.
        original: original_max_position_embeddings, where the model has one beside its settings of rope.
        kv_heads: num_key_value_heads; None: as many as heads.
        head_width: head_dim; None: hidden_size over heads.
        padding: pad_token_id.
        biases: of the attention's linear layers: none, all where `attention_bias` asks for them, or those of queries,
            keys and values.
        mlp_bias: whether config.json may ask for biases of the feed-forward layers.
        windows: which layers have one: none, all, or those that `layer_types` or `max_window_layers` says.
        window: sliding_window.
        head_norms: whether queries and keys are normed head by head.
        merged: whether queries, keys and values are one matrix, and gate and up are.
        partial: whether a part of a head's channels may stay as they are.
        rope_names: kinds of rope by names that they had once.
    """

    positions: int
    original: int | None = None
    kv_heads: int | None = None
    head_width: int | None = None
    norm_eps: float = 1e-6
    padding: int | None = None
    biases: Literal["none", "asked", "qkv"] = "none"
    mlp_bias: bool = False
    windows: Literal["none", "all", "some"] = "none"
    window: int | None = None
    head_norms: bool = False
    merged: bool = False
    partial: bool = False
    rope_names: Mapping[str, str] = field(default_factory=dict)


KINDS = {
    "llama": Kind(positions=2048, biases="asked", mlp_bias=True),
    "mistral": Kind(positions=131_072, kv_heads=8, windows="all", window=4096),
    "qwen2": Kind(positions=32_768, kv_heads=32, biases="qkv", windows="some", window=4096),
    "qwen3": Kind(
        positions=32_768, kv_heads=32, head_width=128, biases="asked", windows="some", window=4096, head_norms=True
    ),
    "phi3": Kind(
        positions=4096,
        original=4096,
        norm_eps=1e-5,
        padding=32_000,
        windows="all",
        merged=True,
        partial=True,
        rope_names={"su": "longrope", "yarn": "longrope"},
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSpec:
    """A decoder like Llama.

    Args:
        width: of a token's hidden state (D).
        feed_forward_width: of gate and up.
        num_kv_heads: of keys and values; num_heads is a multiple of it.
        windows: of each layer, how many tokens up to its own a query sees; None: all.
        max_positions: tokens of the longest row; None where positions stretch with a row's length.
        padding: the padding id, whose embedding gets no gradient; None where there is none.
        qkv_bias, output_bias, feed_forward_bias: which linear layers have one.
        attention_dropout: of attention weights.
        residual_dropout: of what each half of a layer adds.
    """

    vocab_size: int
    width: int
    feed_forward_width: int
    num_heads: int
    num_kv_heads: int
    head_width: int
    windows: tuple[int | None, ...]
    activation: Activation
    norm_eps: float
    rope: Rope
    max_positions: int | None
    padding: int | None
    qkv_bias: bool
    output_bias: bool
    feed_forward_bias: bool
    head_norms: bool
    merged: bool
    attention_dropout: float
    residual_dropout: float


def read_decoder_spec(config: Fields, *, dropout: float | None) -> DecoderSpec:
    """config.json of a decoder; BadModel for what cannot be run here."""
    kind = KINDS[config.text("model_type")]
    width = config.integer("hidden_size", least=1, most=MOST_WIDTH)
    num_heads = config.integer("num_attention_heads", least=1, most=MOST_WIDTH)
    num_layers = config.integer("num_hidden_layers", least=1, most=limit("model_parts"))
    num_kv_heads = _nullable(config, "num_key_value_heads", kind.kv_heads, most=MOST_WIDTH) or num_heads
    if num_heads % num_kv_heads:
        config.refuse("num_key_value_heads", f"a number that divides the num_attention_heads, {num_heads}")
    head_width = config.integer("head_dim", kind.head_width or width // num_heads, most=MOST_WIDTH)
    if head_width < 1:
        config.refuse("num_attention_heads", f"at most the hidden_size, {width}")
    positions = config.integer("max_position_embeddings", kind.positions, least=1, most=MOST)
    asked_bias = kind.biases == "asked" and config.flag("attention_bias", False)
    rope = read_rope(
        config,
        head_width=head_width,
        max_positions=positions,
        original=kind.original,
        partial=kind.partial,
        other_names=kind.rope_names,
    )
    padding = _nullable(config, "pad_token_id", kind.padding, least=-MOST, most=MOST)
    return DecoderSpec(
        vocab_size=config.integer("vocab_size", least=1, most=MOST),
        width=width,
        feed_forward_width=config.integer("intermediate_size", least=1, most=16 * MOST_WIDTH),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_width=head_width,
        windows=_windows(config, kind, num_layers),
        activation=activation(config, "hidden_act", "silu"),
        norm_eps=config.number("rms_norm_eps", kind.norm_eps, least=0.0, most=1.0),
        rope=rope,
        max_positions=None if rope.by_length else positions,
        padding=padding,
        qkv_bias=asked_bias or kind.biases == "qkv",
        output_bias=asked_bias,
        feed_forward_bias=kind.mlp_bias and config.flag("mlp_bias", False),
        head_norms=kind.head_norms,
        merged=kind.merged,
        attention_dropout=rate(config, "attention_dropout", 0.0, dropout),
        residual_dropout=rate(config, "resid_pdrop", 0.0, dropout) if kind.merged else 0.0,
    )


def _windows(config: Fields, kind: Kind, num_layers: int) -> tuple[int | None, ...]:
    """The window of each layer."""
    if kind.windows == "none":
        return (None,) * num_layers
    window = _nullable(config, "sliding_window", kind.window, least=1, most=MOST)
    if kind.windows == "all":
        return (window,) * num_layers
    if not config.flag("use_sliding_window", False):
        window = None
    types = config.texts("layer_types", None)
    if types is None:
        first = config.integer("max_window_layers", 28, most=MOST)
        return tuple(window if layer >= first else None for layer in range(num_layers))
    known = {"full_attention": None} if window is None else {"full_attention": None, "sliding_attention": window}
    if len(types) != num_layers or not known.keys() >= set(types):
        config.refuse("layer_types", f"{num_layers} of {' and '.join(known)}, one for each layer")
    return tuple(known[name] for name in types)


def _nullable(config: Fields, key: str, default: int | None, *, least: int = 1, most: int) -> int | None:
    """A whole number, or null, which is not the same as a key that is left out."""
    return None if key in config and config[key] is None else config.integer(key, default, least=least, most=most)
