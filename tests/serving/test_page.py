"""The page at /, in a headless Chromium: what people see and do there, and what must not happen."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from prefrank.scoring import RewardModel
from prefrank.serving.app import make_app
from prefrank.serving.hosted import Models, host
from prefrank.serving.page_files import FOLDER
from prefrank.serving.settings import ServeSettings
from prefrank.wire.own import MOST_COMPARED
from tests.serving.page_stub import Stub, make_stub, score, serving
from tests.tiny import bert_folder

CHROMIUM = which("chromium") or which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
CARD = ("I just got out of prison, any suggestion?", "I'm sorry to hear about it, it must be a hard time inside",
        "Stay away from me, you scumbag convict")  # fmt: skip
IMAGE = "<img src=x onerror=hit=1>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the page is tested with playwright, not installed")
    if CHROMIUM is None:
        pytest.skip("the page is tested in a browser, and there is no chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
        chromium.close()


@pytest.fixture(scope="module")
def served() -> Iterator[Stub]:
    stub = Stub()
    with serving(make_stub(stub)) as stub.url:
        yield stub


@pytest.fixture
def stub(served: Stub) -> Stub:
    for name, value in vars(Stub(url=served.url)).items():
        setattr(served, name, value)
    return served


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """An empty tab. At its end no script has failed, and nothing was refused by the policy of the page."""
    tab = browser.new_page()
    tab.set_default_timeout(20_000)
    faults: list[str] = []
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("console", lambda message: faults.append(message.text) if "Policy" in message.text else None)
    yield tab
    tab.close()
    assert not faults


def opened(page: Any, url: str) -> Any:
    page.goto(url)
    page.locator("#facts span").first.wait_for()
    return page


def write(page: Any, prompt: str, *replies: str) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    while page.get_by_label(re.compile(r"^Reply \d")).count() < len(replies):
        page.get_by_role("button", name="Add a reply").click()
    for place, reply in enumerate(replies, start=1):
        page.get_by_label(f"Reply {place}", exact=True).fill(reply)


def rank(page: Any, cards: int) -> list[str]:
    page.get_by_role("button", name="Rank").click()
    page.wait_for_function("count => document.querySelectorAll('.card').length === count", arg=cards)
    page.wait_for_selector("#results[aria-busy=false]")
    return page.locator(".card").all_inner_texts()


def test_the_page_needs_nothing_from_outside_and_runs_nothing_inline() -> None:
    texts = {file.name: file.read_text() for file in FOLDER.iterdir()}
    page = texts["index.html"]
    assert not re.search(r"<script(?! type=\"module\" src=\"page\.js\">)|<style|\sstyle=|\son\w+=", page)
    links = re.findall(r"(?:src|href)=\"([^\"]*)\"|url\(([^)]*)\)|from \"([^\"]*)\"", "".join(texts.values()))
    outside = [link for pair in links for link in pair if re.match(r"(?!data:)(\w+:|/)", link)]
    assert len(links) > 5
    assert not outside
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", "".join(texts.values()))


def test_the_first_example_is_the_model_cards_own(stub: Stub, page: Any) -> None:
    opened(page, stub.url)
    assert page.title() == "prefrank: rank replies"
    assert [box.input_value() for box in page.locator("textarea").all()] == list(CARD)
    first, second = rank(page, cards=2)
    assert stub.asked[-1] == ("rank", {"model": "small", "prompt": CARD[0], "replies": list(CARD[1:])})
    assert page.locator("#verdict").inner_text() == "Reply 1 is best"
    assert [word in first for word in ("Reply 1", "1.307", "tokens", CARD[1], "better than Reply 2 (next) 98%")] == [
        True
    ] * 5
    assert [word in second for word in ("Reply 2", "−2.462", "better than Reply 1 (best) 2%")] == [True] * 3
    widths = [bar.bounding_box()["width"] for bar in page.locator(".bar div").all()]
    assert widths[0] > 20 * widths[1] > 0


def test_texts_of_people_and_models_are_never_read_as_html(stub: Stub, page: Any) -> None:
    stub.models = (f"small{IMAGE}", "other")
    opened(page, stub.url)
    write(page, IMAGE, f"{IMAGE} Yes.", f"POISON {IMAGE}")
    page.get_by_label("Compare with").select_option("other")
    rank(page, cards=4)
    page.get_by_role("button", name="What is the score made of?").first.click()
    page.wait_for_selector(".part")
    assert page.locator(".part").first.inner_text().startswith(IMAGE)
    stub.refusal = {"rank": (422, f"the prompt is {IMAGE}")}
    page.get_by_role("button", name="Rank").click()
    assert page.get_by_role("alert").inner_text() == f"the prompt is {IMAGE}"
    page.get_by_role("button", name="Copy as curl").click()
    assert page.locator("img").count() == 0
    assert page.evaluate("window.hit") is None


def test_a_conversation_is_asked_turn_by_turn(stub: Stub, page: Any) -> None:
    opened(page, stub.url)
    page.get_by_role("button", name="Add a turn").click()
    page.keyboard.type("Have you tried?")  # the new turn has the focus, and is the assistant's
    page.get_by_role("button", name="Add a turn").click()
    page.get_by_label("Role of turn 1").select_option("system")
    page.get_by_label("Turn 3, user").fill("Yes.")
    rank(page, cards=2)
    turns = [("system", CARD[0]), ("assistant", "Have you tried?"), ("user", "Yes.")]
    assert stub.asked[-1][1]["prompt"] == [{"role": role, "content": content} for role, content in turns]
    for _ in range(2):
        page.get_by_role("button", name="Remove turn 2").click()
    page.get_by_label("Role of turn 1").select_option("user")
    rank(page, cards=2)
    assert stub.asked[-1][1]["prompt"] == CARD[0]


def test_replies_of_which_the_server_compares_no_pairs_are_ranked_too(stub: Stub, page: Any) -> None:
    opened(page, stub.url)
    paste = """texts => {
        const data = new DataTransfer();
        data.setData("text", JSON.stringify(texts));
        const event = new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
        document.querySelector("#replies textarea").dispatchEvent(event);
    }"""
    page.evaluate(paste, [f"I can help {'x' * number}" for number in range(MOST_COMPARED)])
    first, *others = rank(page, cards=MOST_COMPARED + 1)
    assert page.locator("#verdict").inner_text() == f"Reply {MOST_COMPARED + 1} is best"
    assert "best of these" in first
    assert "better than" not in "".join([first, *others])
    assert page.locator("table").count() == 0


def test_a_key_that_cannot_be_sent_is_not_called_a_server_that_is_down(stub: Stub, page: Any) -> None:
    stub.key = "secret"
    page.goto(stub.url)
    page.get_by_label("API key").fill("sec\u2011ret")
    page.keyboard.press("Enter")
    page.get_by_text("The key holds characters").wait_for()
    page.get_by_label("API key").fill("secret")
    page.keyboard.press("Enter")
    page.wait_for_selector(".card >> nth=1")


def test_all_can_be_done_by_keyboard(stub: Stub, page: Any) -> None:
    opened(page, stub.url)
    page.keyboard.press("Alt+n")
    page.keyboard.type("I can help")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".card >> nth=2")
    assert stub.asked[-1][1]["replies"] == [*CARD[1:], "I can help"]
    assert page.locator("#status").inner_text() == "Ranked 3 replies."
    names = page.evaluate(
        "[...document.querySelectorAll('button, textarea, select, input')].filter(one => one.checkVisibility())"
        ".map(one => one.ariaLabel || one.labels?.[0]?.textContent || one.textContent)"
    )
    assert all(name.strip() for name in names)
    assert len(set(names)) == len(names) - 2  # but for the button to explain, one in each card


def test_a_reply_left_empty_is_none_and_one_that_fails_says_why(stub: Stub, page: Any) -> None:
    opened(page, stub.url)
    write(page, "Hi", " ", "a POISON", "a very long help", "sorry")
    first, second, third = rank(page, cards=3)
    assert stub.asked[-1][1]["replies"] == ["a POISON", "a very long help", "sorry"]
    assert [card.split("\n")[1] for card in (first, second, third)] == ["Reply 4", "Reply 3", "Reply 2"]
    assert "cut: 7 tokens of the prompt" in second
    assert "not a number" in third
    assert [row.split("\t") for row in page.locator("tbody tr").all_inner_texts()] == [
        ["Reply 4", "", "62%", "–"], ["Reply 3", "38%", "", "–"], ["Reply 2", "–", "–", ""],
    ]  # fmt: skip
    page.get_by_label("Reply 4", exact=True).fill("something else")
    assert "have changed" in page.locator("#stale").inner_text()


def test_what_a_score_is_made_of_stands_behind_each_sentence(stub: Stub, page: Any) -> None:
    """Characters are counted as Python counts them: an emoji is one, though JavaScript sees two."""
    reply = "\U0001f600\U0001f600 I'm sorry.\n\nYou scumbag! Bye"
    opened(page, stub.url)
    write(page, "Hi", reply, "b")
    rank(page, cards=2)
    page.get_by_role("button", name="What is the score made of?").last.click()
    page.wait_for_selector(".part")
    assert stub.asked[-1] == ("explain", {"model": "small", "prompt": "Hi", "reply": reply})
    assert page.locator(".part").all_text_contents() == [
        "\U0001f600\U0001f600 I'm sorry.\u00a0+1.265", "You scumbag!\u00a0−2.487", "Bye\u00a0+0.003",
    ]  # fmt: skip
    kinds = [mark.get_attribute("class") for mark in page.locator(".part").all()]
    assert kinds == ["part up", "part down", "part up"]
    shown = page.locator(".card").last.locator(".text").text_content()
    assert re.sub(r"\u00a0[+−][\d.]+", "", shown) == reply


def test_two_models_stand_side_by_side(stub: Stub, page: Any) -> None:
    stub.models = ("small", "large")
    opened(page, stub.url)
    write(page, "Hi", "sorry", "help", "help!")
    page.get_by_label("Compare with").select_option("large")
    rank(page, cards=6)
    assert [body["model"] for path, body in stub.asked if path == "rank"] == ["small", "large"]
    left, right = (page.locator(".column").nth(place).bounding_box() for place in (0, 1))
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    assert "1st by small" in page.locator(".column").last.locator(".card").last.inner_text()
    shares = re.findall(r"best of these (\d+)%", page.locator(".column").first.inner_text())
    assert len(shares) == 3
    assert sum(map(int, shares)) in (99, 100, 101)
    assert "0 of 3 pairs" in page.locator("#status").inner_text()
    assert page.locator("#facts span").count() == 2


def test_a_key_is_asked_for_and_forgotten_with_the_tab(stub: Stub, page: Any) -> None:
    stub.key = "secret"
    page.goto(stub.url)
    assert "wants an API key" in page.get_by_role("alert").inner_text()
    page.keyboard.type("wrong")  # its field has the focus
    page.keyboard.press("Enter")
    page.wait_for_function("() => !document.getElementById('key-form').hidden")
    page.get_by_label("API key").fill("secret")
    page.keyboard.press("Enter")
    page.wait_for_selector(".card >> nth=1")
    assert not page.get_by_label("API key").is_visible()
    assert page.evaluate("[localStorage.length, document.cookie, sessionStorage.length]") == [0, "", 1]
    for kind in ("curl", "Python"):
        page.get_by_role("button", name=f"Copy as {kind}").click()
        assert "PREFRANK_SERVER_KEY" in page.locator("#code").inner_text()
    assert "secret" not in page.content().replace('value="secret"', "")
    opened(page, stub.url)  # the tab still knows it
    assert not page.get_by_label("API key").is_visible()


def test_errors_are_the_servers_own_sentence(stub: Stub, page: Any) -> None:
    opened(page, stub.url)
    stub.refusal = {"rank": (422, "replies[0] is 5; wanted a string")}
    page.get_by_role("button", name="Rank").click()
    assert page.get_by_role("alert").inner_text() == "replies[0] is 5; wanted a string"
    stub.refusal = {"rank": (503, "the queue is full.")}
    page.get_by_role("button", name="Rank").click()
    page.get_by_text("the queue is full. Try again in 3 s.").wait_for()
    stub.refusal = {}
    rank(page, cards=2)
    assert page.get_by_role("alert").count() == 0


def test_no_server_and_no_answer_of_ours_are_told_apart(stub: Stub, page: Any) -> None:
    opened(page, stub.url)
    page.route("**/api/rank", lambda route: route.fulfill(status=502, body="<h1>Bad Gateway</h1>"))
    page.get_by_role("button", name="Rank").click()
    assert "502 Bad Gateway, with no answer of prefrank" in page.get_by_role("alert").inner_text()
    page.route("**/api/rank", lambda route: route.abort())
    page.get_by_role("button", name="Rank").click()
    page.get_by_text("No answer from").wait_for()
    for box in page.get_by_label(re.compile(r"^Reply \d")).all():
        box.fill("")
    page.get_by_role("button", name="Rank").click()
    assert "write at least one" in page.get_by_role("alert").inner_text()


def test_the_copied_code_asks_the_same(stub: Stub, page: Any) -> None:
    opened(page, stub.url)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    write(page, "It's $HOME \\ `a`\n\"\"\" 'x'", "\U0001f600 é\u2028 %s", "{}'\\''")
    rank(page, cards=2)
    asked, printed = stub.asked[-1], []
    for kind, start in (("curl", ["bash", "-c"]), ("Python", [sys.executable, "-I", "-c"])):
        page.get_by_role("button", name=f"Copy as {kind}").click()
        page.locator("#code", has_text="curl" if kind == "curl" else "import").wait_for()
        page.get_by_text("Copied.").wait_for()
        command = [*start, page.evaluate("navigator.clipboard.readText()")]
        printed.append(subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout)
        assert stub.asked[-1] == asked
    assert len(stub.asked) == 4  # the models, the page's question, and those of the copied code
    assert json.loads(printed[0])["ranking"][0]["rank"] == 1
    assert printed[1].startswith("1 0.00")


def test_the_models_are_asked_for_again_when_they_changed(stub: Stub, page: Any) -> None:
    stub.refusal, stub.models = {"models": (503, "the model is loading.")}, ("small", "large")
    page.goto(stub.url)
    page.get_by_text("the model is loading. Try again in 3 s.").wait_for()
    stub.refusal = {}
    rank(page, cards=2)
    page.get_by_label("Model", exact=True).select_option("large")
    stub.fingerprint = "cd" * 32  # loaded anew
    rank(page, cards=2)
    page.get_by_text("fingerprint cdcdcdcdcdcd").wait_for()
    assert page.get_by_label("Model", exact=True).input_value() == "large"


def test_a_phone_shows_it_all_without_scrolling_sideways(stub: Stub, page: Any) -> None:
    stub.models = ("small", "large")
    page.set_viewport_size({"width": 375, "height": 700})
    opened(page, stub.url)
    write(page, "x" * 300, "y" * 300, "help " * 60, "sorry")
    page.get_by_label("Compare with").select_option("large")
    rank(page, cards=6)
    page.wait_for_function("() => Math.abs(document.getElementById('verdict').getBoundingClientRect().top) < 100")
    page.get_by_role("button", name="Copy as curl").click()
    long = page.locator(".card", has_text="help").first
    before = long.bounding_box()["height"]
    long.get_by_role("button", name="Show all of it").click()
    assert long.bounding_box()["height"] > before + 50
    assert page.get_by_role("button", name="Show all of it").count() == 3  # none where it fits
    assert page.evaluate("document.documentElement.scrollWidth") == 375


def test_it_is_dark_where_the_system_is(stub: Stub, page: Any) -> None:
    opened(page, stub.url)
    papers = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        papers.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert papers == ["rgb(255, 255, 255)", "rgb(17, 23, 29)"]


def test_it_works_behind_a_path_of_a_proxy(stub: Stub, page: Any) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    opened(page, f"{stub.url}/behind/a/proxy/")
    rank(page, cards=2)
    assert len(asked) >= 7
    assert all(url.startswith((f"{stub.url}/behind/a/proxy/", "data:")) for url in asked)


def test_lists_can_be_pasted_and_ones_own_texts_come_back(stub: Stub, page: Any) -> None:
    opened(page, stub.url)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_label("Reply 2", exact=True).fill("")
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    for label, value in (("Reply 2", ["one", "two"]), ("Prompt", messages)):
        page.evaluate("text => navigator.clipboard.writeText(text)", json.dumps(value))
        page.get_by_label(label, exact=True).click()
        page.keyboard.press("Control+v")
    rank(page, cards=3)
    mine = stub.asked[-1][1]
    assert mine == {"model": "small", "prompt": messages, "replies": [CARD[1], "one", "two"]}
    page.get_by_role("button", name="Short or padded").click()
    assert page.get_by_label("Prompt", exact=True).input_value().startswith("How many minutes")
    page.get_by_role("button", name="Your texts").click()
    rank(page, cards=3)
    assert stub.asked[-1][1] == mine


def test_the_real_server_ranks_compares_and_explains(page: Any, tmp_path: Path) -> None:
    texts = {name: str(bert_folder(tmp_path / name, seed=seed)) for seed, name in enumerate(("one", "two"))}
    settings = ServeSettings(models=texts)
    models = Models(tuple(texts), lambda name: host(name, RewardModel.load(texts[name]), settings))
    models.load_all()
    reply = "Bread \U0001f35e is good.\n\nMix flour and water! Wait"
    with serving(make_app(models, settings)) as url:
        opened(page, url)
        write(page, "How do I bake bread?", reply, "The dough needs an hour.", "flour " * 200)
        page.get_by_label("Compare with").select_option("two")
        cards = rank(page, cards=6)
        pairs = [("one", reply), ("two", "The dough needs an hour.")]
        values = [models.of(name).model.score("How do I bake bread?", [text])[0].value for name, text in pairs]
        shown = "".join(cards).replace("−", "-")
        assert [f"\n{value:.3f}\n" in shown for value in values] == [True, True]
        assert "tokens of the reply" in shown
        page.locator(".card", has_text="Bread").first.get_by_role("button", name="What is the score made of?").click()
        page.locator(".part b").nth(2).wait_for()
        sentences = [re.sub(r"\u00a0\S+$", "", text) for text in page.locator(".part").all_text_contents()]
        assert sentences == ["Bread \U0001f35e is good.", "Mix flour and water!", "Wait"]
        assert page.evaluate("async () => (await fetch('openapi.json')).status") == 200
        policy = page.evaluate("async () => (await fetch('')).headers.get('content-security-policy')")
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'")
        assert "unsafe" not in policy
    models.close(5.0)


def test_only_the_newest_question_is_answered(stub: Stub, page: Any) -> None:
    opened(page, stub.url)
    held: list[Any] = []
    page.route("**/api/rank", lambda route: held.append(route), times=2)
    for prompt in ("first", "second"):
        write(page, prompt, "sorry", "help")
        page.get_by_role("button", name="Rank").click()
        page.wait_for_selector("#results[aria-busy=true]")
    assert [route.request.post_data_json["prompt"] for route in held] == ["first", "second"]
    assert page.get_by_role("alert").count() == 0
    held[1].continue_()
    page.wait_for_selector("#results[aria-busy=false]")
    assert page.locator(".score").first.inner_text() == f"{score('small', 'sorry'):.3f}"
