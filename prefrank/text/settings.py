"""The text settings a checkpoint carries, so that loading it rebuilds the exact text path.

`template` says how a prompt and a reply become one row:
- `pair`: the tokenizer's own pair encoding, `[CLS] prompt [SEP] reply [SEP]`. Several turns are joined by the
  separator's ids, never by a string, so no text can imitate the structure. With `labels` each turn of such a prompt
  opens with its role as plain text; a prompt of one user turn never has a label and equals the plain pair encoding.
- `chat`: the tokenizer's chat template (decoders).
- `turns`: fixed opening and closing strings around each turn (decoders without a chat template).

A decoder reads a prompt once for all of its replies, as far as their rows begin alike. So that rows which are cut still
do, new decoders lose the tokens of a turn in steps of `CUT_STEP`: replies of nearly one length then leave the same.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from prefrank.errors import BadModel, short, suggest

Template = Literal["pair", "chat", "turns"]
TokenTypes = Literal["reply", "tokenizer", "none"]
RowEnds = Literal["config", "files"]
MOST_LENGTH = 2**31
CUT_STEP = 64
"""`cut_step` of decoders that carry no settings, and so of what is trained from them."""
MOST_STEP = 4096
PLAIN_TURNS = {"system": ("System: ", "\n\n"), "user": ("User: ", "\n\n"), "assistant": ("Assistant: ", "{eos}")}
"""Opening and closing of each role where a decoder has no turn tokens of its own."""


@dataclass(frozen=True, slots=True)
class TextSettings:
    """How text becomes rows.

    Args:
        template: see the module's page.
        max_length: tokens of a row, special tokens included. The reply is kept whole, the prompt loses its oldest
            turns and then its oldest tokens; only a reply that alone exceeds the limit is cut, at its end.
        labels: for `pair`, whether the turns of a prompt of several turns open with their role.
        turn_strings: for `turns`, role -> (opening, closing); `{eos}` stands for the end token.
        token_types: `none` are all 0; `tokenizer` are those of the tokenizer's pair encoding (for `pair`); `reply` are
            0 in the prompt and 1 from the reply on, which checkpoints that do not say were trained with.
        row_ends: where BOS and EOS are looked for (for `chat` and `turns`): `files` are the post-processor and all of
            the tokenizer's and the model's configuration; `config` is tokenizer_config.json alone, which checkpoints
            that do not say were trained with.
        cut_step: for `chat` and `turns`, tokens that a turn which is cut loses at a time, 1 to 4,096: their number is
            rounded up to a multiple. Of its last so many tokens, none goes for that. 1 in checkpoints that do not say.
    """

    template: Template
    max_length: int
    labels: bool = False
    turn_strings: dict[str, tuple[str, str]] | None = None
    token_types: TokenTypes = "reply"
    row_ends: RowEnds = "config"
    cut_step: int = 1

    def __post_init__(self) -> None:
        if self.template not in get_args(Template):
            raise BadModel(
                f"the text template is {short(self.template)}; wanted one of {', '.join(get_args(Template))}"
            )
        if self.token_types not in get_args(TokenTypes):
            raise BadModel(
                f"the token types are {short(self.token_types)}; wanted one of {', '.join(get_args(TokenTypes))}"
            )
        if self.row_ends not in get_args(RowEnds):
            raise BadModel(f"row_ends is {short(self.row_ends)}; wanted one of {', '.join(get_args(RowEnds))}")
        if not _is_length(self.max_length):
            raise BadModel(f"max_length is {short(self.max_length)} tokens; wanted a whole number, at least 8")
        if not _is_step(self.cut_step):
            raise BadModel(f"cut_step is {short(self.cut_step)} tokens; wanted {_STEPS}")

    def to_json(self) -> dict[str, Any]:
        """Fields that came later are left out at their defaults, so that older checkpoints keep their fingerprints."""
        later = {"token_types": "reply", "row_ends": "config", "cut_step": 1}
        return {name: value for name, value in asdict(self).items() if name not in later or value != later[name]}

    @classmethod
    def from_json(cls, value: dict[str, Any], where: str = "prefrank.json") -> "TextSettings":
        """Rebuild the settings of a checkpoint.

        Args:
            where: what errors name the file by.

        Raises:
            BadModel: unknown or missing keys, as a newer or torn file would have, or values that are none.
        """
        known = [field.name for field in fields(cls)]
        if not isinstance(value, dict):
            raise BadModel(f"{where}: text is {short(value)}; wanted an object with {', '.join(known)}")
        for name in value:
            if name not in known:
                raise BadModel(
                    f"{where}: text.{name} is not a text setting{suggest(str(name), known)}."
                    " Was it saved by a newer prefrank?"
                )
        for name, (wanted, fits) in _VALUES.items():
            if name in value and not fits(value[name]):
                raise BadModel(f"{where}: text.{name} is {short(value[name])}; wanted {wanted}")
            if name in ("template", "max_length") and name not in value:
                raise BadModel(f"{where}: text.{name} is missing; wanted {wanted}")
        strings = value.get("turn_strings")
        return cls(
            **(value | {"turn_strings": {role: (*pair,) for role, pair in strings.items()} if strings else None})
        )


def _is_length(value: Any) -> bool:
    return type(value) is int and 8 <= value <= MOST_LENGTH


_STEPS = f"a whole number from 1 to {MOST_STEP:,}"


def _is_step(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MOST_STEP


def _is_text(value: Any) -> bool:
    """Whether it is a string of whole characters."""
    return isinstance(value, str) and value == value.encode(errors="replace").decode()


def _are_turn_strings(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict)
        and all(role in PLAIN_TURNS for role in value)
        and (not value or "assistant" in value)
        and all(isinstance(pair, list) and len(pair) == 2 and all(map(_is_text, pair)) for pair in value.values())
    )


_VALUES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "template": (f"one of {', '.join(get_args(Template))}", get_args(Template).__contains__),
    "max_length": ("a whole number of tokens, at least 8", _is_length),
    "labels": ("true or false", lambda value: isinstance(value, bool)),
    "turn_strings": (
        "an opening and a closing string for each role, the assistant among them, or null",
        _are_turn_strings,
    ),
    "token_types": (f"one of {', '.join(get_args(TokenTypes))}", get_args(TokenTypes).__contains__),
    "row_ends": (f"one of {', '.join(get_args(RowEnds))}", get_args(RowEnds).__contains__),
    "cut_step": (_STEPS, _is_step),
}
"""What a file's values are."""
