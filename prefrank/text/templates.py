"""From texts to token ids for the templates pair and turns, before any length limit (`chat.py` has the third).

Each returns `Parts`: the control tokens of the template and the tokens of the texts kept apart, so that the limit can
be applied to structure (whole turns) and then to tokens, whatever the template.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from prefrank.errors import BadText, short
from prefrank.io.json_files import parse_json
from prefrank.text.reader import TextIds
from prefrank.text.settings import PLAIN_TURNS, RowEnds, TextSettings
from prefrank.text.tokenizer import FolderTokenizer
from prefrank.types import Prompt, Turn

Ids = list[int]
KEPT_ROLES = ("system", "developer")
"""Turns that say how to answer: the last of the prompt to be cut."""


@dataclass(frozen=True, slots=True)
class PartTypes:
    """Token types around and inside a pair, as its tokenizer gives them: of the control tokens, one for each; of the
    two texts, one for all of their tokens."""

    before: Ids
    first: int
    middle: Ids
    second: int
    after: Ids


@dataclass(frozen=True, slots=True)
class PartTurn:
    """One prompt turn as ids: opening control or label, text, closing control; whether it says how to answer."""

    opening: Ids
    text: TextIds
    closing: Ids
    kept: bool

    def __len__(self) -> int:
        return len(self.opening) + len(self.text) + len(self.closing)


@dataclass(frozen=True, slots=True)
class Parts:
    """The token ids around and inside one row's texts.

    Args:
        before: control tokens that open the row.
        turns: the prompt's.
        middle: control tokens between prompt and reply.
        after: control tokens that close the row.
        types: where they are not simply by reply.
    """

    before: Ids
    turns: list[PartTurn]
    middle: Ids
    after: Ids
    types: PartTypes | None = None


@dataclass(frozen=True, slots=True)
class PairTokens:
    """The control tokens of a tokenizer's pair encoding, read off its own post-processor, and all token types."""

    before: Ids
    middle: Ids
    after: Ids
    types: PartTypes = field(default_factory=lambda: PartTypes([], 0, [], 1, []))

    @property
    def closed(self) -> bool:
        """Whether it is an encoder's: the separator closes the pair too, and the row's opening does not come twice."""
        return self.middle[0] in self.after and not set(self.before) & set(self.middle)

    @property
    def typed_by_reply(self) -> bool:
        """Whether the types are 0 in the prompt and 1 from the reply on."""
        types = self.types
        return not any((*types.before, types.first, *types.middle)) and {types.second, *types.after} == {1}


def pair_tokens(source: FolderTokenizer) -> PairTokens | None:
    """What the tokenizer puts around the two texts of a pair; None if it puts nothing between them (decoders)."""
    encoding = source.tokenizer.encode(source.probe, source.probe)
    owner, ids, types = encoding.sequence_ids, encoding.ids, encoding.type_ids
    if 0 not in owner or 1 not in owner:
        return None
    first, second = owner.index(0), owner.index(1)
    first_end = second - next(i for i in range(second) if owner[second - 1 - i] == 0)
    second_end = len(owner) - next(i for i in range(len(owner)) if owner[-1 - i] == 1)
    if not ids[first_end:second]:
        return None
    before, middle, after = slice(0, first), slice(first_end, second), slice(second_end, None)
    of_parts = PartTypes(types[before], types[first], types[middle], types[second], types[after])
    return PairTokens(ids[before], ids[middle], ids[after], of_parts)


def row_opening(source: FolderTokenizer, row_ends: RowEnds) -> Ids:
    """What the tokenizer puts before one text: BOS, by its post-processor or where `add_bos_token` asks for it."""
    says = source.config.get("add_bos_token")
    if row_ends == "config":
        configured = source.configured_tokens.get("bos_token") if says else None
        return source.with_special_tokens.encode(configured, add_special_tokens=False).ids if configured else []
    bos = source.special_token("bos_token")
    number = None if bos is None else source.tokenizer.token_to_id(bos)
    encoding = source.tokenizer.encode(source.probe)
    opening = encoding.ids[: encoding.sequence_ids.index(0)] if 0 in encoding.sequence_ids else []
    if says is False:
        return [id for id in opening if id != number]
    return opening or ([number] if says and number is not None else [])


def pair_parts(control: PairTokens, prompt: Prompt, encoded: Callable[[str], TextIds], settings: TextSettings) -> Parts:
    """`[CLS] turn [SEP] turn [SEP] reply [SEP]`; a label opens each turn if asked for and there are several. Without a
    prompt `[CLS] reply [SEP]`, the row of one text."""
    if not prompt:
        of = control.types
        alone = PartTypes(of.before, of.first, [], of.first, [of.first] * len(control.after))
        return Parts(control.before, [], [], control.after, alone)
    label = settings.labels and (len(prompt) > 1 or prompt[0].role != "user")
    turns = []
    for number, turn in enumerate(prompt):
        opening = [*encoded(f"{turn.role}:")] if label else []
        closing = control.middle if number + 1 < len(prompt) else []
        turns.append(PartTurn(opening, encoded(turn.text), closing, turn.role in KEPT_ROLES))
    types = control.types if settings.token_types == "tokenizer" else None
    return Parts(control.before, turns, control.middle, control.after, types)


def turn_strings(source: FolderTokenizer, settings: TextSettings) -> dict[str, tuple[str, str]]:
    """Role -> the opening and closing strings of its turns, with the end token in its place."""
    tokens = source.special_tokens if settings.row_ends == "files" else source.configured_tokens
    eos = tokens.get("eos_token", "")
    strings = settings.turn_strings or PLAIN_TURNS
    return {role: (first.replace("{eos}", eos), last.replace("{eos}", eos)) for role, (first, last) in strings.items()}


def turn_parts(
    source: FolderTokenizer, prompt: Prompt, encoded: Callable[[str], TextIds], settings: TextSettings
) -> Parts:
    """Fixed strings around each turn; the reply is an assistant turn."""
    strings = {
        role: [source.with_special_tokens.encode(text, add_special_tokens=False).ids for text in pair]
        for role, pair in turn_strings(source, settings).items()
    }

    def part(turn: Turn) -> PartTurn:
        opening, closing = strings[turn.role]
        return PartTurn(opening, encoded(turn.text), closing, turn.role in KEPT_ROLES)

    before, turns = row_opening(source, settings.row_ends), [part(turn) for turn in prompt]
    if settings.row_ends == "files" and before and turns[0].opening[: len(before)] == before:
        before = []  # the strings write it themselves
    opening, closing = strings["assistant"]
    return Parts(before, turns, opening, closing)


def check_turns(prompt: Prompt, number: int, settings: TextSettings) -> None:
    """Raise BadText for what the templates pair and turns cannot hold: tool calls and the like, and for turns a role
    without strings of its own."""
    for place, turn in enumerate(prompt):
        if turn.extra:
            extra = parse_json(turn.extra, f"prompt turn {place} of pair {number}", BadText)
            names = ", ".join(extra) if isinstance(extra, dict) else short(extra)
            raise BadText(
                f"prompt turn {place} of pair {number} holds {names}, which the text template {settings.template} has"
                " no place for; write it into the text, or use a model with a chat template"
            )
        strings = settings.turn_strings or PLAIN_TURNS
        if settings.template == "turns" and turn.role not in strings:
            raise BadText(
                f"prompt turn {place} of pair {number} has the role {turn.role}, and the text settings have strings for"
                f" {', '.join(strings)} only; give it one of those roles, or use a model with a chat template"
            )
