import re
from dataclasses import fields
from pathlib import Path

import pytest

from prefrank import RewardModel
from prefrank.data import load_comparisons
from prefrank.evaluation import (
    Bootstrap,
    Counts,
    Entrant,
    Estimate,
    Metrics,
    SuiteData,
    Task,
    as_item,
    comparisons_suite,
    evaluate,
    longer_wins,
    random_scorer,
    run_all,
    write_run,
)
from tests.tiny import bert_folder

FAST = Bootstrap(resamples=50)

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("made", [Metrics, Counts, Estimate])
def test_every_measured_value_is_documented(made: type) -> None:
    missing = [field.name for field in fields(made) if f"`{field.name}`" not in PAGE]
    assert missing == []


def test_the_examples_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RewardModel.load(bert_folder(tmp_path / "plain"), max_length=64).save(tmp_path / "model")
    train = load_comparisons("starter", split="train").comparisons[:40]
    items = tuple(map(as_item, load_comparisons("starter", split="validation").comparisons))
    task = Task(comparisons_suite("starter:eval"), SuiteData(items, 280), "starter:eval")
    path = tmp_path / "run.json"
    model = Entrant("runs/demo", "model", RewardModel.load(folder).score_pairs)
    write_run(path, run_all([model], [task], bootstrap=FAST))
    one, other = (evaluate(scorer, items, name="", bootstrap=FAST) for scorer in (longer_wins, random_scorer()))
    known = {
        "one": one, "other": other, "sample": one.sample, "bootstrap": FAST, "path": path, "items": items,
        "train": train, "folder": folder, "prompt": "p", "replies": ["a", "b"], "Path": Path,
    }  # fmt: skip
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 8
    for block in blocks:
        if "audit(" not in block and "write_report(" not in block and "model.calibration" not in block:
            exec(compile(block, "docs/evaluation.md", "exec"), dict(known))
    assert re.match(r"0\.\d{3} \[0\.\d{3}, 0\.\d{3}\]\n\d+ \d+\n", capsys.readouterr().out)
