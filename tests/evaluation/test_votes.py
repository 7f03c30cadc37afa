import csv
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefrank.errors import BadData, NotFound
from prefrank.evaluation.ceiling import noise_ceiling
from prefrank.evaluation.items import Item
from prefrank.evaluation.protocols.votes import (
    LFQA_EXPERTS,
    LLMFAO,
    PANDALM,
    TULU1_HUMAN,
    VOTES,
    ballots_of,
    measure,
    thresholds,
)
from prefrank.evaluation.samples import Sample, sample_of
from prefrank.stats.bootstrap import Bootstrap
from prefrank.stats.estimates import estimate_all
from prefrank.stats.figures import Figure
from prefrank.types import as_prompt
from tests.data.files import write_lines
from tests.evaluation.making import scored

SIDES = {"L": VOTES["left"], "R": VOTES["right"], "T": VOTES["tie"]}
TURNED = str.maketrans("LR", "RL")


def sample(*rows: tuple[str, float, float], prompts: str = "abcdefghij") -> Sample:
    """Of (votes, score of the left reply, score of the right one) rows."""
    items = [
        Item(as_prompt(prompt), ("left", "right"), tuple(SIDES[vote] for vote in votes), "set", str(number))
        for number, ((votes, *_), prompt) in enumerate(zip(rows, prompts, strict=False))
    ]
    return sample_of(items, [scored(scores) for _, *scores in rows])


def values(figures: dict[str, Figure]) -> dict[str, float | None]:
    return {name: estimate.value for name, estimate in estimate_all(figures, Bootstrap(resamples=1)).items()}


ROWS = (("LLR", 2, 1), ("TTR", 1, 3), ("RRR", 0, 0))


def test_figures_of_three_pairs_by_hand() -> None:
    result = values(measure(sample(*ROWS)))
    assert result["Accuracy"] == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    assert result["Majority"] == pytest.approx((1 + 1 / 2) / 2)
    assert result["Share of the ceiling"] == pytest.approx((2 / 3 + 2 / 3 + 1 / 2) / (2 / 3 + 2 / 3 + 1))
    softplus = [math.log1p(math.exp(value)) for value in (-1, 1, -2, 2)]
    first, second = (2 * softplus[0] + softplus[1]) / 3, (2 * softplus[2] + softplus[3]) / 3
    assert result["Log loss"] == pytest.approx((first + second + math.log(2)) / 3)


def test_how_much_people_agree_is_ranked_against_the_margin() -> None:
    # One-sidedness 1/3, 0, 1; the margins are in the same order, then in the opposite one.
    assert values(measure(sample(("LLR", 2, 0), ("TTT", 1, 0), ("RRR", 0, 3))))[
        "Margin and agreement"
    ] == pytest.approx(1)
    assert values(measure(sample(("LLR", 2, 0), ("TTT", 3, 0), ("RRR", 0, 1))))[
        "Margin and agreement"
    ] == pytest.approx(-1)


def test_turning_the_replies_round_changes_nothing() -> None:
    rows = (*ROWS, ("LT", 1, 5), ("L", 4, 1))
    turned = [(votes.translate(TURNED), right, left) for votes, left, right in rows]
    assert values(measure(sample(*turned))) == pytest.approx(values(measure(sample(*rows))))


def test_votes_in_both_directions_meet_on_one_ballot() -> None:
    ballots = ballots_of(sample(("LRTRL", 3, 1), ("T", 0, 2)))
    assert ballots.votes.tolist() == [[2, 1, 2], [0, 1, 0]]
    assert ballots.margin.tolist() == [2, -2]
    assert ballots.majority.tolist() == [[False] * 3, [False, True, False]]


def test_the_log_loss_is_least_for_scores_that_are_the_vote_shares() -> None:
    rows = [("LLLR", math.log(3), 0.0), ("LLTT", math.log(3), 0.0)]  # a tie is half a vote for each side: 3 to 1
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert values(measure(sample(*rows)))["Log loss"] == pytest.approx(entropy)


def test_the_most_any_scorer_can_reach_is_the_whole_ceiling() -> None:
    result = values(measure(sample(("LLR", 1, 0), ("RRL", 0, 1), ("RRT", 0, 1), ("L", 0, 1))))
    assert result["Share of the ceiling"] == pytest.approx(1)  # the pair with one vote has no ceiling
    several = sample(("LLR", 1, 0), ("RRT", 1, 0), ("LR", 0, 0))
    share, ceiling = values(measure(several))["Share of the ceiling"], noise_ceiling(several).value
    assert share * ceiling == pytest.approx((2 / 3 + 1 / 6 + 1 / 2) / 3)


def test_the_threshold_comes_from_other_prompts() -> None:
    # By itself prompt a would take 1 as its threshold, and b 2: all right. Crossed, b's tied pair is called a side.
    rows = [("T", 1, 0), ("L", 3, 0), ("T", 0, 2), ("R", 0, 5)]
    assert values(measure(sample(*rows, prompts="aabb")))["Three classes/votes"] == 3 / 4


def test_the_threshold_is_the_best_there_is() -> None:
    draw = np.random.default_rng(0)
    size, (side, tie), prompts = draw.integers(0, 9, 80).astype(float), draw.random((2, 80)), np.repeat([0, 1], 40)
    tie += 0.5 * (size < 6)  # so that the best threshold lies in the middle
    result = thresholds(size, side, tie, prompts)
    assert result is not None
    agreement = {t: np.where(size > t, side, tie)[prompts == 1].sum() for t in range(9)}
    assert set(result[prompts == 0]) == {max(agreement, key=agreement.__getitem__)}


def test_three_classes_count_ties_of_people_and_of_scores() -> None:
    rows = [("TTL", 1, 1), ("LLT", 9, 0), ("RRR", 0, 9), ("TTT", 2, 2)]
    result = values(measure(sample(*rows)))
    assert result["Three classes/votes"] == pytest.approx((2 / 3 + 2 / 3 + 1 + 1) / 4)
    assert result["Three classes/majority"] == 1


def test_margins_of_one_size_are_ties_together_or_not_at_all() -> None:
    rows = [("T", 1, 0), ("L", 1, 0), ("L", 1, 0)] * 3
    assert values(measure(sample(*rows, prompts="abcdefghi")))["Three classes/votes"] == pytest.approx(2 / 3)


def test_one_prompt_has_no_other_to_choose_a_threshold_on() -> None:
    result = values(measure(sample(("T", 1, 0), ("L", 3, 0), prompts="aa")))
    assert result["Three classes/votes"] is None
    assert result["Accuracy"] == 1


def test_a_pair_without_a_majority_is_left_out_of_it() -> None:
    result = measure(sample(("LR", 1, 0), ("LLTT", 1, 0), ("LLT", 1, 0)))
    assert (result["Majority"].n, result["Three classes/majority"].n) == (1, 1)
    assert values(measure(sample(("LR", 1, 0))))["Majority"] is None


def test_failures_agree_with_nobody() -> None:
    result = values(measure(sample(("LLL", math.nan, 0), ("TTT", math.inf, 0), ("RRR", math.nan, math.nan))))
    assert [result[name] for name in ("Accuracy", "Majority", "Share of the ceiling")] == [0, 0, 0]
    assert [result[name] for name in ("Three classes/votes", "Three classes/majority")] == [0, 0]
    assert result["Log loss"] is result["Margin and agreement"] is None


def test_only_ties_leave_no_accuracy() -> None:
    result = values(measure(sample(("TT", 1, 0), ("TTT", 0, 3))))
    assert result["Accuracy"] is result["Majority"] is result["Margin and agreement"] is None


PAIRS: list[dict[str, Any]] = [
    {"id": 0, "text": "Name a colour.", "result_x": "Blue.", "result_y": "Tuesday."},
    {"id": 1, "text": "Name a day.", "result_x": "", "result_y": "Monday."},
    {"id": 2, "text": "Name a month.", "result_x": "May.", "result_y": "Red."},
]


def llmfao(folder: Path, votes: str) -> Path:
    write_lines(folder / "pairs-crowd.jsonl", PAIRS)
    (folder / "crowd-comparisons.csv").write_text(votes)
    return folder


def test_llmfao_joins_votes_to_pairs_and_counts_the_rest(tmp_path: Path) -> None:
    data = LLMFAO.read(llmfao(tmp_path, "id,worker,winner\n0,w,left\n0,v,tie\n1,w,left\n0,u,right\n9,w,left\n"))
    (made,) = data.items
    assert (made.id, made.replies) == ("0", ("Blue.", "Tuesday."))
    assert [(p.winner, p.loser, p.probability) for p in made.preferences] == [(0, 1, 1), (0, 1, 0.5), (1, 0, 1)]
    assert data.read == 4
    assert data.dropped == {"empty reply": 1, "no vote": 1, "votes on a pair that is not there": 1}


def test_llmfao_names_the_file_that_is_missing(tmp_path: Path) -> None:
    write_lines(tmp_path / "pairs-crowd.jsonl", PAIRS)
    with pytest.raises(NotFound, match=r"no file called crowd-comparisons\.csv"):
        LLMFAO.read(tmp_path)


@pytest.mark.parametrize(
    ("votes", "vote"),
    [
        ("id,winner\n0,left\n0,both\n", r"csv:3: 'winner' is 'both'; wanted one of left, right, tie"),
        ("id,winner\n0\n", r"csv:2: the row has 1 cells; wanted 2"),
        ("id,winner\n0,left,right\n", r"csv:2: the row has 3 cells; wanted 2"),
        ("id,winner,winner\n0,left,right\n", r"csv:1: two columns are called 'winner'"),
        ('id,winner\n0,left\n"1,left\n', r"csv:3: not valid CSV \(unexpected end of data\)"),
        ("id,vote\n0,left\n", r"csv: no column 'winner'; the columns are id, vote"),
        ("", r"csv: the file is empty; wanted a header and rows"),
        ("id,winner\n7,left\n", r"no row can be used out of 3 \(left out: no vote: 2, empty reply: 1\)"),
    ],
)
def test_bad_votes_are_named_with_their_line(tmp_path: Path, votes: str, vote: str) -> None:
    with pytest.raises(BadData, match=vote):
        LLMFAO.read(llmfao(tmp_path, votes))


def pandalm_row(**changes: Any) -> dict[str, Any]:
    row = {"idx": 3, "instruction": "Shorten it.", "input": "A long text.", "response1": "Text.", "response2": "Long."}
    return row | {"annotator1": 1, "annotator2": 0, "annotator3": 2} | changes


def write_pandalm(folder: Path, *rows: dict[str, Any]) -> Path:
    (folder / "testset-v1.json").write_text(json.dumps(rows))
    return folder


def test_pandalm_rows_have_three_votes_and_an_input_after_the_instruction(tmp_path: Path) -> None:
    rows = [pandalm_row(), pandalm_row(input=""), pandalm_row(response1=True), pandalm_row(response2=" ")]
    data = PANDALM.read(write_pandalm(tmp_path, *rows))
    assert [item.prompt for item in data.items] == [as_prompt("Shorten it.\n\nA long text."), as_prompt("Shorten it.")]
    assert [(p.winner, p.loser, p.probability) for p in data.items[0].preferences] == [
        (0, 1, 1),
        (0, 1, 0.5),
        (1, 0, 1),
    ]
    assert data.dropped == {"reply is not a text": 1, "empty reply": 1}


@pytest.mark.parametrize(("vote", "shown"), [(3, "3"), ("1", "'1'"), (None, "null"), ([1], r"\[1\]"), (True, "True")])
def test_a_vote_that_is_none_of_the_three_is_refused(tmp_path: Path, vote: object, shown: str) -> None:
    with pytest.raises(BadData, match=rf"testset-v1\.json:2: an annotator says {shown}; wanted 0"):
        PANDALM.read(write_pandalm(tmp_path, pandalm_row(), pandalm_row(annotator2=vote)))


def tulu_row(a: str, b: str, vote: str, id: str) -> dict[str, str]:
    return {"id": id, "prompt": "Name a fruit.", "completion_a": a, "completion_b": b, "preference": vote}


def test_tulu_votes_on_a_pair_meet_whichever_reply_is_called_a(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        tulu_row("Fig.", "Brick.", "a-is-better", "1"),
        tulu_row("Brick.", "Fig.", "b-is-slightly-better", "2"),
        tulu_row("Brick.", "Fig.", "tie", "3"),
        {"evaluator": None},
        tulu_row("Brick.", "Fig.", "b-is-better", "4"),
    ]
    data = TULU1_HUMAN.read(write_lines(tmp_path / "eval_annotations_tulu_1.jsonl", rows).parent)
    (made,) = data.items
    assert (made.id, made.replies) == ("1", ("Fig.", "Brick."))
    assert ballots_of(sample_of([made], [scored([1, 0])])).votes.tolist() == [[3, 1, 0]]
    assert data.dropped == {"one more vote on an earlier pair": 3, "no vote": 1}
    rows[4]["preference"] = "b"
    write_lines(tmp_path / "eval_annotations_tulu_1.jsonl", rows)
    with pytest.raises(BadData, match=r"jsonl:5: 'preference' is 'b'"):
        TULU1_HUMAN.read(tmp_path)


def test_lfqa_rows_have_one_vote(tmp_path: Path) -> None:
    rows = [
        {"question": "Why?", "answer_a": "So.", "answer_b": "Because.", "overall_preference": vote} for vote in (-1, 1)
    ]
    data = LFQA_EXPERTS.read(write_lines(tmp_path / "experts_pairwise_human_preferences.jsonl", rows).parent)
    assert [[(p.winner, p.loser) for p in item.preferences] for item in data.items] == [[(0, 1)], [(1, 0)]]
    rows[0]["overall_preference"] = 2
    write_lines(tmp_path / "experts_pairwise_human_preferences.jsonl", rows)
    with pytest.raises(BadData, match=r"jsonl:1: 'overall_preference' is 2\.0"):
        LFQA_EXPERTS.read(tmp_path)


@pytest.mark.shared_data
def test_pandalm_as_published(shared_data: Path) -> None:
    rows = json.loads((shared_data / "pandalm" / "testset-v1.json").read_text())
    kept = [
        row for row in rows if all(isinstance(row[f"response{i}"], str) and row[f"response{i}"].strip() for i in (1, 2))
    ]
    most = [Counter(row[f"annotator{i}"] for i in (1, 2, 3)).most_common(1)[0] for row in rows]
    assert sum(side in (1, 2) and count > 1 for side, count in most) == 894  # as the source says of all its rows
    data = PANDALM.read(shared_data / "pandalm")
    assert (data.read, len(data.items), len(kept)) == (999, 939, 939)
    scores = [[len(row["response1"]), len(row["response2"])] for row in kept]
    figures = measure(sample_of(data.items, list(map(scored, scores))))
    right, decided = [], 0
    for row, (first, second) in zip(kept, scores, strict=True):
        side, count = Counter(row[f"annotator{i}"] for i in (1, 2, 3)).most_common(1)[0]
        if side in (1, 2) and count > 1:
            decided += 1
            right.append(0.5 if first == second else float((first > second) == (side == 1)))
    result = estimate_all(figures, Bootstrap(resamples=1))["Majority"]
    assert (result.n, result.value) == (decided, pytest.approx(np.mean(right)))


@pytest.mark.shared_data
def test_counts_of_other_published_votes(shared_data: Path) -> None:
    tulu = TULU1_HUMAN.read(shared_data / "tulu1-human-eval")
    assert (tulu.read, tulu.dropped["no vote"], len(tulu.items) + tulu.dropped["equal replies"]) == (1302, 152, 979)
    lfqa = LFQA_EXPERTS.read(shared_data / "lfqa-experts")
    assert Counter(item.preferences[0].winner for item in lfqa.items) == {0: 140, 1: 120}


@pytest.mark.shared_data
def test_every_llmfao_vote_on_two_texts_is_a_preference(shared_data: Path) -> None:
    """As counted from the two files: 8,931 votes on 2,139 pairs, of which 289 pairs hold an empty reply."""
    folder = shared_data / "llmfao"
    with (folder / "crowd-comparisons.csv").open(encoding="utf-8", newline="") as file:
        votes = [(row["id"], row["winner"]) for row in csv.DictReader(file)]
    pairs = [json.loads(line) for line in (folder / "pairs-crowd.jsonl").read_text(encoding="utf-8").splitlines()]
    whole = {str(pair["id"]) for pair in pairs if pair["result_x"].strip() and pair["result_y"].strip()}
    wanted = Counter(winner for id, winner in votes if id in whole)
    data = LLMFAO.read(folder)
    assert (data.read, len(data.items), data.dropped) == (2139, len(whole), {"empty reply": 2139 - len(whole)})
    kept = [vote for item in data.items for vote in item.preferences]
    result = Counter("tie" if vote.probability == 0.5 else ("left", "right")[vote.winner] for vote in kept)
    assert (len(votes), result) == (8931, wanted)
