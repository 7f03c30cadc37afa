"""Servers as scorers, against a small server of the tests' own on the loopback: each protocol, and each fault."""

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prefrank.errors import BadInput, BadModel, NotFound
from prefrank.scoring.remote import PROBES, ServerOptions, open_server
from prefrank.types import Turn, as_prompt
from prefrank.wire import DIALECTS
from prefrank.wire.inputs import Pair, labelled, query_of
from tests.scoring.fake_server import Answer, FakeServer
from tests.tiny import chat_folder, wordpiece_folder

CONVERSATION = (Turn("user", "Why?"), Turn("assistant", "Because."), Turn("user", "Of what?"))
PAIRS: list[Pair] = [
    (as_prompt("How do I bake bread?"), "Mix flour and water."),
    (as_prompt("How do I bake bread?"), "No."),
    (CONVERSATION, "Yeast, I think."),
    (as_prompt("How do I bake bread?"), "Buy it, and say that you baked it."),
]


def worth(query: str, reply: str) -> float:
    return len(reply) - 0.25 * len(query)


def wanted(pairs: list[Pair] = PAIRS) -> list[float]:
    return [worth(query_of(prompt), reply) for prompt, reply in pairs]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = FakeServer()
    yield server
    server.close()


def values_of(url: str, pairs: list[Pair] = PAIRS, **options: Any) -> list[float]:
    opened = open_server(url, ServerOptions(**({"wait_s": 0.01} | options)))
    return [score.value for score in opened.score_pairs(pairs)]


# What each server answers, after its own source or pages


def predict(body: Any) -> Answer:
    pairs = body["inputs"]
    assert all(len(pair) == 2 for pair in pairs)
    return 200, [[{"score": raw(body, worth(*pair)), "label": "LABEL_0"}] for pair in pairs]


def raw(body: Any, value: float) -> float:
    asked = body.get("raw_scores") is True or body.get("use_activation") is False
    return value if asked else 1 / (1 + math.exp(-value))


def best_first(body: Any, texts: list[str], name: str) -> list[dict[str, Any]]:
    results = [{"index": i, name: raw(body, worth(body["query"], text))} for i, text in enumerate(texts)]
    return sorted(results, key=lambda result: -result[name])


def tei_rerank(body: Any) -> Answer:
    return 200, best_first(body, body["texts"], "score")


def rerank(body: Any) -> Answer:
    results = best_first(body, body["documents"], "relevance_score")
    return 200, {"object": "rerank", "results": results[: body["top_n"]], "model": "m", "usage": {}}


def cohere(body: Any) -> Answer:
    assert set(body) <= {"model", "query", "documents", "top_n"}
    return rerank(body | {"use_activation": False})


def sglang(body: Any) -> Answer:
    return 200, best_first(body, body["documents"], "score")


def vllm_score(body: Any) -> Answer:
    both = zip(body["text_1"], body["text_2"], strict=True)
    data = [{"index": i, "object": "score", "score": raw(body, worth(*pair))} for i, pair in enumerate(both)]
    return 200, {"object": "list", "data": data[::-1]}


def of_messages(body: Any) -> float:
    *prompt, reply = body["messages"]
    assert reply["role"] == "assistant"
    return raw(body, worth(query_of(tuple(Turn(m["role"], m["content"]) for m in prompt)), reply["content"]))


def classify(body: Any) -> Answer:
    probs = [of_messages(body)]
    return 200, {"data": [{"index": 0, "label": "LABEL_0", "probs": probs, "num_classes": 1}]}


def pooling(body: Any) -> Answer:
    return 200, {"data": [{"index": 0, "object": "pooling", "data": [of_messages(body)]}]}


def own(body: Any) -> Answer:
    scores = [
        worth(query_of(tuple(Turn(m["role"], m["content"]) for m in pair["prompt"])), pair["reply"])
        for pair in body["pairs"]
    ]
    return 200, {"scale": "logit", "scores": [{"index": i, "score": score} for i, score in enumerate(scores)]}


def reward(body: Any) -> Answer:
    """Whole texts in; what stands before the reply is in `prompts`."""
    replies = [query.removeprefix(prompt) for query, prompt in zip(body["query"], body["prompts"], strict=True)]
    return 200, {"rewards": [float(len(reply)) for reply in replies], "scores": [0.5] * len(replies), "extra_logs": {}}


SERVERS: dict[str, tuple[str, Callable[[Any], Answer]]] = {
    "prefrank": ("/api/score", own),
    "tei-predict": ("/predict", predict),
    "rerank": ("/rerank", rerank),
    "cohere": ("/v2/rerank", cohere),
    "vllm-score": ("/v1/score", vllm_score),
    "vllm-classify": ("/classify", classify),
    "vllm-pooling": ("/pooling", pooling),
}


@pytest.mark.parametrize("protocol", SERVERS)
def test_a_protocol_is_told_by_the_path_and_gives_raw_scores_in_order(fake: FakeServer, protocol: str) -> None:
    path, answer = SERVERS[protocol]
    fake.answers[path] = answer
    opened = open_server(fake.url + path)
    assert opened.format["protocol"] == protocol
    assert [score.value for score in opened.score_pairs(PAIRS)] == wanted()
    assert {score.model for score in opened.score_pairs(PAIRS)} == {opened.fingerprint}
    assert opened.format["url"] == fake.url + path
    assert "perhaps" not in opened.format["scores"]
    json.dumps(opened.format, allow_nan=False)


def test_every_protocol_is_tested() -> None:
    assert set(SERVERS) | {"tei-rerank", "openrlhf"} | set(WHOLE) == set(DIALECTS)


# Servers that take prompt and reply as one text


def sglang_classify(body: Any) -> Answer:
    assert set(body) <= {"model", "text"}
    assert isinstance(body["text"], list)
    results = [{"embedding": [float(len(text))], "meta_info": {"prompt_tokens": 3}} for text in body["text"]]
    return 200, results


def llama_factory(body: Any) -> Answer:
    assert set(body) == {"model", "messages"}
    scores = [float(len(text)) for text in body["messages"]]
    return 200, {"id": "scoreval-1", "object": "score.evaluation", "model": body["model"], "scores": scores}


WHOLE: dict[str, tuple[str, Callable[[Any], Answer], str]] = {
    "sglang-classify": ("/classify", sglang_classify, "text"),
    "llama-factory": ("/v1/score/evaluation", llama_factory, "messages"),
}


def whole(fake: FakeServer, protocol: str) -> str:
    """The URL of a server that speaks this."""
    path, answer, _ = WHOLE[protocol]
    fake.answers[path] = answer
    if protocol == "sglang-classify":
        fake.pages["/get_model_info"] = {"model_path": "org/rm", "is_generation": False}
    return fake.url + path


@pytest.mark.parametrize("protocol", WHOLE)
def test_a_server_of_whole_texts_gets_the_labelled_conversation(fake: FakeServer, protocol: str) -> None:
    opened = open_server(whole(fake, protocol))
    assert opened.format["protocol"] == protocol
    wanted = [float(len(labelled((*prompt, Turn("assistant", reply))))) for prompt, reply in PAIRS]
    assert [score.value for score in opened.score_pairs(PAIRS)] == wanted
    sent = fake.asked[-1][1][WHOLE[protocol][2]]
    assert sent[0] == "User: How do I bake bread?\n\nAssistant: Mix flour and water."
    assert sent[2] == "User: Why?\n\nAssistant: Because.\n\nUser: Of what?\n\nAssistant: Yeast, I think."
    assert "without a chat template" in opened.format["input"]


@pytest.mark.parametrize("protocol", WHOLE)
@pytest.mark.parametrize("path", ["", "/my/rm"])
def test_a_stated_protocol_is_spoken_at_any_path(fake: FakeServer, protocol: str, path: str) -> None:
    own, answer, _ = WHOLE[protocol]
    fake.answers[path or own] = answer
    opened = open_server(fake.url + path, ServerOptions(protocol=protocol))
    assert opened.format["url"] == fake.url + (path or own)


def test_sglang_is_known_by_its_own_page_and_only_at_its_own_path(fake: FakeServer) -> None:
    fake.pages["/model_info"] = {"model_path": "org/rm"}
    fake.answers |= {"/classify": sglang_classify, "/v1/classify": classify}
    assert open_server(fake.url + "/classify").format["protocol"] == "sglang-classify"
    assert open_server(fake.url + "/v1/classify").format["protocol"] == "vllm-classify"
    fake.pages.clear()
    fake.answers["/classify"] = classify
    assert open_server(fake.url + "/classify").format["protocol"] == "vllm-classify"


@pytest.mark.parametrize(("protocol", "bos"), [("sglang-classify", ""), ("llama-factory", "[BOS]")])
def test_a_chat_template_writes_the_whole_text_and_the_beginning_stands_once(
    fake: FakeServer, tmp_path: Path, protocol: str, bos: str
) -> None:
    """SGLang's tokenizer adds the beginning, LLaMA-Factory's does not."""
    template = "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    folder = chat_folder(tmp_path, template, ("[BOS]",))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"bos_token": "[BOS]"}))
    opened = open_server(whole(fake, protocol), ServerOptions(chat_template=str(folder)))
    opened.score_pairs([((Turn("system", "Be brief."), Turn("user", "Why?")), "So.")])
    assert fake.asked[-1][1][WHOLE[protocol][2]] == [f"{bos}<system>Be brief.<user>Why?<assistant>So."]
    assert opened.format["input"] == f"one text, written by the chat template of {folder}"


def test_a_chat_template_is_refused_where_nothing_would_use_it(fake: FakeServer, tmp_path: Path) -> None:
    fake.answers["/predict"] = predict
    with pytest.raises(BadInput, match=r"tei-predict takes no whole texts.*only openrlhf, sglang-classify, llama-fac"):
        values_of(fake.url + "/predict", chat_template="x")
    url = whole(fake, "llama-factory")
    with pytest.raises(BadInput, match=r"the tokenizer of .* has no chat template"):
        values_of(url, chat_template=str(wordpiece_folder(tmp_path / "plain")))
    with pytest.raises(BadInput, match=r"nothing has no tokenizer"):
        values_of(url, chat_template=str(tmp_path / "nothing"))


def test_a_turn_that_the_template_refuses_is_named(fake: FakeServer, tmp_path: Path) -> None:
    template = "{{ raise_exception('no such role') if messages[0]['role'] == 'tool' else messages[-1]['content'] }}"
    options = ServerOptions(chat_template=str(chat_folder(tmp_path, template)))
    opened = open_server(whole(fake, "llama-factory"), options)
    with pytest.raises(BadInput, match="refuses turns of the roles tool, user, assistant: no such role"):
        opened.score_pairs([((Turn("tool", "4"), Turn("user", "?")), "So.")])


def test_a_model_that_only_writes_is_told_from_one_that_scores(fake: FakeServer) -> None:
    """LLaMA-Factory's answer where it serves no reward model."""
    fake.answers["/v1/score/evaluation"] = lambda body: (405, {"detail": "Not allowed"})
    with pytest.raises(BadModel, match=r"status 405: .*Not allowed.*is it a reward model that it serves"):
        values_of(fake.url + "/v1/score/evaluation")


# What a conversation holds beside text

CALL = '{"tool_calls": [{"id": "1", "function": {"name": "add", "arguments": {"a": 2}}}]}'
TALK = (
    Turn("developer", "Be brief."), Turn("user", "2 + 2?"), Turn("assistant", "", CALL),
    Turn("tool", "4", '{"tool_call_id": "1"}'),
)  # fmt: skip


def test_messages_go_out_with_their_roles_and_tool_calls(fake: FakeServer) -> None:
    fake.answers["/classify"] = lambda body: (200, {"data": [{"index": 0, "probs": [len(body["messages"])]}]})
    assert values_of(fake.url + "/classify", [(TALK, "Four.")]) == [5]
    assert fake.asked[-1][1]["messages"] == [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "", **json.loads(CALL)},
        {"role": "tool", "content": "4", "tool_call_id": "1"},
        {"role": "assistant", "content": "Four."},
    ]


def test_a_remote_reward_gets_the_whole_text_and_the_part_before_the_reply(fake: FakeServer) -> None:
    fake.answers["/get_reward"] = reward
    assert values_of(fake.url + "/get_reward") == [len(reply) for _, reply in PAIRS]
    body = fake.asked[-1][1]
    assert body["query"][0] == "User: How do I bake bread?\n\nAssistant: Mix flour and water."
    assert body["prompts"][2] == "User: Why?\n\nAssistant: Because.\n\nUser: Of what?\n\nAssistant: "
    assert body["labels"] == [None] * 4


@pytest.mark.parametrize("shape", [lambda r: [[reward] for reward in r], lambda r: r[0]])
def test_a_remote_reward_may_be_nested_or_bare(fake: FakeServer, shape: Callable[[list[float]], Any]) -> None:
    fake.answers["/my/reward"] = lambda body: (200, {"rewards": shape(reward(body)[1]["rewards"])})
    assert values_of(fake.url + "/my/reward", protocol="openrlhf", batch=1) == [len(reply) for _, reply in PAIRS]


def test_sglangs_bare_list_is_read(fake: FakeServer) -> None:
    fake.answers["/v1/rerank"] = sglang
    opened = open_server(fake.url + "/v1/rerank", ServerOptions(protocol="rerank"))
    assert [score.value for score in opened.score_pairs(PAIRS)] == wanted()


def test_tei_is_known_by_its_info_page_and_its_limit_is_kept(fake: FakeServer) -> None:
    fake.pages["/info"] = {
        "model_id": "org/rm", "model_sha": "abc", "model_type": {"reranker": {}}, "max_client_batch_size": 2,
    }  # fmt: skip
    fake.answers |= {"/predict": predict, "/rerank": tei_rerank}
    for path, protocol, posted in (("", "tei-predict", "/predict"), ("/rerank", "tei-rerank", "/rerank")):
        opened = open_server(fake.url + path)
        assert [score.value for score in opened.score_pairs(PAIRS)] == wanted()
        assert opened.format["protocol"] == protocol
        assert opened.fingerprint == f"{fake.url}{posted}#org/rm@abc"
    assert max(len(body.get("inputs", body.get("texts"))) for _, body in fake.asked) == 2


def test_the_first_listed_model_is_asked_for_unless_another_is_named(fake: FakeServer) -> None:
    fake.pages["/base/v1/models"] = {"data": [{"id": "org/rm"}, {"id": "other"}]}
    fake.answers["/base/score"] = vllm_score
    opened = open_server(fake.url + "/base/score")
    assert (opened.format["server_model"], fake.asked[-1][1]["model"]) == ("org/rm", "org/rm")
    opened = open_server(fake.url + "/base/score", ServerOptions(model="other"))
    assert (opened.fingerprint, fake.asked[-1][1]["model"]) == (f"{fake.url}/base/score#other", "other")


def test_replies_to_one_prompt_go_together_and_batches_are_no_larger_than_asked(fake: FakeServer) -> None:
    fake.answers["/rerank"] = rerank
    pairs = [(as_prompt(f"prompt {n % 3}"), f"reply {n}") for n in range(15)]
    assert values_of(fake.url + "/rerank", pairs, batch=4) == wanted(pairs)
    sizes = [len(body["documents"]) for _, body in fake.asked if body["query"].startswith("prompt")]
    assert sorted(sizes) == [1, 1, 1, 4, 4, 4]


def test_the_last_user_turn_alone_can_be_the_query(fake: FakeServer) -> None:
    fake.answers["/predict"] = predict
    opened = open_server(fake.url + "/predict", ServerOptions(turns="last"))
    opened.score_pairs(PAIRS[2:3])
    assert fake.asked[-1][1]["inputs"] == [["Of what?", "Yeast, I think."]]
    assert "last user turn" in opened.format["input"]


def test_a_key_is_sent_and_kept_nowhere(fake: FakeServer) -> None:
    fake.answers["/predict"] = predict
    options = ServerOptions(key="secret-key")
    opened = open_server(fake.url + "/predict", options)
    assert fake.headers[-1]["authorization"] == "Bearer secret-key"
    assert "secret-key" not in repr(opened) + repr(options)
    fake.answers["/predict"] = lambda body: (401, "")
    with pytest.raises(BadModel, match=r"status 401: .*wants a key"):
        open_server(fake.url + "/predict")


def test_a_key_in_the_address_is_sent_and_kept_nowhere(fake: FakeServer) -> None:
    fake.answers["/predict?key=secret"] = predict
    opened = open_server(fake.url + "/predict?key=secret")
    assert "secret" not in opened.fingerprint + repr(opened.format)
    fake.answers["/predict?key=secret"] = lambda body: (503, "")
    with pytest.raises(NotFound) as caught:
        values_of(fake.url + "/predict?key=secret", tries=1)
    assert "secret" not in str(caught.value)


# Scales


def test_scores_that_look_like_probabilities_are_recorded_as_such(fake: FakeServer) -> None:
    fake.answers["/rerank"] = lambda body: rerank(body | {"raw_scores": False, "use_activation": True})
    assert "within 0 to 1 on 3 probes: perhaps probabilities" in open_server(fake.url + "/rerank").format["scores"]


def test_equal_scores_of_all_probes_are_recorded(fake: FakeServer) -> None:
    """As SGLang gives them: a softmax over one output is 1 for every text."""
    fake.answers["/classify"] = lambda body: (200, {"data": [{"index": 0, "probs": [1.0]}]})
    assert "EQUAL on 3 unlike probes" in open_server(fake.url + "/classify").format["scores"]


# Faults


def failing(times: int, fault: Callable[[], Answer], then: Callable[[Any], Answer]) -> Callable[[Any], Answer]:
    """A fault that goes away after some requests (the one for the probes counts)."""
    count = iter(range(10**6))
    return lambda body: fault() if next(count) < times else then(body)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_an_overloaded_server_is_asked_again(fake: FakeServer, status: int) -> None:
    fake.answers["/predict"] = failing(3, lambda: (status, {"error": "Model is overloaded"}), predict)
    assert values_of(fake.url + "/predict") == wanted()


def test_after_some_tries_it_is_an_error_that_says_what_came(fake: FakeServer) -> None:
    fake.answers["/predict"] = lambda body: (503, {"error": "no worker"})
    with pytest.raises(NotFound, match=r"/predict answered with status 503: .*no worker.*tried 3 times"):
        values_of(fake.url + "/predict", tries=3)
    assert len(fake.asked) == 3


@pytest.mark.parametrize(
    ("header", "waits"),
    [
        ("7", [7, 7]),
        ("0.5", [0.5, 0.5]),
        ("86400", [60, 60]),
        ("9" * 100, [60, 60]),
        ("0", [0.01, 0.02]),
        ("1e400", [0.01, 0.02]),
        ("1e3", [0.01, 0.02]),
        ("inf", [0.01, 0.02]),
        ("nan", [0.01, 0.02]),
        ("-3", [0.01, 0.02]),
        ("\u0661", [0.01, 0.02]),
        ("9" * 101, [0.01, 0.02]),
        ("Wed, 21 Oct 2015 07:28:00 GMT", [0.01, 0.02]),
    ],
)
def test_retry_after_is_waited_for_up_to_a_minute_and_passed_over_where_it_is_no_number_of_seconds(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch, header: str, waits: list[float]
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("prefrank.scoring.exchange.time.sleep", waited.append)
    fake.send = {"retry-after": header.encode().decode("latin-1")}
    fake.answers["/predict"] = failing(2, lambda: (429, {}), predict)
    assert values_of(fake.url + "/predict") == wanted()
    assert waited == waits


def test_a_wait_that_is_too_long_is_said_when_the_server_is_given_up(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefrank.scoring.exchange.time.sleep", lambda seconds: None)
    fake.answers["/predict"] = lambda body: (429, {})
    fake.send = {"retry-after": "86400"}
    with pytest.raises(NotFound, match=r"it asks for a wait of 86400 s; prefrank waits 60 s at most\); tried 2 times"):
        values_of(fake.url + "/predict", tries=2)
    fake.send = {"retry-after": "60"}
    with pytest.raises(NotFound, match=r"status 429: \{\}; tried 2 times"):
        values_of(fake.url + "/predict", tries=2)


def test_a_slow_server_is_asked_again_and_then_given_up(fake: FakeServer) -> None:
    def slow() -> Answer:
        time.sleep(0.5)
        return 200, []

    fake.answers["/predict"] = failing(1, slow, predict)
    assert values_of(fake.url + "/predict", timeout_s=0.2) == wanted()
    fake.answers["/predict"] = lambda body: slow()
    with pytest.raises(NotFound, match=r"gave no answer in 0\.1 s; tried 2 times"):
        values_of(fake.url + "/predict", timeout_s=0.1, tries=2)


def test_an_answer_that_breaks_off_is_asked_for_again(fake: FakeServer) -> None:
    fake.answers["/predict"] = predict
    fake.send = {"x-short": "yes"}
    with pytest.raises(NotFound, match=r"broke off \(\w+Error: .*; tried 2 times"):
        values_of(fake.url + "/predict", tries=2, timeout_s=0.2)


@pytest.mark.parametrize("status", [413, 422])
def test_a_batch_that_is_too_large_is_halved(fake: FakeServer, status: int) -> None:
    def small_only(body: Any) -> Answer:
        return predict(body) if len(body["inputs"]) <= 2 else (status, {"error": "batch size > 2"})

    fake.answers["/predict"] = small_only
    pairs = [(as_prompt("p"), "x" * n) for n in range(9)]
    assert values_of(fake.url + "/predict", pairs) == wanted(pairs)


def test_one_text_that_is_too_large_is_an_error(fake: FakeServer) -> None:
    fake.answers["/predict"] = lambda body: (
        (413, "length limit exceeded") if "xx" in json.dumps(body) else predict(body)
    )
    with pytest.raises(BadModel, match=r"status 413: length limit exceeded"):
        values_of(fake.url + "/predict", [(as_prompt("p"), "xx")])


def test_a_whole_batch_refused_for_one_nan_costs_that_reply_alone(fake: FakeServer) -> None:
    """As text-embeddings-inference does."""

    def nan_refused(body: Any) -> Answer:
        bad = any(reply == "No." for _, reply in body["inputs"])
        return (424, {"error": "score is NaN", "error_type": "Backend"}) if bad else predict(body)

    fake.answers["/predict"] = nan_refused
    scores, want = values_of(fake.url + "/predict"), wanted()
    assert math.isnan(scores[1])
    assert scores[:1] + scores[2:] == want[:1] + want[2:]


def test_another_failed_dependency_is_an_error(fake: FakeServer) -> None:
    fake.answers["/predict"] = lambda body: (424, {"error": "model is not a re-ranker model; see finance"})
    with pytest.raises(BadModel, match=r"status 424: .*not a re-ranker"):
        values_of(fake.url + "/predict")


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_null_and_nan_are_failures(fake: FakeServer, value: float | None) -> None:
    """json.dumps writes the literals NaN and Infinity, as many servers do."""
    fake.answers["/get_reward"] = lambda body: (200, {"rewards": [value, *reward(body)[1]["rewards"][1:]]})
    scores = values_of(fake.url + "/get_reward")
    assert not math.isfinite(scores[0])
    assert scores[1:] == [len(reply) for _, reply in PAIRS[1:]]


WRONG: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "missing": ("/score", lambda a: a | {"data": a["data"][1:]}, "no score for 1 of 3 texts, the first is text 2 "),
    "two": ("/score", lambda a: a | {"data": a["data"] + a["data"][:1]}, "two scores for text 2"),
    "beyond": ("/score", lambda a: {"data": [{"index": 3, "score": 1.0}]}, "a score for text 3 of 3"),
    "no index": ("/score", lambda a: {"data": [{"score": 1.0}]}, "it is not an answer of vllm-score"),
    "text": ("/score", lambda a: {"data": [{"index": 0, "score": "high"}]}, "'high' for a score"),
    "classes": ("/classify", lambda a: {"data": [{"index": 0, "probs": [0.1, 0.9]}]}, "2 classes for one text"),
    "page": ("/score", lambda a: "<html>Welcome</html>", "answered <html>Welcome</html>: it is not an answer"),
    "fewer": ("/predict", lambda a: a[:2], "no score for 1 of 3 texts"),
    "more": ("/predict", lambda a: a + a[:1], "a score for text 3 of 3"),
    "labels": ("/predict", lambda a: [a[0] + a[1]], "2 labels for one text"),
    "null": ("/rerank", lambda a: None, "it is not an answer of rerank"),
    "hidden state": ("/sglang", lambda a: [{"embedding": [0.1, 0.2]}], "2 numbers for one text"),
    "fewer vectors": ("/sglang", lambda a: a[:2], "no score for 1 of 3 texts"),
    "fewer scores": ("/score/evaluation", lambda a: a | {"scores": a["scores"][:1]}, "no score for 2 of 3 texts"),
    "no scores": ("/score/evaluation", lambda a: {"object": "error"}, "it is not an answer of llama-factory"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_answer_of_another_form_is_an_error_that_shows_it(fake: FakeServer, case: str) -> None:
    path, change, message = WRONG[case]
    answers = {"/score": vllm_score, "/classify": classify, "/predict": predict, "/rerank": rerank}
    answer = (answers | {"/sglang": sglang_classify, "/score/evaluation": llama_factory})[path]
    fake.answers[path] = lambda body: (200, change(answer(body)[1]))
    with pytest.raises(BadModel, match=f"(?s){fake.url}{path} was asked for .*{message}"):
        values_of(fake.url + path, protocol="sglang-classify" if path == "/sglang" else None)


@pytest.mark.parametrize("protocol", WHOLE)
def test_servers_of_whole_texts_have_the_faults_of_all_others(fake: FakeServer, protocol: str) -> None:
    url, (path, answer, key) = whole(fake, protocol), WHOLE[protocol]
    wanted = values_of(url)
    fake.answers[path] = failing(3, lambda: (503, {"error": "no worker"}), answer)
    assert values_of(url) == wanted
    fake.answers[path] = lambda body: answer(body) if len(body[key]) <= 2 else (413, "too many")
    assert values_of(url) == wanted

    def one_fails(body: Any) -> Answer:
        text = json.dumps(answer(body)[1])
        return 200, text.replace(str(wanted[1]), "NaN")

    fake.answers[path] = one_fails
    scores = values_of(url)
    assert math.isnan(scores[1])
    assert scores[2:] == wanted[2:]


def test_a_missing_path_asks_whether_it_is_right(fake: FakeServer) -> None:
    with pytest.raises(BadModel, match=r"status 404.*is the path right"):
        values_of(fake.url + "/score")


def test_nothing_there_is_an_error_at_once() -> None:
    closed = FakeServer()
    closed.close()
    with pytest.raises(NotFound, match="nothing answers at"):
        open_server(closed.url + "/predict")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://", "is not an address"),
        ("http://host:port/score", "is not an address"),
        ("http://me:pass@127.0.0.1:9/score", "give a key instead"),
    ],
)
def test_addresses_that_cannot_be_used(url: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        open_server(url)
    assert "pass@" not in str(caught.value)


def test_a_path_that_tells_nothing_wants_the_protocol(fake: FakeServer) -> None:
    for path in ("", "/my/model"):
        with pytest.raises(BadInput, match="does not tell what the server speaks; end it in one of /api/score, "):
            open_server(fake.url + path)


def test_a_server_that_tells_nothing_without_a_key_is_said_to_want_one(fake: FakeServer) -> None:
    fake.statuses = dict.fromkeys(("/info", "/api/models", "/my/info"), 401)
    fake.pages = {"/info": {"error": "no key"}}
    for path in ("", "/my"):
        with pytest.raises(BadInput, match=r"wants a key before it tells what it speaks; put one that .*_SERVER_KEY"):
            open_server(fake.url + path)


def test_options_are_checked() -> None:
    with pytest.raises(BadInput, match="did you mean 'rerank'"):
        ServerOptions(protocol="rerankk")
    with pytest.raises(BadInput, match="batch is 0; wanted at least 1"):
        ServerOptions(batch=0)


def test_the_probes_differ() -> None:
    assert len(set(wanted(list(PROBES)))) == len(PROBES)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT is Python's own again where this run was started with it ignored, as a job in the background is."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_waits_for_no_server(fake: FakeServer, interruptible: None) -> None:
    stopped, asked, gave_up = threading.Event(), iter(range(10**6)), []
    fake.answers["/predict"] = predict
    opened = open_server(fake.url + "/predict", ServerOptions(concurrency=2, batch=1))

    def silent(body: Any) -> Answer:
        if next(asked) == 1:  # both requests are on their way: the scorer only waits
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        if not stopped.wait(10):
            gave_up.append(body)
        return predict(body)

    fake.answers["/predict"] = silent
    try:
        with pytest.raises(KeyboardInterrupt):
            opened.score_pairs(PAIRS)
        assert not gave_up
    finally:
        stopped.set()
