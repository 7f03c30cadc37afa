"""What encoding did to a data set: counts, why comparisons were dropped, and what to tell people about it.

Two replies that become the same row teach nothing, so the preference between them is dropped. The reason decides what
helps: the limit may have cut off the difference, the chat template may have left it out, or the tokenizer may read both
alike (case, spaces, accents).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prefrank.types import Comparison, Preference, RankedPairs, Row


@dataclass(slots=True)
class EncodingCounts:
    """What encoding did to one data set, in comparisons, preferences, rows and tokens.

    Of comparisons whose replies all become the same rows, those that the limit cut, those of which the chat template
    left something out, and those that the tokenizer reads alike are counted apart.
    """

    comparisons: int = 0
    kept: int = 0
    dropped_replies_equal_after_cutting: int = 0
    dropped_replies_equal_in_the_template: int = 0
    dropped_replies_equal_to_the_tokenizer: int = 0
    preferences: int = 0
    preferences_dropped_replies_equal_after_cutting: int = 0
    preferences_of_other_heads: int = 0
    dropped_without_label_of_heads: int = 0
    rows: int = 0
    tokens: int = 0
    rows_with_cut_prompt: int = 0
    rows_with_cut_reply: int = 0
    rows_with_text_lost_in_the_template: int = 0
    comparisons_with_control_strings: int = 0

    def add(
        self,
        comparison: Comparison,
        rows: Sequence[Row],
        wanted: Sequence[Preference],
        preferences: Sequence[Preference],
        heads: Sequence[str],
    ) -> None:
        """Count one comparison; rows and tokens only if it is kept.

        Args:
            wanted: its preferences of the heads to train.
            preferences: those of them that are left between rows that differ.
            heads: the heads to train.
        """
        stated = comparison.preferences
        if isinstance(stated, RankedPairs):
            self.preferences_of_other_heads += len(stated) * (stated.head not in heads)
        else:
            self.preferences_of_other_heads += sum(preference.head not in heads for preference in stated)
        if not wanted:
            self.dropped_without_label_of_heads += 1
            return
        self.preferences_dropped_replies_equal_after_cutting += len(wanted) - len(preferences)
        if not preferences:
            self._drop([rows[place] for preference in wanted for place in (preference.winner, preference.loser)])
            return
        self.kept += 1
        self.preferences += len(preferences)
        self.rows += len(rows)
        self.tokens += sum(len(row.ids) for row in rows)
        self.rows_with_cut_prompt += sum(row.cut_prompt > 0 for row in rows)
        self.rows_with_cut_reply += sum(row.cut_reply > row.lost for row in rows)
        self.rows_with_text_lost_in_the_template += sum(row.lost > 0 for row in rows)

    def _drop(self, equal: Sequence[Row]) -> None:
        """Count a comparison with equal rows by their cause; causes that a higher limit would not fix come first."""
        if any(row.lost for row in equal):
            self.dropped_replies_equal_in_the_template += 1
        elif any(row.cut_reply for row in equal):
            self.dropped_replies_equal_after_cutting += 1
        else:
            self.dropped_replies_equal_to_the_tokenizer += 1

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def why_equal(counts: Mapping[str, int], max_length: int) -> str:
    """Why replies became equal rows, and what to do about it; "" where none did."""
    limit, template, tokenizer = (
        counts[f"dropped_replies_equal_{why}"] for why in ("after_cutting", "in_the_template", "to_the_tokenizer")
    )
    reasons = (
        (limit, f"within {max_length} tokens; raise max_length"),
        (
            template,
            "as the chat template leaves out what differs; give another by chat_template, or take that text out",
        ),
        (tokenizer, "to the tokenizer (case, spaces, accents); look at them, or take a model that tells them apart"),
    )
    stated = [(count, text) for count, text in reasons if count]
    return stated[0][1] if len(stated) == 1 else " | ".join(f"{count:,} {text}" for count, text in stated)


def remarks(counts: Mapping[str, int], *, max_length: int, pre_rendered: bool) -> list[str]:
    """Warnings about the counts of one set."""
    notes = []
    rows, control = counts["rows"], counts["comparisons_with_control_strings"]
    if cut := counts["rows_with_cut_reply"]:
        notes.append(f"{cut:,} of {rows:,} replies are cut at {max_length} tokens")
    if lost := counts["rows_with_text_lost_in_the_template"]:
        notes.append(f"of {lost:,} of {rows:,} replies the chat template leaves something out or changes it")
    if why := why_equal(counts, max_length):
        dropped = sum(count for name, count in counts.items() if name.startswith("dropped_replies_equal"))
        notes.append(f"{dropped:,} comparisons are dropped because their replies are equal {why}")
    if control or pre_rendered:
        how = (
            "tokens; what is scored later is read so only with --pre-rendered"
            if pre_rendered
            else "plain text; if they are rendered already, set pre_rendered: true"
        )
        notes.append(
            f"{control:,} of {counts['comparisons']:,} comparisons hold the model's control strings, read as {how}"
        )
    return notes
