"""Which part of each data set a recipe reads, and the rule behind it, as the run states and records it.

- A stated split (`split: test`, or `SOURCE:test`) is taken as stated.
- Splits that are published, or named by files, are kept: `train` to train on, `eval` (validation, else test) to
  evaluate on.
- A set without such splits is divided by prompt where it has to serve both purposes: `evaluation` is null, or names the
  set too. So is one whose protocol says how it is divided, and `eval` of a published set.
- Any other is read whole: with evaluation sets named, or none wanted, nothing is kept back from training.
"""

import os
from dataclasses import dataclass

from prefrank.data.catalogue import ALIASES, SOURCES
from prefrank.data.load import VALIDATION_SHARE
from prefrank.data.sources import locate
from prefrank.training.recipe import DataSource, Recipe
from prefrank.training.records.events import SetRole

WHOLE = "all of it, nothing is held out"
_PURPOSE: dict[SetRole, str] = {"training": "train", "evaluation": "eval"}


@dataclass(frozen=True, slots=True)
class Choice:
    """What is read of a data set.

    Args:
        source: with the split to read; None is everything.
        rule: in words, for people.
    """

    source: DataSource
    rule: str


def choose_split(recipe: Recipe, source: DataSource, role: SetRole) -> Choice:
    """The part of a data set that is read for a role.

    Raises:
        NotFound, BadData: there is no such data set, or it is of no known format.
    """
    ours, published = _facts(source)
    by_prompt = source.protocol == "by_prompt"
    share = f"one prompt in {round(1 / VALIDATION_SHARE)}" if by_prompt else "rows of it, as first published,"
    divided = f"it has no published split: {share} held out for evaluation"
    if source.split is not None:
        return Choice(source, f"the split {source.split}, as stated" + (f"; {divided}" if ours else ""))
    taken = source.model_copy(update={"split": _PURPOSE[role]})
    if not ours:
        return Choice(taken, f"its own split for {role}")
    shared = recipe.evaluation is None or _place(source) in _both(recipe)
    if shared or not by_prompt or (role == "evaluation" and published):
        return Choice(taken, divided)
    return Choice(source, WHOLE)


def _facts(asked: DataSource) -> tuple[bool, bool]:
    """Whether a split of it would be ours to make, and whether it is a published set; named ones are not fetched."""
    source = asked.source
    name = source if source in SOURCES else "" if os.path.exists(source) else ALIASES.get(source.lower(), "")
    if name:
        return SOURCES[name].splits == ("train",), True
    located = locate(source, None, asked.columns)
    return located.made_here, located.published is not None


def _both(recipe: Recipe) -> set[str]:
    """The sets that are both trained and evaluated on."""
    return {_place(source) for source in recipe.datasets} & {_place(source) for source in recipe.evaluation or ()}


def _place(source: DataSource) -> str:
    """A data set by one name, however it is written."""
    name = source.source
    if name in SOURCES:
        return name
    return os.path.realpath(name) if os.path.exists(name) else ALIASES.get(name.lower(), name)
