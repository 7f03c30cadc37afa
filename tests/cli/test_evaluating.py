"""The commands that measure, on a tiny model and a few pairs."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from prefrank import RewardModel
from prefrank.cli.screen import show_all
from prefrank.evaluation import SUITES, compare_runs, read_run
from prefrank.reports import terminal
from tests.cli.conftest import ROWS, Run
from tests.tiny import decoder_folder


@pytest.fixture
def evaluated(run: Run, model: str, pairs: str, tmp_path: Path) -> Path:
    path = tmp_path / "runs" / "run.json"
    code, _, _ = run("evaluate", "--model", model, "--data", pairs, "--resamples", "100", "--json", str(path))
    assert code == 0
    return path


def test_evaluate_shows_model_baselines_and_differences_and_writes_every_score(
    run: Run, model: str, pairs: str, tmp_path: Path
) -> None:
    output = tmp_path / "results.json"
    code, out, err = run("evaluate", "--model", model, "--data", pairs, "--json", str(output))
    assert code == 0
    assert "longer reply" in out
    assert "cannot be told apart" in out
    assert "3 items of 3 prompts" in " ".join(err.split())
    scorers = json.loads(output.read_text())["scorers"]
    assert [scorer["name"] for scorer in scorers] == [model, "longer reply", "shorter reply", "random"]
    assert scorers[0]["kind"] == "model"
    assert scorers[0]["model"] == RewardModel.load(model).fingerprint
    assert [len(scorer["results"]["pairs.jsonl"]["scores"]) for scorer in scorers] == [3, 3, 3, 3]
    assert scorers[1]["results"]["pairs.jsonl"]["figures"]["accuracy"]["value"] == pytest.approx(1 / 3)


def test_evaluate_gives_the_scores_of_the_library(evaluated: Path, model: str) -> None:
    result = json.loads(evaluated.read_text())["scorers"][0]["results"]["pairs.jsonl"]
    scores = RewardModel.load(model).score("what is yeast", ["a fungus", "a kind of bread with long words in it"])
    assert result["scores"][1] == [score.value for score in scores]


def test_evaluate_writes_a_report_with_the_comparison(run: Run, model: str, pairs: str, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    code, _, err = run("evaluate", "--model", model, "--data", pairs, "--resamples", "100", "--html", str(page))
    assert code == 0
    assert str(page) in "".join(err.split())
    assert "cannot be told apart" in page.read_text()


def test_evaluate_takes_scores_made_earlier(run: Run, model: str, pairs: str, tmp_path: Path) -> None:
    rows = [{"prompt": "how do I bake", "replies": ["mix flour water", "no"]},
            {"prompt": "what is yeast", "replies": ["a fungus", "a kind of bread with long words in it"]},
            {"prompt": "and salt", "replies": ["some", "never"]}]  # fmt: skip
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = tmp_path / "scores.jsonl"
    assert run("score", str(tmp_path / "in.jsonl"), "--model", model, "-o", str(scores))[0] == 0
    arguments = ["evaluate", "--data", pairs, "--no-baselines", "--resamples", "100"]
    files = [tmp_path / "file.json", tmp_path / "model.json"]
    for scorer, path in zip((f"scores:{scores}", model), files, strict=True):
        assert run(*arguments, "--model", scorer, "--json", str(path))[0] == 0
    from_file, from_model = (json.loads(path.read_text())["scorers"][0] for path in files)
    assert from_file["kind"] == "file"
    assert from_file["results"]["pairs.jsonl"]["scores"] == from_model["results"]["pairs.jsonl"]["scores"]


def test_compare_reads_one_file_or_several(run: Run, evaluated: Path, tmp_path: Path) -> None:
    code, out, _ = run("compare", str(evaluated), "--resamples", "100")
    assert code == 0
    assert "verdict" in out
    page = tmp_path / "compared.html"
    assert run("compare", str(evaluated), str(evaluated), "--resamples", "100", "--html", str(page))[0] == 0
    assert "cannot be told apart" in page.read_text()
    code, out, _ = run("compare", str(evaluated), "--resamples", "100", "--json")
    assert code == 0
    assert [row["b"] for row in json.loads(out)["pairs"]] == ["longer reply", "shorter reply", "random"]


def test_leaderboard_lists_the_runs_of_a_folder(run: Run, evaluated: Path, tmp_path: Path) -> None:
    page = tmp_path / "board.html"
    code, out, _ = run("leaderboard", str(evaluated.parent), "--resamples", "100", "--html", str(page))
    assert code == 0
    assert "group" in out
    assert page.read_text().startswith("<!")


def test_suites_lists_names_and_files(run: Run) -> None:
    code, out, _ = run("suites", "--json")
    assert code == 0
    known = {suite["name"]: suite for suite in json.loads(out)}
    assert {"rewardbench", "rewardbench-2", "rm-bench", "rmb", "judgebench", "llmbar", "hhh", "probes"} <= known.keys()
    assert known["rewardbench"]["hub"] == "allenai/reward-bench"
    assert run("suites")[0] == 0


def test_calibrate_stores_a_temperature_that_evaluate_uses(run: Run, model: str, tmp_path: Path) -> None:
    copy = RewardModel.load(model).save(tmp_path / "calibrated")
    data, output = tmp_path / "held.jsonl", tmp_path / "run.json"
    scorer = RewardModel.load(model)
    asked = [(f"prompt {n}", scorer.rank(f"prompt {n}", [f"yes {n}", f"no {n} bread"])) for n in range(40)]
    asked.sort(key=lambda one: one[1][0].score.value - one[1][1].score.value)
    rows = []
    for place, (prompt, ranked) in enumerate(asked):  # people disagree with the third of which the model is least sure
        chosen, rejected = ranked[::-1] if place < 13 else ranked
        rows.append(json.dumps({"prompt": prompt, "chosen": chosen.reply, "rejected": rejected.reply}) + "\n")
    data.write_text("".join(rows))
    code, _, err = run("calibrate", str(copy), "--data", str(data))
    assert code == 0, err
    assert "temperature" in err
    stored = json.loads((copy / "prefrank.json").read_text())["calibration"]
    arguments = ["--model", str(copy), "--data", str(data), "--data", "starter:eval", "--resamples", "50"]
    assert run("evaluate", *arguments, "--json", str(output))[0] == 0
    calibrations = json.loads(output.read_text())["scorers"][0]["results"]
    assert calibrations["starter:eval"]["calibration"]["temperature"] == stored["temperature"]
    assert calibrations["held.jsonl"]["calibration"]["fitted_on"].startswith("cross-fitted")


def test_rank_uses_a_stored_temperature_only_when_asked(run: Run, model: str, tmp_path: Path) -> None:
    copy = RewardModel.load(model).save(tmp_path / "calibrated")
    record = json.loads((copy / "prefrank.json").read_text())
    facts = {"temperature": 1e-6, "model": RewardModel.load(copy).fingerprint}
    (copy / "prefrank.json").write_text(json.dumps(record | {"calibration": facts}))
    asked = ["rank", "--model", str(copy), "--prompt", "how do I bake", "--reply", "mix flour", "--reply", "no"]
    code, plain, _ = run(*asked)
    assert code == 0
    assert " 0%" not in plain
    code, sharp, _ = run(*asked, "--calibrated")
    assert code == 0
    assert " 0%" in sharp
    code, _, err = run("rank", "--model", model, *asked[3:], "--calibrated")
    assert code == 2
    assert "no stored temperature" in err


def test_an_audit_of_a_run_holds_its_transformers_half(run: Run, model: str, pairs: str, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "runs/demo/best")
    output = tmp_path / "run.json"
    options = ("--data", pairs, "--resamples", "50", "--max-length", "16", "--audit", "--json", str(output))
    code, _, err = run("evaluate", "--model", str(tmp_path / "runs/demo"), *options)
    (scorer, *_) = json.loads(output.read_text(encoding="utf-8"))["scorers"]
    ran = {one["engine"] for one in scorer["audit"]["combinations"] if not one["reason"]}
    assert (code, ran) == (0, {"prefrank", "transformers"})
    assert "no score depends on its batch" in err


def test_an_audit_that_cannot_run_costs_no_scores(run: Run, model: str, pairs: str, tmp_path: Path) -> None:
    quantised = str(tmp_path / "int16")
    assert run("quantise", model, quantised, "--force", "--rows", "20")[0] == 0
    output = tmp_path / "run.json"
    code, _, err = run("evaluate", "--model", quantised, "--data", pairs, "--audit", "--json", str(output))
    assert code == 0
    assert "was not audited: " in err
    assert json.loads(output.read_text(encoding="utf-8"))["scorers"][0]["audit"] is None


def test_calibrating_a_run_names_the_file_that_holds_the_temperature(
    run: Run, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(model, tmp_path / "demo/best")
    found = {"temperature": 1.5, "log_loss": 0.7, "scaled_log_loss": 0.6, "pairs": 40, "prompts": 20, "fitted_on": "x"}
    monkeypatch.setattr("prefrank.evaluation.temperature_fit.calibrate", lambda *args, **kwargs: found)
    code, _, err = run("calibrate", str(tmp_path / "demo"), "--data", "starter:eval")
    assert code == 0
    assert "demo/best/prefrank.json" in "".join(err.split())


def test_long_paths_are_shown_by_what_tells_them_apart_and_recorded_whole(
    run: Run, model: str, pairs: str, tmp_path: Path
) -> None:
    folder = tmp_path / "a-long-name-of-a-folder" / "experiments"
    models = [str(shutil.copytree(model, folder / name / "best")) for name in ("small", "large")]
    for name in ("one", "two"):
        (folder / name).mkdir()
        shutil.copy(pairs, folder / name / "test.jsonl")
    data = [str(folder / name / "test.jsonl") for name in ("one", "two")]
    output, page = folder / "run.json", folder / "page.html"
    given = [*(f"--model={name}" for name in models), *(f"--data={name}" for name in data)]
    code, out, _ = run("evaluate", *given, "--resamples", "20", "--json", str(output), "--html", str(page))
    assert code == 0
    assert "small/best" in out
    assert "large/best" in out
    assert "two/test.jsonl" in out
    assert "a-long-name-of-a-folder" not in out
    record = json.loads(output.read_text(encoding="utf-8"))
    assert [one["name"] for one in record["scorers"]][:2] == models
    assert {name: suite["where"] for name, suite in record["suites"].items()} == {
        "one/test.jsonl": data[0], "two/test.jsonl": data[1],
    }  # fmt: skip
    html = page.read_text(encoding="utf-8")
    assert html.count(models[0]) == 2  # in the list of scorers and in the command
    code, out, _ = run("compare", str(output), "--resamples", "20")
    assert "small/best less large/best" in " ".join(out.split())
    code, out, _ = run("leaderboard", str(folder), "--resamples", "20")
    assert "a-long-name-of-a-folder" not in out
    assert "/best" in out  # the two are copies, and one model stands there once


def test_columns_by_name_hold_for_comparisons_and_for_files_of_scores(run: Run, tmp_path: Path) -> None:
    rows = [
        {"q": {"text": f"question {n}"}, "sys": "Be brief.", "good": f"yes {n}", "bad": "no, not at all"}
        for n in range(3)
    ]
    data, scored = tmp_path / "data.jsonl", tmp_path / "scored.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    replies = [
        {"q": row["q"], "sys": row["sys"], "reply": row[side], "reward": float(side == "good")}
        for row in rows for side in ("good", "bad")
    ]  # fmt: skip
    scored.write_text("".join(json.dumps(row) + "\n" for row in replies))
    columns = "system=sys,prompt=q.text,chosen=good,rejected=bad,score=reward"
    output = tmp_path / "run.json"
    options = ("--data", str(data), "--columns", columns, "--resamples", "20", "--json", str(output))
    code, _, err = run("evaluate", "--model", f"scores:{scored}", *options)
    assert code == 0, err
    result = json.loads(output.read_text(encoding="utf-8"))["scorers"][0]["results"]["data.jsonl"]
    assert result["scores"] == [[1, 0]] * 3
    assert "the scorer does not tell what it cuts" in " ".join(err.split())
    assert run("evaluate", "--data", str(data), "--columns", "prompt=q.none,chosen=good,rejected=bad")[0] == 3
    assert run("evaluate", "--data", str(data), "--columns", "prompt")[0] == 2


def test_cut_rows_of_a_decoder_are_counted_and_said(run: Run, pairs: str, tmp_path: Path) -> None:
    output = tmp_path / "run.json"
    options = ("--data", pairs, "--max-length", "14", "--resamples", "20", "--json", str(output))
    code, _, err = run("evaluate", "--model", str(decoder_folder(tmp_path / "decoder")), *options)
    assert code == 0
    (scorer, *_) = json.loads(output.read_text(encoding="utf-8"))["scorers"]
    result = scorer["results"]["pairs.jsonl"]
    counts = result["overall"]["counts"]
    assert counts["cut_prompts"] == sum(cut > 0 for each in result["cut_prompt"] for cut in each) > 0
    assert counts["cut_replies"] == sum(cut > 0 for each in result["cut_reply"] for cut in each)
    assert max(tokens for each in result["tokens"] for tokens in each) <= 14
    said = f"{counts['cut_prompts']} prompts and {counts['cut_replies']} replies of 6 cut"
    assert said in " ".join(err.split())
    assert scorer["format"]["max_length"] == 14


def test_options_that_no_model_here_has_a_use_for_are_refused(run: Run, model: str, pairs: str, tmp_path: Path) -> None:
    scores = tmp_path / "scores.jsonl"
    scores.write_text('{"prompt": "how do I bake", "reply": "no", "score": 1.0}\n')
    for scorer, option, said in (
        (model, ("--protocol", "rerank"), "for servers, and no --model is one"),
        (model, ("--server-template", model), "for servers, and no --model is one"),
        (f"scores:{scores}", ("--threads", "2"), "no --model is a model folder"),
        (f"scores:{scores}", ("--pre-rendered",), "no --model is a model folder"),
    ):
        code, _, err = run("evaluate", "--model", scorer, "--data", pairs, *option)
        assert code == 2
        assert said in " ".join(err.split())


def test_a_suite_of_the_package_takes_no_folder_and_an_empty_folder_is_not_the_hub(run: Run, model: str) -> None:
    for given, said in (("probes=data", "comes with prefrank"), ("rewardbench=", "is an empty string")):
        code, _, err = run("evaluate", "--model", model, "--suite", given)
        assert code == 2
        assert said in " ".join(err.split())


def test_columns_hold_for_training_data_too_where_it_has_them(run: Run, model: str, tmp_path: Path) -> None:
    rows = [{"question": f"what is {n}", "good": f"a number {n}", "bad": "no"} for n in range(60)]
    usual = [{"prompt": row["question"], "chosen": row["good"], "rejected": row["bad"]} for row in rows]
    for name, each in (("own", rows), ("usual", usual)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in each))
    arguments = ["evaluate", "--model", model, "--data", str(tmp_path / "own.jsonl"), "--resamples", "20"]
    arguments += ["--columns", "prompt=question,chosen=good,rejected=bad"]
    for name in ("own", "usual"):
        output = tmp_path / f"{name}.json"
        code, _, err = run(*arguments, "--train", str(tmp_path / f"{name}.jsonl"), "--json", str(output))
        assert code == 0, err
        counts = json.loads(output.read_text())["suites"]["own.jsonl"]["contamination"]["counts"]
        assert counts["any"] == 60
    (tmp_path / "other.jsonl").write_text('{"ask": "x", "good": "y", "bad": "z"}\n')
    code, _, err = run(*arguments, "--train", str(tmp_path / "other.jsonl"))
    assert code == 3
    assert "no column 'question'" in err


def test_a_run_file_whose_scores_do_not_fit_its_items_is_named(run: Run, evaluated: Path, tmp_path: Path) -> None:
    def torn(change: Callable[[dict], object]) -> Path:
        whole = json.loads(evaluated.read_text())
        change(whole)
        path = tmp_path / "torn.json"
        path.write_text(json.dumps(whole))
        return path

    def result(whole: dict) -> dict:
        return whole["scorers"][1]["results"]["pairs.jsonl"]

    for change in (
        lambda whole: result(whole)["scores"].pop(),
        lambda whole: [result(whole)[key].pop() for key in ("scores", "tokens", "cut_prompt", "cut_reply")],
        lambda whole: result(whole)["tokens"][0].pop(),
        lambda whole: whole["suites"]["pairs.jsonl"]["items"].pop(),
        lambda whole: whole["suites"]["pairs.jsonl"]["items"][0].pop("lengths"),
        lambda whole: whole["suites"]["pairs.jsonl"]["items"].__setitem__(0, None),
    ):
        path = torn(change)
        for command in (("compare", str(path)), ("leaderboard", str(tmp_path))):
            code, _, err = run(*command, "--resamples", "20")
            assert code == (3 if command[0] == "compare" else 0) or "no run file" in err
            assert "not a whole run file" in " ".join(err.split())


def test_doubtful_scores_are_said_on_the_screen(run: Run, pairs: str, tmp_path: Path) -> None:
    rows = [
        {"prompt": row["prompt"], "reply": row[side], "score": 0.5} for row in ROWS for side in ("chosen", "rejected")
    ]
    path = tmp_path / "scores.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, err = run("evaluate", "--model", f"scores:{path}", "--data", pairs, "--resamples", "20")
    assert code == 0
    assert "its scores are all within 0 to 1: perhaps probabilities" in " ".join(err.split())


@pytest.mark.parametrize("width", [80, 140])
def test_no_word_of_the_differences_is_broken(
    evaluated: Path, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tests = compare_runs({"": read_run(evaluated)}, SUITES)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("rich.console.Console.is_terminal", property(lambda console: True))
    capsys.readouterr()
    show_all(terminal.paired_tests(tests, headlines=True))
    out = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    for words in ("difference", "verdict", "shorter reply", "pairs.jsonl", "told apart"):
        assert words in out
    assert ("detectable" in out) == (width == 140)
    assert max(map(len, out.splitlines())) <= width
