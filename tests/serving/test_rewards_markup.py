"""Texts in the chat markup of policies, as trainers hand them over: the rewards are those of the bare turns."""

import asyncio
import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from prefrank.errors import BadInput
from prefrank.serving.rewards import (
    AsyncTrlReward,
    OpenrlhfReward,
    SlimeReward,
    TrlReward,
    TrlxReward,
    VerlReward,
)
from tests.serving.fake_server import FakeServe, worth

SCORE = worth("Why?", "Because.")
UNKNOWN = "<|human|>Why?<|bot|>"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServe]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = FakeServe()
    yield server
    server.close()


def chatml(text: str) -> str:
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


Call = tuple[Callable[[str], Any], Callable[[Any, str, str], Any]]
TRAINERS: dict[str, Call] = {
    "trl": (TrlReward, lambda reward, prompt, reply: reward([prompt], [reply])[0]),
    "trl later": (AsyncTrlReward, lambda reward, prompt, reply: asyncio.run(reward([prompt], [reply]))[0]),
    "openrlhf": (OpenrlhfReward, lambda reward, prompt, reply: reward([prompt + reply], [prompt])["rewards"][0]),
    "verl": (
        VerlReward,
        lambda reward, prompt, reply: reward.compute_score("d", reply, None, {"prompt": prompt})["score"],
    ),
    "slime": (
        SlimeReward,
        lambda reward, prompt, reply: asyncio.run(reward(None, SimpleNamespace(prompt=prompt, response=reply))),
    ),
    "trlx": (TrlxReward, lambda reward, prompt, reply: reward([prompt + reply], [prompt], [reply])[0]),
}
"""How to make each reward, and how its trainer asks for that of one reply to a prompt that is a text."""


@pytest.mark.parametrize("trainer", TRAINERS)
def test_prompts_in_a_chat_markup_and_plain_ones_get_the_same_rewards(fake: FakeServe, trainer: str) -> None:
    make, call = TRAINERS[trainer]
    reward = make(fake.url)
    system = "<|im_start|>system\nBe brief.<|im_end|>\n"
    for prompt, reply in (("Why?", "Because.</s>"), (chatml("Why?"), "Because.<|im_end|>\n<|endoftext|>")):
        assert call(reward, prompt, reply) == SCORE
        assert fake.asked[-1][1]["pairs"] == [{"prompt": "Why?", "reply": "Because."}]
    assert call(reward, system + chatml("Why?"), "So.") == worth("Be brief.Why?", "So.")
    assert [turn["role"] for turn in fake.asked[-1][1]["pairs"][0]["prompt"]] == ["system", "user"]
    reward.source.close()


@pytest.mark.parametrize("trainer", ["openrlhf", "verl", "slime", "trlx"])
def test_a_prompt_in_a_markup_that_is_not_known_is_an_error(fake: FakeServe, trainer: str) -> None:
    make, call = TRAINERS[trainer]
    with pytest.raises(BadInput, match=r"ends in '<\|bot\|>', as in a chat markup that is not known") as error:
        call(make(fake.url), UNKNOWN, "So.")
    assert ('take="text"' in str(error.value)) == (trainer in ("openrlhf", "slime"))
    assert str(error.value).startswith("extra_info: ") == (trainer == "verl")
    assert fake.asked == []


def test_a_row_of_trl_in_a_markup_that_is_not_known_fails_alone(fake: FakeServe) -> None:
    reward = TrlReward(fake.url)
    errors: list[str] = []
    given = reward([UNKNOWN, "Why?"], ["So.", "Because."], log_extra=lambda column, values: errors.extend(values))
    assert given == [None, SCORE]
    assert "as in a chat markup that is not known" in errors[0]
    assert errors[1] == ""
    reward.source.close()


def test_messages_are_taken_as_they_are(fake: FakeServe) -> None:
    """What a user writes is no markup of the policy's."""
    reward = SlimeReward(fake.url)
    sample = SimpleNamespace(prompt=[{"role": "user", "content": UNKNOWN}], response="So.<|im_end|>")
    assert asyncio.run(reward(None, sample)) == worth(UNKNOWN, "So.")
    reward.source.close()


def test_openrlhf_gets_rewards_of_the_bare_prompt_and_reply(fake: FakeServe) -> None:
    prompt = chatml("Why?")
    reward = OpenrlhfReward(fake.url)
    found = reward([f"{prompt}Because.<|im_end|>", f"{prompt}So.", prompt], [prompt] * 3, [None, "label", None])
    assert fake.asked[-1][1]["pairs"] == [
        {"prompt": "Why?", "reply": "Because."},
        {"prompt": "Why?", "reply": "So."},
        {"prompt": "Why?", "reply": ""},
    ]
    assert found["rewards"] == [7.0, 2.0, -1.0]
    assert found["scores"] == pytest.approx([1 / (1 + math.exp(-value)) for value in (7, 2, -1)])
    assert found["extra_logs"]["prefrank_failed"] == [0.0] * 3
    reward.source.close()


def test_openrlhf_queries_of_another_form_are_errors_and_not_wrong_rewards(fake: FakeServe) -> None:
    reward = OpenrlhfReward(fake.url)
    with pytest.raises(BadInput, match=r"query\[1\] does not begin with prompts\[1\].*; or take=\"text\""):
        reward([chatml("Why?") + "So."] * 2, [chatml("Why?"), chatml("Who?")], [None] * 2)
    with pytest.raises(BadInput, match="2 queries and 1 prompts"):
        reward(["a", "b"], ["a"], [None])
    assert fake.asked == []
