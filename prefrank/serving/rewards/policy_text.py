"""Prompts and replies out of what trainers hand over: texts that the policy's chat template has been through.

A reward model has a template of its own and wants the prompt and the reply alone. What the policy's template put around
them is taken away where it is there exactly as stated, and is an error where it is not: a reward of a text with another
model's control tokens in it is a wrong reward that nobody sees.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prefrank.errors import BadInput, short
from prefrank.types import Prompt, PromptLike, Turn, as_prompt

ENDS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<|end|>",
    "</s>",
    "<eos>",
)
"""With which replies end in the vocabularies of well-known models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyText:
    """What the policy's template puts around a prompt, and its vocabulary after a reply.

    Args:
        before, after: the text before and after the one user turn of a prompt, such as "<|im_start|>user\\n" and
            "<|im_end|>\\n<|im_start|>assistant\\n"; empty where prompts reach the trainer as they are.
        ends: tokens of which one is taken from the end of a reply, where one stands there.
    """

    before: str = ""
    after: str = ""
    ends: tuple[str, ...] = ENDS

    def prompt(self, given: PromptLike) -> Prompt:
        """The prompt alone.

        Raises:
            BadInput: a text without what the template puts around it; what is no prompt.
        """
        if not isinstance(given, str):
            return as_prompt(given)
        begins, ends = given.startswith(self.before), given.endswith(self.after)
        if not begins or not ends or len(given) < len(self.before) + len(self.after):
            raise BadInput(
                f"a prompt is {short(given)}; wanted {short(self.before)}, the user's words, {short(self.after)}, as"
                " before and after of PolicyText say"
            )
        return (Turn("user", given[len(self.before) : len(given) - len(self.after)]),)

    def reply(self, text: str, *also: str | None) -> str:
        """The reply without the token at its end.

        Args:
            also: further end tokens.
        """
        bare = text.rstrip()
        end = next((end for end in (*also, *self.ends) if end and bare.endswith(end)), None)
        return text if end is None else bare.removesuffix(end)

    def reply_in(self, query: str, prompt: str) -> str:
        """The reply in a text that begins with its prompt.

        Raises:
            BadInput: it does not.
        """
        if not query.startswith(prompt):
            raise BadInput(
                f"a query is {short(query)} and does not begin with its prompt {short(prompt)}; wanted both with the"
                ' same special tokens, or take="text" for a reward model with the policy\'s own template'
            )
        return self.reply(query[len(prompt) :])


def same_number(**columns: Sequence[object] | None) -> None:
    """See that columns are of one length.

    Raises:
        BadInput: they are not.
    """
    sizes = {name: len(values) for name, values in columns.items() if values is not None}
    if len(set(sizes.values())) > 1:
        raise BadInput(f"there are {_listed(f'{size} {name}' for name, size in sizes.items())}; wanted as many of each")


def _listed(parts: Iterable[str]) -> str:
    return " and ".join(parts)
