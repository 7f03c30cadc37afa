"""Run files that are torn, hostile or contradict themselves: one line with the file and the part, or what they hold."""

import functools
import gzip
import inspect
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from prefrank.errors import BadData, BadInput
from prefrank.evaluation import Bootstrap, Item, evaluate, read_run, write_run
from prefrank.evaluation.items import style_of
from prefrank.types import Preference, Score, as_prompt
from tests.evaluation.run_files import fake_run


@functools.cache
def whole() -> str:
    return json.dumps(fake_run(suites=("helpful", "bon-alpacaeval"), scorers=("good", "random"), items=80))


@functools.cache
def in_format(number: int) -> str:
    """The same run as either format has it."""
    if number == 1:
        return whole()
    with TemporaryDirectory() as folder:
        (Path(folder) / "1.json").write_text(whole())
        write_run(Path(folder) / "2.json", read_run(Path(folder) / "1.json"))
        return (Path(folder) / "2.json").read_text()


def changed(change: Callable[[dict[str, Any]], object], text: str | None = None) -> dict[str, Any]:
    run = json.loads(text or whole())
    change(run)
    return run


def result(run: dict[str, Any]) -> dict[str, Any]:
    return run["scorers"][0]["results"]["helpful"]


def test_both_formats_hold_one_run(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.json").write_text(in_format(number))
    assert json.loads((tmp_path / "2.json").read_text())["format"] == 2
    assert read_run(tmp_path / "1.json") == read_run(tmp_path / "2.json")


def test_a_key_that_format_2_does_not_have_is_refused_and_one_of_format_1_passed_over(tmp_path: Path) -> None:
    for number in (1, 2):
        run = json.loads(in_format(number))
        result(run)["odd"] = 1
        (tmp_path / f"odd{number}.json").write_text(json.dumps(run))
    (tmp_path / "2.json").write_text(in_format(2))
    assert read_run(tmp_path / "odd1.json") == read_run(tmp_path / "2.json")
    with pytest.raises(BadData, match=r"scorers\[0\].results.helpful.odd is not known here"):
        read_run(tmp_path / "odd2.json")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: result(r).pop("style"), r"scorers\[0\].results.helpful.style is missing"),
        (lambda r: result(r)["figures"]["Accuracy"].update(value=True), "figures.Accuracy.value is True; wanted a fin"),
        (lambda r: result(r)["overall"]["accuracy"].update(high=1.5), "accuracy.high is 1.5; wanted .* from 0 to 1"),
        (lambda r: result(r)["overall"]["accuracy"].update(low=None), "value, low and high all there"),
        (lambda r: result(r)["overall"]["accuracy"].update(low=0.9, high=0.1), "low at most as large as high"),
        (lambda r: result(r)["overall"]["accuracy"].update(prompts=10**6), "prompts is 1000000; wanted at most n"),
        (lambda r: result(r)["overall"]["counts"].update(ties=-1), "counts.ties is -1; wanted a whole number"),
        (lambda r: result(r)["overall"]["counts"].update(pairs=3), "overall.counts.pairs is 3; wanted 40"),
        (lambda r: result(r)["overall"]["counts"].update(ties=41), "counts.ties is 41; wanted at most the 40 pairs"),
        (lambda r: result(r)["scores"][0].pop(), "scores is 'of 40 items'; wanted one for each reply"),
        (lambda r: result(r)["tokens"][0].__setitem__(0, "8"), r"tokens\[0\]\[0\] is '8'; wanted a whole number"),
        (lambda r: result(r).update(headline="other"), "headline is 'other'; wanted one of its figures"),
        (lambda r: result(r)["calibration"].update(temperature=-1), "calibration.temperature is -1"),
        (lambda r: result(r)["slices"][0].update(worst=None), r"slices\[0\].worst is null; wanted true or false"),
        (lambda r: r["scorers"][0].update(format=json.loads("[" * 50 + "]" * 50)), "format is .*; wanted an object"),
        (lambda r: r["scorers"][0]["format"].update(a=json.loads("[" * 50 + "]" * 50)), "at most 20 levels"),
        (lambda r: r["scorers"][1].update(name=r["scorers"][0]["name"]), "wanted a name for each scorer"),
        (lambda r: r["scorers"][0]["results"].update(odd=result(r)), "wanted a suite of the run"),
        (lambda r: r["suites"]["helpful"]["items"][0].update(preferences=[[0, 9, 1, 1]]), r"items\[0\].preferences"),
        (lambda r: r["suites"]["helpful"]["items"][0].update(preferences=[[0, 1, 1, -1]]), "a weight above 0"),
        (lambda r: r["suites"]["helpful"]["items"].clear(), "helpful.items is .*; wanted at least one item"),
        (lambda r: r["suites"]["helpful"]["rows"].update(missing={"a": [1]}), "rows.missing"),
        (lambda r: r["suites"]["bon-alpacaeval"]["charts"][0]["columns"].pop(), "a figure for each row and column"),
        (lambda r: r["scorers"][0].pop("kind"), r"scorers\[0\].kind is missing"),
        (lambda r: r["suites"]["helpful"].pop("contamination"), "suites.helpful.contamination is missing"),
        (lambda r: r["intervals"].update(resamples=0), "intervals cannot be used: resamples is 0"),
        (lambda r: r["comparison"]["pairs"][0].update(p=2), "comparison.pairs"),
        (lambda r: r["hardware"].update(gpus="one"), "hardware.gpus is 'one'; wanted a list"),
    ],
)
@pytest.mark.parametrize("number", [1, 2])
def test_a_part_that_is_wrong_is_named(
    number: int, change: Callable[[dict[str, Any]], object], says: str, tmp_path: Path
) -> None:
    (tmp_path / "run.json").write_text(json.dumps(changed(change, in_format(number))))
    with pytest.raises(BadData, match=says) as caught:
        read_run(tmp_path / "run.json")
    assert str(caught.value).startswith(f"{tmp_path / 'run.json'} is not a whole run file: ")


def test_an_item_of_format_1_with_ranks_and_nothing_else_is_refused(tmp_path: Path) -> None:
    run = changed(lambda r: r["suites"]["helpful"].update(items=[{"ranks": [1, 0]}]))
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(BadData, match=r"suites.helpful.items\[0\].subset is missing"):
        read_run(tmp_path / "run.json")


@pytest.mark.parametrize("number", ["NaN", "1e999", "9" * 400, "9" * 5000])
def test_numbers_that_are_none_are_refused(number: str, tmp_path: Path) -> None:
    run = changed(lambda r: result(r)["figures"]["Accuracy"].update(value="HERE"))
    (tmp_path / "run.json").write_text(json.dumps(run).replace('"HERE"', number))
    with pytest.raises(BadData, match=r"run\.json"):
        read_run(tmp_path / "run.json")


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"suites": 1, "suites": 2}', b"\xff\xfe", b"", b"\x00" * 100])
def test_what_is_no_json_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(BadData, match="cannot be read as JSON"):
        read_run(tmp_path / "run.json")


def test_a_packed_run_is_bounded_by_what_it_unpacks_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFRANK_MAX_JSON_BYTES", "100000")
    (tmp_path / "run.json.gz").write_bytes(gzip.compress(b" " * 1_000_000))
    with pytest.raises(BadData, match="unpacks to more than 100,000 bytes, which PREFRANK_MAX_JSON_BYTES may raise"):
        read_run(tmp_path / "run.json.gz")


@pytest.mark.parametrize("cut", [5, 20, -4])
def test_a_torn_packed_run_is_refused(cut: int, tmp_path: Path) -> None:
    (tmp_path / "run.json.gz").write_bytes(gzip.compress(whole().encode())[:cut])
    with pytest.raises(BadData, match="cannot be unpacked"):
        read_run(tmp_path / "run.json.gz")


def test_only_plain_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.json")
    for path, kind in ((tmp_path / "fifo.json", "a FIFO"), (Path("/dev/zero"), "a device"), (tmp_path, "a folder")):
        with pytest.raises(BadData, match=f"is {kind}; wanted a plain file"):
            read_run(path)


def test_half_a_character_in_a_text_is_written_and_read_back(tmp_path: Path) -> None:
    text = json.dumps(changed(lambda r: result(r)["errors"][0].update(prompt="a\ud800b\\")))
    (tmp_path / "given.json").write_text(text)
    run = read_run(tmp_path / "given.json")
    write_run(tmp_path / "run.json", run)
    assert read_run(tmp_path / "run.json") == run
    assert run.scorers[0].results["helpful"].errors[0].prompt == "a\ud800b\\"


def test_a_number_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    (tmp_path / "2.json").write_text(in_format(2))
    run = read_run(tmp_path / "2.json")
    broken = replace(run, scorers=(replace(run.scorers[0], scoring_s=float("nan")),))
    with pytest.raises(BadInput, match="a number that is not finite"):
        write_run(tmp_path / "nan.json", broken)
    assert not (tmp_path / "nan.json").exists()


def test_parsed_json_is_not_written_as_a_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="give one of read_run or run_all"):
        inspect.unwrap(write_run)(tmp_path / "run.json", json.loads(whole()))  # without the tests' own check of types
    assert not (tmp_path / "run.json").exists()


def test_a_check_says_where_in_a_list_it_is(tmp_path: Path) -> None:
    broken = changed(lambda r: r["suites"]["helpful"]["items"][3]["lengths"].__setitem__(1, -2))
    (tmp_path / "run.json").write_text(json.dumps(broken))
    with pytest.raises(BadData, match=r"suites.helpful.items\[3\].lengths\[1\] is -2; wanted a whole number"):
        read_run(tmp_path / "run.json")


def test_scores_too_far_apart_for_a_difference_are_still_in_order() -> None:
    item = Item(as_prompt("q"), ("good", "bad"), (Preference(0, 1),), "s", "0")
    values = {"good": 1.7e308, "bad": -1.7e308}

    def score(pairs: Any) -> list[Score]:
        return [Score(values[reply], 1, 0, 0, "m") for _, reply in pairs]

    evaluation = evaluate(score, [item], name="far", bootstrap=Bootstrap(10))
    assert evaluation.overall.accuracy.value == 1.0
    assert evaluation.overall.margin.value is None
    json.dumps(evaluation.to_json(), allow_nan=False)


@pytest.mark.parametrize("weights", [(1e308, 1e308), (5e-324, 5e-324)])
def test_weights_at_the_ends_of_floats_weigh_as_plain_ones(weights: tuple[float, float]) -> None:
    preferences = (Preference(0, 1, weight=weights[0]), Preference(2, 0, weight=weights[1]))
    item = Item(as_prompt("q"), ("a", "b", "c"), preferences, "s", "0")

    def score(pairs: Any) -> list[Score]:
        return [Score(float("cba".index(reply)), 1, 0, 0, "m") for _, reply in pairs]

    assert evaluate(score, [item], name="odd", bootstrap=Bootstrap(10)).overall.accuracy.value == 0.5


@pytest.mark.parametrize("given", [None, "abc", 3, {}, [1.0, 2.0]])
def test_a_scorer_that_gives_something_else_is_one_line(given: Any) -> None:
    item = Item(as_prompt("q"), ("a", "b"), (Preference(0, 1),), "s", "0")
    with pytest.raises(BadInput, match="the scorer gave"):
        evaluate(lambda pairs: given, [item], name="odd")


def test_an_item_never_prefers_a_reply_of_another() -> None:
    with pytest.raises(BadInput, match=r"-1|does not have"):
        Item(as_prompt("q"), ("a", "b"), (Preference(-1, 1),), "s", "0")


def test_a_hundred_thousand_blank_lines_are_looked_at_once() -> None:
    assert style_of("\n" * 100_000 + "- one\n\n  2. two\n-three") == (0, 2, 0)
