"""A reward model behind an HTTP server as a scorer: the published protocols, and the faults that servers have.

One `Protocol` value per wire format, told apart by the URL's path or stated; raw scores are asked for wherever a
protocol has a way to. Surprising:
- Servers differ in what they take. Some take a prompt and a reply as a pair, some the messages, some one string; what
  a conversation of several turns becomes is stated in the record (`input`), since no two do the same.
- Many squash scores with a sigmoid unless told otherwise and some whatever they are told, which no answer says. Three
  probes at the start look at the range, and `scores` in the record says what was found.
- A score that is null or NaN is a failure of that reply (NaN, counted as lost). A score that is missing is an error.
- Servers do not tell tokens or what they cut: those are 0 in the scores, `truncation` in the record says so.
"""

import json
import math
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args
from urllib.parse import SplitResult, urlsplit, urlunsplit

from prefrank.errors import BadInput, BadModel, NotFound, suggest
from prefrank.types import Prompt, Score, Turn

if TYPE_CHECKING:
    import httpx

Pair = tuple[Prompt, str]
Turns = Literal["all", "last"]
Grouping = Literal["any", "prompt", "one"]

RETRIED = (429, 500, 502, 503, 504)
"""Overload, and what proxies and routers answer for a worker that is gone (verl's router: 500)."""

HALVED = (413, 422, 424)
"""Too much at once: TEI answers 422 (413 up to version 1.8), and 424 for a whole batch of which one score is NaN."""

LONGEST_WAIT_S = 60.0
ABOUT_S = 10.0
"""For an answer about the server itself, which not all give."""

SHOWN = 200
"""Characters of an answer in an error message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How to speak to a server.

    Args:
        protocol: name in PROTOCOLS; by default the URL's path tells.
        model: name of the model to ask for; by default the first one the server lists.
        key: sent as a bearer token, and kept nowhere.
        turns: of a prompt, all (several become one labelled transcript) or the last user turn alone, where the
            protocol takes no messages.
        batch: pairs in a request, where the protocol takes several; less if the server says so.
        concurrency: requests at once.
        timeout_s: for one answer.
        tries: for one request, on overload, broken connections and time-outs.
        wait_s: before the second try; doubles each time. A Retry-After header is obeyed, up to a minute.
    """

    protocol: str | None = None
    model: str | None = None
    key: str | None = field(default=None, repr=False)
    turns: Turns = "all"
    batch: int = 32
    concurrency: int = 4
    timeout_s: float = 60.0
    tries: int = 6
    wait_s: float = 0.5

    def __post_init__(self) -> None:
        if self.protocol is not None and self.protocol not in PROTOCOLS:
            raise BadInput(f"the protocol {self.protocol!r} is unknown{suggest(self.protocol, PROTOCOLS)}")
        if self.turns not in get_args(Turns):
            raise BadInput(f"turns is {self.turns!r}; wanted one of {', '.join(get_args(Turns))}")
        for name, value in (("batch", self.batch), ("concurrency", self.concurrency), ("tries", self.tries)):
            if value < 1:
                raise BadInput(f"{name} is {value}; wanted at least 1")


@dataclass(frozen=True, slots=True)
class Asked:
    """What one request asks for: pairs, the prompt as one string, the model's name."""

    pairs: Sequence[Pair]
    query: Callable[[Prompt], str]
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
        paths: endings of a URL that mean it; the first is added to a URL that has no path.
        group: what one request may hold: any pairs, replies to one prompt, or one pair.
        body: of the request.
        read: the scores in an answer.
        input: what a pair becomes, for the record; "" for (prompt, reply) as two texts.
        scale: which scores were asked for, for the record.
    """

    paths: tuple[str, ...]
    group: Grouping
    body: Callable[[Asked], dict[str, Any]]
    read: Callable[[Any], Found]
    scale: str
    input: str = ""


# The bodies and answers of text-embeddings-inference (router/src/http/types.rs), vLLM (entrypoints/pooling), Infinity
# (fastapi_schemas), Cohere's and Jina's rerank pages, and OpenRLHF (openrlhf/utils/agent.py, cli/serve_rm.py).


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
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    body = {"messages": messages, "add_generation_prompt": False, "truncate_prompt_tokens": -1}
    return asked.named(body | _VLLM_RAW)


def _classes(answer: Any) -> Found:
    return [(one["index"], _only(one["probs"], "classes")) for one in answer["data"]]


def _pooled(answer: Any) -> Found:
    return [(one["index"], _only(one["data"], "numbers")) for one in answer["data"]]


def _reward_body(asked: Asked) -> dict[str, Any]:
    prompts = [labelled((*prompt, Turn("assistant", ""))) for prompt, _ in asked.pairs]
    queries = [prompt + reply for prompt, (_, reply) in zip(prompts, asked.pairs, strict=True)]
    return {"query": queries, "prompts": prompts, "labels": [None] * len(prompts)}


def _rewards(answer: Any) -> Found:
    rewards = answer["rewards"]
    each = rewards if isinstance(rewards, list) else [rewards]
    return [(place, _only(one, "numbers") if isinstance(one, list) else one) for place, one in enumerate(each)]


def _only(values: Any, what: str) -> Any:
    if len(values) != 1:
        raise _Unreadable(f"{len(values)} {what} for one text; wanted one, of a model with one output")
    return values[0]


class _Unreadable(Exception):
    """An answer that a protocol does not give; says what came."""


_RAW = "raw, as asked for by"
_CHAT = "messages, to which the server applies its chat template"
PROTOCOLS = {
    "tei-predict": Protocol(
        paths=("/predict",), group="any", body=_predict_body, read=_predictions, scale=f"{_RAW} raw_scores"
    ),
    "tei-rerank": Protocol(paths=(), group="prompt", body=_tei_rerank_body, read=_ranked, scale=f"{_RAW} raw_scores"),
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
        scale="as the server gives them: the protocol has no other",
        input="one string, 'User: ...', a blank line, 'Assistant: ' and the reply; `prompts` holds all but the reply",
    ),
}


def labelled(prompt: Prompt) -> str:
    """A conversation as one string.

    >>> labelled((Turn("user", "Why?"), Turn("assistant", "")))
    'User: Why?\\n\\nAssistant: '
    """
    return "\n\n".join(f"{turn.role.capitalize()}: {turn.text}" for turn in prompt)


def query_of(prompt: Prompt, *, turns: Turns = "all") -> str:
    """A prompt as one string: its text where it is one user turn, else labelled; or the last user turn alone."""
    if turns == "last":
        said = [turn.text for turn in prompt if turn.role == "user"]
        return said[-1] if said else prompt[-1].text
    return prompt[0].text if len(prompt) == 1 and prompt[0].role == "user" else labelled(prompt)


QUERIES = {
    "all": "prompt and reply as two texts; a prompt of several turns is one text of 'User: ...', 'Assistant: ...'",
    "last": "last user turn and reply as two texts",
}
"""What `query_of` does, for the record."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answered: where to post, how, and what it says of its model.

    Args:
        url: where requests go.
        protocol: name in PROTOCOLS.
        model: as it calls it; None where it does not say and none was asked for.
        batch: pairs in a request.
        options: as given.
    """

    url: str
    protocol: str
    model: str | None
    revision: str | None
    batch: int
    options: ServerOptions

    @property
    def address(self) -> str:
        """For messages and records: without the query, in which some servers want a key."""
        return self.url.partition("?")[0]

    @property
    def fingerprint(self) -> str:
        return f"{self.address}#{self.model or 'unnamed'}" + (f"@{self.revision}" if self.revision else "")

    def format(self, scale: str) -> dict[str, Any]:
        """What a record says of how the server was used."""
        return {
            "url": self.address,
            "protocol": self.protocol,
            "server_model": self.model,
            "server_revision": self.revision,
            "input": PROTOCOLS[self.protocol].input or QUERIES[self.options.turns],
            "scores": scale,
            "truncation": "the server's own; it does not tell what it cut",
            "batch": self.batch,
        }


def open_server(url: str, options: ServerOptions) -> tuple[Server, str]:
    """Find out the protocol and the model, and score three probes; gives the server and what its scores are.

    Raises:
        BadInput: a URL that cannot be used, or of which the protocol cannot be told.
        NotFound: nothing answers there.
        BadModel: it answers otherwise than the protocol says.
    """
    parts = _checked(url)
    with _client(options) as client:
        info = _ask_about(client, _sibling(parts, "/info"))
        name, target = _protocol_of(parts, options.protocol, tei="model_type" in info)
        model, revision = _model_of(info)
        for page in ("/v1/models", "/models"):
            model = model or _model_of(_ask_about(client, _sibling(parts, page)))[0]
        most = info.get("max_client_batch_size")
        server = Server(
            url=urlunsplit(target),
            protocol=name,
            model=options.model or model,
            revision=revision if options.model in (None, model) else None,
            batch=min(options.batch, most) if isinstance(most, int) and most > 0 else options.batch,
            options=options,
        )
        values = _all_values(client, server, PROBES)
    return server, _scale(values, PROTOCOLS[name].scale)


PROBES: tuple[Pair, ...] = tuple(
    ((Turn("user", prompt),), reply)
    for prompt, reply in (
        ("What makes bread dough rise?", "Yeast: it turns sugar into carbon dioxide, and the bubbles lift the dough."),
        ("What makes bread dough rise?", "no no no no"),
        ("How far away is the Moon?", "x"),
    )
)


def _scale(values: Sequence[float], asked: str) -> str:
    if len(set(values)) == 1:
        return f"{asked}; EQUAL on {len(values)} unlike probes: perhaps a softmax over one output"
    if all(0 <= value <= 1 for value in values):
        return f"{asked}; within 0 to 1 on {len(values)} probes: perhaps probabilities"
    return asked


def score_pairs(pairs: Sequence[Pair], *, server: Server) -> list[Score]:
    """Score pairs, in their order. NaN where the server gives null or NaN.

    Raises:
        NotFound: no answer after all tries.
        BadModel: an answer that is no score for each pair.
    """
    with _client(server.options) as client:
        values = _all_values(client, server, pairs)
    return [Score(value, tokens=0, cut_prompt=0, cut_reply=0, model=server.fingerprint) for value in values]


def _all_values(client: "httpx.Client", server: Server, pairs: Sequence[Pair]) -> list[float]:
    places = _requests(pairs, PROTOCOLS[server.protocol].group, server.batch)
    values = [math.nan] * len(pairs)
    with ThreadPoolExecutor(server.options.concurrency) as pool:
        answers = pool.map(partial(_values, client, server), [[pairs[i] for i in chunk] for chunk in places])
        for chunk, found in zip(places, answers, strict=True):
            for place, value in zip(chunk, found, strict=True):
                values[place] = value
    return values


def _requests(pairs: Sequence[Pair], group: Grouping, batch: int) -> list[list[int]]:
    """Places of the pairs of each request."""
    size = 1 if group == "one" else batch
    groups: dict[Prompt | None, list[int]] = {}
    for place, (prompt, _) in enumerate(pairs):
        groups.setdefault(prompt if group == "prompt" else None, []).append(place)
    return [places[start : start + size] for places in groups.values() for start in range(0, len(places), size)]


def _values(client: "httpx.Client", server: Server, pairs: Sequence[Pair]) -> list[float]:
    """The scores of one request's pairs; of its halves, where the server refuses it as a whole."""
    protocol, options = PROTOCOLS[server.protocol], server.options
    body = protocol.body(Asked(pairs, partial(query_of, turns=options.turns), server.model))
    answer = _post(client, server.url, body, options)
    if answer.status_code in HALVED and len(pairs) > 1:
        half = len(pairs) // 2
        return _values(client, server, pairs[:half]) + _values(client, server, pairs[half:])
    if answer.status_code == 424 and re.search(r"\bnan\b", answer.text, re.IGNORECASE):
        return [math.nan]  # TEI: "score is NaN"
    if not answer.is_success:
        raise BadModel(
            f"{server.address} answered with status {answer.status_code}: {_shown(answer.text)}{_hint(answer)}"
        )
    try:
        return _in_order(protocol.read(json.loads(answer.content)), pairs)
    except (_Unreadable, ValueError, KeyError, IndexError, TypeError) as error:
        said = str(error) if isinstance(error, _Unreadable) else f"it is no answer of {server.protocol}"
        raise BadModel(
            f"{server.address} was asked for {len(pairs)} scores and answered {_shown(answer.text)}: {said}."
            " Is it another protocol, or a model of another kind?"
        ) from error


def _shown(text: str) -> str:
    """An answer for an error message, on one line and cut."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}..."


def _hint(answer: "httpx.Response") -> str:
    return {401: " (it wants a key)", 403: " (the key is not allowed to)", 404: " (is the path right?)"}.get(
        answer.status_code, ""
    )


def _in_order(found: Found, pairs: Sequence[Pair]) -> list[float]:
    """Scores by place, each there once."""
    values: dict[int, float] = {}
    for place, value in found:
        if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < len(pairs):
            raise _Unreadable(f"a score for text {place!r} of {len(pairs)}")
        if place in values:
            raise _Unreadable(f"two scores for text {place}")
        values[place] = _number(value)
    if missing := [place for place in range(len(pairs)) if place not in values]:
        reply = pairs[missing[0]][1]
        raise _Unreadable(
            f"no score for {len(missing)} of {len(pairs)} texts, the first is text {missing[0]} ({reply[:60]!r})"
        )
    return [values[place] for place in range(len(pairs))]


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Unreadable(f"{_shown(repr(value))} for a score")
    return float(value)


def _post(client: "httpx.Client", url: str, body: dict[str, Any], options: ServerOptions) -> "httpx.Response":
    """The answer, whatever its status, once the server is neither overloaded nor out of reach."""
    import httpx

    content, what = json.dumps(body).encode(), ""
    for number in range(options.tries):
        wait = options.wait_s * 2**number
        try:
            answer = client.post(url, content=content)
            if answer.status_code not in RETRIED:
                return answer
            what = f"answered with status {answer.status_code}: {_shown(answer.text)}"
            wait = _retry_after(answer) or wait
        except httpx.TimeoutException:
            what = f"gave no answer in {options.timeout_s:g} s"
        except httpx.RequestError as error:
            what = f"could not be reached or broke off ({type(error).__name__}: {error})"
        if number + 1 < options.tries:
            time.sleep(min(wait, LONGEST_WAIT_S))
    raise NotFound(
        f"{url.partition('?')[0]} {what}; tried {options.tries} times. Is it up, and not asked for too much at once?"
    )


def _retry_after(answer: "httpx.Response") -> float | None:
    """Seconds of a Retry-After header; a date there is passed over."""
    try:
        return max(0.0, float(answer.headers.get("retry-after", "")))
    except ValueError:
        return None


def _client(options: ServerOptions) -> "httpx.Client":
    try:
        import httpx
    except ImportError as error:
        raise NotFound("a server as a scorer needs httpx; pip install 'prefrank[evaluate]'") from error
    headers = {"content-type": "application/json"}
    if options.key:
        headers["authorization"] = f"Bearer {options.key}"
    limits = httpx.Limits(max_connections=options.concurrency)
    return httpx.Client(headers=headers, timeout=options.timeout_s, limits=limits)


def _ask_about(client: "httpx.Client", url: str) -> dict[str, Any]:
    """What the server says of itself there; {} where it says nothing."""
    import httpx

    try:
        found = client.get(url, timeout=ABOUT_S).json()
    except httpx.ConnectError as error:
        raise NotFound(f"nothing answers at {url} ({error}); is the server up, and the address right?") from error
    except (httpx.RequestError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _model_of(info: dict[str, Any]) -> tuple[str | None, str | None]:
    """Name and revision in TEI's /info, or in a list of models as OpenAI's API gives it."""
    if isinstance(info.get("model_id"), str):
        return info["model_id"], info["model_sha"] if isinstance(info.get("model_sha"), str) else None
    listed = info.get("data")
    first = listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], dict) else {}
    return (first["id"] if isinstance(first.get("id"), str) else None), None


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        usable = False
    if not usable:
        raise BadInput(f"{url} is no address of a server; wanted http://host:port/path")
    if parts.username or parts.password:
        raise BadInput("the address of a server holds a name or password; give a key instead, the address is recorded")
    return parts._replace(fragment="")


def _ending(path: str) -> tuple[str, str]:
    """(protocol, ending) of a URL's path; the longest ending counts, "" where none does."""
    known = [(name, ending) for name, protocol in PROTOCOLS.items() for ending in protocol.paths]
    matching = [(name, ending) for name, ending in known if path.rstrip("/").endswith(ending)]
    return max(matching, key=lambda each: len(each[1]), default=("", ""))


def _sibling(parts: SplitResult, path: str) -> str:
    """Another path of the same server."""
    trunk = parts.path.rstrip("/").removesuffix(_ending(parts.path)[1])
    return urlunsplit(parts._replace(path=trunk + path, query=""))


def _protocol_of(parts: SplitResult, wanted: str | None, *, tei: bool) -> tuple[str, SplitResult]:
    """The protocol and where to post: the path as given, or the protocol's own where there is none."""
    found, _ = _ending(parts.path)
    bare = parts.path in ("", "/")
    if found == "rerank" and tei:
        found = "tei-rerank"
    name = wanted or found or ("tei-predict" if bare and tei else "")
    if not name:
        endings = ", ".join(ending for protocol in PROTOCOLS.values() for ending in protocol.paths)
        raise BadInput(
            f"{urlunsplit(parts)} does not tell what the server speaks; end it in one of {endings},"
            f" or name the protocol: {', '.join(PROTOCOLS)}"
        )
    own = (PROTOCOLS[name].paths or ("/rerank",))[0]
    return name, parts._replace(path=own) if bare else parts
