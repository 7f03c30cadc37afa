"""From a run to the sections of its report, a module for each: tables, charts and sentences as plain values.

A section that the run has nothing for is None, and the page says so at its end. Nothing is computed here that the run
does not hold, but for the counts behind the two charts of single pairs, which come from the stored scores.
"""

from collections.abc import Callable, Mapping

from prefrank.evaluation.results import Run
from prefrank.reports.blocks import Section
from prefrank.reports.sections import (
    accuracies,
    contaminated,
    coverage,
    curves,
    differences,
    hacks,
    input_formats,
    length_and_style,
    matrices,
    own_figures,
    reliability,
    score_histograms,
    worst_errors,
    worst_slices,
)

SECTIONS: Mapping[str, Callable[[Run], Section | None]] = {
    "accuracy": accuracies.section,
    "own figures": own_figures.section,
    "matrices": matrices.section,
    "curves": curves.section,
    "calibration": reliability.section,
    "abstention": coverage.section,
    "scores": score_histograms.section,
    "style": length_and_style.section,
    "slices": worst_slices.section,
    "probes": hacks.section,
    "contamination": contaminated.section,
    "audit": input_formats.section,
    "comparison": differences.section,
    "errors": worst_errors.section,
}
"""In the page's order, after what was run; by what is missing where the run has nothing for it."""
