"""The names of all metrics: what is counted, in which unit, by which labels."""

from collections.abc import Mapping
from dataclasses import dataclass

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True, slots=True)
class Named:
    """A metric.

    Args:
        help: what it says.
        labels: by which it is split.
        edges: of a histogram.
    """

    help: str
    labels: tuple[str, ...] = ("model",)
    edges: tuple[float, ...] = ()


COUNTERS: Mapping[str, Named] = {
    "prefrank_requests": Named(
        "HTTP requests; status 499 is a client that went first, path other one that is not here",
        ("dialect", "path", "status", "model"),
    ),
    "prefrank_refused_requests": Named("Requests for scores that got an error, by why", ("dialect", "reason", "model")),
    "prefrank_rows": Named("Rows that got a score, equal ones each"),
    "prefrank_failed_rows": Named("Rows that got none, by why", ("model", "reason")),
    "prefrank_reused_rows": Named("Rows that were equal to one that waited, was under way, or was remembered"),
    "prefrank_refused_rows": Named("Rows that the queue did not take, being too long or too old"),
    "prefrank_dropped_rows": Named("Rows that were not scored, as nobody waited for them any longer"),
    "prefrank_tokenized_rows": Named("Rows that were tokenized"),
    "prefrank_scored_rows": Named("Distinct rows that were in a batch"),
    "prefrank_tokens": Named("Tokens of the rows that got a score, equal ones each"),
    "prefrank_scored_tokens": Named("Tokens of the distinct rows in batches"),
    "prefrank_computed_tokens": Named("Of these, with what rows begin with in common counted once"),
    "prefrank_cut_rows": Named(
        "Rows with a score that lost tokens of the prompt or of the reply to the model's limit", ("model", "part")
    ),
    "prefrank_past_trained_rows": Named("Rows with a score that have more tokens than the model was trained on"),
}
HISTOGRAMS: Mapping[str, Named] = {
    "prefrank_request_duration_seconds": Named(
        "From a request for scores to the end of its answer; outcome is answered or refused",
        ("dialect", "outcome"),
        _SECONDS,
    ),
    "prefrank_queue_wait_seconds": Named("That a row waited between its tokens and its batch", edges=_SECONDS),
    "prefrank_tokenize_duration_seconds": Named("That texts took that were tokenized together", edges=_SECONDS),
    "prefrank_batch_duration_seconds": Named("That a batch took in the model", edges=_SECONDS),
    "prefrank_batch_rows": Named("Rows of a batch", edges=tuple(2.0**power for power in range(11))),
    "prefrank_batch_tokens": Named("Tokens of a batch's rows", edges=tuple(2.0**power for power in range(5, 17))),
    "prefrank_row_characters": Named(
        "Characters of a row that got a score, prompt and reply",
        edges=tuple(each * 10.0**power for power in range(1, 7) for each in (1, 2, 5)),
    ),
}
GAUGES: Mapping[str, Named] = {
    "prefrank_build_info": Named("The server's version", ("version",)),
    "prefrank_model_info": Named(
        "The models that are served", ("model", "fingerprint", "architecture", "precision", "kernels", "device")
    ),
    "prefrank_uptime_seconds": Named("Since the server began", ()),
    "prefrank_ready": Named("1 when all models are loaded", ()),
    "prefrank_queue_open_rows": Named("Rows that are asked for and not answered"),
    "prefrank_queue_limit_rows": Named("Open rows at which more are refused"),
    "prefrank_queue_rows": Named("Distinct rows that are tokenized and wait for a batch"),
    "prefrank_queue_age_seconds": Named("That the oldest of them has waited"),
    "prefrank_batch_running_seconds": Named("That the longest batch under way has taken so far"),
    "prefrank_score_recent_rows": Named("Scores that the recent figures are of, the last ten to eleven thousand"),
    "prefrank_score_mean": Named("Mean of the recent scores"),
    "prefrank_score_standard_deviation": Named("Of the recent scores"),
    "prefrank_score_length_correlation": Named(
        "Pearson's of score and tokens of the reply, recently; within_prompt among replies to one prompt in a request",
        ("model", "scope"),
    ),
    "prefrank_score_drift_rows": Named("Recent scores that were compared with the reference", ("model", "reference")),
    "prefrank_score_drift_stability_index": Named(
        "Population stability index of the recent scores against the reference", ("model", "reference")
    ),
    "prefrank_score_drift_mean_shift": Named(
        "Of the recent scores' mean, in standard deviations of the reference", ("model", "reference")
    ),
}
SCORES = "prefrank_score"
SCORES_HELP = "Scores since the model was loaded; the edges are those of its training record, where it has them"
REASONS = ("text", "too_long", "failed")
"""Why a row has no score."""
EDGES = {name: named.edges for name, named in HISTOGRAMS.items()}
