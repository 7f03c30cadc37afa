"""Published sets by name: which files are fetched, and that a folder of them reads the same."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from prefrank.data import SOURCES, load_comparisons
from tests.data.files import write_lines, write_parquet

PAIR = {"chosen": "Blue.", "rejected": "Tuesday."}
TALKS = {
    f"conversation_{side}": [{"role": "user", "content": "A colour?"}, {"role": "assistant", "content": said}]
    for side, said in (("a", "Blue."), ("b", "Tuesday."))
}
VOTE = {"question_id": "q1", **TALKS, "winner": "model_a", "turn": 1, "judge": "j"}
FLAGS = {"winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0}
PACKED = {name: json.dumps([said]) for name, said in (("response_a", "Blue."), ("response_b", "Tuesday."))}
MESSAGES = {name: [{"role": "user", "content": "A colour?"}, {"role": "assistant", "content": said}]
            for name, said in PAIR.items()}  # fmt: skip
TWO = {"model": "a", "response": "Blue."}, {"model": "b", "response": "Tuesday."}
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "ultrafeedback_binarized": ("data/train_prefs-0.parquet", {"prompt": "A colour?", **MESSAGES, "score_chosen": 8.0}),
    "code_ultrafeedback": (
        "data/train-0.parquet",
        {
            "instruction": "A colour?",
            "responses": [*TWO],
            "annotations": [{"model": "a", "rating": "5"}, {"model": "b", "rating": "1"}],
        },
    ),
    "nectar": (
        "data/rlaif.parquet",
        {
            "prompt": "\n\nHuman: A colour?\n\nAssistant: ",
            "answers": [{"answer": "Blue.", "rank": 1.0}, {"answer": "Tuesday.", "rank": 2.0}],
        },
    ),
    "offsetbias": (
        "train.jsonl",
        {"instruction": "A colour?", "output_1": "Blue.", "output_2": "Tuesday.", "label": 1},
    ),
    "orca_dpo": ("orca_rlhf.jsonl", {"system": "", "question": "A colour?", **PAIR}),
    "safe_rlhf": (
        "data/Alpaca-7B/train.jsonl",
        {"prompt": "A colour?", "response_0": "Blue.", "response_1": "Tuesday.", "better_response_id": 0},
    ),
    "stack_exchange": (
        "data/reward/a.parquet",
        {"qid": 1, "question": "A colour?", "response_j": "Blue.", "response_k": "Tuesday."},
    ),
    "ultrainteract": ("0000_pair.parquet", {"trajectory": [{"from": "user", "value": "A colour?"}], **PAIR}),
    "chatbot_arena": ("data/train-0.parquet", VOTE),
    "mt_bench_human": ("data/human-0.parquet", {**VOTE, "question_id": 81}),
    "arena_55k": ("default/train/0000.parquet", {"id": 1, "prompt": '["A colour?"]', **PACKED, **FLAGS}),
    "arena_100k": ("data/arena-0.parquet", VOTE),
    "arena_140k": ("data/train-0.parquet", {**VOTE, "id": "a", "evaluation_order": 1}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_set_reads_by_name_and_as_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    file, row = PUBLISHED[name]
    (write_parquet if file.endswith("parquet") else write_lines)(tmp_path / "hub" / file, [row])
    asked: list[Any] = []

    def snapshot_download(id: str, **options: Any) -> str:
        asked.append((id, options["revision"]))
        return str(tmp_path / "hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    for source in (name, tmp_path / "hub"):
        (comparison,) = load_comparisons(source).comparisons
        assert [turn.text for turn in comparison.prompt] == ["A colour?"]
        best = comparison.preferences[0]
        assert (comparison.replies[best.winner], best.probability) == ("Blue.", 1.0)
    assert asked == [(SOURCES[name].hub, SOURCES[name].revision)]


@pytest.mark.parametrize(
    ("row", "system", "probability"),
    [
        ({"id": "t1", "source": "mine", "system": "Be terse.", "prompt": "A colour?", **PAIR}, "Be terse.", 1.0),
        ({"source": "mine", **MESSAGES}, "", 1.0),
        ({"prompt": "A colour?", "prompt_id": "p", **MESSAGES, "score_chosen": 8.0, "score_rejected": 8.0}, "", 0.5),
        ({"prompt": "A colour?", "source": "mine", **MESSAGES, "chosen-rating": 5.0, "rejected-rating": 4.0}, "", 1.0),
        ({"dataset": "mine", **MESSAGES, "chosen_rating": 5.0, "rejected_rating": 5.0}, "", 0.5),
    ],
    ids=["truthy-dpo", "Skywork-Reward-Preference", "ultrafeedback_binarized", "ultrafeedback-cleaned", "dpo-mix"],
)
def test_sets_in_our_own_columns_are_read_with_their_system_turns_and_scores(
    tmp_path: Path, row: dict[str, Any], system: str, probability: float
) -> None:
    (comparison,) = load_comparisons(write_parquet(tmp_path / "mine.parquet", [row])).comparisons
    assert [turn.text for turn in comparison.prompt] == [*filter(None, [system]), "A colour?"]
    assert [(p.winner, p.probability) for p in comparison.preferences] == [(0, probability)]
