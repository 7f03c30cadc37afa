import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from prefrank.data import split_of
from prefrank.evaluation import longer_wins, sample_of, shorter_wins
from prefrank.evaluation.items import Item
from prefrank.evaluation.one_scorer import score_once
from prefrank.evaluation.protocols.probes import KINDS, PROBES, measure, read
from prefrank.evaluation.samples import Sample
from prefrank.stats.bootstrap import Bootstrap
from prefrank.stats.estimates import estimate_all
from prefrank.stats.figures import Figure
from prefrank.types import Prompt
from tests.evaluation.making import scored

ITEMS = read().items


def judged(prefers_good: Callable[[Item], bool]) -> Sample:
    return sample_of(ITEMS, [scored([1, 0] if prefers_good(item) else [0, 1]) for item in ITEMS])


def value(figure: Figure) -> float | None:
    return estimate_all({"it": figure}, Bootstrap(resamples=10))["it"].value


def values(sample: Sample) -> dict[str, float | None]:
    return {name: value(figure) for name, figure in measure(sample).items()}


def of_kind(kind: str) -> list[Item]:
    return [item for item in ITEMS if item.subset == kind]


def test_every_kind_has_probes_and_prompts_are_shared() -> None:
    counts = Counter(item.subset for item in ITEMS)
    assert list(counts) == list(KINDS)
    assert min(counts.values()) >= 12
    assert len({item.prompt for item in ITEMS}) == 50
    assert sum(len(item.prompt) > 1 for item in of_kind("empty")) >= 6
    assert len({item.id for item in ITEMS}) == len(ITEMS) == 644


def test_prompts_are_the_clusters_across_kinds() -> None:
    """Fifteen pairs of one prompt are one piece of evidence, and no two prompts are taken for one."""
    assert len({split_of(item.prompt) for item in ITEMS}) == 50
    overall = estimate_all({"it": measure(judged(lambda item: True))["Overall"]}, Bootstrap(resamples=10))["it"]
    assert (overall.prompts, overall.n) == (50, len(ITEMS))


def test_each_pair_is_a_good_reply_against_another_text() -> None:
    good = {item.prompt: item.replies[0] for item in ITEMS}
    for item in ITEMS:
        assert item.replies[0] == good[item.prompt]
        assert len(item.replies[0]) > 40
        assert item.replies[0] != item.replies[1]
        assert [(p.winner, p.loser, p.probability) for p in item.preferences] == [(0, 1, 1.0)]


def test_the_data_come_with_the_package_whatever_the_folder(tmp_path: Path) -> None:
    assert PROBES.read(tmp_path / "nowhere").items == ITEMS
    assert (PROBES.hub, PROBES.layout, PROBES.ties) == ("", (), "wrong")


def test_the_headline_is_the_mean_of_the_kinds_and_not_of_the_pairs() -> None:
    result = values(judged(lambda item: item.subset != "sycophancy"))
    assert next(iter(result)) == "Overall"
    assert result["Overall"] == pytest.approx(14 / 15)
    assert result["sycophancy"] == 0.0
    assert result["rude"] == 1.0


def test_equal_scores_and_failures_are_wrong() -> None:
    for scores in ([0.5, 0.5], [math.nan, 0.0], [math.inf, 0.0], [1.0, math.nan]):
        assert set(values(sample_of(ITEMS, [scored(scores) for _ in ITEMS])).values()) == {0.0}


def test_without_one_of_the_kinds_there_is_no_headline() -> None:
    sample = judged(lambda item: True)
    result = values(sample.take([n for n, item in enumerate(ITEMS) if item.subset != "rude"]))
    assert result["Overall"] is result["rude"] is None
    assert result["insult"] == 1.0


def test_a_planted_weakness_shows_in_its_kind_alone() -> None:
    """A scorer that is right unless the reply asks for a high score."""
    good = {item.replies[0] for item in ITEMS}

    def score_pairs(pairs: Sequence[tuple[Prompt, str]]) -> list:
        praise = ("10/10", "highest score", "maximum reward", "rate it above")
        return scored([2.0 if any(p in reply for p in praise) else float(reply in good) for _, reply in pairs])

    result = values(sample_of(ITEMS, score_once(score_pairs, ITEMS)))
    assert {kind for kind in KINDS if result[kind] != 1.0} == {"self-praise"}
    assert result["self-praise"] == 0.0


def test_length_alone_passes_neither_way() -> None:
    longer, shorter = (values(sample_of(ITEMS, score_once(s, ITEMS))) for s in (longer_wins, shorter_wins))
    for result in (longer, shorter):
        assert result["Overall"] < 0.7
        assert 0.3 < result["sycophancy"] < 0.7
        assert 0.3 < result["wrong"] < 0.7
    assert longer["diluted"] == longer["appended-tokens"] == 0.0
    assert shorter["empty"] == shorter["refusal"] == 0.0


def test_worse_replies_are_of_their_kind() -> None:
    assert all(not item.replies[1].strip(" \n.") for item in of_kind("empty"))
    assert all(item.replies[1] == item.prompt[-1].text for item in of_kind("repeated-prompt"))
    assert all(item.replies[1].startswith(item.replies[0]) for item in of_kind("appended-tokens"))
    for item in of_kind("diluted"):
        good, diluted = item.replies
        assert len(diluted) > len(good) + 200
        assert all(sentence in diluted for sentence in good.replace("\n\n", ". ").split(". "))


def test_what_corrects_a_false_claim_is_no_request_to_refuse() -> None:
    corrected = {item.prompt for item in of_kind("sycophancy")}
    assert corrected
    assert not corrected & {item.prompt for item in of_kind("refusal")}
