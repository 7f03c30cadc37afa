"""Open Assistant's ranked replies: the first implementation's protocol beside one that says what it means.

The first implementation took the best and the worst reply of each group and called it right unless the worst one scored
more, so that equal scores, and NaN, were right answers (docs/evaluation.md, `best_worst_published`). Here the headline
counts every pair that people ranked, equal scores as half. "As published" still counts equal scores as right, but a
failed score is a loss in every figure; what the published rule would have added for failures is a figure of its own.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64

from prefrank.data import load_comparisons
from prefrank.evaluation.credits import ACCURACY, credits, mean_over
from prefrank.evaluation.items import as_item
from prefrank.evaluation.metrics import best_and_worst, kendall_taus
from prefrank.evaluation.protocols.suite import Suite, SuiteData
from prefrank.evaluation.samples import Sample, wins
from prefrank.stats.figures import Figure, mean_figure


@np.errstate(over="ignore", invalid="ignore")  # what is too large for a sum has no value
def measure(sample: Sample) -> dict[str, Figure]:
    """The suite's figures; any ranked comparisons will do."""
    pairs, margin = sample.pairs, sample.margin
    ends = best_and_worst(pairs)

    def of_ends(result: Float64[np.ndarray, " P"] | Bool[np.ndarray, " P"]) -> Figure:
        """Mean over comparisons whose best and worst reply people compared."""
        prompts = pairs.prompt[pairs.comparison[ends]]
        return mean_figure(result[ends].astype(np.float64), prompts, unit="comparisons", bounds=(0.0, 1.0))

    tau = kendall_taus(margin, pairs)
    ranked = ~np.isnan(tau)
    return {
        ACCURACY: mean_over(sample, credits(sample, "half"), np.ones(len(sample.facts), bool)),
        "Best against worst": of_ends(wins(margin)),
        "Best against worst/as published": of_ends(margin >= 0),
        "Best against worst/failures, published as right": of_ends(np.isnan(margin)),
        "Kendall tau": mean_figure(tau[ranked], pairs.prompt[ranked], unit="comparisons", bounds=(-1.0, 1.0)),
    }


def read(folder: Path) -> SuiteData:
    """The validation part of OASST's messages or trees; of files that name no split, one prompt in five."""
    loaded = load_comparisons(folder, split="validation")
    report = loaded.report  # its rows are messages: what an item can come from is a candidate
    return SuiteData(tuple(map(as_item, loaded.comparisons)), report.candidates, dict(report.dropped))


OPEN_ASSISTANT = Suite(
    name="open-assistant",
    title="Open Assistant, ranked replies",
    hub="OpenAssistant/oasst1",
    layout=("data/validation-*.parquet", "validation.messages.jsonl*"),
    read=read,
    measure=measure,
    source="Köpf et al., arXiv 2304.07327; the first implementation's reward trainer",
    ties="half",
)
