"""A decoder that comes without a template: refused everywhere, unless somebody names one."""

import json
import sys
from pathlib import Path

import pytest

from prefrank import RewardModel
from prefrank.cli import main
from prefrank.errors import BadInput, BadModel
from prefrank.evaluation.audit import audit
from prefrank.evaluation.scorers import ModelOptions, open_scorer
from prefrank.model.record import read_record
from prefrank.scoring import checkpoint_info, merge_adapter
from prefrank.types import Comparison, Preference, as_prompt
from tests.tiny import decoder_folder

REPLIES = ["mix flour", "bake it"]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = decoder_folder(tmp_path_factory.mktemp("bare"))
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["chat_template"]
    path.write_text(json.dumps(config))
    return folder


def values(model: RewardModel) -> list[float]:
    return [score.value for score in model.score("how do I bake", REPLIES)]


def test_the_template_of_a_loaded_model_decides_its_scores_and_is_saved_with_it(bare: Path, tmp_path: Path) -> None:
    with pytest.raises(BadModel, match=r"nothing says how the model reads prompt and reply; name the template"):
        RewardModel.load(bare)
    file = tmp_path / "mine.jinja"
    file.write_text("{% for m in messages %}<|start|>{{ m.content }}<|end|>{% endfor %}")
    models = [RewardModel.load(bare, template=name) for name in ("turns", str(file))]
    assert values(models[0]) != values(models[1])
    assert models[0].fingerprint != models[1].fingerprint
    for number, model in enumerate(models):
        again = RewardModel.load(model.save(tmp_path / str(number)))
        assert again.fingerprint == model.fingerprint
        assert values(again) == values(model)
        record = read_record(tmp_path / str(number))
        assert record is not None
        assert record.text["cut_step"] == 64
        with pytest.raises(BadInput, match="has the text settings that it was trained with; leave it out"):
            RewardModel.load(tmp_path / str(number), template="turns")


def test_what_is_known_of_a_model_goes_by_the_named_template(bare: Path) -> None:
    with pytest.raises(BadModel, match="nothing says how the model reads prompt and reply"):
        checkpoint_info(str(bare))
    info = checkpoint_info(str(bare), template="turns")
    opened = open_scorer(str(bare), model=ModelOptions(template="turns", device="cpu"))
    assert info["text"]["template"] == "turns"
    assert opened.format["named_template"] == "turns"
    assert opened.model == info["fingerprint"]


def test_every_command_that_loads_a_model_takes_one(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, name = tmp_path / "rows.jsonl", str(bare)
    pair = {"chosen": REPLIES[0], "rejected": REPLIES[1]}
    rows.write_text("".join(json.dumps({"prompt": f"how do I bake {n}", **pair}) + "\n" for n in range(3)))
    scored = tmp_path / "replies.jsonl"
    scored.write_text(json.dumps({"prompt": "how do I bake", "replies": REPLIES}) + "\n")
    data, out = ("--data", str(rows)), str(tmp_path / "out.jsonl")
    commands = (
        ("info", name),
        ("rank", "--model", name, "--prompt", "bake", "--reply", "a", "--reply", "b"),
        ("score", str(scored), "--model", name, "-o", out),
        ("evaluate", "--model", name, *data, "--resamples", "20", "--no-baselines"),
    )
    for arguments in commands:
        for template, wanted in ((), 4), (("--template", "turns"), 0):
            monkeypatch.setattr(sys, "argv", ["prefrank", *arguments, *template])
            with pytest.raises(SystemExit) as stop:
                main()
            printed = " ".join(capsys.readouterr().err.split())
            assert stop.value.code == wanted, (arguments, printed)
            assert ("name the template that it was trained with (--template" in printed) == bool(wanted)
    template = tmp_path / "mine.jinja"
    template.write_text("{{ messages }}")
    monkeypatch.setattr(sys, "argv", ["prefrank", *commands[2], "-o", str(template), "--template", str(template)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert (stop.value.code, template.read_text()) == (2, "{{ messages }}"), "it is not written over"


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
def test_an_adapter_of_such_a_decoder_is_merged_and_audited_with_one(bare: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    network = AutoModelForSequenceClassification.from_pretrained(bare)
    get_peft_model(network, LoraConfig(r=2, task_type="SEQ_CLS")).save_pretrained(tmp_path / "adapter")
    with pytest.raises(BadModel, match="nothing says how the model reads prompt and reply"):
        merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    merged = merge_adapter(tmp_path / "adapter", tmp_path / "merged", template="turns")
    assert RewardModel.load(merged).encoder.settings.template == "turns"
    items = [Comparison(as_prompt("how do I bake"), tuple(REPLIES), (Preference(0, 1),), "set", "one")]
    for name in (tmp_path / "adapter", bare):
        audited = audit(name, items, template="turns", formats=["own"], dtypes=["float32"], batch_sizes=[1])
        assert all(combination.max_difference < 1e-4 for combination in audited.combinations)
