"""Rewards for trainers, called as each trainer calls them, against a small server on the loopback."""

import asyncio
import copy
import functools
import inspect
import multiprocessing
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from prefrank import RewardModel
from prefrank.errors import BadInput, BadModel, NotFound
from prefrank.serving.rewards import (
    AsyncTrlReward,
    ClientOptions,
    OpenrlhfReward,
    SlimeReward,
    Source,
    TrlReward,
    TrlxReward,
    VerlManager,
    VerlReward,
)
from tests.serving.fake_server import FINGERPRINT, FakeServe, Fault, worth
from tests.tiny import bert_folder

SCORE = worth("Why?", "Because.")
pytestmark = pytest.mark.usefixtures("no_proxy")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(bert_folder(tmp_path_factory.mktemp("rewards")))


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


# All of them


def rewards_of(place: str) -> list[Any]:
    return [
        TrlReward(place), AsyncTrlReward(place), OpenrlhfReward(place), VerlReward(place), VerlManager(place),
        SlimeReward(place), TrlxReward(place),
    ]  # fmt: skip


def test_all_are_frozen_values_that_pickle_and_copy(fake: FakeServe) -> None:
    for reward in rewards_of(fake.url):
        for other in (pickle.loads(pickle.dumps(reward)), copy.deepcopy(reward)):
            assert other == reward
            assert hash(other) == hash(reward)
        with pytest.raises(AttributeError):
            reward.place = "http://elsewhere"
    bound = pickle.loads(pickle.dumps(VerlReward(fake.url).compute_score_later))
    assert inspect.iscoroutinefunction(bound)


def test_what_is_open_stays_behind_when_a_reward_travels(fake: FakeServe) -> None:
    reward = TrlReward(fake.url)
    assert reward(["Why?"], ["Because."]) == [SCORE]
    other = pickle.loads(pickle.dumps(reward))
    assert other.source.opened is not reward.source.opened
    assert other(["Why?"], ["Because."]) == [SCORE]
    reward.source.close()
    assert reward(["Why?"], ["Because."]) == [SCORE]  # opened again
    for one in (reward, other):
        one.source.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # newer Pythons warn of threads
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_rewards_work_in_other_processes_forked_ones_too(fake: FakeServe, method: str) -> None:
    reward = TrlReward(fake.url)
    assert reward(["Why?"], ["Because."]) == [SCORE]
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(reward, (["Why?"], ["Because."])) == [SCORE]
    assert reward(["Why?"], ["Because."]) == [SCORE]
    reward.source.close()


@pytest.mark.parametrize("place", ["", (), ("http://a", "nonsense")])
def test_places_that_are_none_are_refused_when_the_reward_is_made(place: Any) -> None:
    with pytest.raises(BadInput):
        TrlReward(place)


def test_a_model_that_is_exchanged_ends_the_run(fake: FakeServe) -> None:
    reward = TrlReward(fake.url, ClientOptions(fingerprint=FINGERPRINT))
    assert reward(["Why?"], ["Because."]) == [SCORE]
    fake.fingerprint = "e" * 64
    with pytest.raises(BadModel, match="was exchanged"):
        reward(["Why?"], ["Because."])
    reward.source.close()


def test_no_answer_is_an_error_and_never_a_reward() -> None:
    quick = ClientOptions(tries=2, wait_s=0.01)
    reward = TrlReward("http://127.0.0.1:1", quick)
    with pytest.raises(NotFound, match="tried 2 times"):
        reward(["Why?"], ["Because."])
    reward.source.close()


# TRL


def test_trl_gets_a_reward_for_each_completion_of_texts(fake: FakeServe) -> None:
    reward = TrlReward(fake.url)
    columns = {"completion_ids": [[1], [2], [3]], "answer": ["a", "b", "c"], "trainer_state": None}
    given = reward(prompts=["Why?"] * 3, completions=["Because.", "poison", ""], **columns)
    assert given == [SCORE, None, worth("Why?", "")]
    assert reward([], []) == []
    reward.source.close()


def test_trl_conversations_and_texts_get_the_same_rewards(fake: FakeServe) -> None:
    reward = TrlReward(fake.url)
    assert reward([user("Why?")], [assistant("Because.")]) == [SCORE]
    assert fake.asked[-1][1]["pairs"] == [{"prompt": "Why?", "reply": "Because."}]
    reward.source.close()


def test_of_a_completion_of_several_messages_the_last_one_is_scored(fake: FakeServe) -> None:
    calls = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "clock", "arguments": {}}}]}
    completion = [calls, {"role": "tool", "content": "12:00"}, {"role": "assistant", "content": "Noon.",
                                                                "reasoning_content": "The clock says so."}]  # fmt: skip
    reward = TrlReward(fake.url)
    assert reward([user("What time is it?")], [completion]) == [worth("What time is it?12:00", "Noon.")]
    sent = fake.asked[-1][1]["pairs"][0]
    assert [turn["role"] for turn in sent["prompt"]] == ["user", "assistant", "tool"]
    assert sent["reply"] == "Noon."
    reward.source.close()


def test_a_completion_that_holds_no_answer_is_none_and_the_others_have_rewards(fake: FakeServe) -> None:
    unfinished = [{"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}]
    reward = TrlReward(fake.url)
    errors: dict[str, list[str]] = {}
    given = reward(
        [user("Why?")] * 4,
        [assistant("Because."), unfinished, [], assistant("poison")],
        log_extra=lambda column, values: errors.update({column: values}),
    )
    assert given == [SCORE, None, None, None]
    assert [bool(error) for error in errors["prefrank_error"]] == [False, True, True, True]
    assert "tool_calls" in errors["prefrank_error"][1]
    assert reward([user("Why?")], [[]]) == [None]
    reward.source.close()


def test_trl_logs_what_failed_and_what_was_cut_the_same_columns_each_time(fake: FakeServe) -> None:
    metrics: dict[str, float] = {}
    columns: dict[str, list[Any]] = {}
    reward = TrlReward(fake.url, name="helpful")
    logs: dict[str, Any] = {"log_metric": metrics.__setitem__, "log_extra": columns.__setitem__}
    reward(["Why?"] * 4, ["Because.", "poison", "x" * 101, "So."], **logs)
    assert metrics == {"helpful/failed": 0.25, "helpful/cut_prompt": 0.0, "helpful/cut_reply": 0.25}
    assert columns == {"helpful_error": ["", "the text cannot be encoded", "", ""]}
    reward(["Why?"], ["So."], **logs)
    assert columns == {"helpful_error": [""]}
    assert reward.__name__ == "helpful"
    reward.source.close()


def test_the_asynchronous_reward_is_seen_as_such_and_works_in_any_event_loop(fake: FakeServe) -> None:
    reward = AsyncTrlReward(fake.url)
    assert inspect.iscoroutinefunction(reward.__call__)

    async def both() -> list[list[float | None]]:
        return await asyncio.gather(reward(["Why?"], ["Because."]), reward(["Why?"], ["poison"]))

    assert [asyncio.run(both()) for _ in range(2)] == [[[SCORE], [None]]] * 2
    reward.source.close()


# OpenRLHF


def test_openrlhf_may_send_whole_texts(fake: FakeServe) -> None:
    reward = OpenrlhfReward(fake.url, take="text")
    assert reward(["<|user|>Why?<|bot|>So."], ["<|user|>Why?<|bot|>"])["rewards"] == [22.0]
    assert fake.asked[-1][1] == {"texts": ["<|user|>Why?<|bot|>So."]}
    reward.source.close()


def test_a_reply_that_cannot_be_scored_is_an_error_unless_it_is_said_what_it_is_worth(fake: FakeServe) -> None:
    reward = OpenrlhfReward(fake.url)
    with pytest.raises(BadModel, match="1 of 1 rows could not be scored; row 0: the text cannot be encoded"):
        reward(["Why? poison"], ["Why? "])
    told = OpenrlhfReward(fake.url, if_failed=-9.0)
    found = told(["Why? poison"], ["Why? "])
    assert (found["rewards"], found["extra_logs"]["prefrank_failed"]) == ([-9.0], [1.0])
    for one in (reward, told):
        one.source.close()


# verl


def test_verl_scores_as_it_calls_a_custom_function(fake: FakeServe) -> None:
    reward = VerlReward(fake.url)
    info = {"prompt": np.array(user("Why?"), dtype=object), "num_turns": 2}
    arguments: dict[str, Any] = {"data_source": "d", "solution_str": "Because.", "ground_truth": None}
    wrapped = functools.partial(reward.compute_score_later, reward_router_address="a:1")
    assert inspect.iscoroutinefunction(wrapped)
    assert not inspect.iscoroutinefunction(reward.compute_score)
    for found in (
        reward.compute_score(**arguments, extra_info=info),
        asyncio.run(wrapped(**arguments, extra_info=info)),
    ):
        assert found == {
            "score": SCORE, "prefrank_failed": 0.0, "prefrank_tokens": 8.0, "prefrank_cut_prompt": 0.0,
            "prefrank_cut_reply": 0.0,
        }  # fmt: skip
    with pytest.raises(BadInput, match="extra_info has the keys num_turns; wanted 'prompt'"):
        reward.compute_score(**arguments, extra_info={"num_turns": 2})
    with pytest.raises(BadModel, match="could not be scored"):
        reward.compute_score("d", "poison", None, info)
    reward.source.close()


class Sample:
    """As much of verl's DataProto as its managers use."""

    def __init__(self, batch: dict[str, torch.Tensor], non_tensor_batch: dict[str, list[Any]]) -> None:
        self.batch, self.non_tensor_batch = batch, non_tensor_batch

    def __getitem__(self, key: Any) -> "Sample":
        return Sample(
            {name: tensor[key] for name, tensor in self.batch.items()},
            {name: values[key] for name, values in self.non_tensor_batch.items()},
        )


class Letters:
    """A tokenizer of letters; 0 is its end token."""

    def decode(self, ids: torch.Tensor, skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return "".join(chr(int(token)) for token in ids if token)


def verl_data() -> Sample:
    """Two prompts of 4 and 2 tokens and replies of 4 and 9, the end token among them."""
    replies = torch.zeros(2, 9, dtype=torch.long)
    for row, reply in enumerate(("So.", "Because.")):
        replies[row, : len(reply)] = torch.tensor([ord(letter) for letter in reply])
    mask = torch.tensor([[1] * 4 + [1] * 4 + [0] * 5, [0, 0, 1, 1] + [1] * 9])
    tensors = {"prompts": torch.ones(2, 4, dtype=torch.long), "responses": replies, "attention_mask": mask}
    return Sample(tensors, {"raw_prompt": [user("Why?"), user("Of what?")]})


def test_a_verl_manager_scores_each_sample_and_places_the_reward_at_its_last_token(fake: FakeServe) -> None:
    manager = VerlManager(fake.url)
    scoring = manager(config=None, tokenizer=Letters(), compute_score=None, reward_router_address=None)
    data = verl_data()
    found = [asyncio.run(scoring.run_single(data[row : row + 1])) for row in range(2)]
    scores = [worth("Why?", "So."), worth("Of what?", "Because.")]
    assert [one["reward_score"] for one in found] == scores
    assert {name for one in found for name in one["reward_extra_info"]} == {
        "score", "prefrank_failed", "prefrank_tokens", "prefrank_cut_prompt", "prefrank_cut_reply",
    }  # fmt: skip
    placed = manager.assemble_rm_scores(data, scores)
    assert placed.tolist() == [[0, 0, 0, scores[0], 0, 0, 0, 0, 0], [0] * 8 + [scores[1]]]
    with pytest.raises(BadInput, match="return_raw_chat"):
        asyncio.run(scoring.run_single(Sample(data.batch, {"data_source": ["d", "d"]})))
    manager.source.close()


# slime, trlX


def test_slime_gets_a_reward_for_a_sample_and_a_list_for_a_group(fake: FakeServe) -> None:
    samples = [
        SimpleNamespace(prompt="Why?", response="Because.<|im_end|>"),
        SimpleNamespace(prompt=user("Of what?"), response="So."),
    ]
    reward = SlimeReward(fake.url)
    scores = [SCORE, worth("Of what?", "So.")]

    async def as_slime_does() -> list[float]:
        return await asyncio.gather(*[reward(SimpleNamespace(rm_url=None), sample) for sample in samples])

    assert asyncio.run(as_slime_does()) == scores
    assert asyncio.run(reward.group(None, samples)) == scores
    assert asyncio.run(reward.group(None, [])) == []
    whole = SlimeReward(fake.url, take="text")
    assert asyncio.run(whole(None, samples[0])) == 22.0
    with pytest.raises(BadInput, match="--apply-chat-template"):
        asyncio.run(whole(None, samples[1]))
    for one in (reward, whole):
        one.source.close()


@pytest.mark.parametrize("reward", [OpenrlhfReward, SlimeReward])
def test_what_to_take_is_one_of_two(reward: Any) -> None:
    with pytest.raises((BadInput, TypeError), match="take"):
        reward("http://127.0.0.1:1", take="prompt")


def test_trlx_gets_a_reward_for_each_output_without_its_end_token(fake: FakeServe) -> None:
    reward = TrlxReward(fake.url)
    prompts, outputs = ["Why?", "Of what?"], ["Because.[END]", "So.[END]"]
    samples = [prompt + output for prompt, output in zip(prompts, outputs, strict=True)]
    tokenizer = SimpleNamespace(eos_token="[END]")
    found = reward(samples=samples, prompts=prompts, outputs=outputs, tokenizer=tokenizer, label=[1, 2])
    assert found == [SCORE, worth("Of what?", "So.")]
    endless = SimpleNamespace(eos_token=None)
    assert reward(samples, prompts, ["None", "[END]"], endless) == [worth("Why?", "None"), worth("Of what?", "[END]")]
    assert reward([], [], []) == []
    with pytest.raises(BadInput, match="2 samples and 2 prompts and 1 outputs"):
        reward(samples, prompts, outputs[:1])
    reward.source.close()


# A folder in place of a server


def test_a_folder_gives_the_rewards_of_its_model(folder: str) -> None:
    model = RewardModel.load(folder)
    prompts, replies = ["how do I bake"] * 3, ["mix flour", "no", "yeast and salt"]
    wanted = [score.value for score in model.score_pairs(zip(prompts, replies, strict=True))]
    reward = pickle.loads(pickle.dumps(TrlReward(folder, ClientOptions(fingerprint=model.fingerprint))))
    assert reward(prompts, replies) == wanted
    assert asyncio.run(AsyncTrlReward(folder)(prompts, replies)) == wanted
    with pytest.raises(BadModel, match="was exchanged"):
        TrlReward(folder, ClientOptions(fingerprint="f" * 64))(prompts, replies)
    with pytest.raises(BadInput, match="no whole texts"):
        Source(folder).score_texts(["a"])


def test_a_row_that_a_folders_model_cannot_score_fails_alone(folder: str) -> None:
    reward = TrlReward(folder)
    sound = reward(["how do I bake"] * 2, ["mix flour", "no"])
    assert reward(["how do I bake"] * 3, ["mix flour", "\ud800", "no"]) == [sound[0], None, sound[1]]


def test_faults_of_a_server_are_tried_again_in_rewards_too(fake: FakeServe) -> None:
    fake.faults.extend([Fault(503), Fault(breaks_off=True)])
    reward = TrlReward(fake.url, ClientOptions(wait_s=0.01))
    assert reward(["Why?"], ["Because."]) == [SCORE]
    reward.source.close()


def test_the_folder_of_a_reward_is_looked_for_when_it_is_first_needed(tmp_path: Path) -> None:
    reward = TrlReward(str(tmp_path / "nothing"))
    with pytest.raises(NotFound):
        reward(["Why?"], ["Because."])
