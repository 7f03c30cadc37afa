"""What do the largest reward models need to load and score, and how soon is the smallest one there?

Makes a model of the 1.5B shape (DeBERTa-v2-xxlarge with its convolution) of random weights in a temporary folder, and
its int16 and int8 folders. Each is then loaded and scores a few real rows in a fresh process (memory_worker.py), whose
peak resident memory is the kernel's own count: pages of the mapped weights are in it, and so are Python and torch. The
files are in the system's cache, so seconds to load are those of a second start. Where little memory is free, the
kernel takes mapped pages back and counts too few: have twice the weights available. What 1,000 rows cost is
extrapolated from those few.

Also how long MiniLM takes from a folder to its first score, after imports, and `prefrank --help`: medians of five.

    python benchmarks/memory.py
    python benchmarks/memory.py --layers 4 --rows 2
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import finish, say, show

from prefrank import native
from prefrank.data import load_comparisons
from prefrank.model import atomic_folder, load_network
from prefrank.model.families.deberta import DebertaNetwork
from prefrank.model.hub import resolve_model
from prefrank.model.save import write_checkpoint
from prefrank.model.weights import write_tensors
from prefrank.text import TextEncoder

REPOSITORY = Path(__file__).resolve().parents[1]
WORKER = Path(__file__).with_name("memory_worker.py")
XXLARGE = {
    "model_type": "deberta-v2", "vocab_size": 128_100, "hidden_size": 1536, "num_attention_heads": 24,
    "intermediate_size": 6144, "hidden_act": "gelu", "conv_kernel_size": 3, "conv_act": "gelu", "layer_norm_eps": 1e-7,
    "max_position_embeddings": 512, "max_relative_positions": -1, "position_buckets": 256, "relative_attention": True,
    "pos_att_type": "p2c|c2p", "share_att_key": True, "norm_rel_ebd": "layer_norm", "position_biased_input": False,
    "type_vocab_size": 0, "pooler_hidden_act": "gelu",
}  # fmt: skip
SHARD_BYTES = 10**9
REPEATS = 5


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--rows", type=int, default=8, help="rows to score")
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared/data/hh-rlhf", help="HH folder")
    parser.add_argument("--scratch", type=Path, help="where the models are made, 16 GB for all layers")
    return parser.parse_args()


@dataclass(frozen=True, slots=True)
class Way:
    """One way to load and score: `stored` is the folder whose weights count."""

    name: str
    folder: str
    stored: str
    precision: str
    kernels: str


def ways() -> list[Way]:
    torch_alone = [Way("float32, torch", "float32", "float32", "float32", "torch")]
    if not native.available():
        say("no native kernels were built: only torch is measured")
        return torch_alone
    best = native.available()[0]
    return [
        *torch_alone,
        Way("float32, native", "float32", "float32", "float32", best),
        Way("int16 folder, native", "int16", "int16", "int16", best),
        Way("float32 folder as int16", "float32", "int16", "int16", best),
        Way("int8 folder, native", "int8", "int8", "int8", best),
    ]


def make_float(folder: Path, layers: int) -> int:
    """A folder of random weights, shard by shard; returns the number of weights."""
    config = {**XXLARGE, "num_hidden_layers": layers}
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in DebertaNetwork(config).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    places: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    for name, shape in shapes.items():
        normed = "LayerNorm.weight" in name
        shard[name] = torch.ones(shape) if normed else torch.empty(shape).normal_(0.0, 0.02, generator=generator)
        if sum(tensor.nbytes for tensor in shard.values()) > SHARD_BYTES or name == list(shapes)[-1]:
            file = f"model-{len(set(places.values())):05}.safetensors"
            write_tensors(folder / file, shard)
            places |= dict.fromkeys(shard, file)
            shard = {}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (folder / "config.json").write_text(json.dumps(config))
    TextEncoder.load(resolve_model("minilm")).save(folder)  # any tokenizer will do, for real lengths
    return sum(shape.numel() for shape in shapes.values())


def make_minilm(folder: Path) -> None:
    """MiniLM with a new head."""
    source = resolve_model("minilm")
    with atomic_folder(folder) as made:
        write_checkpoint(made, load_network(source, new_head=True), TextEncoder.load(source), None)


def in_a_fresh_process(task: str, *values: object) -> dict[str, Any]:
    command = [sys.executable, str(WORKER), task, *map(str, values)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def help_seconds() -> float:
    start = time.perf_counter()
    subprocess.run([str(Path(sys.executable).with_name("prefrank")), "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def write_pairs(path: Path, data: Path, num_rows: int) -> None:
    """Replies from the first thousand test comparisons, evenly spaced; the last user turn is the prompt."""
    comparisons = load_comparisons(data, split="test", limit=1000).comparisons
    chosen = [comparisons[row] for row in np.linspace(0, len(comparisons) - 1, num_rows).round().astype(int)]
    pairs = [("\n\n".join(turn.text for turn in c.prompt), c.replies[0]) for c in chosen]
    path.write_text(json.dumps(pairs))


def available_bytes() -> int:
    """What the kernel could give to a new process."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def weights_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def large(options: argparse.Namespace, folder: Path) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
    """Weights, one record for each way, and what quantizing took."""
    say(f"making the model of {options.layers} layers in {folder}; {available_bytes() / 1e9:.1f} GB are available")
    (folder / "float32").mkdir()
    weights = make_float(folder / "float32", options.layers)
    write_pairs(folder / "pairs.json", options.data, options.rows)
    chosen, quantising, results = ways(), {}, []
    for precision in sorted({way.stored for way in chosen} - {"float32"}):
        say(f"quantising to {precision}")
        quantising[precision] = in_a_fresh_process("quantise", folder / "float32", folder / precision, precision)
    for way in chosen:
        say(f"scoring {options.rows} rows: {way.name}")
        result = in_a_fresh_process("measure", folder / way.folder, way.precision, way.kernels, folder / "pairs.json")
        stored = weights_bytes(folder / way.stored)
        result |= {
            "name": way.name,
            "kernels": way.kernels,
            "weights_bytes": stored,
            "loaded_ratio": result["loaded_bytes"] / stored,
            "peak_ratio": result["peak_bytes"] / stored,
            "cpu_s_per_1000_rows": 1000 * result["cpu_s"] / result["rows"],
        }
        results.append(result)
    return weights, results, quantising


def tables(options: argparse.Namespace, weights: int, results: Sequence[dict[str, Any]]) -> None:
    gigabytes = "{:.2f}".format
    rows = [
        [
            result["name"],
            gigabytes(result["weights_bytes"] / 1e9),
            f"{result['load_s']:.1f} ({result['load_cpu_s']:.1f})",
            f"{gigabytes(result['loaded_bytes'] / 1e9)} ({result['loaded_ratio']:.3f})",
            f"{gigabytes(result['peak_bytes'] / 1e9)} ({result['peak_ratio']:.3f})",
            f"{result['cpu_s']:.1f}",
            f"{result['cpu_s_per_1000_rows']:,.0f}",
        ]
        for result in results
    ]
    title = (
        f"{weights / 1e9:.2f}e9 weights in {options.layers} layers; {results[0]['rows']} rows of HH,"
        f" {results[0]['tokens']:,} tokens; {torch.get_num_threads()} threads. Peak memory, and times the weights"
    )
    columns = ["", "weights\nGB", "load, seconds\n(of CPU)", "peak after\nloading, GB", "peak after\nscoring, GB"]
    show(title, [*columns, "CPU seconds\nfor the rows", "extrapolated:\nfor 1,000 rows"], rows)


def main() -> None:
    options = arguments()
    available = available_bytes()
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        folder = Path(name)
        weights, results, quantising = large(options, folder)
        make_minilm(folder / "minilm")
        firsts = [in_a_fresh_process("first_score", folder / "minilm") for _ in range(REPEATS)]
    helps = [help_seconds() for _ in range(REPEATS)]
    minilm_s = statistics.median(first["seconds"] for first in firsts)
    tables(options, weights, results)
    small = [
        ["MiniLM, folder to first score", f"{minilm_s:.2f}"],
        ["prefrank --help", f"{statistics.median(helps):.2f}"],
    ]
    show(f"Median of {REPEATS}, after imports for the first", ["", "seconds"], small)
    finish(
        {
            "benchmark": "memory",
            "layers": options.layers,
            "weights": weights,
            "threads": torch.get_num_threads(),
            "available_bytes": available,
            "largest_peak_ratio": max(result["peak_ratio"] for result in results),
            "results": results,
            "quantising": quantising,
            "minilm_first_score_s": minilm_s,
            "help_s": statistics.median(helps),
        }
    )


if __name__ == "__main__":
    main()
