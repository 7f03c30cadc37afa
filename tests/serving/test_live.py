import json
from pathlib import Path

import httpx
from starlette.routing import Route

from prefrank import RewardModel
from prefrank.serving.docs_page import docs_page
from prefrank.serving.gate import OPEN_ENDINGS, is_open
from prefrank.serving.hosted import host
from prefrank.serving.settings import ServeSettings
from tests.serving.live import Live
from tests.tiny import bert_folder


def test_a_server_gives_the_scores_of_its_model(bert_server: Live, decoder_server: Live) -> None:
    for live in (bert_server, decoder_server):
        body = {"prompt": "how do I bake bread", "replies": ["mix flour and water", "a b c"]}
        answer = httpx.post(f"{live.url}/api/score", json=body).json()
        model = RewardModel.load(live.settings.models["m"])
        scores = model.score(body["prompt"], body["replies"])
        assert [row["score"] for row in answer["scores"]] == [score.value for score in scores]


def test_labels_are_of_the_head_that_scores(tmp_path: Path) -> None:
    folder = bert_folder(tmp_path, num_labels=3)
    config = json.loads((folder / "config.json").read_text())
    for labels, head in (({"0": "helpful", "1": "honest", "2": "safe"}, "safe"), (None, "LABEL_2")):
        (folder / "config.json").write_text(json.dumps(config | {"id2label": labels}))
        hosted = host("m", RewardModel.load(folder, head=head), ServeSettings(models={"m": str(folder)}))
        hosted.scheduler.close(1.0)
        assert hosted.about.label == head


def test_a_request_picks_its_model(two_models: Live) -> None:
    for name in ("encoder", "decoder"):
        body = {"model": name, "prompt": "hello", "replies": ["there"]}
        answer = httpx.post(f"{two_models.url}/api/score", json=body).json()
        assert answer["model"] == name
    assert httpx.post(f"{two_models.url}/api/score", json=body | {"model": "other"}).status_code == 404


def test_every_path_is_described_for_programs_and_for_people(bert_server: Live) -> None:
    described = httpx.get(f"{bert_server.url}/openapi.json").json()["paths"]
    pages = {"/docs", "/openapi.json"}  # and the one at /, which has a POST too
    takes = {route.path for route in bert_server.app.routes if isinstance(route, Route)}
    assert set(described) == {path for path in takes - pages if not path.endswith(OPEN_ENDINGS)}
    answer = httpx.get(f"{bert_server.url}/docs")
    assert answer.status_code == 200
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    for path, operations in described.items():
        for method in operations:
            assert f"<h2>{method.upper()} {path}</h2>" in answer.text
    assert "http:" not in answer.text
    assert "https:" not in answer.text
    assert "<script" not in answer.text


def test_the_description_says_which_pages_want_a_key(bert_server: Live) -> None:
    described = httpx.get(f"{bert_server.url}/openapi.json").json()["paths"]
    looks = {path: "security" in each["get"] for path, each in described.items() if "get" in each}
    assert looks == {path: not is_open("GET", path) for path in looks}
    assert not looks["/ready"]
    assert looks["/api/models"]


def test_a_schema_in_the_page_is_text() -> None:
    operation = {"tags": ["<b>"], "summary": "a < b", "requestBody": {
        "content": {"application/json": {"schema": {"enum": ["<script>"]}}}}}  # fmt: skip
    page = docs_page({"paths": {"/<i>": {"post": operation}}})
    assert "<b>" not in page
    assert "<i>" not in page
    assert "<script>" not in page
    assert "a &lt; b" in page
    assert "&lt;script&gt;" in page
