"""The metadata on top of a card, which the hub reads: license, languages, base, data, figures as its `model-index`."""

import re

from huggingface_hub import EvalResult, ModelCardData

from prefrank.evaluation.protocols import SUITES
from prefrank.reports.card.subject import Measured, Subject
from prefrank.reports.card.terms import hub_name, is_hub_id
from prefrank.reports.markdown import bare
from prefrank.reports.numbers import stated
from prefrank.stats.estimates import Estimate


def hub_metadata(subject: Subject) -> str:
    """YAML, without the lines around it."""
    base = subject.base if subject.base and is_hub_id(subject.base) else None
    data = [name for source in subject.sources if (name := hub_name(source))]
    return ModelCardData(
        language=list(subject.languages),
        license=subject.facts["license"],
        base_model=base,
        datasets=list(dict.fromkeys(data)) or None,
        tags=["reward-model", "human-feedback", "preference", "prefrank"],
        pipeline_tag="text-classification",
        library_name="transformers",
        metrics=["accuracy"],
        model_name=subject.name,
        eval_results=[result for measured in subject.measured.values() for result in _eval_results(measured)] or None,
    ).to_yaml(line_break="\n")


def _eval_results(measured: Measured) -> list[EvalResult]:
    """Accuracy and, where it is another figure, the headline."""
    figures = {"accuracy": ("Accuracy", measured.result.overall.accuracy)}
    headline = measured.result.headline
    if headline.lower() != "accuracy":
        figures[re.sub(r"\W+", "_", headline).strip("_").lower()] = (headline, measured.headline)
    return [
        _eval_result(measured, kind, title, estimate, estimate.value)
        for kind, (title, estimate) in figures.items()
        if estimate.value is not None
    ]


def _eval_result(measured: Measured, kind: str, title: str, estimate: Estimate, value: float) -> EvalResult:
    bounds = ""
    if estimate.low is not None:
        confidence = f"{measured.run.intervals.confidence:.0%} interval"
        bounds = f"{confidence} {stated(estimate.low)} to {stated(estimate.high)}, "
    return EvalResult(
        task_type="text-classification",
        task_name="Reward modeling",
        dataset_type=_dataset(measured.name),
        dataset_name=bare(measured.suite.title),
        dataset_config=bare(measured.name),
        dataset_args={"sha256": measured.suite.data},
        metric_type=kind,
        metric_name=f"{title} ({bounds}n = {estimate.n} {estimate.unit})",
        metric_value=round(value, 4),
        metric_args={
            "low": estimate.low,
            "high": estimate.high,
            "n": estimate.n,
            "unit": estimate.unit,
            "prompts": estimate.prompts,
        },
    )


def _dataset(suite: str) -> str:
    """Where a suite's data are on the hub; its own name where they are not there."""
    published = SUITES[suite].hub if suite in SUITES else hub_name(suite.rpartition(":")[0] or suite)
    return published or bare(suite)
