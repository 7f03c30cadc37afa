"""The clients and the rewards against the real server, with a model that is really loaded."""

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from prefrank import RewardModel, win_probability
from prefrank.errors import BadInput, NotFound
from prefrank.serving.client import Client, ClientOptions
from prefrank.serving.rewards import AsyncTrlReward, OpenrlhfReward, SlimeReward, TrlReward, TrlxReward, VerlReward
from tests.serving.live import Live, live_server

PROMPT = "how do I bake bread at home"
REPLIES = ["mix flour water salt and yeast", "no", "the dough needs an hour to rise", "a b c d"]
LONG = "flour " * 400


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(scope="module")
def model(bert: Path) -> RewardModel:
    return RewardModel.load(str(bert))


@pytest.fixture
def client(bert_server: Live) -> Iterator[Client]:
    with Client(bert_server.url, ClientOptions(batch=3)) as client:
        yield client


def test_scores_and_facts_are_those_of_the_model_to_the_bit(client: Client, model: RewardModel) -> None:
    replies = [*REPLIES, LONG]
    scores = client.score(PROMPT, replies)
    assert scores.all_scored() == [model.score(PROMPT, [reply])[0] for reply in replies]
    assert scores.scores[-1].cut_reply > 0
    assert scores.fingerprint == model.fingerprint


def test_conversations_are_scored_as_the_model_scores_them(client: Client, model: RewardModel) -> None:
    conversation = [{"role": "system", "content": "hello"}, {"role": "user", "content": PROMPT}]
    pairs = [(conversation, reply) for reply in REPLIES]
    assert client.score_pairs(pairs).all_scored() == model.score_pairs(pairs)


def test_a_row_that_cannot_be_scored_fails_alone(client: Client, model: RewardModel) -> None:
    scores = client.score(PROMPT, [REPLIES[0], "\ud800", REPLIES[1]])
    first, second = (score.value for score in model.score(PROMPT, REPLIES[:2]))
    assert scores.values_or_none() == [first, None, second]
    assert scores.failures[0].error


def test_the_other_calls_agree_with_the_model(client: Client, model: RewardModel) -> None:
    scores = model.score(PROMPT, REPLIES)
    ranking = client.rank(PROMPT, REPLIES)
    assert [place.index for place in ranking.ranking] == [ranked.index for ranked in model.rank(PROMPT, REPLIES)]
    assert [place.rank for place in ranking.ranking] == [1, 2, 3, 4]
    assert math.fsum(place.weight or 0 for place in ranking.ranking) == pytest.approx(1)
    assert ranking.win_probability is not None
    assert ranking.win_probability[0][1] == pytest.approx(win_probability(scores[0], scores[1]))
    compared = client.compare(PROMPT, REPLIES[0], REPLIES[1])
    assert compared.margin == pytest.approx(scores[0].value - scores[1].value)
    assert compared.winner == ("first" if scores[0].value > scores[1].value else "second")
    best = client.best_of_n(PROMPT, [*REPLIES, "\ud800"], top_k=2)
    assert [reply.index for reply in best.best] == [place.index for place in ranking.ranking[:2]]
    assert (best.group.n, [failed.index for failed in best.failed]) == (4, [4])
    explained = client.explain(PROMPT, "Mix flour. Wait an hour.")
    assert explained.score.score == model.score(PROMPT, ["Mix flour. Wait an hour."])[0].value
    assert len(explained.parts) == 2


def test_what_the_server_says_of_itself_and_refuses(bert_server: Live, client: Client, model: RewardModel) -> None:
    assert client.ready()
    client.wait_ready(5.0)
    served = client.models().models[0]
    assert (served.name, served.fingerprint, served.default) == ("m", model.fingerprint, True)
    other = Client(bert_server.url, ClientOptions(model="other"))
    with other, pytest.raises(NotFound, match="other"):
        other.score(PROMPT, REPLIES)
    with pytest.raises(BadInput, match="status 422"):
        client.compare(PROMPT, "a", "\ud800")


def test_requests_of_too_many_rows_go_in_halves_and_the_key_is_sent(bert: Path, model: RewardModel) -> None:
    with live_server(bert, max_rows=2, keys=("k",)) as live:
        with Client(live.url, ClientOptions(key="k")) as client:
            assert client.score(PROMPT, REPLIES).all_scored() == model.score(PROMPT, REPLIES)
        with Client(live.url) as client, pytest.raises(BadInput, match="status 401"):
            client.score(PROMPT, REPLIES)


def test_rewards_of_all_trainers_are_the_models_scores(bert_server: Live, model: RewardModel) -> None:
    url, (score, *_) = bert_server.url, model.score(PROMPT, REPLIES[:1])
    options = ClientOptions(fingerprint=model.fingerprint)
    reply = REPLIES[0]
    trl, later = TrlReward(url, options), AsyncTrlReward(url, options)
    openrlhf, verl = OpenrlhfReward(url, options), VerlReward(url, options)
    slime, trlx = SlimeReward(url, options), TrlxReward(url, options)
    given = [
        trl([PROMPT], [reply])[0],
        asyncio.run(later([[{"role": "user", "content": PROMPT}]], [[{"role": "assistant", "content": reply}]]))[0],
        openrlhf([f"{PROMPT}{reply}</s>"], [PROMPT])["rewards"][0],
        verl.compute_score("d", reply, None, {"prompt": PROMPT})["score"],
        asyncio.run(slime(None, SimpleNamespace(prompt=PROMPT, response=reply))),
        trlx([PROMPT + reply], [PROMPT], [reply])[0],
    ]
    assert given == [score.value] * 6
    for reward in (trl, later, openrlhf, verl, slime, trlx):
        reward.source.close()
