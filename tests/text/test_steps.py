"""Prompts of decoders that are cut lose their tokens in steps, so that replies of nearly one length leave the same."""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from prefrank.errors import BadModel
from prefrank.text import FolderTokenizer, TextEncoder, TextSettings, default_settings, load_tokenizer
from prefrank.text.limit import in_steps
from prefrank.types import Prompt, Row, Turn, as_prompt
from tests.text.folders import folder_of
from tests.tiny import chat_folder, wordpiece_folder

LETTERS = "{% for m in messages %}<s>{{ m.role[0] }}{{ m.content }}</s>{% endfor %}"
"""Around a text: three tokens, as every letter is one."""
STRINGS = {"system": ("<s>s", "</s>"), "user": ("<s>u", "</s>"), "assistant": ("<s>a", "</s>")}
KINDS = ("chat", "turns", "rendered")
MERGING = ("chat", "turns")


@cache
def letters() -> FolderTokenizer:
    """A tokenizer to which every letter is a token."""
    names = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({name: number for number, name in enumerate(names)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in ("<s>", "</s>")])
    with TemporaryDirectory() as folder:
        config = {"pad_token": None}
        return load_tokenizer(folder_of(Path(folder), tokenizer, template=LETTERS, tokenizer_config=config))


@cache
def merging() -> FolderTokenizer:
    with TemporaryDirectory() as folder:
        return load_tokenizer(chat_folder(Path(folder)))


@cache
def encoder_of(kind: str, limit: int, step: int, source: Callable[[], FolderTokenizer] = letters) -> TextEncoder:
    template, strings = ("turns", STRINGS) if kind == "turns" else ("chat", None)
    made = TextSettings(template, limit, turn_strings=strings, token_types="none", row_ends="files", cut_step=step)
    return TextEncoder(source(), made, pre_rendered=kind == "rendered")


def rows_of(kind: str, prompt: Prompt, replies: list[str], limit: int, step: int) -> list[Row]:
    if kind == "rendered":
        prompt = as_prompt("".join(f"<s>{turn.role[0]}{turn.text}</s>" for turn in prompt) + "<s>a")
    return encoder_of(kind, limit, step).encode(prompt, replies)


def text_of(row: Row) -> str:
    return letters().tokenizer.decode(row.ids.tolist(), skip_special_tokens=False)


def before_reply(row: Row) -> list[int]:
    return row.ids[: row.reply_start].tolist()


@settings(deadline=None, max_examples=200)
@given(over=st.integers(0, 400), size=st.integers(0, 300), step=st.integers(1, 80))
def test_a_text_loses_whole_steps_as_long_as_one_is_left(over: int, size: int, step: int) -> None:
    lost = in_steps(over, size, step)
    assert min(over, size) <= lost <= size
    assert lost <= in_steps(over + 1, size, step)
    if size - over >= step:
        assert size - lost >= step
        assert lost % step == 0 or size - lost == step
        assert lost < over + step
    else:
        assert lost == min(over, size)
    assert in_steps(over, size, 1) == min(over, size)


PROMPT = "".join(chr(97 + n % 26) for n in range(300)) + " Why?"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("reply", "lost"), [(0, 0), (89, 0), (90, 64), (153, 64), (154, 128), (281, 192), (282, 241),
                                            (330, 241), (331, 242), (390, 301)])  # fmt: skip
def test_how_many_tokens_of_a_long_turn_go(kind: str, reply: int, lost: int) -> None:
    (row,) = rows_of(kind, as_prompt(PROMPT), ["y" * reply], 400, 64)
    if kind == "rendered":  # where what stands around the text is prompt too, and goes with it
        assert row.cut_prompt >= max(305 + 6 + reply - 400, 0)
        return
    assert text_of(row) == f"<s>u{PROMPT[lost:]}</s><s>a{'y' * reply}</s>"
    assert (row.cut_prompt, row.cut_reply) == (lost, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_replies_of_any_length_leave_few_different_prompts(kind: str) -> None:
    replies = ["y" * size for size in range(0, 240, 3)]
    rows = rows_of(kind, as_prompt(PROMPT), replies, 400, 64)
    assert len({tuple(before_reply(row)) for row in rows}) == 4  # none of it gone, one step, two, three
    one_by_one = rows_of(kind, as_prompt(PROMPT), replies, 400, 1)
    assert len({tuple(before_reply(row)) for row in one_by_one}) > 50
    assert [row.cut_reply for row in rows] == [row.cut_reply for row in one_by_one] == [0] * len(rows)


@st.composite
def conversations(draw: st.DrawFn) -> Prompt:
    sizes = draw(st.lists(st.one_of(st.integers(1, 40), st.integers(60, 300)), min_size=1, max_size=5))
    roles = ("user", "assistant") if draw(st.booleans()) else ("user", "user")
    turns = [Turn(roles[n % 2], chr(97 + n) * size + "?") for n, size in enumerate(sizes)]
    system = draw(st.sampled_from((0, 20, 150)))
    return ((Turn("system", "s" * system),) if system else ()) + tuple(turns)


def turns_of(row: Row) -> list[str]:
    return [turn.removesuffix("</s>") for turn in text_of(row).split("<s>")[1:]]


@settings(deadline=None, max_examples=80)
@given(
    prompt=conversations(),
    reply=st.integers(0, 400),
    limit=st.sampled_from((16, 40, 90, 130, 200, 310, 500)),
    kind=st.sampled_from(MERGING),
)
def test_a_step_takes_a_little_more_of_one_turn_and_nothing_else(
    prompt: Prompt, reply: int, limit: int, kind: str
) -> None:
    (whole,) = rows_of(kind, prompt, ["y" * reply], 5000, 64)
    (one,), (row,) = (rows_of(kind, prompt, ["y" * reply], limit, step) for step in (1, 64))
    assert len(row.ids) <= limit
    assert len(row.ids) + row.cut_prompt + row.cut_reply == len(whole.ids)
    assert row.cut_reply == one.cut_reply
    assert row.ids[row.reply_start :].tolist() == one.ids[one.reply_start :].tolist()
    assert 0 <= row.cut_prompt - one.cut_prompt < 64
    changed = [(was, now) for was, now in zip(turns_of(one), turns_of(row), strict=True) if was != now]
    assert len(changed) <= 1
    for was, now in changed:
        assert was.endswith(now[1:])
        assert len(now) > 64


@settings(deadline=None, max_examples=80)
@given(
    prompt=conversations(),
    reply=st.integers(0, 150),
    more=st.integers(1, 70),
    limit=st.sampled_from((160, 230, 340, 500)),
    kind=st.sampled_from(MERGING),
)
def test_the_prompt_changes_with_the_reply_only_where_the_cut_crosses_a_step_or_a_turn(
    prompt: Prompt, reply: int, more: int, limit: int, kind: str
) -> None:
    first, second = rows_of(kind, prompt, ["y" * reply, "z" * (reply + more)], limit, 64)
    alone = rows_of(kind, prompt, ["y" * reply, "z" * (reply + more)], limit, 1)
    turns = [turns_of(row)[:-1] for row in alone]
    short = [(was, now) for was, now in zip(*turns, strict=False) if was != now]
    if len(turns[0]) != len(turns[1]) or len(short) > 1 or any(len(text) <= 64 for pair in short for text in pair):
        return  # another number of turns, or the last tokens of one, which go as they must
    sizes = {len(turn.text) + 1 for turn in prompt if short and turn.text.endswith(short[0][0][1:])}
    steps = {-(-(size - len(text)) // 64) for size in sizes for text in (short[0] if short else ())}
    if len(steps) <= 1:
        assert before_reply(first) == before_reply(second)


@settings(deadline=None, max_examples=12)
@given(
    words=st.lists(
        st.sampled_from(["bake", "bread", "the dough", "é", "an hour", "\n", "x"]), min_size=1, max_size=200
    ),
    limit=st.sampled_from((40, 90, 150, 200)),
    kind=st.sampled_from(MERGING),
)
def test_rows_of_merged_tokens_fit_and_share_their_prompts(words: list[str], limit: int, kind: str) -> None:
    prompt = as_prompt(" ".join(words))
    replies = ["y " * size for size in range(0, 60, 4)]
    made = {step: encoder_of(kind, limit, step, merging).encode(prompt, replies) for step in (1, 64)}
    for one, row in zip(made[1], made[64], strict=True):
        assert len(row.ids) <= limit
        assert (row.cut_reply, row.ids[row.reply_start :].tolist()) == (
            one.cut_reply,
            one.ids[one.reply_start :].tolist(),
        )
    # Between 0 and 60 tokens more one border of a step may be crossed; where less than a step is left, every token is
    least = min(row.reply_start for row in made[1])
    if least > 64 + 16:
        assert len({tuple(before_reply(row)) for row in made[64] if row.cut_prompt}) <= 3


GOLDEN = {"chat": "f57422d61dbce0b8", "turns": "3449794d577494e0", "rendered": "63137b5b8c8572df"}
"""Of rows that were made before there were steps."""


@pytest.mark.parametrize("kind", KINDS)
def test_older_settings_cut_as_they_did(kind: str) -> None:
    digest = hashlib.sha256()
    for turns in (1, 2, 5):
        for system in (0, 30):
            talk = tuple(Turn("user", chr(97 + n) * (40 + 30 * n) + "?") for n in range(turns))
            prompt = ((Turn("system", "s" * system),) if system else ()) + talk
            for limit in (20, 50, 90, 170, 300):
                for row in rows_of(kind, prompt, ["", "y" * 10, "z" * 77], limit, 1):
                    for part in (row.ids, np.array([row.reply_start, row.cut_prompt, row.cut_reply, row.lost])):
                        digest.update(part.astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == GOLDEN[kind]


def test_settings_without_steps_keep_their_bytes_and_new_decoders_have_steps(tmp_path: Path) -> None:
    old = {"template": "chat", "max_length": 64, "labels": False, "turn_strings": None}
    assert TextSettings.from_json(old).cut_step == 1
    assert TextSettings.from_json(old).to_json() == old
    new = default_settings(letters(), 64)
    assert (new.template, new.cut_step, new.to_json()["cut_step"]) == ("chat", 64, 64)
    assert TextSettings.from_json(new.to_json()) == new
    named = TextEncoder.load(chat_folder(tmp_path / "plain", None), template="turns")
    assert (named.settings.template, named.settings.cut_step) == ("turns", 64)
    assert default_settings(load_tokenizer(wordpiece_folder(tmp_path / "pair")), 64).cut_step == 1
    prints = {encoder_of("chat", 64, step).fingerprint_bytes() for step in (1, 32, 64)}
    assert len(prints) == 3


@pytest.mark.parametrize("step", [0, -1, 4097, 1.0, "64", True, None])
def test_a_step_that_is_none_is_refused(step: object) -> None:
    with pytest.raises(BadModel, match=r"text\.cut_step is .*; wanted a whole number from 1 to 4,096"):
        TextSettings.from_json({"template": "chat", "max_length": 64, "cut_step": step})
    if isinstance(step, int):
        with pytest.raises(BadModel, match=r"cut_step is .* tokens; wanted a whole number from 1 to 4,096"):
            TextSettings("chat", 64, cut_step=step)


def test_pairs_lose_their_tokens_one_by_one_whatever_the_step(tmp_path: Path) -> None:
    folder = wordpiece_folder(tmp_path)
    plain, stepped = (TextEncoder.load(folder, TextSettings("pair", 80, cut_step=step)) for step in (1, 64))
    for reply in ("a", "b " * 30):
        (first,), (second,) = (encoder.encode(as_prompt("flour " * 100), [reply]) for encoder in (plain, stepped))
        assert first.ids.tolist() == second.ids.tolist()
