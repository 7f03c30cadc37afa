"""What a server counts: to the row, as Prometheus reads it, and without a text."""

import json
import random
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import prometheus_client
import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as families

from prefrank import RewardModel
from prefrank.serving.drift import Drift
from prefrank.serving.metrics import MOST_SERIES, Metrics, ModelMetrics
from prefrank.serving.named import COUNTERS, EDGES, GAUGES, HISTOGRAMS, SCORES
from prefrank.serving.recording import Handled, Notes
from prefrank.serving.tally import Spread, Tally
from prefrank.types import Score, Turn
from prefrank.wire.route import Asked, Failed, Refused
from tests.serving.live import Live, live_server

ROOT = Path(__file__).parents[2]


def samples(live: Live) -> dict[str, dict[frozenset, float]]:
    """Sample name -> its labels -> value."""
    found: dict[str, dict[frozenset, float]] = {}
    for family in families(httpx.get(f"{live.url}/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def labelled(**labels: str) -> frozenset:
    return frozenset(labels.items())


def of_model(found, name: str, model: str = "m") -> float:
    return found[name][labelled(model=model)]


def handled(path: str = "/api/score", *, status: int = 200, known: bool = True, **notes) -> Handled:
    return Handled(
        id="a" * 32, began=0.0, method="POST", path=path, known=known, status=status, seconds=0.01, client="127.0.0.1",
        notes=Notes(**notes),
    )  # fmt: skip


def test_counts_add_up_to_the_traffic_that_was_sent(bert):
    """Six threads send rows, equal ones among them, and requests of all kinds that are refused."""
    dice = random.Random(0)
    words = ["how", "do", "I", "bake", "bread", "at", "home", "mix", "flour", "water", "salt", "and", "yeast"]
    sent = []
    for number in range(60):
        prompt = " ".join(dice.choices(words, k=5))
        replies = [" ".join(dice.choices(words, k=dice.randint(1, 9))) for _ in range(dice.randint(1, 6))]
        replies += replies[:1] * (number % 3)
        sent.append(("/api/rank" if number % 2 else "/api/score", {"prompt": prompt, "replies": replies}))
    bad = [("/api/score", {"prompt": 1, "replies": ["a"]}), ("/api/rank", {}), ("/api/score", {"texts": []}),
           ("/api/score", {"model": "none", "texts": ["a"]}), ("/nowhere", {})]  # fmt: skip
    with live_server(bert) as live, httpx.Client(base_url=live.url) as client:
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda each: client.post(each[0], json=each[1]), sent + bad))
        client.get("/api/models")
        found = samples(live)
    rows = sum(len(body["replies"]) for _, body in sent)
    assert [answer.status_code for answer in answers] == [200] * 60 + [422, 422, 422, 404, 404]
    requests = found["prefrank_requests_total"]
    assert requests[labelled(dialect="prefrank", path="/api/rank", status="200", model="m")] == 30
    assert requests[labelled(dialect="prefrank", path="/api/score", status="200", model="m")] == 30
    assert requests[labelled(dialect="prefrank", path="/api/score", status="422", model="")] == 2
    assert requests[labelled(dialect="prefrank", path="/api/rank", status="422", model="")] == 1
    assert requests[labelled(dialect="prefrank", path="/api/score", status="404", model="")] == 1
    assert requests[labelled(dialect="prefrank", path="/api/models", status="200", model="")] == 1
    assert requests[labelled(dialect="", path="other", status="404", model="")] == 1
    assert sum(requests.values()) == 66
    reasons = {dict(labels)["reason"]: value for labels, value in found["prefrank_refused_requests_total"].items()}
    assert reasons == {"invalid": 2, "empty": 1, "unknown_model": 1}
    assert of_model(found, "prefrank_rows_total") == of_model(found, "prefrank_tokenized_rows_total") == rows
    assert of_model(found, "prefrank_scored_rows_total") + of_model(found, "prefrank_reused_rows_total") == rows
    assert of_model(found, "prefrank_reused_rows_total") >= 1
    tokens = sum(row["tokens"] for answer in answers[:60]
                 for row in answer.json().get("scores") or answer.json()["ranking"])  # fmt: skip
    assert of_model(found, "prefrank_tokens_total") == tokens
    assert of_model(found, "prefrank_computed_tokens_total") == of_model(found, "prefrank_scored_tokens_total") < tokens
    assert of_model(found, "prefrank_batch_rows_sum") == of_model(found, "prefrank_scored_rows_total")
    assert of_model(found, "prefrank_batch_tokens_sum") == of_model(found, "prefrank_scored_tokens_total")
    assert of_model(found, "prefrank_queue_wait_seconds_count") == of_model(found, "prefrank_scored_rows_total")
    assert of_model(found, "prefrank_batch_rows_count") == of_model(found, "prefrank_batch_duration_seconds_count")
    characters = sum(len(body["prompt"]) + len(reply) for _, body in sent for reply in body["replies"])
    assert of_model(found, "prefrank_row_characters_sum") == characters
    scores = found["prefrank_score_bucket"][labelled(model="m", le="+Inf")]
    assert scores == of_model(found, "prefrank_row_characters_count") == rows
    seconds = found["prefrank_request_duration_seconds_count"]
    assert seconds == {labelled(dialect="prefrank", outcome="answered"): 60,
                       labelled(dialect="prefrank", outcome="refused"): 4}  # fmt: skip
    for name in ("refused_rows_total", "dropped_rows_total", "past_trained_rows_total", "queue_open_rows",
                 "queue_rows", "queue_age_seconds"):  # fmt: skip
        assert of_model(found, f"prefrank_{name}") == 0


def test_what_was_cut_failed_or_made_by_us_is_counted_apart(bert):
    with live_server(bert) as live, httpx.Client(base_url=live.url) as client:
        client.post("/api/score", json={"prompt": "bread " * 300, "replies": ["salt", "water " * 300]})
        client.post("/api/score", content=json.dumps({"prompt": "how do I", "replies": ["flour \ud800", "yeast"]}))
        client.post("/api/explain", json={"prompt": "how", "reply": "Mix flour. Add water. Wait an hour."})
        found = samples(live)
    cut = found["prefrank_cut_rows_total"]
    assert cut == {labelled(model="m", part="prompt"): 2, labelled(model="m", part="reply"): 1}
    failed = {dict(labels)["reason"]: value for labels, value in found["prefrank_failed_rows_total"].items()}
    assert failed == {"text": 1, "too_long": 0, "failed": 0}
    assert of_model(found, "prefrank_rows_total") == 4  # of the last request the reply itself, not its parts
    assert of_model(found, "prefrank_scored_rows_total") == 7


def test_shared_tokens_are_counted_once_on_a_decoder(decoder):
    with live_server(decoder) as live:
        body = {"prompt": "what is the capital of france " * 3, "replies": ["a b c", "d e f", "g h"]}
        answer = httpx.post(f"{live.url}/api/score", json=body).json()
        found = samples(live)
    assert of_model(found, "prefrank_scored_tokens_total") == sum(row["tokens"] for row in answer["scores"])
    assert of_model(found, "prefrank_computed_tokens_total") < 0.6 * of_model(found, "prefrank_scored_tokens_total")


def test_servers_of_one_process_keep_apart_and_nothing_is_global(bert, decoder):
    before = {family.name for family in prometheus_client.REGISTRY.collect()}
    with live_server({"one": bert, "two": decoder}) as first, live_server(bert) as second:
        for name, times in (("one", 1), ("two", 2)):
            for number in range(times):
                httpx.post(f"{first.url}/api/score", json={"model": name, "prompt": "x", "replies": [str(number)]})
        found, other = samples(first), samples(second)
    assert of_model(found, "prefrank_rows_total", "one") == 1
    assert of_model(found, "prefrank_rows_total", "two") == 2
    assert of_model(other, "prefrank_rows_total") == 0
    assert {family.name for family in prometheus_client.REGISTRY.collect()} == before


def test_a_model_that_is_loaded_again_goes_on_counting_and_begins_its_scores_anew(bert):
    with live_server(bert) as live:
        httpx.post(f"{live.url}/api/score", json={"prompt": "x", "replies": ["a", "b"]})
        live.models.reload("m", drain_s=5.0)
        httpx.post(f"{live.url}/api/score", json={"prompt": "x", "replies": ["a"]})
        found, drift = samples(live), httpx.get(f"{live.url}/api/drift").json()
    assert of_model(found, "prefrank_rows_total") == 3
    assert of_model(found, "prefrank_score_recent_rows") == 1
    assert [model["since_start"]["rows"] for model in drift["models"]] == [1]


def test_metrics_are_there_while_models_load(bert):
    with live_server(bert, load=False) as live:
        found = samples(live)
        assert httpx.get(f"{live.url}/api/drift").json() == {"models": []}
        assert found["prefrank_ready"] == {frozenset(): 0}
        live.models.load_all()
        assert samples(live)["prefrank_ready"] == {frozenset(): 1}


def test_drift_says_how_the_served_scores_lie(bert):
    with live_server(bert) as live:
        body = {"prompt": "how do I bake bread", "replies": ["mix flour", "mix flour water salt", "salt", "salt"]}
        answer = httpx.post(f"{live.url}/api/score", json=body).json()
        (model,) = httpx.get(f"{live.url}/api/drift").json()["models"]
        found = samples(live)
    scores = [row["score"] for row in answer["scores"]]
    assert model["model"] == "m"
    assert model["fingerprint"] == answer["fingerprint"]
    assert model["recent"]["mean"]["value"] == pytest.approx(sum(scores) / 4)
    assert model["recent"]["length_correlation"]["within_prompt"]["replies"] == 4
    assert model["reused"] == {"rows": 1, "share": 0.25}
    assert model["reference"]["kind"] == "first_1000"
    assert "the model has no training record" in model["sentence"]
    within = labelled(model="m", scope="within_prompt")
    value = model["recent"]["length_correlation"]["within_prompt"]["value"]
    assert found["prefrank_score_length_correlation"][within] == pytest.approx(value)
    assert not found.get("prefrank_score_drift_stability_index"), "too few scores have no figure, rather than 0"


def test_every_answer_has_its_number_and_says_where_its_time_went(bert):
    recorded: list[Handled] = []

    class Recorder:
        def handled(self, handled: Handled) -> None:
            recorded.append(handled)

    with live_server(bert, recorders=[Recorder()]) as live:
        answer = httpx.post(f"{live.url}/api/score", json={"prompt": "x", "replies": ["salt", "water"]})
        refused = httpx.post(f"{live.url}/api/score", json={})
        lost = httpx.get(f"{live.url}/nowhere")
    one, two, three = recorded
    assert [each.headers["x-request-id"] for each in (answer, refused, lost)] == [one.id, two.id, three.id]
    assert one.notes.answered is not None
    assert one.id == one.notes.answered.id
    times = one.notes.answered.times
    assert min(times.tokenize_s, times.model_s) > 0
    assert times.wait_s >= 0
    assert times.wait_s + times.tokenize_s + times.model_s <= one.seconds
    assert (one.status, one.notes.refused, one.client) == (200, None, "127.0.0.1")
    assert two.notes.refused is not None
    assert (two.status, two.notes.refused.kind) == (422, "invalid")
    assert (three.status, three.known, three.notes.scores) == (404, False, False)


def test_names_follow_prometheus_and_both_formats_are_read(bert_server):
    httpx.post(f"{bert_server.url}/api/score", json={"prompt": "x", "replies": ["salt"]})
    plain = httpx.get(f"{bert_server.url}/metrics")
    accept = {"accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
    other = httpx.get(f"{bert_server.url}/metrics", headers=accept)
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert other.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    named = {family.name: family for family in families(plain.text)}
    assert {family.name for family in open_families(other.text)} == set(named)
    ours = {name: family for name, family in named.items() if name.startswith("prefrank_")}
    assert set(ours) == {*COUNTERS, *HISTOGRAMS, *GAUGES, SCORES}
    assert {"process_cpu_seconds", "process_resident_memory_bytes"} <= set(named)
    for name, family in ours.items():
        assert re.fullmatch(r"[a-z_]+", name)
        assert not name.endswith(("_total", "_ms", "_count", "_sum"))
        assert family.documentation
        kinds = dict.fromkeys(COUNTERS, "counter") | dict.fromkeys((*HISTOGRAMS, SCORES), "histogram")
        assert family.type == kinds.get(name, "gauge")


def test_paths_of_strangers_and_ever_new_ones_make_no_new_series():
    metrics = Metrics()
    for number in range(50):
        metrics.handled(handled(f"/{number}", status=404, known=False))
    assert metrics._tally.counts("prefrank_requests") == {("", "other", "404", ""): 50}
    for number in range(MOST_SERIES + 50):
        metrics.handled(handled(f"/files/{number}"))
    counts = metrics._tally.counts("prefrank_requests")
    assert len(counts) == MOST_SERIES + 1
    assert sum(counts.values()) == MOST_SERIES + 100
    assert counts["", "other", "200", ""] == 51


def test_a_watched_answer_by_hand():
    tally = Tally(EDGES)
    watcher = ModelMetrics("m", tally, Drift(None, "overall"))
    prompt, other = (Turn("user", "abc"),), (Turn("user", "abc"), Turn("assistant", "d"), Turn("user", "e"))
    asked = [Asked(prompt, "12"), Asked(prompt, "1234"), Asked(other, "1"), Asked((), "abc"), Asked((), "abc"),
             Asked(prompt, "?")]  # fmt: skip
    outcomes = [Score(1.0, 10, 0, 0, "f"), Score(3.0, 12, 2, 0, "f"), Score(-1.0, 9, 1, 1, "f"),
                Score(0.0, 7, 0, 0, "f", 3), Score(0.0, 7, 0, 0, "f"), Failed("no number")]  # fmt: skip
    watcher.answered(asked, outcomes, [2, 4, 1, 7, 7, 0])
    assert tally.counts("prefrank_rows") == {("m",): 5}
    assert tally.counts("prefrank_tokens") == {("m",): 45}
    assert tally.counts("prefrank_cut_rows") == {("m", "prompt"): 2, ("m", "reply"): 1}
    assert tally.counts("prefrank_past_trained_rows") == {("m",): 1}
    assert tally.counts("prefrank_failed_rows") == {("m", "failed"): 1}
    assert tally.spreads("prefrank_row_characters")[("m",)][1] == 5 + 7 + 6 + 3 + 3
    within = watcher.drift.look().recent["length_correlation"]["within_prompt"]
    assert (within["replies"], within["prompts"], within["value"]) == (2, 1, pytest.approx(1.0))


def test_a_spread_has_its_values_in_their_bins():
    spread = Spread((0.0, 1.5))
    spread.add([-3.0, 0.0, 1.0, 1.5, 2])
    assert spread.buckets() == [("0.0", 2), ("1.5", 4), ("+Inf", 5)]
    assert spread.total == 1.5


def test_a_refusal_is_counted_by_why_and_apart_in_time():
    metrics = Metrics()
    metrics.handled(handled(dialect="tei", status=429, scores=True, refused=Refused("overloaded", "full")))
    metrics.handled(handled("/health", dialect="tei"))
    assert metrics._tally.counts("prefrank_refused_requests") == {("tei", "overloaded", ""): 1}
    assert set(metrics._tally.spreads("prefrank_request_duration_seconds")) == {("tei", "refused")}


def test_the_reference_is_the_training_record_of_the_loaded_model(bert, tmp_path):
    model = RewardModel.load(bert)
    edges = [edge / 4 for edge in range(-4, 5)]
    model.training = {
        "scores": {"heads": {model.network.heads[0]: {"histogram": {"edges": edges, "counts": [99] * 10}}}}
    }
    model.save(tmp_path / "trained")
    with live_server(tmp_path / "trained") as live:
        httpx.post(f"{live.url}/api/score", json={"prompt": "x", "replies": ["a"]})
        (told,) = httpx.get(f"{live.url}/api/drift").json()["models"]
        found = samples(live)
    assert told["reference"]["kind"] == "training"
    assert told["reference"]["rows"] == 990
    assert found["prefrank_score_drift_rows"] == {labelled(model="m", reference="training"): 1}
    bins = {dict(labels)["le"] for labels in found["prefrank_score_bucket"]}
    assert bins == {*map(repr, edges), "+Inf"}


# What is shipped to watch it with


def named_samples() -> set[str]:
    """Every name that a query can ask for."""
    spread = {f"{name}{end}" for name in HISTOGRAMS for end in ("_bucket", "_count", "_sum")}
    # Prometheus has no sum and count of a histogram with edges below 0
    return {f"{name}_total" for name in COUNTERS} | spread | set(GAUGES) | {f"{SCORES}_bucket"}


def labels_of(sample: str) -> set[str]:
    named = {**COUNTERS, **HISTOGRAMS, **GAUGES}
    name = next(
        name for name in (sample, re.sub(r"_(total|bucket|count|sum)$", "", sample)) if name in {*named, SCORES}
    )
    return {"le", "instance", *(named[name].labels if name in named else ("model",))}


def check_query(query: str) -> None:
    asked = re.findall(r"\bprefrank_\w+", query)
    assert set(asked) <= named_samples(), query
    for name, matchers in re.findall(r"\b(prefrank_\w+)\{([^}]*)\}", query):
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) <= labels_of(name), query
    for labels in re.findall(r"\b(?:by|on|group_left) ?\(([^)]*)\)", query):
        known = set.union(*map(labels_of, asked))
        assert {label.strip() for label in labels.split(",")} <= known, query
    for bracket in ("()", "{}", "[]"):
        assert query.count(bracket[0]) == query.count(bracket[1]), query


def test_the_dashboard_asks_for_metrics_that_there_are():
    board = json.loads((ROOT / "deploy" / "grafana.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    for query in queries:
        if "process_" not in query:
            check_query(query)
    assert [variable["name"] for variable in board["templating"]["list"]] == ["source", "model"]
    assert max(Counter(panel["id"] for panel in board["panels"]).values()) == 1
    places = Counter((panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"])
    assert max(places.values()) == 1


def test_the_alerts_ask_for_metrics_that_there_are():
    (group,) = yaml.safe_load((ROOT / "deploy" / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]:
        check_query(rule["expr"])
        assert {"alert", "expr", "labels", "annotations"} <= set(rule)
        used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        assert used <= set.union(*map(labels_of, re.findall(r"prefrank_\w+", rule["expr"])))
    assert len({rule["alert"] for rule in group["rules"]}) == len(group["rules"])
