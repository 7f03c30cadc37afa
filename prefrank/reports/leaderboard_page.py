"""A leaderboard as an HTML page that needs nothing else."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from prefrank.io.names import short_names
from prefrank.reports.charts import DotRow, dot_whisker_svg, mark_of
from prefrank.reports.leaderboard import Board, Leaderboard
from prefrank.reports.numbers import three_places
from prefrank.reports.page import template, write_page


def write_leaderboard(leaderboard: Leaderboard, path: Path) -> Path:
    """Write the page.

    Raises:
        NotFound: jinja2 is not installed.
        CannotWrite: the file cannot be written.
    """
    write_page(path, leaderboard_html(leaderboard))
    return path


def leaderboard_html(leaderboard: Leaderboard) -> str:
    """The page.

    Raises:
        NotFound: jinja2 is not installed.
    """
    page = template("leaderboard.html", "a leaderboard page", filters={"three": three_places})
    boards = [_with_short_names(board) for board in leaderboard.boards]
    return page.render(
        leaderboard=leaderboard,
        boards=[(board, _chart(board)) for board in boards],
        twice=Counter(board.suite for board in boards),
        lead=in_words(boards[0]),
    )


def _with_short_names(board: Board) -> Board:
    """With what tells long paths apart in place of them."""
    names = short_names([place.name for place in board.places])
    places = tuple(replace(place, name=name) for place, name in zip(board.places, names, strict=True))
    return replace(board, places=places)


def in_words(board: Board) -> str:
    """Who is best, and who cannot be told from the best, in a sentence."""
    valued = [place for place in board.places if place.estimate.value is not None]
    if not valued:
        return "No scorer has a value here."
    best, *others = valued
    first = f"Of {len(board.places)} scorers {best.name} is first with {three_places(best.estimate.value)}"
    if not best.group:
        return f"{first}; they could not be tested against each other."
    equals = [place.name for place in others if set(place.group) & set(best.group)]
    if equals:
        return f"{first}; {', '.join(equals)} cannot be told from it."
    return f"{first}, better than every other beyond chance." if others else f"{first}."


def _chart(board: Board) -> str:
    rows = []
    for place in board.places:
        mark = mark_of(place.estimate, 6 if place.kind == "baseline" else 0)
        rows.append(DotRow(place.name, (mark,), f"{three_places(place.estimate.value)} {place.group}".strip()))
    are_shares = all(place.estimate.value is None or 0 <= place.estimate.value <= 1 for place in board.places)
    return dot_whisker_svg(
        rows,
        label=f"{board.title}: {board.figure} of {len(rows)} scorers with intervals",
        reference=0.5 if are_shares and board.figure.lower() == "accuracy" else None,
    )
