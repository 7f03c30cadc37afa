"""One variant of the scoring benchmark in a process of its own, answering requests from standard input.

    python score_worker.py --variant onnxruntime --folder MODEL --core 1

A request is a line of JSON, `{"rows": "rows.npz", "choice": "", "budget": 512}`; the answer is a line with CPU and wall
seconds of one pass over the rows, its scores and the most memory the process has held. A pass is everything from token
ids in arrival order to scores in arrival order: sorting, padding or packing, the model, putting back.

Each variant runs where its library is installed, so this file imports numpy alone; the rest is imported by the function
that needs it, and prefrank only by its own variants. What libraries print goes to standard error.
"""

import argparse
import asyncio
import ctypes
import gc
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

CARD_ROWS = 16
TOKEN_BUDGETS = (128, 256, 512, 1024, 2048)
"""Tokens of a padded batch that every variant with a choice is tried at, ours included."""
ROW_BUDGETS = (2, 8, 32)
"""Rows of a batch, where a library counts rows; 32 is what both such libraries do unasked."""
PACKAGES = (
    "prefrank", "torch", "transformers", "onnxruntime", "openvino", "nncf", "disentangled-flash",
    "sentence-transformers", "infinity-emb", "zentorch", "numpy",
)  # fmt: skip


@dataclass(eq=False)
class Rows:
    """Rows of token ids in arrival order: ids [T], starts [N+1], reply_starts [N]."""

    ids: np.ndarray
    starts: np.ndarray
    reply_starts: np.ndarray

    @classmethod
    def read(cls, path: str) -> "Rows":
        with np.load(path) as arrays:
            return cls(arrays["ids"], arrays["starts"], arrays["reply_starts"])

    def __len__(self) -> int:
        return len(self.reply_starts)

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)

    @cached_property
    def texts(self) -> list[tuple[str, str]]:
        """(prompt, reply) as the words that the model folder's tokenizer turns into these very ids."""
        spans = zip(self.starts[:-1], self.starts[1:], self.reply_starts, strict=True)
        return [(words(self.ids[a + 1 : a + reply - 1]), words(self.ids[a + reply : b - 1])) for a, b, reply in spans]


def words(ids: np.ndarray) -> str:
    return " ".join(f"<{i}>" for i in ids)


Scorer = Callable[[Rows, int], np.ndarray]
"""(rows, tokens or rows of a batch) -> [N] float32 scores in arrival order."""
Forward = Callable[[dict[str, np.ndarray]], np.ndarray]
"""input_ids, attention_mask and, where the model has them, token_type_ids [n, L] -> [n] scores."""


def arrival_batches(count: int, rows: int) -> Iterator[np.ndarray]:
    """The card's batches: 16 rows as they come."""
    for start in range(0, count, rows):
        yield np.arange(start, min(start + rows, count))


def sorted_batches(lengths: np.ndarray, budget: int) -> Iterator[np.ndarray]:
    """Rows sorted by length in batches of at most `budget` tokens, padding included; a longer row stands alone."""
    group: list[int] = []
    for n in np.argsort(lengths, kind="stable"):
        if group and (len(group) + 1) * lengths[n] > budget:
            yield np.array(group)
            group = []
        group.append(int(n))
    if group:
        yield np.array(group)


def pad(rows: Rows, chosen: np.ndarray, typed: bool, padding: int = 0) -> dict[str, np.ndarray]:
    """Rows as rectangles of int64, as long as the longest of them, padded on the right."""
    shape = (len(chosen), int(rows.lengths[chosen].max()))
    ids, mask, types = np.full(shape, padding, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for place, n in enumerate(chosen):
        length = rows.lengths[n]
        ids[place, :length] = rows.ids[rows.starts[n] : rows.starts[n + 1]]
        mask[place, :length] = 1
        types[place, rows.reply_starts[n] : length] = 1
    return {"input_ids": ids, "attention_mask": mask} | ({"token_type_ids": types} if typed else {})


def padded(forward: Forward, folder: Path, *, arrival: bool = False) -> Scorer:
    """A scorer that pads batches for `forward`: sorted under a token budget, or some rows at a time as they come."""
    typed, padding = is_typed(folder), config_of(folder).get("pad_token_id", 0)

    def score(rows: Rows, budget: int) -> np.ndarray:
        scores = np.empty(len(rows), np.float32)
        batches = arrival_batches(len(rows), budget) if arrival else sorted_batches(rows.lengths, budget)
        for chosen in batches:
            scores[chosen] = forward(pad(rows, chosen, typed, padding))
        return scores

    return score


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def is_typed(folder: Path) -> bool:
    return config_of(folder).get("type_vocab_size", 0) > 1


def one_thread() -> Any:
    import torch

    torch.set_num_threads(1)
    return torch


def transformers_model(folder: Path, attention: str | None = None, dtype: str = "float32") -> Any:
    torch = one_thread()
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(
        folder, attn_implementation=attention, dtype=getattr(torch, dtype)
    ).eval()


def torch_forward(model: Any) -> Forward:
    """`model`, or what a compiler made of it, called without gradient."""
    import torch

    def forward(inputs: dict[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            return model(**{name: torch.from_numpy(x) for name, x in inputs.items()}).logits[:, 0].float().numpy()

    return forward


def card(folder: Path, choice: str) -> Scorer:
    return padded(torch_forward(transformers_model(folder, "eager")), folder, arrival=True)


def default(folder: Path, choice: str) -> Scorer:
    return padded(torch_forward(transformers_model(folder)), folder, arrival=True)


def transformers(folder: Path, choice: str) -> Scorer:
    return padded(torch_forward(transformers_model(folder)), folder)


def torch_bfloat16(folder: Path, choice: str) -> Scorer:
    return padded(torch_forward(transformers_model(folder, dtype="bfloat16")), folder)


def torch_int8(folder: Path, choice: str) -> Scorer:
    model = transformers_model(folder)
    import torch

    return padded(
        torch_forward(torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)), folder
    )


def torch_compile(folder: Path, choice: str) -> Scorer:
    return compiled(folder, "inductor")


def zentorch(folder: Path, choice: str) -> Scorer:
    one_thread()
    import zentorch as plugin

    assert plugin  # imported for its compiler backend
    return compiled(folder, "zentorch")


def compiled(folder: Path, backend: str) -> Scorer:
    """One dynamic graph with frozen weights; the first batches compile, before anything is timed."""
    model = transformers_model(folder).requires_grad_(False)
    import torch
    import torch._inductor.config

    torch._inductor.config.freezing = True
    return padded(torch_forward(torch.compile(model, backend=backend, dynamic=True)), folder)


def onnxruntime(folder: Path, choice: str) -> Scorer:
    return padded(onnx_forward(folder / "onnx" / f"{choice}.onnx"), folder)


def onnx_forward(path: Path) -> Forward:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)[0][:, 0]


def openvino(folder: Path, choice: str) -> Scorer:
    return padded(openvino_forward(folder / "onnx/model.onnx", "f32"), folder)


def openvino_bfloat16(folder: Path, choice: str) -> Scorer:
    return padded(openvino_forward(folder / "onnx/model.onnx", "bf16"), folder)


def openvino_int8(folder: Path, choice: str) -> Scorer:
    return padded(openvino_forward(folder / f"onnx/openvino-{choice}.xml", "f32"), folder)


def openvino_forward(path: Path, precision: str) -> Forward:
    """Without the hint OpenVINO takes bfloat16 wherever the processor has it."""
    import openvino as ov

    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = ov.Core().compile_model(path, "CPU", options)
    return lambda inputs: model(inputs)[0][:, 0].copy()


def disentangled_flash(folder: Path, choice: str) -> Scorer:
    """Its packed inference: no padding, no mask."""
    model = transformers_model(folder)
    import torch
    from disentangled_flash import optimize_deberta

    optimize_deberta(model.deberta, backend="torch")

    def score(rows: Rows, budget: int) -> np.ndarray:
        scores = np.empty(len(rows), np.float32)
        for chosen in sorted_batches(rows.lengths, budget):
            with torch.inference_mode():
                ids = torch.from_numpy(np.concatenate([rows.ids[rows.starts[n] : rows.starts[n + 1]] for n in chosen]))
                bounds = torch.from_numpy(np.cumsum([0, *rows.lengths[chosen]]).astype(np.int32))
                embedded = model.deberta.embeddings(input_ids=ids[None])[0]
                hidden = model.deberta.encoder.forward_packed(
                    embedded, bounds, int(rows.lengths[chosen].max()), output_hidden_states=False
                ).last_hidden_state
                firsts = hidden[bounds[:-1].long()][:, None]
                scores[chosen] = model.classifier(model.pooler(firsts))[:, 0].numpy()
        return scores

    return score


def cross_encoder(folder: Path, choice: str) -> Scorer:
    torch = one_thread()
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), device="cpu", activation_fn=torch.nn.Identity())

    def score(rows: Rows, budget: int) -> np.ndarray:
        return model.predict(rows.texts, batch_size=budget, show_progress_bar=False)

    return score


def infinity(folder: Path, choice: str) -> Scorer:
    """Every row is a rerank request of its own, all of them waiting at once, as its server would see them."""
    one_thread()
    from infinity_emb import AsyncEmbeddingEngine, EngineArgs

    arguments = EngineArgs(
        model_name_or_path=str(folder), engine="torch", device="cpu", dtype="float32", batch_size=int(choice),
        bettertransformer=False, model_warmup=False,
    )  # fmt: skip
    loop = asyncio.new_event_loop()
    engine = AsyncEmbeddingEngine.from_args(arguments)
    loop.run_until_complete(engine.astart())

    async def all_rows(rows: Rows) -> list[float]:
        requests = (engine.rerank(query=prompt, docs=[reply], raw_scores=True) for prompt, reply in rows.texts)
        return [results[0].relevance_score for results, _ in await asyncio.gather(*requests)]

    return lambda rows, budget: np.array(loop.run_until_complete(all_rows(rows)), np.float32)


def ours_autograd(folder: Path, choice: str) -> Scorer:
    one_thread()
    from prefrank.model import load_network, score_batches
    from prefrank.text import plan_batches

    network = load_network(folder)
    return lambda rows, budget: score_batches(network, plan_batches(own_rows(rows), max_tokens=budget)).numpy()


def ours(precision: str, kernels: str | None) -> Callable[[Path, str], Scorer]:
    def build(folder: Path, choice: str) -> Scorer:
        one_thread()
        from prefrank.model import load_for_scoring, make_engine, run
        from prefrank.text import plan_batches

        engine = make_engine(load_for_scoring(folder, precision=precision), kernels=kernels, num_threads=1)
        return lambda rows, budget: run(engine, plan_batches(own_rows(rows), max_tokens=budget)).numpy()

    return build


def own_rows(rows: Rows) -> list[Any]:
    from prefrank.types import Row, reply_types

    spans = zip(rows.starts[:-1], rows.starts[1:], rows.reply_starts, strict=True)
    return [Row(rows.ids[a:b], reply_types(b - a, reply), int(reply), 0, 0) for a, b, reply in spans]


def nothing(folder: Path, choice: str) -> Scorer:
    """For the process that only measures matrix products."""
    one_thread()
    return lambda rows, budget: np.zeros(len(rows), np.float32)


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to score rows.

    Args:
        environment: "own", or a file of `score-requirements`.
        build: from a model folder and a choice to a scorer.
        settings: (choice, budget) to try; the fastest on a part of the rows is kept.
        families: the model types it runs.
    """

    label: str
    environment: str
    build: Callable[[Path, str], Scorer]
    settings: tuple[tuple[str, int], ...] = tuple(("", tokens) for tokens in TOKEN_BUDGETS)
    families: tuple[str, ...] = ("bert", "deberta-v2")


def choices(*names: str) -> tuple[tuple[str, int], ...]:
    return tuple((name, tokens) for name in names for tokens in TOKEN_BUDGETS)


AS_IT_COMES = (("", CARD_ROWS),)
VARIANTS = {
    "card": Variant("the card's function", "peers", card, AS_IT_COMES),
    "default": Variant("transformers' default", "peers", default, AS_IT_COMES, ("bert",)),
    "transformers": Variant("transformers, sorted", "peers", transformers),
    "torch_compile": Variant("torch.compile", "peers", torch_compile),
    "onnxruntime": Variant("ONNX Runtime", "peers", onnxruntime, choices("model", "fused")),
    "openvino": Variant("OpenVINO", "peers", openvino),
    "disentangled_flash": Variant("disentangled-flash", "peers", disentangled_flash, families=("deberta-v2",)),
    "zentorch": Variant("zentorch", "zentorch", zentorch),
    "cross_encoder": Variant(
        "sentence-transformers", "peers", cross_encoder, tuple(("", rows) for rows in ROW_BUDGETS)
    ),
    "infinity": Variant("Infinity", "infinity", infinity, tuple((str(rows), rows) for rows in ROW_BUDGETS)),
    "torch_bfloat16": Variant("transformers bfloat16", "peers", torch_bfloat16),
    "torch_int8": Variant("torch dynamic int8", "peers", torch_int8),
    "onnxruntime_int8": Variant("ONNX Runtime int8", "peers", onnxruntime, choices("int8")),
    "onnxruntime_blocks": Variant("ONNX Runtime int8 blocks", "peers", onnxruntime, choices("blocks")),
    "openvino_bfloat16": Variant("OpenVINO bfloat16", "peers", openvino_bfloat16),
    "openvino_int8": Variant("OpenVINO int8", "peers", openvino_int8, choices("int8")),
    "openvino_weights": Variant("OpenVINO int8 weights", "peers", openvino_int8, choices("weights")),
    "ours_autograd": Variant("ours, autograd path", "own", ours_autograd),
    "ours_torch": Variant("ours, pure PyTorch", "own", ours("float32", "torch")),
    "ours_float32": Variant("ours, float32", "own", ours("float32", None)),
    "ours_int16": Variant("ours, int16", "own", ours("int16", None)),
    "ours_int8": Variant("ours, int8", "own", ours("int8", None)),
    "rate": Variant("matrix products", "own", nothing, ()),
}


ENCODER_SHAPES = (
    (1024, 768, 768), (1024, 768, 3072), (1024, 3072, 768), (256, 768, 768), (1024, 384, 384), (1024, 1536, 1536),
    (2048, 2048, 2048),
)  # fmt: skip


def matrix_rates(shapes: Sequence[Sequence[int]] = ENCODER_SHAPES, seconds: float = 0.15) -> dict[str, float]:
    """GFLOP/s of float32 matrix products of (rows, inputs, outputs), each the best of many."""
    import torch

    rates = {}
    for rows, inputs, outputs in shapes:
        a, b, out = torch.randn(rows, inputs), torch.randn(inputs, outputs), torch.empty(rows, outputs)
        best, spent = np.inf, 0.0
        while spent < seconds:
            start = time.process_time()
            torch.mm(a, b, out=out)
            taken = time.process_time() - start
            best, spent = min(best, taken), spent + taken
        rates[f"{rows} x {inputs} x {outputs}"] = 2e-9 * rows * inputs * outputs / best
    return rates


def export(folder: Path, calibration: Rows) -> None:
    """Write the folder's ONNX and OpenVINO files, each once: torch's own exporter, any batch and any length."""
    target = folder / "onnx"
    target.mkdir(exist_ok=True)
    if not (target / "model.onnx").exists():
        export_onnx(folder, target / "model.onnx", calibration)
    steps = {"fused.onnx": fuse, "int8.onnx": to_int8, "blocks.onnx": to_blocks}
    for name, step in steps.items():
        attempt(target / name, lambda path, step=step: step(folder, path))
    attempt(target / "openvino-weights.xml", lambda path: compress(folder, path))
    attempt(target / "openvino-int8.xml", lambda path: calibrate(folder, path, calibration))


def attempt(path: Path, step: Callable[[Path], None]) -> None:
    """A file that cannot be made leaves its reason beside where it would be."""
    reason = path.with_suffix(".reason")
    if path.exists() or reason.exists():
        return
    try:
        step(path)
    except Exception as error:  # whatever a converter raises is what the benchmark reports
        reason.write_text(one_line(error), encoding="utf-8")
        path.unlink(missing_ok=True)


def export_onnx(folder: Path, path: Path, rows: Rows) -> None:
    model = transformers_model(folder)
    import torch

    config = config_of(folder)
    example = pad(rows, np.arange(2), is_typed(folder), config.get("pad_token_id", 0))
    names = list(example)

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Any) -> Any:
            return self.model(**dict(zip(names, inputs, strict=True))).logits

    dynamic = {
        0: torch.export.Dim("rows", min=1, max=4096),
        1: torch.export.Dim("tokens", min=2, max=config["max_position_embeddings"]),
    }
    with torch.no_grad():
        program = torch.onnx.export(
            Logits().eval(), tuple(map(torch.from_numpy, example.values())), dynamo=True, input_names=names,
            output_names=["logits"], dynamic_shapes=((dynamic,) * len(names),),
        )  # fmt: skip
    program.save(path, external_data=True)


def fuse(folder: Path, path: Path) -> None:
    """ONNX Runtime's own graph fusions for transformers, above what a session does by itself."""
    from onnxruntime.transformers import optimizer

    config = config_of(folder)
    fused = optimizer.optimize_model(
        str(path.with_name("model.onnx")), model_type="bert", num_heads=config["num_attention_heads"],
        hidden_size=config["hidden_size"], opt_level=0,
    )  # fmt: skip
    fused.save_model_to_file(str(path), use_external_data_format=True)


def to_int8(folder: Path, path: Path) -> None:
    """Dynamic, one scale per output; the whole range, or 7 bits where 8 would overflow (no VNNI)."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    vnni = "vnni" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    quantize_dynamic(
        path.with_name("model.onnx"), path, weight_type=QuantType.QInt8, per_channel=True, reduce_range=not vnni,
        op_types_to_quantize=["MatMul", "Gemm"], use_external_data_format=True,
        extra_options={"MatMulConstBOnly": True},
    )  # fmt: skip


def to_blocks(folder: Path, path: Path) -> None:
    """8-bit weights with a scale for 128 of them, and integer products."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(
        str(path.with_name("model.onnx")), bits=8, block_size=128, is_symmetric=True, accuracy_level=4
    )
    quantizer.process()
    quantizer.model.save_model_to_file(str(path), True)


def compress(folder: Path, path: Path) -> None:
    """8-bit weights; OpenVINO then quantizes activations as it runs."""
    import nncf
    import openvino as ov

    model = ov.Core().read_model(path.with_name("model.onnx"))
    ov.save_model(nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM), path, compress_to_fp16=False)


def calibrate(folder: Path, path: Path, rows: Rows) -> None:
    """Post-training quantization, calibrated on other rows of the same data."""
    import nncf
    import openvino as ov

    typed = is_typed(folder)
    data = nncf.Dataset([pad(rows, np.array([n]), typed) for n in range(len(rows))])
    model = ov.Core().read_model(path.with_name("model.onnx"))
    quantised = nncf.quantize(model, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(rows))
    ov.save_model(quantised, path, compress_to_fp16=False)


def one_line(error: BaseException) -> str:
    """The kind and the first sentence of an error."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:240]


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    installed = {}
    for name in packages:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def peak_megabytes() -> float:
    """The most memory this process has held since `forget_peak`."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


def forget_peak() -> None:
    """Give freed memory back to the system, then start the kernel's record of the peak anew."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


class Session:
    """Keeps the scorer of one choice at a time, and the row files it has read."""

    def __init__(self, variant: Variant, folder: Path) -> None:
        self.variant, self.folder = variant, folder
        self.choice: str | None = None
        self.scorer: Scorer | None = None
        self.rows: dict[str, Rows] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if request.get("rates"):
            return {"rates": matrix_rates()}
        if request.get("forget_peak"):
            forget_peak()
            return {}
        scorer, rows = self._scorer(request["choice"]), self._rows(request["rows"])
        cpu, wall = time.process_time(), time.perf_counter()
        scores = scorer(rows, request["budget"])
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        peak = peak_megabytes()
        return {"cpu_s": cpu, "wall_s": wall, "peak_mb": peak, "scores": np.asarray(scores, np.float64).tolist()}

    def _scorer(self, choice: str) -> Scorer:
        if self.scorer is None or choice != self.choice:
            self.scorer = None
            gc.collect()
            self.scorer, self.choice = self.variant.build(self.folder, choice), choice
        return self.scorer

    def _rows(self, path: str) -> Rows:
        if path not in self.rows:
            self.rows[path] = Rows.read(path)
        return self.rows[path]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=[*VARIANTS, "export"], required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--core", type=int, required=True)
    parser.add_argument("--calibration", help="rows for `export`")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    warnings.filterwarnings("ignore")
    if options.variant == "export":
        export(options.folder, Rows.read(options.calibration))
        return
    serve(Session(VARIANTS[options.variant], options.folder).answer)


def serve(respond: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer lines of JSON until there are no more, the versions first; what is printed goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answer: dict[str, Any] = {"versions": versions()}
    while True:
        print(json.dumps(answer), file=answers, flush=True)
        request = sys.stdin.readline()
        if not request:
            return
        try:
            answer = respond(json.loads(request))
        except Exception as error:  # a variant that fails is a line of the report, not the end of the run
            answer = {"error": one_line(error)}


if __name__ == "__main__":
    main()
