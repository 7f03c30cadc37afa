"""Stage 1, files and hub folders to comparisons: `load_comparisons`, its report, and `describe`. Imports no torch."""

from prefrank.data.catalogue import SOURCES
from prefrank.data.describe import Description, describe
from prefrank.data.load import load_comparisons, load_splits, published_validation_rows, split_of
from prefrank.data.report import Loaded, Report, merge_reports
from prefrank.data.sources import parse_source

__all__ = [
    "SOURCES",
    "Description",
    "Loaded",
    "Report",
    "describe",
    "load_comparisons",
    "load_splits",
    "merge_reports",
    "parse_source",
    "published_validation_rows",
    "split_of",
]
