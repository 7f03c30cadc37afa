import copy
import functools
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from prefrank.errors import NotFound
from prefrank.evaluation.comparing import groups
from prefrank.evaluation.metrics import metric_figures
from prefrank.evaluation.results import sample_of_run
from prefrank.reports.leaderboard import Board, Leaderboard, leaderboard
from prefrank.reports.leaderboard_page import leaderboard_html, write_leaderboard
from prefrank.stats.bootstrap import Bootstrap
from tests.evaluation.run_files import as_run, fake_run

FEW = Bootstrap(resamples=400)


@functools.cache
def _made() -> dict[str, Any]:
    return fake_run(suites=("helpful",), items=150)


def made(**changes: Any) -> dict[str, Any]:
    """A made-up run of one suite whose headline is the accuracy that prefrank makes of its scores."""
    run = copy.deepcopy(_made())
    for scorer in run["scorers"]:
        result = scorer["results"]["helpful"]
        result |= {"headline": "accuracy", "figures": {"accuracy": result["overall"]["accuracy"]}}
    return run | changes


def only(run: dict[str, Any], *names: str) -> dict[str, Any]:
    return run | {"scorers": [one for one in run["scorers"] if one["name"] in names]}


def renamed(run: dict[str, Any], suite: str) -> dict[str, Any]:
    run["suites"] = {suite: run["suites"]["helpful"] | {"title": suite, "data": suite.ljust(64, "0")}}
    for scorer in run["scorers"]:
        scorer["results"] = {suite: scorer["results"]["helpful"]}
    return run


@pytest.fixture
def board_of(tmp_path: Path) -> Callable[..., Leaderboard]:
    def make(*runs: dict[str, Any], suite: str | None = None) -> Leaderboard:
        for number, run in enumerate(runs):
            (tmp_path / f"{number}.json").write_text(json.dumps(run))
        return leaderboard(tmp_path, suite=suite, bootstrap=FEW)

    return make


def the_board(found: Leaderboard) -> Board:
    (board,) = found.boards
    return board


def test_scorers_stand_by_their_headline_the_best_first(board_of: Callable[..., Leaderboard]) -> None:
    run = made()
    values = {one["name"]: one["results"]["helpful"]["figures"]["accuracy"]["value"] for one in run["scorers"]}
    places = the_board(board_of(run)).places
    assert [one.name for one in places] == sorted(values, key=lambda name: -values[name])
    assert [one.rank for one in places] == [1, 2, 3, 4]
    assert [one.estimate.value for one in places] == sorted(values.values(), reverse=True)
    assert {one.file for one in places} == {"0.json"}


def test_equal_values_share_a_rank_and_no_value_has_none(board_of: Callable[..., Leaderboard]) -> None:
    run = made()
    first, second, third, last = run["scorers"]
    second["results"] = copy.deepcopy(first["results"])
    last["results"]["helpful"]["figures"]["accuracy"] |= {"value": None, "low": None, "high": None}
    places = the_board(board_of(run)).places
    assert [one.rank for one in places] == [1, 1, 3, None]
    assert places[2].name == third["name"]
    assert places[3].name == last["name"]


def test_groups_are_those_of_paired_tests_on_the_files_scores(board_of: Callable[..., Leaderboard]) -> None:
    run = made()
    places = the_board(board_of(run)).places
    samples = {
        name: sample_of_run(as_run(run), name, "helpful") for name in (scorer["name"] for scorer in run["scorers"])
    }
    figures = {name: metric_figures(sample)["accuracy"] for name, sample in samples.items()}
    want = groups(figures, FEW, strata=samples["random"].prompt_strata).letters
    assert {one.name: one.group for one in places} == want
    assert set(places[0].group).isdisjoint(places[-1].group)  # a good model is not a coin


def test_the_order_of_the_items_in_a_file_changes_nothing(board_of: Callable[..., Leaderboard]) -> None:
    straight, turned = made(), made()
    turned["suites"]["helpful"]["items"].reverse()  # their sha256 does not depend on the order
    for scorer in turned["scorers"]:
        for key in ("scores", "tokens", "cut_prompt", "cut_reply"):
            scorer["results"]["helpful"][key].reverse()
    one, other = "acme/minilm-hh", "random"
    alone = the_board(board_of(only(straight, one, other))).places
    mixed = the_board(board_of(only(straight, one), only(turned, other))).places
    assert [(place.name, place.group) for place in mixed] == [(place.name, place.group) for place in alone]


def test_a_model_measured_twice_stands_once_by_its_newest_file(board_of: Callable[..., Leaderboard]) -> None:
    old, new = made(), made(created="2027-01-01T00:00:00+00:00")
    for scorer in new["scorers"]:
        scorer["name"] += " again"
    places = the_board(board_of(new, old, made())).places
    assert len(places) == 4
    assert all(one.name.endswith(" again") and one.file == "0.json" and one.older == 2 for one in places)


def test_two_models_of_one_name_are_told_apart(board_of: Callable[..., Leaderboard]) -> None:
    first, second = only(made(), "random"), only(made(), "random")
    second["scorers"][0]["model"] = "feed5eed00000000"
    names = [one.name for one in the_board(board_of(first, second)).places]
    assert names == sorted(names)
    assert "random (feed5eed)" in names
    assert "random" not in names


def test_two_servers_of_one_name_and_model_stand_both(board_of: Callable[..., Leaderboard]) -> None:
    runs = [only(made(), scorer["name"]) for scorer in made()["scorers"]]
    for run, model in zip(runs, ("http://a.example", "http://b.example", "x", "y"), strict=True):
        run["scorers"][0] |= {"name": "judge", "model": model, "kind": "http"}
    names = {one.name for one in the_board(board_of(*runs)).places}
    assert len(names) == 4
    assert {"judge (x)", "judge (y)"} < names


def test_other_items_under_the_same_hash_are_not_tested(board_of: Callable[..., Leaderboard]) -> None:
    forged = only(made(created="2020-01-01T00:00:00+00:00"), "random")
    forged["suites"]["helpful"]["items"][0]["preferences"] = [[1, 0, 1.0, 1.0]]
    found = board_of(only(made(), "acme/minilm-hh", "longer reply"), forged)
    assert {one.name: one.group for one in the_board(found).places}["random"] == ""
    assert "1.json has other items of helpful than 0.json" in found.notes[0]


def test_other_items_get_a_board_of_their_own_and_a_sentence(board_of: Callable[..., Leaderboard]) -> None:
    other = only(made(), "random")
    other["suites"]["helpful"]["data"] = "f" * 64
    found = board_of(made(), other)
    assert [(board.data[:4], len(board.places)) for board in found.boards] == [
        (made()["suites"]["helpful"]["data"][:4], 4),
        ("ffff", 1),
    ]
    assert len(found.notes) == 1
    assert "do not compare" in found.notes[0]
    assert "ffffffff (" in found.notes[0]


def test_the_suite_asked_for_comes_first_else_the_one_most_have(board_of: Callable[..., Leaderboard]) -> None:
    runs = made(), renamed(only(made(), "random"), "other")
    assert [board.suite for board in board_of(*runs).boards] == ["helpful", "other"]
    chosen = board_of(*runs, suite="other")
    assert [board.suite for board in chosen.boards] == ["other", "helpful"]
    assert chosen.suite == "other"
    with pytest.raises(NotFound, match=r"suite 'helpfull'; did you mean 'helpful'\?"):
        board_of(*runs, suite="helpfull")


def test_files_that_cannot_be_used_are_named_with_the_reason(
    tmp_path: Path, board_of: Callable[..., Leaderboard]
) -> None:
    (tmp_path / "torn.json").write_text('{"suites": {')
    (tmp_path / "card.json").write_text("[1]")
    (tmp_path / "torn.json.gz").write_bytes(b"no gzip")
    short = made()
    short["scorers"][0]["results"]["helpful"]["scores"].pop()
    bare = made()
    del bare["suites"]["helpful"]["source"]
    for name, run in {"short": short, "bare": bare, "old": made(format=0)}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(run))
    (tmp_path / "notes.txt").write_text("not looked at")
    found = board_of(made())
    assert set(found.broken) == {"torn.json", "card.json", "torn.json.gz", "short.json", "bare.json", "old.json"}
    assert "format 0" in found.broken["old.json"]
    assert "suites.helpful.source is missing" in found.broken["bare.json"]
    assert str(tmp_path) not in json.dumps(found.broken)
    assert len(the_board(found).places) == 4


def test_a_run_without_results_is_named_too(tmp_path: Path, board_of: Callable[..., Leaderboard]) -> None:
    (tmp_path / "none.json").write_text(json.dumps(only(made())))
    with pytest.raises(NotFound, match=r"there is no run file in .* \(none.json: holds no results\)"):
        leaderboard(tmp_path)
    assert board_of(made()).broken == {"none.json": "holds no results"}


def test_a_figure_that_does_not_follow_from_the_scores_is_reported(board_of: Callable[..., Leaderboard]) -> None:
    run = made()
    run["scorers"][3]["results"]["helpful"]["figures"]["accuracy"]["value"] = 0.999
    found = board_of(run)
    assert len(found.notes) == 1
    assert "0.json gives random 0.999 on helpful, but its scores make 0." in found.notes[0]


def test_a_figure_nobody_knows_is_listed_without_groups(board_of: Callable[..., Leaderboard]) -> None:
    run = made()
    for scorer in run["scorers"]:
        result = scorer["results"]["helpful"]
        result |= {"headline": "delight", "figures": {"delight": result["figures"]["accuracy"]}}
    found = board_of(run)
    assert {one.group for one in the_board(found).places} == {""}
    assert "no figure 'delight'" in found.notes[0]
    assert "could not be tested against each other" in leaderboard_html(found)


def test_no_folder_and_no_run_file_are_errors_that_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no folder"):
        leaderboard(tmp_path / "none")
    with pytest.raises(NotFound, match=r"no run file .*holds no \.json .*prefrank evaluate --json"):
        leaderboard(tmp_path)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(NotFound, match=r"no run file .*x\.json: .*no suites and scorers"):
        leaderboard(tmp_path)


def test_the_record_is_strict_json(board_of: Callable[..., Leaderboard]) -> None:
    run = made()
    run["scorers"][0]["results"]["helpful"]["figures"]["accuracy"] |= {"value": None, "low": None, "high": None}
    record = json.loads(json.dumps(board_of(run).to_json(), allow_nan=False))
    assert record["boards"][0]["places"][-1]["estimate"]["value"] is None


# The page


class Strict(HTMLParser):
    """Counts elements and fails on a tag that closes another one."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_needs_nothing_else_and_is_the_same_again(
    board_of: Callable[..., Leaderboard], tmp_path: Path
) -> None:
    found = board_of(made(), renamed(only(made(), "random"), "other"))
    path = write_leaderboard(found, tmp_path / "deep" / "board.html")
    text = path.read_text(encoding="utf-8")
    parser = Strict()
    parser.feed(text)
    assert not parser.open
    assert parser.seen.count("svg") >= len(found.boards) == parser.seen.count("table") == 2
    assert "script" not in parser.seen
    assert "link" not in parser.seen
    assert "http" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert leaderboard_html(found) == text


def test_names_of_others_are_text_and_never_markup(board_of: Callable[..., Leaderboard]) -> None:
    run = made()
    run["scorers"][0]["name"] = "<script>alert(1)</script>"
    text = leaderboard_html(board_of(run))
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_the_page_says_who_is_first_and_who_cannot_be_told_from_it(board_of: Callable[..., Leaderboard]) -> None:
    run = only(made(), "acme/minilm-hh", "random")
    twin = copy.deepcopy(run["scorers"][0]) | {"name": "twin", "model": "twin"}
    alone = leaderboard_html(board_of(run))
    assert "Of 2 scorers acme/minilm-hh is first with" in alone
    assert "better than every other beyond chance" in alone
    both = leaderboard_html(board_of(run | {"scorers": [*run["scorers"], twin]}))
    assert "twin cannot be told from it" in both
