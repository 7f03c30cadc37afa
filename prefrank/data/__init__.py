"""Stage 1, files and hub folders to comparisons: `load_comparisons`, its report, and `describe`. Imports no torch.

A row's way: `sources` finds its file, `cells` and `prefrank.io.columns` give it the names and values that readers know,
`formats` (one table) picks its reader by its columns, the reader (a function for each layout, in the module of its
kind) makes a `candidates.Candidate` of it, and `load`, or `stream` one at a time, settles, counts and keeps that.
"""

from prefrank.data.catalogue import SOURCES
from prefrank.data.describe import Description, describe
from prefrank.data.load import load_comparisons, load_splits, published_validation_rows, split_of
from prefrank.data.report import Loaded, ReadingReport, merge_reports
from prefrank.data.sources import parse_source

__all__ = [
    "SOURCES",
    "Description",
    "Loaded",
    "ReadingReport",
    "describe",
    "load_comparisons",
    "load_splits",
    "merge_reports",
    "parse_source",
    "published_validation_rows",
    "split_of",
]
