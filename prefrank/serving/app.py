"""The HTTP application: every dialect's paths before one table of models.

A request goes: key, body, JSON, the dialect's route, its question, the model's queue, the dialect's answer; whatever
refuses it on the way is written as the dialect writes its errors.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from prefrank.serving.docs_page import docs_page
from prefrank.serving.gate import add_gate, errors_by_path
from prefrank.serving.guard import LARGE, Body, Room, parse_body
from prefrank.serving.hosted import Models, within
from prefrank.serving.keys import Keys, Shares
from prefrank.serving.metrics import Metrics
from prefrank.serving.openapi import describe
from prefrank.serving.page_files import add_page, page_file
from prefrank.serving.recording import Recorder, notes_of, recorded
from prefrank.serving.reload import RELOAD, reload_for
from prefrank.serving.replies import error_response, json_response
from prefrank.serving.settings import ServeSettings
from prefrank.serving.tickets import characters_of
from prefrank.types import Score
from prefrank.wire import PAGES, ROUTES, own
from prefrank.wire.route import Answered, Page, Question, Refused, Route

TIMES_BODY = 4
"""Of the most bytes of a body, how many characters its rows may have, a prompt counted for each of its replies."""
Handler = Callable[[Request], Awaitable[Response]]


def make_app(
    models: Models, settings: ServeSettings, *, metrics: Metrics | None = None, recorders: Sequence[Recorder] = ()
) -> FastAPI:
    """The application, for uvicorn or any other ASGI server. The models may still be loading.

    Args:
        metrics: whose watchers the models have; without it requests are counted, and nothing of models.
        recorders: told of each request, such as a log.
    """
    metrics = metrics or Metrics()
    app = FastAPI(title="prefrank", docs_url=None, redoc_url=None, openapi_url=None)
    by_path: dict[str, list[Route[Any]]] = {}
    for route in ROUTES:
        for path in route.paths:
            by_path.setdefault(path, []).append(route)
    shares, room = Shares(settings.rows_per_s), Room(settings.max_bodies_bytes)
    for path, routes in by_path.items():
        app.add_route(path, _scoring(routes, models, settings, shares, room), methods=["POST"])
    for page in PAGES:
        for path in page.paths:
            app.add_route(path, _page(page, models), methods=["GET"])
    described = describe(by_path, PAGES)
    app.add_route("/openapi.json", _constant(described), methods=["GET"])
    app.add_route("/docs", page_file(docs_page(described).encode(), "text/html"), methods=["GET"])
    app.add_route(RELOAD, _reload(models, settings, room), methods=["POST"])
    app.add_route("/live", _live(models, settings), methods=["GET"])
    app.add_route("/ready", _ready(models), methods=["GET"])
    add_page(app)
    app.add_route("/metrics", _metrics(metrics, models), methods=["GET"])
    app.add_route("/api/drift", _drift(metrics, models), methods=["GET"])
    errors = {path: page.errors for page in PAGES for path in page.paths}
    errors |= {path: routes[-1].errors for path, routes in by_path.items()}
    add_gate(app, Keys.of(settings.keys), errors_by_path(errors, own.ERRORS), settings)
    dialects = {("GET", path): page.dialect for page in PAGES for path in page.paths}
    dialects |= {("POST", path): routes[-1].dialect for path, routes in by_path.items()}
    # Added last, so that it is around everything else that a request passes
    app.add_middleware(recorded, recorders=(metrics, *recorders), dialects=dialects)
    return app


def _scoring(
    routes: Sequence[Route[Any]], models: Models, settings: ServeSettings, shares: Shares, room: Room
) -> Handler:
    """Answers requests for scores on one path, which several dialects may share."""
    # Otherwise a body must be read before its dialect's client can be told, in the status that it tries again after
    one_form = all(route.errors is routes[-1].errors for route in routes)

    async def handle(request: Request) -> Response:
        route, key = routes[-1], request.state.key_name
        notes = notes_of(request)
        notes.scores = True
        body = Body(request, settings, room)
        try:
            shares.check(key)
            if one_form:
                models.check_room()
            content = await body.read()
            reading = asyncio.to_thread(_read, routes, content) if len(content) > LARGE else None
            route, question = _read(routes, content) if reading is None else await reading
            notes.dialect, request.state.errors = route.dialect, route.errors
            if isinstance(question, Refused):
                raise question
            notes.question = question
            _check_size(question, settings)
            shares.take(key, len(question.asked))
            notes.answered = answered = await _unless_gone(
                request,
                within(models, question, truncates=settings.truncates, timeout_s=settings.timeout_s),
            )
            return _answer_response(route, question, answered)
        except Refused as refused:
            notes.refused = refused
            return error_response(route.errors, refused)
        except ClientDisconnect:
            return Response(status_code=499)
        finally:
            body.release()

    return handle


def _read(routes: Sequence[Route[Any]], content: bytes) -> tuple[Route[Any], Question | Refused]:
    """Whose a body is, and what it asks for or why that cannot be said."""
    route = routes[-1]
    try:
        body = parse_body(content)
        route = next((route for route in routes if route.meant is not None and route.meant(body)), route)
        return route, route.read(body)
    except Refused as refused:
        return route, refused


def _check_size(question: Question, settings: ServeSettings) -> None:
    if len(question.asked) > settings.max_rows:
        raise Refused(
            "too_many", f"the request has {len(question.asked):,} rows; at most {settings.max_rows:,} are taken at once"
        )
    total = 0
    for place, asked in enumerate(question.asked):
        characters = characters_of(asked)
        total += characters
        if characters > settings.max_text_characters:
            raise Refused(
                "too_long",
                f"row {place} has {characters:,} characters; at most {settings.max_text_characters:,} are taken",
            )
    most = TIMES_BODY * settings.max_body_bytes
    if total > most:  # a long prompt of thousands of replies is a short body, and hours of work
        raise Refused(
            "too_large", f"the rows have {total:,} characters, their prompts counted each; at most {most:,} are taken"
        )


async def _unless_gone(request: Request, answer: Awaitable[Answered]) -> Answered:
    """The answer; it is given up when the client goes.

    Raises:
        ClientDisconnect: it has.
    """
    answering = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return answering.result()
        raise ClientDisconnect
    finally:
        for task in (answering, leaving):
            task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _answer_response(route: Route[Any], question: Question, answered: Answered) -> Response:
    scores = [outcome for outcome in answered.outcomes if isinstance(outcome, Score)]
    headers = {"x-prefrank-model": answered.about.fingerprint}
    if route.headers is not None:
        headers |= route.headers(answered)
    if cut := sum(1 for score in scores if score.cut_prompt or score.cut_reply):
        headers["x-prefrank-cut"] = str(cut)
    return json_response(question.answer(answered), 200, headers)


def _page(page: Page, models: Models) -> Handler:
    async def handle(request: Request) -> Response:
        try:
            models.of(None)  # refused while they are loading
            body = page.write(models.abouts())
        except Refused as refused:
            notes_of(request).refused = refused
            return error_response(page.errors, refused)
        return Response(b"") if body is None else json_response(body, 200, {})

    return handle


def _live(models: Models, settings: ServeSettings) -> Handler:
    async def handle(request: Request) -> Response:
        waiting = [hosted.scheduler.waiting() for hosted in models.hosted]
        well = all(each.alive and each.busy_s < settings.stall_s for each in waiting)
        return JSONResponse({"live": well}, 200 if well else 503)

    return handle


def _ready(models: Models) -> Handler:
    async def handle(request: Request) -> Response:
        return JSONResponse({"ready": models.is_ready}, 200 if models.is_ready else 503)

    return handle


def _metrics(metrics: Metrics, models: Models) -> Handler:
    async def handle(request: Request) -> Response:
        body, media = await asyncio.to_thread(metrics.page, models, request.headers.get("accept", ""))
        return Response(body, media_type=media)

    return handle


def _drift(metrics: Metrics, models: Models) -> Handler:
    async def handle(request: Request) -> Response:
        return json_response(await asyncio.to_thread(metrics.drift, models), 200, {})

    return handle


def _reload(models: Models, settings: ServeSettings, room: Room) -> Handler:
    """Loads a model again, for whoever has a key; without keys nobody could be told from another."""

    async def handle(request: Request) -> Response:
        body = Body(request, settings, room)
        try:
            if not settings.keys:
                raise Refused(
                    "unauthorized",
                    "this server has no keys, so nobody may reload it from here; send SIGHUP to its process, or start"
                    " it with --api-key-file",
                )
            content = await body.read()
            asked = parse_body(content) if content.strip() else {}
            return json_response(await reload_for(models, asked, drain_s=settings.drain_s), 200, {})
        except Refused as refused:
            return error_response(own.ERRORS, refused)
        except ClientDisconnect:
            return Response(status_code=499)
        finally:
            body.release()

    return handle


def _constant(value: Any) -> Handler:
    async def handle(request: Request) -> Response:
        return JSONResponse(value)

    return handle
