"""One way to run decoders, in a process of its own, answering requests as `score_worker.py` does.

    python decoders_worker.py --variant ours_float32 --folder MODEL --core 1

A request's choice says how rows are laid out: for transformers "arrival" (padded as they come, so many rows at a time)
or "sorted" (padded under a token budget), for ours "shared" (what rows begin with alike once) or "alone". A budget of
one token is one unpadded row at a time. Both choices of a process run on the same weights in memory.
"""

import argparse
import os
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from score_worker import (
    Forward,
    Rows,
    Scorer,
    Session,
    Variant,
    export_onnx,
    matrix_rates,
    one_line,
    one_thread,
    onnx_forward,
    own_rows,
    padded,
    serve,
    torch_forward,
    transformers_model,
)

PEERS = "decoder-peers"
SORTED_BUDGETS = (256, 512, 1024, 2048, 4096)
OWN_BUDGETS = (1024, 2048, 4096)
FAMILIES = ("llama", "qwen3")


@cache
def transformers_forward(folder: Path) -> Forward:
    return torch_forward(transformers_model(folder))


def transformers(folder: Path, choice: str) -> Scorer:
    return padded(transformers_forward(folder), folder, arrival=choice == "arrival")


def onnxruntime(folder: Path, choice: str) -> Scorer:
    return padded(onnx_forward(folder / "onnx/model.onnx"), folder)


@cache
def own_engine(folder: Path, precision: str, kernels: str | None) -> Any:
    one_thread()
    from prefrank.model import load_for_scoring, make_engine

    network = load_for_scoring(folder, precision=precision)
    return make_engine(network, kernels=kernels, num_threads=1), getattr(network, "causal", None)


def ours(precision: str, kernels: str | None) -> Any:
    def build(folder: Path, choice: str) -> Scorer:
        from prefrank.model import run
        from prefrank.text import plan_batches

        engine, causal = own_engine(folder, precision, kernels)
        if kernels is None and engine.kernels == "torch":
            raise RuntimeError("the native kernels do not run this model")
        if engine.precision != precision:
            raise RuntimeError(f"{precision} was asked for, but the weights are {engine.precision}")
        if choice == "shared" and causal is None:
            raise RuntimeError("this model runs through transformers, where nothing is shared")

        def score(rows: Rows, budget: int) -> np.ndarray:
            causal_or_not = {"causal": causal} if choice == "shared" else {}
            return run(engine, plan_batches(own_rows(rows), max_tokens=budget, **causal_or_not)).numpy()

        return score

    return build


VARIANTS = {
    "transformers": Variant("transformers", PEERS, transformers, families=FAMILIES),
    "onnxruntime": Variant("ONNX Runtime", PEERS, onnxruntime, families=FAMILIES),
    "ours_torch": Variant("ours, PyTorch", "own", ours("float32", "torch"), families=FAMILIES),
    "ours_float32": Variant("ours, float32", "own", ours("float32", None), families=FAMILIES),
    "ours_int16": Variant("ours, int16", "own", ours("int16", None), families=FAMILIES),
    "ours_int8": Variant("ours, int8", "own", ours("int8", None), families=FAMILIES),
}


def native_rates(shapes: list[list[int]]) -> dict[str, float]:
    """GFLOP/s of the kernels' own float32 products of (rows, inputs, outputs); nothing where they were not built."""
    import ctypes
    import time
    from importlib.util import find_spec

    if find_spec("prefrank") is None:  # in the peers' environment
        return {}
    from prefrank import native

    if not native.available():
        return {}
    library, rates = native.load(native.choose(None)), {}
    for rows, inputs, outputs in shapes:
        x, weight, out = (
            np.random.default_rng(0).standard_normal(shape, np.float32)
            for shape in ((rows, inputs), (outputs, inputs), (rows, outputs))
        )
        layer = native.Linear(weight=weight.ctypes.data, outputs=outputs, inputs=inputs, precision=0)
        best, spent = np.inf, 0.0
        while spent < 0.15:
            start = time.process_time()
            library.prefrank_multiply(ctypes.byref(layer), x.ctypes.data, inputs, rows, out.ctypes.data, outputs)
            taken = time.process_time() - start
            best, spent = min(best, taken), spent + taken
        rates[f"{rows} x {inputs} x {outputs}"] = 2e-9 * rows * inputs * outputs / best
    return rates


def export(folder: Path, rows: Rows) -> None:
    """Write the folder's ONNX file once: torch's own exporter, any batch and any length; or the reason it cannot be."""
    path = folder / "onnx/model.onnx"
    reason = path.with_suffix(".reason")
    path.parent.mkdir(exist_ok=True)
    if path.exists() or reason.exists():
        return
    try:
        export_onnx(folder, path, rows)
    except Exception as error:  # whatever an exporter raises is what the benchmark reports
        import traceback

        traceback.print_exc()
        reason.write_text(one_line(error), encoding="utf-8")
        path.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=[*VARIANTS, "export"], required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--core", type=int, required=True)
    parser.add_argument("--rows", help="for `export`")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    warnings.filterwarnings("ignore")
    if options.variant == "export":
        export(options.folder, Rows.read(options.rows))
        return
    session = Session(VARIANTS[options.variant], options.folder)

    def respond(request: dict[str, Any]) -> dict[str, Any]:
        if "shapes" in request:
            one_thread()
            torch_rates, own = matrix_rates(request["shapes"]), native_rates(request["shapes"])
            return {"rates": {"torch": torch_rates, "kernels": own}}
        return session.answer(request)

    serve(respond)


if __name__ == "__main__":
    main()
