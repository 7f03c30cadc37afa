import json
import math
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from prefrank.data import load_comparisons
from prefrank.errors import BadText, NotFound
from prefrank.text import TextEncoder, TextSettings, chat, load_tokenizer, with_chat_template
from prefrank.types import Prompt, Turn, as_prompt, as_turn
from tests.text.folders import KINDS, folder_of, tokenizer_of
from tests.tiny import TEMPLATE, chat_folder

DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}<|start|>system\nI am Qwen.<|end|>{% endif %}"
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>{% endfor %}"
)
GENERATES = (
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
THINKS = "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] | trim }}<|end|>{% endfor %}"
WORDS = st.lists(st.sampled_from(["bake", "the dough", "a", "hour", "é", "\n", "TL;DR:", "  ", "<b>"]), max_size=8).map(
    " ".join
)


def encoder_of(folder: Path, template: str, limit: int = 400) -> TextEncoder:
    return TextEncoder.load(chat_folder(folder, template), max_length=limit)


def text_of(encoder: TextEncoder, ids: list[int]) -> str:
    return encoder.source.tokenizer.decode(ids, skip_special_tokens=False)


def talk(turns: int, words: int = 3, system: str = "") -> Prompt:
    said = tuple(Turn("assistant" if n % 2 else "user", f"{n} " + "flour " * words) for n in range(turns))
    return ((Turn("system", system),) if system else ()) + said


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    render = chat.render_chat

    def spy(source, messages, tokens):  # type: ignore[no-untyped-def]
        calls.append(len(messages))
        return render(source, messages, tokens)

    monkeypatch.setattr(chat, "render_chat", spy)
    return calls


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    return encoder_of(tmp_path_factory.mktemp("plain"), TEMPLATE)


@settings(deadline=None, max_examples=60)
@given(prompt=WORDS, reply=WORDS, kind=st.sampled_from(KINDS))
def test_a_row_is_what_transformers_makes_of_the_conversation(
    prompt: str, reply: str, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = folder_of(tmp_path_factory.mktemp("kind"), tokenizer_of(kind), template=TEMPLATE)
    encoder, theirs = TextEncoder.load(folder, max_length=999), AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]
    (row,) = encoder.encode(as_prompt(prompt), [reply])
    assert row.ids.tolist() == theirs.apply_chat_template(messages, return_dict=False)
    assert (row.cut_prompt, row.cut_reply, row.lost) == (0, 0, 0)
    assert not row.types.any()


def test_the_replys_first_token_is_where_the_reply_begins(plain: TextEncoder) -> None:
    (row,) = plain.encode(as_prompt("hello there"), [" bake it "])
    assert text_of(plain, row.ids[row.reply_start :].tolist()) == "bake it<|end|>"


@pytest.mark.parametrize("limit", [20, 30, 40, 60, 90])
def test_the_system_turn_stays_longest_and_the_template_writes_no_other(tmp_path: Path, limit: int) -> None:
    encoder = encoder_of(tmp_path, DEFAULT_SYSTEM, limit)
    (row,) = encoder.encode(talk(7, 6, system="bake bread"), ["rise"])
    text = text_of(encoder, row.ids.tolist())
    assert len(row.ids) <= limit
    assert "Qwen" not in text
    assert text.startswith("<|start|>system\n")
    assert "rise<|end|>" in text
    assert row.cut_reply == 0
    if limit >= 40:
        assert text.startswith("<|start|>system\nbake bread<|end|>")


def test_the_oldest_other_turns_go_first_and_no_answer_opens_what_is_left(tmp_path: Path) -> None:
    whole = encoder_of(tmp_path / "whole", TEMPLATE)
    size = len(whole.encode(talk(5, 5, system="bake"), ["rise"])[0].ids)
    encoder = encoder_of(tmp_path / "cut", TEMPLATE, size - 1)
    (row,) = encoder.encode(talk(5, 5, system="bake"), ["rise"])
    assert row.ids.tolist() == whole.encode(talk(5, 5, system="bake")[:1] + talk(5, 5)[2:], ["rise"])[0].ids.tolist()
    assert row.cut_prompt == size - len(row.ids)


@pytest.mark.parametrize("trims", [True, False])
@pytest.mark.parametrize("limit", [20, 27, 34])
def test_a_shortened_turn_is_what_the_template_makes_of_it(tmp_path: Path, limit: int, trims: bool) -> None:
    template = TEMPLATE if trims else TEMPLATE.replace(" | trim", "")
    encoder, whole = encoder_of(tmp_path, template, limit), encoder_of(tmp_path, template)
    (row,) = encoder.encode(as_prompt("flour water salt " * 12), ["rise"])
    left = text_of(encoder, row.ids.tolist()).split("user\n")[1].split("<|end|>")[0]
    assert left.startswith(" ") != trims
    assert whole.encode(as_prompt(left), ["rise"])[0].ids.tolist() == row.ids.tolist()


@pytest.mark.parametrize("turns", [1, 2, 3, 5, 21, 121, 301])
@pytest.mark.parametrize("limit", [16, 40, 200])
def test_a_row_takes_few_renderings(
    plain: TextEncoder, turns: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted(monkeypatch)
    encoder = TextEncoder(plain.source, TextSettings("chat", limit, token_types="none", row_ends="files"))
    calls.clear()
    encoder.encode(talk(turns), ["rise"])
    assert len(calls) <= math.log2(turns) + 2


def test_a_thousand_turns_take_less_than_a_second(plain: TextEncoder) -> None:
    encoder = TextEncoder(plain.source, TextSettings("chat", 64, token_types="none", row_ends="files"))
    encoder.encode(talk(3), ["rise"])
    start = time.process_time()
    (row,) = encoder.encode(talk(1000), ["rise"])
    assert time.process_time() - start < 1
    assert len(row.ids) <= 64


def test_a_template_that_deletes_part_of_a_reply_is_counted(tmp_path: Path) -> None:
    encoder = encoder_of(tmp_path, THINKS)
    one, other, whole = encoder.encode(as_prompt("why"), ["so</think>bake", "hour rise</think>bake", " bake "])
    assert one.ids.tolist() == other.ids.tolist() == whole.ids.tolist()
    assert one.lost == one.cut_reply == encoder.count_tokens("so</think>")
    assert other.lost == encoder.count_tokens("hour rise</think>")
    assert (whole.lost, whole.cut_reply) == (0, 0), "white space at the ends is the template's"


@pytest.mark.parametrize(
    "change",
    [
        "m.content | upper",
        "m.content | e",
        "m.content | replace('b', '')",
        "'' if m.role == 'assistant' else m.content",
    ],
)
def test_a_template_that_changes_a_reply_is_counted(tmp_path: Path, change: str) -> None:
    encoder = encoder_of(tmp_path, "{% for m in messages %}<|start|>{{ " + change + " }}<|end|>{% endfor %}")
    (row,) = encoder.encode(as_prompt("a<b"), ["a<b"])
    assert row.lost == row.cut_reply > 0


@pytest.mark.parametrize("reply", ["bake bread", "bread", "user"])
def test_a_reply_that_is_left_out_is_counted_though_the_prompt_says_the_same(tmp_path: Path, reply: str) -> None:
    plain = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    for number, template in enumerate((plain, plain.replace("{{ m.content }}", "user: {{ m.content }}"))):
        encoder = encoder_of(tmp_path / str(number), template)
        (row,) = encoder.encode(as_prompt("bake bread"), [reply])
        assert row.lost == row.cut_reply == encoder.count_tokens(reply)
        assert row.reply_start == len(row.ids)


def test_white_space_that_a_template_changes_inside_a_reply_is_counted(tmp_path: Path) -> None:
    encoder = encoder_of(tmp_path, TEMPLATE.replace("m['content'] | trim", "m['content'].split() | join(' ')"))
    one, other, ends = encoder.encode(as_prompt("a"), ["if a:\n    b", "if a: b", " a b "])
    assert one.ids.tolist() == other.ids.tolist()
    assert (one.lost > 0, other.lost, ends.lost) == (True, 0, 0)


@pytest.mark.parametrize("change", ["m.content", "m.content | e", "m.content.split('</think>')[-1]", "m.content[3:]"])
@pytest.mark.parametrize("reply", ["", "    ", "a<b", "so</think>bake bread", "the dough"])
def test_the_reply_begins_after_what_the_template_writes_before_it(tmp_path: Path, change: str, reply: str) -> None:
    template = "{% for m in messages %}<|start|>{{ m.role }}\n{{ " + change + " }}<|end|>{% endfor %}"
    encoder = encoder_of(tmp_path, template)
    (row,) = encoder.encode(as_prompt("the dough"), [reply])
    before = text_of(encoder, row.ids[: row.reply_start].tolist())
    assert before.endswith("<|start|>assistant\n")


def test_a_reply_that_the_template_puts_first_begins_there(tmp_path: Path) -> None:
    encoder = encoder_of(tmp_path, "{{ messages[-1].content }} answers {{ messages[0].content }}")
    (row,) = encoder.encode(as_prompt("bake"), ["mix it"])
    assert (row.reply_start, row.lost) == (0, 0)


TOOLS = (
    "{% for m in messages %}{% if m.role == 'tool' and (loop.first or messages[loop.index0 - 1].role != 'assistant') %}"
    "{{ raise_exception('a tool answers a call') }}{% endif %}<|start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}{% endfor %}<|end|>{% endfor %}"
)


@pytest.mark.parametrize("limit", [40, 50, 60])
@pytest.mark.parametrize("long", ["user", "tool"])
def test_a_tools_answer_keeps_the_call_it_answers(tmp_path: Path, limit: int, long: str) -> None:
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "oven", "arguments": {}}}]}
    prompt = (
        Turn("user", "hello there"), Turn("assistant", "hello"), Turn("user", "flour " * (50 if long == "user" else 1)),
        as_turn(call), Turn("tool", "salt " * (50 if long == "tool" else 1)),
    )  # fmt: skip
    encoder = encoder_of(tmp_path, TOOLS, limit)
    (row,) = encoder.encode(prompt, ["rise"])
    text = text_of(encoder, row.ids.tolist())
    assert len(row.ids) <= limit
    assert text.startswith("<|start|>user\n")
    assert "<|start|>assistant\noven<|end|><|start|>tool\n" in text
    assert text.endswith("salt <|end|><|start|>assistant\nrise<|end|>")
    assert row.cut_reply == 0 < row.cut_prompt


@pytest.mark.parametrize("system", ["bake bread \n\n", "日本語", "salt"])
def test_what_is_left_of_the_system_turn_is_never_blank(tmp_path: Path, system: str) -> None:
    template = DEFAULT_SYSTEM.replace("messages[0].role != 'system'", "not messages[0].content.strip()")
    limit = len(encoder_of(tmp_path / "0", template).encode(as_prompt("x"), ["x"])[0].ids) + 8
    encoder = encoder_of(tmp_path / "1", template, limit)
    (row,) = encoder.encode((Turn("system", system * 9), Turn("user", "flour " * 9)), ["rise " * 8])
    assert "Qwen" not in text_of(encoder, row.ids.tolist())


def test_roles_and_tool_calls_reach_the_template_as_they_are(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}"
        "{% for c in m.tool_calls or [] %}{{ c.function.name }}({{ c.function.arguments | tojson }}){% endfor %}<|end|>"
        "{% endfor %}"
    )
    encoder = encoder_of(tmp_path, template)
    messages = [
        {"role": "developer", "content": "be terse"},
        {"role": "user", "content": "how hot"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"type": "function", "function": {"name": "oven", "arguments": {"of": "bread", "x": "<|end|>"}}}]},
        {"role": "tool", "content": "230", "name": "oven"},
    ]  # fmt: skip
    (row,) = encoder.encode(tuple(map(as_turn, messages)), ["hot"])
    text = text_of(encoder, row.ids.tolist())
    assert text.startswith("<|start|>developer\nbe terse<|end|><|start|>user\nhow hot<|end|><|start|>assistant\n")
    assert 'oven({"of": "bread", "x": "<|end|>"})<|end|><|start|>tool\n230<|end|>' in text
    assert row.ids.tolist().count(encoder.source.tokenizer.token_to_id("<|end|>")) == 5


LEFT_OUT = [
    {"role": "tool", "content": "230"},
    {"role": "developer", "content": "be terse"},
    {"role": "system", "content": "be terse"},
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "oven", "arguments": "{}"}}]},
]
KNOWS_TWO = (
    "{% for m in messages %}{% if m.role in ['user', 'assistant'] %}<|start|>{{ m.content }}<|end|>{% endif %}"
    "{% endfor %}"
)


@pytest.mark.parametrize("turn", LEFT_OUT)
def test_what_a_template_leaves_out_is_refused_with_the_pair(tmp_path: Path, turn: dict) -> None:
    encoder = encoder_of(tmp_path, KNOWS_TWO)
    prompt = (as_turn(turn), Turn("user", "how hot"))
    with pytest.raises(BadText, match=r"leaves out the .* of prompt turn 0 of pair 1 \(role \w+\); move it") as caught:
        encoder.encode_pairs([(as_prompt("hi"), "x"), (prompt, "y")])
    assert caught.value.exit_code == 3


def test_a_refusal_names_the_pair_the_roles_and_the_cure(tmp_path: Path) -> None:
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    encoder = encoder_of(tmp_path, template)
    with pytest.raises(
        BadText, match=r"pair 0: .* roles system, user, assistant: no system here; .*first user turn"
    ) as caught:
        encoder.encode((Turn("system", "be terse"), Turn("user", "hi")), ["x"])
    assert caught.value.exit_code == 3


@pytest.fixture(scope="module")
def generating(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = chat_folder(tmp_path_factory.mktemp("generating"), GENERATES, ("<s>",))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"bos_token": "<s>", "add_bos_token": True}))
    return folder


@settings(deadline=None, max_examples=50)
@given(prompt=WORDS, reply=WORDS, cut=st.integers(0, 200), stripped=st.booleans())
def test_messages_a_rendered_prompt_and_a_rendered_whole_are_one_row(
    generating: Path, prompt: str, reply: str, cut: int, stripped: bool
) -> None:
    messages, theirs = TextEncoder.load(generating, max_length=500), AutoTokenizer.from_pretrained(generating)
    rendered = TextEncoder.load(generating, max_length=500, pre_rendered=True)
    (want,) = messages.encode(as_prompt(prompt), [reply])
    head = theirs.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True)
    whole = head + reply + "<|end|>" + ("" if stripped else "\n")
    place = len(head) + min(cut, len(reply))
    for first, second in (
        (head, reply),
        (whole[:place], whole[place:]),
        (whole, ""),
        (head.removeprefix("<s>"), reply),
    ):
        (row,) = rendered.encode(as_prompt(first), [second])
        assert row.ids.tolist() == want.ids.tolist()
    assert want.ids.tolist().count(messages.source.tokenizer.token_to_id("<s>")) == 1


@pytest.mark.parametrize("header", ["<|start|>assistant\n", "<|start|>assistant\n\n", "[/INST] ", "ASSISTANT: "])
def test_rendered_prompts_read_from_a_file_are_the_rows_of_their_messages(tmp_path: Path, header: str) -> None:
    template = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}" + header + "{{ m.content }}<|end|>\n"
        "{% else %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}" + header + "{% endif %}"
    )
    folder = chat_folder(tmp_path / "model", template, ("<s>",))
    head = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        [{"role": "user", "content": "bake"}], tokenize=False, add_generation_prompt=True
    )
    row = {"prompt": head, "chosen": "the dough", "rejected": "a hour<|end|>\n"}
    (tmp_path / "rendered.jsonl").write_text(json.dumps(row) + "\n")
    (read,) = load_comparisons(tmp_path / "rendered.jsonl").comparisons
    assert read.prompt[0].text == head.strip()
    messages, rendered = TextEncoder.load(folder), TextEncoder.load(folder, pre_rendered=True)
    for reply, plain in zip(read.replies, ("the dough", "a hour"), strict=True):
        (want,) = messages.encode(as_prompt("bake"), [plain])
        (row_read,) = rendered.encode(read.prompt, [reply])
        assert row_read.ids.tolist() == want.ids.tolist()
        assert row_read.reply_start == want.reply_start


def test_a_long_rendered_prompt_loses_its_oldest_tokens_and_keeps_its_ends(generating: Path) -> None:
    encoder = TextEncoder.load(generating, max_length=30, pre_rendered=True)
    (row,) = encoder.encode(as_prompt("<s><|start|>user\n" + "flour " * 40 + "<|end|>\n<|start|>assistant\n"), ["rise"])
    text = text_of(encoder, row.ids.tolist())
    assert len(row.ids) == 30
    assert text.startswith("<s>flour" if text[3] != " " else "<s> flour")
    assert text.endswith("<|start|>assistant\nrise<|end|>\n")
    assert row.cut_prompt > 0 == row.cut_reply
    with pytest.raises(BadText, match="pair 0 has 2 turns; pre-rendered texts want"):
        encoder.encode(talk(2), ["rise"])


def test_a_chat_template_is_taken_by_name_or_file_and_saved(tmp_path: Path) -> None:
    folder = chat_folder(tmp_path / "chat", None)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    named = [{"name": "default", "template": TEMPLATE}, {"name": "plain", "template": GENERATES}]
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": named}))
    source = load_tokenizer(folder)
    assert with_chat_template(source, "plain").chat_template == GENERATES
    (tmp_path / "mine.jinja").write_text(THINKS)
    mine = with_chat_template(source, str(tmp_path / "mine.jinja"))
    (tmp_path / "saved").mkdir()
    mine.save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").chat_template == THINKS
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").get_chat_template() == THINKS
    with pytest.raises(NotFound, match=r"no chat template 'plane', and there is no such file; did you mean 'plain'"):
        with_chat_template(source, "plane")


@pytest.mark.parametrize("template", ["{}", "constant text", "{{ messages[0].content }}", "{{ messages | length }}"])
def test_a_template_that_leaves_out_replies_counts_them_as_lost(tmp_path: Path, template: str) -> None:
    encoder = TextEncoder(load_tokenizer(chat_folder(tmp_path, template)), TextSettings("chat", 64))
    (row,) = encoder.encode((Turn("user", "hello"),), ["bake bread"])
    assert row.lost == row.cut_reply == encoder.count_tokens("bake bread")
