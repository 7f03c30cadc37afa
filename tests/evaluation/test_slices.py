"""Accuracy of parts of a sample, and which part is the worst beyond chance."""

import json
from dataclasses import replace

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from prefrank.errors import BadInput
from prefrank.evaluation import Bootstrap, Estimate, Sample, measure, wilson
from prefrank.evaluation.samples import shares, wins
from prefrank.evaluation.slices import Slice, mark_worst, share_of, slices
from prefrank.io.schema import plain
from prefrank.types import Preference
from tests.evaluation.samples import facts, pair_sample, random_sample, scores


def table(sample: Sample, name: str, **tags: list[str]) -> dict[str, float | None]:
    return {part.value: part.accuracy.value for part in slices(sample, tags=tags) if part.name == name}


def scored_item(margin: float, *, cut: bool = False, lengths: tuple[int, int] = (10, 10), **more: object) -> tuple:
    return facts([Preference(0, 1)], lengths, **more), scores([margin, 0.0], cut=cut)


def sample_of(*pairs: tuple) -> Sample:
    return Sample(tuple(each for each, _ in pairs), tuple(each for _, each in pairs))


def test_a_share_with_one_pair_for_each_prompt_has_wilsons_interval() -> None:
    sample = pair_sample([1.0] * 45 + [-1.0] * 15)
    result = share_of(wins(sample.margin), np.ones(60), sample.pairs, confidence=0.9)
    low, high = proportion_confint(45, 60, alpha=0.1, method="wilson")
    assert (result.value, result.low, result.high) == (0.75, pytest.approx(low), pytest.approx(high))
    assert (result.n, result.unit, result.prompts) == (60, "pairs", 60)


def test_copies_of_a_pair_in_its_prompt_leave_a_share_as_it_is() -> None:
    margins, prompts = [1.0] * 30 + [-1.0] * 12, [k / 42 for k in range(42)]
    sample, copied = pair_sample(margins, prompts=prompts), pair_sample(margins * 3, prompts=prompts * 3)
    alone, copies = (
        share_of(wins(s.margin), np.ones(len(s.margin)), s.pairs, confidence=0.95) for s in (sample, copied)
    )
    assert (copies.value, copies.low, copies.high) == pytest.approx((alone.value, alone.low, alone.high))
    assert (copies.n, copies.prompts) == (126, 42)


def test_independent_pairs_of_a_prompt_count_as_they_are() -> None:
    right = np.random.default_rng(0).random(4000) < 0.7
    margins, prompts = np.where(right, 1.0, -1.0).tolist(), (np.arange(4000) // 4 / 1000).tolist()
    sample = pair_sample(margins, prompts=prompts)
    result = share_of(wins(sample.margin), np.ones(4000), sample.pairs, confidence=0.95)
    low, high = wilson(float(right.sum()), 4000)
    assert result.high - result.low == pytest.approx(high - low, rel=0.1)


def test_a_share_of_few_prompts_has_no_more_trials_than_prompts() -> None:
    for right in (5, 6):  # of ten in the second prompt: as in the first, or nearly
        margins = [1.0] * 5 + [-1.0] * 5 + [1.0] * right + [-1.0] * (10 - right)
        sample = pair_sample(margins, prompts=[0.1] * 10 + [0.2] * 10)
        result = share_of(wins(sample.margin), np.ones(20), sample.pairs, confidence=0.95)
        assert (result.low, result.high) == pytest.approx(wilson((5 + right) / 10, 2))


def test_an_empty_share_has_no_value() -> None:
    sample = pair_sample([1.0])
    result = share_of(wins(sample.margin), np.zeros(1), sample.pairs, confidence=0.95)
    assert (result.value, result.low, result.high, result.n, result.prompts) == (None, None, None, 0, 0)


def test_slices_make_up_the_whole() -> None:
    sample = random_sample(0, items=80, prompts=50, replies=4)
    sample = replace(sample, facts=tuple(replace(f, subset="ab"[k % 2]) for k, f in enumerate(sample.facts)))
    whole = measure(sample, bootstrap=Bootstrap(50)).accuracy.value
    mass = shares(sample.pairs, sample.pairs.decided)
    longer = np.sign(sample.lengths[sample.pairs.ahead] - sample.lengths[sample.pairs.behind])
    result = table(sample, "preferred")
    parts = [mass[longer == 1].sum() * result["longer"], mass[longer == -1].sum() * result["shorter"]]
    if "as long" in result:
        parts.append(mass[longer == 0].sum() * result["as long"])
    assert sum(parts) / mass.sum() == pytest.approx(whole)
    assert sum(table(sample, "subset").values()) / 2 == pytest.approx(whole)


def test_each_fact_has_its_slice() -> None:
    sample = sample_of(
        scored_item(1.0, prompt=0.1, subset="a", turns=1, language="en", lengths=(50, 60)),
        scored_item(-1.0, prompt=0.2, subset="b", turns=3, language="de", lengths=(600, 500), cut=True),
        scored_item(0.0, prompt=0.3, subset="b", turns=5, language="", lengths=(700, 700)),
    )
    assert table(sample, "subset") == {"a": 1.0, "b": 0.25}
    assert table(sample, "turns") == {"1": 1.0, "3 or more": 0.25}
    assert table(sample, "reply length") == {"under 100": 1.0, "500 to 1,999": 0.25}
    assert table(sample, "preferred") == {"shorter": 1.0, "longer": 0.0, "as long": 0.5}
    assert table(sample, "cut") == {"whole": 0.75, "cut": 0.0}
    assert table(sample, "language") == {"en": 1.0, "de": 0.0}  # one that states none is in no slice
    assert table(sample, "prompt length") == {}  # of one value only


def test_a_failed_score_is_lost_in_its_slice() -> None:
    sample = sample_of(scored_item(float("nan"), prompt=0.1, subset="a"), scored_item(1.0, prompt=0.2, subset="b"))
    assert table(sample, "subset") == {"a": 0.0, "b": 1.0}


def test_ties_are_in_no_slice() -> None:
    tie = (facts([Preference(0, 1, 0.5)], (10, 10), subset="tied"), scores([1.0, 0.0]))
    sample = sample_of(tie, scored_item(1.0, subset="a"), scored_item(1.0, subset="b"))
    assert set(table(sample, "subset")) == {"a", "b"}
    assert slices(sample_of(tie)) == ()


def test_tags_of_the_users_are_slices() -> None:
    sample = pair_sample([1.0, -1.0, 1.0])
    assert table(sample, "topic", topic=["bread", "rain", ""]) == {"bread": 1.0, "rain": 0.0}
    with pytest.raises(BadInput, match="'topic' has 2 values for 3 items"):
        slices(sample, tags={"topic": ["bread", "rain"]})
    with pytest.raises(BadInput, match="'turns' has the name of a slice"):
        slices(sample, tags={"turns": ["a", "b", "c"]})


def by_tag(rates: dict[str, tuple[int, int]]) -> tuple:
    """Slices of pairs with the given number of right ones, of all, under each tag."""
    margins = [margin for right, count in rates.values() for margin in [1.0] * right + [-1.0] * (count - right)]
    tags = [name for name, (_, count) in rates.items() for _ in range(count)]
    return slices(pair_sample(margins), tags={"topic": tags})


def test_the_worst_slice_is_the_lowest_that_is_beyond_chance() -> None:
    result = by_tag({"good": (180, 200), "poor": (50, 100), "few": (2, 10), "middling": (60, 100)})
    assert [part.value for part in result if part.worst] == ["poor"]  # "few" is lower, of too few prompts to say so


def test_what_people_preferred_is_never_the_worst_slice() -> None:
    by_length = pair_sample([1.0] * 60 + [-1.0] * 40, longer=[5] * 60 + [-5] * 40)
    result = slices(by_length, tags={"topic": ["a", "b"] * 50})
    assert {part.value: part.accuracy.value for part in result if part.name == "preferred"} == {
        "longer": 1,
        "shorter": 0,
    }
    assert not any(part.worst for part in result)


def test_values_with_an_order_come_in_it() -> None:
    sample = sample_of(*(scored_item(1.0, turns=turns, prompt=turns / 9) for turns in (5, 1, 2, 3)))
    assert list(table(sample, "turns")) == ["1", "2", "3 or more"]


def test_no_slice_is_the_worst_where_all_are_alike() -> None:
    assert not any(part.worst for part in by_tag({"a": (75, 100), "b": (70, 100), "c": (78, 100)}))


def test_the_more_values_are_looked_at_the_lower_the_worst_must_be() -> None:
    few = by_tag({"low": (18, 40), "high": (140, 200)})
    many = by_tag({"low": (18, 40)} | {f"high {k}": (7, 10) for k in range(20)})
    assert [part.value for part in few if part.worst] == ["low"]
    assert not any(part.worst for part in many)


def test_the_worst_by_chance_is_rarely_marked() -> None:
    random, marked = np.random.default_rng(0), 0
    for right in random.binomial(60, 0.7, (1000, 10)).tolist():
        shares_of = [Estimate(each / 60, *wilson(float(each), 60), 60, "pairs", 60) for each in right]
        whole = Estimate(sum(right) / 600, *wilson(float(sum(right)), 600), 600, "pairs", 600)
        marked += any(part.worst for part in mark_worst([Slice("", "", part) for part in shares_of], whole, 0.95))
    assert marked <= 40  # 2.5 % by Bonferroni; without the widening it is 17 %


def test_the_json_has_the_run_files_keys() -> None:
    result = json.loads(json.dumps([plain(part) for part in by_tag({"a": (3, 4), "b": (4, 4)})], allow_nan=False))
    assert set(result[0]) == {"name", "value", "accuracy", "worst"}
    assert (result[0]["name"], result[0]["value"], result[0]["accuracy"]["value"]) == ("topic", "a", 0.75)
