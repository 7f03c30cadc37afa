"""The report page and its charts: whole, safe, the same every time, and nothing made from nothing."""

import copy
import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefrank.reports.report import accuracy_png, merged, render_report, write_report

from prefrank.errors import BadInput, CannotWrite
from prefrank.reports import charts
from prefrank.reports.blocks import digits, interval
from prefrank.reports.charts import Line, Mark, Row
from prefrank.reports.sections import _about, _kl
from tests.evaluation.run_files import estimate, fake_run

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


@pytest.fixture(scope="module")
def run() -> dict[str, Any]:
    return fake_run(items=120)


@pytest.fixture(scope="module")
def page(run: dict[str, Any]) -> str:
    return render_report(run)


# The page


def test_a_full_run_has_every_section_in_order(page: str) -> None:
    assert ids(page) == list(SECTIONS)
    assert "Not in this run" not in page


def test_links_lead_to_sections(page: str) -> None:
    targets = [attributes["href"] for tag, attributes in parsed(page).tags if tag == "a"]
    assert targets == [f"#{one}" for one in SECTIONS]


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
    for one in drawings:
        assert one.get("aria-hidden") == "true" or (one["role"] == "img" and len(one["aria-label"] or "") > 20)


def test_tables_have_captions_and_headers(page: str) -> None:
    tags = [(tag, attributes.get("scope")) for tag, attributes in parsed(page).tags]
    names = [tag for tag, _ in tags]
    assert names.count("table") == names.count("caption") == names.count("thead") > 10
    assert all(scope in {"col", "row"} for tag, scope in tags if tag == "th")
    assert ("tr", None) not in [one for one, after in pairwise(tags) if after[0] == "td"]


def test_equal_runs_give_equal_bytes(run: dict[str, Any], tmp_path: Path) -> None:
    write_report(run, tmp_path / "a" / "one.html")
    write_report(copy.deepcopy(run), tmp_path / "two.html")
    assert (tmp_path / "a" / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_making_a_report_leaves_the_run_alone(run: dict[str, Any]) -> None:
    before = copy.deepcopy(run)
    render_report([run, run])
    assert run == before


def test_names_and_texts_cannot_become_markup(run: dict[str, Any]) -> None:
    evil = "\"'><script>alert(1)</script><svg onload=x>&amp;"
    run = copy.deepcopy(run)
    scorer, suite = run["scorers"][0], run["suites"]["helpful"]
    scorer["name"] = scorer["kind"] = scorer["model"] = evil
    scorer["format"] = {evil: evil}
    scorer["audit"]["summary"] = [evil]
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
    page = render_report(run)
    test_nothing_comes_from_outside(page)
    assert evil in words(page)


def test_a_text_that_is_no_unicode_is_still_written(run: dict[str, Any], tmp_path: Path) -> None:
    run = copy.deepcopy(run)
    run["scorers"][0]["results"]["helpful"]["errors"][0]["other"] = "half an emoji: \ud83d"
    write_report(run, tmp_path / "page.html")
    assert "half an emoji: ?" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_long_texts_are_cut(run: dict[str, Any]) -> None:
    run = copy.deepcopy(run)
    run["scorers"][0]["results"]["helpful"]["errors"][0]["other"] = "so " * 5000
    page = render_report(run)
    assert "so " * 300 in page
    assert "so " * 500 not in page


def test_two_thousand_items_stay_under_a_megabyte_and_a_half() -> None:
    assert len(render_report(fake_run(items=2000)).encode()) < 1_500_000


def test_what_was_not_measured_has_no_section_and_is_named(run: dict[str, Any]) -> None:
    run = copy.deepcopy(run)
    keys = ("calibration", "abstention", "slices", "errors")
    for scorer in run["scorers"]:
        for result in scorer["results"].values():
            result |= dict.fromkeys(keys)
    page = render_report(run)
    assert not set(keys) & set(ids(page))
    assert f"Not in this run {', '.join(keys)}: nothing was recorded for them." in words(page)


def test_a_run_of_one_suite_names_what_is_missing() -> None:
    page = render_report(fake_run(suites=("helpful",), scorers=("random",)) | {"comparison": None})
    assert {"matrix", "curves", "probes", "audit", "comparison"}.isdisjoint(ids(page))
    assert "matrices, curves, probes, audit, comparison" in words(page)
    assert "was not tested against a baseline" in page


def test_a_run_without_scorers_says_so() -> None:
    page = render_report(fake_run(scorers=()))
    assert "There are no results in this run" in page
    assert ids(page) == ["run", "contamination", "reading"]


def test_a_run_without_suites_says_so() -> None:
    page = render_report(fake_run(suites=()))
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
            result["slices"] = [one | {"accuracy": nothing, "worst": False} for one in result["slices"]]
            for key in ("longer", "shorter", "balanced", "pearson", "spearman", "within_prompt"):
                result["style"][key] = nothing
            result["style"]["regression"] = None
            raw = result["calibration"]["raw"]
            raw |= dict.fromkeys(("ece", "ece_equal_mass", "mce", "auroc", "log_loss", "brier"), nothing)
            raw |= {"bins": [], "bins_equal_mass": []}
            result["calibration"] |= {"scaled": None, "temperature": None, "note": "one class"}
    for pair in run["comparison"]["pairs"]:
        pair |= {"difference": nothing, "p": None, "p_holm": None, "verdict": None, "detectable": None}
    told = words(render_report(run))
    assert "- nothing to measure" in told
    assert not re.search(r"\b(nan|None|null|inf)\b", told)


def test_only_failed_scores_leave_no_chart_of_single_pairs(run: dict[str, Any]) -> None:
    run = copy.deepcopy(run)
    for scorer in run["scorers"]:
        for result in scorer["results"].values():
            result["scores"] = [[None] * len(each) for each in result["scores"]]
    assert "scores" not in ids(render_report(run))


def test_equal_scores_throughout_are_drawn() -> None:
    run = fake_run(suites=("helpful",), scorers=("good",))
    result = run["scorers"][0]["results"]["helpful"]
    result["scores"] = [[0.5] * len(each) for each in result["scores"]]
    assert "shorter preferred: 0.50 right" in render_report(run)


def test_counts_of_failures_ties_drops_and_cuts_stand_on_the_page(page: str, run: dict[str, Any]) -> None:
    told = words(page)
    counts = run["scorers"][0]["results"]["rm-bench"]["overall"]["counts"]
    assert counts["failures"] == 1
    keys = ("score_ties", "failures", "failed_pairs", "cut_prompts", "cut_replies")
    assert f"RM-Bench {counts['comparisons']} {counts['prompts']} {counts['pairs']} 0 " + " ".join(
        str(counts[key]) for key in keys
    ) in told  # fmt: skip
    assert "33 2 dropped: equal replies; 1 dropped: empty reply" in told
    assert "29 pairs; 1 with a failed score left out." in told
    assert all(f"What the accuracies rest on: {scorer['name']}" in told for scorer in run["scorers"])


def test_the_verdict_names_the_best_baseline_and_the_test(page: str, run: dict[str, Any]) -> None:
    told = words(page)
    headlines = {one["name"]: one["results"]["rm-bench"]["figures"]["Overall"] for one in run["scorers"][2:]}
    name, best = max(headlines.items(), key=lambda one: one[1]["value"])
    pair = next(p for p in run["comparison"]["pairs"] if (p["b"], p["suite"]) == (name, "rm-bench"))
    assert f"Best baseline: {name}, {best['value']:.3f} [{best['low']:.3f}, {best['high']:.3f}]. Difference" in told
    assert f"{digits(pair['difference']['value'])} " in told
    assert re.search(
        r"Against the best baseline acme/minilm-hh is .*better on [1-4].* of 4 suites \(paired tests", told
    )


def test_an_untested_difference_is_no_verdict(run: dict[str, Any]) -> None:
    page = render_report(run | {"comparison": None})
    assert "was not tested against a baseline" in page
    assert "The difference was not tested." in page
    assert "Better." not in page


def test_contamination_says_what_was_found_and_whether_it_matters(page: str) -> None:
    told = words(page)
    assert "Helpful and harmless 4,000 30 1 1 2 chat/helpful-0, code/helpful-7 Does it matter?: acme/minilm-hh" in told


def test_hacks_that_win_are_named(run: dict[str, Any]) -> None:
    run = copy.deepcopy(run)
    figures = run["scorers"][0]["results"]["probes"]["figures"]
    figures["flattery"] = {"value": 0.0, "low": 0.0, "high": 0.3, "n": 9, "unit": "items", "prompts": 9}
    told = words(render_report(run))
    assert "these win more often than they lose: flattery (0.000 [0.000, 0.300], 9 items)." in told


# Several runs


def test_runs_of_the_same_data_share_their_suites() -> None:
    both = merged([fake_run(scorers=("good", "random")), fake_run(scorers=("random", "long"))])
    assert [one["name"] for one in both["scorers"]] == [
        "acme/minilm-hh", "OpenAssistant/reward-model-deberta-v3-large-v2", "random",
    ]  # fmt: skip
    assert len(both["suites"]) == 4


def test_runs_of_other_data_are_kept_apart() -> None:
    first, second = fake_run(suites=("helpful",)), fake_run(suites=("helpful",), seed=1)
    second["suites"]["helpful"]["data"] = "f" * 64
    both = merged([first, second])
    assert list(both["suites"]) == ["helpful", "helpful (ffffffff)"]
    assert both["suites"]["helpful (ffffffff)"]["title"] == "Helpful and harmless (data ffffffff)"
    assert set(both["scorers"][0]["results"]) == {"helpful", "helpful (ffffffff)"}
    assert {pair["suite"] for pair in both["comparison"]["pairs"]} == set(both["suites"])
    assert "Helpful and harmless (data ffffffff)" in render_report([first, second])


def test_equal_data_in_another_order_keep_their_own_scores() -> None:
    first, second = fake_run(scorers=("random",), items=40), fake_run(scorers=("good",), items=40)
    alone = render_report(second)
    for suite in second["suites"].values():
        suite["items"] = suite["items"][::-1]
    for result in second["scorers"][0]["results"].values():
        result |= {name: result[name][::-1] for name in ("scores", "tokens", "cut_prompt", "cut_reply")}
    both = merged([first, second])
    assert (
        both["scorers"][0]["results"]["helpful"]["scores"]
        == fake_run(scorers=("good",), items=40)["scorers"][0]["results"]["helpful"]["scores"]
    )
    median = re.search(r"Median [^<]*", alone)
    assert median is not None
    assert median[0] in render_report([first, second])


def test_what_several_runs_of_a_scorer_spent_adds_up() -> None:
    """The second run's share of the suite that the first has too is not counted twice."""
    first = fake_run(scorers=("good",), suites=("helpful",))
    second = fake_run(scorers=("good",), suites=("helpful", "probes"), seed=1)
    second["suites"]["helpful"] = first["suites"]["helpful"]
    one, other = first["scorers"][0], second["scorers"][0]
    other["results"]["helpful"] = one["results"]["helpful"]
    one |= {"scoring_s": 2.0, "evaluating_s": 0.5, "tokens": 1000, "replies": 10}
    size = {suite: sum(map(sum, result["tokens"])) for suite, result in other["results"].items()}
    other |= {"scoring_s": 8.0, "evaluating_s": 1.0, "tokens": sum(size.values()), "replies": 100, "audit": {"a": 1}}
    one["audit"] = None
    (both,) = merged([first, second])["scorers"]
    share = size["probes"] / sum(size.values())
    assert both["scoring_s"] == pytest.approx(2 + 8 * share)
    assert (both["tokens"], both["replies"]) == (1000 + size["probes"], 10 + round(100 * share))
    assert both["audit"] == {"a": 1}
    (again,) = merged([first, first])["scorers"]
    assert [again[name] for name in ("scoring_s", "evaluating_s", "tokens", "replies")] == [2.0, 0.5, 1000, 10]


def test_runs_made_on_different_machines_are_not_shown_as_the_first_ones() -> None:
    first, second = fake_run(suites=("helpful",)), fake_run(suites=("probes",))
    second |= {"created": "2026-12-24T08:00:00+00:00", "versions": {"python": "3.14.1", "torch": "2.12.0"}}
    second["hardware"] = second["hardware"] | {"cpu": "Another processor"}
    both = merged([first, second])
    facts = dict(_about(both))
    assert facts["Hardware"].splitlines()[1].startswith("Another processor")
    assert facts["Versions"].splitlines()[1] == "python 3.14.1, torch 2.12.0"
    assert facts["Time"].splitlines() == [first["created"], second["created"]]
    assert len(facts["Intervals"].splitlines()) == 1
    assert dict(_about(merged([both]))) == facts
    assert "Another processor" in render_report([first, second])


def test_sixteen_scorers_look_different() -> None:
    assert len({charts.marker_svg(number) for number in range(16)}) == 16


def test_two_models_of_one_name_are_told_apart() -> None:
    first, second = fake_run(scorers=("good",)), fake_run(scorers=("good",))
    second["scorers"][0]["model"] = "another"
    assert [one["name"] for one in merged([first, second])["scorers"]] == ["acme/minilm-hh", "acme/minilm-hh (2)"]
    assert "acme/minilm-hh (2)" in render_report([first, second])


def test_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="at least one run file"):
        write_report([], tmp_path / "page.html")


def test_a_page_that_cannot_be_written_says_so(run: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="cannot write"):
        write_report(run, tmp_path / "file" / "page.html")


# The picture for READMEs


def test_the_picture_is_a_png_and_the_same_every_time(run: dict[str, Any], tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        accuracy_png(run, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_a_picture_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no results to draw"):
        accuracy_png(fake_run(scorers=()), tmp_path / "one.png")


# Charts


def test_a_dot_stands_where_its_value_is() -> None:
    svg = charts.dot_whisker_svg([Row("a", (Mark(0.75, 0.6, 0.9, 1),))], label="a chart of one", limits=(0.5, 1.0))
    assert '<svg x="50.00%"' in svg
    assert 'x1="20.00%" x2="80.00%"' in svg
    assert charts.COLORS[1] in svg


def test_whiskers_end_at_the_axis() -> None:
    svg = charts.dot_whisker_svg([Row("a", (Mark(0.9, 0.2, 1.4),))], label="a chart of one", limits=(0.5, 1.0))
    assert 'x1="0.00%" x2="100.00%" y1="24"' in svg


def test_a_row_without_values_says_so() -> None:
    svg = charts.dot_whisker_svg([Row("a", (Mark(None), Mark(None)))], label="a chart of nothing")
    assert ">-</text>" in svg
    assert "<circle" not in svg


def test_long_names_keep_both_ends() -> None:
    short = charts.shorten("OpenAssistant/reward-model-deberta-v3-large-v2", 20)
    assert len(short) == 20
    assert (short[:4], short[-4:]) == ("Open", "e-v2")
    assert charts.shorten("short", 20) == "short"


def test_a_cell_shows_its_share_or_a_dash() -> None:
    cells = [Mark(0.0, 0.0, 0.2), Mark(1.0), Mark(0.5), Mark(None)]
    svg = charts.matrix_svg(["a", "b"], ["c", "d"], cells, label="a matrix of four")
    assert "0.00" in svg
    assert "0.00 to 0.20" in svg
    fills = re.findall(r'rx="3" fill="(#\w+)"', svg)
    assert fills == ["#d9730d", "#0b3d66", "#ffffff", "#eceff2"]
    assert ">-</text>" in svg


@pytest.mark.parametrize("share", np.linspace(0, 1, 41).tolist())
def test_figures_in_cells_can_be_read(share: float) -> None:
    fill, ink = charts._diverging(share)
    assert contrast(fill, ink) >= 4.4


@pytest.mark.parametrize("ink", [charts.INK, charts.FAINT, charts.ALERT])
def test_text_on_white_has_contrast(ink: str) -> None:
    assert contrast("#ffffff", ink) >= 4.5


def contrast(one: str, other: str) -> float:
    """WCAG 2.1, relative luminance."""

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.2, 5.1), (0.42, 0.43), (1e-9, 2e-9), (-1e6, 1e6)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    ticks = charts.nice_ticks(low, high, 5)
    assert 1 < len(ticks) <= 7 or high - low < 1e-8
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)


def test_a_histogram_keeps_what_lies_beyond_its_ends() -> None:
    scores = np.array([0.0] * 500 + [1.0] * 499 + [1e6])
    svg = charts.histogram_svg(scores, scores[:10], label="a histogram of two")
    assert "nan" not in svg
    assert "e+" not in svg


def test_charts_of_one_point_are_drawn() -> None:
    line = [Line("a", (0.5,), (Mark(0.5, 0.5, 0.5),))]
    for svg in (
        charts.curves_svg(line, label="a curve of one", x_label="x", y_label="y"),
        charts.reliability_svg(line, label="a diagram of one"),
        charts.lead_by_length_svg(np.array([0.0]), np.array([0.0]), label="a chart of one pair"),
        charts.histogram_svg(np.array([1.0]), np.array([1.0]), label="a histogram of one"),
    ):
        assert parsed(svg)
        assert "nan" not in svg


def test_each_side_of_the_length_chart_has_its_accuracy() -> None:
    lead, gap = np.array([1.0, -1.0, 2.0, 0.0]), np.array([-0.5, -0.4, 0.3, 0.6])
    svg = charts.lead_by_length_svg(lead, gap, label="a chart of four pairs")
    assert "shorter preferred: 0.50 right" in svg
    assert "longer preferred: 0.75 right" in svg


def test_kl_of_best_of_n_is_that_of_the_paper() -> None:
    assert [round(_kl(n), 3) for n in (1, 2, 4, 8, 16)] == [0.0, 0.193, 0.636, 1.204, 1.835]


def test_digits_have_a_true_minus_and_no_negative_zero() -> None:
    assert [digits(value) for value in (None, -0.0001, -1.5, 0.25)] == ["-", "0.000", "−1.500", "0.250"]


def test_an_interval_says_why_there_is_none() -> None:
    one = {"value": 0.5, "low": None, "high": None, "n": 4, "unit": "pairs", "prompts": 1}
    assert interval(one) == "no interval"
    assert interval(one | {"value": None}) == "not defined"
    assert interval(estimate([])) == "nothing to measure"


# The run files that these tests are made of


def test_a_made_up_run_agrees_with_itself(run: dict[str, Any]) -> None:
    result = run["scorers"][0]["results"]["helpful"]
    assert result["overall"]["accuracy"]["value"] == pytest.approx(result["figures"]["Accuracy"]["value"])
    wins = [first > second if None not in (first, second) else False for first, second in result["scores"]]
    ties = sum(first is not None and first == second for first, second in result["scores"])
    assert result["overall"]["accuracy"]["value"] == pytest.approx((sum(wins) + ties / 2) / len(wins))
    assert math.isclose(result["abstention"][0]["accuracy"], result["overall"]["accuracy"]["value"])


def test_mcnemars_counts_and_clusters_stand_beside_the_permutations_p() -> None:
    run = fake_run()
    assert "20 : 9 pairs" in render_report(run)
    for pair in run["comparison"]["pairs"]:
        pair["mcnemar"] = {**pair["mcnemar"], "clustered": True}
    run["comparison"]["pairs"][0]["mcnemar"] = None  # a figure of a subset has none
    assert "20 : 9 pairs, clustered" in render_report(run)
