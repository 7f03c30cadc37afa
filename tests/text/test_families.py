"""Chat templates of the shapes that published models have, against transformers and against plain rendering."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from prefrank.text import TextEncoder, TextSettings, chat
from prefrank.types import Prompt, Turn
from tests.text.families import FAMILIES, WITHOUT_SYSTEM
from tests.text.folders import configure
from tests.tiny import chat_folder

TEXTS = st.lists(
    st.sampled_from(["bake", "the dough", "a", "é", "\n", "TL;DR:", "  ", "<b>", "日本", "> q", "[x", "<", "|>"]),
    max_size=9,
).map(" ".join)
REPLIES = TEXTS | st.sampled_from(["", "<think>\nx y\n</think>\n\nbake", "so</think>bake", "0", "assistant", "user"])


@st.composite
def talks(draw: st.DrawFn, system: bool) -> Prompt:
    """Alternating turns, users' alone, or one long one, with and without a system turn."""
    shape = draw(st.sampled_from(["alternating", "users", "long"]))
    size = 1 if shape == "long" else draw(st.sampled_from([1, 2, 3, 5, 8, 11]))
    size += shape == "alternating" and size % 2 == 0
    said = [
        Turn("assistant" if n % 2 and shape == "alternating" else "user", f"{n} {draw(TEXTS)}") for n in range(size)
    ]
    said = [Turn("user", f"{draw(TEXTS)} " * 12)] if shape == "long" else said
    return (Turn("system", f"terse {draw(TEXTS)}"), *said) if system and draw(st.booleans()) else tuple(said)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for name, (tokens, template) in FAMILIES.items():
        made[name] = chat_folder(tmp_path_factory.mktemp(name.replace(" ", "-")), template, tokens)
        ends = {"bos_token": "<s>" if "<s>" in tokens else None, "eos_token": "</s>" if "</s>" in tokens else "<|end|>"}
        configure(made[name], **ends)
    return made


@pytest.mark.parametrize("name", FAMILIES)
@settings(deadline=None, max_examples=15)
@given(data=st.data(), reply=REPLIES)
def test_rows_of_every_family_are_those_of_transformers_and_say_what_is_lost(
    name: str, data: st.DataObject, reply: str, folders: dict[str, Path]
) -> None:
    prompt = data.draw(talks(name not in WITHOUT_SYSTEM))
    encoder, theirs = TextEncoder.load(folders[name], max_length=10_000), AutoTokenizer.from_pretrained(folders[name])
    messages = [*(turn.message() for turn in prompt), {"role": "assistant", "content": reply}]
    try:
        wanted = theirs.apply_chat_template(messages, return_dict=False)
    except Exception:  # the template refuses the order of roles
        return
    (row,) = encoder.encode(prompt, [reply])
    assert row.ids.tolist() == wanted
    held = encoder.source.tokenizer.decode(row.ids[row.reply_start :].tolist(), skip_special_tokens=False)
    thinks = "</think>" in reply and (name == "deepseek" or (name == "qwen 3" and reply.startswith("so")))
    assert (row.lost > 0) == thinks
    assert thinks or held.strip().startswith(reply.strip())


@pytest.mark.parametrize("name", FAMILIES)
@settings(deadline=None, max_examples=25)
@given(data=st.data(), reply=REPLIES, limit=st.sampled_from([45, 60, 90, 130]))
def test_rows_that_are_cut_are_those_of_a_plain_rendering_in_few_renderings(
    name: str, data: st.DataObject, reply: str, limit: int, folders: dict[str, Path]
) -> None:
    prompt = data.draw(talks(name not in WITHOUT_SYSTEM))
    source = TextEncoder.load(folders[name]).source
    encoder = TextEncoder(source, TextSettings("chat", limit, token_types="none", row_ends="files"))
    calls: list[int] = []
    render = chat.render_chat
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat, "render_chat", lambda *given: (calls.append(1), render(*given))[1])
        try:
            (row,) = encoder.encode(prompt, [reply])
        except chat.BadText:
            return
        assert len(calls) <= math.log2(len(prompt)) + 3
        patch.setattr(chat.ChatTexts, "_with_text", lambda *_: None)
        (slow,) = encoder.encode(prompt, [reply])
    assert row.ids.tolist() == slow.ids.tolist()
    assert (row.reply_start, row.cut_prompt, row.cut_reply) == (slow.reply_start, slow.cut_prompt, slow.cut_reply)
    assert len(row.ids) <= limit
    assert row.cut_reply == row.lost or row.cut_prompt >= len(source.plain.encode(prompt[-1].text.strip()).ids) - 1
    text = source.tokenizer.decode(row.ids.tolist(), skip_special_tokens=False)
    assert prompt[0].role != "system" or "made by someone" not in text
