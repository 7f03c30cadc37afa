"""Texts that were rendered already, for pair and turns; those of chat templates are in test_chat.py."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrank.text import TextEncoder, TextSettings
from prefrank.types import Turn, as_prompt
from tests.text.folders import configure, pair_folder
from tests.tiny import chat_folder, wordpiece_folder

TYPED = ["input_ids", "token_type_ids", "attention_mask"]
RENDERED = {
    "bert": "[CLS] {} [SEP] {} [SEP]", "roberta": "[CLS] {} [SEP] [SEP] {} [SEP]", "funnel": "[CLS] {} [SEP] {} [SEP]",
    "xlnet": "{} [SEP] {} [SEP] [CLS]",
}  # fmt: skip
WORDS = st.lists(st.sampled_from(["bake", "mix", "flour", "water", "x"]), min_size=1, max_size=12).map(" ".join)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {family: pair_folder(tmp_path_factory.mktemp(family), family) for family in RENDERED}
    return {
        family: configure(folder, tokenizer_class="PreTrainedTokenizerFast", model_input_names=TYPED)
        for family, folder in made.items()
    }


@pytest.mark.parametrize("family", RENDERED)
@settings(deadline=None, max_examples=40)
@given(prompt=WORDS, reply=WORDS, limit=st.integers(8, 40))
def test_a_rendered_pair_is_the_row_of_its_texts(
    family: str, prompt: str, reply: str, limit: int, pairs: dict[str, Path]
) -> None:
    (want,) = TextEncoder.load(pairs[family], max_length=limit).encode(as_prompt(prompt), [reply])
    encoder = TextEncoder.load(pairs[family], max_length=limit, pre_rendered=True)
    whole = RENDERED[family].format(prompt, reply)
    place = whole.rindex(reply)
    bare = whole.removeprefix("[CLS]")
    for first, second in (
        (whole[:place], reply), (whole[:place], whole[place:]), (whole, ""), (prompt, reply),
        (bare[: bare.rindex(reply)], reply), (whole[: whole.index(prompt) + len(prompt)], whole[len(prompt) :][
            whole.index(prompt) :]),
    ):  # fmt: skip
        (row,) = encoder.encode(as_prompt(first), [second])
        assert row.ids.tolist() == want.ids.tolist()
        assert row.types.tolist() == want.types.tolist()
        assert (row.reply_start, row.cut_prompt, row.cut_reply) == (want.reply_start, want.cut_prompt, want.cut_reply)


def test_a_mask_in_a_rendered_pair_is_a_token_and_a_second_prompt_turn_is_one(pairs: dict[str, Path]) -> None:
    encoder = TextEncoder.load(pairs["bert"], TextSettings("pair", 40, labels=True), pre_rendered=True)
    (row,) = encoder.encode(as_prompt("[CLS] mix [SEP] a [MASK] [SEP]"), ["bake"])
    tokens = [encoder.source.tokenizer.id_to_token(number) for number in row.ids.tolist()]
    assert tokens == ["[CLS]", "mix", "[SEP]", "a", "[MASK]", "[SEP]", "bake", "[SEP]"]
    (row,) = encoder.encode(as_prompt("[CLS] mix [SEP]"), [""])
    assert len(row.ids) == 4


@pytest.mark.parametrize(
    ("prompt", "reply", "tokens"),
    [
        ("x [SEP] mix", "bake", "[CLS] x [SEP] mix [SEP] bake [SEP]"),
        ("[SEP] x", "bake", "[CLS] [SEP] x [SEP] bake [SEP]"),
        ("x", "bake [SEP] mix", "[CLS] x [SEP] bake [SEP] mix [SEP]"),
    ],
)
def test_prompt_and_reply_meet_at_a_separator_wherever_the_texts_hold_others(
    pairs: dict[str, Path], prompt: str, reply: str, tokens: str
) -> None:
    encoder = TextEncoder.load(pairs["bert"], pre_rendered=True)
    (row,) = encoder.encode(as_prompt(prompt), [reply])
    assert [encoder.source.tokenizer.id_to_token(number) for number in row.ids.tolist()] == tokens.split()
    assert row.reply_start == tokens.split().index("bake")


@pytest.mark.parametrize("tokens", [(), ("<|prompter|>", "<|assistant|>")])
@settings(deadline=None, max_examples=40)
@given(texts=st.lists(WORDS, min_size=1, max_size=5), reply=WORDS, limit=st.integers(20, 80))
def test_rendered_turns_are_the_row_of_their_texts(
    tokens: tuple[str, ...], texts: list[str], reply: str, limit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = chat_folder(tmp_path_factory.mktemp("turns"), None, tokens)
    template = None if tokens else "turns"
    said = texts[: (len(texts) - 1) // 2 * 2 + 1]
    prompt = tuple(Turn("assistant" if n % 2 else "user", text) for n, text in enumerate(said))
    assistant = "<|assistant|>" if tokens else "Assistant: "
    around = {
        "user": ("<|prompter|>", "<|end|>") if tokens else ("User: ", "\n\n"),
        "assistant": (assistant, "<|end|>"),
    }
    head = "".join(turn.text.join(around[turn.role]) for turn in prompt)
    (want,) = TextEncoder.load(folder, max_length=limit, template=template).encode(prompt, [reply])
    encoder = TextEncoder.load(folder, max_length=limit, template=template, pre_rendered=True)
    for first, second in (
        (head + assistant, reply), (head + assistant, f"{reply}<|end|>"), (f"{head}{assistant}{reply}<|end|>", ""),
        (head, reply), (head, f"{assistant}{reply}"),
    ):  # fmt: skip
        (row,) = encoder.encode(as_prompt(first), [second])
        assert row.ids.tolist() == want.ids.tolist()
        assert (row.reply_start, row.cut_prompt, row.cut_reply) == (want.reply_start, want.cut_prompt, want.cut_reply)
    (bare,) = encoder.encode(as_prompt(texts[0]), [reply])
    (plain,) = TextEncoder.load(folder, max_length=limit, template=template).encode(as_prompt(texts[0]), [reply])
    assert bare.ids.tolist() == plain.ids.tolist()


def test_whole_texts_are_the_rows_of_their_turns(tmp_path: Path) -> None:
    """Under a chat template, and under the pair encoding with the separators written or not."""
    from transformers import AutoTokenizer

    prompt, reply = (Turn("user", "how do I bake bread"),), "mix flour"
    folder = chat_folder(tmp_path / "chat")
    chat = TextEncoder.load(folder)
    messages = [{"role": "user", "content": prompt[0].text}, {"role": "assistant", "content": reply}]
    text = AutoTokenizer.from_pretrained(folder).apply_chat_template(messages, tokenize=False)
    assert chat.encode_whole([text])[0].ids.tolist() == chat.encode(prompt, [reply])[0].ids.tolist()
    pair = TextEncoder.load(wordpiece_folder(tmp_path / "pair"))
    wanted = pair.encode(prompt, [reply])[0]
    for written in ("how do I bake bread[SEP]mix flour", "[CLS] how do I bake bread [SEP] mix flour [SEP]"):
        (row,) = pair.encode_whole([written])
        assert (row.ids.tolist(), row.types.tolist()) == (wanted.ids.tolist(), wanted.types.tolist())


def test_a_whole_text_without_a_separator_is_the_tokenizers_row_of_one_text(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = wordpiece_folder(tmp_path / "pair")
    encoder, tokenizer = TextEncoder.load(folder, max_length=8), AutoTokenizer.from_pretrained(folder)
    for text in ("mix flour", "mix flour water salt and yeast the dough needs an hour", ""):
        (row,) = encoder.encode_whole([text])
        theirs = tokenizer(text, truncation=True, max_length=8)
        assert row.ids.tolist() == theirs.input_ids
        assert row.types.tolist() == theirs.token_type_ids
        assert row.cut_reply == len(tokenizer(text).input_ids) - len(row.ids)
