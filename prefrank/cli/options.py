"""The options of scoring, defined once: every command that scores takes them, under the same names."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from prefrank.scoring import RewardModel


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringOptions:
    """How a reward model is loaded and scores; the fields are arguments of `RewardModel.load`."""

    head: Annotated[str | None, typer.Option(help="The head that scores, if the model has several.")] = None
    max_length: Annotated[int | None, typer.Option(help="Tokens per (prompt, reply); by default the model's own.")] = (
        None
    )
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda:0; by default a GPU if there is one.")] = None
    precision: Annotated[
        str | None,
        typer.Option(help="float32, int16 or int8 (native kernels), bfloat16, float16; by default the folder's."),
    ] = None
    kernels: Annotated[
        str | None,
        typer.Option(help="torch, avx512, avx2, portable, or flash on a GPU; by default the fastest there is."),
    ] = None
    num_threads: Annotated[int | None, typer.Option("--threads", help="Cores to score on; by default all.")] = None
    max_tokens: Annotated[
        int | None, typer.Option(help="Tokens per batch, for speed and memory; by default the device's.")
    ] = None
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="The same bits in any batch; free with native kernels.")
    ] = False
    empty_score: Annotated[
        float | None, typer.Option(help="Score given to blank replies; by default the model's own.")
    ] = None
    pre_rendered: Annotated[
        bool, typer.Option("--pre-rendered", help="Read control strings in texts as control tokens.")
    ] = False
    template: Annotated[
        str | None,
        typer.Option(help="Of a decoder that comes without one: a Jinja file, or turns (User: and Assistant:)."),
    ] = None
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the Python code that the model's folder brings.")
    ] = False

    def load(self, model: str) -> "RewardModel":
        """The model of that name, loaded with these options."""
        from prefrank.scoring import RewardModel

        return RewardModel.load(model, **asdict(self))


def scoring_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each field of `ScoringOptions` in place of its parameter `scoring`.

    Args:
        names: of the fields, where a command has use for some only; by default all.
    """
    hints = get_type_hints(ScoringOptions, include_extras=True)
    chosen = [option for option in fields(ScoringOptions) if not names or option.name in names]
    options = [
        inspect.Parameter(
            option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=hints[option.name]
        )
        for option in chosen
    ]

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters

        @functools.wraps(command)
        def run(**given: Any) -> None:
            scoring = ScoringOptions(**{option.name: given.pop(option.name) for option in chosen})
            command(**given, scoring=scoring)

        shown = []
        for name, parameter in own.items():
            shown += options if name == "scoring" else [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
        vars(run)["__signature__"] = inspect.Signature(shown)
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
        return run

    return wrap
