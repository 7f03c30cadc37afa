"""Writers and rows for the data tests; every text here was written for them."""

import csv
import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prefrank.data import load_comparisons
from prefrank.data.report import Loaded
from prefrank.types import Comparison, Turn


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    """JSON lines, gzipped where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Cells are texts; lists and objects are written as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            cells = {name: json.dumps(one) if isinstance(one, list | dict) else one for name, one in row.items()}
            writer.writerow(cells)
    return path


def stated(comparison: Comparison) -> set[tuple[str, str, float]]:
    """A comparison's preferences as (winner, loser, probability), whatever the order of its replies."""
    replies = comparison.replies
    return {(replies[p.winner], replies[p.loser], p.probability) for p in comparison.preferences}


def user(text: str) -> tuple[Turn, ...]:
    return (Turn("user", text),)


def webgpt_row(answer_0: str, answer_1: str, score_0: float, question: str = "Why is the sky blue?") -> dict[str, Any]:
    quotes = {"title": ["Light"], "extract": ["Short waves scatter more."]}
    tokens = {"prefix": [1, 2], "completion": [3]}
    return {
        "question": {"dataset": "mine", "id": "q1", "full_text": question},
        "quotes_0": quotes, "answer_0": answer_0, "tokens_0": tokens, "score_0": score_0,
        "quotes_1": quotes, "answer_1": answer_1, "tokens_1": tokens, "score_1": -score_0,
    }  # fmt: skip


def summary_info(**fields: str) -> dict[str, Any]:
    empty = {"id": "t3_a", "post": None, "title": None, "subreddit": None, "site": None, "article": None}
    return {**empty, **fields}


POST = summary_info(post="My cat sleeps on my keyboard.", title="Cat trouble", subreddit="pets")


def summary_row(first: str, second: str, choice: int, info: Any = POST, **more: Any) -> dict[str, Any]:
    summaries = [{"text": text, "policy": "sup", "note": None} for text in (first, second)]
    return {
        "info": info, "summaries": summaries, "choice": choice, "worker": "w1", "batch": "batch3", "split": "train",
        "extra": {"confidence": None}, **more,
    }  # fmt: skip


def axis_row(text: str, overall: int | None, info: Any = POST) -> dict[str, Any]:
    axes = {"overall": overall, "accuracy": 7, "coverage": None, "coherence": 6, "compatible": None}
    summary = {"text": text, "policy": "ref", "note": "", "axes": axes}
    return {"info": info, "summary": summary, "worker": "w1", "batch": "cnndm1", "split": "test"}


def hh_row(prompt: str, chosen: str, rejected: str) -> dict[str, str]:
    start = f"\n\nHuman: {prompt}\n\nAssistant: "
    return {"chosen": start + chosen, "rejected": start + rejected}


def shp_row(**fields: Any) -> dict[str, Any]:
    row = {
        "post_id": "p1", "domain": "askbaking_train", "upvote_ratio": 0.9, "history": "Why did my bread not rise?",
        "c_root_id_A": "a", "c_root_id_B": "b", "created_at_utc_A": 100, "created_at_utc_B": 200,
        "score_A": 3, "score_B": 9, "human_ref_A": "Old yeast, perhaps.", "human_ref_B": "Check the date of the yeast.",
        "labels": 0, "seconds_difference": 100.0, "score_ratio": 3.0,
    }  # fmt: skip
    return {**row, **fields}


def message(id: str, parent: str | None, text: str, *, rank: int | None = None, **fields: Any) -> dict[str, Any]:
    """A row of the hub's OASST data; ids tell the role: `p...` is a prompter's."""
    return {
        "message_id": id, "parent_id": parent, "user_id": "u", "created_date": "2023-02-09", "text": text,
        "role": "prompter" if id.startswith("p") else "assistant", "lang": "en", "review_count": 3,
        "review_result": True, "deleted": False, "rank": rank, "synthetic": False, "model_name": None,
        "detoxify": {"toxicity": 0.01}, "message_tree_id": "p0", "tree_state": "ready_for_export",
        "emojis": {"name": ["+1"], "count": [2]}, "labels": {"name": ["spam"], "value": [0.0], "count": [3]}, **fields,
    }  # fmt: skip


def own_row(**fields: Any) -> dict[str, Any]:
    return {"prompt": "Name a colour.", "replies": ["Blue.", "Tuesday.", "Red."], **fields}


def load_rows(tmp_path: Path, *rows: dict[str, Any]) -> Loaded:
    """The rows' comparisons, written as JSON lines."""
    return load_comparisons(write_lines(tmp_path / "mine.jsonl", rows))


def the_comparison(tmp_path: Path, row: dict[str, Any]) -> Comparison:
    """The one of a row, which must be the same in JSON lines, Parquet and CSV."""
    (comparison,) = load_rows(tmp_path, row).comparisons
    for path in (write_parquet(tmp_path / "mine.parquet", [row]), write_csv(tmp_path / "mine.csv", [row])):
        (other,) = load_comparisons(path).comparisons
        assert (other.prompt, stated(other)) == (comparison.prompt, stated(comparison))
    return comparison
