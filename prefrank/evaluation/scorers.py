"""Anything that scores replies, opened from one string, as `prefrank evaluate --model` takes it.

- a folder, a hub id or `minilm`: a reward model
- `http://host:port/path`: a server (`prefrank.scoring.remote`)
- `python:module:function`: a function of your own; the current folder can be imported from
- `scores:FILE`: scores made earlier, as `prefrank score -o FILE` writes them

Whatever the kind, a value that is not finite is a failure, for the evaluation to count; a score that is not there at
all is an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from prefrank.errors import BadInput
from prefrank.evaluation.items import Item
from prefrank.evaluation.opened_scorer import OpenedScorer
from prefrank.evaluation.python_function import PYTHON, open_function
from prefrank.evaluation.scores_file import SCORES, open_scores_file
from prefrank.io.columns import Columns
from prefrank.scoring.remote import ServerOptions, open_server


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
    template: str | None = None
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
        raise BadInput(f"{name} is not a model folder; device, precision and the like cannot be set for it")
    if server not in (None, ServerOptions()) and kind not in ("http", "python"):
        raise BadInput(f"{name} is not a server; leave the server's options out")
    if kind == "http":
        return _open_server(name, server or ServerOptions())
    if kind == "python":
        return open_function(name, turns=(server or ServerOptions()).turns)
    if kind == "file":
        return open_scores_file(name, items, columns or {})
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
        template=options.template,
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
    server = open_server(name, options)
    return OpenedScorer(name, "http", server.fingerprint, server.format, server.score_pairs, doubt=server.doubt)
