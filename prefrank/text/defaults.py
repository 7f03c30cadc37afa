"""The text settings of a checkpoint that carries none, and templates that somebody names for one that has none."""

from dataclasses import replace

from prefrank.errors import BadModel
from prefrank.text.settings import CUT_STEP, TextSettings, TokenTypes
from prefrank.text.templates import PairTokens, pair_tokens
from prefrank.text.tokenizer import FolderTokenizer, with_chat_template

OA_TURNS = {
    "system": ("<|system|>", "{eos}"),
    "user": ("<|prompter|>", "{eos}"),
    "assistant": ("<|assistant|>", "{eos}"),
}
"""The turn tokens of Open Assistant's decoder reward models (their model cards' usage section)."""
MOST_TOKENS = 4096
"""The longest row that is a default: what a CPU scores in seconds, and memory holds."""
PLAIN = "turns"
"""What stands for `User:` and `Assistant:` turns where a template is named."""


def default_settings(source: FolderTokenizer, max_length: int, *, named: bool = False) -> TextSettings:
    """The text settings of a checkpoint that carries none (see `TextEncoder.load`).

    Args:
        named: whether somebody names a template (`with_template`), so that a decoder without one is not refused.

    Raises:
        BadModel: a decoder's tokenizer without a chat template. Its rows could be of any form, and with another than it
            was trained on a model's order of replies is near chance.
    """
    pair = pair_tokens(source)
    if pair is not None and pair.closed:
        return TextSettings("pair", max_length, token_types=_token_types(source, pair))
    if source.chat_template is not None:
        return replace(_decoder(max_length), template="chat")
    if all(source.tokenizer.token_to_id(token) is not None for token in ("<|prompter|>", "<|assistant|>")):
        return replace(_decoder(max_length), turn_strings=OA_TURNS)
    if named:
        return _decoder(max_length)
    others = f" (it has others: {', '.join(sorted(source.chat_templates)[:6])})" if source.chat_templates else ""
    raise BadModel(
        f"the tokenizer in {source.folder} has no chat template{others} and no encoding of pairs, so nothing says how"
        " the model reads prompt and reply; name the template that it was trained with (--template, or chat_template in"
        f" a recipe): a Jinja file, or {PLAIN} for plain User: and Assistant: turns"
    )


def with_template(
    source: FolderTokenizer, settings: TextSettings, template: str
) -> tuple[FolderTokenizer, TextSettings]:
    """A decoder's tokenizer and settings with a template that somebody names, for `TextEncoder`.

    Args:
        template: `turns` for plain `User:` and `Assistant:` turns; else as `with_chat_template` takes it.

    Raises:
        NotFound, BadModel: as `with_chat_template`.
    """
    if template == PLAIN and PLAIN not in source.chat_templates:
        return source, replace(settings, template="turns", turn_strings=None)
    return with_chat_template(source, template), replace(settings, template="chat", turn_strings=None)


def own_template(source: FolderTokenizer, settings: TextSettings | None) -> str | None:
    """What already says how a model reads texts, in words; None where nothing does."""
    if settings is not None:
        return "the text settings that it was trained with"
    pair = pair_tokens(source)
    if pair is not None and pair.closed:
        return "an encoding of pairs"
    return "a chat template" if source.chat_template is not None else None


def default_length(source: FolderTokenizer, positions: int | None) -> int:
    """Tokens of a row where nobody chose: what tokenizer and model allow, up to 4,096; 512 where neither says."""
    lengths = [length for length in (source.default_length, positions) if length is not None]
    return min(*lengths, MOST_TOKENS) if lengths else 512


def _decoder(max_length: int) -> TextSettings:
    """What the settings of all decoders without their own have in common."""
    return TextSettings("turns", max_length, token_types="none", row_ends="files", cut_step=CUT_STEP)


def _token_types(source: FolderTokenizer, pair: PairTokens) -> TokenTypes:
    types = pair.types
    if not any((*types.before, types.first, *types.middle, types.second, *types.after)) or not source.gives_types:
        return "none"
    return "reply" if pair.typed_by_reply else "tokenizer"
