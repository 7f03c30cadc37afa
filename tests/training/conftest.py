import json
import random
from pathlib import Path
from typing import Any

import pytest

from prefrank.training import Recipe, make_recipe
from prefrank.types import Comparison, Preference, Turn
from tests.tiny import bert_folder

WORDS = ["bake", "bread", "flour", "water", "salt", "yeast", "dough", "rise", "hour", "home", "capital", "france"]


def make_comparisons(count: int, *, replies: int = 2, words: int = 4, seed: int = 0) -> tuple[Comparison, ...]:
    """Ranked replies of mixed lengths to distinct prompts; the best one always opens with the same word."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        texts = [f"reply {n} " + " ".join(draw.choices(WORDS, k=draw.randint(1, words))) for n in range(replies)]
        texts[0] = f"good {texts[0]}"
        prompt = (Turn("user", f"question {number} " + " ".join(draw.choices(WORDS, k=draw.randint(1, words)))),)
        preferences = tuple(Preference(i, j) for i in range(replies) for j in range(i + 1, replies))
        made.append(Comparison(prompt, tuple(texts), preferences, "made", str(number)))
    return tuple(made)


def write_jsonl(path: Path, comparisons: tuple[Comparison, ...]) -> Path:
    rows = [
        {
            "id": comparison.id,
            "prompt": [{"role": turn.role, "content": turn.text} for turn in comparison.prompt],
            "replies": list(comparison.replies),
            "preferences": [[p.winner, p.loser, p.probability] for p in comparison.preferences],
        }
        for comparison in comparisons
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 30 pairs, about 24 of which are `train`."""
    return write_jsonl(tmp_path_factory.mktemp("data") / "pairs.jsonl", make_comparisons(30))


@pytest.fixture
def recipe(bert: Path, pairs: Path, tmp_path: Path) -> Any:
    """A function from changed keys to a recipe that trains a tiny model for six steps or so."""

    def make(**changes: Any) -> Recipe:
        values = {
            "model_name": str(bert),
            "datasets": [str(pairs)],
            "learning_rate": 1e-3,
            "output_dir": str(tmp_path / "run"),
            "per_device_train_batch_size": 4,
            "max_length": 64,
            "trackers": "none",
        }
        return make_recipe(values | changes)

    return make
