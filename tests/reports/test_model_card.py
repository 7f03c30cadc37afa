import copy
import functools
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from prefrank.errors import BadData, BadInput, BadModel, NotFound
from prefrank.evaluation import (
    Bootstrap,
    Entrant,
    Estimate,
    Run,
    SuiteData,
    Task,
    as_item,
    compare_runs,
    comparisons_suite,
    longer_wins,
    random_scorer,
    run_all,
)
from prefrank.reports.card.example_code import EXAMPLE
from prefrank.reports.card.facts import REQUIRED, read_facts
from prefrank.reports.card.model_card import model_card, write_card
from prefrank.reports.card.terms import data_license, public_name
from prefrank.scoring import RewardModel
from prefrank.scoring.info import checkpoint_info
from prefrank.training import make_recipe, train
from tests.evaluation.run_files import as_run, fake_run
from tests.tiny import bert_folder, decoder_folder
from tests.training.conftest import make_comparisons, write_jsonl

PEOPLE = {
    "developers": "Acme Labs",
    "funded_by": "nobody",
    "contact": "rm@acme.example",
    "license": "apache-2.0",
    "repository": "https://example.org/acme/cook",
    "intended_use": "Ranking recipes, for cooks.",
    "cloud_provider": "none: our own",
    "compute_region": "Netherlands",
}
ABOUT_DATA = {
    "base_model": "none: trained from scratch",
    "data_license.pairs.jsonl": "cc0-1.0",
    "language": "en",
}
UNRECORDED = {
    "training_data": "Thirty pairs.",
    "training_procedure": "AdamW.",
    "training_hardware": "One laptop.",
    "training_time": "2 hours",
    "training_software": "transformers 5",
    "data_license": "cc0-1.0",
    "co2": "12 g, by the meter",
}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training run of a tiny model."""
    home = tmp_path_factory.mktemp("runs")
    pairs = write_jsonl(home / "pairs.jsonl", make_comparisons(40))
    recipe = make_recipe(
        {
            "model_name": str(bert_folder(home / "base")),
            "datasets": [str(pairs)],
            "learning_rate": 1e-3,
            "output_dir": str(home / "cook"),
            "per_device_train_batch_size": 4,
            "max_length": 64,
            "trackers": "none",
        }
    )
    train(recipe)
    return home / "cook"


@pytest.fixture(scope="module")
def evaluated(run_folder: Path) -> Run:
    """A run of that model and two baselines."""
    items = tuple(as_item(one) for one in make_comparisons(31, seed=5))
    score = RewardModel.load(run_folder).score_pairs
    entrants = [
        Entrant("cook", "model", score),
        Entrant("longer reply", "baseline", longer_wins),
        Entrant("random", "baseline", random_scorer()),
    ]
    task = Task(comparisons_suite("made"), SuiteData(items, 33, {"empty reply": 2}), "/home/ann/secret/made.jsonl")
    command = "prefrank evaluate --model /home/ann/secret/cook --data /home/ann/secret/made.jsonl"
    return run_all(entrants, [task], bootstrap=Bootstrap(resamples=100), command=command)


def accuracy_of(run: Run, scorer: str) -> Estimate:
    return run.scorer(scorer).results["made"].figures["accuracy"]


made_up = functools.cache(lambda: fake_run(items=120))


def nothing(run: dict[str, Any]) -> None:
    pass


def of_model(folder: Path, change: Callable[[dict[str, Any]], object] = nothing) -> Run:
    """A made-up run whose first scorer is the model in a folder.

    Args:
        change: made to its file, of format 1.
    """
    run = copy.deepcopy(made_up())
    run["scorers"][0]["model"] = checkpoint_info(str(folder))["fingerprint"]
    change(run)
    return as_run(run)


@pytest.fixture(scope="module")
def card(run_folder: Path, evaluated: Run) -> str:
    return model_card(run_folder, [evaluated, of_model(run_folder)], PEOPLE | ABOUT_DATA)


@pytest.fixture(scope="module")
def plain_card(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = bert_folder(tmp_path_factory.mktemp("plain") / "bert")
    return model_card(folder, [of_model(folder)], PEOPLE | ABOUT_DATA | UNRECORDED)


def sections(card: str) -> dict[str, str]:
    """The text under each heading, up to the next one of its level or above; code is not a heading."""
    body = re.sub(
        r"```.*?```", lambda match: match.group().replace("#", "no heading"), ModelCard(card).text, flags=re.S
    )
    heads = list(re.finditer(r"^(#+) (.+)$", body, re.M))
    found = {}
    for place, head in enumerate(heads):
        later = (other.start() for other in heads[place + 1 :] if len(other[1]) <= len(head[1]))
        found[head[2]] = body[head.end() : next(later, len(body))].strip()
    return found


def forget_template(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["chat_template"]
    path.write_text(json.dumps(config))


def hub_template() -> str:
    """The body of the hub's own model card template, as installed."""
    text = (Path(huggingface_hub.__file__).parent / "templates" / "modelcard_template.md").read_text(encoding="utf-8")
    return text.split("\n---\n", 1)[1]


def code_blocks(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, re.S)


def section_of(card: str, name: str) -> str:
    return sections(card)[name]


# Completeness


@pytest.mark.parametrize("which", ["card", "plain_card"])
def test_every_section_of_the_hubs_template_is_there_and_filled(which: str, request: pytest.FixtureRequest) -> None:
    headings = re.findall(r"^#+ (.+)$", hub_template(), re.M)
    wanted = [name.removesuffix(" [optional]") for name in headings if "{{" not in name]
    found = sections(request.getfixturevalue(which))
    assert [name for name in wanted if name not in found] == []
    assert [name for name, text in found.items() if not text] == []


@pytest.mark.parametrize("which", ["card", "plain_card"])
def test_every_field_of_the_hubs_template_has_an_answer(which: str, request: pytest.FixtureRequest) -> None:
    fields = re.findall(r"\*\*([^*]+?)(?: \[optional\])?:\*\*", hub_template())
    text = request.getfixturevalue(which)
    assert [name for name in fields if not re.search(rf"\*\*{re.escape(name)}:\*\*\s+[^\s*-]", text)] == []


@pytest.mark.parametrize("which", ["card", "plain_card"])
def test_nothing_says_that_information_is_missing(which: str, request: pytest.FixtureRequest) -> None:
    text = re.sub(r"```.*?```", "", request.getfixturevalue(which), flags=re.S)
    assert re.findall(r"(?i:more information needed)|\bNone\b|\bnan\b|\{\{|\{%", text) == []


def test_missing_facts_are_one_error_that_names_them_all_and_how_to_give_them(run_folder: Path, evaluated: Run) -> None:
    with pytest.raises(BadInput, match="lacks 12 facts") as caught:
        model_card(run_folder, [evaluated], {"developers": "  ", "contact": "[More Information Needed]"})
    message = str(caught.value)
    assert all(f" {key}: {wanted}" in message for key, wanted in REQUIRED.items())
    assert "; base_model: " in message
    assert "; base_license: " in message
    assert "; language: " in message
    assert "; data_license.pairs.jsonl: " in message
    assert "--fact KEY=VALUE" in message
    assert "\n" not in message


def test_only_what_is_missing_is_asked_for(run_folder: Path, evaluated: Run) -> None:
    facts = {key: value for key, value in (PEOPLE | ABOUT_DATA).items() if key != "contact"}
    with pytest.raises(BadInput) as caught:
        model_card(run_folder, [evaluated], facts)
    assert str(caught.value).endswith(f"file of facts. contact: {REQUIRED['contact']}")


def test_a_misspelt_fact_is_refused(run_folder: Path, evaluated: Run) -> None:
    with pytest.raises(BadInput, match=r"no fact 'licence' .* did you mean 'license'\?"):
        model_card(run_folder, [evaluated], PEOPLE | {"licence": "mit"})


def test_a_run_of_another_model_is_no_run(run_folder: Path) -> None:
    with pytest.raises(BadInput, match=r"no run file is of this model .*acme/minilm-hh"):
        model_card(run_folder, [as_run(made_up())], PEOPLE | ABOUT_DATA)
    with pytest.raises(BadInput, match=r"no run file is of this model .*found: no run"):
        model_card(run_folder, [], PEOPLE | ABOUT_DATA)


def test_a_record_of_other_weights_describes_nothing(run_folder: Path, evaluated: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run_folder / "best", tmp_path / "torn"))
    record = json.loads((folder / "prefrank.json").read_text())
    (folder / "prefrank.json").write_text(json.dumps(record | {"fingerprint": "0" * 64}))
    said = pytest.warns(UserWarning, match="not the one that was saved")
    with said, pytest.raises(BadInput, match="are not those its prefrank"):
        model_card(folder, [evaluated], PEOPLE | ABOUT_DATA)


# The hub's metadata


def test_the_metadata_are_what_the_hubs_parser_reads(card: str, evaluated: Run) -> None:
    data = ModelCard(card).data
    plain = data.to_dict()
    assert (data.license, data.language, data.pipeline_tag) == ("apache-2.0", ["en"], "text-classification")
    assert data.library_name == "transformers"
    assert {"reward-model", "prefrank"} <= set(data.tags or [])
    assert data.base_model is None  # trained from scratch
    name, results = model_index_to_eval_results(plain["model-index"])
    accuracy = asdict(accuracy_of(evaluated, "cook"))
    assert name == "cook"
    assert results[0].metric_type == "accuracy"
    assert results[0].metric_value == pytest.approx(accuracy["value"], abs=5e-5)
    assert results[0].dataset_args == {"sha256": evaluated.suites["made"].data}
    assert results[0].metric_args == {key: accuracy[key] for key in ("low", "high", "n", "unit", "prompts")}
    assert f"{accuracy['low']:.3f} to {accuracy['high']:.3f}, n = {accuracy['n']} pairs" in str(results[0].metric_name)


def test_the_metadata_survive_a_round_trip(card: str, tmp_path: Path) -> None:
    first = ModelCard(card)
    first.save(tmp_path / "README.md")
    again = ModelCard.load(tmp_path / "README.md")
    assert again.data.to_dict() == first.data.to_dict()
    assert again.text.strip() == first.text.strip()


def test_known_suites_are_named_as_the_hub_names_their_data(card: str) -> None:
    results = ModelCard(card).data.eval_results
    assert results is not None
    kinds = {one.dataset_config: one.dataset_type for one in results}
    assert "/" in kinds["rm-bench"]
    assert kinds["made"] == "made"
    assert {one.metric_type for one in results if one.dataset_config == "rm-bench"} == {"accuracy", "overall"}


# What it says


def test_the_figures_are_those_of_the_run_file(card: str, evaluated: Run) -> None:
    rows = {}
    for scorer in evaluated.scorers:
        accuracy = accuracy_of(evaluated, scorer.name)
        rows[scorer.name] = f"{accuracy.value:.3f} [{accuracy.low:.3f}, {accuracy.high:.3f}]"
    n = accuracy_of(evaluated, "cook").n
    assert "| figure | n | cook | longer reply | random |" in card
    assert f"| accuracy | {n} pairs | {rows['cook']} | {rows['longer reply']} | {rows['random']} |" in card
    assert "| made | made.jsonl | 33 | 31 | 2 empty reply |" in card


def test_the_best_baseline_stands_beside_the_model(card: str, evaluated: Run) -> None:
    values = {scorer.name: accuracy_of(evaluated, scorer.name).value or 0.0 for scorer in evaluated.scorers}
    best = max(("longer reply", "random"), key=values.__getitem__)
    assert f"- made: accuracy {values['cook']:.3f}" in card
    assert f"best baseline {best} {values[best]:.3f}" in card


def test_a_paired_test_against_the_best_baseline_is_told_where_there_is_one(evaluated: Run, run_folder: Path) -> None:
    tests = compare_runs({"": evaluated}, {})
    card = model_card(run_folder, [replace(evaluated, comparison=tests)], PEOPLE | ABOUT_DATA)
    assert any(f"(Holm): {test.verdict}" in card and f"p {test.p_holm:.3f}" in card for test in tests.pairs)
    assert "paired on the same items" not in model_card(run_folder, [evaluated], PEOPLE | ABOUT_DATA)


def test_training_is_told_as_the_record_has_it(card: str, run_folder: Path) -> None:
    training = json.loads((run_folder / "best" / "prefrank.json").read_text())["training"]
    (read,) = [one for one in training["data"]["read"] if one["role"] == "training"]
    kept = read["comparisons"]
    assert f"| pairs.jsonl:train | cc0-1.0 | 40 | {read['read']['kept']} | {kept} |" in card
    assert training["data"]["digests"]["training"] in card
    assert f"{training['steps']} optimizer steps of 4 comparisons" in card
    assert f"It learned from {kept} comparisons." in card
    assert "fp32 on cpu" in card


def test_the_recipe_in_the_card_is_a_recipe(card: str, tmp_path: Path) -> None:
    import yaml

    (text,) = re.findall(r"```yaml\n(.*?)```", card, re.S)
    values = yaml.safe_load(text)
    recipe = make_recipe(values | {"output_dir": str(tmp_path)})
    assert (recipe.learning_rate, recipe.max_length, recipe.per_device_train_batch_size) == (1e-3, 64, 4)
    assert values["model_name"] == "base"
    assert values["datasets"][0]["source"] == "pairs.jsonl"


def test_no_place_on_anybodys_machine_is_published(card: str, run_folder: Path) -> None:
    assert "/home/ann" not in card
    assert str(run_folder.parent) not in card
    assert "prefrank evaluate --model cook --data made.jsonl" in card


def test_limits_are_measured_ones(card: str) -> None:
    limits = section_of(card, "Bias, Risks, and Limitations")
    assert re.search(
        r"Length, Helpful and harmless: accuracy is 0\.\d{3} \[.*where people preferred the longer", limits
    )
    assert re.search(r"Probes, how often a good reply beats a cheat: .*flattery 0\.\d{3}|flattery 1\.000", limits)
    assert re.search(r"Truncation, [^:]+: of \d+ replies [1-9]", limits)
    assert "Failures, RM-Bench: 1 of" in limits
    assert "Worst slice of RM-Bench" in limits


def test_an_evaluation_set_that_chose_the_checkpoint_is_admitted(run_folder: Path) -> None:
    training = json.loads((run_folder / "best" / "prefrank.json").read_text())["training"]
    (name,) = [one["name"] for one in training["data"]["read"] if one["role"] == "evaluation"]

    def rename(run: dict[str, Any]) -> None:
        run["suites"][name] = run["suites"]["helpful"]
        for scorer in run["scorers"]:
            scorer["results"] = {name: scorer["results"]["helpful"]}

    assert "also chose the checkpoint" in model_card(run_folder, [of_model(run_folder, rename)], PEOPLE | ABOUT_DATA)


def test_doubts_about_the_training_data_are_told(run_folder: Path, evaluated: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run_folder / "best", tmp_path / "cook"))
    record = json.loads((folder / "prefrank.json").read_text())
    record["training"]["data"]["read"][0] |= {"contradicting": 3, "leaks": 2}
    (folder / "prefrank.json").write_text(json.dumps(record))
    limits = section_of(model_card(folder, [evaluated], PEOPLE | ABOUT_DATA), "Bias, Risks, and Limitations")
    assert "3 comparisons of pairs.jsonl:train prefer a reply that an earlier one" in limits
    assert "2 comparisons of pairs.jsonl:train nearly stand in evaluation sets" in limits


def test_what_is_wrong_with_the_test_data_is_told(run_folder: Path) -> None:
    def lose(run: dict[str, Any]) -> None:
        run["suites"]["helpful"]["rows"]["missing"] = {"math-prm": [12, 447], "BoN_set/Chat": [0, None]}
        rest = {"low": None, "high": None, "n": 9, "unit": "pairs", "prompts": 9}
        run["scorers"][0]["results"]["helpful"]["contamination"] |= {
            "clean": {"value": 0.7} | rest, "dirty": {"value": 0.9} | rest
        }  # fmt: skip

    card = model_card(run_folder, [of_model(run_folder, lose)], PEOPLE | ABOUT_DATA)
    limits = section_of(card, "Bias, Risks, and Limitations")
    assert "rows of math-prm 12 of 447; 1 subset is missing: BoN" in limits
    assert re.search(r"Overlap, .*: 2 of \d+ items .*others 0\.700 \(9 pairs\), on these 0\.900 \(9 pairs\)", limits)


def test_a_lean_is_claimed_only_beyond_chance(run_folder: Path) -> None:
    def limits_with(longer: tuple[float, float, float], shorter: tuple[float, float, float]) -> str:
        def lean(run: dict[str, Any]) -> None:
            style = run["scorers"][0]["results"]["helpful"]["style"]
            for side, (value, low, high) in {"longer": longer, "shorter": shorter}.items():
                style[side] |= {"value": value, "low": low, "high": high}

        card = model_card(run_folder, [of_model(run_folder, lean)], PEOPLE | ABOUT_DATA)
        return section_of(card, "Bias, Risks, and Limitations")

    assert "It leans toward longer replies" in limits_with((0.8, 0.75, 0.85), (0.6, 0.5, 0.7))
    assert "It leans toward shorter replies" in limits_with((0.6, 0.5, 0.7), (0.8, 0.75, 0.85))
    assert "leans toward" not in limits_with((0.8, 0.65, 0.85), (0.6, 0.5, 0.7)).partition("Length, RM-Bench")[0]


def test_the_newest_results_of_a_suite_count(run_folder: Path) -> None:
    def update(run: dict[str, Any]) -> None:
        run["created"] = "2027-01-01T00:00:00+00:00"
        run["scorers"][0]["results"]["helpful"]["figures"]["Accuracy"] |= {"value": 0.1234, "low": 0.1, "high": 0.2}

    old, new = of_model(run_folder), of_model(run_folder, update)
    for runs in ([old, new], [new, old]):
        assert "Accuracy is\n0.123" in model_card(run_folder, runs, PEOPLE | ABOUT_DATA)


def test_a_figure_without_a_value_is_said_to_have_none(run_folder: Path) -> None:
    def empty(run: dict[str, Any]) -> None:
        none = {"value": None, "low": None, "high": None, "n": 0, "unit": "pairs", "prompts": 0}
        result = run["scorers"][0]["results"]["helpful"]
        result["figures"]["Accuracy"] = none
        result["overall"]["accuracy"] = none
        result["style"] |= dict.fromkeys(("longer", "shorter", "balanced", "spearman"), none) | {"regression": None}

    text = model_card(run_folder, [of_model(run_folder, empty)], PEOPLE | ABOUT_DATA)
    assert "Accuracy is\nno value (0 pairs)" in text
    results = ModelCard(text).data.eval_results
    assert results is not None
    assert "helpful" not in {one.dataset_config for one in results}


def test_text_of_others_cannot_break_a_table_or_bring_markup(run_folder: Path) -> None:
    def rename(run: dict[str, Any]) -> None:
        run["scorers"][2]["name"] = "a|b <script>x</script>\n# Heading"

    text = model_card(run_folder, [of_model(run_folder, rename)], PEOPLE | ABOUT_DATA)
    assert r"a\|b \<script\>x\</script\> # Heading" in text
    assert "<script>" not in text.replace(r"\<script\>", "")
    assert "Heading" not in sections(text)


def test_carbon_is_measured_or_stated_or_estimated_by_a_rule_it_names(
    run_folder: Path, evaluated: Run, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(run_folder / "best", tmp_path / "cook"))
    record = json.loads((folder / "prefrank.json").read_text())

    def carbon(facts: dict[str, str], device: str = "cpu", **spent: Any) -> str:
        usual = {"wall_s": 3600.0, "cpu_s": 7200.0, "peak_memory_bytes": int(10e9), "energy_missing": "no codecarbon"}
        record["training"]["spent"] |= {"energy_kwh": None, "co2e_kg": None, **usual, **spent}
        record["training"]["device"] = device
        (folder / "prefrank.json").write_text(json.dumps(record))
        text = model_card(folder, [evaluated], PEOPLE | ABOUT_DATA | facts)
        return next(line for line in text.splitlines() if "Carbon Emitted" in line)

    assert "1.5 kg CO2eq from 3.2 kWh, by codecarbon's reading" in carbon({}, energy_kwh=3.2, co2e_kg=1.5)
    assert carbon({"co2": "12 g, by the meter"}).endswith(" 12 g, by the meter")
    # (2 h x 12 W + 10 GB x 0.3725 W x 1 h) x 1.67 = 46.3 Wh, at 475 g a kWh 22 g
    kwh = (2 * 12 + 10 * 0.3725) * 1.67 / 1000
    estimated = carbon({})
    assert f"{kwh * 475:.3g} g CO2eq from {kwh:.2g} kWh: estimated, not measured (no codecarbon)" in estimated
    assert "Green Algorithms" in estimated
    with pytest.raises(BadInput, match=r"lacks 1 fact .* co2: "):
        carbon({}, device="cuda:0")  # what a GPU drew is not in the record


def changed_record(run_folder: Path, folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of the checkpoint with another training record."""
    shutil.copytree(run_folder / "best", folder)
    record = json.loads((folder / "prefrank.json").read_text())
    change(record["training"])
    (folder / "prefrank.json").write_text(json.dumps(record))
    return folder


def test_what_was_streamed_is_told_with_its_licence(run_folder: Path, evaluated: Run, tmp_path: Path) -> None:
    def stream(training: dict[str, Any]) -> None:
        training["recipe"]["datasets"][0]["stream"] = True
        drawn = {"name": "/data/pairs.jsonl:train", "rule": "in order", "drawn": 1234, "dropped": {"empty reply": 2}}
        training["data"] |= {"read": [], "drawn": [drawn], "encoded": {}, "digests": {}}

    card = model_card(changed_record(run_folder, tmp_path / "cook", stream), [evaluated], PEOPLE | ABOUT_DATA)
    assert "- pairs.jsonl:train: drawn 1,234; dropped: 2 empty reply." in card
    assert "- pairs.jsonl was streamed; its license: cc0-1.0." in card
    assert "It learned from 1,234 comparisons." in card


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda training: training["spent"].update(wall_s="x"),
            r"training\.spent\.wall_s is 'x'; wanted a finite number",
        ),
        (lambda training: training.pop("curve"), r"training\.curve is missing"),
        (lambda training: training["recipe"].update(loss="own"), r"training\.recipe\.loss is 'own'; wanted one of"),
        (lambda training: training["data"].update(read=[3]), r"training\.data\.read\[0\] is 3; wanted an object"),
    ],
)
def test_a_part_of_the_record_that_is_wrong_is_named(
    change: Callable[[dict[str, Any]], object], says: str, run_folder: Path, evaluated: Run, tmp_path: Path
) -> None:
    with pytest.raises(BadModel, match=rf"prefrank\.json: {says}"):
        model_card(changed_record(run_folder, tmp_path / "cook", change), [evaluated], PEOPLE | ABOUT_DATA)


def test_a_figure_that_another_scorer_lacks_was_not_measured_there(run_folder: Path) -> None:
    def drop(run: dict[str, Any]) -> None:
        del run["scorers"][3]["results"]["helpful"]["figures"]["Kendall tau"]

    card = model_card(run_folder, [of_model(run_folder, drop)], PEOPLE | ABOUT_DATA)
    assert re.search(r"\| Kendall tau \|.* not measured \|$", card, re.M)


# The code in it


@pytest.mark.parametrize("kind", ["trained", "chat template", "turn strings"])
def test_both_pieces_of_code_run_and_agree(
    kind: str, run_folder: Path, evaluated: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "trained":
        folder, runs, facts = run_folder / "best", [evaluated], PEOPLE | ABOUT_DATA
        monkeypatch.chdir(run_folder.parent)
    else:
        folder = decoder_folder(tmp_path / "llama")
        if kind == "turn strings":
            forget_template(folder)
            folder = RewardModel.load(folder, template="turns").save(tmp_path / "ours")
        runs, facts = [of_model(folder)], PEOPLE | ABOUT_DATA | UNRECORDED
        monkeypatch.chdir(tmp_path)
    ours, theirs = code_blocks(model_card(folder, runs, facts))
    printed: list[Any] = []
    exec(ours, {"print": lambda *values: printed.append(values)})
    exec(theirs, {"print": printed.append})
    *ranked, scores = printed
    want = [one.value for one in RewardModel.load(folder, device="cpu").score(*EXAMPLE)]
    assert scores == pytest.approx(want, abs=1e-4)
    assert {(round(value, 3), reply) for _, value, reply in ranked} == {
        (round(value, 3), reply) for value, reply in zip(want, EXAMPLE[1], strict=True)
    }


# The file


def test_a_card_is_written_into_the_folder_and_written_again(run_folder: Path, evaluated: Run, card: str) -> None:
    for _ in range(2):
        path = write_card(run_folder, [evaluated, of_model(run_folder)], PEOPLE | ABOUT_DATA)
        assert path == run_folder / "best" / "README.md"
        assert path.read_text(encoding="utf-8") == card
    path.unlink()


def test_somebody_elses_readme_is_kept_unless_told(run_folder: Path, evaluated: Run) -> None:
    path = run_folder / "best" / "README.md"
    path.write_text("mine")
    with pytest.raises(BadInput, match="was not written by prefrank card"):
        write_card(run_folder, [evaluated], PEOPLE | ABOUT_DATA)
    assert path.read_text() == "mine"
    write_card(run_folder, [evaluated], PEOPLE | ABOUT_DATA, overwrite=True)
    assert "# Model Card for cook" in path.read_text(encoding="utf-8")
    path.unlink()


# Facts


def test_facts_come_from_a_file_and_from_words_of_which_words_win(tmp_path: Path) -> None:
    path = tmp_path / "facts.yaml"
    path.write_text("developers: [Ann, Bo]\nyear: 2026\ndata_license:\n  pairs.jsonl: mit\ncontact: a@b.example\n")
    facts = read_facts(path, ["contact=c@d.example", "repository=https://x.example/?a=b"])
    assert facts == {
        "developers": "Ann, Bo",
        "year": "2026",
        "data_license.pairs.jsonl": "mit",
        "contact": "c@d.example",
        "repository": "https://x.example/?a=b",
    }


def test_facts_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="'contact' has no ="):
        read_facts(given=["contact"])
    with pytest.raises(NotFound, match=r"facts .*none\.yaml cannot be read"):
        read_facts(tmp_path / "none.yaml")
    path = tmp_path / "facts.yaml"
    for text in ("- a\n- b\n", "a: [", ""):
        path.write_text(text)
        with pytest.raises(BadData, match="wanted lines of KEY: VALUE"):
            read_facts(path)


def test_a_sets_own_answer_wins_and_a_published_licence_is_known() -> None:
    assert data_license("hh/helpful-base", {}) == "mit"
    assert data_license("Anthropic/hh-rlhf", {"data_license": "cc0-1.0"}) == "mit"
    assert data_license("starter", {"data_license.starter": "own"}) == "own"
    assert data_license("webgpt", {}) is None
    assert data_license("data/mine.jsonl", {"data_license": "cc0-1.0"}) == "cc0-1.0"
    assert public_name("data/ann/mine.jsonl") == "mine.jsonl"
    assert public_name("hh/helpful-base") == "hh/helpful-base"
