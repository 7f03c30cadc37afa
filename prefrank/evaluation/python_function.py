"""A function of the user's own as a scorer: `python:module:function`.

How many arguments it requires says which kind it is: one of one argument takes (prompt, reply) pairs and gives
`Score`s, one of two takes prompts and replies, lists of strings, and gives numbers.
"""

import hashlib
import inspect
import math
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from prefrank.errors import BadInput, NotFound, PrefrankError, short, suggest
from prefrank.evaluation.one_scorer import as_score
from prefrank.evaluation.opened_scorer import OpenedScorer
from prefrank.types import Score
from prefrank.wire.inputs import QUERIES, Pair, Turns, query_of

PYTHON = "python:"


def open_function(name: str, *, turns: Turns) -> OpenedScorer:
    """The function that a name stands for.

    Args:
        turns: which turns of a prompt go into its string.

    Raises:
        NotFound: there is no such module or function.
        BadInput: it is none, is given other arguments, or its module fails.
    """
    module_name, _, function_name = name.removeprefix(PYTHON).partition(":")
    if not module_name or not function_name:
        raise BadInput(f"{name!r} names no function; wanted python:module:function")
    with _here():
        module = _module(module_name)
    if function_name not in vars(module):
        known = [attribute for attribute, value in vars(module).items() if callable(value)]
        raise NotFound(f"the module {module_name} has no function {function_name!r}{suggest(function_name, known)}")
    function = vars(module)[function_name]
    if not callable(function):
        raise BadInput(f"{function_name} of the module {module_name} is {short(function)}; wanted a function")
    model = f"{name}:{_source_hash(module)}"
    count = _arguments(function, name)
    run = partial(_call_scorer, function, model) if count == 1 else partial(_call_with_texts, function, model, turns)
    taken = "(prompt, reply) pairs" if count == 1 else QUERIES[turns]
    return OpenedScorer(name, "python", model, {"function": name.removeprefix(PYTHON), "input": taken}, run)


@contextmanager
def _here() -> Iterator[None]:
    """The current folder can be imported from, as with `python -m`."""
    path = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    try:
        yield
    finally:
        sys.path[:] = path


def _module(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise NotFound(f"there is no module {name} here or installed; wanted python:module:function") from error
        raise _raised(f"the module {name}", error) from error
    except (Exception, SystemExit) as error:  # a module is a program, and may raise anything
        raise _raised(f"the module {name}", error) from error


def _raised(what: str, error: BaseException) -> BadInput:
    """One line for what a user's own code raised, with the place."""
    message, place = " ".join(str(error).split())[:_SHOWN], traceback.extract_tb(error.__traceback__)[-1]
    raised = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return BadInput(f"{what} raised {raised} at {place.filename}:{place.lineno}; correct it")


_SHOWN = 300
"""Characters shown of the message of an error in a user's own code."""


def _called(function: Callable[..., Any], model: str, count: int, *given: Any) -> list[Any]:
    """What a user's function gives for `count` pairs, as a list; at most one score more than that is read.

    Raises:
        BadInput: it raised, or gave something that cannot be iterated over.
    """
    with _here():
        try:
            scores = function(*given)
            if scores is not None and not isinstance(scores, str | bytes | Mapping):
                return list(islice(scores, count + 1))
        except PrefrankError:
            raise
        except (Exception, SystemExit) as error:
            raise _raised(model, error) from error
    raise BadInput(f"{model} gives {short(scores)}; wanted a list, one score for each pair")


def _arguments(function: Callable[..., Any], name: str) -> int:
    """How many arguments it must be given: 1 or 2."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some built-in functions do not say
        parameters = []
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    count = sum(each.kind in places and each.default is inspect.Parameter.empty for each in parameters)
    if count not in (1, 2):
        raise BadInput(
            f"{name} must be given {count} arguments; wanted one, (prompt, reply) pairs, for a function that gives"
            " Scores, or two, prompts and replies, for one that gives numbers"
        )
    return count


def _source_hash(module: ModuleType) -> str:
    origin = module.__spec__.origin if module.__spec__ else None
    file = Path(origin or "")
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else "built-in"


def _call_scorer(function: Callable[..., Any], model: str, pairs: Sequence[Pair]) -> list[Score]:
    scores = _called(function, model, len(pairs), pairs)
    for score in scores:
        if not isinstance(score, Score):
            raise BadInput(
                f"{model} takes one argument and gives {short(score)}; wanted a prefrank.types.Score for each pair,"
                " or a function of two arguments, prompts and replies, that gives numbers"
            )
    return [replace(score, model=model) for score in scores]


def _call_with_texts(function: Callable[..., Any], model: str, turns: Turns, pairs: Sequence[Pair]) -> list[Score]:
    texts = [query_of(prompt, turns=turns) for prompt, _ in pairs], [reply for _, reply in pairs]
    values = _called(function, model, len(pairs), *texts)
    scores = [math.nan if value is None else as_score(value, f"{model} gives") for value in values]
    return [Score(score, tokens=0, cut_prompt=0, cut_reply=0, model=model) for score in scores]
