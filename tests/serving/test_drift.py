"""How served scores lie, and whether they have moved: against numpy, scipy and figures by hand."""

import math
from threading import Thread

import numpy as np
import pytest
from scipy.stats import pearsonr

from prefrank.serving.drift import BLOCK, BLOCKS, Answers, Drift
from prefrank.serving.moments import Moments
from prefrank.serving.reference import FIRST, LEAST, Histogram, histogram_of, of_first, of_training
from prefrank.stats.intervals import Z_95, clustered_error
from prefrank.training.records.score_record import _of_head


def answers(scores, *, lengths=None, groups=None, cuts=(0, 0, 0)) -> Answers:
    rows = len(scores)
    lengths = [1] * rows if lengths is None else list(lengths)
    groups = list(range(rows)) if groups is None else list(groups)
    return Answers(scores=list(map(float, scores)), lengths=lengths, groups=groups, cuts=cuts)


def record(scores, head: str = "overall") -> dict:
    """A training record with these scores."""
    return {"scores": {"heads": {head: _of_head(np.asarray(scores, np.float64), np.arange(float(len(scores))))}}}


def histogram(edges, counts) -> dict:
    """A training record with this histogram."""
    return {"scores": {"heads": {"overall": {"histogram": {"edges": edges, "counts": counts}}}}}


@pytest.fixture
def rows():
    """Scores that go with length, more between prompts than within them, and far from zero."""
    random = np.random.default_rng(0)
    group = np.repeat(np.arange(150), random.integers(1, 6, 150))
    length = random.integers(5, 400, len(group)).astype(np.float64) + 50 * (group % 7)
    score = 1_000 + 0.01 * length + (group % 7) - 3 + random.normal(0, 2, len(group))
    return length, score, group


def moments_of(length, score, group) -> Moments:
    moments = Moments((float(length[:5].mean()), float(score[:5].mean())))
    moments.add(length, score, group)
    return moments


def test_mean_and_deviation_are_numpys_and_the_interval_that_of_clustered_rows(rows):
    _, score, group = rows
    moments = moments_of(*rows)
    figure = moments.mean_figure()
    assert moments.rows == len(score)
    assert figure["value"] == pytest.approx(score.mean())
    assert moments.std == pytest.approx(score.std(ddof=1))
    error = clustered_error((score - score.mean()) / len(score), group)
    assert figure["high"] - figure["value"] == pytest.approx(Z_95 * error)
    assert figure["value"] - figure["low"] == pytest.approx(Z_95 * error)


def test_the_overall_correlation_is_scipys_and_its_interval_that_of_clustered_rows(rows):
    length, score, group = rows
    figure = moments_of(*rows).overall_correlation()
    r = pearsonr(length, score).statistic
    x, y = ((each - each.mean()) / each.std() for each in (length, score))
    error = clustered_error((x * y - r / 2 * (x * x + y * y)) / len(x), group) / (1 - r * r)
    assert figure["value"] == pytest.approx(r)
    assert math.atanh(figure["high"]) - math.atanh(r) == pytest.approx(Z_95 * error, rel=1e-6)
    assert math.atanh(r) - math.atanh(figure["low"]) == pytest.approx(Z_95 * error, rel=1e-6)


def test_the_correlation_within_prompts_is_that_of_what_rows_have_over_their_prompts_mean(rows):
    length, score, group = rows
    figure = moments_of(*rows).within_correlation()
    size = np.bincount(group)
    x, y = (each - (np.bincount(group, each) / size)[group] for each in (length, score))
    kept = size[group] > 1
    r = float(x @ y / math.sqrt((x @ x) * (y @ y)))
    change = x * y / math.sqrt((x @ x) * (y @ y)) - r / 2 * (x * x / (x @ x) + y * y / (y @ y))
    error = clustered_error(change[kept], np.unique(group[kept], return_inverse=True)[1]) / (1 - r * r)
    assert (figure["replies"], figure["prompts"]) == (int(kept.sum()), int((size > 1).sum()))
    assert figure["value"] == pytest.approx(r)
    assert math.atanh(figure["high"]) - math.atanh(r) == pytest.approx(Z_95 * error, rel=1e-6)


def test_the_correlation_within_prompts_by_hand():
    # Lengths 1, 3 and 10, 14 with scores 0, 2 and 5, 4: products 2 - 2, squares 2 + 8 and 2 + 1/2
    moments = moments_of(np.array([1.0, 3, 10, 14, 99]), np.array([0.0, 2, 5, 4, -50]), np.array([0, 0, 1, 1, 2]))
    figure = moments.within_correlation()
    assert figure["value"] == pytest.approx((2 - 2) / math.sqrt(10 * 2.5), abs=1e-12)
    assert (figure["replies"], figure["prompts"]) == (4, 2)


def test_sums_of_parts_are_those_of_the_whole(rows):
    length, score, group = rows
    whole = moments_of(*rows)
    parts = Moments(whole.center)
    for kept in (group < 40, (group >= 40) & (group < 41), group >= 41):
        part = Moments(whole.center)
        part.add(length[kept], score[kept], np.unique(group[kept], return_inverse=True)[1])
        parts.join(part)
    for one, other in ((parts.mean_figure(), whole.mean_figure()),
                       (parts.overall_correlation(), whole.overall_correlation()),
                       (parts.within_correlation(), whole.within_correlation())):  # fmt: skip
        assert one == pytest.approx(other)


@pytest.mark.parametrize("scores", [[], [3.25], [0.1] * 50])
def test_too_few_or_equal_scores_have_no_correlation(scores):
    drift = Drift(None, "overall")
    drift.add(answers(scores, lengths=range(len(scores)), groups=[0] * len(scores)))
    figures = drift.look().recent
    assert figures["length_correlation"]["within_prompt"]["value"] is None
    assert figures["length_correlation"]["overall"]["value"] is None
    assert figures["mean"]["value"] == (pytest.approx(scores[0]) if scores else None)
    assert figures["mean"]["low"] is None
    assert "too few different replies" in drift.look().sentence


def test_a_training_record_is_the_reference():
    scores = np.random.default_rng(1).normal(2.0, 3.0, 5_000)
    stored, why = histogram_of(record(scores), "overall")
    assert stored is not None
    assert why == ""
    reference = of_training(stored)
    assert (reference.kind, reference.n) == ("training", 5_000)
    assert reference.mean == pytest.approx(scores.mean(), abs=0.05)
    assert reference.std == pytest.approx(scores.std(), rel=0.02)
    assert reference.counts.tolist() == reference.bins(scores).tolist()
    assert reference.counts.min() >= 250


def test_bins_of_a_reference_are_put_together_until_each_has_its_share():
    edges = np.array([0.0, 1, 2, 3, 4])
    reference = of_training(Histogram(edges, np.array([1, 2, 97, 0, 96, 4])))
    assert (reference.edges.tolist(), reference.counts.tolist()) == ([2.0], [100, 100])
    # Middles -0.5 (one width below), 0.5, 1.5, 2.5, 3.5, 5 - 0.5
    total = 1 * -1 + 2 * 0.5 + 97 * 1.5 + 96 * 3.5 + 4 * 5
    assert reference.mean == pytest.approx(total / 200)


def test_the_stability_index_by_hand():
    reference = of_training(Histogram(np.array([0.0, 1.0]), np.array([100, 100, 200])))
    p, q = np.array([300.5, 50.5, 50.5]) / 401.5, np.array([100.5, 100.5, 200.5]) / 401.5
    by_hand = sum((a - b) * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert reference.stability_index(np.array([300, 50, 50])) == pytest.approx(by_hand)
    assert reference.stability_index(reference.counts) == pytest.approx(0)
    assert reference.by_chance(400) == pytest.approx(2 * (1 / 400 + 1 / 400))


def test_scores_of_the_same_kind_have_the_index_that_chance_makes():
    random = np.random.default_rng(2)
    reference = of_first(random.normal(size=FIRST))
    indices = [reference.stability_index(reference.bins(random.normal(size=500))) for _ in range(300)]
    # The reference is one sample, so the mean is near what chance makes of both, and not exactly that
    assert 0.5 < np.mean(indices) / reference.by_chance(500) < 1.6


@pytest.mark.parametrize(
    ("training", "why"),
    [
        (None, "the model has no training record"),
        ({}, "the training record has no scores"),
        ({"scores": {"heads": {}}}, "the training record has no scores"),
        ({"scores": 7}, "cannot be read"),
        (histogram([1, 2], [300]), "cannot be read"),
        (histogram([2, 1], [90, 90, 90]), "cannot be read"),
        (histogram("ab", [90, 90, 90]), "cannot be read"),
        (histogram([1, 2], [-9, 500, 0]), "cannot be read"),
        (histogram([1, float("nan")], [90, 90, 90]), "cannot be read"),
        (record([0.0] * 500), "too few to compare with"),
        (record(range(100)), "100 scores, too few to compare with"),
    ],
)
def test_without_a_usable_record_the_first_thousand_scores_are_the_reference_and_it_says_why(training, why):
    drift = Drift(training, "overall")
    random = np.random.default_rng(3)
    drift.add(answers(random.normal(size=600)))
    before = drift.look()
    assert before.reference | {"why": ""} == {
        "kind": "first_1000", "complete": False, "rows": 600, "mean": None, "std": None, "why": "",
    }  # fmt: skip
    assert why in before.reference["why"]
    assert "600 are there so far" in before.sentence
    assert why in before.sentence
    drift.add(answers(random.normal(size=650)))
    drift.add(answers(random.normal(2.0, 1.0, size=750)))
    after = drift.look()
    assert (after.reference["complete"], after.reference["rows"]) == (True, FIRST)
    assert after.recent["rows"] == 2_000
    assert after.recent["drift"]["rows"] == 1_000
    assert after.recent["drift"]["stability_index"] > 0.25
    assert after.recent["drift"]["mean_shift"] == pytest.approx(1.5, abs=0.15)
    assert "have moved far from those of the first 1,000 that were served" in after.sentence


def test_scores_as_in_training_have_not_moved_and_others_have():
    random = np.random.default_rng(4)
    training = record(random.normal(1.0, 2.0, 4_000))
    same, moved = Drift(training, "overall"), Drift(training, "overall")
    same.add(answers(random.normal(1.0, 2.0, 3_000)))
    moved.add(answers(random.normal(3.0, 2.0, 3_000)))
    assert "lie as those of held-out replies in training" in same.look().sentence
    assert abs(same.look().recent["drift"]["mean_shift"]) < 0.1
    assert "have moved far" in moved.look().sentence
    assert moved.look().recent["drift"]["mean_shift"] == pytest.approx(1.0, abs=0.1)
    assert Drift(training, "another head").look().reference["kind"] == "first_1000"


def test_few_scores_are_not_compared():
    drift = Drift(record(np.arange(1_000.0)), "overall")
    drift.add(answers([5.0] * (LEAST - 1)))
    assert drift.look().recent["drift"] == {
        "rows": LEAST - 1, "stability_index": None, "by_chance": None, "mean_shift": None,
    }  # fmt: skip
    drift.add(answers([5.0]))
    assert drift.look().recent["drift"]["stability_index"] > 1


def test_recent_figures_forget_what_is_long_ago_and_nothing_grows():
    drift = Drift(None, "overall")
    for level in (0.0, 10.0):
        for _ in range(150):
            drift.add(answers([level] * 100, cuts=(1, 2, 3)))
    look = drift.look()
    assert look.recent["mean"]["value"] == 10
    assert BLOCK * BLOCKS <= look.recent["rows"] < BLOCK * (BLOCKS + 1)
    assert look.since_start["rows"] == 30_000
    assert look.since_start["mean"]["value"] == pytest.approx(5)
    assert look.since_start["cut_reply"]["value"] == pytest.approx(0.02)
    assert look.recent["past_trained"]["value"] == pytest.approx(0.03)
    assert look.buckets[-1] == ("+Inf", 30_000)
    assert len(drift._blocks) == BLOCKS
    assert len(drift._first) == FIRST
    assert not drift._new


def test_a_look_at_any_time_changes_nothing():
    random = np.random.default_rng(5)
    given = [answers(random.normal(size=n), lengths=random.integers(1, 99, n).tolist(), groups=[0] * n)
             for n in random.integers(1, 40, 200)]  # fmt: skip
    often, once = Drift(None, "overall"), Drift(None, "overall")
    for each in given:
        often.add(each)
        often.look()
        once.add(each)
    assert often.look().since_start["rows"] == once.look().since_start["rows"]
    for name in ("mean", "std", "length_correlation"):
        one, other = often.look().since_start[name], once.look().since_start[name]
        parts = [(one, other)] if name != "length_correlation" else [(one[key], other[key]) for key in one]
        assert all(first == pytest.approx(second) for first, second in parts)


def test_threads_may_add_and_look_at_once():
    drift = Drift(None, "overall")

    def add() -> None:
        for _ in range(100):
            drift.add(answers([1.0, 2.0], lengths=[3, 4], groups=[0, 0]))
            drift.look()

    threads = [Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    figures = drift.look().since_start
    assert figures["rows"] == 800
    assert figures["mean"]["value"] == pytest.approx(1.5)
    assert figures["length_correlation"]["within_prompt"] == {
        "value": pytest.approx(1.0), "low": None, "high": None, "replies": 800, "prompts": 400,
    }  # fmt: skip


def test_length_that_drives_scores_is_said():
    random = np.random.default_rng(6)
    drift = Drift(None, "overall")
    for _ in range(100):
        lengths = random.integers(10, 200, 4)
        drift.add(answers(0.05 * lengths + random.normal(size=4), lengths=lengths.tolist(), groups=[0] * 4))
    assert "among replies to one prompt longer ones score higher (correlation +0.9" in drift.look().sentence
