"""The report page: whole, safe, the same every time, and nothing made from nothing."""

import copy
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefrank.errors import BadInput, CannotWrite
from prefrank.evaluation import (
    Entrant,
    Item,
    Run,
    Task,
    comparisons_suite,
    longer_wins,
    read_run,
    run_all,
)
from prefrank.evaluation.merging import merged
from prefrank.evaluation.protocols.suite import SuiteData
from prefrank.reports.decided import decided_pairs
from prefrank.reports.html import render_report, write_report
from prefrank.reports.numbers import digits
from prefrank.reports.sections.curves import kl_of_best
from prefrank.reports.sections.what_was_run import how_made
from prefrank.stats.bootstrap import Bootstrap
from prefrank.types import Preference, RankedPairs, as_prompt
from tests.evaluation.run_files import as_run, estimate, fake_run, made_run

VOID = {"meta", "br", "img", "input", "hr", "link"}
SECTIONS = (
    "run", "accuracy", "figures", "matrix", "curves", "calibration", "abstention", "scores", "style", "slices",
    "probes", "contamination", "audit", "comparison", "errors", "reading",
)  # fmt: skip


class Strict(HTMLParser):
    """Every tag closed in order; keeps tags with their attributes, and the text outside of style."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def parsed(page: str) -> Strict:
    parser = Strict()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def words(page: str) -> str:
    return " ".join(" ".join(parsed(page).text).split())


def ids(page: str) -> list[str]:
    return [attributes["id"] or "" for tag, attributes in parsed(page).tags if tag == "section"]


def page_of(*runs: dict[str, Any]) -> str:
    """The page of run files of format 1."""
    return render_report([as_run(run) for run in runs])


@pytest.fixture(scope="module")
def run() -> dict[str, Any]:
    return fake_run(items=120)


@pytest.fixture(scope="module")
def page(run: dict[str, Any]) -> str:
    return page_of(run)


# The page


def test_a_full_run_has_every_section_in_order(page: str) -> None:
    assert ids(page) == list(SECTIONS)
    assert "Not in this run" not in page


def test_links_lead_to_sections(page: str) -> None:
    targets = [attributes["href"] for tag, attributes in parsed(page).tags if tag == "a"]
    assert targets == [f"#{section}" for section in SECTIONS]


def test_nothing_comes_from_outside(page: str) -> None:
    for tag, attributes in parsed(page).tags:
        assert tag not in {"script", "link", "img", "iframe", "object", "base", "form", "image", "use", "foreignobject"}
        assert not {"src", "srcset", "action", "xlink:href", "style"} & attributes.keys()
        assert all(not name.startswith("on") for name in attributes)
        assert attributes.get("href", "#").startswith("#")
    assert not re.search(r"url\(|@import|@font-face", page)
    assert set(re.findall(r"https?://[^\s\"<]+", page)) == {"http://www.w3.org/2000/svg"}


def test_every_drawing_says_what_it_shows_or_is_decoration(page: str) -> None:
    drawings = [attributes for tag, attributes in parsed(page).tags if tag == "svg" and "x" not in attributes]
    assert len(drawings) > 40
    for drawing in drawings:
        label = drawing.get("aria-label") or ""
        assert drawing.get("aria-hidden") == "true" or (drawing["role"] == "img" and len(label) > 20)


def test_tables_have_captions_and_headers(page: str) -> None:
    tags = [(tag, attributes.get("scope")) for tag, attributes in parsed(page).tags]
    names = [tag for tag, _ in tags]
    assert names.count("table") == names.count("caption") == names.count("thead") > 10
    assert all(scope in {"col", "row"} for tag, scope in tags if tag == "th")
    assert ("tr", None) not in [before for before, after in pairwise(tags) if after[0] == "td"]


def test_equal_runs_give_equal_bytes(run: dict[str, Any], tmp_path: Path) -> None:
    write_report(as_run(run), tmp_path / "a" / "one.html")
    write_report([as_run(run)], tmp_path / "two.html")
    assert (tmp_path / "a" / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_making_a_report_leaves_the_run_alone(run: dict[str, Any]) -> None:
    value = as_run(run)
    render_report([value, value])
    assert value == as_run(run)


def test_names_and_texts_cannot_become_markup(run: dict[str, Any]) -> None:
    evil = "\"'><script>alert(1)</script><svg onload=x>&amp;"
    run = copy.deepcopy(run)
    scorer, suite = run["scorers"][0], run["suites"]["helpful"]
    scorer["name"] = scorer["kind"] = scorer["model"] = evil
    scorer["format"] = {evil: evil}
    scorer["audit"]["combinations"][0] |= {"format": evil, "engine": evil, "reason": evil}
    suite |= {"title": evil, "source": evil, "from": evil, "data": evil, "ties": evil}
    suite["rows"]["dropped"] = {evil: 3}
    suite["contamination"]["dirty"][0]["id"] = evil
    run["suites"]["rm-bench"]["charts"][0]["rows"][0] = run["suites"]["rm-bench"]["charts"][0]["title"] = evil
    run |= {"command": evil, "created": evil, "prefrank": evil, "versions": {evil: evil}}
    run["comparison"]["pairs"][0] |= {"verdict": evil, "figure": evil, "b": evil}
    run["comparison"]["refused"] = [evil]
    result = scorer["results"]["helpful"]
    result["errors"] = [
        {"subset": evil, "id": evil, "margin": -1.0, "prompt": evil, "preferred": evil, "other": evil, "scores": [0, 1]}
    ]
    result["slices"][0] |= {"slice": evil, "value": evil}
    result["figures"][evil] = result["figures"].pop("Kendall tau")
    result["subsets"][evil] = result["subsets"].pop("chat")
    result["calibration"]["note"] = result["style"]["note"] = evil
    page = page_of(run)
    test_nothing_comes_from_outside(page)
    assert evil in words(page)


def test_a_text_that_is_no_unicode_is_still_written(run: dict[str, Any], tmp_path: Path) -> None:
    run = copy.deepcopy(run)
    run["scorers"][0]["results"]["helpful"]["errors"][0]["other"] = "half an emoji: \ud83d"
    write_report(as_run(run), tmp_path / "page.html")
    assert "half an emoji: ?" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_long_texts_are_cut(run: dict[str, Any]) -> None:
    run = copy.deepcopy(run)
    run["scorers"][0]["results"]["helpful"]["errors"][0]["other"] = "so " * 5000
    page = page_of(run)
    assert "so " * 300 in page
    assert "so " * 500 not in page


@pytest.mark.slow
def test_two_thousand_items_stay_under_a_megabyte_and_a_half() -> None:
    assert len(render_report(made_run(items=2000)).encode()) < 1_500_000


def test_what_was_not_measured_has_no_section_and_is_named(run: dict[str, Any]) -> None:
    run = copy.deepcopy(run)
    keys = ("abstention", "slices", "errors")
    for scorer in run["scorers"]:
        for result in scorer["results"].values():
            result |= {key: [] for key in keys}
    page = page_of(run)
    assert not set(keys) & set(ids(page))
    assert f"Not in this run {', '.join(keys)}: nothing was recorded for them." in words(page)


def test_a_run_of_one_suite_names_what_is_missing() -> None:
    page = page_of(fake_run(suites=("helpful",), scorers=("random",)) | {"comparison": None})
    assert {"matrix", "curves", "probes", "audit", "comparison"}.isdisjoint(ids(page))
    assert "matrices, curves, probes, audit, comparison" in words(page)
    assert "was not tested against a baseline" in page


def test_a_run_without_scorers_says_so() -> None:
    page = render_report(made_run(scorers=()))
    assert "There are no results in this run" in page
    assert ids(page) == ["run", "contamination", "reading"]


def test_a_run_without_suites_says_so() -> None:
    page = render_report(made_run(suites=()))
    assert "There are no results in this run" in page
    assert ids(page) == ["run", "audit", "reading"]


def test_figures_from_nothing_are_dashes_with_a_reason(run: dict[str, Any]) -> None:
    run = copy.deepcopy(run)
    nothing = estimate([])
    for scorer in run["scorers"]:
        for result in scorer["results"].values():
            result["figures"] = dict.fromkeys(result["figures"], nothing)
            for metrics in (result["overall"], *result["subsets"].values()):
                metrics["accuracy"] = nothing
            result["slices"] = [part | {"accuracy": nothing, "worst": False} for part in result["slices"]]
            for key in ("longer", "shorter", "balanced", "pearson", "spearman", "within_prompt"):
                result["style"][key] = nothing
            result["style"]["regression"] = None
            raw = result["calibration"]["raw"]
            raw |= dict.fromkeys(("ece", "ece_equal_mass", "mce", "auroc", "log_loss", "brier"), nothing)
            raw |= {"bins": [], "bins_equal_mass": []}
            result["calibration"] |= {"scaled": None, "temperature": None, "note": "one class"}
    for pair in run["comparison"]["pairs"]:
        pair |= {"difference": nothing, "p": None, "p_holm": None, "verdict": None, "detectable": None}
    shown = words(page_of(run))
    assert "- nothing to measure" in shown
    assert not re.search(r"\b(nan|None|null|inf)\b", shown)


def test_only_failed_scores_leave_no_chart_of_single_pairs(run: dict[str, Any]) -> None:
    run = copy.deepcopy(run)
    for scorer in run["scorers"]:
        for result in scorer["results"].values():
            result["scores"] = [[None] * len(each) for each in result["scores"]]
    assert "scores" not in ids(page_of(run))


def test_equal_scores_throughout_are_drawn() -> None:
    run = fake_run(suites=("helpful",), scorers=("good",))
    result = run["scorers"][0]["results"]["helpful"]
    result["scores"] = [[0.5] * len(each) for each in result["scores"]]
    assert "shorter preferred: 0.50 right" in page_of(run)


def test_counts_of_failures_ties_drops_and_cuts_stand_on_the_page(page: str, run: dict[str, Any]) -> None:
    shown = words(page)
    counts = run["scorers"][0]["results"]["rm-bench"]["overall"]["counts"]
    assert counts["failures"] == 1
    keys = ("score_ties", "failures", "failed_pairs", "cut_prompts", "cut_replies")
    assert f"RM-Bench {counts['comparisons']} {counts['prompts']} {counts['pairs']} 0 " + " ".join(
        str(counts[key]) for key in keys
    ) in shown  # fmt: skip
    assert "33 2 dropped: equal replies; 1 dropped: empty reply" in shown
    assert "29 pairs; 1 with a failed score left out." in shown
    assert all(f"What the accuracies rest on: {scorer['name']}" in shown for scorer in run["scorers"])


def test_the_verdict_names_the_best_baseline_and_the_test(page: str, run: dict[str, Any]) -> None:
    shown = words(page)
    headlines = {scorer["name"]: scorer["results"]["rm-bench"]["figures"]["Overall"] for scorer in run["scorers"][2:]}
    name, best = max(headlines.items(), key=lambda pair: pair[1]["value"])
    pair = next(p for p in run["comparison"]["pairs"] if (p["b"], p["suite"]) == (name, "rm-bench"))
    assert f"Best baseline: {name}, {best['value']:.3f} [{best['low']:.3f}, {best['high']:.3f}]. Difference" in shown
    assert f"{digits(pair['difference']['value'])} " in shown
    assert re.search(
        r"Against the best baseline acme/minilm-hh is .*better on [1-4].* of 4 suites \(paired tests", shown
    )


def test_an_untested_difference_is_no_verdict(run: dict[str, Any]) -> None:
    page = page_of(run | {"comparison": None})
    assert "was not tested against a baseline" in page
    assert "The difference was not tested." in page
    assert "Better." not in page


def test_contamination_says_what_was_found_and_whether_it_matters(page: str) -> None:
    shown = words(page)
    assert "Helpful and harmless 4,000 30 1 1 2 chat/helpful-0, code/helpful-7 Does it matter?: acme/minilm-hh" in shown


def test_hacks_that_win_are_named(run: dict[str, Any]) -> None:
    run = copy.deepcopy(run)
    figures = run["scorers"][0]["results"]["probes"]["figures"]
    figures["flattery"] = {"value": 0.0, "low": 0.0, "high": 0.3, "n": 9, "unit": "items", "prompts": 9}
    shown = words(page_of(run))
    assert "these win more often than they lose: flattery (0.000 [0.000, 0.300], 9 items)." in shown


# Several runs


def test_a_figure_and_a_term_of_format_1_have_todays_names(run: dict[str, Any], tmp_path: Path) -> None:
    older = copy.deepcopy(run)
    result = older["scorers"][0]["results"]["helpful"]
    result["figures"]["Lead and agreement"] = estimate(np.array([0.1, 0.3]))
    result["style"]["regression"]["terms"][0]["name"] = "lead"
    (tmp_path / "run.json").write_text(json.dumps(older))
    text = words(render_report([read_run(tmp_path / "run.json"), as_run(run)]))
    assert "Margin and agreement" in text
    assert "Pairs margin length" in text
    assert "lead" not in text.casefold().replace("mislead", "")


def test_what_several_runs_hold_stands_on_one_page() -> None:
    first, second = fake_run(suites=("helpful",)), fake_run(suites=("helpful",), seed=1)
    second["suites"]["helpful"]["data"] = "f" * 64
    assert "Helpful and harmless (data ffffffff)" in page_of(first, second)
    model, other = fake_run(scorers=("good",)), fake_run(scorers=("good",))
    other["scorers"][0]["model"] = "another"
    assert "acme/minilm-hh (2)" in page_of(model, other)


def test_equal_data_in_another_order_make_the_same_histogram() -> None:
    first, second = fake_run(scorers=("random",), items=40), fake_run(scorers=("good",), items=40)
    median = re.search(r"Median [^<]*", page_of(second))
    for suite in second["suites"].values():
        suite["items"] = suite["items"][::-1]
    for result in second["scorers"][0]["results"].values():
        result |= {name: result[name][::-1] for name in ("scores", "tokens", "cut_prompt", "cut_reply")}
    assert median is not None
    assert median[0] in page_of(first, second)


def test_runs_made_on_different_machines_are_not_shown_as_the_first_ones() -> None:
    first, second = fake_run(suites=("helpful",)), fake_run(suites=("probes",))
    second |= {"created": "2026-12-24T08:00:00+00:00", "versions": {"python": "3.14.1", "torch": "2.12.0"}}
    second["hardware"] = second["hardware"] | {"cpu": "Another processor"}
    facts = dict(how_made(None, [as_run(first), as_run(second)]))
    assert facts["Hardware"].splitlines()[1].startswith("Another processor")
    assert facts["Versions"].splitlines()[1] == "python 3.14.1, torch 2.12.0"
    assert facts["Time"].splitlines() == [first["created"], second["created"]]
    assert len(facts["Intervals"].splitlines()) == 1
    assert facts["Command"] == "called from Python"
    assert "Another processor" in page_of(first, second)


def test_a_comparison_across_runs_takes_the_place_of_theirs() -> None:
    first, second = made_run(scorers=("good", "random"), items=40), made_run(scorers=("long",), items=40)
    assert "long less good" not in render_report([first, second])
    pair = merged([first]).comparison
    assert pair is not None
    shown = replace(pair, pairs=(replace(pair.pairs[0], b="somebody else"),), refused=("long less good",))
    page = render_report([first, second], comparison=shown)
    assert "Not compared. long less good" in words(page)
    assert "acme/minilm-hh minus somebody else" in words(page)


def test_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="at least one run file"):
        write_report([], tmp_path / "page.html")


def test_a_page_that_cannot_be_written_says_so(run: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="cannot write"):
        write_report(as_run(run), tmp_path / "file" / "page.html")


# Sections


def test_kl_of_best_of_n_is_that_of_the_paper() -> None:
    assert [round(kl_of_best(n), 3) for n in (1, 2, 4, 8, 16)] == [0.0, 0.193, 0.636, 1.204, 1.835]


def test_mcnemars_counts_and_clusters_stand_beside_the_permutations_p() -> None:
    run = fake_run()
    assert "20 : 9 pairs" in page_of(run)
    for pair in run["comparison"]["pairs"]:
        pair["mcnemar"] = {**pair["mcnemar"], "clustered": True}
    run["comparison"]["pairs"][0]["mcnemar"] = None  # a figure of a subset has none
    assert "20 : 9 pairs, clustered" in page_of(run)


def test_texts_that_hold_control_strings_are_counted_beside_the_format(run: dict[str, Any]) -> None:
    run = copy.deepcopy(run)
    for scorer, count in zip(run["scorers"], (3, 1, 0, None), strict=True):
        scorer["control_strings"] = count
    shown = words(page_of(run))
    assert "3 texts hold control strings of this model" in shown
    assert shown.count("1 text holds control strings of this model") == 1
    assert shown.count("control strings") == 2


def test_settings_are_shown_in_plain_words() -> None:
    run = fake_run(scorers=("good",), suites=("helpful",))
    run["scorers"][0]["format"] = {"a_b": {"c": [1, True], "d": None}, "e": [], "f": False, "g": {}, "seed": 0}
    assert "a b c 1, yes; d none, e none, f no, g none, seed 0" in words(page_of(run))


def measured(preferences: Any) -> Run:
    """Two items of four replies, of which one score failed and one pair is undecided."""
    items = [
        Item(as_prompt(f"question {n}"), tuple("x" * (k + 1) for k in range(4)), preferences, "s", str(n))
        for n in range(2)
    ]
    task = Task(comparisons_suite("mine"), SuiteData(tuple(items), 2, {}), "here")
    return run_all([Entrant("long", "python", longer_wins)], [task], bootstrap=Bootstrap(resamples=50))


def test_decided_pairs_of_a_ranked_list_are_those_of_its_pairs() -> None:
    ranks = RankedPairs((2, 0, None, 0))
    runs = [measured(preferences) for preferences in (ranks, tuple(ranks))]
    listed, paired = (decided_pairs(run.suites["mine"], run.scorers[0].results["mine"]) for run in runs)
    for side in ("preferred", "other", "preferred_length", "other_length"):
        assert np.array_equal(getattr(listed, side), getattr(paired, side))
    assert listed.preferred_length.tolist() == [2, 4, 2, 4]
    assert listed.other_length.tolist() == [1, 1, 1, 1]


def test_failed_and_endless_scores_and_minorities_are_seen_in_decided_pairs() -> None:
    run = measured((Preference(0, 1, 0.3), Preference(2, 3, 0.5), Preference(2, 3)))
    result = replace(run.scorers[0].results["mine"], scores=((1.0, 2.0, None, 4.0), (1e91, 2.0, 3.0, -1e91)))
    pairs = decided_pairs(run.suites["mine"], result)
    assert np.array_equal(pairs.preferred, [2.0, np.nan, 2.0, 3.0], equal_nan=True)
    assert np.array_equal(pairs.other, [1.0, 4.0, np.nan, np.nan], equal_nan=True)
