"""Histograms of preferred and other replies' scores."""

import numpy as np

from prefrank.evaluation.results import Run
from prefrank.palette import COLORS
from prefrank.reports import charts
from prefrank.reports.blocks import Picture, Section, Words
from prefrank.reports.decided import decided_pairs
from prefrank.reports.drawn import pictures_by_model
from prefrank.reports.entries import Entry, title_for
from prefrank.reports.numbers import digits


def section(run: Run) -> Section | None:
    pictures = pictures_by_model(run, _picture)
    words = Words("Every decided pair's two scores. Scores of different models are not on one scale.")
    return Section("scores", "Scores of preferred and other replies", (words, *pictures)) if pictures else None


def _picture(run: Run, suite: str, entry: Entry) -> Picture | None:
    pairs = decided_pairs(run.suites[suite], entry.result)
    count = len(pairs.preferred)
    preferred, other = (side[np.isfinite(side)] for side in (pairs.preferred, pairs.other))
    if not len(preferred) or not len(other):
        return None
    failed = 2 * count - len(preferred) - len(other)
    title = title_for(run, suite, entry.scorer)
    medians = f"Median {digits(float(np.median(preferred)))} preferred, {digits(float(np.median(other)))} other"
    note = f"{medians}; {count:,} pairs" + (f", {failed:,} failed scores left out." if failed else ".")
    key = ((_swatch(COLORS[0]), "preferred"), (_swatch(COLORS[1]), "other"))
    return Picture(title, charts.histogram_svg(preferred, other, label=f"Scores, {title}. {note}"), note, key)


def _swatch(color: str) -> str:
    return f'<svg aria-hidden="true" width="14" height="14"><rect width="14" height="14" rx="3" fill="{color}"/></svg>'
