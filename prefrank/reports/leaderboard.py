"""Run files of a folder as a leaderboard: models by a suite's headline, and which of them cannot be told apart.

Figures are comparable only on the same items, so there is one board for each suite and sha256 of its items. The groups
come from paired tests on the items and scores in the files; whether intervals overlap is no test. A file that cannot be
used is named with its reason, and so is a figure that does not follow from its own file's scores. A model that was
measured twice on the same items is listed once, from its newest file.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefrank.errors import NotFound, PrefrankError, suggest
from prefrank.evaluation.comparing import groups
from prefrank.evaluation.metrics import metric_figures
from prefrank.evaluation.protocols import SUITES
from prefrank.evaluation.results import Run, ScorerRecord, SuiteResult, sample_of_run
from prefrank.evaluation.run_file import read_run
from prefrank.evaluation.samples import Sample
from prefrank.io.schema import plain
from prefrank.reports.numbers import three_places
from prefrank.stats.bootstrap import Bootstrap
from prefrank.stats.estimates import Estimate
from prefrank.stats.figures import Figure, sums_of

_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Place:
    """One scorer's row.

    Args:
        rank: 1 is best, equal values share a rank; None without a value.
        name: as in its run; with a part of the fingerprint where two share a name.
        kind: model, transformers, http, python, file or baseline.
        model: fingerprint.
        estimate: of the board's figure, as in the file.
        group: letters; two scorers that share one cannot be told apart. "" where there is no value or no test.
        file: it is from.
        created: when the run was made.
        older: further results of the same model on the same items that are not shown.
    """

    rank: int | None
    name: str
    kind: str
    model: str
    estimate: Estimate
    group: str
    file: str
    created: str
    older: int


@dataclass(frozen=True, slots=True)
class Board:
    """The scorers that were measured on the same items.

    Args:
        suite: its name.
        title: as in tables.
        figure: the headline.
        data: sha256 of the items.
        items: how many.
        source: the protocol.
        ties: how equal scores count in it.
        places: best first, those without a value last.
    """

    suite: str
    title: str
    figure: str
    data: str
    items: int
    source: str
    ties: str
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Boards of the chosen suite first, the one with most scorers first.

    Args:
        suite: the chosen one.
        boards: one for each suite and data.
        notes: what deserves a second look, as sentences.
        broken: file -> why it could not be used.
        bootstrap: how the paired tests were made.
    """

    suite: str
    boards: tuple[Board, ...]
    notes: tuple[str, ...]
    broken: Mapping[str, str]
    bootstrap: Bootstrap

    def to_json(self) -> dict[str, Any]:
        return plain(self)


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    """A scorer on a suite, in a file; the sample's items in an order that follows from their names."""

    file: str
    run: Run
    suite: str
    scorer: ScorerRecord
    sample: Sample

    @property
    def result(self) -> SuiteResult:
        return self.scorer.results[self.suite]

    @property
    def board(self) -> tuple[str, str, str]:
        """What must be equal for figures to compare."""
        return self.suite, self.run.suites[self.suite].data, self.result.headline


def leaderboard(folder: Path, *, suite: str | None = None, bootstrap: Bootstrap | None = None) -> Leaderboard:
    """The run files in a folder (*.json and *.json.gz) as boards.

    Args:
        suite: the one that comes first; by default the one that most scorers were measured on.
        bootstrap: how the paired tests are made.

    Raises:
        NotFound: no folder, no usable run file in it, or none of that suite.
    """
    bootstrap = bootstrap or Bootstrap()
    entries, broken = _read(folder)
    scorers = Counter(entry.suite for entry in entries)
    if not entries:
        why = "; ".join(f"{name}: {reason}" for name, reason in broken.items()) or "it holds no .json or .json.gz file"
        raise NotFound(f"there is no run file in {folder} ({why}); make some with prefrank evaluate --json FILE")
    if suite is not None and suite not in scorers:
        raise NotFound(f"no run file in {folder} is of the suite {suite!r}{suggest(suite, scorers)}")
    chosen = suite or scorers.most_common(1)[0][0]
    by_board: dict[tuple[str, str, str], list[_Entry]] = defaultdict(list)
    for entry in entries:
        by_board[entry.board].append(entry)
    order = sorted(by_board, key=lambda key: (key[0] != chosen, -scorers[key[0]], key[0], -len(by_board[key])))
    made = [_board(by_board[key], bootstrap) for key in order]
    boards = tuple(board for board, _ in made)
    notes = (*_several_boards(boards), *(note for _, of_board in made for note in of_board))
    return Leaderboard(chosen, boards, notes, broken, bootstrap)


def run_files(folder: Path) -> list[Path]:
    """The files that a leaderboard of this folder is made of.

    Raises:
        NotFound: there is no such folder.
    """
    if not folder.is_dir():
        raise NotFound(f"there is no folder {folder}; give the one that holds the run files")
    return sorted(path for path in folder.iterdir() if path.name.endswith((".json", ".json.gz")))


def _read(folder: Path) -> tuple[list[_Entry], dict[str, str]]:
    """Every scorer on every suite, and the files that cannot be used."""
    entries: list[_Entry] = []
    broken: dict[str, str] = {}
    for path in run_files(folder):
        try:
            run = read_run(path)
        except PrefrankError as error:
            broken[path.name] = " ".join(str(error).replace(f"{path} ", "", 1).split())
            continue
        if not any(scorer.results for scorer in run.scorers):
            broken[path.name] = "holds no results"
        entries += [_entry(path.name, run, suite, scorer) for scorer in run.scorers for suite in scorer.results]
    return entries, broken


def _entry(file: str, run: Run, suite: str, scorer: ScorerRecord) -> _Entry:
    sample = sample_of_run(run, scorer.name, suite)
    facts = sample.facts
    # Files may hold the same items in any order; tests need them in one.
    in_order = sorted(range(len(facts)), key=lambda place: (facts[place].subset, facts[place].id))
    return _Entry(file, run, suite, scorer, sample.take(in_order))


def _board(entries: Sequence[_Entry], bootstrap: Bootstrap) -> tuple[Board, list[str]]:
    shown, older = _newest(entries)
    named = dict(zip(_names(shown), shown, strict=True))
    letters, notes = _tested(named, bootstrap)
    values = [entry.result.value.value for entry in shown]
    places = [
        Place(
            rank=None if value is None else 1 + sum(other is not None and other > value for other in values),
            name=name,
            kind=entry.scorer.kind,
            model=entry.scorer.model,
            estimate=entry.result.value,
            group=letters.get(name, ""),
            file=entry.file,
            created=entry.run.created,
            older=count,
        )
        for (name, entry), count, value in zip(named.items(), older, values, strict=True)
    ]
    places.sort(key=lambda place: (place.rank is None, place.rank or 0, place.name))
    first = shown[0]
    suite = first.run.suites[first.suite]
    board = Board(
        suite=first.suite,
        title=suite.title,
        figure=first.result.headline,
        data=suite.data,
        items=len(suite.items),
        source=suite.source,
        ties=suite.ties,
        places=tuple(places),
    )
    return board, notes


def _tested(entries: Mapping[str, _Entry], bootstrap: Bootstrap) -> tuple[Mapping[str, str], list[str]]:
    """The groups of a board's scorers, and sentences on what could not be tested or does not add up."""
    first = next(iter(entries.values()))
    notes: list[str] = []
    figures: dict[str, Figure] = {}
    for name, entry in entries.items():
        figure = _figure(entry)
        if figure is None:
            return {}, [
                f"This prefrank has no figure {entry.result.headline!r} for {entry.suite}, so the scorers could not be"
                " tested against each other"
            ]
        if entry.sample.facts != first.sample.facts:
            notes.append(
                f"{entry.file} has other items of {entry.suite} than {first.file}, though both give the same sha256:"
                f" {name} was not tested"
            )
            continue
        notes += _unequal(name, entry, figure)
        figures[name] = figure
    return groups(figures, bootstrap, strata=first.sample.prompt_strata).letters, notes


def _newest(entries: Sequence[_Entry]) -> tuple[list[_Entry], list[int]]:
    """The newest entry of each model, and how many older ones each has."""
    by_model: dict[tuple[str, str], list[_Entry]] = defaultdict(list)
    for entry in sorted(entries, key=lambda entry: entry.run.created, reverse=True):
        by_model[entry.scorer.kind, entry.scorer.model].append(entry)
    return [of_model[0] for of_model in by_model.values()], [len(of_model) - 1 for of_model in by_model.values()]


def _names(entries: Sequence[_Entry]) -> list[str]:
    """Names as in the files; if two are equal, with part of the fingerprint, and a number if that is equal too."""
    names = _told_apart([entry.scorer.name for entry in entries], [entry.scorer.model[:8] for entry in entries])
    return _told_apart(names, [str(number + 1) for number in range(len(names))])


def _told_apart(names: Sequence[str], marks: Sequence[str]) -> list[str]:
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name} ({mark})" for name, mark in zip(names, marks, strict=True)]


def _figure(entry: _Entry) -> Figure | None:
    """The board's figure, computed again from the scores; None where this prefrank does not know it."""
    known = SUITES.get(entry.suite)
    figures = known.measure(entry.sample) if known else metric_figures(entry.sample)
    return figures.get(entry.result.headline)


def _unequal(name: str, entry: _Entry, figure: Figure) -> list[str]:
    """A sentence where the stored figure is not what the stored scores give."""
    sums = sums_of(figure)
    stored, made = entry.result.value.value, None if sums is None else sums.value
    same = stored == made if stored is None or made is None else abs(stored - made) <= _ROUNDING
    return [] if same else [
        f"{entry.file} gives {name} {three_places(stored)} on {entry.suite}, but its scores make {three_places(made)}:"
        " it was changed, or written by another version; evaluate again"
    ]  # fmt: skip


def _several_boards(boards: Sequence[Board]) -> list[str]:
    """A sentence for each suite of which there are several boards."""
    notes = []
    for suite in dict.fromkeys(board.suite for board in boards):
        of_suite = [board for board in boards if board.suite == suite]
        if len(of_suite) > 1:
            listed = ", ".join(
                f"{board.data[:8]} ({board.items:,} items, {len(board.places)} scorers)" for board in of_suite
            )
            notes.append(
                f"{of_suite[0].title} was measured on different items or by different figures, which do not compare,"
                f" so its boards stand apart: {listed}"
            )
    return notes
