"""vLLM's /classify, /score, /rerank and /pooling, as its clients send and read them."""

import base64
import struct
from typing import Any

import pytest

from prefrank.types import Turn
from prefrank.wire import vllm
from prefrank.wire.route import Asked, Refused, sigmoid
from tests.wire.asking import ABOUT, answer, ask, refusal

WHY = (Turn("user", "Why?"),)
MESSAGES = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
USAGE = {"prompt_tokens": 7, "total_tokens": 7, "completion_tokens": 0, "prompt_tokens_details": None}
HEAD = {"object": "list", "created": 1, "model": "m"}


@pytest.mark.parametrize("path", ["/classify", "/v1/classify"])
def test_classes_of_whole_texts(path: str) -> None:
    question = ask(path, {"model": "m", "input": ["a", "b"], "use_activation": False})
    assert (question.asked, question.model) == ((Asked((), "a"), Asked((), "b")), "m")
    rows = [
        {"index": 0, "label": "LABEL_0", "probs": [-1.25], "num_classes": 1},
        {"index": 1, "label": "LABEL_0", "probs": [2.0], "num_classes": 1},
    ]
    usage = USAGE | {"prompt_tokens": 14, "total_tokens": 14}
    assert answer(question, -1.25, 2.0) == HEAD | {"id": "classify-" + "0" * 32, "data": rows, "usage": usage}


@pytest.mark.parametrize(
    "flags",
    [{"use_activation": False}, {"activation": False}, {"use_activation": False, "activation": False}],
    ids=["now", "January 2026", "ours"],
)
def test_verl_reads_the_raw_score(flags: dict[str, bool]) -> None:
    """Its request of one rendered text, of both versions, and what it reads of the answer."""
    text = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nSo.<|im_end|>\n"
    question = ask("/classify", {"model": "m", "input": text, **flags})
    assert question.asked == (Asked((), text),)
    assert answer(question, -1.25)["data"][-1]["probs"][-1] == -1.25


@pytest.mark.parametrize(
    ("flags", "raw"),
    [
        ({}, False),
        ({"use_activation": None}, False),
        ({"use_activation": True}, False),
        ({"softmax": False}, True),
        ({"activation": False}, True),
        ({"activation": True, "softmax": False}, False),
        ({"use_activation": False, "activation": True}, True),
        ({"use_activation": True, "activation": False}, False),
    ],
)
@pytest.mark.parametrize("path", ["/classify", "/pooling", "/score", "/rerank"])
def test_scores_are_squashed_unless_the_newest_flag_says_otherwise(path: str, flags: dict[str, Any], raw: bool) -> None:
    texts: dict[str, Any] = {"/score": {"text_1": "a", "text_2": "b"}, "/rerank": {"query": "a", "documents": ["b"]}}
    question = ask(path, texts.get(path, {"input": "a"}) | flags)
    row = answer(question, -2.0).get("data", answer(question, -2.0).get("results"))[0]
    value = row.get("score", row.get("relevance_score", row.get("probs", row.get("data"))))
    assert value in (-2.0, [-2.0]) if raw else value in (sigmoid(-2.0), [sigmoid(-2.0)])


@pytest.mark.parametrize("path", ["/classify", "/pooling"])
def test_messages_end_in_the_reply(path: str) -> None:
    messages = [{"role": "system", "content": "Be brief."}, *MESSAGES]
    question = ask(path, {"messages": messages, "add_generation_prompt": False})
    assert question.asked == (Asked((Turn("system", "Be brief."), *WHY), "So."),)


@pytest.mark.parametrize(
    ("body", "pairs"),
    [
        ({"text_1": "a", "text_2": "b"}, [("a", "b")]),
        ({"text_1": "a", "text_2": ["b", "c"]}, [("a", "b"), ("a", "c")]),
        ({"text_1": ["a"], "text_2": ["b", "c"]}, [("a", "b"), ("a", "c")]),
        ({"text_1": ["a", "d"], "text_2": ["b", "c"]}, [("a", "b"), ("d", "c")]),
        ({"queries": "a", "documents": "b"}, [("a", "b")]),
        ({"queries": "a", "documents": ["b", "c"], "text_1": None}, [("a", "b"), ("a", "c")]),
        ({"queries": ["a", "d"], "items": ["b", "c"]}, [("a", "b"), ("d", "c")]),
        ({"data_1": "a", "data_2": ["b"]}, [("a", "b")]),
    ],
)
@pytest.mark.parametrize("path", ["/score", "/v1/score"])
def test_prompts_and_replies_are_paired(path: str, body: dict[str, Any], pairs: list[tuple[str, str]]) -> None:
    question = ask(path, {"use_activation": False} | body)
    assert question.asked == tuple(Asked((Turn("user", prompt),), reply) for prompt, reply in pairs)
    values = [float(place) for place in range(len(pairs))]
    written = answer(question, *values)
    assert written["data"] == [{"index": n, "object": "score", "score": value} for n, value in enumerate(values)]
    assert written["id"] == "score-" + "0" * 32


@pytest.mark.parametrize(("top_n", "places"), [(None, [1, 0, 2]), (0, [1, 0, 2]), (2, [1, 0]), (9, [1, 0, 2])])
def test_a_ranking_has_the_best_first_and_its_documents(top_n: int | None, places: list[int]) -> None:
    question = ask("/rerank", {"model": "m", "query": "Why?", "documents": ["a", "b", "c"], "top_n": top_n})
    assert question.asked == (Asked(WHY, "a"), Asked(WHY, "b"), Asked(WHY, "c"))
    values = [0.0, 2.0, 0.0]
    results = [{"index": n, "document": {"text": "abc"[n]}, "relevance_score": sigmoid(values[n])} for n in places]
    tokens = {"prompt_tokens": 21, "total_tokens": 21}
    assert answer(question, *values) == {
        "id": "rerank-" + "0" * 32, "model": "m", "usage": tokens, "results": results
    }  # fmt: skip


def test_pooled_scores_are_vectors_of_one_number() -> None:
    question = ask("/pooling", {"model": "m", "input": "a", "task": "classify", "use_activation": False})
    data = [{"index": 0, "object": "pooling", "data": [-1.25]}]
    assert answer(question, -1.25) == HEAD | {"id": "pool-" + "0" * 32, "data": data, "usage": USAGE}
    coded = ask("/pooling", {"input": "a", "encoding_format": "base64", "use_activation": False})
    assert struct.unpack("<f", base64.b64decode(answer(coded, -1.25)["data"][0]["data"])) == (-1.25,)


def test_reward_hub_sends_messages_alone() -> None:
    question = ask("/pooling", {"model": "m", "messages": MESSAGES})
    assert question.asked == (Asked(WHY, "So."),)


@pytest.mark.parametrize(("cut", "may_cut"), [({}, None), ({"truncate_prompt_tokens": None}, None)] + [
    ({"truncate_prompt_tokens": tokens}, True) for tokens in (-1, 0, 512)
])  # fmt: skip
def test_what_is_too_long_is_cut_where_the_request_allows_it(cut: dict[str, Any], may_cut: bool | None) -> None:
    assert ask("/classify", {"input": "a"} | cut).may_cut is may_cut
    assert ask("/score", {"text_1": "a", "text_2": "b"} | cut).may_cut is may_cut


@pytest.mark.parametrize(
    ("path", "body", "param", "words"),
    [
        ("/v1/classify", {}, None, "wanted input, a text or a list of texts, or messages that end in the reply"),
        ("/v1/classify", [], None, "the body is []; wanted an object"),
        ("/classify", {"input": "a", "messages": MESSAGES}, None, "wanted input, a text or a list"),
        ("/classify", {"input": []}, None, "nothing to score"),
        ("/classify", {"input": [1, 2]}, "input", "input holds token ids; wanted text"),
        ("/classify", {"input": [[1, 2]]}, "input", "input holds token ids; wanted text"),
        ("/classify", {"input": ["a", None]}, "input[1]", "input[1] is null; wanted a string"),
        ("/classify", {"input": 5}, "input", "input is 5; wanted a string or a list of strings"),
        ("/classify", {"messages": MESSAGES[:1]}, "messages", "the last message has the role user"),
        ("/classify", {"messages": []}, "messages", "messages is []"),
        ("/classify", {"messages": [{"role": "x"}]}, "messages", "has the role 'x'"),
        ("/classify", {"input": "a", "truncate_prompt_tokens": -2}, "truncate_prompt_tokens", "is -2; wanted -1 for"),
        ("/classify", {"input": "a", "use_activation": 0}, "use_activation", "is 0; wanted true or false"),
        ("/classify", {"messages": MESSAGES, "chat_template": "{{}}"}, "chat_template", "is '{{}}'; messages are read"),
        ("/classify", {"messages": MESSAGES, "add_generation_prompt": True}, "add_generation_prompt", "leave it out"),
        ("/classify", {"input": "a", "model": 3}, "model", "model is 3; wanted a string"),
        ("/pooling", {"input": "a", "task": "token_classify"}, "task", "the task is 'token_classify'; this model"),
        ("/pooling", {"input": "a", "encoding_format": "bytes"}, "encoding_format", "wanted one of 'float', 'base64'"),
        ("/score", {}, None, "the body has no texts; wanted queries and documents, or queries and items, or text_1"),
        ("/score", {"text_1": "a"}, None, "the body has text_1; wanted"),
        ("/score", {"text_1": "a", "text_2": "b", "items": "c"}, None, "the body has items and text_1 and text_2"),
        ("/score", {"text_1": ["a", "b"], "text_2": ["c"]}, "text_2", "there are 2 text_1 and 1 text_2; wanted one"),
        ("/score", {"text_1": [], "text_2": []}, None, "nothing to score"),
        ("/score", {"text_1": "a", "text_2": {"content": []}}, "text_2", "wanted a string or a list of strings"),
        ("/score", {"text_1": "a", "text_2": "b", "instruction": "Judge."}, "instruction", "is 'Judge.'; prompt and"),
        ("/score", {"text_1": "a", "text_2": "b", "max_tokens_per_doc": 5}, "max_tokens_per_doc", "is 5; prompt and"),
        ("/rerank", {"query": "a"}, "documents", "documents is missing"),
        ("/rerank", {"query": ["a"], "documents": ["b"]}, "query", "wanted a string"),
        ("/rerank", {"query": "a", "documents": []}, None, "nothing to score"),
        ("/rerank", {"query": "a", "documents": ["b"], "top_n": -1}, "top_n", "wanted a whole number"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_a_400_that_names_the_place(
    path: str, body: Any, param: str | None, words: str
) -> None:
    dialect, status, error = refusal(path, body)
    assert (dialect, status) == ("vllm", 400)
    assert words in error["error"].pop("message")
    assert error == {"error": {"type": "BadRequestError", "param": param, "code": 400}}


@pytest.mark.parametrize(
    ("kind", "status", "name"),
    [
        ("unknown_model", 404, "NotFoundError"),
        ("too_long", 400, "BadRequestError"),
        ("too_large", 413, "BadRequestError"),
        ("media", 415, "BadRequestError"),
        ("overloaded", 503, "ServiceUnavailableError"),
        ("limited", 503, "ServiceUnavailableError"),
        ("unavailable", 503, "ServiceUnavailableError"),
        ("timeout", 504, "InternalServerError"),
        ("failed", 500, "InternalServerError"),
    ],
)
def test_verl_tries_again_what_may_pass(kind: Any, status: int, name: str) -> None:
    """It takes any 4xx for final, and a 429 would end the run."""
    assert vllm.ERRORS.status(kind) == status
    written = vllm.ERRORS.write(Refused(kind, "it is bad"), status)
    assert written == {"error": {"message": "it is bad", "type": name, "param": None, "code": status}}


def test_a_wrong_key_is_answered_as_vllm_does() -> None:
    assert vllm.ERRORS.write(Refused("unauthorized", "no key"), 401) == {"error": "Unauthorized: no key"}


def test_the_pages_name_model_and_version() -> None:
    models, version = (page.write([ABOUT]) for page in vllm.PAGES)
    assert version == {"version": "1"}
    [model] = models["data"]
    assert models["object"] == "list"
    assert {key: model[key] for key in ("id", "object", "owned_by", "max_model_len")} == {
        "id": "m", "object": "model", "owned_by": "prefrank", "max_model_len": 512
    }  # fmt: skip
