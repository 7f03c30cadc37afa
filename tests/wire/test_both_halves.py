"""Our client asks our server: in every dialect a score is the one that the model gives without them, to the bit."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from prefrank.scoring import RewardModel
from prefrank.scoring.remote import ServerOptions, open_server
from prefrank.types import Prompt, Turn
from prefrank.wire import DIALECTS
from prefrank.wire.dialect import RAW
from prefrank.wire.inputs import OneText, TwoTexts
from prefrank.wire.route import Failed, Refused, sigmoid
from tests.serving.live import Live, live_server
from tests.tiny import bert_folder, chat_folder, decoder_folder

MANY = (Turn("system", "hello there"), Turn("user", "how do I bake"), Turn("assistant", "bread?"), Turn("user", "yes"))
ONE = (Turn("user", "how do I bake bread at home"),)
REPLIES = ["mix flour", "the dough needs an hour to rise\n", "", "what is [SEP] <|end|> in é"]
CHATML = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
CUE = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
WHOLE = [name for name, dialect in DIALECTS.items() if dialect.takes is OneText]
NO_RAW = {name for name, dialect in DIALECTS.items() if not dialect.scale.startswith((RAW, "raw"))} - {
    "openrlhf", "llama-factory",
}  # fmt: skip
"""Whose scores are squashed, whatever is asked."""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live_server(bert_folder(tmp_path_factory.mktemp("encoder"))) as live:
        yield live


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live_server(decoder_folder(tmp_path_factory.mktemp("decoder"))) as live:
        yield live


def model_of(live: Live) -> RewardModel:
    return live.models.hosted[0].model


def compared(live: Live, name: str, pairs: list[tuple[Prompt, str]], template: str | None = None) -> None:
    """That the server's scores are the model's own."""
    own = [score.value for score in model_of(live).score_pairs(pairs)]
    options = ServerOptions(protocol=name, chat_template=template, concurrency=2)
    scorer = open_server(live.url + DIALECTS[name].paths[0], options)
    given = [score.value for score in scorer.score_pairs(pairs)]
    assert given == ([sigmoid(value) for value in own] if name in NO_RAW else own)
    assert len(set(own)) == len(own)


@pytest.mark.parametrize("name", [name for name in DIALECTS if name not in WHOLE])
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_a_score_means_the_same_in_every_dialect(kind: str, name: str, request: pytest.FixtureRequest) -> None:
    live: Live = request.getfixturevalue(kind)
    prompts = [ONE] if DIALECTS[name].takes is TwoTexts else [ONE, MANY]  # several turns would become one text
    compared(live, name, [(prompt, reply) for prompt in prompts for reply in REPLIES])


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_text_of_the_models_own_template_is_the_conversation(decoder: Live, name: str) -> None:
    replies = [*REPLIES[:1], "what is in é"]  # the model's own control strings in texts would be tokens
    pairs = [(prompt, reply) for prompt in (ONE, MANY) for reply in replies]
    compared(decoder, name, pairs, decoder.settings.models["m"])


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_the_chat_markup_of_a_policy_is_the_conversation(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Its template is another than the model's."""
    policy = chat_folder(tmp_path, CHATML + CUE, extra=("<|im_start|>", "<|im_end|>"))
    live: Live = request.getfixturevalue(kind)
    compared(live, "openrlhf", [(prompt, reply) for prompt in (ONE, MANY) for reply in REPLIES], str(policy))


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_slime_gets_the_reward_itself(kind: str, request: pytest.FixtureRequest) -> None:
    live: Live = request.getfixturevalue(kind)
    own = model_of(live).score(ONE, ["mix flour"])[0].value
    prompt = f"<|im_start|>user\n{ONE[0].text}<|im_end|>\n<|im_start|>assistant\n"
    for path in ("/slime", "/"):
        assert ask(live, path, {"prompt": prompt, "response": "mix flour<|im_end|>", "label": "5"}) == own


def test_a_whole_text_of_an_encoder_has_its_separator(encoder: Live) -> None:
    own = model_of(encoder).score(ONE, ["mix flour"])[0].value
    for text in (f"[CLS] {ONE[0].text} [SEP] mix flour [SEP]", f"{ONE[0].text}[SEP]mix flour"):
        assert ask(encoder, "/classify", {"text": text, "model": "any"})["embedding"] == [own]
        answer = ask(encoder, "/classify", {"input": text, "use_activation": False})
        assert answer["data"][0]["probs"] == [own]
        assert ask(encoder, "/v1/embeddings", {"input": [text]})["data"][0]["embedding"] == [own]


def post(live: Live, path: str, body: object) -> tuple[int, Any, Any]:
    """The status, the body and the headers of an answer."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    posted = Request(live.url + path, content, {"Content-Type": "application/json"})
    try:
        with urlopen(posted, timeout=20) as answer:
            return answer.status, json.load(answer), answer.headers
    except HTTPError as error:
        with error:
            return error.code, json.load(error), error.headers


def ask(live: Live, path: str, body: object) -> Any:
    status, answer, _ = post(live, path, body)
    assert status == 200
    return answer


def test_the_pages_of_the_servers_are_there(encoder: Live) -> None:
    for path, key in (("/v1/models", "data"), ("/version", "version"), ("/model_info", "model_path")):
        with urlopen(encoder.url + path, timeout=20) as answer:
            assert key in json.load(answer)


SENT = {
    "/classify": {"text": ["a", "b"]},
    "/v1/classify": {"input": "a", "use_activation": False},
    "/v1/embeddings": {"input": "a"},
    "/get_reward": {"query": ["ab"], "prompts": ["a"], "labels": [None]},
    "/slime": {"prompt": "a", "response": "b", "label": None},
    "/v1/score/evaluation": {"model": "m", "messages": ["a"]},
}
"""What trainers send."""


@pytest.mark.parametrize("path", SENT)
@pytest.mark.parametrize("fault", ["a row that fails", "a queue that is full", "a server that ends"])
def test_a_failure_is_an_error_that_trainers_try_again_and_never_a_reward(
    path: str, fault: str, encoder: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(asked: object, *, may_cut: bool = True) -> list[Failed]:
        if fault == "a row that fails":
            return [Failed("the score of row 0 is not a finite number")] * len(SENT[path].get("text", [0]))
        kind: Any = "overloaded" if fault == "a queue that is full" else "unavailable"
        raise Refused(kind, "it is too much", retry_after_s=2.0)

    monkeypatch.setattr(encoder.models.hosted[0].scheduler, "score", failing)
    status, answer, headers = post(encoder, path, SENT[path])
    is_verls = path in ("/classify", "/v1/classify", "/v1/embeddings")  # which takes a 429 for final
    full = 503 if is_verls else 429
    assert status == {"a row that fails": 500, "a queue that is full": full, "a server that ends": 503}[fault]
    assert headers["retry-after"] == (None if status == 500 else "2")
    assert isinstance(answer, dict)
    assert not {"rewards", "scores", "data"} & answer.keys()
    assert path != "/classify" or "error" not in answer, "AReaL would take it for zeros"


def test_a_name_that_is_not_known_means_the_only_model_where_servers_pass_over_it(encoder: Live) -> None:
    own = ask(encoder, "/v1/embeddings", {"input": "a"})["data"][0]["embedding"]
    for path, body in (("/classify", {"text": "a"}), ("/v1/score/evaluation", {"messages": ["a"]})):
        answer = ask(encoder, path, {"model": "/storage/reward-model", **body})
        assert own == (answer["embedding"] if path == "/classify" else answer["scores"])
    status, answer, _ = post(encoder, "/classify", {"input": "a", "model": "/storage/reward-model"})
    assert (status, answer["error"]["type"], answer["error"]["param"]) == (404, "NotFoundError", "model")


def test_of_several_models_the_name_has_to_be_known(encoder: Live, decoder: Live) -> None:
    folders = {"first": encoder.settings.models["m"], "second": decoder.settings.models["m"]}
    with live_server(folders) as both:
        status, answer, _ = post(both, "/classify", {"text": "a", "model": "third"})
        assert status == 404
        assert "there is no model 'third' here" in answer["message"]
        first, second, named = (
            ask(both, "/classify", {"text": "a"} | named)["embedding"]
            for named in ({}, {"model": "second"}, {"model": "first"})
        )
        assert first == named
        assert first != second


@pytest.mark.parametrize("path", ["/classify", "/rerank", ""])
def test_on_a_shared_path_of_our_server_prompt_and_reply_are_sent_apart(path: str, encoder: Live) -> None:
    """As whole texts of labels, which other servers are sent on /classify, they would be scored as another text."""
    scorer = open_server(encoder.url + path)
    assert scorer.dialect.takes is not OneText
    own = [score.value for score in model_of(encoder).score(ONE, REPLIES)]
    assert [score.value for score in scorer.score_pairs([(ONE, reply) for reply in REPLIES])] == own


@pytest.mark.parametrize("fault", ["key", "size", "no JSON"])
def test_areal_stops_also_where_its_request_is_refused_unread(fault: str, encoder: Live) -> None:
    folder = encoder.settings.models["m"]
    with live_server(folder, keys=("k",) if fault == "key" else (), max_body_bytes=1_000) as live:
        text = "a" * (2_000 if fault == "size" else 1)
        status, answer, _ = post(live, "/classify", {"text": [text]} if fault != "no JSON" else b"{")
    assert status == {"key": 401, "size": 413, "no JSON": 400}[fault]
    assert answer["message"]
    assert "error" not in answer
