"""LitServe in front of the peers' forward pass, in an environment of its own: up to eight requests a call of the model.

    python serve_litserve.py --folder MODEL --port 8100 --core 1

It waits up to ten milliseconds for a batch to fill. Its processes start this file again, so the class is here.
"""

import os
from typing import Any

import litserve
from serve_peers import Scorer, arguments

REQUESTS, WAIT_S = 8, 0.01


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        options = arguments()
        os.sched_setaffinity(0, {options.core})
        self.scorer = Scorer(options.folder, options.longest, options.rows)

    def decode_request(self, request: dict[str, Any]) -> list[Any]:
        return request["rows"]

    def batch(self, inputs: list[list[Any]]) -> list[list[Any]]:
        return inputs

    def predict(self, x: list[list[Any]]) -> list[list[float]]:
        scores = iter(self.scorer([row for rows in x for row in rows]))
        return [[next(scores) for _ in rows] for rows in x]

    def unbatch(self, output: list[list[float]]) -> list[list[float]]:
        return output

    def encode_response(self, output: list[float]) -> dict[str, list[float]]:
        return {"scores": output}


def main() -> None:
    options = arguments()
    os.sched_setaffinity(0, {options.core})
    api = Api(max_batch_size=REQUESTS, batch_timeout=WAIT_S)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=False)
    server.run(
        host="127.0.0.1", port=options.port, num_api_servers=1, log_level="error", generate_client_file=False,
        access_log=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
