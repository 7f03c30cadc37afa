"""What is known of a request once it is answered, for metrics and logs: gathered around the whole application.

application.add_middleware(recorded, recorders=(metrics, log))     # each is told once of each request
notes_of(request).refused = refused                                # a handler's part of it
"""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prefrank.wire.route import Answered, Question, Refused

_KEY = "prefrank.notes"
GONE = 499
"""Of a request whose client went before its answer."""


@dataclass(slots=True)
class Notes:
    """What a handler learns of its request, step by step.

    Args:
        dialect: "" of our own pages.
        scores: whether the path is one that scores.
    """

    dialect: str = ""
    scores: bool = False
    question: Question | None = None
    answered: Answered | None = None
    refused: Refused | None = None

    @property
    def model(self) -> str | None:
        """The model that answered."""
        return self.answered.about.name if self.answered else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Handled:
    """A request that has its answer.

    Args:
        id: of the request, as the header `x-request-id` of its answer says.
        began: seconds since 1970.
        path: as it was asked for.
        known: whether the server has such a path.
        status: of the answer; `GONE` where the client went before it.
        seconds: until all of the answer was handed over.
        client: address it came from, which may be a proxy's; "" where there is none.
        key: what the request's key is called, never the key; None without one.
        fault: the type of an error that nothing expected; "" without one.
    """

    id: str
    began: float
    method: str
    path: str
    known: bool
    status: int
    seconds: float
    client: str
    notes: Notes
    key: str | None = None
    fault: str = ""


@runtime_checkable
class Recorder(Protocol):
    """Told of each request, on the event loop: it must be quick."""

    def handled(self, handled: Handled) -> None: ...


def notes_of(request: Request) -> Notes:
    """The notes on this request."""
    return notes_in(request.scope)


def notes_in(scope: Scope) -> Notes:
    """The notes on the request of this scope."""
    notes: Notes = scope.setdefault(_KEY, Notes())
    return notes


def recorded(app: ASGIApp, recorders: Sequence[Recorder], dialects: Mapping[tuple[str, str], str]) -> ASGIApp:
    """The application, whose every request is told to the recorders, and gets the header `x-request-id`.

    Args:
        dialects: of methods and paths; where several have one, that which is meant if nothing tells them apart.
    """
    paths: frozenset[str] = frozenset()

    def knows(scope: Scope) -> bool:
        nonlocal paths
        if not paths:  # asked when all routes are there
            paths = frozenset(route.path for route in scope["app"].routes if isinstance(route, Route))
        return scope["path"] in paths

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        began, clock = time.time(), time.perf_counter()
        notes: Notes = scope.setdefault(_KEY, Notes(dialects.get((scope["method"], scope["path"]), "")))
        status, request_id, fault = GONE, "", ""

        async def pass_on(message: Message) -> None:
            nonlocal status, request_id
            if message["type"] == "http.response.start":
                status = message["status"]
                request_id = notes.answered.id if notes.answered else uuid.uuid4().hex
                message = {**message, "headers": [*message["headers"], (b"x-request-id", request_id.encode())]}
            await send(message)

        try:
            await app(scope, receive, pass_on)
        except Exception as error:
            status, fault = 500, type(error).__name__
            raise
        finally:
            client = scope.get("client")
            handled = Handled(
                id=request_id or uuid.uuid4().hex,
                began=began,
                method=scope["method"],
                path=scope["path"],
                known=knows(scope),
                status=status,
                seconds=time.perf_counter() - clock,
                client=client[0] if client else "",
                notes=notes,
                key=scope.get("state", {}).get("key_name"),
                fault=fault,
            )
            for recorder in recorders:
                recorder.handled(handled)

    return handle
