"""Anything that scores replies, opened from one string, as `prefrank evaluate --model` takes it.

- a folder, a hub id or `minilm`: a reward model
- `http://host:port/path`: a server (`servers.py`)
- `python:module:function`: a function of your own; the current folder can be imported from
- `scores:FILE`: scores made earlier, as `prefrank score -o FILE` writes them

Surprising: a function is told apart by how many arguments it must be given. One is `prefrank`'s own scorer, (prompt,
reply) pairs in and `Score`s out; two are prompts and replies, lists of strings, numbers out. Whatever the kind, a value
that is not finite is a failure, for the evaluation to count; a score that is not there at all is an error.
"""

import hashlib
import inspect
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from prefrank.data.fields import as_list, as_number, as_text, as_turns, field, index_of, short, system_of
from prefrank.errors import BadData, BadInput, NotFound, PrefrankError, suggest
from prefrank.evaluation.dialects import QUERIES, Turns, query_of
from prefrank.evaluation.items import Item
from prefrank.evaluation.run import Scorer, as_score
from prefrank.evaluation.servers import ServerOptions, open_server
from prefrank.evaluation.servers import score_pairs as ask_server
from prefrank.io.columns import Columns, mapped
from prefrank.io.inputs import check_plain
from prefrank.io.rows import SUFFIXES, is_csv, is_data_file, read_records
from prefrank.types import Prompt, Score, Turn

Kind = Literal["model", "transformers", "http", "python", "file"]
Pair = tuple[Prompt, str]

PYTHON, SCORES = "python:", "scores:"


@dataclass(frozen=True, slots=True)
class OpenedScorer:
    """A scorer, and what a record says of it.

    Args:
        name: as it was asked for.
        kind: "model" is a prefrank checkpoint, "transformers" any other sequence classifier.
        model: the fingerprint its scores carry.
        format: how texts reach it and what its scores are, as plain values.
        score_pairs: pairs in, one score for each out; a value may be NaN.
        calibration: stored with the model, if there is one for these very scores.
        control_strings: of a reward model that takes texts as text: how many of them hold its control strings.
        doubt: what its scores may be other than raw scores, as an end of "its scores are"; "" for nothing.
    """

    name: str
    kind: Kind
    model: str
    format: dict[str, Any]
    score_pairs: Scorer
    calibration: dict[str, Any] | None = None
    control_strings: Callable[[Sequence[Pair]], int] | None = None
    doubt: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How a reward model is loaded; see `RewardModel.load`."""

    head: str | None = None
    device: str | None = None
    precision: str | None = None
    kernels: str | None = None
    max_length: int | None = None
    max_tokens: int | None = None
    num_threads: int | None = None
    deterministic: bool = False
    empty_score: float | None = None
    pre_rendered: bool = False
    trust_remote_code: bool = False


def open_scorer(
    name: str,
    *,
    model: ModelOptions | None = None,
    server: ServerOptions | None = None,
    items: Sequence[Item] = (),
    columns: Columns | None = None,
) -> OpenedScorer:
    """A scorer from its name; see the module's page for what a name can be.

    Args:
        model: for a reward model only.
        server: for a server; of it, `turns` also holds for a function of prompts and replies.
        items: what is going to be evaluated: for a file of scores without texts, which names items by id or place.
        columns: of a file of scores, names of its own for those in `SCORED`; where it has no such column, the usual
            one is read.

    Raises:
        NotFound: nothing of that name: folder, hub id, module, file, or no server there.
        BadInput: options for another kind of scorer; a function of other arguments.
        BadModel, BadData: a model, server or file that cannot be used.
    """
    kind = kind_of(name)
    if model not in (None, ModelOptions()) and kind != "model":
        raise BadInput(f"{name} is no model folder; device, precision and the like cannot be set for it")
    if server not in (None, ServerOptions()) and kind not in ("http", "python"):
        raise BadInput(f"{name} is no server; leave the server's options out")
    if kind == "http":
        return _open_server(name, server or ServerOptions())
    if kind == "python":
        return _open_function(name, turns=(server or ServerOptions()).turns)
    if kind == "file":
        return _open_scores(name, items, columns or {})
    return _open_model(name, model or ModelOptions())


def kind_of(name: str) -> Literal["model", "http", "python", "file"]:
    """What a name stands for; "model" is a folder or hub id."""
    if name.startswith(("http://", "https://")):
        return "http"
    return "python" if name.startswith(PYTHON) else "file" if name.startswith(SCORES) else "model"


def _open_model(name: str, options: ModelOptions) -> OpenedScorer:
    from prefrank.scoring.opened import open_model  # torch, where a model is wanted

    opened = open_model(
        name,
        head=options.head,
        device=options.device,
        precision=options.precision,
        kernels=options.kernels,
        max_length=options.max_length,
        max_tokens=options.max_tokens,
        num_threads=options.num_threads,
        deterministic=options.deterministic,
        empty_score=options.empty_score,
        pre_rendered=options.pre_rendered,
        trust_remote_code=options.trust_remote_code,
    )
    return OpenedScorer(
        name=name,
        kind="model" if opened.ours else "transformers",
        model=opened.model.fingerprint,
        format=opened.format,
        score_pairs=partial(opened.model.score_pairs, allow_failures=True),
        calibration=opened.model.calibration,
        control_strings=None if options.pre_rendered else opened.model.control_strings,
    )


def _open_server(name: str, options: ServerOptions) -> OpenedScorer:
    server, doubt = open_server(name, options)
    ask = partial(ask_server, server=server)
    return OpenedScorer(name, "http", server.fingerprint, server.format(doubt), ask, doubt=doubt)


# A function


def _open_function(name: str, *, turns: Turns) -> OpenedScorer:
    module_name, _, function_name = name.removeprefix(PYTHON).partition(":")
    if not module_name or not function_name:
        raise BadInput(f"{name!r} names no function; wanted python:module:function")
    with _here():
        module = _module(module_name)
    if function_name not in vars(module):
        known = [each for each, value in vars(module).items() if callable(value)]
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
    """The one line for what a user's own code raised, with the place; the error itself is its cause."""
    said, place = " ".join(str(error).split())[:_SAID], traceback.extract_tb(error.__traceback__)[-1]
    said = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return BadInput(f"{what} raised {said} at {place.filename}:{place.lineno}; correct it")


_SAID = 300
"""Characters shown of what a user's own code raised."""


def _called(function: Callable[..., Any], model: str, count: int, *given: Any) -> list[Any]:
    """What a user's function gives for `count` pairs, as a list; no more is taken of it than could be right.

    Raises:
        BadInput: it raised, or gave something that cannot be gone through.
    """
    with _here():
        try:
            found = function(*given)
            if found is not None and not isinstance(found, str | bytes | Mapping):
                return list(islice(found, count + 1))
        except PrefrankError:
            raise
        except (Exception, SystemExit) as error:
            raise _raised(model, error) from error
    raise BadInput(f"{model} gives {short(found)}; wanted a list, one score for each pair")


def _arguments(function: Callable[..., Any], name: str) -> int:
    """How many arguments it must be given: 1 or 2."""
    try:
        given = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some built-in functions do not say
        given = []
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    count = sum(one.kind in places and one.default is inspect.Parameter.empty for one in given)
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
    return [_score(math.nan if value is None else as_score(value, f"{model} gives"), model) for value in values]


def _number(value: Any, what: str) -> float:
    """A float; NaN for None."""
    if isinstance(value, bool):
        raise BadInput(f"{what} {value}; wanted a number")
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadInput(f"{what} {short(value)}; wanted a number") from error


def _score(value: float, model: str) -> Score:
    return Score(value, tokens=0, cut_prompt=0, cut_reply=0, model=model)


# A file of scores


Table = dict[Pair, Score]

FACTS = ("tokens", "cut_prompt", "cut_reply")
"""What `prefrank score` writes beside a score, in the order of a `Score`."""
SCORED = ("system", "prompt", "reply", "replies", "score", "scores", "id", "subset", "index", "model", *FACTS)
"""Columns of a file of scores that are read."""
ONLY_SCORED = ("score", "scores", "subset", "index", "model", *FACTS)
"""Those of them that comparisons do not have."""
_NUMBERS = ("score", *FACTS)
"""Of a CSV file, the columns in which nothing between two commas is null."""


def _open_scores(name: str, items: Sequence[Item], columns: Columns) -> OpenedScorer:
    place = name.removeprefix(SCORES)
    if not place:
        raise BadInput("scores: names no file; wanted scores:FILE, as prefrank score -o FILE writes it")
    path = Path(os.path.expanduser(place))
    if os.path.isdir(path):
        raise BadInput(f"{path} is a folder; wanted scores:FILE, one file of scores in it")
    try:
        check_plain(path, BadData)
    except NotFound:
        raise NotFound(f"there is no file of scores {path}; prefrank score -o {path} writes one") from None
    if not is_data_file(path):
        raise BadInput(f"the file of scores {path} ends in {path.suffix!r}; wanted one of {', '.join(SUFFIXES)}")
    try:
        with path.open("rb") as file:
            model = f"{SCORES}{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror or error}") from None
    known = {one: own for one, own in columns.items() if one in SCORED}
    table, models, rows = _read_scores(path, model, items, known)
    values = [score.value for score in table.values() if math.isfinite(score.value)]
    probable = bool(values) and min(values) >= 0 and max(values) <= 1
    doubt = "all within 0 to 1: perhaps probabilities" if probable else ""
    settings = {
        "file": path.name,
        "rows": rows,
        "replies": len(table),
        "model": models[0] if models else None,
        "scores": doubt or "as in the file",
    }
    return OpenedScorer(name, "file", model, settings, partial(_look_up, table, str(path)), doubt=doubt)


def _look_up(table: Table, path: str, pairs: Sequence[Pair]) -> list[Score]:
    if missing := [pair for pair in pairs if pair not in table]:
        prompt, reply = missing[0]
        spaces = len({_bare(pair) for pair in missing} & {_bare(pair) for pair in table})
        raise BadData(
            f"{path} has no score for {len(missing):,} of {len(pairs):,} replies; the first is {reply[:60]!r} to"
            f" {prompt[-1].text[:60]!r}. Score the same data, with prompts as they are there"
            + (f" ({spaces:,} differ in white space at the ends of texts, which is not read)" if spaces else "")
        )
    return [table[pair] for pair in pairs]


def _bare(pair: Pair) -> tuple[tuple[tuple[str, str], ...], str]:
    """Roles and texts without white space at their ends."""
    prompt, reply = pair
    return tuple((turn.role, turn.text.strip()) for turn in prompt), reply.strip()


def _read_scores(path: Path, model: str, items: Sequence[Item], columns: Columns) -> tuple[Table, list[str], int]:
    """Scores by prompt and reply, the names of the models that made them (none or one), and how many rows there are."""
    table: Table = {}
    models: dict[str, None] = {}
    places = _places(items)
    rows = 0
    for record in read_records(path):
        rows += 1
        try:
            row = _renamed(record.row, columns)
            if is_csv(path):
                row = {name: None if one == "" and name in _NUMBERS else one for name, one in row.items()}
            for pair, score in _row(row, model, items, places):
                _check_equal(table.setdefault(pair, score), score, pair[1])
            if row.get("model") is not None:
                models[as_text(row["model"], "model")] = None
            if len(models) > 1:
                raise BadData(f"the scores are of two models, {' and '.join(models)}; wanted a file for each")
        except BadInput as error:
            raise BadData(f"{record.where}: {error}") from error
    return table, list(models), rows


def _renamed(row: Mapping[str, Any], columns: Columns) -> Mapping[str, Any]:
    """The row under the usual names. A file of scores may lack what the data have, and have the usual name instead."""
    kept = {}
    for name, own in columns.items():
        try:
            field(row, own)
        except BadData:
            if name not in row:
                raise
        else:
            kept[name] = own
    return mapped(row, kept)


def _check_equal(kept: Score, score: Score, reply: str) -> None:
    """One pair scored twice may differ by rounding, as batches do in half precision; the first is kept."""
    same = math.isclose(kept.value, score.value, rel_tol=1e-3, abs_tol=1e-3)
    if not same and not (math.isnan(kept.value) and math.isnan(score.value)):
        raise BadData(f"the reply {reply[:60]!r} has the score {score.value} here and {kept.value} before")


def _places(items: Sequence[Item]) -> dict[tuple[str | None, str], list[int]]:
    """Places of the items of a (subset, id), and of an id whatever its subset."""
    places: dict[tuple[str | None, str], list[int]] = {}
    for place, item in enumerate(items):
        places.setdefault((item.subset, item.id), []).append(place)
        places.setdefault((None, item.id), []).append(place)
    return places


def _row(
    row: Mapping[str, Any], model: str, items: Sequence[Item], places: Mapping[tuple[str | None, str], list[int]]
) -> list[tuple[Pair, Score]]:
    """The pairs of one row and their scores."""
    prompt, replies = _texts(row) if "prompt" in row else _named(row, items, places)
    scores = _column(row, _one_of(row, "score", "scores"), len(replies))
    facts = [_column(row, name, len(replies)) if name in row else [0] * len(replies) for name in FACTS]
    return [
        ((prompt, reply), Score(_number(value, "a score is"), _count(tokens), _count(cut), _count(cut_reply), model))
        for reply, value, tokens, cut, cut_reply in zip(replies, scores, *facts, strict=True)
    ]


def _column(row: Mapping[str, Any], name: str, count: int) -> list[Any]:
    """A value for each reply."""
    value = field(row, name)
    each = value if isinstance(value, list) else [value]
    if len(each) != count:
        raise BadData(f"{name!r} holds {len(each)} values for {count} replies; wanted as many")
    return each


def _one_of(row: Mapping[str, Any], one: str, several: str) -> str:
    """Which of the two columns the row has; neither is taken for the other where both are there."""
    if row.get(one) is not None and row.get(several) is not None:
        raise BadData(f"the row has both {one!r} and {several!r}; keep one of them")
    return several if several in row and row.get(one) is None else one


def _count(value: Any) -> int:
    if isinstance(value, str) and value.isdecimal():  # as CSV has numbers
        return int(value)
    return int(as_number(value, "a count of tokens"))


def _texts(row: Mapping[str, Any]) -> tuple[Prompt, tuple[str, ...]]:
    said = row["prompt"]
    prompt = (Turn("user", as_text(said, "prompt")),) if isinstance(said, str) else as_turns(said, "prompt")
    if (system := system_of(row)) and prompt and prompt[0].role in ("system", "developer"):
        if prompt[0].text.strip() != system:
            raise BadData("the system column and the prompt's first message hold different texts; keep one of them")
    elif system:
        prompt = (Turn("system", system), *prompt)
    if _one_of(row, "reply", "replies") == "replies":
        return prompt, tuple(_reply(one, f"replies[{i}]") for i, one in enumerate(as_list(row["replies"], "replies")))
    return prompt, (_reply(field(row, "reply"), "reply"),)


def _reply(value: Any, name: str) -> str:
    """A string, or what `prefrank score` takes too: an assistant message, alone or in a list of one."""
    if not isinstance(value, Mapping | list):
        return as_text(value, name)
    turns = as_turns(value, name)
    if [turn.role for turn in turns] != ["assistant"]:
        raise BadData(f"{name!r} holds {short(value)}; wanted a string or one message of the assistant")
    return turns[0].text


def _named(
    row: Mapping[str, Any], items: Sequence[Item], places: Mapping[tuple[str | None, str], list[int]]
) -> tuple[Prompt, tuple[str, ...]]:
    """The texts of the item that a row names by `id` (and `subset`) or by `index`, its place in the data."""
    if not items:
        raise BadData("there is no 'prompt', and no data to find the row's item in; give prompt and reply")
    if "index" in row:
        item = items[index_of(row["index"], "index", len(items))]
    else:
        name, subset = str(field(row, "id")), row.get("subset")
        found = places.get((subset, name), [])
        if len(found) != 1:
            raise BadData(f"{len(found)} items have the id {name!r}; wanted one. A column 'subset' or 'index' can help")
        item = items[found[0]]
    return item.prompt, item.replies
