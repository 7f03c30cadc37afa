"""The published protocols by name, and their data from a local folder or the hub.

A folder is always enough: nothing is fetched where one is given, and where the hub cannot be reached, or has no copy,
the message says which files to put where.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from prefrank.errors import BadInput, NotFound, suggest
from prefrank.evaluation.items import ItemFacts
from prefrank.evaluation.protocols import best_of_n, judged, open_assistant, probes, rewardbench, rm_bench, rmb, votes
from prefrank.evaluation.protocols.suite import Suite, SuiteData

SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        rewardbench.REWARDBENCH,
        rewardbench.REWARDBENCH_2,
        rm_bench.RM_BENCH,
        rmb.RMB,
        judged.JUDGEBENCH,
        judged.LLMBAR,
        judged.HHH,
        best_of_n.BEST_OF_N,
        best_of_n.OWN_BEST_OF_N,
        votes.LLMFAO,
        votes.PANDALM,
        votes.TULU1_HUMAN,
        votes.LFQA_EXPERTS,
        open_assistant.OPEN_ASSISTANT,
        probes.PROBES,
    )
}

# How many rows each subset was published with; None where only that it was published is known.
ROWS: Mapping[str, Mapping[str, int | None]] = {
    "rewardbench": rewardbench.ROWS,
    "rewardbench-2": rewardbench.ROWS_V2,
    "rm-bench": rm_bench.ROWS,
    "judgebench": judged.JUDGEBENCH_ROWS,
    "llmbar": judged.LLMBAR_ROWS,
    "hhh": judged.HHH_ROWS,
    "rmb": rmb.ROWS,
    "bon-alpacaeval": best_of_n.ROWS,
}


def find_suite(name: str) -> Suite:
    """The suite of that name.

    Raises:
        NotFound: there is none.
    """
    if name not in SUITES:
        raise NotFound(f"no suite is called {name!r}{suggest(name, SUITES)}")
    return SUITES[name]


def load_suite(name: str, where: str | Path | None = None) -> SuiteData:
    """A suite's items.

    Args:
        name: as in `SUITES`.
        where: a folder with the published files, or one of them; None fetches them from the hub, or takes those of the
            package.

    Raises:
        NotFound: no such suite, folder or file, none of its files there, or nothing to fetch.
        BadInput: an empty string for a place, or a place for a suite whose data come with prefrank.
        BadData: a file or row that cannot be read.
    """
    suite = find_suite(name)
    if where == "":
        raise BadInput(f"the folder of the suite {name} is an empty string; name one, or leave it out")
    if where is not None and not suite.layout:
        raise BadInput(f"the suite {name} comes with prefrank and is not read from {where}; leave the folder out")
    return suite.read(_download(suite) if where is None else _place(suite, Path(os.path.expanduser(where))))


def missing_rows(name: str, facts: Sequence[ItemFacts]) -> dict[str, tuple[int, int | None]]:
    """Subsets with fewer items than were published, as (items here, rows published): rows left out, files not there.

    Where a subset's published count is not known (None), it is missing when it has no item at all. Empty where the
    suite is whole, or where nothing of what was published is known.
    """
    here = Counter(item.subset for item in facts)
    return {
        subset: (here[subset], published)
        for subset, published in ROWS.get(name, {}).items()
        if here[subset] < (1 if published is None else published)
    }


def missing_in_words(missing: Mapping[str, Sequence[int | None]]) -> list[str]:
    """Sentences for what `missing_rows` found: subsets that are not there at all together, then those in part.

    >>> missing_in_words({"Natural": (0, 100), "Manual": (0, 46), "GPTOut": (40, 47)})
    ['2 subsets are missing: Natural, Manual', 'GPTOut: 40 of the 47 published rows']
    """
    gone = [subset for subset, (here, _) in missing.items() if not here]
    shown = ", ".join(gone[:NAMED]) + (f" and {len(gone) - NAMED} more" if len(gone) > NAMED else "")
    whole = [f"{len(gone)} subset{'s are' if len(gone) > 1 else ' is'} missing: {shown}"] if gone else []
    return whole + [
        f"{subset}: {here:,} of the {published:,} published rows"
        for subset, (here, published) in missing.items()
        if here and published is not None
    ]


NAMED = 5
"""Subsets that a sentence names, of those that are missing."""


def _place(suite: Suite, place: Path) -> Path:
    if os.path.exists(place):
        return place
    raise NotFound(f"there is no {place}; wanted a folder with the files of {suite.title}, or one: {_files(suite)}")


def _files(suite: Suite) -> str:
    return ", ".join(suite.layout) or "none"


def _download(suite: Suite) -> Path:
    if not suite.layout:
        return Path()  # its data are part of the package
    advice = f"put its files ({_files(suite)}) in a folder, and give that folder"
    if not suite.hub:
        raise NotFound(f"{suite.title} is not on the hub, see {suite.source}; {advice}")
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(
                suite.hub, repo_type="dataset", revision=suite.revision, allow_patterns=list(suite.layout)
            )
        )
    except Exception as error:  # the hub's client lets through the errors of its HTTP library, which varies by version
        why = " ".join(str(error).split())[:160]
        raise NotFound(f"cannot fetch {suite.hub} from the hub ({why}); {advice}") from None
