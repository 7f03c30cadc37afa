"""SGLang's /classify, /v1/embeddings and /v1/score, as SGLang's clients, AReaL and verl send and read them."""

import base64
import struct
from typing import Any

import pytest

from prefrank.types import Score, Turn
from prefrank.wire import sglang
from prefrank.wire.route import Answered, Asked, Refused
from tests.wire.asking import ABOUT, answer, ask, refusal

TEXT = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nSo.<|im_end|>\n"


def areal_rewards(reply: Any, prompts: int) -> list[float]:
    """What AReaL makes of an answer: 0 for each text where it has the key `error`, whatever its status."""
    if "error" in reply:
        return [0.0] * prompts
    return [result["embedding"][0] for result in reply]


def test_areal_reads_raw_scores() -> None:
    question = ask("/classify", {"model": "/storage/Skywork-Reward-V2-Qwen3-8B", "text": [TEXT, "b"]})
    assert question.asked == (Asked((), TEXT), Asked((), "b"))
    assert question.any_name, "it sends the path of its tokenizer"
    assert areal_rewards(answer(question, -1.25, 2.0), 2) == [-1.25, 2.0]


@pytest.mark.parametrize("kind", ["overloaded", "failed", "too_long", "unknown_model", "unauthorized", "unavailable"])
def test_areal_stops_at_a_failure_and_does_not_train_on_0(kind: Any) -> None:
    status = sglang.ERRORS.status(kind)
    with pytest.raises(TypeError):
        areal_rewards(sglang.ERRORS.write(Refused(kind, "it is bad"), status), 2)


def test_a_text_alone_has_an_answer_alone() -> None:
    question = ask("/classify", {"text": TEXT})
    facts = {"id": "0" * 32 + "-0", "prompt_tokens": 7, "cut_tokens": 0}
    assert answer(question, -1.25) == {"embedding": [-1.25], "meta_info": facts}
    assert answer(ask("/classify", {"text": [TEXT]}), -1.25) == [{"embedding": [-1.25], "meta_info": facts}]


def test_an_answer_says_what_was_cut() -> None:
    cut = Score(1.0, tokens=9, cut_prompt=2, cut_reply=1, model="f")
    question = ask("/classify", {"text": "a"})
    written = question.answer(Answered(outcomes=(cut,), about=ABOUT, id="0", created=1))
    assert written["meta_info"] == {"id": "0-0", "prompt_tokens": 9, "cut_tokens": 3}


def test_verl_reads_the_raw_score() -> None:
    """The last embedding's last number is its reward."""
    question = ask("/v1/embeddings", {"model": "Skywork/Skywork-Reward", "input": TEXT})
    assert question.asked == (Asked((), TEXT),)
    assert question.any_name
    assert answer(question, -1.25)["data"][-1]["embedding"][-1] == -1.25


def test_embeddings_are_those_of_openai() -> None:
    question = ask("/v1/embeddings", {"model": "m", "input": ["a", "b"], "encoding_format": "float"})
    written = answer(question, -1.25, 2.0)
    assert written["data"] == [
        {"object": "embedding", "index": 0, "embedding": [-1.25]},
        {"object": "embedding", "index": 1, "embedding": [2.0]},
    ]
    assert (written["object"], written["model"], written["usage"]["prompt_tokens"]) == ("list", "m", 14)
    coded = answer(ask("/v1/embeddings", {"input": "a", "encoding_format": "base64"}), -1.25)
    assert struct.unpack("<f", base64.b64decode(coded["data"][0]["embedding"])) == (-1.25,)


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        ({"query": "Why?", "items": ["So."]}, Asked((Turn("user", "Why?"),), "So.")),
        ({"query": "Why?", "items": "So.", "label_token_ids": None}, Asked((Turn("user", "Why?"),), "So.")),
        ({"query": "So.", "items": "Why?", "item_first": True}, Asked((Turn("user", "Why?"),), "So.")),
        (
            {"query": TEXT.removesuffix("So.<|im_end|>\n"), "items": "So.<|im_end|>"},
            Asked((Turn("user", "Why?"),), "So."),
        ),
    ],
)
def test_items_are_scored_as_replies_to_the_query(body: dict[str, Any], asked: Asked) -> None:
    question = ask("/v1/score", {"model": "m", **body})
    assert question.asked == (asked,)
    written = answer(question, -1.25)
    assert written.pop("usage")["total_tokens"] == 7
    assert written == {"scores": [[-1.25]], "model": "m", "object": "scoring"}


@pytest.mark.parametrize(
    ("path", "body", "param", "words"),
    [
        ("/classify", {"input_ids": [1]}, "input_ids", "wanted text, a string or a list of strings, or input"),
        ("/classify", {"text": "a", "input_ids": [1]}, "input_ids", "and no input_ids"),
        ("/classify", {"text": None}, "text", "wanted text"),
        ("/classify", {}, "text", "or input or messages as for vLLM"),
        ("/classify", [], None, "the body is []; wanted an object"),
        ("/classify", {"text": [1]}, "text[0]", "text[0] is 1; wanted a string"),
        ("/classify", {"text": []}, None, "nothing to score"),
        ("/v1/embeddings", {}, "input", "input is missing"),
        ("/v1/embeddings", {"input": [[1]]}, "input", "input holds token ids"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "x"}, "encoding_format", "wanted one of"),
        ("/v1/score", {"query": "a", "items": ["b"], "label_token_ids": [5]}, "label_token_ids", "that generate text"),
        ("/v1/score", {"label_token_ids": [5]}, "label_token_ids", "that generate text"),
        ("/v1/score", {"query": "a"}, None, "wanted query, a string, and items"),
        ("/v1/score", {"query": [1], "items": "a"}, "query", "wanted a string"),
        ("/v1/score", {"query": "a", "items": "b", "apply_softmax": True}, "apply_softmax", "would make 1 of every"),
    ],
)
def test_what_cannot_be_asked_is_a_flat_400(path: str, body: Any, param: str | None, words: str) -> None:
    dialect, status, error = refusal(path, body)
    assert (dialect, status) == ("sglang", 400)
    assert words in error.pop("message")
    assert error == {"object": "error", "type": "BadRequestError", "param": param, "code": 400}


def test_verl_tries_again_what_may_pass() -> None:
    assert [sglang.ERRORS.status(kind) for kind in ("overloaded", "limited", "failed")] == [503, 503, 500]


def test_the_page_names_the_model() -> None:
    [page] = sglang.PAGES
    written = page.write([ABOUT])
    assert (written["model_path"], written["is_generation"], written["weight_version"]) == ("m", False, "f" * 64)
    assert set(page.paths) == set(sglang.CLASSIFY.signs.pages if sglang.CLASSIFY.signs else ())
