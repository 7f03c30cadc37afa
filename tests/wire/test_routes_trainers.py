"""What trainers send that recover rewards of whole samples: OpenRLHF, slime and LLaMA-Factory."""

from dataclasses import replace
from typing import Any

import pytest

from prefrank.types import Score, Turn
from prefrank.wire import openrlhf
from prefrank.wire.route import Answered, Asked, Refused, sigmoid
from tests.wire.asking import ABOUT, answer, ask, refusal, route_of, score

WHY = (Turn("user", "Why?"),)
PROMPT = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
SAMPLE = {"query": [PROMPT + "So.<|im_end|>"], "prompts": [PROMPT], "labels": [None]}

# OpenRLHF


def test_openrlhf_reads_rewards_of_one_sample() -> None:
    question = ask("/get_reward", SAMPLE)
    assert question.asked == (Asked(WHY, "So."),)
    assert (question.model, question.partial) == (None, False)
    logs = {"tokens": [7], "cut": [0]}
    assert answer(question, -1.25) == {"rewards": [-1.25], "scores": [sigmoid(-1.25)], "extra_logs": logs}


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        ({"query": PROMPT + "So.", "prompts": PROMPT}, [Asked(WHY, "So.")]),
        ({"query": [PROMPT + "So.", "Why?b"], "prompts": [PROMPT, "Why?"]}, [Asked(WHY, "So."), Asked(WHY, "b")]),
        ({"query": "Why? So.</s>", "prompts": "Why?"}, [Asked(WHY, " So.")]),
        ({"query": "<s> Why? So.</s>", "prompts": "Why?"}, [Asked(WHY, " So.")]),
        ({"query": "<s>[INST] Why? [/INST] So.</s>", "prompts": "[INST] Why? [/INST]"}, [Asked(WHY, "So.")]),
        ({"query": "Why?", "prompts": "Why?"}, [Asked(WHY, "")]),
        ({"query": [PROMPT + "So.<|im_end|>"]}, [Asked(WHY, "So.")]),
        ({"query": [PROMPT + "So.<|im_end|>"], "prompts": []}, [Asked(WHY, "So.")]),
        ({"query": "Why? So."}, [Asked((), "Why? So.")]),
        ({"query": "User: Why?\nAssistant: So.</s>", "prompts": "User: Why?\nAssistant: "}, [Asked(WHY, "So.")]),
    ],
)  # fmt: skip
def test_the_prompt_is_recovered_from_the_query(body: dict[str, Any], asked: list[Asked]) -> None:
    assert ask("/get_reward", body).asked == tuple(asked)


def test_scores_are_calibrated_where_the_model_is_and_logs_say_what_was_cut() -> None:
    cut = Score(2.0, tokens=9, cut_prompt=3, cut_reply=0, model="f")
    about = replace(ABOUT, temperature=4.0)
    question = ask("/get_reward", {"query": ["a", "b"]})
    written = question.answer(Answered(outcomes=(score(-1.0), cut), about=about, id="0", created=1))
    assert written == {
        "rewards": [-1.0, 2.0],
        "scores": [sigmoid(-0.25), sigmoid(0.5)],
        "extra_logs": {"tokens": [7, 9], "cut": [0, 1]},
    }


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "query is missing"),
        ({"query": []}, "nothing to score"),
        ({"query": [3]}, "query[0] is 3; wanted a string"),
        ({"query": ["a", "b"], "prompts": ["a"]}, "there are 2 queries and 1 prompts; wanted as many"),
        (
            {"query": ["abcd"], "prompts": ["abX"]},
            "query[0] does not begin with prompts[0]: at character 2 it has 'cd', and the prompt has 'X'",
        ),
        ({"query": ["ab"], "prompts": ["abc"]}, "at character 2 it has '', and the prompt has 'c'"),
        ({"query": ["a"], "prompts": [None]}, "prompts[0] is null; wanted a string"),
    ],
)
def test_openrlhf_is_told_what_is_wrong(body: Any, words: str) -> None:
    dialect, status, error = refusal("/get_reward", body)
    assert (dialect, status) == ("openrlhf", 422)
    assert words in error.pop("detail")
    assert error == {}


def test_a_failed_row_is_an_error_that_openrlhf_tries_again() -> None:
    assert openrlhf.ROUTES[0].errors.status("failed") == 500
    assert openrlhf.ROUTES[0].errors.write(Refused("failed", "it is bad"), 500) == {"detail": "it is bad"}


# slime


@pytest.mark.parametrize("path", ["/slime", "/"])
@pytest.mark.parametrize(
    "prompt", [PROMPT, "Why?", [{"role": "user", "content": "Why?"}]], ids=["rendered", "plain", "messages"]
)
def test_slime_reads_the_reward_itself(path: str, prompt: Any) -> None:
    body = {"prompt": prompt, "response": "So.<|im_end|>", "label": None}
    question = ask(path, body)
    assert route_of(path, body).dialect == "slime"
    assert question.asked == (Asked(WHY, "So."),)
    assert answer(question, -1.25) == -1.25


def test_slime_may_have_several_turns_before_the_reply() -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": PROMPT}]
    asked = ask("/slime", {"prompt": messages, "response": "So.", "label": {"a": 1}}).asked
    assert asked == (Asked((Turn("system", "s"), Turn("user", PROMPT)), "So."),)


@pytest.mark.parametrize("text", [PROMPT, "What does <|zork|> mean? <|zork|>"])
def test_messages_that_quote_chat_markup_are_no_markup(text: str) -> None:
    asked = ask("/slime", {"prompt": [{"role": "user", "content": text}], "response": "So."}).asked
    assert asked == (Asked((Turn("user", text),), "So."),)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"response": "a"}, "prompt is missing"),
        ({"prompt": "a"}, "response is missing"),
        ({"prompt": "a", "response": None}, "response is null; wanted a string"),
        ({"prompt": [], "response": "a"}, "prompt is []"),
        ({"prompt": 5, "response": "a"}, "prompt is 5"),
        (3, "the body is 3; wanted an object"),
    ],
)
def test_slime_is_told_what_is_wrong(body: Any, words: str) -> None:
    dialect, status, error = refusal("/slime", body)
    assert (dialect, status) == ("slime", 422)
    assert words in error["detail"]


# LLaMA-Factory


@pytest.mark.parametrize("path", ["/v1/score/evaluation", "/score/evaluation"])
def test_llama_factory_reads_raw_scores_of_whole_texts(path: str) -> None:
    question = ask(path, {"model": "gpt-3.5-turbo", "messages": [PROMPT + "So.", "b"], "max_length": None})
    assert question.asked == (Asked((), PROMPT + "So."), Asked((), "b"))
    assert question.any_name
    assert answer(question, -1.25, 2.0) == {
        "id": "scoreval-" + "0" * 32, "object": "score.evaluation", "model": "m", "scores": [-1.25, 2.0]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"model": "m"}, 422, "messages is missing"),
        ({"model": "m", "messages": []}, 400, "nothing to score"),
        ({"messages": [{"role": "user", "content": "a"}]}, 422, "messages[0] is"),
        ({"messages": "a"}, 422, "messages is 'a'; wanted a list"),
    ],
)
def test_llama_factory_is_told_what_is_wrong(body: Any, status: int, words: str) -> None:
    dialect, answered, error = refusal("/v1/score/evaluation", body)
    assert (dialect, answered) == ("llama-factory", status)
    assert words in error["detail"]
