"""Text classification of Hugging Face's Inference Endpoints, the server's half.

The body is their inference toolkit's, which has it at / and at /predict; what its parameters mean is in the pipeline of
transformers (pipelines/text_classification.py).
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from prefrank.io.json_schema import Shape
from prefrank.io.schema import Stored, Wrong
from prefrank.types import Turn
from prefrank.wire.ranking import scaled
from prefrank.wire.route import Answered, Asked, Errors, Question, Refused, Route


def _error(refused: Refused, status: int) -> Any:
    return {"error": refused.message}


ERRORS = Errors(
    _error, dict.fromkeys(("invalid", "empty", "text", "too_long", "too_many", "unknown_model", "unsupported"), 400)
)


def _read_inputs(value: Any) -> tuple[Asked, ...]:
    if not isinstance(value, list):
        return (_read_input(value),)
    asked = []
    for place, part in enumerate(value):
        try:
            asked.append(_read_input(part))
        except Wrong as wrong:
            raise wrong.inside(f"[{place}]") from None
    return tuple(asked)


def _read_input(value: Any) -> Asked:
    """A text alone is a whole one; `text_pair` is the reply to `text`."""
    if isinstance(value, str):
        return Asked((), value)
    if not isinstance(value, dict):
        raise Wrong(value, "a string, or an object with text and text_pair")
    text, pair = value.get("text"), value.get("text_pair")
    if not isinstance(text, str):
        raise (Wrong(text, "a string") if "text" in value else Wrong.because("is missing")).inside("text")
    if pair is None:
        return Asked((), text)
    if not isinstance(pair, str):
        raise Wrong(pair, "a string").inside("text_pair")
    return Asked((Turn("user", text),), pair)


_PAIR = {
    "type": "object",
    "required": ["text"],
    "properties": {"text": {"type": "string"}, "text_pair": {"type": ["string", "null"]}},
}
_INPUT = {"anyOf": [{"type": "string"}, _PAIR]}
GivenInputs = Annotated[
    tuple[Asked, ...],
    Stored(_read_inputs, lambda value: value),
    Shape({"anyOf": [_INPUT, {"type": "array", "items": _INPUT, "minItems": 1}]}),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Of the pipeline: `none` gives raw scores, otherwise they are between 0 and 1."""

    function_to_apply: Literal["sigmoid", "softmax", "none"] | None = None
    top_k: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyRequest:
    """A text, an object with text and text_pair, or a list of them.

    Args:
        raw_scores: of another server; it is refused, since the scores would silently be others than those wanted.
    """

    inputs: GivenInputs
    parameters: Parameters | None = None
    raw_scores: bool | None = None


def _ask(body: ClassifyRequest) -> Question:
    parameters = body.parameters or Parameters()
    if body.raw_scores is not None:
        raise Refused(
            "invalid",
            "raw_scores is of text-embeddings-inference, which has it at /predict; "
            'here, raw scores are those with "parameters": {"function_to_apply": "none"}',
            place="raw_scores",
        )
    if parameters.function_to_apply == "softmax":
        raise Refused(
            "unsupported",
            "the model has one output, of which softmax makes 1 for every text; wanted sigmoid or none",
            place="parameters.function_to_apply",
        )
    if parameters.top_k == 0:
        raise Refused("invalid", "parameters.top_k is 0; wanted at least 1, or null", place="parameters.top_k")
    raw = parameters.function_to_apply == "none"

    def answer(answered: Answered) -> Any:
        return [[{"label": answered.about.label, "score": scaled(score, raw=raw)}] for score in answered.scores]

    return Question(asked=body.inputs, answer=answer)


def _is_meant(body: Any) -> bool:
    """Their clients always send parameters; objects are inputs nowhere else."""
    if not isinstance(body, dict):
        return False
    inputs = body.get("inputs")
    first = inputs[0] if isinstance(inputs, list) and inputs else inputs
    return "parameters" in body or isinstance(first, dict)


ROUTE = Route(
    dialect="huggingface",
    paths=("/predict", "/"),
    request=ClassifyRequest,
    ask=_ask,
    errors=ERRORS,
    meant=_is_meant,
    summary="Scores of texts or pairs (Hugging Face Inference Endpoints, text classification)",
)
