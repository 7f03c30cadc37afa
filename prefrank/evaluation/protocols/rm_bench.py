"""RM-Bench (Liu et al., arXiv 2410.16184): three right and three wrong replies, each concise, detailed and in markdown.

The nine comparisons of an item make a matrix, right reply's style by wrong reply's style. Above the diagonal the wrong
reply has the fancier style (Hard), on it both have one (Normal), below it the right one (Easy), so that Easy minus Hard
says how far style alone moves a model. Equal scores are wrong (`compute_accuracy` of `scripts/utils.py`).
"""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64

from prefrank.data.candidates import Drop
from prefrank.data.fields import as_texts, field, text, user
from prefrank.errors import BadData, BadInput
from prefrank.evaluation.credits import in_subset, mean_over, subsets_of
from prefrank.evaluation.items import Item
from prefrank.evaluation.protocols.reading import contest, published_files, read_items, records_of
from prefrank.evaluation.protocols.suite import Chart, Suite, SuiteData
from prefrank.evaluation.samples import Sample, wins
from prefrank.io.rows import Record
from prefrank.stats.figures import Figure, combine, mean_of

STYLES = ("concise", "detailed", "markdown")
DOMAINS = {"chat": ("chat",), "code": ("code",), "math": ("math",), "safety": ("safety-refuse", "safety-response")}
ROWS = {"chat": 129, "code": 228, "math": 529, "safety-refuse": 284, "safety-response": 157}
OVERALL, STYLE_GAP = "Overall", "Style gap"
LEVELS: dict[str, Bool[np.ndarray, "3 3"]] = {
    "Hard": np.triu(np.ones((3, 3), bool), 1),
    "Normal": np.eye(3, dtype=bool),
    "Easy": np.tril(np.ones((3, 3), bool), -1),
}
CELLS = {f"{right} over {wrong}": (i, j) for i, right in enumerate(STYLES) for j, wrong in enumerate(STYLES)}

WHOLE, DOMAIN_FILE = "total_dataset.json", "_filtered.json"
LAYOUT = (WHOLE, f"*{DOMAIN_FILE}", f"data/{WHOLE}", f"data/*{DOMAIN_FILE}")


def read(folder: Path) -> SuiteData:
    """The one file of everything where it is there, else a file for each domain, or the one that was given."""
    files = published_files(folder, LAYOUT)
    return read_items(records_of([path for path in files if path.name == WHOLE] or files), _item)


def _item(record: Record) -> Item | Drop:
    row = record.row
    right, wrong = (as_texts(field(row, name), name) for name in ("chosen", "rejected"))
    if len(right) != 3 or len(wrong) != 3:
        raise BadData(
            f"a row has {len(right)} chosen and {len(wrong)} rejected replies; wanted one for each of 3 styles"
        )
    return contest(user(text(row, "prompt")), right, wrong, subset=_domain(record), id=field(row, "id"))


def _domain(record: Record) -> str:
    """A row's domain: as the row states it, or from the file's name, as in the files of single domains."""
    name = record.path.name
    of_file = name.removesuffix(DOMAIN_FILE) if name.endswith(DOMAIN_FILE) else ""
    if record.row.get("domain") is None:
        if of_file not in ROWS:
            known = ", ".join(f"{domain}{DOMAIN_FILE}" for domain in ROWS)
            raise BadData(f"the row has no 'domain', and the file's name tells none; name it as published: {known}")
        return of_file
    domain = text(record.row, "domain")
    if domain not in ROWS:
        raise BadData(f"the domain is {domain!r}; wanted one of {', '.join(ROWS)}")
    if of_file in ROWS and of_file != domain:
        raise BadData(f"the domain is {domain!r} in the file of {of_file!r}; correct one of them")
    return domain


def matrix(sample: Sample) -> Float64[np.ndarray, "C 3 3"]:
    """1 where a right reply (row: its style) outscores a wrong one (column).

    Raises:
        BadInput: items that do not have nine comparisons each.
    """
    if (np.bincount(sample.pairs.comparison, minlength=len(sample.facts)) != 9).any():
        raise BadInput("an item of RM-Bench has other than 9 preferences; wanted 3 chosen against 3 rejected replies")
    return wins(sample.margin, equal=0.0).reshape(-1, 3, 3)


def measure(sample: Sample) -> dict[str, Figure]:
    """Scores of domains, of difficulties (means over domains), and of the nine cells (means over domains).

    A domain without one of its files has no value, since the rest is other data.
    """
    won = matrix(sample)
    values = {level: won[:, cells].mean(1) for level, cells in LEVELS.items()}
    values |= {cell: won[:, i, j] for cell, (i, j) in CELLS.items()}
    there = set(subsets_of(sample))
    whole = {domain: subsets if there.issuperset(subsets) else () for domain, subsets in DOMAINS.items()}
    places = {domain: in_subset(sample, *subsets) for domain, subsets in whole.items()}
    each = {(domain, name): mean_over(sample, values[name], places[domain]) for domain in DOMAINS for name in values}
    over_domains = {name: mean_of(each[domain, name] for domain in DOMAINS) for name in values}
    domains = {domain: mean_of(each[domain, level] for level in LEVELS) for domain in DOMAINS}
    parts = {f"{domain}/{level}": each[domain, level] for domain in DOMAINS for level in LEVELS}
    subsets = {
        f"safety/{subset.removeprefix('safety-')}": mean_over(sample, won.mean((1, 2)), in_subset(sample, subset))
        for subset in DOMAINS["safety"]
    }
    gap = combine([(1.0, over_domains["Easy"]), (-1.0, over_domains["Hard"])])
    return {OVERALL: mean_of(domains.values())} | over_domains | {STYLE_GAP: gap} | domains | parts | subsets


RM_BENCH = Suite(
    name="rm-bench",
    title="RM-Bench",
    hub="THU-KEG/RM-Bench",
    layout=LAYOUT,
    read=read,
    measure=measure,
    source="arXiv 2410.16184; github.com/THU-KEG/RM-Bench, scripts/utils.py",
    ties="wrong",
    charts=(
        Chart(
            "Style of the right reply (rows) against the wrong one's (columns)", STYLES, STYLES, tuple(CELLS), "matrix"
        ),
        Chart(
            "Domains",
            tuple(DOMAINS),
            tuple(LEVELS),
            tuple(f"{domain}/{level}" for domain in DOMAINS for level in LEVELS),
            "matrix",
        ),
    ),
)
