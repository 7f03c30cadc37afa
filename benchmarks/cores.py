"""How much faster do two cores score than one, and does that change a score?

MiniLM with a random head scores real rows with one stream and with several, in turn, in one process; wall seconds,
medians of the rounds. The streams are threads that share the weights. Needs as many idle cores as streams.

    python benchmarks/cores.py
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from common import finish, show

from prefrank.data import load_comparisons
from prefrank.model import load_network, make_engine, run
from prefrank.model.hub import resolve_model
from prefrank.text import TextEncoder, plan_batches

REPOSITORY = Path(__file__).resolve().parents[1]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared/data/hh-rlhf", help="HH folder")
    parser.add_argument("--rows", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--streams", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.manual_seed(0)
    network = load_network(resolve_model("minilm"), new_head=True)
    encoder = TextEncoder.load(resolve_model("minilm"), max_length=512)
    comparisons = load_comparisons(options.data, split="test").comparisons
    pairs = [(comparison.prompt, reply) for comparison in comparisons for reply in comparison.replies][: options.rows]
    batches = plan_batches(encoder.encode_pairs(pairs), max_tokens=1024)
    engines = {n: make_engine(network, num_threads=n) for n in (1, options.streams)}
    seconds: dict[int, list[float]] = {n: [] for n in engines}
    scores = {n: run(engine, batches) for n, engine in engines.items()}
    for _ in range(options.rounds):
        for n, engine in engines.items():
            start = time.perf_counter()
            run(engine, batches)
            seconds[n].append(time.perf_counter() - start)
    gains = [single / several for single, several in zip(seconds[1], seconds[options.streams], strict=True)]
    gain, same = statistics.median(gains), torch.equal(scores[1], scores[options.streams])
    title = f"MiniLM, {len(pairs)} rows, {len(batches)} batches, kernels {engines[1].kernels}"
    rows = [[str(n), f"{statistics.median(times):.3f}"] for n, times in seconds.items()]
    show(title, ["streams", "wall s, median"], rows)
    record = {"x_one": round(gain, 3), "low": round(min(gains), 3), "high": round(max(gains), 3), "same_bits": same}
    finish({"benchmark": "cores", "streams": options.streams, "rounds": options.rounds, **record})


if __name__ == "__main__":
    main()
