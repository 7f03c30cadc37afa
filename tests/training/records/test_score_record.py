"""What prefrank.json keeps of a run's last scores on held-out replies."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from prefrank.text import TextEncoder
from prefrank.training import train
from prefrank.training.feed.examples import Examples, encode
from prefrank.training.records.run_checkpoints import Progress
from prefrank.training.records.score_record import score_record
from tests.training.conftest import make_comparisons, write_jsonl


@pytest.fixture
def examples(bert: Path) -> Examples:
    return encode(make_comparisons(50, replies=3), TextEncoder.load(bert))[0]


def test_the_correlations_with_length_are_those_of_scipy(examples):
    characters = np.array([len(reply) for c in make_comparisons(50, replies=3) for reply in c.replies])
    assert examples.reply_characters.tolist() == characters.tolist()
    scores = torch.randn(150, generator=torch.Generator().manual_seed(0)) + 0.05 * torch.from_numpy(characters)
    length = score_record([(examples, scores)])["overall"]["length"]
    assert length["n"] == 150
    assert length["pearson"] == pytest.approx(pearsonr(scores, characters).statistic)
    assert length["spearman"] == pytest.approx(spearmanr(scores, characters).statistic)


def test_the_histogram_holds_every_score_once_with_the_outermost_in_open_bins(examples):
    scores = torch.linspace(-1, 1, 150)
    scores[0] = -1e6
    head = score_record([(examples, scores), (examples, scores)])["overall"]
    edges, counts = head["histogram"]["edges"], head["histogram"]["counts"]
    assert len(counts) == len(edges) + 1 == 22
    assert sum(counts) == head["n"] == 300
    assert np.diff(edges) == pytest.approx((edges[-1] - edges[0]) / 20)
    assert (counts[0], counts[-1]) == (2, 4)
    inner = [*edges[:-1], np.nextafter(edges[-1], -9)]  # numpy's last bin has its end in it
    assert counts[1:-1] == np.histogram(np.repeat(scores.double().numpy(), 2), inner)[0].tolist()


def test_scores_that_are_not_finite_are_failures_and_equal_ones_have_no_correlation(examples):
    scores = torch.ones(150)
    scores[:2] = torch.tensor([float("nan"), float("inf")])
    head = score_record([(examples, scores)])["overall"]
    assert (head["n"], head["failures"]) == (148, 2)
    assert head["histogram"] == {"edges": [1.0], "counts": [0, 148]}
    assert head["length"] == {"n": 148, "pearson": None, "spearman": None}
    assert score_record([(examples, scores * float("nan"))])["overall"]["histogram"] == {"edges": [], "counts": [0]}
    assert score_record([]) == {}


def test_a_checkpoint_says_how_the_scores_of_its_last_evaluation_lie(recipe, tmp_path):
    evaluation = write_jsonl(tmp_path / "more.jsonl", make_comparisons(20, seed=5))
    trained = train(recipe(evaluation=[str(evaluation)]))
    record = json.loads((trained.last / "prefrank.json").read_text())["training"]["scores"]
    assert record["step"] == trained.steps
    assert record["heads"]["overall"]["n"] == sum(record["heads"]["overall"]["histogram"]["counts"]) == 40
    assert record["heads"]["overall"]["failures"] == 0


def test_the_state_of_a_run_from_before_scores_were_kept_is_read():
    state = Progress("d", "e", 4, step=3).state_dict()
    del state["scores"]
    progress = Progress("d", "e", 4)
    progress.load_state_dict(state)
    assert progress.step == 3
    assert progress.scores == {}
