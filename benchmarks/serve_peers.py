"""The peers' servers, each as people write it, in an environment of their own (no prefrank here).

    python serve_peers.py --server naive --folder MODEL --port 8100 --core 1

`naive` is transformers behind FastAPI: one call of the model for each request, the rows of a request padded together.
`openrlhf` is a remote reward server of the kind that OpenRLHF's clients call: the model runs inside the `async def`
that takes the request. LitServe's is in `serve_litserve.py`. All run the same forward pass: transformers' own, in
float32 on one thread, of one padded batch. A request is {"rows": [[prompt, reply], ...]} of an encoder, {"rows":
[text, ...]} of a decoder, whose chat template has been applied; OpenRLHF's has its own form.
"""

import argparse
import os
from pathlib import Path
from typing import Any

SHUTDOWN_S = 2
PADDING_ID = 0
"""Of decoders: a token that ends no row. Their own padding is their end of turn, and transformers would take the last
token before it for the row's end."""


class Scorer:
    """A sequence classifier of one output, and its tokenizer.

    Args:
        longest: tokens at which rows are cut.
        most: rows of one padded batch.
    """

    def __init__(self, folder: Path, longest: int, most: int) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        torch.set_num_threads(1)
        self.torch, self.longest, self.most = torch, longest, most
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
        self.decoder = self.model.config.model_type not in ("bert", "deberta-v2")
        if self.decoder:
            self.model.config.pad_token_id = PADDING_ID
            self.tokenizer.pad_token = self.tokenizer.convert_ids_to_tokens(PADDING_ID)
            self.tokenizer.padding_side = "right"

    def __call__(self, rows: list[Any]) -> list[float]:
        scores: list[float] = []
        for start in range(0, len(rows), self.most):
            some = rows[start : start + self.most]
            texts = [some] if self.decoder else [[prompt for prompt, _ in some], [reply for _, reply in some]]
            batch = self.tokenizer(
                *texts, padding=True, truncation=True, max_length=self.longest, return_tensors="pt",
                add_special_tokens=not self.decoder,
            )  # fmt: skip
            with self.torch.inference_mode():
                scores += self.model(**batch).logits[:, 0].tolist()
        return scores


def rows_of(data: dict[str, Any], decoder: bool) -> list[Any]:
    """The rows of OpenRLHF's payload: its prompts say where a query's reply begins."""
    queries, prompts = data["query"], data.get("prompts") or [""] * len(data["query"])
    if decoder:
        return list(queries)
    return [(prompt, query.removeprefix(prompt)) for query, prompt in zip(queries, prompts, strict=True)]


def run_naive(scorer: Scorer, port: int) -> None:
    from fastapi import FastAPI
    from pydantic import BaseModel

    class Body(BaseModel):
        rows: list[Any]

    app = FastAPI()

    @app.post("/score")
    def score(body: Body) -> dict[str, list[float]]:
        return {"scores": scorer(body.rows)}

    _uvicorn(app, port)


def run_openrlhf(scorer: Scorer, port: int) -> None:
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse

    app = FastAPI()

    @app.post("/get_reward")
    async def get_reward(request: Request) -> JSONResponse:
        rewards = scorer(rows_of(await request.json(), scorer.decoder))
        return JSONResponse({"rewards": rewards, "scores": rewards, "extra_logs": {"dummy_scores": rewards}})

    _uvicorn(app, port)


def _uvicorn(app: Any, port: int) -> None:
    import uvicorn

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False,
                timeout_graceful_shutdown=SHUTDOWN_S)  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=("naive", "openrlhf", "litserve"))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--core", type=int, required=True, help="that it is pinned to")
    parser.add_argument("--longest", type=int, default=512, help="tokens of a row")
    parser.add_argument("--rows", type=int, default=256, help="of one padded batch")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    os.sched_setaffinity(0, {options.core})
    scorer = Scorer(options.folder, options.longest, options.rows)
    {"naive": run_naive, "openrlhf": run_openrlhf}[options.server](scorer, options.port)


if __name__ == "__main__":
    main()
