"""A reward model behind an HTTP server as a scorer, made from its URL.

The wire formats are in `prefrank.wire`. What to know about servers:
- They differ in what they take: a prompt and a reply as a pair, a list of messages, or one string. The record (`input`)
  says what a conversation of several turns became.
- Many apply a sigmoid unless asked not to, some even then, and no answer says so. Raw scores are asked for wherever the
  format has a way to; three probes at the start look at the range, and the record (`scores`) says what they showed.
- A score that is null or NaN is a failure of that reply (NaN, counted as lost). A missing score is an error.
- Only our own says how many tokens it scored and what it cut. Of the others both are 0 in the scores, and the record
  (`truncation`) says so.
"""

import json
import math
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal, get_args

from prefrank.checks import check_number, check_whole
from prefrank.errors import BadInput, BadModel, suggest
from prefrank.scoring.exchange import Answer, address, open_client, post, shown
from prefrank.scoring.server_info import find_server
from prefrank.scoring.server_template import template_writing
from prefrank.types import Prompt, Score, Turn
from prefrank.wire import DIALECTS
from prefrank.wire.dialect import Dialect, Told, Unreadable, scores_of
from prefrank.wire.inputs import LABELLED, OneText, OpenedText, Pair, Turns, Writing, description_of, inputs_of

if TYPE_CHECKING:
    import httpx

HALVED = (413, 422, 424)
"""Too much at once: TEI answers 422 (413 up to version 1.8), and 424 for a whole batch of which one score is NaN."""

_TOLD = "the server's own, counted with each score"

MOST = {"batch": 1 << 20, "concurrency": 1024, "tries": 100}
"""Of the whole numbers in `ServerOptions`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How to speak to a server.

    Args:
        protocol: name in `prefrank.wire.DIALECTS`; by default the URL's path says which.
        model: name of the model to ask for; by default the first one the server lists.
        key: sent as a bearer token, and kept nowhere.
        turns: of a prompt, all (several become one labeled transcript) or the last user turn alone, where the
            protocol takes no messages and not the whole as one text.
        chat_template: folder or hub id whose tokenizer's chat template writes prompt and reply as one text, where the
            protocol takes that; by default the labeled transcript.
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
        if self.protocol is not None and self.protocol not in DIALECTS:
            raise BadInput(f"the protocol {self.protocol!r} is unknown{suggest(str(self.protocol), DIALECTS)}")
        if self.turns not in get_args(Turns):
            raise BadInput(f"turns is {self.turns!r}; wanted one of {', '.join(get_args(Turns))}")
        for name, value in (("batch", self.batch), ("concurrency", self.concurrency), ("tries", self.tries)):
            check_whole(name, value, least=1, most=MOST[name])
        check_number("timeout_s", self.timeout_s, above=0.0)
        check_number("wait_s", self.wait_s, least=0.0)
        if self.key is not None and not (isinstance(self.key, str) and self.key.isascii() and self.key.isprintable()):
            raise BadInput("the key of a server holds characters that no header can; copy it again, without line ends")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteScorer:
    """A server that answered: where to post, how, and what it says about its model.

    Args:
        url: where requests go.
        model: as the server calls it; None where it does not say and none was asked for.
        revision: of the model, where the server tells one.
        batch: pairs in a request.
        options: as given.
        writing: how prompt and reply become one text, where the dialect takes one.
        doubt: what its scores may be other than raw scores; "" for nothing.
    """

    url: str
    dialect: Dialect[Any]
    model: str | None
    revision: str | None
    batch: int
    options: ServerOptions
    writing: Writing = LABELLED
    doubt: str = ""

    @property
    def fingerprint(self) -> str:
        return f"{address(self.url)}#{self.model or 'unnamed'}" + (f"@{self.revision}" if self.revision else "")

    @property
    def format(self) -> dict[str, Any]:
        """What a record says of how the server was used, and of its scores."""
        scale = self.dialect.scale
        return {
            "url": address(self.url),
            "protocol": self.dialect.name,
            "server_model": self.model,
            "server_revision": self.revision,
            "input": description_of(self.dialect.takes, turns=self.options.turns, writing=self.writing),
            "scores": f"{scale}; {self.doubt}" if self.doubt else scale,
            "truncation": _TOLD if self.dialect.tells_cuts else "the server's own; it does not tell what it cut",
            "batch": self.batch,
        }

    def score_pairs(self, pairs: Sequence[Pair]) -> list[Score]:
        """Score pairs, in order. NaN where the server gives null or NaN.

        Raises:
            NotFound: no answer after all tries.
            BadModel: an answer that is not a score for each pair.
        """
        with _client(self.options) as client:
            told = _told(client, self, pairs)
        model = self.fingerprint
        return [
            Score(each.value, each.tokens, each.cut_prompt, each.cut_reply, model, each.past_trained) for each in told
        ]


def open_server(url: str, options: ServerOptions | None = None) -> RemoteScorer:
    """Find out which dialect the server speaks and which model it has, and score three probes.

    Raises:
        BadInput: a URL that cannot be used, or that does not show which dialect is meant; a chat template that is not
            there, or for a dialect that takes no whole texts.
        NotFound: nothing answers there.
        BadModel: its answers are not those of the dialect.
    """
    options = options or ServerOptions()
    with _client(options) as client:
        server = find_server(client, url, wanted=options.protocol, timeout_s=options.timeout_s)
        scorer = RemoteScorer(
            url=server.url,
            dialect=server.dialect,
            model=options.model or server.model,
            revision=server.revision if options.model in (None, server.model) else None,
            batch=min(options.batch, server.max_batch or options.batch),
            options=options,
            writing=_writing(server.dialect, options.chat_template),
        )
        return replace(scorer, doubt=_doubt([told.value for told in _told(client, scorer, PROBES)]))


def _client(options: ServerOptions) -> "httpx.Client":
    return open_client(key=options.key, timeout_s=options.timeout_s, connections=options.concurrency)


def _writing(dialect: Dialect[Any], chat_template: str | None) -> Writing:
    if chat_template is None:
        return LABELLED
    whole = [known.name for known in DIALECTS.values() if known.takes in (OneText, OpenedText)]
    if dialect.name not in whole:
        raise BadInput(
            f"{dialect.name} takes no whole texts, so no chat template can be used; only {', '.join(whole)} do"
        )
    return template_writing(chat_template)


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


def _told(client: "httpx.Client", scorer: RemoteScorer, pairs: Sequence[Pair]) -> list[Told]:
    """The scores by daemon threads: an executor would hold up a stopped process until its last request gives up."""
    requests = _requests(pairs, scorer.dialect.holds, scorer.batch)
    waiting = deque(requests)
    answers: Queue[tuple[list[int], list[Told] | Exception]] = Queue()

    def work() -> None:
        while True:
            try:
                places = waiting.popleft()
            except IndexError:
                return
            try:
                answers.put((places, _ask(client, scorer, [pairs[place] for place in places])))
            except Exception as error:  # raised where the answers are awaited
                answers.put((places, error))

    told = [Told(math.nan)] * len(pairs)
    try:
        for _ in range(min(scorer.options.concurrency, len(requests))):
            Thread(target=work, daemon=True).start()
        for _ in requests:
            places, answer = answers.get()
            if isinstance(answer, Exception):
                raise answer
            for place, value in zip(places, answer, strict=True):
                told[place] = value
    finally:
        waiting.clear()
    return told


def _requests(pairs: Sequence[Pair], holds: Literal["pairs", "replies", "reply"], batch: int) -> list[list[int]]:
    """Places of the pairs of each request."""
    size = 1 if holds == "reply" else batch
    groups: dict[Prompt | None, list[int]] = {}
    for place, (prompt, _) in enumerate(pairs):
        groups.setdefault(prompt if holds == "replies" else None, []).append(place)
    return [places[start : start + size] for places in groups.values() for start in range(0, len(places), size)]


def _ask(client: "httpx.Client", scorer: RemoteScorer, pairs: Sequence[Pair]) -> list[Told]:
    """The scores of one request's pairs; of its halves, where the server refuses it as a whole."""
    dialect, options = scorer.dialect, scorer.options
    inputs = inputs_of(pairs, dialect.takes, turns=options.turns, writing=scorer.writing, adds_bos=dialect.adds_bos)
    content = json.dumps(dialect.write_request(inputs, scorer.model)).encode()
    answer = post(client, scorer.url, content, timeout_s=options.timeout_s, tries=options.tries, wait_s=options.wait_s)
    if answer.status in HALVED and len(pairs) > 1:
        half = len(pairs) // 2
        return _ask(client, scorer, pairs[:half]) + _ask(client, scorer, pairs[half:])
    if answer.status == 424 and re.search(r"\bnan\b", answer.text, re.IGNORECASE):
        return [Told(math.nan)]  # TEI: "score is NaN"
    if not answer.is_success:
        status = f"status {answer.status}: {shown(answer.text)}{_hint(answer)}"
        raise BadModel(f"{address(scorer.url)} answered with {status}")
    try:
        return scores_of(dialect, answer.content, [reply for _, reply in pairs])
    except Unreadable as error:
        raise BadModel(
            f"{address(scorer.url)} was asked for {len(pairs)} scores and answered {shown(answer.text)}: {error}."
            " Is it another protocol, or a model of another kind?"
        ) from error


def _hint(answer: Answer) -> str:
    if 300 <= answer.status < 400 and "location" in answer.headers:
        return f" (it sends on to {shown(answer.headers['location'])}; give that address if it is the right one)"
    hints = {
        401: " (it wants a key)",
        403: " (the key is not allowed to)",
        404: " (is the path right?)",
        405: " (is it a reward model that it serves?)",
    }
    return hints.get(answer.status, "")
