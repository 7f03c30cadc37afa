"""One server on one workload: its capacity, loads in an open loop, bursts, and what came of every request."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from serve_load import Phase, Sample, closed_loop, evenly, ideal_latencies, open_loop, poisson, request_bytes
from serve_servers import Form, Kind, body_of
from serve_traffic import Workload

TOGETHER_S = 0.002
"""Answers that come within this time were computed together."""
REFUSED = (429, 503)
FEWEST = 5
"""Requests of a load: it lasts longer where there would be fewer."""
LONGEST = 16.0
"""Seconds of a load that was made longer."""
PATIENCE = 12.0
"""Seconds after the last request was due in which replies are waited for."""


@dataclass(slots=True)
class Outcome:
    """What came of the requests of one phase.

    Args:
        load: percent of the server's own capacity, 0 for a closed loop.
        rate, seconds: requests a second that were due, and for how long.
        sent, answered, refused, failed, unanswered: requests; of the failed, `statuses` says with what.
        wrong: replies with a score that is not the solo score; `apart`, by how much at most.
        p50, p99, most: milliseconds from when a request was due to its answer.
        refusal_p50, refusal_most: the same of refusals.
        good: requests a second that were answered right and within the bound, while the phase lasted.
        late_p99: milliseconds from when a request was due to when it was sent: the generator's own.
        ideal_p99: what a server of this capacity without any overhead would have shown at these very arrivals.
        groups: [p50, p99] of the requests of each group, where there are several.
    """

    load: int
    rate: float
    seconds: float
    sent: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0
    unanswered: int = 0
    wrong: int = 0
    apart: float = 0.0
    p50: float | None = None
    p99: float | None = None
    most: float | None = None
    refusal_p50: float | None = None
    refusal_most: float | None = None
    good: float = 0.0
    late_p99: float | None = None
    ideal_p99: float | None = None
    even: bool = False
    statuses: dict[str, int] = field(default_factory=dict)
    groups: dict[str, list[float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {name: round(value, 4) if isinstance(value, float) and name != "apart" else value
                for name, value in asdict(self).items()}  # fmt: skip


@dataclass(slots=True)
class Measured:
    """A server on a workload: solo is the median milliseconds of one request after the other."""

    server: str
    workload: str
    solo: float | None = None
    rounds: list[float] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    skipped: str = ""

    @property
    def capacity(self) -> float:
        """Requests a second."""
        return float(np.median(self.rounds)) if self.rounds else 0.0

    def at(self, load: int, *, even: bool = False) -> Outcome | None:
        return next((each for each in self.outcomes if (each.load, each.even) == (load, even)), None)

    def to_json(self) -> dict[str, Any]:
        outcomes = [each.to_json() for each in self.outcomes]
        return asdict(self) | {"outcomes": outcomes, "capacity": round(self.capacity, 3)}


@dataclass(frozen=True, slots=True)
class Sent:
    """A workload as one server is sent it."""

    workload: Workload
    requests: list[bytes]
    form: Form
    most_apart: float

    @classmethod
    def of(cls, workload: Workload, kind: Kind, whole: Sequence[str]) -> "Sent":
        """`whole`: the rows as whole texts, of a decoder."""
        several = any(len(request.rows) > 1 for request in workload.requests)
        form = (kind.storm if workload.storm else kind.ranking if several and not whole else None) or kind.form
        requests = []
        for request in workload.requests:
            prompt, replies = workload.rows[request.rows[0]][0], [workload.rows[row][1] for row in request.rows]
            texts = [whole[row] for row in request.rows] if whole else []
            requests.append(request_bytes(form.path, body_of(form, prompt, replies, texts)))
        return cls(workload, requests, form, kind.most_apart)


def apart(sent: Sent, sample: Sample) -> float:
    """How far a reply is from the solo scores at most; infinity where it cannot be read."""
    wanted = sent.workload.scores[list(sent.workload.requests[sample.number].rows)]
    try:
        scores = np.array(sent.form.read(json.loads(sample.body)), np.float64)
    except (ValueError, KeyError, TypeError):
        return float("inf")
    return float(np.abs(scores - wanted).max()) if scores.shape == wanted.shape else float("inf")


def judge(sent: Sent, phase: Phase, *, load: int, bound: float, even: bool = False) -> Outcome:
    """Hold every reply against the solo scores and count.

    Args:
        bound: seconds within which an answer is of use.
    """
    outcome = Outcome(load, len(phase.samples) / max(phase.seconds, 1e-9), phase.seconds, even=even)
    outcome.sent = len(phase.samples)
    answered = [sample for sample in phase.samples if sample.status == 200]
    refused = [sample for sample in phase.samples if sample.status in REFUSED]
    outcome.answered, outcome.refused = len(answered), len(refused)
    outcome.unanswered = sum(sample.status == 0 for sample in phase.samples)
    outcome.failed = outcome.sent - outcome.answered - outcome.refused - outcome.unanswered
    outcome.statuses = {str(status): count for status, count in Counter(s.status for s in phase.samples).items()}
    good: list[float] = []
    for sample in answered:
        distance = apart(sent, sample)
        outcome.apart = max(outcome.apart, distance)
        right = distance <= sent.most_apart
        outcome.wrong += not right
        good += [sample.done] if right and sample.latency <= bound else []
    outcome.apart = min(outcome.apart, 1e9)
    outcome.good = _rate(good, phase)
    if answered:
        outcome.p50, outcome.p99, outcome.most = _milliseconds([sample.latency for sample in answered])
    if refused:
        outcome.refusal_p50, _, outcome.refusal_most = _milliseconds([sample.latency for sample in refused])
    sent_at = [sample.sent - sample.due for sample in phase.samples if sample.sent]
    outcome.late_p99 = _milliseconds(sent_at)[1] if sent_at else None
    groups = {sent.workload.requests[sample.number].group for sample in answered}
    for group in sorted(groups) if len(groups) > 1 else []:
        some = [sample.latency for sample in answered if sent.workload.requests[sample.number].group == group]
        outcome.groups[group] = [round(each, 3) for each in _milliseconds(some)[:2]]
    return outcome


def _rate(times: Sequence[float], phase: Phase) -> float:
    """How many a second, from the first of them to the end of the phase: what came before was the way in."""
    within = np.array([each for each in times if each <= phase.ended])
    if not len(within):
        return 0.0
    first = float(within.min())
    together = int((within < first + TOGETHER_S).sum())
    return (len(within) - together) / max(phase.ended - first, 1e-9)


def _milliseconds(seconds: Sequence[float]) -> tuple[float, float, float]:
    """Median, 99th percentile and the largest."""
    p50, p99, most = np.percentile(np.array(seconds) * 1e3, [50, 99, 100]).tolist()
    return p50, p99, most


def capacity(port: int, sent: Sent, seconds: float) -> tuple[float, Outcome]:
    """Requests a second of a closed loop, from the first that is sent to the last that is answered."""
    phase = closed_loop(port, sent.requests, connections=sent.workload.connections, seconds=seconds)
    outcome = judge(sent, phase, load=0, bound=float("inf"))
    last = max((sample.done for sample in phase.samples if sample.status == 200), default=phase.ended)
    return outcome.answered / max(last - phase.begun, 1e-9), outcome


def solo(port: int, sent: Sent, seconds: float) -> Outcome:
    """One request after the other."""
    return judge(sent, closed_loop(port, sent.requests, connections=1, seconds=seconds), load=0, bound=float("inf"))


def load(
    port: int, sent: Sent, percent: int, *, capacity: float, seconds: float, bound: float, seed: int, even: bool = False
) -> Outcome:
    """An open loop at a percentage of the capacity; requests that belong together are due together."""
    together = sent.workload.together
    rate = capacity * percent / 100 / together
    seconds = max(seconds, min(FEWEST / rate, LONGEST))
    arrivals = evenly(rate, seconds) if even else poisson(rate, seconds, seed)
    dues = np.repeat(arrivals if len(arrivals) else np.array([0.0]), together)
    phase = open_loop(port, sent.requests, dues, patience=PATIENCE)
    phase.ended = phase.begun + seconds
    outcome = judge(sent, phase, load=percent, bound=bound, even=even)
    outcome.ideal_p99 = _milliseconds(ideal_latencies(dues, 1 / capacity).tolist())[1]
    return outcome


def settle(port: int, sent: Sent, outcome: Outcome) -> None:
    """Wait until a server has done with what nobody waits for any longer."""
    if outcome.unanswered:
        open_loop(port, sent.requests[:1], np.zeros(1), warm=1, patience=60.0)


def burst(port: int, sent: Sent, *, bound: float) -> tuple[float, Outcome]:
    """All requests at one moment, on as many connections; and requests a second until the last was answered."""
    count = len(sent.requests)
    phase = open_loop(port, sent.requests, np.zeros(count), warm=count, patience=4 * PATIENCE)
    last = max((sample.done for sample in phase.samples if sample.status == 200), default=phase.begun)
    phase.ended = max(last, phase.begun + 1e-6)
    outcome = judge(sent, phase, load=0, bound=bound)
    return outcome.answered / (phase.ended - phase.begun), outcome
