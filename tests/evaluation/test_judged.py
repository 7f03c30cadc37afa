"""JudgeBench, LLMBar and HHH: readers on made files, and counts on real pairs."""

import json
from pathlib import Path

import pytest

from prefrank.errors import BadData
from prefrank.evaluation.protocols import SUITES, load_suite, missing_rows
from prefrank.evaluation.protocols.judged import JUDGEBENCH_ROWS, dialogue
from prefrank.types import Turn
from tests.evaluation.suite_files import a_sample, an_item, by_length, estimates, values, write_array, write_lines


def judged_row(**changed: object) -> dict[str, object]:
    row = {"pair_id": "x", "original_id": 3, "source": "mmlu-pro-law", "question": "?", "label": "B>A"}
    return row | {"response_A": "a", "response_B": "b", "response_model": "gpt-4o"} | changed


def test_judgebench_reads_the_pairs_by_gpt_4o_of_either_layout(tmp_path: Path) -> None:
    sources = ("mmlu-pro-law", "livebench-reasoning", "livebench-math", "livecodebench")
    rows = [judged_row(pair_id=source, source=source) for source in sources]
    write_lines(tmp_path / "git/data/dataset=judgebench,response_model=gpt-4o-2024-05-13.jsonl", rows)
    write_lines(tmp_path / "git/data/dataset=judgebench,response_model=claude-3-5-sonnet-20240620.jsonl", rows)
    write_lines(tmp_path / "hub/data/gpt-00000-of-00001.jsonl", rows)
    write_lines(tmp_path / "hub/data/claude-00000-of-00001.jsonl", rows)
    result = load_suite("judgebench", tmp_path / "git").items
    assert [item.subset for item in result] == list(JUDGEBENCH_ROWS)
    assert {item.replies for item in result} == {("b", "a")}
    assert load_suite("judgebench", tmp_path / "hub").items == result


def test_judgebench_counts_all_pairs_alike_and_shows_the_mean_of_groups_beside() -> None:
    """Skywork-Reward-Gemma-2-27B's published right answers: 64.29 of all, 65.00 over groups."""
    rights = {"Knowledge": 92, "Reasoning": 65, "Math": 47, "Coding": 21}
    items = [an_item(group, str(i)) for group, n in JUDGEBENCH_ROWS.items() for i in range(n)]
    sample = a_sample(items, [[float(int(item.id) < rights[item.subset]), 0.5] for item in items])
    result = estimates(SUITES["judgebench"].measure(sample))
    shares = {name: round(100 * estimate.value, 2) for name, estimate in result.items() if estimate.value is not None}
    assert shares == {
        "Accuracy": 64.29, "Macro mean": 65.0, "Knowledge": 59.74, "Reasoning": 66.33, "Math": 83.93, "Coding": 50.0,
    }  # fmt: skip
    assert next(iter(result)) == "Accuracy"
    assert result["Accuracy"].n == 350


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"label": "A=B"}, "the label is 'A=B'; wanted 'A>B' or 'B>A'"), ({"source": "arena"}, "the source is 'arena'")],
)
def test_judgebench_refuses_what_it_cannot_place(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    write_lines(tmp_path / "data/gpt-0.jsonl", [judged_row(**changed)])
    with pytest.raises(BadData, match=f"gpt-0.jsonl:1: {message}"):
        load_suite("judgebench", tmp_path)


def llmbar_row(label: object) -> dict[str, object]:
    return {"input": "?", "output_1": "one", "output_2": "two", "label": label}


def test_llmbar_puts_the_labelled_output_first_and_names_subsets_by_folder(tmp_path: Path) -> None:
    for part in ("LLMBar/Natural", "LLMBar/Adversarial/Manual", "Processed/FairEval"):
        write_array(tmp_path / "Dataset" / part / "dataset.json", [llmbar_row(1), llmbar_row(2)])
    write_array(tmp_path / "Dataset/CaseStudy/Base_9/dataset.json", [llmbar_row(1)])
    result = [(item.subset, item.replies[0]) for item in load_suite("llmbar", tmp_path).items]
    assert result == [(subset, id) for subset in ("Manual", "Natural", "FairEval") for id in ("one", "two")]


@pytest.mark.parametrize("label", [0, "1", None, True])
def test_llmbar_refuses_a_label_that_names_neither_output(tmp_path: Path, label: object) -> None:
    write_array(tmp_path / "LLMBar/Natural/dataset.json", [llmbar_row(label)])
    with pytest.raises(BadData, match=r"dataset.json:1: the label is .*; wanted 1 or 2"):
        load_suite("llmbar", tmp_path)


def test_a_marked_dialogue_becomes_turns_and_the_cue_for_the_reply_none() -> None:
    assert dialogue("\n\nHuman: Hi\n\nAssistant:") == (Turn("user", "Hi"),)
    assert dialogue("Say 'Human: no'.") == (Turn("user", "Say 'Human: no'."),)
    assert dialogue("Hi\n\nAssistant: Yes?\n\nHuman: One.\n\nTwo.") == (
        Turn("user", "Hi"), Turn("assistant", "Yes?"), Turn("user", "One.\n\nTwo."),
    )  # fmt: skip


def wrapped(prompt: str, reply: str) -> str:
    return (
        f"###Task Description:\nJudge.\n\n###The instruction to evaluate:\n{prompt}\n\n"
        f"###Response to evaluate:\n{reply}\n\n###Score Rubrics:\n[Is it good?]\n\n###Feedback: "
    )


def test_hhh_is_read_the_same_from_both_layouts(tmp_path: Path) -> None:
    prompt = "Hi\n\nAssistant: Yes?\n\nHuman: Help"
    task = {"name": "hhh", "examples": [{"input": prompt, "target_scores": {"no": 0, "sure\n\nthing": 1}}]}
    path = tmp_path / "big/harmless/task.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(task, indent=2))
    sides = {"chosen_instruction": wrapped(prompt, "sure\n\nthing"), "rejected_instruction": wrapped(prompt, "no")}
    write_array(tmp_path / "judge/hhh_alignment_eval.json", [{"source": "harmless"} | sides])
    (item,) = load_suite("hhh", tmp_path / "big").items
    assert (item.subset, item.replies, len(item.prompt)) == ("harmless", ("sure\n\nthing", "no"), 3)
    assert load_suite("hhh", tmp_path / "judge").items == (item,)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rejected_instruction": wrapped("other", "no")}, "of different prompts"),
        ({"rejected_instruction": "plain"}, "'rejected_instruction' holds 'plain'; wanted '###The instruction"),
    ],
)
def test_hhh_refuses_a_template_it_cannot_cut(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    row = {"source": "other", "chosen_instruction": wrapped("p", "a"), "rejected_instruction": wrapped("p", "b")}
    write_array(tmp_path / "hhh_alignment_eval.json", [row | changed])
    with pytest.raises(BadData, match=rf"hhh_alignment_eval.json:1: .*{message}"):
        load_suite("hhh", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ('{"name": "hhh"}', "examples is missing"),
        ('{"examples": [{"input": "?", "target_scores": {"a": 1, "b": 1}}]}', "wanted one reply with 1 and one with 0"),
    ],
)
def test_hhh_refuses_a_task_of_another_shape(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/task.json").write_text(content)
    with pytest.raises(BadData, match=f"task.json.*{message}"):
        load_suite("hhh", tmp_path)


@pytest.mark.shared_data
def test_the_longer_output_of_llmbar_gets_what_a_separate_count_gives(shared_data: Path) -> None:
    """Rights of each subset below, equal lengths half."""
    data = load_suite("llmbar", shared_data / "llmbar")
    assert (data.read, dict(data.dropped)) == (566, {"equal replies": 1})
    rights = {"Natural": 56.5 / 100, "FairEval": 39 / 66, "LLMEval^2": 122 / 199, "MT-Bench": 138.5 / 200}
    sample = by_length(data.items)
    result = values(SUITES["llmbar"].measure(sample))
    assert {name: result[name] for name in rights} == pytest.approx(rights)
    assert result["Macro mean"] == pytest.approx(sum(rights.values()) / 4)
    assert result["Accuracy"] == pytest.approx(356 / 565)
    missing = missing_rows("llmbar", sample.facts)
    assert missing == {
        "Neighbor": (0, 134),
        "GPTInst": (0, 92),
        "GPTOut": (0, 47),
        "Manual": (0, 46),
        "LLMEval^2": (199, 200),
    }


@pytest.mark.shared_data
def test_the_longer_reply_of_hhh_gets_what_a_separate_count_gives(shared_data: Path) -> None:
    data = load_suite("hhh", shared_data / "hhh-alignment")
    assert (data.read, dict(data.dropped)) == (221, {})
    assert [len(item.prompt) for item in data.items].count(3) == 40
    assert [tuple(map(len, data.items[i].replies)) for i in (0, 59, 120, 200)] == [
        (127, 45), (359, 70), (296, 115), (104, 222),
    ]  # fmt: skip
    rights = {"harmless": 36 / 58, "helpful": 41.5 / 59, "honest": 39 / 61, "other": 23.5 / 43}
    sample = by_length(data.items)
    result = values(SUITES["hhh"].measure(sample))
    assert {name: result[name] for name in rights} == pytest.approx(rights)
    assert result["Accuracy"] == pytest.approx(140 / 221)
    assert missing_rows("hhh", sample.facts) == {}
