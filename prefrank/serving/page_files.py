"""The page at /: its files as they lie in page/, under a policy that runs and loads nothing but them."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # a page of an older server would ask the newer one in the older way
}


def add_page(app: Starlette) -> None:
    """Serve the page at / and its scripts and styles beside it: no key is needed, as they hold no secret."""
    for file in sorted(FOLDER.iterdir()):
        if file.suffix in KINDS:
            path = "/" if file.name == "index.html" else f"/{file.name}"
            app.add_route(
                path, page_file(file.read_bytes(), KINDS[file.suffix]), methods=["GET"], include_in_schema=False
            )


def page_file(content: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    """What answers with this content.

    Args:
        kind: such as text/html.
    """

    async def handle(request: Request) -> Response:
        return Response(content, 200, HEADERS, kind)

    return handle
