"""Scorers opened from one string: a model, a function, a file of scores, the baselines."""

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prefrank import RewardModel
from prefrank.errors import BadData, BadInput, NotFound
from prefrank.evaluation import evaluate
from prefrank.evaluation.baselines import baselines
from prefrank.evaluation.items import Item
from prefrank.evaluation.opened_scorer import OpenedScorer
from prefrank.evaluation.scorers import ModelOptions, open_scorer
from prefrank.scoring.files import score_file
from prefrank.scoring.remote import ServerOptions, open_server
from prefrank.types import Preference, Turn, as_prompt
from tests.evaluation.making import comparison, preference
from tests.scoring.fake_server import FakeServer
from tests.tiny import bert_folder

CONVERSATION = (Turn("user", "Why?"), Turn("assistant", "Because."), Turn("user", "Of what?"))
PAIRS = [(as_prompt("how do I bake"), "mix flour"), (CONVERSATION, "yeast"), (as_prompt("hello"), "a longer reply")]


def item(prompt: str, *replies: str, subset: str = "s", id: str = "0") -> Item:
    return Item(as_prompt(prompt), replies, (Preference(0, 1),), subset, id)


def values(opened: OpenedScorer, pairs: Any = PAIRS) -> list[float]:
    return [score.value for score in opened.score_pairs(pairs)]


# A model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("bert"))


def test_a_folder_is_a_reward_model_with_its_settings_in_the_record(folder: Path) -> None:
    opened = open_scorer(str(folder), model=ModelOptions(max_length=64, kernels="torch", device="cpu"))
    model = RewardModel.load(folder, max_length=64, kernels="torch")
    assert values(opened) == [score.value for score in model.score_pairs(PAIRS)]
    assert (opened.kind, opened.model) == ("transformers", model.fingerprint)
    assert opened.format | {"labels": False} == opened.format
    assert {key: opened.format[key] for key in ("template", "max_length", "precision", "kernels", "device")} == {
        "template": "pair", "max_length": 64, "precision": "float32", "kernels": "torch", "device": "cpu",
    }  # fmt: skip
    json.dumps(opened.format, allow_nan=False)


def test_a_saved_model_is_a_prefrank_one(folder: Path, tmp_path: Path) -> None:
    RewardModel.load(folder, max_length=64).save(tmp_path / "saved")
    assert open_scorer(str(tmp_path / "saved")).kind == "model"


def test_a_models_failures_are_given_for_the_evaluation_to_count(folder: Path) -> None:
    opened = open_scorer(str(folder))
    with pytest.MonkeyPatch.context() as patch:
        import torch

        import prefrank.scoring.reward_model

        patch.setattr(prefrank.scoring.reward_model, "run", lambda engine, batches: torch.full((3,), math.nan))
        assert all(map(math.isnan, values(opened)))


def test_options_of_another_kind_of_scorer_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not a model folder; device, precision"):
        open_scorer("python:math:pow", model=ModelOptions(precision="bfloat16"))
    with pytest.raises(BadInput, match="is not a server; leave"):
        open_scorer(str(folder), server=ServerOptions(batch=2))
    with pytest.raises(NotFound):
        open_scorer(str(tmp_path / "nothing"))


# A server


def test_an_address_is_a_server_with_its_doubts_in_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = FakeServer()
    try:
        server.answers["/score/evaluation"] = lambda body: (200, {"scores": [0.5] * len(body["messages"])})
        options = ServerOptions(model="org/rm")
        opened = open_scorer(server.url + "/score/evaluation", server=options)
        remote = open_server(server.url + "/score/evaluation", options)
        assert values(opened) == [0.5] * len(PAIRS)
    finally:
        server.close()
    assert opened.kind == "http"
    assert opened.model == remote.fingerprint == f"{server.url}/score/evaluation#org/rm"
    assert (opened.format, opened.doubt) == (remote.format, remote.doubt)
    assert opened.doubt in opened.format["scores"]
    assert opened.doubt.startswith("EQUAL on 3 unlike probes")


# A function


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module in the current folder, which is not on the path."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "own_scorers.py"
    path.write_text(
        "from prefrank.types import Score\n"
        "table = {}\n"
        "def of_pairs(pairs, scale=1.0):\n"
        "    return [Score(len(reply) * scale, 3, 0, 1, 'mine') for _, reply in pairs]\n"
        "def of_texts(prompts, replies):\n"
        "    import own_helper\n"
        "    return (own_helper.worth(p, r) for p, r in zip(prompts, replies, strict=True))\n"
        "def unsure(prompts, replies): return [None] * len(replies)\n"
        "def words(prompts, replies): return replies\n"
        "def numbers(pairs): return [1.0 for _ in pairs]\n"
        "def three(a, b, c): return []\n"
        "def short(prompts, replies): return [1.0]\n"
    )
    (tmp_path / "own_helper.py").write_text("def worth(p, r): return len(r) - 100 * p.count('Assistant: ')\n")
    yield path
    for name in ("own_scorers", "own_helper", "own_broken"):
        sys.modules.pop(name, None)


def test_a_function_of_one_argument_is_given_pairs_and_gives_scores(module: Path) -> None:
    opened = open_scorer("python:own_scorers:of_pairs")
    scores = opened.score_pairs(PAIRS)
    assert [(score.value, score.tokens, score.cut_reply) for score in scores] == [(9, 3, 1), (5, 3, 1), (14, 3, 1)]
    assert {score.model for score in scores} == {opened.model}
    assert opened.format["input"] == "(prompt, reply) pairs"


def test_a_function_of_two_arguments_is_given_texts_and_gives_numbers(module: Path) -> None:
    before = list(sys.path)
    opened = open_scorer("python:own_scorers:of_texts")
    assert values(opened) == [9, 5 - 100, 14]
    assert values(open_scorer("python:own_scorers:of_texts", server=ServerOptions(turns="last"))) == [9, 5, 14]
    assert "several turns is one text" in opened.format["input"]
    assert sys.path == before


def test_none_from_a_function_is_a_failure(module: Path) -> None:
    assert all(map(math.isnan, values(open_scorer("python:own_scorers:unsure"))))


def test_the_fingerprint_of_a_function_changes_with_its_file(module: Path) -> None:
    first = open_scorer("python:own_scorers:of_pairs").model
    module.write_text(module.read_text() + "# changed\n")
    assert open_scorer("python:own_scorers:of_pairs").model != first
    assert first.startswith("python:own_scorers:of_pairs:")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("python:own_scorers", BadInput, "names no function; wanted python:module:function"),
        ("python:own_nowhere:f", NotFound, "there is no module own_nowhere here"),
        ("python:own_scorers:of_text", NotFound, "no function 'of_text'; did you mean 'of_texts'"),
        ("python:own_scorers:table", BadInput, r"table of the module own_scorers is \{\}; wanted a function"),
        ("python:own_scorers:three", BadInput, "must be given 3 arguments; wanted one, "),
    ],
)
def test_what_names_no_usable_function(module: Path, name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_scorer(name)


def test_a_function_that_gives_something_else_is_told_what_was_wanted(module: Path) -> None:
    with pytest.raises(BadInput, match=r"takes one argument and gives 1.0; wanted a prefrank.types.Score"):
        values(open_scorer("python:own_scorers:numbers"))
    with pytest.raises(BadInput, match="gives 'mix flour' for a score; wanted a number"):
        values(open_scorer("python:own_scorers:words"))
    comparisons, short = [comparison(["a", "b"], [preference(0, 1)])], open_scorer("python:own_scorers:short")
    with pytest.raises(BadInput, match="1 scores for 2 replies"):
        evaluate(short.score_pairs, comparisons, name="short")


def test_an_error_inside_the_module_is_one_line_with_its_place(module: Path) -> None:
    module.with_name("own_broken.py").write_text("import own_missing_dependency\n")
    says = r"own_broken raised ModuleNotFoundError: No module named 'own_missing_dependency' at .*own_broken.py:1"
    with pytest.raises(BadInput, match=says):
        open_scorer("python:own_broken:f")


# A file of scores


def write(path: Path, *rows: dict[str, Any]) -> str:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"scores:{path}"


MESSAGES = [{"role": turn.role, "content": turn.text} for turn in CONVERSATION]
ROWS: list[dict[str, Any]] = [
    {"prompt": "how do I bake", "replies": ["mix flour", "no"], "score": [1.5, -2.0]},
    {"prompt": "hello", "replies": ["a longer reply"], "score": [0.25]},
]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_scores_are_looked_up_by_prompt_and_reply(tmp_path: Path, suffix: str) -> None:
    opened = open_scorer(write(tmp_path / f"s{suffix}", *ROWS))
    assert values(opened, [PAIRS[2], PAIRS[0]]) == [0.25, 1.5]
    assert (opened.kind, opened.format["rows"], opened.format["replies"]) == ("file", 2, 3)
    assert opened.format["scores"] == "as in the file"
    assert {score.model for score in opened.score_pairs(PAIRS[:1])} == {opened.model}


def test_columns_by_name_are_read_where_the_file_has_them(tmp_path: Path) -> None:
    """Beside them stand names that only comparisons have, which a file of scores has no use for."""
    columns = {"prompt": "question", "reply": "out.text", "score": "reward", "chosen": "good", "rejected": "bad"}
    row = {"question": "hello", "out": {"text": "a longer reply"}, "reward": 0.25, "score": "of another kind"}
    opened = open_scorer(write(tmp_path / "s.jsonl", row), columns=columns)
    assert values(opened, [PAIRS[2]]) == [0.25]
    opened = open_scorer(write(tmp_path / "usual.jsonl", *ROWS), columns={"prompt": "question"})
    assert values(opened, [PAIRS[2]]) == [0.25]
    with pytest.raises(BadData, match=r"s\.jsonl:1: no column 'answer'"):
        open_scorer(write(tmp_path / "s.jsonl", row), columns=columns | {"reply": "answer"})


def test_a_csv_file_of_scores_has_its_numbers_as_text(tmp_path: Path) -> None:
    head, rows = (
        "prompt,reply,score,tokens,cut_prompt,cut_reply\n",
        "hello,a longer reply,0.25,7,2,0\nhello,hi,,3,0,0\n",
    )
    (tmp_path / "s.csv").write_text(head + rows)
    opened = open_scorer(f"scores:{tmp_path / 's.csv'}")
    scored, failed = opened.score_pairs([PAIRS[2], (PAIRS[2][0], "hi")])
    assert (scored.value, scored.tokens, scored.cut_prompt) == (0.25, 7, 2)
    assert math.isnan(failed.value)


def test_a_system_column_is_the_prompts_first_turn_as_in_the_data(tmp_path: Path) -> None:
    system = (Turn("system", "Be brief."), Turn("user", "hello"))
    row = {"system": "Be brief. ", "prompt": "hello", "reply": "hi", "score": 2.0}
    assert values(open_scorer(write(tmp_path / "s.jsonl", row)), [(system, "hi")]) == [2.0]
    message = {"role": "system", "content": "Be long."}
    with pytest.raises(BadData, match=r"system column and the prompt's first message hold different texts"):
        open_scorer(write(tmp_path / "s.jsonl", row | {"prompt": [message, {"role": "user", "content": "hello"}]}))


def test_texts_that_differ_in_white_space_alone_are_told_so(tmp_path: Path) -> None:
    opened = open_scorer(write(tmp_path / "s.jsonl", {"prompt": "hello\n", "reply": "hi", "score": 2.0}))
    with pytest.raises(BadData, match=r"no score for 1 of 1 replies.*\(1 differ in white space at the ends"):
        opened.score_pairs([((Turn("user", "hello"),), "hi")])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "reply": "r", "replies": ["r"], "score": 1}, "both 'reply' and 'replies'; keep one"),
        ({"prompt": "p", "reply": "r", "score": 1, "scores": [2]}, "both 'score' and 'scores'; keep one"),
        ({"prompt": "p", "reply": "r", "score": True}, "a score is True; wanted a number"),
    ],
)
def test_a_row_that_says_two_things_or_none_is_refused(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(BadData, match=rf"s\.jsonl:1: .*{message}"):
        open_scorer(write(tmp_path / "s.jsonl", row))


def test_the_file_that_score_writes_gives_the_models_own_results(folder: Path, tmp_path: Path) -> None:
    write(
        tmp_path / "in.jsonl",
        {"prompt": "how do I bake", "reply": "mix flour"},
        {"prompt": MESSAGES, "reply": "yeast"},
        {"prompt": "hello", "reply": "a longer reply"},
    )
    model = RewardModel.load(folder, max_length=8)
    score_file(model, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    opened = open_scorer(f"scores:{tmp_path / 'out.jsonl'}")
    scores, want = opened.score_pairs(PAIRS), model.score_pairs(PAIRS)
    assert [(s.value, s.tokens, s.cut_prompt, s.cut_reply) for s in scores] == [
        (s.value, s.tokens, s.cut_prompt, s.cut_reply) for s in want
    ]
    assert opened.format["model"] == model.fingerprint


def test_rows_can_name_items_by_place_or_by_id(tmp_path: Path) -> None:
    items = [item("p", "a", "b", subset="x"), item("q", "c", "d", subset="y"), item("r", "e", "f", subset="y", id="1")]
    name = write(
        tmp_path / "s.jsonl",
        {"id": "0", "subset": "y", "scores": [3.0, 4.0]},
        {"index": 0, "scores": [1.0, 2.0]},
        {"id": 1, "scores": [5.0, None]},
    )
    opened = open_scorer(name, items=items)
    pairs = [(each.prompt, reply) for each in items for reply in each.replies]
    assert values(opened, pairs)[:5] == [1, 2, 3, 4, 5]
    assert math.isnan(values(opened, pairs)[5])
    result = evaluate(opened.score_pairs, items, name="file")
    assert (result.overall.counts.failures, result.overall.counts.failed_pairs) == (1, 1)


def test_a_reply_without_a_score_is_an_error_with_how_many_and_the_first(tmp_path: Path) -> None:
    opened = open_scorer(write(tmp_path / "s.jsonl", *ROWS))
    with pytest.raises(BadData, match="no score for 2 of 3 replies; the first is 'yeast' to 'Of what"):
        opened.score_pairs([PAIRS[0], PAIRS[1], (as_prompt("hello"), "other")])


def test_scores_that_look_like_probabilities_are_recorded_as_such(tmp_path: Path) -> None:
    opened = open_scorer(write(tmp_path / "s.jsonl", ROWS[1]))
    assert "perhaps probabilities" in opened.format["scores"]


def test_one_pair_may_be_there_twice_if_its_scores_agree(tmp_path: Path) -> None:
    row = {"prompt": "hello", "reply": "x", "score": 0.5}
    assert values(open_scorer(write(tmp_path / "s.jsonl", row, row)), [(as_prompt("hello"), "x")]) == [0.5]
    with pytest.raises(BadData, match=r"s.jsonl:2: the reply 'x' has the score 0.75 here and 0.5 before"):
        open_scorer(write(tmp_path / "s.jsonl", row, row | {"score": 0.75}))
    with pytest.raises(BadData, match=r"has the score nan here"):
        open_scorer(write(tmp_path / "s.jsonl", row, row | {"score": None}))


UNUSABLE: dict[str, tuple[list[dict[str, Any]], str]] = {
    "no score": ([{"prompt": "p", "reply": "a"}], "no column 'score'"),
    "no reply": ([{"prompt": "p", "score": 1.0}], "no column 'reply'"),
    "too few": ([{"prompt": "p", "replies": ["a", "b"], "score": [1.0]}], "1 values for 2 replies"),
    "text": ([{"prompt": "p", "reply": "a", "score": "high"}], "a score is 'high'; wanted a number"),
    "models": ([ROWS[0] | {"model": "a"}, ROWS[1] | {"model": "b"}], "the scores are of two models, a and b"),
    "no texts": ([{"id": "0", "scores": [1.0]}], "no data to find the row's item in"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_rows_that_cannot_be_used_are_named(tmp_path: Path, case: str) -> None:
    rows, message = UNUSABLE[case]
    with pytest.raises(BadData, match=f"s.jsonl:[12].*{message}"):
        open_scorer(write(tmp_path / "s.jsonl", *rows))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "9", "scores": [1.0, 2.0]}, "0 items have the id '9'"),
        ({"id": "0", "scores": [1.0, 2.0]}, "2 items have the id '0'; wanted one. A column 'subset'"),
        ({"index": 2, "scores": [1.0, 2.0]}, "wanted a whole number from 0 to 1"),
        ({"index": 0, "scores": [1.0]}, "1 values for 2 replies"),
    ],
)
def test_rows_that_name_no_item_are_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    items = [item("p", "a", "b", subset="x"), item("q", "c", "d", subset="y")]
    with pytest.raises(BadData, match=message):
        open_scorer(write(tmp_path / "s.jsonl", row), items=items)


def test_no_file_or_another_kind_of_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"there is no file of scores .*; prefrank score -o .* writes one"):
        open_scorer(f"scores:{tmp_path / 'none.jsonl'}")
    with pytest.raises(BadInput, match="is a folder; wanted scores:FILE"):
        open_scorer(f"scores:{tmp_path}")
    with pytest.raises(BadInput, match="names no file"):
        open_scorer("scores:")
    (tmp_path / "s.txt").write_text("a,b\n")
    with pytest.raises(BadInput, match=r"ends in '\.txt'"):
        open_scorer(f"scores:{tmp_path / 's.txt'}")


# Baselines


def test_without_training_data_the_baselines_are_three() -> None:
    assert list(baselines()) == ["longer reply", "shorter reply", "random"]
    assert list(baselines([])) == ["longer reply", "shorter reply", "random"]


def test_with_training_data_the_bag_of_words_joins() -> None:
    train = [comparison([f"good {n}", f"bad {n}"], [preference(0, 1)], prompt=f"p{n}", id=str(n)) for n in range(40)]
    by_name = baselines(train)
    assert list(by_name)[3:] == ["tf-idf + logistic"]
    good, bad = by_name["tf-idf + logistic"]([(as_prompt("p"), "good"), (as_prompt("p"), "bad")])
    assert good.value > bad.value
    assert good.model.startswith("baseline:tfidf:")


def test_a_file_of_scores_may_hold_replies_as_the_messages_that_score_takes(tmp_path: Path) -> None:
    message = {"role": "assistant", "content": "a fungus"}
    for reply in (message, [message], {"from": "gpt", "value": "a fungus"}):
        name = write(tmp_path / "scores.jsonl", {"prompt": "what is yeast", "reply": reply, "score": 2.5})
        scores = open_scorer(name).score_pairs([(as_prompt("what is yeast"), "a fungus")])
        assert [score.value for score in scores] == [2.5]
    name = write(tmp_path / "scores.jsonl", {"prompt": "q", "reply": [{"role": "user", "content": "x"}], "score": 1})
    with pytest.raises(BadData, match="one message of the assistant"):
        open_scorer(name)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise RuntimeError('no\\x1b[2J\\nGPU')", r"raised RuntimeError: no.{4}\[2J GPU at .*odd\.py:2"),
        ("raise SystemExit(3)", "raised SystemExit: 3 at"),
        ("return None", "gives null; wanted a list"),
        ("return 'abc'", "gives 'abc'; wanted a list"),
        ("return 1.0", "raised TypeError"),
        ("return ['1.0'] * len(replies)", "gives '1.0' for a score; wanted a number"),
        ("return [True] * len(replies)", "gives True for a score; wanted a number"),
        ("return [10 ** 400] * len(replies)", "for a score; wanted a number"),
        ("return [[1.0]] * len(replies)", r"gives \[1.0\] for a score"),
    ],
)
def test_whatever_a_function_does_is_one_line(module: Path, body: str, says: str) -> None:
    module.with_name("odd.py").write_text(f"def score(prompts, replies):\n    {body}\n")
    sys.modules.pop("odd", None)
    with pytest.raises(BadInput, match=says) as caught:
        values(open_scorer("python:odd:score"))
    assert str(caught.value).isprintable()
    sys.modules.pop("odd", None)


def test_no_more_is_taken_of_an_endless_function_than_could_be_right(module: Path) -> None:
    module.with_name("endless.py").write_text(
        "import itertools\ndef score(prompts, replies):\n    return itertools.repeat(1.0)\n"
    )
    opened = open_scorer("python:endless:score")
    assert len(opened.score_pairs(PAIRS)) == len(PAIRS) + 1


@pytest.mark.parametrize("code", ["1 / 0", "import sys; sys.exit()", "def ("])
def test_whatever_a_module_does_when_it_is_imported_is_one_line(module: Path, code: str) -> None:
    module.with_name("worse.py").write_text(code + "\n")
    with pytest.raises(BadInput, match="the module worse raised"):
        open_scorer("python:worse:f")
