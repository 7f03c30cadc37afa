"""Of each dialect a request and an answer as its servers and clients write them, with what they mean."""

from dataclasses import dataclass
from typing import Any

from prefrank.types import Turn
from prefrank.wire.inputs import Messages, OneText, OpenedText, TwoTexts


@dataclass(frozen=True)
class Example:
    """An exchange.

    Args:
        inputs: what is asked about.
        request: the body that asks for it, of the model "m".
        answer: what the server says.
        scores: what that means, in the order of the inputs.
    """

    inputs: tuple[Any, ...]
    request: dict[str, Any]
    answer: Any
    scores: tuple[float, ...] = (0.5, -2.0)


ONE_PROMPT = (TwoTexts("Why?", "So."), TwoTexts("Why?", "No."))
TWO_PROMPTS = (TwoTexts("Why?", "So."), TwoTexts("How?", "No."))
MESSAGES = (Messages((Turn("system", "Be brief."), Turn("user", "Why?"), Turn("assistant", "So."))),)
AS_MESSAGES = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "So."},
    ],
    "add_generation_prompt": False,
    "truncate_prompt_tokens": -1,
    "use_activation": False,
    "activation": False,
}
RANKED = {"query": "Why?", "documents": ["So.", "No."], "top_n": 2, "model": "m"}
RESULTS = [{"index": 0, "relevance_score": 0.5}, {"index": 1, "relevance_score": -2.0}]
EXAMPLES = {
    "prefrank": Example(
        MESSAGES,
        {
            "model": "m",
            "pairs": [
                {
                    "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
                    "reply": "So.",
                }
            ],
        },
        {"model": "m", "fingerprint": "f", "scale": "logit", "scores": [{"index": 0, "score": 0.5, "tokens": 7}]},
        (0.5,),
    ),
    "tei-predict": Example(
        TWO_PROMPTS,
        {"inputs": [["Why?", "So."], ["How?", "No."]], "raw_scores": True, "truncate": True},
        [[{"score": 0.5, "label": "LABEL_0"}], [{"score": -2.0, "label": "LABEL_0"}]],
    ),
    "tei-rerank": Example(
        ONE_PROMPT,
        {"query": "Why?", "texts": ["So.", "No."], "raw_scores": True, "truncate": True},
        [{"index": 0, "score": 0.5}, {"index": 1, "score": -2.0}],
    ),
    "rerank": Example(
        ONE_PROMPT,
        RANKED | {"return_documents": False, "raw_scores": True, "use_activation": False},
        {"object": "rerank", "results": RESULTS, "model": "m", "usage": {"prompt_tokens": 9, "total_tokens": 9}},
    ),
    "cohere": Example(ONE_PROMPT, RANKED, {"id": "1", "results": RESULTS, "meta": {"api_version": {"version": "2"}}}),
    "vllm-score": Example(
        TWO_PROMPTS,
        {
            "model": "m",
            "text_1": ["Why?", "How?"],
            "text_2": ["So.", "No."],
            "truncate_prompt_tokens": -1,
            "use_activation": False,
            "activation": False,
        },
        {
            "id": "score-1",
            "object": "list",
            "data": [
                {"index": 0, "object": "score", "score": 0.5},
                {"index": 1, "object": "score", "score": -2.0},
            ],
        },
    ),
    "vllm-classify": Example(
        MESSAGES,
        AS_MESSAGES,
        {"object": "list", "data": [{"index": 0, "label": "LABEL_0", "probs": [-1.25], "num_classes": 1}]},
        (-1.25,),
    ),
    "vllm-pooling": Example(
        MESSAGES,
        AS_MESSAGES,
        {"object": "list", "data": [{"index": 0, "object": "pooling", "data": [-1.25]}]},
        (-1.25,),
    ),
    "openrlhf": Example(
        (OpenedText("Q: Why?\nA: So.", "Q: Why?\nA: "), OpenedText("Q: How?\nA: No.", "Q: How?\nA: ")),
        {
            "query": ["Q: Why?\nA: So.", "Q: How?\nA: No."],
            "prompts": ["Q: Why?\nA: ", "Q: How?\nA: "],
            "labels": [None, None],
        },
        {"rewards": [0.5, -2.0], "scores": [0.6, 0.1], "extra_logs": {}},
    ),
    "sglang-classify": Example(
        (OneText("Q: Why?\nA: So."), OneText("Q: How?\nA: No.")),
        {"model": "m", "text": ["Q: Why?\nA: So.", "Q: How?\nA: No."]},
        [
            {"embedding": [0.5], "meta_info": {"prompt_tokens": 3}},
            {"embedding": [-2.0], "meta_info": {"prompt_tokens": 3}},
        ],
    ),
    "llama-factory": Example(
        (OneText("Q: Why?\nA: So."), OneText("Q: How?\nA: No.")),
        {"model": "m", "messages": ["Q: Why?\nA: So.", "Q: How?\nA: No."]},
        {"id": "scoreval-1", "object": "score.evaluation", "model": "m", "scores": [0.5, -2.0]},
    ),
}
"""By the dialect's name."""
