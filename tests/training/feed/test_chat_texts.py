"""Chat templates in a recipe, texts that are rendered already, and replies that a template or tokenizer makes equal."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from prefrank import RewardModel
from prefrank.cli import progress, tables
from prefrank.errors import BadData, BadModel, BadRecipe, NotFound
from prefrank.text import TextEncoder
from prefrank.training import dry_run, load_recipe, train
from prefrank.training.feed.examples import encode
from prefrank.training.records.events import Encoded, Event
from prefrank.training.start import load_text
from prefrank.types import Comparison, Preference, Turn, as_prompt
from tests.tiny import bert_folder, decoder_folder
from tests.training.conftest import make_comparisons, write_jsonl

LOUD = "{% for m in messages %}{{ '<|start|>' + m['role'] + '!\n' + m['content'] + '<|end|>' }}{% endfor %}"
THINKING = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '\n' + m['content'].split('</think>')[-1] + '<|end|>' }}"
    "{% endfor %}"
)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = decoder_folder(tmp_path_factory.mktemp("decoder"))
    path = folder / "tokenizer_config.json"
    templates = [{"name": "default", "template": json.loads(path.read_text())["chat_template"]}]
    templates.append({"name": "loud", "template": LOUD})
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": templates}))
    return folder


@pytest.fixture
def chat(recipe, decoder) -> Any:
    def make(**changes: Any) -> Any:
        return recipe(**{"model_name": str(decoder), "max_length": 128, "max_steps": 2} | changes)

    return make


def rendered(folder: Path) -> str:
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "there"}]
    return AutoTokenizer.from_pretrained(folder).apply_chat_template(turns, tokenize=False)


def test_a_chat_template_is_named_in_the_recipe_and_saved_with_the_model(chat, decoder):
    last = train(chat(chat_template="loud")).last
    assert (last / "chat_template.jinja").read_text() == LOUD
    assert "<|start|>user!" in rendered(last)
    model = RewardModel.load(last)
    ids = model.encoder.encode(as_prompt("hello"), ["there"])[0].ids.tolist()
    assert ids == AutoTokenizer.from_pretrained(last)(rendered(last), add_special_tokens=False)["input_ids"]
    again = load_text(chat(model_name=str(last), max_length=None), last)  # inherited by what trains on
    assert again.fingerprint_bytes() == model.encoder.fingerprint_bytes()


def test_a_chat_template_file_is_looked_for_from_the_recipes_folder(chat, decoder, tmp_path, monkeypatch):
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "loud.jinja").write_text(LOUD)
    text = f"model_name: {decoder}\nlearning_rate: 1\ndatasets: starter\n"
    for written in ("loud.jinja", "./loud.jinja", "../recipes/loud.jinja", str(folder / "loud.jinja")):
        (folder / "recipe.yaml").write_text(f"{text}chat_template: {written}\n")
        monkeypatch.chdir(tmp_path)
        made = load_recipe(folder / "recipe.yaml")
        assert load_text(made, decoder).source.chat_template == LOUD
    (folder / "recipe.yaml").write_text(f"{text}chat_template: loud\n")
    assert load_recipe(folder / "recipe.yaml").chat_template == "loud"


def test_a_chat_template_that_is_not_there_or_has_no_effect_is_refused(chat, decoder, tmp_path):
    with pytest.raises(NotFound, match=r"no chat template 'lod'.*did you mean 'loud'"):
        load_text(chat(chat_template="lod"), decoder)
    bert = bert_folder(tmp_path / "bert")
    with pytest.raises(BadRecipe, match=r"chat_template is set, but .* takes prompt and reply as a pair; leave it out"):
        load_text(chat(model_name=str(bert), chat_template="loud"), bert)


def test_a_backbone_without_a_template_is_trained_with_the_one_that_the_recipe_names(chat, tmp_path):
    folder = decoder_folder(tmp_path / "bare")
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["chat_template"]
    path.write_text(json.dumps(config))
    for run in (train, dry_run):
        with pytest.raises(BadModel, match=r"nothing says how .*; name the template .* chat_template in a recipe"):
            run(chat(model_name=str(folder)))
    keys = {"chat_template": "turns", "max_length": None, "max_steps": 2, "save_steps": 1}
    last = train(chat(model_name=str(folder), **keys)).last
    text = json.loads((last / "prefrank.json").read_text())["text"]
    assert (text["template"], text["turn_strings"], text["cut_step"], text["max_length"]) == ("turns", None, 64, 256)
    last = last.rename(tmp_path / "gone")
    resumed = train(chat(model_name=str(folder), resume=True, **keys)).last
    assert json.loads((resumed / "prefrank.json").read_text())["text"] == text
    again = load_text(chat(model_name=str(last)), last)
    assert again.settings.template == "turns", "a model of ours says it itself"


def test_plain_turns_may_take_the_place_of_a_decoders_own_template(chat, decoder):
    assert load_text(chat(chat_template="turns"), decoder).settings.template == "turns"


def test_a_resumed_run_keeps_the_chat_template_it_was_started_with(chat, tmp_path):
    file = tmp_path / "mine.jinja"
    file.write_text(LOUD)
    keys = {"chat_template": str(file), "max_steps": 4, "save_steps": 2}
    train(chat(**keys)).last.rename(tmp_path / "gone")
    file.unlink()
    last = train(chat(**keys, resume=True)).last
    assert (last / "chat_template.jinja").read_text() == LOUD


def pair(prompt: str, chosen: str, rejected: str, number: int = 0) -> Comparison:
    return Comparison((Turn("user", prompt),), (chosen, rejected), (Preference(0, 1),), "made", str(number))


def test_control_strings_in_training_texts_are_counted_and_said(chat, tmp_path, capsys):
    plain = make_comparisons(18)
    held = tuple(
        pair(f"<|start|>user\nask {n}<|end|><|start|>assistant\n", f"good {n}<|end|>", f"bad {n}<|end|>", n)
        for n in range(5)
    )
    data = str(write_jsonl(tmp_path / "data.jsonl", plain + held))
    said = "5 of 23 comparisons hold the model's control strings, read as plain text"
    with progress.training() as report:
        last = train(chat(datasets=[data], evaluation=[]), callback=report).last
    assert said in " ".join(capsys.readouterr().err.split())
    record = json.loads((last / "prefrank.json").read_text())["training"]["data"]["encoded"]["training"]
    assert record["comparisons_with_control_strings"] == 5
    estimate = dry_run(chat(datasets=[data], evaluation=[], overwrite=True))
    assert any(said in note for note in estimate.notes)
    tables.dry_run(estimate)
    assert said in " ".join(capsys.readouterr().err.split())


def test_pre_rendered_texts_are_read_as_tokens_and_what_scoring_needs_is_said(chat, decoder, tmp_path):
    plain = make_comparisons(12)
    tokenizer = AutoTokenizer.from_pretrained(decoder)

    def opened(one: Comparison) -> str:
        turns = [{"role": "user", "content": one.prompt[0].text}, {"role": "assistant", "content": "@"}]
        return tokenizer.apply_chat_template(turns, tokenize=False).partition("@")[0]

    ready = [
        Comparison(
            (Turn("user", opened(one)),), tuple(f"{r}<|end|>" for r in one.replies), one.preferences, "m", one.id
        )
        for one in plain
    ]
    as_text, as_tokens = load_text(chat(), decoder), load_text(chat(pre_rendered=True), decoder)
    wanted, _ = encode(plain, as_text)
    got, counts = encode(ready, as_tokens)
    assert got.ids.tolist() == wanted.ids.tolist()
    assert counts.comparisons_with_control_strings == 12
    events: list[Event] = []
    data = str(write_jsonl(tmp_path / "data.jsonl", tuple(ready)))
    last = train(chat(datasets=[data], evaluation=[], pre_rendered=True), callback=events.append).last
    (remark,) = next(event.remarks for event in events if isinstance(event, Encoded))
    assert remark.endswith("read as tokens; what is scored later is read so only with --pre-rendered")
    assert "pre_rendered" not in json.loads((last / "prefrank.json").read_text())["text"]


def test_replies_that_the_template_makes_equal_are_not_blamed_on_the_limit(chat, decoder, tmp_path):
    thinking = tmp_path / "thinking.jinja"
    thinking.write_text(THINKING)
    same = tuple(pair(f"ask {n}", f"good {n}</think>yes", f"bad {n}</think>yes", n) for n in range(12))
    data = str(write_jsonl(tmp_path / "same.jsonl", same))
    keys = {"datasets": [data], "evaluation": [], "chat_template": str(thinking)}
    for call in (train, dry_run):
        with pytest.raises(
            BadData, match="all 12 training comparisons have replies that are equal as the chat"
        ) as caught:
            call(chat(**keys))
        assert "chat_template" in str(caught.value)
        assert "max_length" not in str(caught.value)
    some = str(write_jsonl(tmp_path / "some.jsonl", same + make_comparisons(12)))
    estimate = dry_run(chat(**keys | {"datasets": [some]}))
    counts = estimate.encoding["training"]
    assert counts["dropped_replies_equal_in_the_template"] == 12
    assert counts["dropped_replies_equal_after_cutting"] == 0
    assert any("12 comparisons are dropped because their replies are equal as the chat template" in note
               for note in estimate.notes)  # fmt: skip


def test_text_that_the_template_leaves_out_of_replies_that_stay_is_counted(chat, decoder, tmp_path):
    thinking = tmp_path / "thinking.jinja"
    thinking.write_text(THINKING)
    pairs = [pair("ask", "why</think>yes", "no")]
    _, counts = encode(pairs, load_text(chat(chat_template=str(thinking)), decoder))
    assert (counts.kept, counts.rows_with_text_lost_in_the_template, counts.rows_with_cut_reply) == (1, 1, 0)


def test_replies_that_the_tokenizer_reads_alike_are_not_blamed_on_the_limit(recipe, bert, tmp_path):
    same = tuple(pair(f"ask {n}", "YES", "yes", n) for n in range(12))
    data = str(write_jsonl(tmp_path / "same.jsonl", same))
    with pytest.raises(BadData, match="replies that are equal to the tokenizer") as caught:
        train(recipe(datasets=[data], evaluation=[]))
    assert "max_length" not in str(caught.value)


def test_several_reasons_are_all_said(bert):
    encoder = TextEncoder.load(bert, max_length=16)
    long = "bread " * 30
    _, counts = encode([pair("a", "YES", "yes"), pair("b", long + "one", long + "two")], encoder)
    assert (counts.dropped_replies_equal_to_the_tokenizer, counts.dropped_replies_equal_after_cutting) == (1, 1)


def test_system_and_tool_turns_reach_the_rows(chat, decoder):
    turns = [
        {"role": "system", "content": "Be terse."},
        {"role": "user", "content": "hello"},
        {"role": "tool", "content": "ok 7"},
    ]
    examples, _ = encode(
        [Comparison(as_prompt(turns), ("yes", "no"), (Preference(0, 1),), "made", "0")], load_text(chat(), decoder)
    )
    tokenizer = AutoTokenizer.from_pretrained(decoder)
    text = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": "yes"}], tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert examples.rows(0)[0].ids.tolist() == ids
