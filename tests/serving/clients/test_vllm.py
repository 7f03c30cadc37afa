"""OpenAI's client with vLLM's paths and SGLang's embeddings, and reward_hub with /pooling."""

from urllib.parse import urlsplit

import pytest

from prefrank.wire.route import sigmoid
from tests.serving.clients.environments import ask, needs
from tests.serving.clients.served import Served

PROMPT = "how do I bake bread"
REPLIES = ["mix flour and water", "the capital of france"]
MESSAGES = [[{"role": "user", "content": PROMPT}, {"role": "assistant", "content": reply}] for reply in REPLIES]


@needs("trainers")
@pytest.mark.parametrize("path", ["/score", "/v1/score"])
def test_openai_posts_texts_and_reads_scores(encoder: Served, path: str) -> None:
    body = {"model": "m", "queries": PROMPT, "documents": REPLIES, "use_activation": False}
    answer = ask("trainers", "openai_client", url=encoder.url, post=path, body=body)
    assert [row["score"] for row in answer["data"]] == encoder.raw(PROMPT, REPLIES)


@needs("trainers")
def test_openai_posts_messages_and_reads_probabilities(decoder: Served) -> None:
    values = decoder.raw(PROMPT, REPLIES)
    for messages, value in zip(MESSAGES, values, strict=True):
        body = {"model": "m", "messages": messages}
        answer = ask("trainers", "openai_client", url=decoder.url, post="/classify", body=body)
        assert answer["data"][0]["probs"] == [sigmoid(value)]


@needs("trainers")
@pytest.mark.parametrize("form", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
def test_openai_reads_rewards_as_embeddings(decoder: Served, form: dict[str, str]) -> None:
    """Unasked it wants base64, and decodes it."""
    texts = [f"<|start|>user\n{PROMPT}<|end|><|start|>assistant\n{reply}<|end|>" for reply in REPLIES]
    answer = ask("trainers", "openai_client", url=f"{decoder.url}/v1", embed=texts, **form)
    if form.get("encoding_format") == "base64":
        assert all(isinstance(reward, str) for reward in answer["rewards"]), "then it leaves them as they are"
    else:
        assert answer["rewards"] == decoder.raw(PROMPT, REPLIES)
    assert answer["tokens"] > 0


@needs("trainers")
def test_openai_names_errors(encoder: Served, locked: Served) -> None:
    asked = {"post": "/classify", "body": {"input": [1, 2]}}
    error = ask("trainers", "openai_client", url=encoder.url, **asked)
    assert (error["error"], error["status"]) == ("BadRequestError", 400)
    assert error["body"]["message"].startswith("input holds token ids; wanted text")
    asked = {"post": "/classify", "body": {"input": "a", "model": "other"}}
    error = ask("trainers", "openai_client", url=encoder.url, **asked)
    assert (error["error"], error["status"]) == ("NotFoundError", 404)
    error = ask("trainers", "openai_client", url=locked.url, key="wrong", **asked)
    assert (error["error"], error["status"]) == ("AuthenticationError", 401)


@needs("trainers")
def test_openai_lists_the_models(encoder: Served) -> None:
    assert ask("trainers", "openai_client", url=f"{encoder.url}/v1") == ["m"]


@needs("reward_hub")
def test_reward_hub_posts_messages_and_reads_scores(decoder: Served) -> None:
    parts = urlsplit(decoder.url)
    answers = ask("reward_hub", "reward_hub_client", host=parts.hostname, port=parts.port, messages=MESSAGES)
    values = [sigmoid(value) for value in decoder.raw(PROMPT, REPLIES)]
    assert [answer["data"][0]["data"] for answer in answers] == [[value] for value in values]
