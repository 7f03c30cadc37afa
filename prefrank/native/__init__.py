"""C++ kernels that score packed rows on a CPU, over plain buffers: built where there is a compiler, absent elsewhere.

The sources (`engine.cpp` for encoders, `decoder.cpp`, and their headers) are compiled three times, for any processor,
for AVX2 and for AVX-512 with VNNI; which library runs is chosen when it is first needed, by what the processor can do.
Nothing else in prefrank needs them for a right answer. `prefrank.model.native_engine` and `native_decoder` fill the
structures below from a model.
"""

import ctypes
import functools
import os
from ctypes import POINTER, c_float, c_int32, c_int64, c_void_p
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from prefrank.errors import BadInput, suggest

KERNELS = ("avx512", "avx2", "portable")
"""Best first."""

FLAGS = {
    "avx512": (
        "-mavx512f",
        "-mavx512bw",
        "-mavx512vl",
        "-mavx512dq",
        "-mavx512vnni",
        "-mfma",
        "-mprefer-vector-width=512",
    ),
    "avx2": ("-mavx2", "-mfma"),
    "portable": (),
}
"""What `setup.py` adds to the compiler's command line for each."""


class Linear(ctypes.Structure):
    """A linear layer: see gemm.h."""

    _fields_ = (
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("scale", c_void_p),
        ("offset", c_void_p),
        ("longest", c_float),
        ("outputs", c_int32),
        ("inputs", c_int32),
        ("precision", c_int32),
    )


class Norm(ctypes.Structure):
    """A layer norm: see engine.cpp, as for those below."""

    _fields_ = (("weight", c_void_p), ("bias", c_void_p), ("eps", c_float))


class Relative(ctypes.Structure):
    """Projected relative positions: see attention.h."""

    _fields_ = (("words", c_void_p), ("scale", c_void_p))


class Layer(ctypes.Structure):
    """An encoder layer."""

    _fields_ = (
        *((name, Linear) for name in ("query", "key", "value", "attention_output", "up", "down")),
        ("attention_norm", Norm),
        ("output_norm", Norm),
        ("position_keys", Relative),
        ("position_queries", Relative),
    )


class Embeddings(ctypes.Structure):
    """Words, positions, types."""

    _fields_ = (
        ("words", c_void_p),
        ("positions", c_void_p),
        ("types", c_void_p),
        ("projection", Linear),
        ("norm", Norm),
        *((name, c_int32) for name in ("width", "first_position", "typed", "projected_first")),
    )


class Model(ctypes.Structure):
    """A whole model."""

    _fields_ = (
        *((name, c_int32) for name in ("width", "heads", "inner", "layers", "activation", "head_activation")),
        *((name, c_int32) for name in ("conv_activation", "conv_kernel", "positionless", "integers")),
        ("scale", c_float),
        ("embeddings", Embeddings),
        ("layer", POINTER(Layer)),
        ("convolution", Linear),
        ("convolution_norm", Norm),
        ("dense", Linear),
        ("output", Linear),
        *((name, c_void_p) for name in ("last_key", "last_key_bias", "last_value", "last_value_bias")),
        *((name, c_void_p) for name in ("last_position_keys", "last_position_queries", "last_positions")),
        ("biases", c_void_p),
        ("relative_rows", c_int32),
    )


class DecoderLayer(ctypes.Structure):
    """A decoder layer: see decoder.cpp, as for those below."""

    _fields_ = (
        *((name, Linear) for name in ("query", "key", "value", "output", "gate", "up", "down")),
        *((name, c_void_p) for name in ("attention_norm", "feed_forward_norm", "query_norm", "key_norm")),
        ("window", c_int64),
    )


class Decoder(ctypes.Structure):
    """A whole decoder."""

    _fields_ = (
        ("layer", POINTER(DecoderLayer)),
        ("words", c_void_p),
        ("norm", c_void_p),
        ("head", Linear),
        *((name, c_int32) for name in ("width", "heads", "kv_heads", "head_width", "layers", "activation")),
        *((name, c_int32) for name in ("words_precision", "rotated")),
        *((name, c_float) for name in ("scale", "eps")),
    )


class Trees(ctypes.Structure):
    """The segments of a decoder's batch."""

    _fields_ = (
        *((name, c_void_p) for name in ("ids", "starts", "parents", "bases", "leaves", "cosines", "sines")),
        *((name, c_int64) for name in ("segments", "rows")),
    )


def available() -> tuple[str, ...]:
    """The kernels that were built and that this processor can run, best first."""
    portable = _open("portable")
    if portable is None:
        return ()
    portable.prefrank_processor.restype = c_int32
    level = portable.prefrank_processor()
    return tuple(name for name in KERNELS[2 - level :] if _open(name) is not None)


def choose(name: str | None) -> str:
    """The kernels of that name, or the best there are.

    Raises:
        BadInput: unknown, not built, or not for this processor; says what to do.
    """
    if name is not None and name not in KERNELS:
        raise BadInput(f"the kernels {name!r} are unknown{suggest(name, ('torch', *KERNELS))}")
    here = available()
    if not here:
        raise BadInput(
            "the native kernels were not built with this version of prefrank, as where there is no C++ compiler;"
            " install one (g++ or clang++) and run pip install again, or use precision float32"
        )
    if name is not None and name not in here:
        raise BadInput(f"the kernels {name!r} do not run on this machine, which has {', '.join(here)}")
    return name or here[0]


def load(name: str) -> ctypes.CDLL:
    """The library of these kernels, with the types of its functions."""
    library = _open(name)
    if library is None:
        raise BadInput(
            f"the native kernels {name!r} were not built; this machine has {', '.join(available()) or 'none'}"
        )
    library.prefrank_score.argtypes = (
        POINTER(Model), *(c_void_p,) * 4, c_int64, c_void_p, c_int64, c_void_p,
    )  # fmt: skip
    library.prefrank_score.restype = c_int32
    library.prefrank_score_decoder.argtypes = (POINTER(Decoder), POINTER(Trees), c_void_p)
    library.prefrank_score_decoder.restype = c_int32
    library.prefrank_multiply.argtypes = (POINTER(Linear), c_void_p, c_int64, c_int64, c_void_p, c_int64)
    library.prefrank_multiply.restype = None
    return library


def _decoder_sizes() -> int:
    parts = (Decoder, DecoderLayer, Trees)
    return sum(1000**place * ctypes.sizeof(part) for place, part in enumerate(parts))


@functools.cache
def _open(name: str) -> ctypes.CDLL | None:
    if os.environ.get("PREFRANK_NATIVE") == "0":
        return None
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_{name}{suffix}")
        if path.exists():
            library = ctypes.CDLL(str(path))
            library.prefrank_sizes.restype = c_int64
            if not hasattr(library, "prefrank_decoder_sizes"):
                return None
            library.prefrank_decoder_sizes.restype = c_int64
            # Built from another version's sources, it would read the structures wrongly: as good as not built.
            fits = library.prefrank_sizes() == ctypes.sizeof(Model) + 1000 * ctypes.sizeof(Layer)
            return library if fits and library.prefrank_decoder_sizes() == _decoder_sizes() else None
    return None
