"""The pairs a model got most wrong, to read."""

from prefrank.evaluation.results import Run, WorstError
from prefrank.reports.blocks import Block, Case, Cases, Fold, Section, Words
from prefrank.reports.entries import models, title_for
from prefrank.reports.numbers import digits

SHOWN, TEXT_SHOWN = 8, 1200


def section(run: Run) -> Section | None:
    blocks: list[Block] = []
    for suite in run.suites:
        for _, scorer, result in models(run, suite):
            if result.errors:
                cases = tuple(map(_case, result.errors[:SHOWN]))
                title = f"{title_for(run, suite, scorer)}: the worst {len(cases)} of {len(result.errors)} kept"
                blocks.append(Fold(title, (Cases(cases),)))
    words = Words("Where the margin is furthest below 0. Texts are cut. Read them: labels are wrong at times, too.")
    return Section("errors", "Worst errors to read", (words, *blocks)) if blocks else None


def _case(error: WorstError) -> Case:
    preferred, other = (digits(score) if score is not None else "failed" for score in error.scores)
    margin = "a score failed" if error.margin is None else f"margin {digits(error.margin)}"
    title = f"{error.subset} · {error.id} · {margin}"
    return Case(title, _cut(error.prompt), _cut(error.preferred), _cut(error.other), preferred, other)


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_SHOWN else text[:TEXT_SHOWN] + " …"
