"""Does a prompt with hundreds of replies train in the memory of four?

One step over one comparison with K replies of like length, in a fresh process for every K: scores, gradient, AdamW. The
micro-batch holds four replies (`max_tokens`), so that K = 4 is one forward and one backward pass and more replies are
scored twice. Peak resident memory is the kernel's count; what Python, torch and the model took before the step is shown
beside it. Two variants keep more graphs: as many as fit into 4 GB, and all of them, in a single micro-batch.

    python benchmarks/group_memory.py
    python benchmarks/group_memory.py --replies 4 64
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import finish, say, show

TOKENS = 160
"""Of every row."""
SHAPE = {
    "model_type": "deberta-v2", "vocab_size": 30_522, "hidden_size": 768, "num_attention_heads": 12,
    "num_hidden_layers": 6, "intermediate_size": 3072, "hidden_act": "gelu", "layer_norm_eps": 1e-7,
    "max_position_embeddings": 512, "max_relative_positions": -1, "position_buckets": 256, "relative_attention": True,
    "pos_att_type": "p2c|c2p", "share_att_key": True, "norm_rel_ebd": "layer_norm", "position_biased_input": False,
    "type_vocab_size": 0, "pooler_hidden_act": "gelu",
}  # fmt: skip
"""Half of DeBERTa-v3-base, with a smaller vocabulary."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replies", type=int, nargs="+", default=[4, 16, 64, 256])
    parser.add_argument("--step", type=json.loads, help=argparse.SUPPRESS)  # a process of its own
    given = parser.parse_args()
    if given.step:
        print(json.dumps(step(**given.step)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder))
        steps = []
        for replies in given.replies:
            steps.append(measure(folder, replies, max_tokens=4 * TOKENS, room=0))
        most = max(given.replies)
        steps.append(measure(folder, most, max_tokens=4 * TOKENS, room=4 * 10**9))
        steps.append(measure(folder, min(64, most), max_tokens=most * TOKENS, room=0))
    table = [
        [
            f"{cost['replies']}", cost["way"], f"{cost['before_mb']:,.0f}", f"{cost['peak_mb']:,.0f}",
            f"{cost['peak_mb'] / steps[0]['peak_mb']:.3f}", f"{cost['cpu_s']:.1f}",
            f"{cost['replies'] / cost['cpu_s']:.1f}",
        ]
        for cost in steps
    ]  # fmt: skip
    columns = ["replies", "micro-batches", "MB before", "peak MB", "x the first", "CPU s", "replies/CPU s"]
    show(f"One step over one prompt, rows of {TOKENS} tokens", columns, table)
    ratio = steps[len(given.replies) - 1]["peak_mb"] / steps[0]["peak_mb"]
    finish({"steps": steps, "largest_x_smallest": round(ratio, 3)})


def make_model(folder: Path) -> None:
    from prefrank.model.families.deberta import DebertaNetwork
    from prefrank.model.save import save_network

    torch.manual_seed(0)
    save_network(DebertaNetwork(SHAPE), folder)


def measure(folder: str, replies: int, *, max_tokens: int, room: int) -> dict[str, Any]:
    """One step in a process of its own."""
    task = {"folder": folder, "replies": replies, "max_tokens": max_tokens, "room": room}
    say(f"{replies} replies, micro-batches of {max_tokens} tokens, {room // 10**9} GB for more graphs")
    command = [sys.executable, __file__, "--step", json.dumps(task)]
    costs = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    way = f"{max_tokens // TOKENS} replies" + (f", {room // 10**9} GB of graphs" if room else "")
    return {"replies": replies, "way": way, **costs}


def step(folder: str, replies: int, max_tokens: int, room: int) -> dict[str, Any]:
    """Score, back-propagate and update once."""
    import resource

    from prefrank.model import load_network
    from prefrank.training.feed.examples import Examples
    from prefrank.training.loop.step import Graphs, accumulate_gradient
    from prefrank.training.losses.likelihoods import BradleyTerry
    from prefrank.training.losses.preference_loss import PreferenceLoss
    from prefrank.types import Preference, reply_types

    network = load_network(Path(folder), dropout=0.1).train()
    draw = np.random.default_rng(0)
    examples = Examples(
        ids=draw.integers(5, SHAPE["vocab_size"], replies * TOKENS).astype(np.int32),
        types=reply_types(np.full(replies, TOKENS), np.full(replies, 20)),
        reply_starts=np.full(replies, 20, np.int32),
        starts=np.arange(replies + 1, dtype=np.int64) * TOKENS,
        groups=np.array([0, replies]),
        preferences=(tuple(Preference(i, j) for i in range(replies) for j in range(i + 1, replies)),),
        weights=(1.0,),
        reply_characters=np.full(replies, 100, np.int32),
        places=np.zeros(1, np.int64),
        names=("made/0",),
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)
    before = peak_mb(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    start = time.process_time()
    graphs = Graphs(room, network.parameters())
    accumulate_gradient(
        network, examples, [0], PreferenceLoss(BradleyTerry()), divide_by=1, max_tokens=max_tokens, graphs=graphs,
        sharing=network.sharing,
    )  # fmt: skip
    seconds = time.process_time() - start
    optimizer.step()
    peak = peak_mb(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return {"before_mb": before, "peak_mb": peak, "cpu_s": seconds}


def peak_mb(kilobytes: int) -> float:
    return kilobytes / 1024


if __name__ == "__main__":
    main()
