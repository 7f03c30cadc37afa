"""A reward model behind an HTTP server as a scorer: which protocol it speaks, and the faults that servers have.

The protocols are in `dialects.py`, told apart by the URL's path and by what the server says of itself, or stated; raw
scores are asked for wherever a protocol has a way to. Surprising:
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
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import SplitResult, urlsplit, urlunsplit

from prefrank.checks import check_number, check_whole
from prefrank.errors import BadInput, BadModel, NotFound, printable, short, suggest
from prefrank.evaluation.dialects import (
    LABELLED,
    PROTOCOLS,
    QUERIES,
    Asked,
    Found,
    Grouping,
    Pair,
    Turns,
    Unreadable,
    Whole,
    by_template,
    query_of,
)
from prefrank.evaluation.exchange import Answer, exchange
from prefrank.types import Prompt, Score, Turn

if TYPE_CHECKING:
    import httpx

RETRIED = (429, 500, 502, 503, 504)
"""Overload, and what proxies and routers answer for a worker that is gone (verl's router: 500)."""

HALVED = (413, 422, 424)
"""Too much at once: TEI answers 422 (413 up to version 1.8), and 424 for a whole batch of which one score is NaN."""

LONGEST_WAIT_S = 60.0
ABOUT_S = 10.0
"""For all answers about the server itself, which not all give."""

SHOWN = 200
"""Characters of an answer in an error message."""

LONGEST_NAME = 500
"""Characters of the name that a server gives its model; a longer one is passed over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How to speak to a server.

    Args:
        protocol: name in PROTOCOLS; by default the URL's path tells.
        model: name of the model to ask for; by default the first one the server lists.
        key: sent as a bearer token, and kept nowhere.
        turns: of a prompt, all (several become one labelled transcript) or the last user turn alone, where the
            protocol takes no messages and not the whole as one text.
        chat_template: folder or hub id whose tokenizer's chat template writes prompt and reply as one text, where the
            protocol takes that; by default the labelled transcript.
        batch: pairs in a request, where the protocol takes several; less if the server says so.
        concurrency: requests at once.
        timeout_s: for one whole answer.
        tries: for one request, on overload, broken connections and time-outs.
        wait_s: before the second try; doubles each time. A Retry-After header is obeyed, up to a minute.
    """

    protocol: str | None = None
    model: str | None = None
    key: str | None = field(default=None, repr=False)
    turns: Turns = "all"
    chat_template: str | None = None
    batch: int = 32
    concurrency: int = 4
    timeout_s: float = 60.0
    tries: int = 6
    wait_s: float = 0.5

    def __post_init__(self) -> None:
        if self.protocol is not None and self.protocol not in PROTOCOLS:
            raise BadInput(f"the protocol {self.protocol!r} is unknown{suggest(str(self.protocol), PROTOCOLS)}")
        if self.turns not in get_args(Turns):
            raise BadInput(f"turns is {self.turns!r}; wanted one of {', '.join(get_args(Turns))}")
        for name, value in (("batch", self.batch), ("concurrency", self.concurrency), ("tries", self.tries)):
            check_whole(name, value, least=1, most=MOST[name])
        check_number("timeout_s", self.timeout_s, above=0.0)
        check_number("wait_s", self.wait_s, least=0.0)
        if self.key is not None and not (isinstance(self.key, str) and self.key.isascii() and self.key.isprintable()):
            raise BadInput("the key of a server holds characters that no header can; copy it again, without line ends")


MOST = {"batch": 1 << 20, "concurrency": 1024, "tries": 100}
"""Of the whole numbers in `ServerOptions`."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answered: where to post, how, and what it says of its model.

    Args:
        url: where requests go.
        protocol: name in PROTOCOLS.
        model: as it calls it; None where it does not say and none was asked for.
        batch: pairs in a request.
        options: as given.
        whole: how prompt and reply become one text, where the protocol takes one.
    """

    url: str
    protocol: str
    model: str | None
    revision: str | None
    batch: int
    options: ServerOptions
    whole: Whole = LABELLED

    @property
    def address(self) -> str:
        """For messages and records: without the query, in which some servers want a key."""
        return self.url.partition("?")[0]

    @property
    def fingerprint(self) -> str:
        return f"{self.address}#{self.model or 'unnamed'}" + (f"@{self.revision}" if self.revision else "")

    def format(self, doubt: str) -> dict[str, Any]:
        """What a record says of how the server was used, and of its scores (`doubt` as `open_server` gives it)."""
        scale = PROTOCOLS[self.protocol].scale
        return {
            "url": self.address,
            "protocol": self.protocol,
            "server_model": self.model,
            "server_revision": self.revision,
            "input": PROTOCOLS[self.protocol].input.format(whole=self.whole.said) or QUERIES[self.options.turns],
            "scores": f"{scale}; {doubt}" if doubt else scale,
            "truncation": "the server's own; it does not tell what it cut",
            "batch": self.batch,
        }


def open_server(url: str, options: ServerOptions) -> tuple[Server, str]:
    """Find out the protocol and the model, and score three probes; gives the server and what its scores may be other
    than raw scores, "" for nothing.

    Raises:
        BadInput: a URL that cannot be used, or of which the protocol cannot be told; a chat template that is not there,
            or for a protocol that takes no whole texts.
        NotFound: nothing answers there.
        BadModel: it answers otherwise than the protocol says.
    """
    parts = _checked(url)
    with _client(options) as client:
        ask = partial(_ask_about, client, until=time.monotonic() + min(ABOUT_S, options.timeout_s))
        info = ask(_sibling(parts, "/info"))
        name, target = _protocol_of(parts, options.protocol, tei="model_type" in info)
        if name == "vllm-classify" and options.protocol is None and _is_sglang(ask, parts):
            name = "sglang-classify"
        whole = _whole(name, options.chat_template)
        model, revision = _model_of(info)
        for page in ("/v1/models", "/models"):
            model = model or _model_of(ask(_sibling(parts, page)))[0]
        most = info.get("max_client_batch_size")
        server = Server(
            url=urlunsplit(target),
            protocol=name,
            model=options.model or model,
            revision=revision if options.model in (None, model) else None,
            batch=min(options.batch, most) if type(most) is int and most > 0 else options.batch,
            options=options,
            whole=whole,
        )
        values = _all_values(client, server, PROBES)
    return server, _doubt(values)


def _is_sglang(ask: Callable[[str], dict[str, Any]], parts: SplitResult) -> bool:
    """SGLang's own /classify has vLLM's path; its /v1/classify speaks as vLLM's."""
    if not parts.path.rstrip("/").endswith("/classify") or parts.path.rstrip("/").endswith("/v1/classify"):
        return False
    pages = ("/get_model_info", "/model_info")  # the former name and the present one
    return any("model_path" in ask(_sibling(parts, page)) for page in pages)


def _whole(protocol: str, chat_template: str | None) -> Whole:
    if chat_template is None:
        return LABELLED
    if "{whole}" not in PROTOCOLS[protocol].input:
        taken = ", ".join(name for name, one in PROTOCOLS.items() if "{whole}" in one.input)
        raise BadInput(f"{protocol} takes no whole texts, so no chat template can be used; only {taken} do")
    return by_template(chat_template)


PROBES: tuple[Pair, ...] = tuple(
    ((Turn("user", prompt),), reply)
    for prompt, reply in (
        ("What makes bread dough rise?", "Yeast: it turns sugar into carbon dioxide, and the bubbles lift the dough."),
        ("What makes bread dough rise?", "no no no no"),
        ("How far away is the Moon?", "x"),
    )
)


def _doubt(values: Sequence[float]) -> str:
    if len(set(values)) == 1:
        return f"EQUAL on {len(values)} unlike probes: perhaps a softmax over one output"
    if all(0 <= value <= 1 for value in values):
        return f"within 0 to 1 on {len(values)} probes: perhaps probabilities"
    return ""


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
    """By daemon threads: an executor would keep a stopped process until the last request has run out of tries."""
    places = _requests(pairs, PROTOCOLS[server.protocol].group, server.batch)
    asked = deque(places)
    answers: Queue[tuple[list[int], list[float] | Exception]] = Queue()

    def work() -> None:
        while True:
            try:
                chunk = asked.popleft()
            except IndexError:
                return
            try:
                answers.put((chunk, _values(client, server, [pairs[place] for place in chunk])))
            except Exception as error:  # raised where the answers are awaited
                answers.put((chunk, error))

    values = [math.nan] * len(pairs)
    try:
        for _ in range(min(server.options.concurrency, len(places))):
            Thread(target=work, daemon=True).start()
        for _ in places:
            chunk, found = answers.get()
            if isinstance(found, Exception):
                raise found
            for place, value in zip(chunk, found, strict=True):
                values[place] = value
    finally:
        asked.clear()
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
    body = protocol.body(Asked(pairs, partial(query_of, turns=options.turns), server.whole, server.model))
    answer = _post(client, server.url, body, options)
    if answer.status in HALVED and len(pairs) > 1:
        half = len(pairs) // 2
        return _values(client, server, pairs[:half]) + _values(client, server, pairs[half:])
    if answer.status == 424 and re.search(r"\bnan\b", answer.text, re.IGNORECASE):
        return [math.nan]  # TEI: "score is NaN"
    if not answer.is_success:
        raise BadModel(f"{server.address} answered with status {answer.status}: {_shown(answer.text)}{_hint(answer)}")
    try:
        return _in_order(protocol.read(answer.json()), pairs)
    except (Unreadable, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        said = str(error) if isinstance(error, Unreadable) else f"it is no answer of {server.protocol}"
        raise BadModel(
            f"{server.address} was asked for {len(pairs)} scores and answered {_shown(answer.text)}: {said}."
            " Is it another protocol, or a model of another kind?"
        ) from error


def _shown(text: str) -> str:
    """An answer for an error message, on one line and cut; control characters as their escapes."""
    line = printable(" ".join(text[: 10 * SHOWN].split())) or "nothing"
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}..."


def _hint(answer: Answer) -> str:
    if 300 <= answer.status < 400 and "location" in answer.headers:
        return f" (it sends on to {_shown(answer.headers['location'])}; give that address if it is the right one)"
    hints = {
        401: " (it wants a key)",
        403: " (the key is not allowed to)",
        404: " (is the path right?)",
        405: " (is it a reward model that it serves?)",
    }
    return hints.get(answer.status, "")


def _in_order(found: Found, pairs: Sequence[Pair]) -> list[float]:
    """Scores by place, each there once."""
    values: dict[int, float] = {}
    for place, value in found:
        if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < len(pairs):
            raise Unreadable(f"a score for text {_shown(short(place))} of {len(pairs)}")
        if place in values:
            raise Unreadable(f"two scores for text {place}")
        values[place] = _number(value)
    if missing := [place for place in range(len(pairs)) if place not in values]:
        reply = pairs[missing[0]][1]
        raise Unreadable(
            f"no score for {len(missing)} of {len(pairs)} texts, the first is text {missing[0]} ({reply[:60]!r})"
        )
    return [values[place] for place in range(len(pairs))]


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unreadable(f"{_shown(short(value))} for a score")
    return float(value)


def _post(client: "httpx.Client", url: str, body: dict[str, Any], options: ServerOptions) -> Answer:
    """The answer, whatever its status, once the server is neither overloaded nor out of reach."""
    import httpx

    content, what = json.dumps(body).encode(), ""
    for number in range(options.tries):
        wait = options.wait_s * 2**number
        try:
            answer = exchange(client, "POST", url, content=content, seconds=options.timeout_s)
            if answer.status not in RETRIED:
                return answer
            what = f"answered with status {answer.status}: {_shown(answer.text)}"
            wait = _retry_after(answer) or wait
        except httpx.TimeoutException:
            what = f"gave no answer in {options.timeout_s:g} s"
        except httpx.RequestError as error:
            what = f"could not be reached or broke off ({type(error).__name__}: {_shown(str(error))})"
        if number + 1 < options.tries:
            time.sleep(min(wait, LONGEST_WAIT_S))
    raise NotFound(
        f"{url.partition('?')[0]} {what}; tried {options.tries} times. Is it up, and not asked for too much at once?"
    )


def _retry_after(answer: Answer) -> float | None:
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
    try:
        return httpx.Client(headers=headers, timeout=options.timeout_s, limits=limits)
    except (ValueError, ImportError, httpx.InvalidURL) as error:  # of the environment's proxies
        raise BadInput(f"the environment's proxy cannot be used ({error}); correct HTTP_PROXY and its like") from None


def _ask_about(client: "httpx.Client", url: str, *, until: float) -> dict[str, Any]:
    """What the server says of itself there; {} where it says nothing, or nothing in time or of a size."""
    import httpx

    seconds = until - time.monotonic()
    if seconds <= 0:
        return {}
    try:
        found = exchange(client, "GET", url, seconds=seconds).json()
    except httpx.ConnectError as error:
        raise NotFound(f"nothing answers at {url} ({error}); is the server up, and the address right?") from error
    except (httpx.RequestError, BadModel):
        return {}
    except ValueError as error:
        if isinstance(error, BadInput):
            raise
        return {}
    return found if isinstance(found, dict) else {}


def _model_of(info: dict[str, Any]) -> tuple[str | None, str | None]:
    """Name and revision in TEI's /info, or in a list of models as OpenAI's API gives it."""
    if name := _name(info.get("model_id")):
        return name, _name(info.get("model_sha"))
    listed = info.get("data")
    first = listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], dict) else {}
    return _name(first.get("id")), None


def _name(value: Any) -> str | None:
    """A name that a server gives; None where it is none to be shown and asked for."""
    return value if isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and printable(value) == value else None


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
    own = PROTOCOLS[name].own or PROTOCOLS[name].paths[0]
    return name, parts._replace(path=own) if bare else parts
