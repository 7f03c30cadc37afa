"""Several runs as one: what is joined, what is kept apart, and what was spent."""

import inspect
from dataclasses import replace

import pytest

from prefrank.errors import BadData, BadInput
from prefrank.evaluation.audit_results import Audit
from prefrank.evaluation.merging import merged
from prefrank.evaluation.results import Run, SuiteResult
from tests.evaluation.run_files import made_run


def with_suite(run: Run, name: str, **changes: object) -> Run:
    return replace(run, suites={**run.suites, name: replace(run.suites[name], **changes)})


def tokens(result: SuiteResult) -> int:
    return sum(map(sum, result.tokens))


def test_runs_of_the_same_data_share_their_suites() -> None:
    both = merged([made_run(scorers=("good", "random")), made_run(scorers=("random", "long"))])
    assert [scorer.name for scorer in both.scorers] == [
        "acme/minilm-hh", "OpenAssistant/reward-model-deberta-v3-large-v2", "random",
    ]  # fmt: skip
    assert len(both.suites) == 4


def test_runs_of_other_data_are_kept_apart() -> None:
    first = made_run(suites=("helpful",))
    second = with_suite(made_run(suites=("helpful",), seed=1), "helpful", data="f" * 64)
    both = merged([first, second])
    assert list(both.suites) == ["helpful", "helpful (ffffffff)"]
    assert both.suites["helpful (ffffffff)"].title == "Helpful and harmless (data ffffffff)"
    assert set(both.scorers[0].results) == {"helpful", "helpful (ffffffff)"}
    assert both.comparison is not None
    assert {pair.suite for pair in both.comparison.pairs} == set(both.suites)


def test_equal_data_in_another_order_keep_their_own_scores() -> None:
    first, second = made_run(scorers=("random",), items=40), made_run(scorers=("good",), items=40)
    (scorer,) = second.scorers
    turned = {
        name: replace(
            result,
            scores=result.scores[::-1],
            tokens=result.tokens[::-1],
            cut_prompt=result.cut_prompt[::-1],
            cut_reply=result.cut_reply[::-1],
        )
        for name, result in scorer.results.items()
    }
    suites = {name: replace(suite, items=suite.items[::-1]) for name, suite in second.suites.items()}
    both = merged([first, replace(second, suites=suites, scorers=(replace(scorer, results=turned),))])
    assert both.scorers[0].results == scorer.results


def test_one_hash_of_different_items_is_refused() -> None:
    first, second = made_run(scorers=("random",), items=40), made_run(scorers=("good",), items=40)
    items = second.suites["helpful"].items
    for odd in (items[1:], (replace(items[0], id="another"), *items[1:])):
        with pytest.raises(BadData, match="one hash to data of different items"):
            merged([first, with_suite(second, "helpful", items=odd)])


def test_what_several_runs_of_a_scorer_spent_adds_up() -> None:
    """The second run's share of the suite that the first has too is not counted twice."""
    first = made_run(scorers=("good",), suites=("helpful",))
    second = made_run(scorers=("good",), suites=("helpful", "probes"), seed=1)
    audit = Audit(1, 1, "another", 1.0, ())
    model = replace(first.scorers[0], scoring_s=2.0, evaluating_s=0.5, tokens=1000, replies=10, audit=None)
    results = {**second.scorers[0].results, "helpful": model.results["helpful"]}
    size = {suite: tokens(result) for suite, result in results.items()}
    again = replace(second.scorers[0], results=results, scoring_s=8.0, evaluating_s=1.0, replies=100, audit=audit)
    first = replace(first, scorers=(model,))
    second = replace(second, scorers=(replace(again, tokens=sum(size.values())),))
    second = replace(second, suites={**second.suites, "helpful": first.suites["helpful"]})
    (both,) = merged([first, second]).scorers
    share = size["probes"] / sum(size.values())
    assert both.scoring_s == pytest.approx(2 + 8 * share)
    assert (both.tokens, both.replies) == (1000 + size["probes"], 10 + round(100 * share))
    assert both.audit == audit
    (twice,) = merged([first, first]).scorers
    assert (twice.scoring_s, twice.evaluating_s, twice.tokens, twice.replies) == (2.0, 0.5, 1000, 10)


def test_two_models_of_one_name_are_told_apart() -> None:
    run = made_run(scorers=("good",))
    other = replace(run, scorers=(replace(run.scorers[0], model="another"),))
    assert [scorer.name for scorer in merged([run, other]).scorers] == ["acme/minilm-hh", "acme/minilm-hh (2)"]


def test_a_merged_run_has_every_command_and_the_last_time() -> None:
    first, second = made_run(suites=("helpful",)), replace(made_run(suites=("probes",)), created="2027")
    both = merged([first, second, replace(first, command=None)])
    assert both.command == f"{first.command}\n{second.command}"
    assert both.created == "2027"
    assert merged([replace(first, command=None)]).command is None


def test_no_run_is_refused() -> None:
    with pytest.raises(BadInput, match="at least one run file"):
        merged([])
    with pytest.raises(BadInput, match="give one of read_run or run_all"):
        inspect.unwrap(merged)([{"suites": {}, "scorers": []}])  # without the tests' own check of types
