"""Run files of a folder as a leaderboard: models by a suite's headline, and which of them cannot be told apart.

Figures compare only where the items are the same, so there is one board for each suite and sha256 of its items. The
groups are made anew from the items and scores in the files, by paired tests; intervals that overlap say nothing exact.
Surprising: a file that cannot be used is named with its reason, a figure that does not follow from its own file's
scores too, and a model that was measured twice on the same items stands there once, by its newest file.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from prefrank.errors import NotFound, PrefrankError, suggest
from prefrank.evaluation.comparing import groups
from prefrank.evaluation.items import Sample
from prefrank.evaluation.metrics import metric_figures
from prefrank.evaluation.pages.report import write_page
from prefrank.evaluation.protocols import SUITES
from prefrank.evaluation.run_file import Run, read_run, sample_of_run
from prefrank.io.names import short_names
from prefrank.stats.bootstrap import Bootstrap
from prefrank.stats.estimates import Estimate
from prefrank.stats.figures import Figure, sums_of

_UNREADABLE = (PrefrankError, KeyError, IndexError, TypeError, ValueError, AttributeError)
"""What reading a file can raise whose parts are not what they should be."""
_ABOUT = ("title", "data", "source", "ties")
"""Of a suite in a run file, what a board shows."""
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
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    """A scorer on a suite, in a file; the sample's items in an order that follows from their names."""

    file: str
    run: Run
    suite: str
    scorer: Mapping[str, Any]
    sample: Sample

    @property
    def result(self) -> Mapping[str, Any]:
        return self.scorer["results"][self.suite]

    @property
    def board(self) -> tuple[str, str, str]:
        """What must be equal for figures to compare."""
        return self.suite, self.run["suites"][self.suite]["data"], self.result["headline"]

    @property
    def estimate(self) -> Estimate:
        return Estimate(**self.result["figures"][self.result["headline"]])


def leaderboard(folder: Path, *, suite: str | None = None, bootstrap: Bootstrap | None = None) -> Leaderboard:
    """The run files in a folder (*.json and *.json.gz) as boards.

    Args:
        suite: the one that comes first; by default the one that most scorers were measured on.
        bootstrap: how the paired tests are made.

    Raises:
        NotFound: no folder, no usable run file in it, or none of that suite.
    """
    style = bootstrap or Bootstrap()
    entries, broken = _read(folder)
    scorers = Counter(one.suite for one in entries)
    if not entries:
        why = "; ".join(f"{name}: {reason}" for name, reason in broken.items()) or "it holds no .json or .json.gz file"
        raise NotFound(f"there is no run file in {folder} ({why}); make some with prefrank evaluate --json FILE")
    if suite is not None and suite not in scorers:
        raise NotFound(f"no run file in {folder} is of the suite {suite!r}{suggest(suite, scorers)}")
    chosen = suite or scorers.most_common(1)[0][0]
    by_board: dict[tuple[str, str, str], list[_Entry]] = defaultdict(list)
    for one in entries:
        by_board[one.board].append(one)
    order = sorted(by_board, key=lambda key: (key[0] != chosen, -scorers[key[0]], key[0], -len(by_board[key])))
    made = [_board(by_board[key], style) for key in order]
    boards = tuple(board for board, _ in made)
    notes = (*_apart(boards), *(note for _, found in made for note in found))
    return Leaderboard(chosen, boards, notes, broken, style)


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
            entries += [_entry(path.name, run, suite, one) for one in run["scorers"] for suite in one["results"]]
        except _UNREADABLE as error:
            known = isinstance(error, PrefrankError)
            reason = str(error).replace(f"{path} ", "", 1) if known else f"a part is missing or wrong ({error!r})"
            broken[path.name] = " ".join(reason.split())
    return entries, broken


def _entry(file: str, run: Run, suite: str, scorer: Mapping[str, Any]) -> _Entry:
    sample = sample_of_run(run, scorer["name"], suite)
    facts = sample.facts
    # Files may hold the same items in any order; tests need them in one.
    sample = sample.take(sorted(range(len(facts)), key=lambda place: (facts[place].subset, facts[place].id)))
    entry, about = _Entry(file, run, suite, scorer, sample), run["suites"][suite]
    # Touch everything a board reads, so that what is missing shows here.
    _ = entry.board, entry.estimate, scorer["kind"], scorer["model"], run["created"], [about[key] for key in _ABOUT]
    return entry


def _board(entries: Sequence[_Entry], style: Bootstrap) -> tuple[Board, list[str]]:
    shown, older = _newest(entries)
    named = dict(zip(_names(shown), shown, strict=True))
    letters, notes = _tested(named, style)
    values = [one.estimate.value for one in shown]
    places = [
        Place(
            rank=None if value is None else 1 + sum(other is not None and other > value for other in values),
            name=name,
            kind=one.scorer["kind"],
            model=one.scorer["model"],
            estimate=one.estimate,
            group=letters.get(name, ""),
            file=one.file,
            created=one.run["created"],
            older=count,
        )
        for (name, one), count, value in zip(named.items(), older, values, strict=True)
    ]
    places.sort(key=lambda place: (place.rank is None, place.rank or 0, place.name))
    first = shown[0]
    suite = first.run["suites"][first.suite]
    about = {key: suite[key] for key in _ABOUT}
    items = len(first.sample.facts)
    return Board(first.suite, figure=first.result["headline"], items=items, places=tuple(places), **about), notes


def _tested(entries: Mapping[str, _Entry], style: Bootstrap) -> tuple[Mapping[str, str], list[str]]:
    """The groups of a board's scorers, and sentences on what could not be tested or does not add up."""
    first = next(iter(entries.values()))
    notes, figures = [], {}
    for name, one in entries.items():
        figure = _figure(one)
        if figure is None:
            return {}, [
                f"This prefrank has no figure {one.result['headline']!r} for {one.suite}, so the scorers could not be"
                " tested against each other"
            ]
        if one.sample.facts != first.sample.facts:
            notes.append(
                f"{one.file} has other items of {one.suite} than {first.file}, though both give the same sha256:"
                f" {name} was not tested"
            )
            continue
        notes += _unequal(name, one, figure)
        figures[name] = figure
    return groups(figures, style, strata=first.sample.prompt_strata).letters, notes


def _newest(entries: Sequence[_Entry]) -> tuple[list[_Entry], list[int]]:
    """The newest entry of each model, and how many older ones each has."""
    found: dict[tuple[str, str], list[_Entry]] = defaultdict(list)
    for one in sorted(entries, key=lambda entry: entry.run["created"], reverse=True):
        found[one.scorer["kind"], one.scorer["model"]].append(one)
    return [those[0] for those in found.values()], [len(those) - 1 for those in found.values()]


def _names(entries: Sequence[_Entry]) -> list[str]:
    """As in the files; where two share a name, with a part of the fingerprint, and a number if that is equal too."""
    names = _told_apart([one.scorer["name"] for one in entries], [one.scorer["model"][:8] for one in entries])
    return _told_apart(names, [str(number + 1) for number in range(len(names))])


def _told_apart(names: Sequence[str], marks: Sequence[str]) -> list[str]:
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name} ({mark})" for name, mark in zip(names, marks, strict=True)]


def _figure(entry: _Entry) -> Figure | None:
    """The board's figure, made anew from the scores; None where this prefrank does not know it."""
    known = SUITES.get(entry.suite)
    figures = known.measure(entry.sample) if known else metric_figures(entry.sample)
    return figures.get(entry.result["headline"])


def _unequal(name: str, entry: _Entry, figure: Figure) -> list[str]:
    """A sentence where the stored figure is not what the stored scores give."""
    sums = sums_of(figure)
    stored, made = entry.estimate.value, None if sums is None else sums.value
    same = stored == made if stored is None or made is None else abs(stored - made) <= _ROUNDING
    return [] if same else [
        f"{entry.file} gives {name} {_three(stored)} on {entry.suite}, but its scores make {_three(made)}: it was"
        " changed, or written by another version; evaluate again"
    ]  # fmt: skip


def _three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _apart(boards: Sequence[Board]) -> list[str]:
    """A sentence for each suite of which there are several boards."""
    notes = []
    for suite in dict.fromkeys(board.suite for board in boards):
        those = [board for board in boards if board.suite == suite]
        if len(those) > 1:
            said = ", ".join(
                f"{board.data[:8]} ({board.items:,} items, {len(board.places)} scorers)" for board in those
            )
            notes.append(
                f"{those[0].title} was measured on different items or by different figures, which do not compare, so"
                f" its boards stand apart: {said}"
            )
    return notes


def write_leaderboard(board: Leaderboard, path: Path) -> Path:
    """Write an HTML page that needs nothing else.

    Raises:
        NotFound: jinja2 is not installed.
        CannotWrite: the file cannot be written.
    """
    write_page(path, leaderboard_html(board))
    return path


def leaderboard_html(board: Leaderboard) -> str:
    """The page.

    Raises:
        NotFound: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise NotFound("a leaderboard page needs jinja2; pip install 'prefrank[evaluate]'") from error

    environment = Environment(
        loader=PackageLoader("prefrank.evaluation.pages"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["three"] = _three
    return environment.get_template("leaderboard.html").render(
        board=board,
        boards=[(one, _chart(one)) for one in map(_shown, board.boards)],
        twice=Counter(one.suite for one in board.boards),
        lead=in_words(_shown(board.boards[0])),
    )


def _shown(board: Board) -> Board:
    """With what tells long paths apart in place of them."""
    names = short_names([place.name for place in board.places])
    return replace(
        board, places=tuple(replace(place, name=name) for place, name in zip(board.places, names, strict=True))
    )


def in_words(board: Board) -> str:
    """Who is best, and who cannot be told from the best, in a sentence."""
    models = [place for place in board.places if place.estimate.value is not None]
    if not models:
        return "No scorer has a value here."
    best = models[0]
    said = f"Of {len(board.places)} scorers {best.name} is first with {_three(best.estimate.value)}"
    if not best.group:
        return f"{said}; they could not be tested against each other."
    equals = [place.name for place in models[1:] if set(place.group) & set(best.group)]
    if not equals:
        return f"{said}, better than every other beyond chance." if len(models) > 1 else f"{said}."
    return f"{said}; {', '.join(equals)} cannot be told from it."


def _chart(board: Board) -> str:
    from prefrank.evaluation.pages.charts import Mark, Row, dot_whisker_svg

    rows = [
        Row(
            f"{place.name}",
            (Mark(place.estimate.value, place.estimate.low, place.estimate.high, int(place.kind == "baseline") * 6),),
            f"{_three(place.estimate.value)} {place.group}".strip(),
        )
        for place in board.places
    ]
    accuracy = all(place.estimate.value is None or 0 <= place.estimate.value <= 1 for place in board.places)
    return dot_whisker_svg(
        rows,
        label=f"{board.title}: {board.figure} of {len(rows)} scorers with intervals",
        reference=0.5 if accuracy and board.figure.lower() == "accuracy" else None,
    )
