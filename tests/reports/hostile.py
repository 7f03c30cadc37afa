"""Records in which every text of others is made hostile, and what a page's structure is."""

from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

HTML = "\"'><script>alert(1)</script><img src=x onerror=y>&lt;</style></svg><!-- ]]> javascript:z {{ 7*7 }} \x1b[2J"
MARKDOWN = (
    "\n\n# Heading\n---\n```\n<script>x</script> ![i](http://x) [l](javascript:x) **b** | c | `d` &lt; </details> -->"
    " $x$\n\n[r]: javascript:x\n\n- # inner\n===\n"
)
MEANT = ("ties", "kind", "unit", "headline", "verdict", "loss", "source", "model", "fingerprint", "license", "created")
"""Values that prefrank itself looks up."""


def changed(value: Any, change: Callable[[str], str], *, but: tuple[str, ...] = MEANT, key: str = "") -> Any:
    """The same value with every string changed, except those under some keys."""
    if isinstance(value, str):
        return value if key in but else change(value)
    if isinstance(value, dict):
        return {name: changed(each, change, but=but, key=name) for name, each in value.items()}
    return [changed(each, change, but=but, key=key) for each in value] if isinstance(value, list) else value


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, tuple(sorted(name for name, _ in attributes))))
        for name, value in attributes:
            if name.startswith("on") or (value or "").strip().lower().startswith("javascript:"):
                self.seen.append(("runs", name))

    def handle_endtag(self, tag: str) -> None:
        self.seen.append(f"/{tag}")

    def handle_comment(self, data: str) -> None:
        self.seen.append("comment")


def tags(page: str) -> Counter[Any]:
    """The tags of a page with the names of their attributes."""
    parser = _Tags()
    parser.feed(page)
    parser.close()
    return Counter(parser.seen)
