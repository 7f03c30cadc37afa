"""Rotary positions (Su et al. 2021, arXiv 2104.09864): the angles by which a decoder turns its queries and keys.

Frequencies are computed step by step as in transformers' `modeling_rope_utils.py`, in float32, so that they are the
same numbers. Both ways to ask for them are read: `rope_parameters` (transformers 5) and `rope_theta` with
`rope_scaling` (before).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from prefrank.errors import suggest
from prefrank.io.json_files import Fields
from prefrank.types import Causal

Frequencies = Float32[np.ndarray, " r"]
_MOST = float(1 << 40)
"""Of any number that a table of positions is made of."""


@dataclass(frozen=True, slots=True, eq=False)
class Rope:
    """One kind of rotary positions, as config.json asks for it.

    Args:
        frequencies: [r] radians a position of each pair of channels; channel c turns with channel c + r, those from
            2 r on do not turn.
        scaling: of cosines and sines.
        fixed_until, by_length: which rows have tables of their own, as in `Causal`.
        longer: the frequencies of a row of a length above `fixed_until`.
    """

    frequencies: Float32[np.ndarray, " r"]
    scaling: float = 1.0
    fixed_until: int | None = None
    by_length: bool = False
    longer: Callable[[int], Float32[np.ndarray, " r"]] | None = None

    def causal(self, padding: int | None) -> Causal:
        """What rows may share under these positions, with the padding id that is passed over."""
        return Causal(padding=padding, fixed_until=self.fixed_until, by_length=self.by_length)

    def angles(
        self, positions: Int64[np.ndarray, " T"], lengths: Int64[np.ndarray, " T"]
    ) -> tuple[Float32[Tensor, "T r"], Float32[Tensor, "T r"]]:
        """Cosines and sines for tokens at these positions, of whole rows of these lengths, on the CPU."""
        turned = np.multiply.outer(positions.astype(np.float32), self.frequencies)
        if self.longer is not None and self.fixed_until is not None:
            long = lengths > self.fixed_until
            for length in np.unique(lengths[long]).tolist() if self.by_length else lengths[long][:1].tolist():
                here = lengths == length if self.by_length else long
                turned[here] = np.multiply.outer(positions[here].astype(np.float32), self.longer(length))
        angles = torch.from_numpy(turned)
        cosines, sines = angles.cos(), angles.sin()
        return (cosines, sines) if self.scaling == 1.0 else (cosines * self.scaling, sines * self.scaling)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What the kinds of positions are computed from: the settings, and numbers from around them.

    Args:
        settings: the object that names the kind; its values come before those of config.json.
        width: channels that turn.
    """

    settings: Fields
    theta: float
    width: int
    max_positions: int
    original: int

    def number(self, key: str, default: float | None = None) -> float:
        """A positive number; without a default it has to be there."""
        given = {} if default is None else {"default": default}
        value: float = self.settings.number(key, **given, least=0.0, most=_MOST)
        return value if value > 0 else self.settings.refuse(key, "a number above 0")

    def plain(self, theta: float | Tensor | None = None) -> Tensor:
        """Frequencies without any scaling."""
        return 1.0 / (self.theta if theta is None else theta) ** self.shares()

    def shares(self) -> Tensor:
        """[r] of each pair of channels, its place among them from 0 up to 1."""
        return torch.arange(0, self.width, 2, dtype=torch.int64, device="cpu").float() / self.width


def _default(asked: _Asked) -> Rope:
    return Rope(asked.plain().numpy())


def _linear(asked: _Asked) -> Rope:
    """Positions divided by a factor (Chen et al. 2023, arXiv 2306.15595)."""
    return Rope((asked.plain() / asked.number("factor")).numpy())


def _dynamic(asked: _Asked) -> Rope:
    """NTK-aware scaling: past the trained length the base grows with the row's own."""
    factor, most, width = asked.number("factor"), asked.max_positions, asked.width
    if width < 4:
        asked.settings.refuse("rope_type", f"default, since only {width} channels turn")

    return Rope(
        _grown(asked, factor, most), fixed_until=most, by_length=True, longer=partial(_grown_in_float32, asked, factor)
    )


def _grown(asked: _Asked, factor: float, length: int | Tensor) -> Frequencies:
    """Frequencies of a row of a length."""
    exponent = asked.width / (asked.width - 2)
    return asked.plain(asked.theta * ((factor * length / asked.max_positions) - (factor - 1)) ** exponent).numpy()


def _grown_in_float32(asked: _Asked, factor: float, length: int) -> Frequencies:
    """transformers has a tensor for the length of a row, and rounds to float32 on the way."""
    return _grown(asked, factor, torch.tensor(length, device="cpu"))


def _yarn(asked: _Asked) -> Rope:
    """Slow channels interpolated, fast ones as they were, a ramp between (Peng et al. 2023, arXiv 2309.00071)."""
    width, settings = asked.width, asked.settings
    factor = asked.number("factor", asked.max_positions / asked.original)
    fast, slow = (settings.number(key, 0.0, least=0.0, most=_MOST) for key in ("beta_fast", "beta_slow"))

    def place(turns: float) -> float:
        """The channel that turns so often over the original length."""
        return (width * math.log(asked.original / (turns * 2 * math.pi))) / (2 * math.log(asked.theta))

    low, high = place(fast or 32.0), place(slow or 1.0)
    if settings.flag("truncate", "truncate" not in settings):  # null is no, as in transformers
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    span = (high + 0.001 if low == high else high) - low
    kept = 1 - torch.clamp((torch.arange(width // 2, dtype=torch.float32, device="cpu") - low) / span, 0, 1)
    powers = asked.theta ** asked.shares()
    frequencies = (1.0 / (factor * powers)) * (1 - kept) + (1.0 / powers) * kept
    return Rope(frequencies.numpy(), scaling=_yarn_scaling(settings, factor))


def _yarn_scaling(settings: Fields, factor: float) -> float:
    given = settings.number("attention_factor", None, least=0.0, most=_MOST)
    if given is not None:
        return given
    upper, lower = (settings.number(key, 0.0, least=0.0, most=_MOST) for key in ("mscale", "mscale_all_dim"))

    def scale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    return scale(upper) / scale(lower) if upper and lower else scale(1.0)


def _longrope(asked: _Asked) -> Rope:
    """A factor for each pair of channels, other ones for rows past the original length (arXiv 2402.13753)."""
    settings, original = asked.settings, asked.original
    factor = asked.number("factor", asked.max_positions / original)
    scaling = settings.number("attention_factor", None, least=0.0, most=_MOST)
    if scaling is None:
        if factor > 1 and original < 2:
            settings.refuse("original_max_position_embeddings", "at least 2")
        scaling = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    powers = asked.theta ** asked.shares()
    short, long = (
        (1.0 / (_factors(settings, key, len(powers)) * powers)).numpy() for key in ("short_factor", "long_factor")
    )
    return Rope(short, scaling=scaling, fixed_until=original, longer=partial(_same, long))


def _same(frequencies: Frequencies, length: int) -> Frequencies:
    """The same for every length; like all functions of a network one that can be pickled."""
    return frequencies


def _factors(settings: Fields, key: str, count: int) -> Tensor:
    """[r] positive numbers of a list."""
    values = settings.get(key)
    wanted = f"a list of {count} numbers above 0, one for each pair of channels that turn"
    if not isinstance(values, list) or len(values) != count:
        settings.refuse(key, wanted)
    if not all(type(value) in (int, float) and 0 < value < _MOST for value in values):
        settings.refuse(key, wanted)
    return torch.tensor(values, dtype=torch.float32, device="cpu")


def _llama3(asked: _Asked) -> Rope:
    """Slow channels divided by a factor, fast ones as they were, a blend between (Llama 3.1)."""
    factor, original = asked.number("factor"), asked.original
    low, high = asked.number("low_freq_factor"), asked.number("high_freq_factor")
    if high <= low:
        asked.settings.refuse("high_freq_factor", f"more than low_freq_factor, {low:g}")
    plain = asked.plain()
    lengths = 2 * math.pi / plain
    slow, fast = lengths > original / low, lengths < original / high
    scaled = torch.where(slow, plain / factor, plain)
    smooth = (original / lengths - low) / (high - low)
    blended = (1 - smooth) * scaled / factor + smooth * scaled
    return Rope(torch.where(~fast & ~slow, blended, scaled).numpy())


KINDS: Mapping[str, Callable[[_Asked], Rope]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "yarn": _yarn,
    "longrope": _longrope,
    "llama3": _llama3,
}


def read_rope(
    config: Fields,
    *,
    head_width: int,
    max_positions: int,
    original: int | None = None,
    partial: bool = False,
    other_names: Mapping[str, str] | None = None,
) -> Rope:
    """The rotary positions that a config.json asks for.

    Args:
        head_width: channels of a head.
        original: length that positions were first trained for, where config.json does not say so beside its settings
            of rope; None: as these say, else `max_positions`.
        partial: whether a model may turn a part of its channels only (`partial_rotary_factor`).
        other_names: kinds by names that this family had for them once.

    Raises:
        BadModel: a kind that is not known, settings that are missing or no such numbers, or layers that differ.
    """
    settings = _settings(config)
    key = "rope_type" if settings.get("rope_type") is not None else "type"
    named = settings.text(key, "default")
    kind = (other_names or {}).get(named, named)
    if kind not in KINDS:
        settings.refuse(key, f"a kind of rotary positions that is supported{suggest(kind, KINDS)}")
    theta = settings.number("rope_theta", config.number("rope_theta", 10_000.0, most=_MOST), most=_MOST)
    if theta <= 1:
        (settings if "rope_theta" in settings else config).refuse("rope_theta", "a number above 1")
    outside = config.number("partial_rotary_factor", 1.0, least=0.0, most=1.0)
    part = settings.number("partial_rotary_factor", outside, least=0.0, most=1.0)
    width = int(head_width * part)
    if width < 2 or width % 2 or (part != 1 and not partial):
        if part == 1:
            config.refuse("head_dim" if "head_dim" in config else "num_attention_heads", "heads of an even width")
        where = settings if "partial_rotary_factor" in settings else config
        where.refuse("partial_rotary_factor", "one that turns an even number of channels" if partial else "1")
    within = settings.integer("original_max_position_embeddings", max_positions, least=1)
    return KINDS[kind](
        _Asked(
            settings=settings,
            theta=theta,
            width=width,
            max_positions=max_positions,
            original=config.integer("original_max_position_embeddings", original or within, least=1),
        )
    )


def _settings(config: Fields) -> Fields:
    """The object that describes positions, empty where there is none. Of one for each kind of layer, any: all are equal
    in a model that runs here.
    """
    key = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    settings = config.object(key, Fields({}, config.file, key, config.error))
    by_layer = [settings.object(name) for name in settings if isinstance(settings[name], dict)]
    if by_layer and any(dict(other) != dict(by_layer[0]) for other in by_layer[1:]):
        config.refuse(key, "the same positions in all layers, as other models are not supported")
    return by_layer[0] if by_layer else settings
