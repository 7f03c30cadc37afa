"""The published protocols by name, and their data from a local folder or the hub.

A folder is always enough: nothing is fetched where one is given, and where the hub cannot be reached, or has no copy,
the message says which files to put where.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from prefrank.errors import NotFound, suggest
from prefrank.evaluation.items import Facts
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

# How many rows each subset was published with, where that is known.
ROWS: Mapping[str, Mapping[str, int]] = {
    "rewardbench": rewardbench.ROWS,
    "rewardbench-2": rewardbench.ROWS_V2,
    "rm-bench": rm_bench.ROWS,
    "judgebench": judged.JUDGEBENCH_ROWS,
    "llmbar": judged.LLMBAR_ROWS,
    "hhh": judged.HHH_ROWS,
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
        where: a folder with the published files; None fetches them from the hub, or takes those of the package.

    Raises:
        NotFound: no such suite or folder, none of its files there, or nothing to fetch.
        BadData: a file or row that cannot be read.
    """
    suite = find_suite(name)
    return suite.read(_download(suite) if where is None else _folder(suite, Path(where)))


def missing_rows(name: str, facts: Sequence[Facts]) -> dict[str, tuple[int, int]]:
    """Subsets with fewer items than were published, as (items here, rows published): rows left out, files not there.

    Empty where the suite is whole, or where the published counts are not known.
    """
    here = Counter(one.subset for one in facts)
    return {
        subset: (here[subset], published)
        for subset, published in ROWS.get(name, {}).items()
        if here[subset] < published
    }


def _folder(suite: Suite, folder: Path) -> Path:
    if folder.is_dir():
        return folder
    raise NotFound(f"{folder} is no folder; wanted one with the files of {suite.title}: {_files(suite)}")


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
