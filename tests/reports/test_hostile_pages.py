"""Whatever a run file, record or fact holds, it is text on the page: report, leaderboard and model card."""

import copy
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from prefrank.errors import BadInput
from prefrank.evaluation import Bootstrap
from prefrank.reports.card.model_card import model_card
from prefrank.reports.html import render_report
from prefrank.reports.leaderboard import leaderboard
from prefrank.reports.leaderboard_page import leaderboard_html
from prefrank.reports.markdown import code, fence, plain, prose, sentence
from prefrank.reports.picture import accuracy_png
from prefrank.scoring.info import checkpoint_info
from tests.evaluation.run_files import as_run, fake_run
from tests.reports.hostile import HTML, MARKDOWN, MEANT, changed, tags
from tests.reports.test_model_card import ABOUT_DATA, PEOPLE, UNRECORDED
from tests.tiny import bert_folder

RUN = fake_run(items=12)
NAMES = ("a", "b", "suite", "name", "figure")
"""What the parts of a run file find each other by."""
ALLOWED = {f"{name}_{side}" for name in ("paragraph", "link", "strong") for side in ("open", "close")} | {"code_inline"}
"""Of an author's own prose."""
RENDERED = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def test_no_text_of_a_run_file_is_markup_in_a_report() -> None:
    pages = [
        render_report(as_run(changed(RUN, f"{mark} ".__add__, but=(*MEANT, *NAMES))))
        for mark in ("x" * len(HTML), HTML)
    ]
    assert tags(pages[0]) == tags(pages[1])
    assert "<script>alert" not in pages[1]


def test_no_name_of_a_run_file_is_markup_in_a_report_or_leaderboard(tmp_path: Path) -> None:
    found = []
    for mark in (re.sub("[<>&'\"]", "x", HTML), HTML):
        renamed = json.dumps(RUN)
        for name in ("helpful", "acme/minilm-hh", "longer reply", "chat-hard"):
            renamed = renamed.replace(json.dumps(name), json.dumps(f"{name} {mark}"))
        (tmp_path / "run.json").write_text(renamed)
        board = leaderboard_html(leaderboard(tmp_path, bootstrap=Bootstrap(resamples=20)))
        found.append((tags(render_report(as_run(json.loads(renamed)))), tags(board)))
    assert found[0] == found[1]


def test_a_picture_shows_formulas_and_does_not_typeset_them(tmp_path: Path) -> None:
    run = copy.deepcopy(RUN)
    run["scorers"][0]["name"] = r"$\frac{"
    run["suites"]["helpful"]["title"] = r"$x$ \$ $_{"
    accuracy_png(as_run(run), tmp_path / "a.png")
    assert (tmp_path / "a.png").is_file()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("card") / "bert")


def structure(card: str) -> list[tuple[str, str]]:
    """The blocks of a card and the HTML in it, without its texts."""
    _, metadata, body = card.split("---\n", 2)
    assert set(yaml.safe_load(metadata)) >= {"license", "model-index"}
    found = []
    for token in RENDERED.parse(body):
        for one in [token, *(token.children or ())]:
            if one.type not in ("text", "softbreak", "text_special", "inline"):
                found.append((one.type, one.tag if "html" not in one.type else one.content[:20]))
            assert one.type != "link_open" or str(one.attrs["href"]).startswith("http")
    return found


def test_no_text_of_a_run_file_or_fact_is_markup_in_a_card(folder: Path) -> None:
    cards = []
    for mark in ("harmless", MARKDOWN):
        run = changed(copy.deepcopy(RUN), lambda text, mark=mark: f"{mark} {text}", but=(*MEANT, *NAMES, "prompt"))  # type: ignore[misc]
        run["scorers"][0]["model"] = checkpoint_info(str(folder))["fingerprint"]
        facts = PEOPLE | ABOUT_DATA | UNRECORDED | {"name": f"n {mark}", "license": f"mit {mark}", "co2": f"1 {mark}"}
        cards.append(structure(model_card(folder, [as_run(run)], facts)))
    one, other = ([token for token in tokens if token[0] not in ALLOWED] for tokens in cards)
    assert one == other


def test_no_mark_that_turns_the_direction_of_writing_reaches_a_card(folder: Path) -> None:
    run = changed(copy.deepcopy(RUN), lambda text: f"\u202e{text}\u2028", but=(*MEANT, *NAMES, "prompt"))
    run["scorers"][0]["model"] = checkpoint_info(str(folder))["fingerprint"]
    facts = {key: f"{value}\u202e" for key, value in (PEOPLE | ABOUT_DATA | UNRECORDED | {"name": "n"}).items()}
    card = model_card(folder, [as_run(run)], facts)
    assert "\\u202e" in card
    assert all(line.isprintable() for line in card.split("\n"))
    structure(card)


def test_prose_of_authors_keeps_emphasis_and_links_and_brings_no_block_or_html(folder: Path) -> None:
    text = prose(f"Made by **us**, see [here](https://x.example) and `code`.\n{MARKDOWN}")
    types = {child.type for token in RENDERED.parse(text) for child in [token, *(token.children or ())]}
    assert {"strong_open", "link_open", "code_inline"} <= types
    assert not types & {"heading_open", "html_block", "html_inline", "image", "hr", "fence", "table_open", "code_block"}
    links = [child for token in RENDERED.parse(text) for child in token.children or () if child.type == "link_open"]
    assert "link_open" not in {
        child.type for token in RENDERED.parse(prose("[a](//evil) [b]( //evil/x)")) for child in token.children or ()
    }
    assert [link.attrs["href"] for link in links] == ["https://x.example", "http://x"]  # of the image


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="#`~<>![]()|&;-=+*_\\:\n 1.ajsx\"'/$", max_size=40))
def test_nothing_that_can_be_written_becomes_a_block_or_html(text: str) -> None:
    for shown in (plain(text), sentence(text), prose(text)):
        body = f"before\n\n{shown}\n\n# After\n"
        tokens = RENDERED.parse(body)
        types = [token.type for token in tokens]
        inner = {child.type for token in tokens for child in token.children or ()}
        assert types.count("heading_open") == 1
        assert not {"html_block", "fence", "code_block", "hr", "table_open", "blockquote_open"} & set(types)
        assert not {"html_inline", "image"} & inner
    assert not {"em_open", "strong_open", "code_inline", "link_open", "s_open"} & {
        child.type for token in RENDERED.parse(plain(text)) for child in token.children or ()
    }


@given(st.text(alphabet="`a |\n", max_size=12))
def test_code_of_others_ends_where_we_end_it(text: str) -> None:
    inline = RENDERED.parse(f"x {code(text)} y")[1].children or []
    assert [child.type for child in inline if child.type == "code_inline"] == ["code_inline"]
    block = RENDERED.parse(f"{fence(text)}yaml\n{text}\n{fence(text)}\n\nafter")
    assert [token.type for token in block][:2] == ["fence", "paragraph_open"]


def test_a_record_with_parts_of_wrong_types_is_one_error_that_names_the_part(folder: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(folder, tmp_path / "deep"))
    (copied / "prefrank.json").write_text("[" * 100_000)
    with pytest.raises(BadInput, match="nested too deeply"):
        model_card(copied, [as_run(RUN)], PEOPLE | ABOUT_DATA | UNRECORDED)
