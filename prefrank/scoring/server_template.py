"""Prompt and reply as one text, as the chat template of a tokenizer writes them for a server."""

from typing import Any

from prefrank.errors import BadInput
from prefrank.text.rendering import written_by
from prefrank.types import Prompt, Turn
from prefrank.wire.inputs import Writing


def template_writing(name: str) -> Writing:
    """Texts as the chat template of a tokenizer writes them.

    Args:
        name: a folder or hub id; no code of it is run.

    Raises:
        BadInput: no tokenizer there, or one without a chat template; when used, a prompt that the template refuses.
    """
    import transformers  # costs seconds, so not at the top

    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # a broken folder makes transformers raise nearly anything
        raise BadInput(f"{name} has no tokenizer to take the chat template of ({_line(error)})") from error
    template: Any = tokenizer.chat_template
    template = template.get("default") if isinstance(template, dict) else template
    if not (template and isinstance(template, str)):
        raise BadInput(f"the tokenizer of {name} has no chat template as a text; name a model that has one")

    def written(turns: Prompt, cue: bool) -> str:
        messages = [turn.message() for turn in turns]
        try:
            return written_by(template, messages, tokenizer.special_tokens_map, cue=cue)
        except BadInput as error:
            raise BadInput(f"{name}: {error}") from error

    def text(prompt: Prompt, reply: str) -> str:
        return written((*prompt, Turn("assistant", reply)), cue=False)

    if text((Turn("user", "a"),), "b") == text((Turn("user", "a"),), "c"):
        raise BadInput(
            f"the chat template of {name} writes the same for every reply; name a model whose template does not"
        )
    return Writing(
        text=text,
        opening=lambda prompt: written(prompt, cue=True),
        description=f"one text, written by the chat template of {name}",
        bos=tokenizer.bos_token or "",
    )


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
