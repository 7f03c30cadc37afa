"""What servers of reward models speak: one `Protocol` value for each wire format, with its requests and answers.

Nothing here opens a connection. Some take a prompt and a reply as a pair, some the messages, some one text; what a
conversation becomes where a protocol has no messages is `query_of` for a prompt and `Whole` for prompt and reply.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prefrank.errors import BadInput
from prefrank.evaluation.items import spoken
from prefrank.text.rendering import written_by
from prefrank.types import Prompt, Turn

Pair = tuple[Prompt, str]
Turns = Literal["all", "last"]
Grouping = Literal["any", "prompt", "one"]


@dataclass(frozen=True, slots=True)
class Whole:
    """Prompt and reply as one text, for servers that take nothing else.

    Args:
        text: of a prompt and a reply.
        opening: what stands before the reply, of a prompt.
        said: how, for the record.
        bos: what a text begins with and some servers add once more; "" for nothing.
    """

    text: Callable[[Prompt, str], str]
    opening: Callable[[Prompt], str]
    said: str
    bos: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What one request asks for: pairs, the prompt as one string, prompt and reply as one text, the model's name."""

    pairs: Sequence[Pair]
    query: Callable[[Prompt], str]
    whole: Whole
    model: str | None

    def named(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body with the model's name, where there is one."""
        return body if self.model is None else {"model": self.model} | body


Found = list[tuple[int, Any]]
"""(place in the request, score as the server gave it)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """A wire format.

    Args:
        paths: endings of a URL that mean it.
        own: what is added to a URL that has no path; "" for the first of `paths`.
        group: what one request may hold: any pairs, replies to one prompt, or one pair.
        body: of the request.
        read: the scores in an answer.
        input: what a pair becomes, for the record; "" for (prompt, reply) as two texts. `{whole}` stands for the way a
            whole text is made.
        scale: which scores were asked for, for the record.
    """

    paths: tuple[str, ...]
    group: Grouping
    body: Callable[[Asked], dict[str, Any]]
    read: Callable[[Any], Found]
    scale: str
    input: str = ""
    own: str = ""


# The bodies and answers of text-embeddings-inference (router/src/http/types.rs), vLLM (entrypoints/pooling), Infinity
# (fastapi_schemas), Cohere's and Jina's rerank pages, OpenRLHF (openrlhf/utils/agent.py, cli/serve_rm.py), SGLang
# (native API, srt/entrypoints/http_server.py) and LLaMA-Factory (api/protocol.py).


def _predict_body(asked: Asked) -> dict[str, Any]:
    # A flat list of two strings would be one pair, so a batch is always a list of pairs
    inputs = [[asked.query(prompt), reply] for prompt, reply in asked.pairs]
    return {"inputs": inputs, "raw_scores": True, "truncate": True}


def _predictions(answer: Any) -> Found:
    found: Found = []
    for place, labels in enumerate(answer):
        one = labels if isinstance(labels, list) else [labels]
        found.append((place, _only(one, "labels")["score"]))
    return found


def _tei_rerank_body(asked: Asked) -> dict[str, Any]:
    texts = [reply for _, reply in asked.pairs]
    return {"query": asked.query(asked.pairs[0][0]), "texts": texts, "raw_scores": True, "truncate": True}


def _rerank_body(asked: Asked) -> dict[str, Any]:
    """Infinity's flag and vLLM's; each ignores the other's."""
    return _cohere_body(asked) | {"return_documents": False, "raw_scores": True, "use_activation": False}


def _cohere_body(asked: Asked) -> dict[str, Any]:
    documents = [reply for _, reply in asked.pairs]
    return asked.named({"query": asked.query(asked.pairs[0][0]), "documents": documents, "top_n": len(documents)})


def _ranked(answer: Any) -> Found:
    """`results` of an object, or SGLang's and TEI's bare list."""
    results = answer["results"] if isinstance(answer, dict) else answer
    return [(one["index"], one["relevance_score"] if "relevance_score" in one else one["score"]) for one in results]


def _score_body(asked: Asked) -> dict[str, Any]:
    queries, replies = [asked.query(prompt) for prompt, _ in asked.pairs], [reply for _, reply in asked.pairs]
    return asked.named({"text_1": queries, "text_2": replies, "truncate_prompt_tokens": -1} | _VLLM_RAW)


_VLLM_RAW = {"use_activation": False, "activation": False}
"""The present name and the one of before; a version that knows neither squashes scores without a word."""


def _vllm_scores(answer: Any) -> Found:
    return [(one["index"], one["score"]) for one in answer["data"]]


def _messages_body(asked: Asked) -> dict[str, Any]:
    prompt, reply = asked.pairs[0]
    turns = (*prompt, Turn("assistant", reply))
    messages = [turn.message() for turn in turns]
    body = {"messages": messages, "add_generation_prompt": False, "truncate_prompt_tokens": -1}
    return asked.named(body | _VLLM_RAW)


def _classes(answer: Any) -> Found:
    return [(one["index"], _only(one["probs"], "classes")) for one in answer["data"]]


def _pooled(answer: Any) -> Found:
    return [(one["index"], _only(one["data"], "numbers")) for one in answer["data"]]


def _reward_body(asked: Asked) -> dict[str, Any]:
    prompts = [asked.whole.opening(prompt) for prompt, _ in asked.pairs]
    queries = [asked.whole.text(prompt, reply) for prompt, reply in asked.pairs]
    return {"query": queries, "prompts": prompts, "labels": [None] * len(prompts)}


def _rewards(answer: Any) -> Found:
    rewards = answer["rewards"]
    each = rewards if isinstance(rewards, list) else [rewards]
    return [(place, _only(one, "numbers") if isinstance(one, list) else one) for place, one in enumerate(each)]


def _sglang_body(asked: Asked) -> dict[str, Any]:
    """Always a list, also of one text. The server's tokenizer adds its own beginning."""
    texts = [asked.whole.text(prompt, reply).removeprefix(asked.whole.bos) for prompt, reply in asked.pairs]
    return asked.named({"text": texts})


def _embeddings(answer: Any) -> Found:
    each = answer if isinstance(answer, list) else [answer]
    return [(place, _only(one["embedding"], "numbers")) for place, one in enumerate(each)]


def _evaluation_body(asked: Asked) -> dict[str, Any]:
    """The server wants some name and looks at none."""
    texts = [asked.whole.text(prompt, reply) for prompt, reply in asked.pairs]
    return {"model": asked.model or "reward-model", "messages": texts}


def _scores(answer: Any) -> Found:
    return list(enumerate(answer["scores"]))


def _only(values: Any, what: str) -> Any:
    if len(values) != 1:
        raise Unreadable(f"{len(values)} {what} for one text; wanted one, of a model with one output")
    return values[0]


class Unreadable(Exception):
    """An answer that a protocol does not give; says what came."""


_RAW = "raw, as asked for by"
_AS_GIVEN = "as the server gives them: the protocol has no other"
_CHAT = "messages, to which the server applies its chat template"
PROTOCOLS = {
    "tei-predict": Protocol(
        paths=("/predict",), group="any", body=_predict_body, read=_predictions, scale=f"{_RAW} raw_scores"
    ),
    "tei-rerank": Protocol(
        paths=(),
        own="/rerank",
        group="prompt",
        body=_tei_rerank_body,
        read=_ranked,
        scale=f"{_RAW} raw_scores",
    ),
    "rerank": Protocol(
        paths=("/rerank",),
        group="prompt",
        body=_rerank_body,
        read=_ranked,
        scale=f"{_RAW} raw_scores and use_activation, if the server knows either",
    ),
    "cohere": Protocol(
        paths=("/v2/rerank", "/v1/rerank"),
        group="prompt",
        body=_cohere_body,
        read=_ranked,
        scale="as the server gives them: the protocol has no raw scores, Cohere and Jina give 0 to 1",
    ),
    "vllm-score": Protocol(
        paths=("/score", "/v1/score"), group="any", body=_score_body, read=_vllm_scores, scale=f"{_RAW} use_activation"
    ),
    "vllm-classify": Protocol(
        paths=("/classify", "/v1/classify"),
        group="one",
        body=_messages_body,
        read=_classes,
        scale=f"{_RAW} use_activation",
        input=_CHAT,
    ),
    "vllm-pooling": Protocol(
        paths=("/pooling",),
        group="one",
        body=_messages_body,
        read=_pooled,
        scale=f"{_RAW} use_activation",
        input=_CHAT,
    ),
    "openrlhf": Protocol(
        paths=("/get_reward",),
        group="any",
        body=_reward_body,
        read=_rewards,
        scale=_AS_GIVEN,
        input="{whole}; `prompts` holds all but the reply",
    ),
    "sglang-classify": Protocol(
        paths=(),
        own="/classify",
        group="any",
        body=_sglang_body,
        read=_embeddings,
        scale="raw: the output of the model's head",
        input="{whole}",
    ),
    "llama-factory": Protocol(
        paths=("/score/evaluation", "/v1/score/evaluation"),
        own="/v1/score/evaluation",
        group="any",
        body=_evaluation_body,
        read=_scores,
        scale=_AS_GIVEN,
        input="{whole}",
    ),
}


def labelled(prompt: Prompt) -> str:
    """A conversation as one string.

    >>> labelled((Turn("user", "Why?"), Turn("assistant", "")))
    'User: Why?\\n\\nAssistant: '
    """
    return "\n\n".join(f"{turn.role.capitalize()}: {spoken(turn)}" for turn in prompt)


def query_of(prompt: Prompt, *, turns: Turns = "all") -> str:
    """A prompt as one string: its text where it is one user turn, else labelled; or the last user turn alone."""
    if turns == "last":
        said = [turn for turn in prompt if turn.role == "user"]
        return spoken(said[-1] if said else prompt[-1])
    return spoken(prompt[0]) if len(prompt) == 1 and prompt[0].role == "user" else labelled(prompt)


QUERIES = {
    "all": "prompt and reply as two texts; a prompt of several turns is one text of 'User: ...', 'Assistant: ...'",
    "last": "last user turn and reply as two texts",
}
"""What `query_of` does, for the record."""


LABELLED = Whole(
    text=lambda prompt, reply: labelled((*prompt, Turn("assistant", reply))),
    opening=lambda prompt: labelled((*prompt, Turn("assistant", ""))),
    said="one text of 'User: ...', a blank line, 'Assistant: ' and the reply, without a chat template",
)


def by_template(name: str) -> Whole:
    """Whole texts as the chat template of a tokenizer writes them.

    Args:
        name: a folder or hub id; no code of it is run.

    Raises:
        BadInput: no tokenizer there, or one without a chat template; when used, a prompt that the template refuses.
    """
    import transformers  # costs seconds, so not at the top

    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # a broken folder makes transformers raise nearly anything
        raise BadInput(f"{name} has no tokenizer to take the chat template of ({_line(error)})") from error
    template: Any = tokenizer.chat_template
    template = template.get("default") if isinstance(template, dict) else template
    if not (template and isinstance(template, str)):
        raise BadInput(f"the tokenizer of {name} has no chat template as a text; name a model that has one")

    def written(turns: Prompt, cue: bool) -> str:
        messages = [turn.message() for turn in turns]
        try:
            return written_by(template, messages, tokenizer.special_tokens_map, cue=cue)
        except BadInput as error:
            raise BadInput(f"{name}: {error}") from error

    def text(prompt: Prompt, reply: str) -> str:
        return written((*prompt, Turn("assistant", reply)), cue=False)

    if text((Turn("user", "a"),), "b") == text((Turn("user", "a"),), "c"):
        raise BadInput(
            f"the chat template of {name} writes the same for every reply; name a model whose template does not"
        )
    return Whole(
        text=text,
        opening=lambda prompt: written(prompt, cue=True),
        said=f"one text, written by the chat template of {name}",
        bos=tokenizer.bos_token or "",
    )


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
