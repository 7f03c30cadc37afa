"""Several people's votes on one pair, ties among them: what a scorer agrees with, voter by voter and with the majority.

Every vote is a preference of its item (a tie has probability 0.5).
- A tie between people is an answer here, not a gap: with three classes a scorer says "tie" where its margin is at most
  a threshold, which is chosen on other prompts than those it is judged on (cross-fitting), else it would flatter.
- No scorer can agree with people who disagree among themselves, so the accuracy is also given as a share of the most
  that any scorer could reach on the same votes.
- A failed score agrees with nobody; correlation and log loss have no value then.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from prefrank.data.candidates import EMPTY_REPLY, EQUAL_REPLIES, Drop
from prefrank.data.fields import FileRow, as_number, field, maybe_text, short, text, user
from prefrank.errors import BadData
from prefrank.evaluation.credits import ACCURACY, credits, mean_over, pairwise
from prefrank.evaluation.items import Item
from prefrank.evaluation.metrics import log_losses
from prefrank.evaluation.protocols.reading import published_files, read_items, records_of
from prefrank.evaluation.protocols.suite import Suite, SuiteData
from prefrank.evaluation.samples import Sample, difference
from prefrank.io.csv_rows import csv_table
from prefrank.io.rows import Record
from prefrank.stats.arrays import distinct
from prefrank.stats.correlation import spearman
from prefrank.stats.figures import Figure, mean_figure, ratio, undefined
from prefrank.types import Preference, Prompt

FOLDS = 5
"""Parts of the prompts in cross-fitting: each part's threshold comes from the other four."""

NOT_TEXT, NO_VOTE, UNKNOWN_PAIR = "reply is not a text", "no vote", "votes on a pair that is not there"
LATER_VOTE = "one more vote on an earlier pair"
VOTES: Mapping[str, Preference] = {"left": Preference(0, 1), "right": Preference(1, 0), "tie": Preference(0, 1, 0.5)}


@dataclass(frozen=True, slots=True, eq=False)
class Ballots:
    """B pairs of replies that people voted on.

    Args:
        votes: [B, 3] how many for the first reply, for a tie, for the second.
        margin: [B] score of the first less that of the second; NaN where one failed.
        prompts: [B] as in `Sample.pairs`.
    """

    votes: Float64[np.ndarray, "B 3"]
    margin: Float64[np.ndarray, " B"]
    prompts: Int64[np.ndarray, " B"]

    @property
    def shares(self) -> Float64[np.ndarray, "B 3"]:
        return self.votes / self.votes.sum(1, keepdims=True)

    @property
    def majority(self) -> Bool[np.ndarray, "B 3"]:
        """What more than half voted for; at most one of the three."""
        return self.shares > 0.5

    @property
    def choice(self) -> Float64[np.ndarray, "B 3"]:
        """1 for what the scores say without a threshold, half of each side for equal ones; nothing for a failure."""
        equal = 0.5 * (self.margin == 0)
        return np.stack([(self.margin > 0) + equal, np.zeros_like(equal), (self.margin < 0) + equal], 1)


def ballots_of(sample: Sample) -> Ballots:
    """Votes on the same two replies of an item, in either direction, together; a vote counts its weight."""
    pairs = sample.pairs
    first, second = np.minimum(pairs.ahead, pairs.behind), np.maximum(pairs.ahead, pairs.behind)
    _, place, ballot = np.unique(first * len(sample.values) + second, return_index=True, return_inverse=True)
    choice = np.where(pairs.decided, np.where(pairs.ahead == first, 0, 2), 1)
    votes = np.bincount(3 * ballot + choice, pairs.weight, 3 * len(place)).reshape(-1, 3)
    margin = difference(sample.values[first[place]], sample.values[second[place]])
    return Ballots(votes, margin, pairs.prompt[pairs.comparison[place]])


def thresholds(
    size: Float64[np.ndarray, " B"],
    as_side: Float64[np.ndarray, " B"],
    as_tie: Float64[np.ndarray, " B"],
    prompts: Int64[np.ndarray, " B"],
    *,
    seed: int = 0,
) -> Float64[np.ndarray, " B"] | None:
    """For each pair the threshold that agrees best on other prompts; None where there is only one prompt.

    Args:
        size: [B] of the margin, NaN where a score failed.
        as_side: [B] agreement where the scores' side is the answer.
        as_tie: [B] agreement where "tie" is.
    """
    different = distinct(prompts)
    folds = min(FOLDS, len(different))
    if folds < 2:
        return None
    fold = np.random.default_rng(seed).permutation(len(different))[np.searchsorted(different, prompts)] % folds
    chosen = np.zeros(len(size))
    for number in range(folds):
        other = (fold != number) & ~np.isnan(size)
        chosen[fold == number] = _best_threshold(size[other], (as_tie - as_side)[other])
    return chosen


def _best_threshold(size: Float64[np.ndarray, " n"], gain: Float64[np.ndarray, " n"]) -> float:
    """The least t >= 0 with the most summed gain over sizes up to t."""
    ends, place = np.unique(np.append(size, 0.0), return_inverse=True)  # equal margins are ties together or not at all
    return float(ends[np.cumsum(np.bincount(place[:-1], gain, len(ends))).argmax()])


def three_way(ballots: Ballots, target: Float64[np.ndarray, "B 3"], *, seed: int = 0) -> Figure:
    """Agreement on first, tie or second, a margin up to a cross-fitted threshold being a tie.

    Args:
        target: [B, 3] what saying each of the three is worth on each pair.
    """
    size, at = np.abs(ballots.margin), np.arange(len(target))
    as_side, as_tie = target[at, np.where(ballots.margin < 0, 2, 0)], target[:, 1]
    limit = thresholds(size, as_side, as_tie, ballots.prompts, seed=seed)
    if limit is None:
        return undefined(ballots.prompts)
    got = np.where(size > limit, as_side, as_tie)
    return mean_figure(np.where(np.isnan(size), 0.0, got), ballots.prompts, bounds=(0.0, 1.0))


@np.errstate(over="ignore", invalid="ignore")  # what is too large for a sum has no value
def measure(sample: Sample) -> dict[str, Figure]:
    """Agreement with single votes (the headline), with majorities, and of margins with how much people agree."""
    ballots, everywhere = ballots_of(sample), np.ones(len(sample.facts), bool)
    clear, several = ballots.majority.any(1), ballots.votes.sum(1) >= 2
    sided = ballots.majority[:, [0, 2]].any(1)
    right = (ballots.choice * ballots.majority).sum(1)
    halves = ballots.shares[:, [0, 2]] + 0.5 * ballots.shares[:, [1]]  # a tied vote is half for each side
    got = (ballots.choice[:, [0, 2]] * halves).sum(1)
    one_sided = np.abs(ballots.shares[:, 0] - ballots.shares[:, 2])
    chosen = Ballots(ballots.votes[clear], ballots.margin[clear], ballots.prompts[clear])
    return {
        ACCURACY: mean_over(sample, credits(sample, "half"), everywhere),
        "Majority": mean_figure(right[sided], ballots.prompts[sided], bounds=(0.0, 1.0)),
        "Three classes/votes": three_way(ballots, ballots.shares),
        "Three classes/majority": three_way(chosen, chosen.majority.astype(np.float64)),
        "Share of the ceiling": ratio(got[several], halves[several].max(1), ballots.prompts[several]),
        "Log loss": _log_loss(sample),
        "Margin and agreement": spearman(np.abs(ballots.margin), one_sided, ballots.prompts),
    }


def _log_loss(sample: Sample) -> Figure:
    """Log loss of the votes, each a label: the cross-entropy against the shares of the votes, in nats."""
    pairs, size = sample.pairs, len(sample.facts)
    total = np.bincount(pairs.comparison, pairs.weight * log_losses(sample.margin, pairs), size)
    return mean_figure(total / np.bincount(pairs.comparison, pairs.weight, size), pairs.prompt, bounds=None)


def voted_item(
    prompt: Prompt, replies: tuple[str, str], votes: tuple[Preference, ...], id: str, subset: str
) -> Item | Drop:
    """Two replies and the votes on them, unless nobody can be right about them."""
    if not all(reply.strip() for reply in replies):
        return Drop(EMPTY_REPLY)
    if replies[0] == replies[1]:
        return Drop(EQUAL_REPLIES)
    return Item(prompt, replies, votes, subset, id) if votes else Drop(NO_VOTE)


def read_pandalm(folder: Path) -> SuiteData:
    """`testset-v1.json`: instruction, input, response1, response2 and annotator1 to 3, each 1, 2 or 0 for a tie.

    Six published replies are the JSON value true in place of a text; they are left out and counted.
    """
    return read_items(records_of(published_files(folder, _PANDALM)), _pandalm)


def _pandalm(record: Record) -> Item | Drop:
    row, sides = record.row, {0: "tie", 1: "left", 2: "right"}
    answers = [field(row, f"annotator{number}") for number in (1, 2, 3)]
    if wrong := [answer for answer in answers if type(answer) is not int or answer not in sides]:
        raise BadData(f"an annotator says {short(wrong[0])}; wanted 0 (tie), 1 or 2")
    if any(isinstance(field(row, name), bool) for name in ("response1", "response2")):
        return Drop(NOT_TEXT)
    parts = [part for part in (text(row, "instruction"), maybe_text(row, "input")) if part.strip()]
    replies, votes = (text(row, "response1"), text(row, "response2")), tuple(VOTES[sides[answer]] for answer in answers)
    return voted_item(user("\n\n".join(parts)), replies, votes, str(field(row, "idx")), "pandalm")


def read_llmfao(folder: Path) -> SuiteData:
    """`pairs-crowd.jsonl` (id, text, result_x, result_y) and the votes in `crowd-comparisons.csv`.

    A vote has the pair's id and a winner: left for result_x, right for result_y, or tie.
    """
    (pairs,), (votes,) = (published_files(folder, (name,)) for name in _LLMFAO)
    winners = _votes(votes)

    def item(record: Record) -> Item | Drop:
        row, id = record.row, str(field(record.row, "id"))
        replies, cast = (
            (text(row, "result_x"), text(row, "result_y")),
            tuple(VOTES[winner] for winner in winners.pop(id, ())),
        )
        return voted_item(user(text(row, "text")), replies, cast, id, "llmfao")

    data = read_items(records_of((pairs,)), item)
    unknown = {UNKNOWN_PAIR: len(winners)} if winners else {}
    return SuiteData(data.items, data.read + len(winners), {**data.dropped, **unknown})


def _votes(path: Path) -> dict[str, list[str]]:
    """Winners by the pair's id."""
    winners: dict[str, list[str]] = {}
    columns, rows = csv_table(path)
    if missing := [name for name in ("id", "winner") if name not in columns]:
        raise BadData(f"{path}: no column {missing[0]!r}; the columns are {', '.join(columns)}")
    for line, row in rows:
        if row["winner"] not in VOTES:
            raise BadData(f"{path}:{line}: 'winner' is {short(row['winner'])}; wanted one of {', '.join(VOTES)}")
        winners.setdefault(row["id"], []).append(row["winner"])
    return winners


def read_lfqa(folder: Path) -> SuiteData:
    """`experts_pairwise_human_preferences.jsonl`: question, answer_a, answer_b, overall_preference -1 (a) or 1."""
    return read_items(records_of(published_files(folder, _LFQA)), _lfqa)


def _lfqa(record: Record) -> Item | Drop:
    row, sides = record.row, {-1: "left", 0: "tie", 1: "right"}
    answer = as_number(field(row, "overall_preference"), "overall_preference")
    if answer not in sides:
        raise BadData(f"'overall_preference' is {short(answer)}; wanted -1, 0 or 1")
    replies = (text(row, "answer_a"), text(row, "answer_b"))
    return voted_item(
        user(text(row, "question")), replies, (VOTES[sides[int(answer)]],), str(record.line), "lfqa-experts"
    )


def read_tulu(folder: Path) -> SuiteData:
    """`eval_annotations_tulu_1.jsonl`: one row for each person and pair, in which either reply may be called a.

    A pair's votes meet in its first row; its later rows are counted as such, and so are rows without a vote.
    """
    records = tuple(records_of(published_files(folder, _TULU)))
    pairs: dict[tuple[bool, str, frozenset[str]], list[FileRow]] = {}
    for record in records:
        if (answer := record.row.get("preference")) and answer not in tuple(_TULU_VOTES):
            raise BadData(f"{record.where}: 'preference' is {short(answer)}; wanted one of {', '.join(_TULU_VOTES)}")
        pairs.setdefault(_tulu_pair(record.row), []).append(record.row)

    def item(record: Record) -> Item | Drop:
        row, group = record.row, pairs[_tulu_pair(record.row)]
        if not row.get("preference"):
            return Drop(NO_VOTE)
        if row is not group[0]:
            return Drop(LATER_VOTE)
        replies = (text(row, "completion_a"), text(row, "completion_b"))
        votes = tuple(_tulu_vote(other, replies[0]) for other in group)
        return voted_item(user(text(row, "prompt")), replies, votes, text(row, "id"), "tulu1-human-eval")

    return read_items(records, item)


def _tulu_pair(row: FileRow) -> tuple[bool, str, frozenset[str]]:
    """Equal for votes on the same two replies."""
    replies = frozenset(str(row.get(name)) for name in ("completion_a", "completion_b"))
    return bool(row.get("preference")), str(row.get("prompt")), replies


def _tulu_vote(row: FileRow, first: str) -> Preference:
    vote = _TULU_VOTES[row["preference"]]
    return vote if row["completion_a"] == first else replace(vote, winner=vote.loser, loser=vote.winner)


_LFQA = ("experts_pairwise_human_preferences.jsonl",)
_TULU = ("eval_annotations_tulu_1.jsonl",)
_PANDALM = ("testset-v1.json",)
_LLMFAO = ("pairs-crowd.jsonl", "crowd-comparisons.csv")
_TULU_VOTES = {
    "a-is-better": VOTES["left"],
    "a-is-slightly-better": VOTES["left"],
    "tie": VOTES["tie"],
    "b-is-slightly-better": VOTES["right"],
    "b-is-better": VOTES["right"],
}

LLMFAO = Suite(
    name="llmfao",
    title="LLMFAO crowd votes",
    hub="",
    layout=_LLMFAO,
    read=read_llmfao,
    measure=measure,
    source="github.com/dustalov/llmfao",
    ties="half",
)
PANDALM = Suite(
    name="pandalm",
    title="PandaLM test set, three votes each",
    hub="",
    layout=_PANDALM,
    read=read_pandalm,
    measure=measure,
    source="Wang et al., arXiv 2306.05087; github.com/WeOpenML/PandaLM, data/testset-v1.json",
    ties="half",
)
TULU1_HUMAN = Suite(
    name="tulu1-human-eval",
    title="Tulu 1 human evaluation",
    hub="",
    layout=_TULU,
    read=read_tulu,
    measure=measure,
    source="Wang et al., arXiv 2306.04751; github.com/allenai/open-instruct, human_eval",
    ties="half",
)
LFQA_EXPERTS = Suite(
    name="lfqa-experts",
    title="Experts on long-form answers, one vote each",
    hub="",
    layout=_LFQA,
    read=read_lfqa,
    measure=pairwise,
    source="Xu et al., ACL 2023, arXiv 2305.18201",
    ties="half",
)
