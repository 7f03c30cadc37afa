"""What examples run, each in the folder of its files, and the valid files that they are broken from.

The worker's process has this module imported, so everything that the targets need is loaded when an example starts.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import peft
import pyarrow as pa
import torch
import transformers

import prefrank.cli
from prefrank import RewardModel, load_comparisons
from prefrank.data import describe, load_splits
from prefrank.evaluation import compare_runs, read_run
from prefrank.evaluation.protocols import SUITES, load_suite
from prefrank.reports import html, leaderboard_page
from prefrank.reports.leaderboard import leaderboard
from prefrank.scoring import checkpoint_info
from prefrank.scoring.quantise import quantise_folder
from prefrank.scoring.remote import ServerOptions, open_server
from prefrank.training import dry_run, load_recipe, train
from prefrank.training.recipe_file import load_sweep
from prefrank.types import as_prompt
from tests import tiny
from tests.evaluation.run_files import fake_run
from tests.fuzz.runner import run_command as run_command

DATA = [
    {"prompt": f"how do I bake {what}", "chosen": f"mix flour {n} water", "rejected": what}
    for n, what in enumerate(["bread", "dough", "salt", "yeast", "france", "a", "rise", "hour"])
]
JSONL = "".join(json.dumps(row) + "\n" for row in DATA).encode()
RECIPE = {
    "model_name": "model", "datasets": ["data.jsonl"], "learning_rate": 1e-3, "output_dir": "run", "max_length": 32,
    "per_device_train_batch_size": 4, "trackers": "none", "eval_steps": 1,
}  # fmt: skip
CALIBRATION = {
    "temperature": 1.5, "fitted_on": "mine", "data": "ab", "model": "cd", "pairs": 9, "prompts": 9,
    "log_loss": 0.6, "scaled_log_loss": 0.5, "prefrank": "0.1.0",
}  # fmt: skip
MAKING = (peft, transformers, prefrank.cli)  # loaded here rather than in every process


def make_bases(place: Path) -> dict[str, dict[str, bytes]]:
    """The valid folders by name, as files by their paths."""
    torch.manual_seed(0)
    plain = tiny.bert_folder(place / "plain")
    ours = RewardModel.load(plain, max_length=64).save(place / "ours")
    rows = place / "rows.jsonl"
    rows.write_bytes(JSONL)
    quantise_folder(ours, place / "quantised", "int16", data=str(rows), force=True)
    tiny.seed_folder(place / "deberta")
    tiny.decoder_folder(place / "decoder")
    _shard(plain, place / "sharded")
    _adapt(plain, place / "adapter")
    values = RECIPE | {"model_name": str(ours), "datasets": [str(rows)], "output_dir": str(place / "run")}
    (place / "recipe.yaml").write_text(json.dumps(values))
    train(load_recipe(place / "recipe.yaml"))
    names = ("plain", "ours", "quantised", "deberta", "decoder", "sharded", "adapter", "run")
    return {name: _tree(place / name) for name in names}


def _tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _shard(plain: Path, folder: Path) -> None:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(plain)
    model.save_pretrained(folder, max_shard_size="20KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((plain / name).read_bytes())


def _adapt(plain: Path, folder: Path) -> None:
    """As peft saves one; its base is `base`, beside it in an example."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(plain)
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"])
    peft.get_peft_model(model, config).save_pretrained(folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "base"}))


def make_run() -> dict[str, Any]:
    """A run file as a value."""
    return fake_run(items=16, suites=("helpful", "probes"))


def rank(folder: str) -> list[float]:
    """Load a model and score."""
    model = RewardModel.load(folder)
    return [one.score.value for one in model.rank("how do I bake", ["mix flour", "no " * 40])]


def rank_texts(folder: str, prompt: Any, replies: Any) -> list[float]:
    """Score texts with a model that is sound."""
    return [one.score.value for one in RewardModel.load(folder).rank(prompt, replies)]


def inform(folder: str) -> None:
    checkpoint_info(folder)


def read_data(source: str) -> int:
    """Read and describe comparisons."""
    loaded = load_comparisons(source)
    describe({"train": loaded})
    return len(loaded.comparisons)


def read_splits(source: str) -> None:
    describe(load_splits(source))


def use_runs(file: str) -> None:
    """Everything that reads run files."""
    run = read_run(Path(file))
    compare_runs({"": run}, SUITES)
    html.render_report(run)


def board(folder: str) -> None:
    leaderboard_page.leaderboard_html(leaderboard(Path(folder)))


def list_runs(folder: str) -> str:
    """What `prefrank runs` prints of a folder of runs."""
    return run_command("runs", folder)[1]


def read_recipe(recipe: str) -> None:
    load_recipe(recipe)


def read_sweep(grid: str) -> None:
    load_sweep(grid)


def foresee(recipe: str) -> None:
    dry_run(load_recipe(recipe))


def train_once(recipe: str) -> None:
    train(load_recipe(recipe))


def write_card() -> None:
    """A card of a model, of a run file where there is one."""
    found = ["--run", "run.json"] if Path("run.json").exists() else []
    asked = [word for name in ("name", "license", "language", "contact") for word in ("--fact", f"{name}=x")]
    run_command("card", "model", *found, *asked, *(("--facts", "facts.yaml") if Path("facts.yaml").exists() else ()))


ODD_CALLS = ("score", "rank", "score_pairs")


def call_model(folder: str, name: str, values: list[Any]) -> None:
    """One of `ODD_CALLS` with any values."""
    getattr(RewardModel.load(folder), name)(*values)


def use_suite(name: str, folder: str) -> int:
    return len(load_suite(name, folder).items)


def arrow_of(rows: list[dict[str, str]]) -> bytes:
    """An Arrow stream, as `datasets` writes."""
    table, sink = pa.Table.from_pylist(rows), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def ask_server(answer: bytes, page: bytes, status: int, header: str, protocol: str | None) -> list[float]:
    """Score three replies by a server on the loopback that answers everything the same."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(200, page, "")

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.reply(status, answer, header)

        def reply(self, status: int, content: bytes, header: str) -> None:
            own = [f"Content-Length: {len(content)}"] if "Length" not in header and "Transfer" not in header else []
            head = "\r\n".join([f"HTTP/1.0 {status} x", *own, *([header] if header else []), "", ""])
            self.wfile.write(head.encode("latin-1") + content)

        def log_message(self, format: str, *given: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True).start()
    try:
        options = ServerOptions(protocol=protocol, wait_s=0.001, tries=2)
        scorer = open_server(f"http://127.0.0.1:{server.server_address[1]}", options)
        return [
            score.value for score in scorer.score_pairs([(as_prompt("how"), reply) for reply in ("mix", "no", "a")])
        ]
    finally:
        server.shutdown()
        server.server_close()
