import math
from pathlib import Path

import pytest

from prefrank.errors import PrefrankError
from prefrank.evaluation import measure as metrics
from prefrank.evaluation.protocols.open_assistant import OPEN_ASSISTANT, measure
from prefrank.evaluation.samples import Sample, sample_of
from prefrank.stats.bootstrap import Bootstrap
from prefrank.stats.estimates import estimate_all
from prefrank.stats.figures import Figure
from tests.data.files import message, write_lines, write_parquet
from tests.evaluation.making import comparison, preference, ranking, scored

ENDS, PUBLISHED = "Best against worst", "Best against worst/as published"
WOULD_ADD = "Best against worst/failures, published as right"
ONCE = Bootstrap(resamples=1)


def values(figures: dict[str, Figure]) -> dict[str, float | None]:
    return {name: estimate.value for name, estimate in estimate_all(figures, ONCE).items()}


def ranked(*scores: list[float]) -> Sample:
    """Replies best first, one prompt for each list of scores."""
    items = [ranking(len(each), prompt=f"prompt {n}", id=str(n)) for n, each in enumerate(scores)]
    return sample_of(items, list(map(scored, scores)))


def test_both_protocols_by_hand() -> None:
    result = values(measure(ranked([3, 1, 2], [0, 5, 0], [1, 2])))
    assert result["Accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert (result[ENDS], result[PUBLISHED]) == (pytest.approx((1 + 1 / 2 + 0) / 3), pytest.approx(2 / 3))
    assert result[WOULD_ADD] == 0
    assert result["Kendall tau"] == pytest.approx((1 / 3 + 0) / 2)


def test_the_figures_are_those_of_every_evaluation() -> None:
    sample = ranked([3, 1, 2, 0], [0, 5, 0], [1, 2], [4, 4], [math.nan, 1, 0])
    whole, result = metrics(sample, bootstrap=ONCE), estimate_all(measure(sample), ONCE)
    for name, same in {
        "Accuracy": whole.accuracy,
        ENDS: whole.best_worst,
        PUBLISHED: whole.best_worst_published,
        "Kendall tau": whole.kendall_tau,
    }.items():
        assert result[name].value == pytest.approx(same.value)


def test_a_failure_is_a_loss_and_what_publishing_it_as_a_win_would_add_is_stated() -> None:
    result = values(measure(ranked([math.nan, 1, 0], [2, math.inf, 1], [5, math.nan], [1, 2])))
    assert (result[ENDS], result[PUBLISHED], result[WOULD_ADD]) == (1 / 4, 1 / 4, 2 / 4)
    assert result["Accuracy"] == pytest.approx((1 / 3 + 1 / 3 + 0 + 0) / 4)


def test_only_ties_leave_nothing_to_measure() -> None:
    tied = comparison(["a", "b"], [preference(0, 1, 0.5)])
    assert set(values(measure(sample_of([tied], [scored([1, 0])]))).values()) == {None}


ROWS = [
    message("p0", None, "How do I bake bread?"),
    message("a0", "p0", "Mix, knead, wait, bake.", rank=0),
    message("a1", "p0", "Buy it.", rank=1),
    message("a2", "p0", "Ask the baker.", rank=2),
]


def test_the_published_parquet_folder_is_read(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", ROWS)
    data = OPEN_ASSISTANT.read(tmp_path)
    (made,) = data.items
    assert made.replies == ("Mix, knead, wait, bake.", "Buy it.", "Ask the baker.")
    assert [(p.winner, p.loser) for p in made.preferences] == [(0, 1), (0, 2), (1, 2)]
    assert (data.read, data.dropped) == (1, {})


def test_a_folder_without_data_is_said(tmp_path: Path) -> None:
    with pytest.raises(PrefrankError, match=str(tmp_path)):
        OPEN_ASSISTANT.read(tmp_path)


def test_the_training_part_is_not_read(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.messages.jsonl.gz", [row | {"text": f"{row['text']} again"} for row in ROWS])
    write_lines(tmp_path / "validation.messages.jsonl.gz", ROWS)
    assert [item.replies[0] for item in OPEN_ASSISTANT.read(tmp_path).items] == ["Mix, knead, wait, bake."]


@pytest.mark.shared_data
def test_validation_of_real_messages(shared_data: Path) -> None:
    data = OPEN_ASSISTANT.read(shared_data / "oasst1-en")
    assert (len(data.items), data.read) == (99, 99 + sum(data.dropped.values()))
    assert sum(len(item.preferences) for item in data.items) == 241
