import json
import lzma
import random
import re
from pathlib import Path

import pytest

from prefrank.data import load_comparisons
from prefrank.errors import BadData, BadInput
from prefrank.evaluation import Bootstrap, sample_of
from prefrank.evaluation.contamination import WAYS, _near, _numbered, contamination
from prefrank.evaluation.items import Item
from prefrank.io import schema
from prefrank.types import Comparison, Preference, as_prompt
from tests.evaluation.making import comparison, preference, scored

LONG = (
    "Last summer my neighbour built a small greenhouse out of old windows and now she grows peppers and melons until"
    " late in October, although we live quite far north and the nights are cold. How does the glass keep them warm?"
)
REPLY = "The glass lets sunlight in and keeps the warmed air from blowing away, so the inside stays warmer."
FAST = Bootstrap(resamples=50)


def pair(prompt: str, id: str = "0", *, source: str = "train", good: str = "good", bad: str = "bad") -> Comparison:
    return comparison([good, bad], [preference(0, 1)], prompt=prompt, source=source, id=id)


def ways_of(train: str, test: str) -> tuple[str, ...]:
    result = contamination([pair("something else entirely"), pair(train, "1")], [pair(test, source="test")])
    assert result.leaks == (("train/1",) if result.contaminated else ())
    return result.contaminated[0].ways if result.contaminated else ()


def test_the_same_words_are_the_same_prompt() -> None:
    assert ways_of("Why is the SKY blue?", "why is the sky  blue") == ("same prompt", "near prompt")


def test_a_changed_word_in_a_long_prompt_is_a_near_prompt() -> None:
    assert "near prompt" in ways_of(LONG, LONG.replace("warm?", "cosy?"))
    assert "same prompt" not in ways_of(LONG, LONG.replace("warm?", "cosy?"))


def test_a_prompt_inside_a_longer_one_shares_its_words() -> None:
    around = " ".join(f"word{n}" for n in range(80))
    assert ways_of(f"{around} {LONG}", LONG) == ("shared words",)
    assert ways_of(LONG, f"{LONG} {around}") == ("shared words",)


def test_a_quotation_shorter_than_half_is_clean() -> None:
    quoted = " ".join(LONG.split()[:16])
    assert (
        ways_of(f"{quoted} {' '.join(f'a{n}' for n in range(30))}", f"{quoted} {' '.join(f'b{n}' for n in range(30))}")
        == ()
    )


def test_other_prompts_are_clean_even_of_one_template() -> None:
    assert ways_of("Why is the sky blue?", "Why is the grass green?") == ()
    template = (
        "Answer the question below as well as you can, in no more than three full sentences and without any lists: "
    )
    train = [pair(template + f"what is a{n} and where does b{n} come from and who made c{n} d{n}?") for n in range(9)]
    test = [pair(template + f"how do e{n} f{n} and g{n} differ, and which h{n} costs less?") for n in range(9)]
    assert contamination(train, test).contaminated == ()


def test_a_long_reply_is_found_word_for_word_and_a_short_one_is_not() -> None:
    test = [pair("why?", source="test", bad=f"  {REPLY.upper()}"), pair("why not?", "1", source="test", good="Yes.")]
    train = [pair("how?", good=REPLY), pair("when?", "1", good="Yes."), pair("where?", "2", bad=REPLY)]
    result = contamination(train, test)
    assert [(item.id, item.ways, item.example) for item in result.contaminated] == [("0", ("same reply",), "train/0")]
    assert result.leaks == ("train/0", "train/2")


def test_every_item_of_a_contaminated_prompt_and_every_leak_are_named() -> None:
    train = [pair("a b c", "0"), pair("clean one", "1"), pair("A B C", "2")]
    test = [pair("a b c", "0", source="x"), pair("d e f", "1", source="x"), pair("a, b, c", "2", source="y")]
    result = contamination(train, test)
    assert [(item.subset, item.id, item.example) for item in result.contaminated] == [
        ("x", "0", "train/0"),
        ("y", "2", "train/0"),
    ]
    assert result.leaks == ("train/0", "train/2")
    assert result.counts == {"same prompt": 2, "near prompt": 2, "shared words": 0, "same reply": 0, "any": 2}
    assert (result.train, result.train_prompts, result.items, result.prompts) == (3, 2, 3, 2)


def test_near_prompts_are_those_that_a_comparison_of_all_pairs_finds() -> None:
    draw = random.Random(5)
    base = [[f"w{draw.randrange(60)}" for _ in range(draw.randrange(1, 40))] for _ in range(40)]

    def varied(words: list[str]) -> str:
        return " ".join(f"v{draw.randrange(9)}" if draw.random() < 0.02 else word for word in words)

    train, test = ([varied(draw.choice(base)) for _ in range(150)] for _ in range(2))
    ours, theirs = (_numbered([as_prompt(text) for text in texts]) for texts in (train, test))

    def shingles(text: str) -> set[str]:
        words = text.split()
        return {" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))}

    sets = [[shingles(text) for text in side.texts()] for side in (ours, theirs)]
    brute = {
        (a, b) for a, x in enumerate(sets[0]) for b, y in enumerate(sets[1]) if len(x & y) >= 0.8 * len(x | y)
    }  # fmt: skip
    identical = sum(sets[0][a] == sets[1][b] for a, b in brute)
    assert len(brute) > identical > 10
    assert set(map(tuple, _near(ours, theirs).tolist())) == brute


def test_accuracies_of_the_clean_and_the_contaminated_part_by_hand() -> None:
    test = [pair(prompt, prompt, source="test") for prompt in ("a", "b", "c", "d")]
    sample = sample_of(test, [scored(values) for values in ([1, 0], [2, 0], [1, 0], [0, 1])])
    result = contamination([pair("a"), pair("b", "1")], test, sample, bootstrap=FAST)
    assert result.contaminated_accuracy is not None
    assert result.clean_accuracy is not None
    assert result.difference is not None
    assert (result.contaminated_accuracy.value, result.contaminated_accuracy.n) == (1.0, 2)
    assert (result.clean_accuracy.value, result.clean_accuracy.n) == (0.5, 2)
    assert (result.difference.value, result.difference.n) == (0.5, 4)


def test_without_contaminated_items_their_accuracy_has_no_value() -> None:
    test = [pair("a", source="test")]
    result = contamination([pair("b")], test, sample_of(test, [scored([1, 0])]), bootstrap=FAST)
    assert result.clean_accuracy is not None
    assert result.clean_accuracy.value == 1.0
    for missing in (result.contaminated_accuracy, result.difference):
        assert missing is not None
        assert missing.value is None


def test_the_record_is_strict_json_with_the_exclusion_list() -> None:
    record = json.loads(
        json.dumps(schema.plain(contamination([pair("a")], [pair("A!", "7", source="t")])), allow_nan=False)
    )
    assert record["contaminated"] == [
        {"subset": "t", "id": "7", "ways": ["same prompt", "near prompt"], "example": "train/0"}
    ]  # fmt: skip
    assert record["ways"] == dict(WAYS)
    assert record["clean_accuracy"] is record["difference"] is None


def test_nothing_to_look_in_and_scores_of_other_items_are_refused() -> None:
    with pytest.raises(BadData, match="there are 0 training comparisons and 1 items"):
        contamination([], [pair("a")])
    with pytest.raises(BadInput, match="the scores are of other items"):
        contamination([pair("a")], [pair("a")], sample_of([pair("a", "1")], [scored([1, 0])]))


def item(prompt: str, id: int, subset: str) -> Item:
    return Item(as_prompt(prompt), ("one reply", "another"), (Preference(0, 1),), subset, str(id))


@pytest.fixture(scope="module")
def alpaca(shared_data: Path) -> list[Item]:
    with lzma.open(shared_data / "bon-alpacaeval" / "candidates.jsonl.xz") as file:
        return [item(row["instruction"], row["idx"], "bon") for row in map(json.loads, file)]


def as_train(items: list[Item]) -> list[Comparison]:
    return [Comparison(item.prompt, item.replies, item.preferences, item.subset, item.id) for item in items]


def plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def same_words(train: list[Comparison], test: list[Item]) -> set[str]:
    """Ids of items whose prompt stands in the training set, by plain sets of strings."""
    known = {plain(" ".join(turn.text for turn in comparison.prompt)) for comparison in train}
    return {f"{item.subset}/{item.id}" for item in test if plain(" ".join(turn.text for turn in item.prompt)) in known}


@pytest.mark.shared_data
def test_open_assistants_prompts_stand_in_alpaca_eval(shared_data: Path, alpaca: list[Item]) -> None:
    """AlpacaEval took 188 of its 805 prompts from there; this export holds some of them, in both of its splits."""
    for split, same, any_way in (("validation", 46, 47), ("train", 107, 107)):
        train = list(load_comparisons(shared_data / "oasst1-en", split=split).comparisons)
        result = contamination(train, alpaca)
        exact = {f"{item.subset}/{item.id}" for item in result.contaminated if "same prompt" in item.ways}
        assert exact == same_words(train, alpaca)
        assert (result.counts["same prompt"], result.counts["any"]) == (same, any_way)


@pytest.mark.shared_data
def test_llmbar_shares_prompts_with_alpaca_eval_and_none_with_pandalm(shared_data: Path, alpaca: list[Item]) -> None:
    parts = {part: shared_data / "llmbar" / "Processed" / part for part in ("FairEval", "LLMEval^2", "MT-Bench")}
    llmbar = [
        item(row["input"], number, part)
        for part, folder in parts.items()
        for number, row in enumerate(json.loads((folder / "dataset.json").read_text()))
    ]
    rows = json.loads((shared_data / "pandalm" / "testset-v1.json").read_text())
    pandalm = [item(f"{row['instruction']}\n{row['input']}".strip(), row["idx"], "pandalm") for row in rows]
    for train, test, count in ((alpaca, llmbar, 70), (pandalm, alpaca, 169), (pandalm, llmbar, 0)):
        result = contamination(as_train(train), test)
        assert result.counts["same prompt"] == len(same_words(as_train(train), test)) == count
