"""Each command end to end on tiny models: what it prints where, and the code it ends with."""

import json
import sys
from pathlib import Path

import pytest

from prefrank import RewardModel, native
from prefrank.cli.commands import app
from tests.cli.conftest import ROWS, Run
from tests.tiny import bert_folder, decoder_folder


def test_rank_prints_the_best_reply_first(run: Run, model: str) -> None:
    replies = ["mix flour", "bake it", "the dough needs an hour"]
    best = RewardModel.load(model).rank("how do I bake", replies)[0]
    arguments = [part for reply in replies for part in ("--reply", reply)]
    code, out, _ = run("rank", "--model", model, "--prompt", "how do I bake", *arguments)
    assert code == 0
    first = next(line for line in out.splitlines() if line.strip().startswith("1 "))
    assert best.reply in first
    assert f"{best.score.value:+.3f}" in first


def test_rank_marks_every_cut_of_prompt_and_reply_with_its_tokens(run: Run, model: str) -> None:
    replies = ["mix flour", "the dough needs an hour to rise " * 20]
    arguments = [part for reply in replies for part in ("--reply", reply)]
    prompt = "how do I bake bread at home " * 20
    code, out, _ = run("rank", "--model", model, "--prompt", prompt, *arguments)
    assert code == 0
    shown = " ".join(out.split())
    for score in RewardModel.load(model).score(prompt, replies):
        assert score.cut_prompt > 0
        reply = f", reply cut by {score.cut_reply:,} tokens" if score.cut_reply else ""
        assert f"(prompt cut by {score.cut_prompt:,} tokens{reply})" in shown
    assert "reply cut by" in shown
    code, out, _ = run("rank", "--model", model, "--prompt", "p", "--reply", "a")
    assert "cut" not in out


def test_texts_with_control_strings_are_counted_and_can_be_taken_as_tokens(run: Run, tmp_path: Path) -> None:
    folder = str(decoder_folder(tmp_path / "llama"))
    prompt, reply = "<|start|>user\nhow do I bake<|end|><|start|>assistant\n", "mix flour"
    remark = "1 text holds this model's control strings; --pre-rendered takes them as tokens"
    rank = ["rank", "--model", folder, "--prompt", prompt, "--reply", reply, "--reply", "no", "--json"]
    code, plain, err = run(*rank)
    assert (code, remark in " ".join(err.split())) == (0, True)
    code, out, err = run(*rank, "--pre-rendered")
    assert (code, "control strings" in err) == (0, False)
    model = RewardModel.load(folder)
    want = {score.value for score in model.score("how do I bake", [reply, "no"])}
    taken = [entry["score"]["value"] for entry in json.loads(out)["replies"]]
    assert taken == pytest.approx(sorted(want, reverse=True), abs=1e-5)
    assert taken != [entry["score"]["value"] for entry in json.loads(plain)["replies"]]
    assert model.control_strings([(prompt, reply), (prompt, "no"), ("plain", "text"), ("a", "<|end|>")]) == 2
    (tmp_path / "in.jsonl").write_text(json.dumps({"prompt": prompt, "replies": [reply, "no"]}) + "\n")
    code, _, err = run("score", str(tmp_path / "in.jsonl"), "--model", folder)
    assert (code, remark in " ".join(err.split())) == (0, True)
    rows = [{"prompt": prompt + str(n), "chosen": "mix flour", "rejected": "no"} for n in range(3)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluate = ["evaluate", "--model", f"tiny={folder}", "--data", str(tmp_path / "pairs.jsonl"), "--resamples", "100"]
    code, _, err = run(*evaluate)
    assert "3 texts hold control strings of tiny; --pre-rendered takes them as tokens" in " ".join(err.split())
    assert code == 0
    code, _, err = run(*evaluate, "--pre-rendered")
    assert (code, "control strings" in err) == (0, False)


SCORING = [
    *("--head", "--max-length", "--device", "--precision", "--kernels", "--threads", "--max-tokens"),
    *("--deterministic", "--empty-score", "--pre-rendered", "--trust-remote-code"),
]


@pytest.mark.parametrize(
    ("command", "options"),
    [
        *((command, SCORING) for command in ("score", "rank", "evaluate", "calibrate")),
        ("quantise", ["--head", "--kernels", "--threads", "--max-tokens"]),
        ("info", ["--head", "--max-length", "--precision", "--kernels", "--trust-remote-code"]),
    ],
)
def test_every_command_that_scores_has_the_same_options(command: str, options: list[str]) -> None:
    import typer

    known = {name for one in typer.main.get_command(app).commands[command].params for name in one.opts}
    assert set(options) <= known


def test_the_options_of_scoring_reach_the_model(run: Run, model: str, tmp_path: Path) -> None:
    options = ["--kernels", "torch", "--threads", "1", "--max-tokens", "64", "--deterministic", "--empty-score", "-4"]
    options += ["--max-length", "32", "--device", "cpu:0"]
    loaded = RewardModel.load(
        model, kernels="torch", num_threads=1, max_tokens=64, deterministic=True, empty_score=-4.0, max_length=32
    )
    want = [score.value for score in loaded.score("p", ["a", ""])]
    code, out, _ = run("rank", "--model", model, "--prompt", "p", "--reply", "a", "--reply", "", "--json", *options)
    assert code == 0
    got = {entry["index"]: entry["score"] for entry in json.loads(out)["replies"]}
    assert [got[0]["value"], got[1]["value"]] == want
    assert got[0]["model"] == loaded.fingerprint
    (tmp_path / "in.jsonl").write_text('{"prompt": "p", "replies": ["a", ""]}\n')
    code, out, _ = run("score", str(tmp_path / "in.jsonl"), "--model", model, *options)
    assert (code, json.loads(out)["score"]) == (0, want)
    code, _, err = run(
        "evaluate", "--model", model, "--suite", "probes", "--no-baselines", "--resamples", "100",
        "--json", str(tmp_path / "run.json"), *options,
    )  # fmt: skip
    assert code == 0, err
    scorer = json.loads((tmp_path / "run.json").read_text())["scorers"][0]
    wanted = {"kernels": "torch", "deterministic": True, "max_length": 32, "empty_score": -4}
    assert scorer["format"].items() >= wanted.items()
    code, out, _ = run("info", model, "--json", "--kernels", "torch", "--max-length", "32")
    assert (json.loads(out)["kernels"], json.loads(out)["fingerprint"]) == ("torch", loaded.fingerprint)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--max-tokens", "0", "max_tokens is 0"),
        ("--threads", "0", "num_threads is 0"),
        ("--max-length", "0", "max_length is 0"),
        ("--head", "", "head is ''; give a name"),
        ("--device", "", "device is ''; give a name"),
        ("--model", "", "the name of the model is empty"),
    ],
)
def test_nothing_is_not_the_default(run: Run, model: str, option: str, value: str, message: str) -> None:
    code, out, err = run("rank", "--model", model, "--prompt", "p", "--reply", "a", option, value)
    assert code in (2, 4)
    assert out == ""
    assert message in err


def test_rank_as_json_holds_the_scores_and_the_facts(run: Run, model: str) -> None:
    code, out, _ = run("rank", "--model", model, "--prompt", "p", "--reply", "a", "--reply", "b", "--json")
    record = json.loads(out)
    assert code == 0
    assert {entry["reply"] for entry in record["replies"]} == {"a", "b"}
    assert record["replies"][0]["score"]["model"] == RewardModel.load(model).fingerprint


def test_score_writes_rows_to_standard_output_and_talk_to_standard_error(run: Run, model: str, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "p", "reply": "a"}\n{"prompt": "p", "reply": "b"}\n')
    code, out, err = run("score", str(tmp_path / "in.jsonl"), "--model", model)
    assert code == 0
    assert [json.loads(line)["reply"] for line in out.splitlines()] == ["a", "b"]
    assert "2 replies of 2 rows scored" in err


def test_describe_counts_what_a_file_holds(run: Run, pairs: str) -> None:
    code, out, _ = run("data", "describe", pairs, "--json")
    assert code == 0
    assert "pairs" in json.dumps(json.loads(out))
    code, out, _ = run("data", "describe", pairs)
    assert code == 0
    assert "comparisons" in out


def test_describe_takes_columns_by_name_and_one_split(run: Run, tmp_path: Path) -> None:
    rows = [{"id": n, "in": {"q": "A colour?"}, "good": "Blue.", "bad": "Red."} for n in range(5)]
    path = tmp_path / "votes.train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = ("--columns", "prompt=in.q,chosen=good,rejected=bad")
    code, out, _ = run("data", "describe", f"{path}:train", *columns, "--json")
    found = json.loads(out)["splits"]
    assert (code, list(found), found["train"]["pairs"], found["train"]["votes"]) == (0, ["train"], 5, 4)
    code, out, _ = run("data", "describe", str(path), *columns)
    assert code == 0
    assert "votes" in out
    code, _, err = run("data", "describe", str(path), "--columns", "prompt=in.question,chosen=good,rejected=bad")
    assert code == 3
    assert "no column 'in.question'" in err


@pytest.mark.skipif(not native.available(), reason="the native kernels are not built: no C++ compiler")
def test_quantise_prints_the_figures_and_its_folder_scores(run: Run, model: str, tmp_path: Path) -> None:
    target = str(tmp_path / "int16")
    code, out, err = run("quantise", model, target, "--rows", "30")
    assert code == 0
    assert "pairs in another order" in out
    assert target in "".join(err.split())
    (tmp_path / "in.jsonl").write_text('{"prompt": "p", "reply": "a"}\n')
    scores = []
    for arguments in ((target,), (model, "--precision", "int16"), (model, "--deterministic", "--threads", "1")):
        code, out, _ = run("score", str(tmp_path / "in.jsonl"), "--model", *arguments)
        assert code == 0
        scores.append(json.loads(out)["score"])
    assert scores[0] == scores[1] != scores[2]
    code, _, err = run("quantise", target, str(tmp_path / "again"))
    assert code == 4
    assert "load the float model" in " ".join(err.split())


def test_a_head_is_chosen_by_name(run: Run, tmp_path: Path) -> None:
    folder = str(bert_folder(tmp_path / "three", num_labels=3))
    arguments = ("--model", folder, "--prompt", "how do I bake", "--reply", "mix flour", "--reply", "no", "--json")
    code, _, err = run("rank", *arguments, "--max-length", "64")
    assert code == 4
    assert "a classifier with 3 outputs (LABEL_0, LABEL_1, LABEL_2)" in " ".join(err.split())
    scores = []
    for head in ("LABEL_0", "LABEL_2"):
        code, out, _ = run("rank", *arguments, "--max-length", "64", "--head", head)
        assert code == 0
        scores.append({entry["index"]: entry["score"]["value"] for entry in json.loads(out)["replies"]})
    assert scores[0] != scores[1]
    model = RewardModel.load(folder, head="LABEL_2", max_length=64)
    assert scores[1] == {n: score.value for n, score in enumerate(model.score("how do I bake", ["mix flour", "no"]))}
    assert run("rank", *arguments, "--head", "humour")[0] == 2


def test_an_unknown_precision_or_kernel_names_the_known_ones(run: Run, model: str) -> None:
    code, _, err = run("rank", "--model", model, "--prompt", "p", "--reply", "a", "--precision", "int15")
    assert code == 2
    assert "did you mean 'int16'" in " ".join(err.split())
    code, _, err = run("score", "-", "--model", model, "--kernels", "avx1024")
    assert code == 2
    assert "did you mean 'avx" in " ".join(err.split())


def test_info_says_what_a_checkpoint_is(run: Run, model: str) -> None:
    code, out, _ = run("info", model, "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["kind"] == "prefrank checkpoint"
    assert facts["as_saved"] is True
    assert facts["text"]["max_length"] == 64
    code, out, _ = run("info", model)
    assert code == 0
    assert facts["fingerprint"][:40] in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["rank", "--model", "{missing}", "--prompt", "p", "--reply", "r"], 2, "there is no folder"),
        (["rank", "--model", "{empty}", "--prompt", "p", "--reply", "r"], 4, "config.json"),
        (["rank", "--model", "{three}", "--prompt", "p", "--reply", "r"], 4, "3 outputs"),
        (["score", "{nothing}", "--model", "{model}"], 3, "the file is empty"),
        (["evaluate", "--model", "{model}", "--data", "webgtp"], 2, "did you mean 'webgpt'"),
        (["evaluate", "--data", "webgpt", "--no-baselines"], 2, "there is nothing to evaluate"),
        (["evaluate"], 2, "nothing to evaluate on"),
        (["evaluate", "--suite", "rewardbenhc"], 2, "did you mean 'rewardbench'"),
        (["evaluate", "--suite", "llmbar={empty}"], 2, "LLMBar/Natural/dataset.json"),
        (["evaluate", "--data", "starter", "--json", "{model}"], 2, "is a folder; give the name of a file"),
        (["compare", "{missing}"], 2, "there is no file"),
        (["compare", "{broken}"], 3, "cannot be read as JSON"),
        (["leaderboard", "{empty}"], 2, "run file"),
        (["card", "{model}"], 2, "no run file is of this model"),
        (["train", "{missing}"], 2, "there is no recipe"),
        (["data", "describe", "{broken}"], 3, "broken.jsonl:2: not valid JSON"),
        (["data", "describe", "{nothing}"], 3, "the file is empty"),
    ],
)
def test_faults_are_one_line_with_their_code(
    run: Run, model: str, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing.jsonl").touch()
    (tmp_path / "broken.jsonl").write_text(json.dumps(ROWS[0]) + '\n{"prompt": \n')
    places = {
        "missing": tmp_path / "missing",
        "empty": tmp_path / "empty",
        "nothing": tmp_path / "nothing.jsonl",
        "broken": tmp_path / "broken.jsonl",
        "model": model,
        "three": bert_folder(tmp_path / "three", num_labels=3) if "{three}" in arguments else "",
    }
    got, out, err = run(*(argument.format(**places) for argument in arguments))
    assert (got, out) == (code, "")
    assert message in err
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1


def test_wrong_usage_ends_with_2(run: Run) -> None:
    code, _, err = run("rank", "--model", "x")
    assert code == 2
    assert "Missing option" in err


def test_the_version_is_printed(run: Run) -> None:
    code, out, _ = run("--version")
    assert (code, out) == (0, "0.1.0\n")


def test_training_without_its_extra_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("prefrank.training", "accelerate"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "accelerate", None)  # as if it were not installed
    code, out, err = run("train", "recipes/demo.yaml")
    assert (code, out) == (2, "")
    assert "this needs the package accelerate" in err
    assert "pip install 'prefrank[train]'" in err


def test_info_shows_of_a_training_record_what_is_asked_most(
    run: Run, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RewardModel.load(model).save(tmp_path / "trained")
    record = json.loads((folder / "prefrank.json").read_text())
    metrics = {"comparisons": 62, "accuracy": 0.7984, "log_loss": 0.4883}
    read = [{"name": "starter:train", "role": "training", "comparisons": 218}, {"name": "big", "role": "training"}]
    record["training"] = {
        "recipe": {"learning_rate": 0.0002, "adam_beta1": 0.9}, "step": 56, "curve": [{"step": 10}] * 50,
        "data": {"read": read}, "metrics": {"sets": {"starter:validation": metrics}},
    }  # fmt: skip
    (folder / "prefrank.json").write_text(json.dumps(record))
    code, out, err = run("info", str(folder))
    assert code == 0
    assert "starter:train (218), big" in out
    assert "accuracy 79.8%, log loss 0.488, 62 comparisons" in out
    assert "adam" not in out
    assert "curve" not in out
    assert "prefrank info --json" in err
    assert json.loads(run("info", str(folder), "--json")[1])["training"] == record["training"]


def test_a_long_prompt_does_not_fill_the_screen_above_its_ranking(run: Run, model: str) -> None:
    code, out, _ = run("rank", "--model", model, "--prompt", "word " * 600, "--reply", "one", "--reply", "two")
    assert code == 0
    assert "… (3,000 characters)" in " ".join(out.split())
    assert "prompt cut by" in " ".join(out.split())
    assert out.count("word") < 60
