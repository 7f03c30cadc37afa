"""Our server around a model whose engine answers at once: what is left is what the server itself takes.

    python serve_stub.py --folder MODEL --port 8100 --core 1

Texts are still read into tokens by the model's own tokenizer, queued, put into batches and answered.
"""

import argparse
import os
from pathlib import Path

import torch
import uvicorn
from torch import Tensor

from prefrank.scoring import RewardModel
from prefrank.serving.app import make_app
from prefrank.serving.hosted import Hosted, Models, host
from prefrank.serving.settings import ServeSettings
from prefrank.text.batches import Batch


class AtOnce:
    """An engine that computes nothing."""

    precision, kernels, streams = "float32", "none", 1

    def __call__(self, batch: Batch) -> Tensor:
        return torch.zeros(len(batch.rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--core", type=int, required=True, help="that it is pinned to")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    torch.set_num_threads(1)
    settings = ServeSettings(models={"stub": str(options.folder)}, port=options.port)

    def load(name: str) -> Hosted:
        model = RewardModel.load(options.folder, num_threads=1)
        model.engine = AtOnce()
        return host(name, model, settings)

    models = Models(["stub"], load)
    models.load_all()
    uvicorn.run(make_app(models, settings), host="127.0.0.1", port=options.port, log_level="error", access_log=False)


if __name__ == "__main__":
    main()
