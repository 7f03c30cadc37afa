"""The example that turns several people's votes into our own format."""

import subprocess
import sys
from pathlib import Path

from prefrank.data import load_comparisons
from tests.data.files import write_lines

EXAMPLE = Path(__file__).parents[2] / "examples" / "votes_to_prefrank.py"
PAIRS = [
    {"id": 0, "prompt": 8, "text": "Name a colour.", "result_x": "Blue.", "result_y": "Tuesday.", "model_x": 1},
    {"id": 1, "prompt": 8, "text": "Name a colour.", "result_x": "Tuesday.", "result_y": "Blue.", "model_x": 2},
    {"id": 2, "prompt": 9, "text": "Name a day.", "result_x": "Red.", "result_y": "Monday.", "model_x": 3},
    {"id": 3, "prompt": 9, "text": "Name a month.", "result_x": "Nobody voted.", "result_y": "May.", "model_x": 3},
]


def run(tmp_path: Path, pairs: Path, votes: str) -> Path:
    (tmp_path / "votes.csv").write_text(votes)
    out = tmp_path / "out.jsonl"
    subprocess.run([sys.executable, EXAMPLE, pairs, tmp_path / "votes.csv", out], check=True, capture_output=True)
    return out


def test_votes_on_one_pair_meet_in_one_comparison_with_ties_as_half(tmp_path: Path) -> None:
    votes = "id,worker,winner\n0,w1,left\n0,w2,tie\n1,w3,right\n1,w4,left\n2,w1,right\n"
    out = run(tmp_path, write_lines(tmp_path / "pairs.jsonl", PAIRS), votes)
    loaded = load_comparisons(out)
    first, second = loaded.comparisons
    assert first.replies == ("Blue.", "Tuesday.")
    assert [(p.winner, p.loser, p.probability) for p in first.preferences] == [
        (0, 1, 1),
        (0, 1, 0.5),
        (0, 1, 1),
        (1, 0, 1),
    ]
    assert [(p.winner, p.loser) for p in second.preferences] == [(1, 0)]
    assert (loaded.report.pairs, loaded.report.ties) == (5, 1)


def test_the_converter_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 40
