"""Pages from templates: how Jinja is set up, and how a page is written."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from prefrank.errors import NotFound
from prefrank.io.atomic import write_file

if TYPE_CHECKING:
    from jinja2 import Template


def template(
    name: str,
    what: str,
    *,
    filters: Mapping[str, Callable[..., object]] | None = None,
    finalize: Callable[[object], str] | None = None,
) -> "Template":
    """A template of the package. HTML escapes all text; Markdown does not, and leaves that to `finalize`.

    Args:
        name: of the file.
        what: is made from it, such as "a report", for an error.
        filters: by name.
        finalize: turns every value that the template shows into text.

    Raises:
        NotFound: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise NotFound(f"{what} needs jinja2; pip install 'prefrank[evaluate]'") from error
    html = name.endswith(".html")
    environment = Environment(
        loader=PackageLoader("prefrank.reports"),
        autoescape=html,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not html,
    )
    environment.filters |= filters or {}
    return environment.get_template(name)


def write_page(path: Path, page: str) -> None:
    """Write a page, making its folder; a lone surrogate in somebody's text is shown as "?".

    Raises:
        CannotWrite: the file cannot be written.
    """
    write_file(path, page.encode("utf-8", "replace"))
