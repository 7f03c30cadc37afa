"""The text settings a checkpoint carries, so that loading it rebuilds the exact text path.

`template` says how a prompt and a reply become one row:
- `pair`: the tokenizer's own pair encoding, `[CLS] prompt [SEP] reply [SEP]`. Several turns are joined by the
  separator's ids, never by a string, so no text can imitate the structure. With `labels` each turn of such a prompt
  opens with its role as plain text; a prompt of one user turn never has a label and equals the plain pair encoding.
- `chat`: the tokenizer's chat template (decoders).
- `turns`: fixed opening and closing strings around each turn (decoders without a chat template).
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from prefrank.errors import BadModel, short

Template = Literal["pair", "chat", "turns"]
TokenTypes = Literal["reply", "tokenizer", "none"]
RowEnds = Literal["config", "files"]
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
    """

    template: Template
    max_length: int
    labels: bool = False
    turn_strings: dict[str, tuple[str, str]] | None = None
    token_types: TokenTypes = "reply"
    row_ends: RowEnds = "config"

    def __post_init__(self) -> None:
        if self.template not in get_args(Template):
            raise BadModel(f"the text template is {self.template!r}; wanted one of {', '.join(get_args(Template))}")
        if self.token_types not in get_args(TokenTypes):
            raise BadModel(f"the token types are {self.token_types!r}; wanted one of {', '.join(get_args(TokenTypes))}")
        if self.row_ends not in get_args(RowEnds):
            raise BadModel(f"row_ends is {self.row_ends!r}; wanted one of {', '.join(get_args(RowEnds))}")
        if self.max_length < 8:
            raise BadModel(f"max_length is {self.max_length} tokens; wanted at least 8")

    def to_json(self) -> dict[str, Any]:
        """Fields that came later are left out at their defaults, so that older checkpoints keep their fingerprints."""
        later = {"token_types": "reply", "row_ends": "config"}
        return {name: value for name, value in asdict(self).items() if name not in later or value != later[name]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "TextSettings":
        """Rebuild the settings of a checkpoint.

        Raises:
            BadModel: unknown or missing keys, as a newer or torn file would have.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(value, dict) or not {"template", "max_length"} <= set(value) <= known:
            raise BadModel(
                f"the checkpoint's text settings are {short(value)}; wanted the keys {', '.join(sorted(known))}."
                " Was it saved by a newer prefrank?"
            )
        for name, (wanted, fits) in _VALUES.items():
            if name in value and not fits(value[name]):
                raise BadModel(f"{name} of the checkpoint's text settings is {short(value[name])}; wanted {wanted}")
        strings = value.get("turn_strings")
        return cls(
            template=value["template"],
            max_length=value["max_length"],
            labels=value.get("labels", False),
            turn_strings={role: (pair[0], pair[1]) for role, pair in strings.items()} if strings else None,
            token_types=value.get("token_types", "reply"),
            row_ends=value.get("row_ends", "config"),
        )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_turn_strings(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict)
        and all(role in PLAIN_TURNS for role in value)
        and all(isinstance(pair, list) and len(pair) == 2 and all(map(_is_text, pair)) for pair in value.values())
    )


_VALUES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "template": (f"one of {', '.join(get_args(Template))}", _is_text),
    "max_length": ("a whole number of tokens", lambda value: type(value) is int),
    "labels": ("true or false", lambda value: isinstance(value, bool)),
    "turn_strings": ("an opening and a closing string for each role, or null", _are_turn_strings),
    "token_types": (f"one of {', '.join(get_args(TokenTypes))}", _is_text),
    "row_ends": (f"one of {', '.join(get_args(RowEnds))}", _is_text),
}
"""What a file's values are."""
