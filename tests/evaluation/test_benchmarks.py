"""The benchmark programs run, on a tiny random model and made-up comparisons: their numbers mean nothing here."""

import gzip
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import bert_folder

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
GOOD, BAD = ["mix flour and water", "let the dough rise", "bake an hour"], ["no", "go away", "who knows"]


def hh_folder(folder: Path) -> Path:
    """Two subsets in the hub's layout."""
    for subset in ("helpful-base", "helpful-online", "harmless-base"):
        for split, count in (("train", 30), ("test", 8)):
            path = folder / subset / f"{split}.jsonl.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            with gzip.open(path, "wt") as file:
                for i in range(count):
                    start = f"\n\nHuman: {subset} {split} question {i}\n\nAssistant: "
                    row = {"chosen": f"{start}{GOOD[i % 3]} {i}", "rejected": f"{start}{BAD[i % 3]} {i}"}
                    file.write(json.dumps(row) + "\n")
    return folder


def ranked_folder(folder: Path) -> Path:
    """Prefrank's own rankings of two to four replies."""
    folder.mkdir()
    for split, count in (("train", 9), ("validation", 6)):
        rows = [
            {"prompt": f"{split} question {i}", "replies": [f"reply {n} of {i}" for n in range(2 + i % 3)],
             "ranks": list(range(2 + i % 3))}
            for i in range(count)
        ]  # fmt: skip
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """A function that runs a benchmark with a tiny model and returns its output and the closing JSON line."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.chdir(tmp_path)
    tiny = ["--set", f"model_name={bert_folder(tmp_path / 'tiny')}", "--set", "max_length=32"]
    tiny += ["--set", "trackers=none", "--set", "warmup_steps=0"]

    def main(program: str, *words: str, train: bool = True) -> tuple[str, dict[str, Any]]:
        monkeypatch.setattr(sys, "argv", [program, *words, *(tiny if train else [])])
        importlib.import_module(program).main()
        output = capsys.readouterr().out
        return output, json.loads(output.splitlines()[-1], parse_constant=pytest.fail)

    return main


def test_hh_quality_shows_the_model_beside_its_baselines(run: Any, tmp_path: Path) -> None:
    data = hh_folder(tmp_path / "hh-rlhf")
    output, record = run("hh_quality", "--data", str(data), "--set", "num_train_epochs=0.2")
    assert list(record["results"]) == [
        "reward model", "longer reply", "shorter reply", "random", "tf-idf + logistic", "tf-idf, helpful only",
    ]  # fmt: skip
    groups = record["results"]["reward model"]
    assert list(groups) == ["helpful-base", "helpful-online", "helpful", "harmless-base", "all"]
    assert [group["accuracy"]["n"] for group in groups.values()] == [8, 8, 16, 8, 24]
    difference = record["difference"]["longer reply"]["all"]
    others = record["results"]["longer reply"]["all"]["accuracy"]["value"]
    assert difference["value"] == pytest.approx(groups["all"]["accuracy"]["value"] - others)
    assert difference["n"] == 24
    assert record["training"]["comparisons"] == 90
    assert "tf-idf + logistic" in output
    assert "CPU seconds" in output


def test_hh_quality_tunes_on_training_prompts_alone_and_takes_a_saved_model(run: Any, tmp_path: Path) -> None:
    data = hh_folder(tmp_path / "hh-rlhf")
    _, tuned = run("hh_quality", "--data", str(data), "--tune", "--set", "num_train_epochs=0.2")
    assert tuned["training"]["comparisons"] + tuned["results"]["random"]["all"]["counts"]["comparisons"] == 90
    _, loaded = run("hh_quality", "--data", str(data), "--tune", "--model", "runs/hh-quality/last", train=False)
    assert loaded["results"] == tuned["results"]
    assert loaded["model"] == tuned["model"]
    assert loaded["training"] is None


def test_groups_need_fewer_encodings_than_the_same_pairs_apart(run: Any, tmp_path: Path) -> None:
    data = ranked_folder(tmp_path / "ranked")
    output, record = run("oasst_groups", "--data", str(data), "--seeds", "2", "--set", "per_device_train_batch_size=4")
    grouped, pairwise = record["results"]["grouped"], record["results"]["pairwise"]
    # Prompts of 3 and 4 replies alone: 3 x 3 and 3 x 6 pairs from 3 x 3 and 3 x 4 replies.
    assert grouped["pairs"] == pairwise["pairs"] == 27
    assert grouped["encodings_per_pair"] == 21 / 27
    assert pairwise["encodings_per_pair"] == 2
    assert grouped["tokens_per_pair"] < pairwise["tokens_per_pair"]
    assert [one["comparisons"] for one in grouped["runs"]] == [6, 6]
    assert grouped["held_out"]["accuracy"]["prompts"] == 6
    assert "encodings" in output
