import re
from dataclasses import fields
from pathlib import Path

import pytest

from prefrank import RewardModel
from prefrank.data import load_comparisons
from prefrank.data.overlap import NEAR, NGRAM, SHINGLE
from prefrank.evaluation import (
    Bootstrap,
    Counts,
    Entrant,
    Estimate,
    Metrics,
    SuiteData,
    Task,
    as_item,
    audit,
    calibration,
    comparisons_suite,
    contamination,
    evaluate,
    language,
    longer_wins,
    random_scorer,
    run_all,
    slices,
    style,
    temperature_fit,
    write_run,
)
from prefrank.evaluation.protocols import SUITES, best_of_n, judged, load_suite, rmb
from prefrank.scoring import exchange, remote
from prefrank.stats import significance
from prefrank.wire import DIALECTS
from tests.tiny import bert_folder

PROBE_PAIRS = [item.subset for item in load_suite("probes").items]
FAST = Bootstrap(resamples=50)

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "evaluation.md").read_text(encoding="utf-8")
SERVER = remote.ServerOptions()
HALF, COUNTED = "half", ("no", "one", "two", "three", "four", "five", "six")

SENTENCES = {
    "evaluation.md": (
        f"A term that differs in fewer than {style.MIN_DIFFERING} prompts is left out",
        f"there are fewer than {style.MIN_PROMPTS} prompts, there is no regression",
        f"among those of at least {slices.MIN_PROMPTS} prompts whose interval",
        f"No temperature comes from fewer than {temperature_fit.MIN_PAIRS} pairs with different scores",
        f"over {calibration.NUM_BINS} bins of equal width from 1/2 to 1",
        f"over {calibration.NUM_BINS} bins of equal mass",
        f"exhaustively where at most {significance._EXACT} prompts differ",
        f"a Jaccard similarity of at least {NEAR} in {SHINGLE}-word shingles",
        f"at least {HALF if contamination.SHARE == 0.5 else contamination.SHARE} of the shorter prompt's {NGRAM}-word",
        f"a reply of at least {NGRAM} words",
        f"{Bootstrap().resamples:,} seeded resamples of prompts",
        f"`low`, `high` ({Bootstrap().confidence:.0%}".replace("%", " %"),
        f"num_comparisons={audit.NUM_COMPARISONS}",
        f"| batch sizes | {', '.join(map(str, audit.BATCH_SIZES))} |",
        f"| number types | {', '.join(audit.DTYPES)} |",
        f"| padding | {', '.join(audit.SIDES)} |",
    ),
    "scorers.md": (
        f"are tried again, {COUNTED[SERVER.tries]} times in all, {SERVER.wait_s:g} s later",
        f"at most {'a minute' if exchange.LONGEST_WAIT_S == 60 else exchange.LONGEST_WAIT_S}",
        f"so {COUNTED[len(remote.PROBES)]} probes are scored first",
        f"fewer than {language.MIN_LETTERS} letters",
        f"guesses below a confidence of {language.MIN_CONFIDENCE}",
        "(" + ", ".join(map(str, remote.HALVED)) + ") is halved",
        ", ".join(map(str, exchange.RETRIED)) + ", time-outs",
    ),
    "suites.md": (
        f"in {len(PROBE_PAIRS)} pairs of {len(set(PROBE_PAIRS))} kinds over"
        f" {len({item.prompt for item in load_suite('probes').items})} prompts",
        *(f"| {PROBE_PAIRS.count(kind)} |" for kind in set(PROBE_PAIRS)),
        f"({len(rmb.PUBLISHED['Helpfulness BoN'])} files of helpfulness, {len(rmb.PUBLISHED['Harmlessness BoN'])} of",
        f"over all {sum(judged.JUDGEBENCH_ROWS.values())} pairs by GPT-4o",
        f"for {sum(best_of_n.ROWS.values())} AlpacaEval prompts",
        f"only where the fit has R2 >= {best_of_n.FITS:.2f}",
        "0.30 and 0.30 for the two versions of a prompt answered right, 0.20 and 0.20",
    ),
}
"""Of each page, sentences with numbers and defaults that the code holds too."""


@pytest.mark.parametrize("page", SENTENCES)
def test_the_numbers_on_a_page_are_the_codes(page: str) -> None:
    text = " ".join((DOCS / page).read_text(encoding="utf-8").split())
    assert [sentence for sentence in SENTENCES[page] if sentence not in text] == []


def test_every_protocol_and_suite_stands_on_its_page() -> None:
    pages = {name: (DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ("scorers", "suites")}
    assert [name for name in DIALECTS if f"`{name}`" not in pages["scorers"]] == []
    paths = [path for dialect in DIALECTS.values() for path in dialect.paths]
    assert [path for path in paths if path not in pages["scorers"]] == []
    assert [name for name in SUITES if f"`{name}`" not in pages["suites"]] == ["probes"]  # `--suite probes`
    for kind in set(PROBE_PAIRS):
        assert f"| `{kind}` |" in pages["suites"]


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
    result, other = (evaluate(scorer, items, name="", bootstrap=FAST) for scorer in (longer_wins, random_scorer()))
    known = {
        "result": result, "other": other, "sample": result.sample, "bootstrap": FAST, "path": path, "items": items,
        "train": train, "folder": folder, "prompt": "p", "replies": ["a", "b"], "Path": Path,
    }  # fmt: skip
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 8
    for block in blocks:
        if "audit(" not in block and "write_report(" not in block and "model.calibration" not in block:
            exec(compile(block, "docs/evaluation.md", "exec"), dict(known))
    assert re.match(r"0\.\d{3} \[0\.\d{3}, 0\.\d{3}\]\n\d+ \d+\n", capsys.readouterr().out)
