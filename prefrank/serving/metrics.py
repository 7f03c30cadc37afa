"""What a server counts, and its page for Prometheus.

    metrics = Metrics()
    models = Models(names, lambda name: host(name, model, settings, metrics.watcher(name, model)))
    make_app(models, settings, metrics=metrics)

Nothing is global: several servers in one process each have their own. Counts of a model go on when it is loaded again;
what is said of its scores (`drift.py`) begins anew.
"""

import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from threading import Lock
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from prefrank.scoring import RewardModel
from prefrank.serving.drift import Answers, Drift, Look
from prefrank.serving.hosted import Hosted, Models
from prefrank.serving.named import COUNTERS, EDGES, GAUGES, HISTOGRAMS, REASONS, SCORES, SCORES_HELP
from prefrank.serving.recording import Handled
from prefrank.serving.tally import Number, Tally
from prefrank.serving.tickets import characters_of
from prefrank.types import Score
from prefrank.wire.route import Asked, Outcome

MOST_SERIES = 2_000
"""Of requests: with more, paths are counted together."""


class ModelMetrics:
    """Watches one loaded model (`observer.Watcher`).

    Args:
        tally: of all models of its name, one after the other.
        drift: of this one.
    """

    def __init__(self, name: str, tally: Tally, drift: Drift) -> None:
        self.drift = drift
        self._tally = tally
        self._label = (name,)

    def read(self, rows: int, seconds: float) -> None:
        self._tally.count("prefrank_tokenized_rows", rows, self._label)
        self._tally.spread("prefrank_tokenize_duration_seconds", (seconds,), self._label)

    def reused(self, rows: int) -> None:
        self._tally.count("prefrank_reused_rows", rows, self._label)

    def refused(self, rows: int) -> None:
        self._tally.count("prefrank_refused_rows", rows, self._label)

    def dropped(self, rows: int) -> None:
        self._tally.count("prefrank_dropped_rows", rows, self._label)

    def batch(self, *, rows: int, tokens: int, computed: int, seconds: float, waited: Sequence[float]) -> None:
        tally, label = self._tally, self._label
        tally.count("prefrank_scored_rows", rows, label)
        tally.count("prefrank_scored_tokens", tokens, label)
        tally.count("prefrank_computed_tokens", computed, label)
        tally.spread("prefrank_batch_rows", (rows,), label)
        tally.spread("prefrank_batch_tokens", (tokens,), label)
        tally.spread("prefrank_batch_duration_seconds", (seconds,), label)
        tally.spread("prefrank_queue_wait_seconds", waited, label)

    def answered(self, asked: Sequence[Asked], outcomes: Sequence[Outcome], reply_tokens: Sequence[int]) -> None:
        scores: list[float] = []
        lengths: list[int] = []
        groups: list[int] = []
        characters: list[int] = []
        tokens = cut_prompt = cut_reply = past_trained = 0
        numbers: dict[Any, int] = {}  # prompt -> its group
        for place, outcome in enumerate(outcomes):
            if not isinstance(outcome, Score):
                self._tally.count("prefrank_failed_rows", 1, (*self._label, outcome.kind))
                continue
            scores.append(outcome.value)
            lengths.append(reply_tokens[place])
            # Whole texts have prompts that nobody knows
            groups.append(numbers.setdefault(asked[place].prompt or place, len(numbers)))
            characters.append(characters_of(asked[place]))
            tokens += outcome.tokens
            cut_prompt += outcome.cut_prompt > 0
            cut_reply += outcome.cut_reply > 0
            past_trained += outcome.past_trained > 0
        tally, label = self._tally, self._label
        tally.count("prefrank_rows", len(scores), label)
        tally.count("prefrank_tokens", tokens, label)
        tally.count("prefrank_cut_rows", cut_prompt, (*label, "prompt"))
        tally.count("prefrank_cut_rows", cut_reply, (*label, "reply"))
        tally.count("prefrank_past_trained_rows", past_trained, label)
        tally.spread("prefrank_row_characters", characters, label)
        cuts = (cut_prompt, cut_reply, past_trained)
        self.drift.add(Answers(scores=scores, lengths=lengths, groups=groups, cuts=cuts))


class Metrics:
    """Of one server: told of its requests (`recording.Recorder`), and of its models by their watchers."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._tally = Tally(EDGES)
        self._lock = Lock()
        self._series: set[tuple[str, ...]] = set()
        self._process = ProcessCollector(registry=None)

    def watcher(self, name: str, model: RewardModel) -> ModelMetrics:
        """To be told of a model that is about to be served by this name. Its counts are there at once, so that the
        first event is seen as a change.
        """
        for counter, named in COUNTERS.items():
            if named.labels == ("model",):
                self._tally.count(counter, 0, (name,))
        for part in ("prompt", "reply"):
            self._tally.count("prefrank_cut_rows", 0, (name, part))
        for reason in REASONS:
            self._tally.count("prefrank_failed_rows", 0, (name, reason))
        return ModelMetrics(name, self._tally, Drift(model.training, model.network.heads[0]))

    def handled(self, handled: Handled) -> None:
        notes = handled.notes
        model = notes.model or ""
        series = (notes.dialect, handled.path if handled.known else "other", str(handled.status), model)
        with self._lock:
            if series not in self._series and len(self._series) >= MOST_SERIES:
                series = (notes.dialect, "other", str(handled.status), model)
            self._series.add(series)
        self._tally.count("prefrank_requests", 1, series)
        if notes.refused is not None:
            self._tally.count("prefrank_refused_requests", 1, (notes.dialect, notes.refused.kind, model))
        if notes.scores and (notes.refused or notes.answered):
            outcome = "answered" if notes.answered and not notes.refused else "refused"
            self._tally.spread("prefrank_request_duration_seconds", (handled.seconds,), (notes.dialect, outcome))

    def page(self, models: Models, accept: str) -> tuple[bytes, str]:
        """All metrics as Prometheus reads them, and their content type.

        Args:
            accept: the header of the request, which may ask for OpenMetrics.
        """
        encode, media = choose_encoder(accept)
        return encode(_Families([*self._families(models), *self._process.collect()])), media

    def drift(self, models: Models) -> dict[str, Any]:
        """How the scores of each model lie, as JSON: for each its figures, and one sentence."""
        listed = []
        for hosted in models.hosted:
            look = _look(hosted)
            if look is None:
                continue
            label = (hosted.about.name,)
            tokenized, reused = (
                self._tally.counts(name).get(label, 0) for name in ("prefrank_tokenized_rows", "prefrank_reused_rows")
            )
            about = {"model": hosted.about.name, "fingerprint": hosted.about.fingerprint}
            share = reused / tokenized if tokenized else None
            listed.append(about | look.to_json() | {"reused": {"rows": int(reused), "share": share}})
        return {"models": listed}

    def _families(self, models: Models) -> Iterator[Metric]:
        for name, named in COUNTERS.items():
            counter = CounterMetricFamily(name, named.help, labels=named.labels)
            for labels, value in self._tally.counts(name).items():
                counter.add_metric(labels, value)
            yield counter
        for name, named in HISTOGRAMS.items():
            histogram = HistogramMetricFamily(name, named.help, labels=named.labels)
            for labels, (buckets, total) in self._tally.spreads(name).items():
                histogram.add_metric(labels, buckets, total)
            yield histogram
        gauges = {name: GaugeMetricFamily(name, named.help, labels=named.labels) for name, named in GAUGES.items()}
        scores = HistogramMetricFamily(SCORES, SCORES_HELP, labels=("model",))
        gauges["prefrank_build_info"].add_metric((version("prefrank"),), 1)
        gauges["prefrank_uptime_seconds"].add_metric((), time.monotonic() - self._began)
        gauges["prefrank_ready"].add_metric((), models.is_ready)
        for hosted in models.hosted:
            for name, labels, value in (*_of_queue(hosted), *_of_scores(hosted.about.name, look := _look(hosted))):
                gauges[name].add_metric(labels, value)
            if look is not None:
                scores.add_metric((hosted.about.name,), look.buckets, look.total)
        yield from (*gauges.values(), scores)


class _Families(Collector):
    """Families that are there, in the form that prometheus_client writes."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families


_Sample = tuple[str, tuple[str, ...], Number]


def _look(hosted: Hosted) -> Look | None:
    return hosted.watcher.drift.look() if isinstance(hosted.watcher, ModelMetrics) else None


def _of_queue(hosted: Hosted) -> Iterator[_Sample]:
    about, waiting = hosted.about, hosted.scheduler.waiting()
    label = (about.name,)
    info = (about.name, about.fingerprint, about.architecture, about.precision, about.kernels, about.device)
    yield "prefrank_model_info", info, 1
    yield "prefrank_queue_open_rows", label, waiting.open_rows
    yield "prefrank_queue_limit_rows", label, about.max_waiting_rows
    yield "prefrank_queue_rows", label, waiting.rows
    yield "prefrank_queue_age_seconds", label, waiting.age_s
    yield "prefrank_batch_running_seconds", label, waiting.busy_s


def _of_scores(model: str, look: Look | None) -> Iterator[_Sample]:
    """Figures that there are too few scores for are not there, rather than 0."""
    if look is None:
        return
    figures = look.recent
    drift, against = figures["drift"], (model, look.reference["kind"])
    samples = [
        ("prefrank_score_recent_rows", (model,), figures["rows"]),
        ("prefrank_score_mean", (model,), figures["mean"]["value"]),
        ("prefrank_score_standard_deviation", (model,), figures["std"]),
        ("prefrank_score_drift_rows", against, drift["rows"]),
        ("prefrank_score_drift_stability_index", against, drift["stability_index"]),
        ("prefrank_score_drift_mean_shift", against, drift["mean_shift"]),
    ]
    for scope, figure in figures["length_correlation"].items():
        samples.append(("prefrank_score_length_correlation", (model, scope), figure["value"]))
    yield from ((name, labels, value) for name, labels, value in samples if value is not None)
