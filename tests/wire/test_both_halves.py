"""Our client asks our server: in every dialect a score is the one that the model gives without them, to the bit."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from prefrank.scoring import RewardModel
from prefrank.scoring.remote import ServerOptions, open_server
from prefrank.types import Prompt, Turn
from prefrank.wire import DIALECTS
from prefrank.wire.dialect import RAW
from prefrank.wire.inputs import OneText, TwoTexts
from prefrank.wire.route import sigmoid
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


def ask(live: Live, path: str, body: object) -> object:
    posted = Request(live.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(posted, timeout=20) as answer:
        return json.load(answer)


def test_the_pages_of_the_servers_are_there(encoder: Live) -> None:
    for path, key in (("/v1/models", "data"), ("/version", "version"), ("/model_info", "model_path")):
        with urlopen(encoder.url + path, timeout=20) as answer:
            assert key in json.load(answer)
