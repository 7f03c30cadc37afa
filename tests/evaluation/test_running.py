from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prefrank.errors import BadData, BadInput, NotFound
from prefrank.evaluation import Bootstrap, Item, data_hash, longer_wins, random_scorer
from prefrank.evaluation.compare_runs import compare_runs
from prefrank.evaluation.protocols.suite import SuiteData
from prefrank.evaluation.results import RowCounts, Run, sample_of_run
from prefrank.evaluation.run_file import read_run, write_run
from prefrank.evaluation.running import Entrant, Task, comparisons_suite, run_all
from prefrank.types import Preference, Prompt, Score, as_prompt
from tests.evaluation.making import comparison, preference, scored

FAST = Bootstrap(resamples=200)


def items(count: int = 40, *, subset: str = "set") -> tuple[Item, ...]:
    """Pairs in which the better reply says how good it is; every other one is the longer."""
    return tuple(
        Item(
            as_prompt(f"question {n} of {subset}"),
            (f"good {n} " + "x" * (9 if n % 2 else 1), f"bad {n} " + "x" * 5),
            (Preference(0, 1),),
            subset,
            str(n),
        )
        for n in range(count)
    )


def knowing(pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
    """Right but for every tenth prompt."""
    return scored([float(("good" in reply) != prompt[0].text.split()[1].endswith("7")) for prompt, reply in pairs])


def part(*, name: str = "set", data: tuple[Item, ...] | None = None) -> Task:
    return Task(comparisons_suite(name), SuiteData(data or items(), 45, {"equal replies": 5}), "file.jsonl")


def entrants() -> list[Entrant]:
    return [Entrant("model", "python", knowing), Entrant("longer reply", "baseline", longer_wins)]


@pytest.fixture(scope="module")
def run() -> Run:
    return run_all(entrants(), [part()], bootstrap=FAST, command="prefrank evaluate")


def test_a_run_is_strict_json_and_reads_back_as_it_was(run: Run, tmp_path: Path) -> None:
    for name in ("run.json", "run.json.gz"):
        write_run(tmp_path / name, run)
        assert read_run(tmp_path / name) == run


def test_texts_that_hold_control_strings_are_counted_in_the_record() -> None:
    def counted(pairs: Sequence[tuple[Prompt, str]]) -> int:
        return len({reply for _, reply in pairs if "1" in reply})

    entrant = replace(entrants()[0], control_strings=counted)
    run = run_all([entrant, entrants()[1]], [part()], bootstrap=FAST)
    replies = {reply for item in items() for reply in item.replies if "1" in reply}
    assert [scorer.control_strings for scorer in run.scorers] == [len(replies), None]


def test_every_figure_can_be_measured_again_from_the_file(run: Run, tmp_path: Path) -> None:
    write_run(tmp_path / "run.json", run)
    sample = sample_of_run(read_run(tmp_path / "run.json"), "model", "set")
    assert np.mean(sample.margin > 0) == run.scorers[0].results["set"].figures["accuracy"].value == 0.9
    assert sample.facts[1].lengths == (len("good 1 ") + 9, len("bad 1 ") + 5)
    assert [score.tokens for score in sample.scores[0]] == [8, 8]


def test_rows_drops_and_origin_are_in_the_file(run: Run) -> None:
    suite = run.suites["set"]
    assert suite.rows == RowCounts(45, {"equal replies": 5}, {})
    assert (suite.where, suite.ties, len(suite.data)) == ("file.jsonl", "half", 64)
    assert run.command == "prefrank evaluate"


def test_a_failed_score_is_null_in_the_file_and_lost_in_every_figure(tmp_path: Path) -> None:
    def failing(pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
        return [replace(score, value=float("nan")) if score.value else score for score in knowing(pairs)]

    run = run_all([Entrant("broken", "python", failing)], [part()], bootstrap=FAST)
    write_run(tmp_path / "run.json", run)
    result = read_run(tmp_path / "run.json").scorers[0].results["set"]
    assert result.figures["accuracy"].value == 0.0
    assert result.overall.log_loss.value is None
    assert result.overall.counts.failures == 40
    assert None in result.scores[0]
    assert sample_of_run(run, "broken", "set").pairs.decided.all()


def test_worst_errors_have_their_texts_and_come_worst_first(run: Run) -> None:
    errors = run.scorers[0].results["set"].errors
    assert [error.id for error in errors] == ["7", "17", "27", "37"]
    assert errors[0].preferred.startswith("good 7")
    assert errors[0].margin == -1.0
    assert errors[0].prompt == "user: question 7 of set"


def test_a_long_error_keeps_the_end_of_its_prompt_and_the_start_of_its_replies() -> None:
    long = (Item(as_prompt("a" * 700 + "z"), ("good" + "b" * 700, "bad"), (Preference(1, 0),), "set", "0"),)
    run = run_all([Entrant("longer", "python", longer_wins)], [part(data=long)], bootstrap=FAST)
    (error,) = run.scorers[0].results["set"].errors
    assert error.prompt.startswith("… ")
    assert error.prompt.endswith("z")
    assert error.other.startswith("good")
    assert error.other.endswith(" …")


def test_a_stored_temperature_is_used_but_for_the_data_it_was_fitted_on() -> None:
    stored = {"temperature": 2.0, "pairs": 100, "prompts": 50, "fitted_on": "held out", "data": "other"}
    entrant = replace(entrants()[0], calibration=stored)
    result = run_all([entrant], [part()], bootstrap=FAST).scorers[0].results["set"].calibration
    assert (result.temperature, result.fitted_on) == (2.0, "held out")
    own = replace(entrant, calibration={**stored, "data": data_hash(items())})
    result = run_all([own], [part()], bootstrap=FAST).scorers[0].results["set"].calibration
    assert result.fitted_on.startswith("cross-fitted")


@pytest.mark.parametrize(
    ("scorers", "parts", "says"),
    [
        ([*entrants(), entrants()[0]], [part()], "scorers model are named twice"),
        (entrants(), [part(), part()], "suites set are named twice"),
        ([], [part()], "there are no scorers"),
        (entrants(), [], "there are no suites"),
    ],
)
def test_names_are_unique_and_there_is_something_to_run(scorers: list[Entrant], parts: list[Task], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        run_all(scorers, parts, bootstrap=FAST)


def test_a_suite_without_items_says_what_was_dropped() -> None:
    empty = Task(comparisons_suite("set"), SuiteData((), 3, {"equal replies": 3}), "file.jsonl")
    with pytest.raises(BadData, match="no items to score: 3 rows read, dropped: 3 equal replies"):
        run_all(entrants(), [empty], bootstrap=FAST)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no json", "cannot be read as JSON"),
        ("[1]", "no suites and scorers"),
        ('{"suites": {}, "scorers": [], "format": 9}', "format 9"),
        ('{"suites": {}, "scorers": {}, "format": 1}', "not a whole run file: scorers is {}; wanted a list"),
        (
            '{"suites": {}, "scorers": [{"name": "x"}], "format": 1}',
            r"not a whole run file: scorers\[0\].kind is missing",
        ),
        (
            '{"suites": {"s": {"data": ""}}, "scorers": [], "format": 1}',
            "not a whole run file: suites.s.title is missing",
        ),
    ],
)
def test_what_is_no_run_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(BadData, match=says):
        read_run(tmp_path / "run.json")


def test_a_run_file_that_is_not_there_and_names_that_are_unknown_are_not_found(run: Run, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no file"):
        read_run(tmp_path / "run.json")
    with pytest.raises(NotFound, match="did you mean 'model'"):
        sample_of_run(run, "modle", "set")
    with pytest.raises(NotFound, match="known: set"):
        sample_of_run(run, "model", "other")


def test_a_comparison_says_which_difference_is_real(run: Run) -> None:
    (test,) = compare_runs({"": run}, {}).pairs
    assert (test.a, test.b, test.figure, test.headline) == ("model", "longer reply", "accuracy", True)
    assert test.difference.value == pytest.approx(0.4)
    assert test.difference.low > 0
    assert test.p_holm < 0.01
    assert test.verdict == "better"
    assert (test.mcnemar.b, test.mcnemar.c) == (20, 4)


def test_a_model_comes_first_and_baselines_do_not_meet() -> None:
    scorers = [*reversed(entrants()), Entrant("random", "baseline", random_scorer())]
    tests = compare_runs({"": run_all(scorers, [part()], bootstrap=FAST)}, {}).pairs
    assert [(test.a, test.b) for test in tests] == [("model", "longer reply"), ("model", "random")]


def test_subsets_are_compared_and_adjusted_together() -> None:
    data = items(40, subset="one") + items(40, subset="two")
    tests = compare_runs({"": run_all(entrants(), [part(data=data)], bootstrap=FAST)}, {}).pairs
    assert [test.figure for test in tests] == ["accuracy", "accuracy: one", "accuracy: two"]
    assert [test.headline for test in tests] == [True, False, False]
    assert tests[1].p_holm == pytest.approx(min(1, 2 * tests[1].p))


def test_two_files_compare_by_name_or_by_where_they_are_from(run: Run) -> None:
    other = run_all([Entrant("model", "python", longer_wins)], [part()], bootstrap=FAST)
    tests = compare_runs({"a.json": run, "b.json": other}, {}).pairs
    assert ("model (a.json)", "model (b.json)") in [(test.a, test.b) for test in tests]


def test_runs_of_different_data_are_refused_with_both_hashes(run: Run) -> None:
    other = run_all([Entrant("second", "python", knowing)], [part(data=items(41))], bootstrap=FAST)
    with pytest.raises(BadInput, match=f"data {run.suites['set'].data[:12]} and second .* on the same data"):
        compare_runs({"a.json": replace(run, scorers=run.scorers[:1]), "b.json": other}, {})


def test_the_same_items_in_another_order_compare_as_they_are(run: Run) -> None:
    turned = run_all([Entrant("turned", "python", knowing)], [part(data=items()[::-1])], bootstrap=FAST)
    tests = compare_runs({"a.json": replace(run, scorers=run.scorers[:1]), "b.json": turned}, {}).pairs
    assert (tests[0].difference.value, tests[0].mcnemar.discordant) == (0.0, 0)


def test_one_scorer_alone_is_no_comparison(run: Run) -> None:
    with pytest.raises(BadInput, match="only one scorer"):
        compare_runs({"": replace(run, scorers=run.scorers[:1])}, {})


def test_what_stands_in_the_training_set_is_counted_and_measured_apart() -> None:
    train = [comparison(["a", "b"], [preference(0, 1)], prompt=f"question {n} of set", id=str(n)) for n in range(5, 15)]
    run = run_all(entrants(), [part()], bootstrap=FAST, train=train)
    assert run.suites["set"].contamination.counts["any"] == 10
    parts = run.scorers[0].results["set"].contamination
    assert (parts.contaminated.n, parts.clean.n) == (10, 30)
    assert parts.contaminated.value == 0.9
    assert parts.clean.value == pytest.approx(0.9)


@pytest.mark.parametrize(("votes", "expected"), [(3, 2 / 3), (1, None)])
def test_a_noise_ceiling_is_of_data_with_votes_not_of_rows_that_repeat(votes: int, expected: float | None) -> None:
    voted = tuple(
        replace(item, preferences=(Preference(0, 1),) * (votes - 1) + (Preference(1, 0),)) for item in items(20)
    )
    twice = replace(voted[0], preferences=(Preference(0, 1), Preference(1, 0)))
    data = (twice, *voted[1:]) if votes == 1 else voted
    suite = run_all(entrants(), [part(data=data)], bootstrap=FAST).suites["set"]
    ceiling = suite.noise_ceiling
    assert (ceiling and ceiling.value) == (expected and pytest.approx(expected))
