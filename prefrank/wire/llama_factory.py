"""LLaMA-Factory's scores of whole texts (api/protocol.py)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefrank.wire.dialect import AS_GIVEN, Dialect, Placed
from prefrank.wire.inputs import OneText
from prefrank.wire.route import Answered, Asked, Question, Route, detailed


def _request(inputs: Sequence[OneText], model: str | None) -> dict[str, Any]:
    """The server wants some name and looks at none."""
    return {"model": model or "reward-model", "messages": [each.text for each in inputs]}


def _read(answer: Any) -> Placed:
    return list(enumerate(answer["scores"]))


LLAMA_FACTORY = Dialect(
    name="llama-factory",
    paths=("/v1/score/evaluation", "/score/evaluation"),
    takes=OneText,
    holds="pairs",
    write_request=_request,
    read_answer=_read,
    scale=AS_GIVEN,
)

# The server's half


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """Whole texts, each a prompt and its reply as a chat template has written them."""

    messages: tuple[str, ...]
    model: str | None = None


def _ask(body: ScoreRequest) -> Question:
    def answer(answered: Answered) -> Any:
        named = {"id": f"scoreval-{answered.id}", "object": "score.evaluation", "model": answered.about.name}
        return named | {"scores": [score.value for score in answered.scores]}

    asked = tuple(Asked((), text) for text in body.messages)
    return Question(asked=asked, answer=answer, model=body.model, any_name=True)


ROUTES = (
    Route(
        dialect="llama-factory",
        paths=LLAMA_FACTORY.paths,
        request=ScoreRequest,
        ask=_ask,
        errors=detailed({"empty": 400}),
        summary="Raw scores of whole texts (LLaMA-Factory)",
    ),
)
