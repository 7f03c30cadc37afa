"""Checks that tool calls and turns of other roles are well-formed, and that a chat template kept them."""

import json
import re
from html import escape

from prefrank.errors import BadText, short
from prefrank.io.json_files import parse_json
from prefrank.types import Prompt


def check_calls(prompt: Prompt, number: int) -> None:
    """Raise BadText for tool calls that are not as OpenAI's messages have them."""
    for place, turn in enumerate(prompt):
        extra = parse_json(turn.extra, f"prompt turn {place} of pair {number}", BadText) if turn.extra else {}
        calls = extra.get("tool_calls") or [] if isinstance(extra, dict) else extra
        single = extra.get("function_call") if isinstance(extra, dict) else None
        listed = [*calls, *([single] if isinstance(single, dict) else [])] if isinstance(calls, list) else [None]
        for call in listed:
            function = call.get("function", call) if isinstance(call, dict) else None
            if not isinstance(function, dict) or not isinstance(function.get("name", ""), str):
                raise BadText(
                    f"prompt turn {place} of pair {number} has the tool call {short(call)}; wanted an object with"
                    " function, an object with name and arguments"
                )


def check_held(prompt: Prompt, text: str, number: int) -> None:
    """Raise BadText for a turn of another role than user and assistant, or a tool call, that the template left out."""
    other = [(n, turn) for n, turn in enumerate(prompt) if turn.extra or turn.role not in ("user", "assistant")]
    letters = _letters(text) if other else ""
    for place, turn in other:
        message = turn.message()
        calls = [call.get("function", call).get("name", "") for call in message.get("tool_calls", ())]
        calls += [message["function_call"].get("name", "")] if isinstance(message.get("function_call"), dict) else []
        texts = [turn.text] if turn.role not in ("user", "assistant") else []
        for what, wanted in (*(("text", each) for each in texts), *(("tool call", each) for each in calls)):
            forms = (wanted, json.dumps(wanted), json.dumps(wanted, ensure_ascii=False), escape(wanted))
            if not any(_letters(form) in letters for form in forms):
                raise BadText(
                    f"the model's chat template leaves out the {what} of prompt turn {place} of pair {number} (role"
                    f" {turn.role}); move it into a user or assistant turn, or give another chat_template"
                )


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text)  # what is left is what str.isalnum says, in no list of single characters
