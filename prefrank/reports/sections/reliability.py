"""Calibration: reliability before and after a temperature, and the figures of both."""

from collections.abc import Sequence

from prefrank.evaluation.calibration import Bin, Reliability
from prefrank.evaluation.results import Run
from prefrank.reports import charts
from prefrank.reports.blocks import Cell, Picture, Section, Words, figure_cell, name_cell, per_scorer
from prefrank.reports.charts import Line, Mark
from prefrank.reports.drawn import legend_of, pictures_by_model
from prefrank.reports.entries import Entry, models, title_for, title_of
from prefrank.reports.numbers import digits


def section(run: Run) -> Section | None:
    rows = []
    for suite in run.suites:
        for _, scorer, result in models(run, suite):
            calibration, title = result.calibration, title_of(run, suite)
            rows.append((scorer.name, _row(title, "as it is", calibration.raw)))
            if calibration.scaled:
                rows.append((scorer.name, _row(title, f"T = {digits(calibration.temperature)}", calibration.scaled)))
    if not rows:
        return None
    words = Words(
        "A margin of d says that the preferred reply wins with probability 1 / (1 + exp(−d / T)). Of pairs called with"
        " confidence 0.8, a share of 0.8 should be right. T = 1 is the model as it is; the scaled figures use a"
        " temperature that was fitted on other prompts. Each point holds as many pairs as the next."
    )
    head = ("Suite", "Pairs", "ECE", "ECE, equal mass", "Largest gap", "Log loss", "Brier", "AUROC of confidence")
    tables = per_scorer("Calibration", head, rows, tight=True)
    return Section("calibration", "Calibration", (words, *pictures_by_model(run, _picture), *tables))


def _row(suite: str, temperature: str, reliability: Reliability) -> tuple[Cell, ...]:
    estimates = (
        reliability.ece,
        reliability.ece_equal_mass,
        reliability.mce,
        reliability.log_loss,
        reliability.brier,
        reliability.auroc,
    )
    return (name_cell(suite, temperature), Cell(f"{reliability.n:,}"), *map(figure_cell, estimates))


def _picture(run: Run, suite: str, entry: Entry) -> Picture | None:
    calibration = entry.result.calibration
    raw, scaled = calibration.raw, calibration.scaled
    if not raw.bins_equal_mass:
        return None
    lines = [_line("as it is", raw.bins_equal_mass, 1)]
    lines += [_line(f"T = {digits(calibration.temperature, 2)}", scaled.bins_equal_mass, 0)] if scaled else []
    title = title_for(run, suite, entry.scorer)
    change = f" → {digits(scaled.ece.value)}" if scaled else ", not scaled"
    fitted = f" T: {calibration.fitted_on}." if scaled and calibration.fitted_on else ""
    reason = f" {calibration.note}" if calibration.note else ""
    note = f"Expected calibration error {digits(raw.ece.value)}{change}.{fitted}{reason}"
    return Picture(
        title, charts.reliability_svg(lines, label=f"Reliability of {title}. {note}"), note, legend_of(lines)
    )


def _line(name: str, bins: Sequence[Bin], series: int) -> Line:
    marks = tuple(Mark(each.accuracy, each.low, each.high, series) for each in bins)
    return Line(name, tuple(each.confidence for each in bins), marks, series)
