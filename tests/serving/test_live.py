import httpx

from prefrank import RewardModel
from tests.serving.live import Live


def test_a_server_gives_the_scores_of_its_model(bert_server: Live, decoder_server: Live) -> None:
    for live in (bert_server, decoder_server):
        body = {"prompt": "how do I bake bread", "replies": ["mix flour and water", "a b c"]}
        answer = httpx.post(f"{live.url}/api/score", json=body).json()
        model = RewardModel.load(live.settings.models["m"])
        scores = model.score(body["prompt"], body["replies"])
        assert [row["score"] for row in answer["scores"]] == [score.value for score in scores]


def test_a_request_picks_its_model(two_models: Live) -> None:
    for name in ("encoder", "decoder"):
        body = {"model": name, "prompt": "hello", "replies": ["there"]}
        answer = httpx.post(f"{two_models.url}/api/score", json=body).json()
        assert answer["model"] == name
    assert httpx.post(f"{two_models.url}/api/score", json=body | {"model": "other"}).status_code == 404
