"""Known names, hub ids, files and folders: the hub's snapshot and a local copy take one path."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from prefrank.data import SOURCES, describe, load_comparisons, load_splits, parse_source
from prefrank.data.catalogue import PARQUET_BRANCH
from prefrank.data.sources import locate
from prefrank.errors import BadData, NotFound
from tests.data.files import (
    axis_row,
    hh_row,
    message,
    own_row,
    shp_row,
    summary_row,
    webgpt_row,
    write_lines,
    write_parquet,
)

MESSAGES = [message("p0", None, "Hi"), message("a0", "p0", "Hello", rank=0), message("a1", "p0", "Ho", rank=1)]
HELLASWAG = {"ctx": "She fills the kettle and", "endings": ["a", "b", "c", "d"], "label": "1"}
SYNTHETIC = {"prompt": "Hi", "chosen": " Hello", "rejected": "What?"}
SUBSETS = ("helpful-base", "helpful-online", "helpful-rejection-sampled", "harmless-base")

HUB: dict[str, tuple[dict[str, list[Any]], str | None]] = {
    "openai/webgpt_comparisons": (
        {"default/train/0000.parquet": [webgpt_row(f"A{i}", "B", 1.0, f"Q{i}") for i in range(20)]},
        PARQUET_BRANCH,
    ),
    "openai/summarize_from_feedback": (
        {
            "comparisons/train/0000.parquet": [summary_row("A", "B", 0)],
            "comparisons/validation/0000.parquet": [summary_row("A", "C", 1, split="valid1")],
            "axis/validation/0000.parquet": [axis_row("A", 7), axis_row("B", 1)],
            "axis/test/0000.parquet": [axis_row("A", 7), axis_row("C", 7)],
        },
        PARQUET_BRANCH,
    ),
    "Anthropic/hh-rlhf": (
        {
            **{f"{s}/{split}.jsonl.gz": [hh_row(s, split, "x")] for s in SUBSETS for split in ("train", "test")},
            "red-team-attempts/red_team_attempts.jsonl.gz": [{"transcript": "Human: x", "rating": 1}],
        },
        None,
    ),
    "OpenAssistant/oasst1": (
        {
            "data/train-00000-of-00001-b42a.parquet": MESSAGES,
            "data/validation-00000-of-00001-0a1f.parquet": MESSAGES,
            "2023-04-12_oasst_ready.messages.jsonl.gz": MESSAGES,
        },
        None,
    ),
    "Dahoas/synthetic-instruct-gptj-pairwise": ({"data/train-00000-of-00001-1e5d.parquet": [SYNTHETIC]}, None),
    "stanfordnlp/SHP": (
        {f"{d}/{s}.json": [shp_row(history=d)] for d in ("askbaking", "askphysics") for s in ("train", "test")},
        None,
    ),
    "Rowan/hellaswag": ({f"default/{s}/0000.parquet": [HELLASWAG] for s in ("train", "validation")}, PARQUET_BRANCH),
    "someone/colours": ({"data/train-00000-of-00001.parquet": [own_row(ranks=[0, 1, 2])], "README.json": []}, None),
}


def write_snapshot(root: Path, id: str) -> Path:
    for name, rows in HUB[id][0].items():
        if rows:
            (write_parquet if name.endswith("parquet") else write_lines)(root / name, rows)
    return root


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A hub on disk in the real one's layout; returns the downloads asked of it. A wrong branch holds nothing."""
    asked: list[dict[str, Any]] = []

    def snapshot_download(id: str, **options: Any) -> str:
        asked.append({"id": id, **options})
        if id not in HUB:
            raise OSError(f"401 Client Error.\nRepository {id} not found.")
        root = tmp_path / "hub" / f"{id.replace('/', '--')}-{options['revision']}".replace("refs/", "")
        root.mkdir(parents=True, exist_ok=True)
        return str(write_snapshot(root, id) if options["revision"] == HUB[id][1] else root)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


@pytest.mark.parametrize(
    ("name", "split", "kept", "patterns"),
    [
        ("webgpt", None, 20, ["default/train/*.parquet"]),
        ("hfsummary", "train", 1, ["comparisons/train/*.parquet"]),
        ("hfsummary", "valid1", 1, ["comparisons/validation/*.parquet"]),
        ("hfsummary_axis", "test", 1, ["axis/test/*.parquet"]),
        ("anthropic_rlhf", "train", 4, [f"{s}/train.jsonl.gz" for s in SUBSETS]),
        ("hh/harmless-base", "test", 1, ["harmless-base/test.jsonl.gz"]),
        ("oasst1", "validation", 1, ["data/validation-*.parquet"]),
        ("gptsynthetic", None, 1, ["data/train-*.parquet"]),
        ("shp", "test", 2, ["*/test.json"]),
        ("hellaswag", "validation", 1, ["*/validation/*.parquet"]),
    ],
)
def test_a_known_name_fetches_the_files_of_its_split_only(
    hub: list[dict[str, Any]], name: str, split: str | None, kept: int, patterns: list[str]
) -> None:
    loaded = load_comparisons(name, split=split)
    assert loaded.report.kept == kept
    assert (hub[0]["id"], hub[0]["allow_patterns"]) == (SOURCES[name].hub, patterns)
    assert (hub[0]["repo_type"], hub[0]["revision"]) == ("dataset", HUB[SOURCES[name].hub][1])


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if source.hub in HUB and "/" not in name])
def test_a_local_folder_reads_as_the_hubs_snapshot(hub: list[dict[str, Any]], tmp_path: Path, name: str) -> None:
    folder = write_snapshot(tmp_path / "copy", SOURCES[name].hub)
    local = load_comparisons(folder / "axis" if name == "hfsummary_axis" else folder)
    fetched = load_comparisons(name)
    assert [(c.prompt, c.replies, c.preferences) for c in local.comparisons] == [
        (c.prompt, c.replies, c.preferences) for c in fetched.comparisons
    ]
    assert local.report.dropped == fetched.report.dropped


def test_a_hub_id_is_its_known_name_and_any_other_is_read_by_its_columns(hub: list[dict[str, Any]]) -> None:
    assert load_comparisons("Anthropic/hh-rlhf", split="test").report.kept == 4
    assert load_comparisons("hh", split="test").report.kept == 4
    loaded = load_comparisons("someone/colours")
    assert (loaded.report.kept, loaded.comparisons[0].source) == (1, "someone/colours")
    assert hub[-1]["revision"] is None


def test_a_scripted_set_on_the_hub_is_read_from_the_parquet_branch(hub: list[dict[str, Any]]) -> None:
    HUB["someone/scripted"] = ({"default/train/0000.parquet": [own_row(ranks=[0, 1, 2])]}, PARQUET_BRANCH)
    assert load_comparisons("someone/scripted").report.kept == 1
    assert [call["revision"] for call in hub] == [None, PARQUET_BRANCH]


def test_comparisons_carry_the_name_of_their_data_set_and_of_their_hh_subset(hub: list[dict[str, Any]]) -> None:
    assert {c.source for c in load_comparisons("webgpt").comparisons} == {"webgpt"}
    assert {c.source for c in load_comparisons("anthropic_rlhf").comparisons} == {f"hh/{s}" for s in SUBSETS}


def test_ids_name_file_and_line_and_never_repeat(hub: list[dict[str, Any]]) -> None:
    ids = [c.id for c in load_comparisons("webgpt").comparisons]
    assert ids[:2] == ["default/train/0000.parquet:1", "default/train/0000.parquet:2"]
    assert len(set(ids)) == 20


def test_an_unreachable_hub_is_one_line_that_says_what_to_put_where() -> None:
    with pytest.raises(
        NotFound, match=r"cannot fetch openai/webgpt_comparisons .* put its files default/train/"
    ) as error:
        load_comparisons("webgpt")
    assert "refs/convert/parquet" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_hub_id_says_that_it_is_no_path_either(hub: list[dict[str, Any]]) -> None:
    with pytest.raises(
        NotFound, match=r"no file or folder is called 'no/where', and as a hub id: cannot fetch"
    ) as error:
        load_comparisons("no/where")
    assert "\n" not in str(error.value)


def test_a_misspelt_name_gets_a_suggestion() -> None:
    with pytest.raises(NotFound, match="'webgtp'; did you mean 'webgpt'"):
        load_comparisons("webgtp")
    for source in ("", "x" * 5000):
        with pytest.raises(NotFound, match="no data set, file or folder is called"):
            load_comparisons(source)


def test_the_unpublished_set_asks_for_its_folder(tmp_path: Path) -> None:
    with pytest.raises(
        NotFound, match=r"oa_private was never published; give the folder that holds its rm_train\.jsonl"
    ):
        load_comparisons("oa_private")
    row = {"prompt": "Hi", "history": [], "pos": "Hello", "neg_replies": ["Go away", "What?"]}
    for name in ("rm_train", "rm_val", "rm_test"):
        write_lines(tmp_path / f"{name}.jsonl", [row])
    assert {name: part.report.pairs for name, part in load_splits(tmp_path).items()} == {
        "train": 2, "validation": 2, "test": 2,
    }  # fmt: skip


def test_a_split_that_a_source_lacks_is_not_found(hub: list[dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="hh/helpful-base has no split 'validation'; it has train, test"):
        load_comparisons("hh/helpful-base", split="validation")
    with pytest.raises(NotFound, match="has no split 'test'; it has train, validation"):
        load_comparisons("webgpt", split="test")
    with pytest.raises(NotFound, match="no split is called 'trian'; did you mean 'train'"):
        load_comparisons("webgpt", split="trian")


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("webgpt", ("webgpt", None)),
        ("anthropic_rlhf:test", ("anthropic_rlhf", "test")),
        ("hh/helpful-base:val", ("hh/helpful-base", "validation")),
        ("hfsummary:valid1", ("hfsummary", "valid1")),
        ("data/mine.jsonl:dev", ("data/mine.jsonl", "validation")),
        ("C:\\data\\mine.jsonl", ("C:\\data\\mine.jsonl", None)),
        (":train", (":train", None)),
    ],
)
def test_a_source_with_a_split_is_taken_apart(text: str, parsed: tuple[str, str | None]) -> None:
    assert parse_source(text) == parsed


def test_a_file_whose_name_holds_a_colon_is_a_file(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "mine:test", [own_row(ranks=[0, 1, 2])])
    assert parse_source(str(path)) == (str(path), None)
    with pytest.raises(NotFound, match="no split is called 'tests'; did you mean 'test'"):
        parse_source("webgpt:tests")


def test_files_that_name_no_split_are_left_aside_where_others_name_one(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.messages.jsonl.gz", MESSAGES)
    write_lines(tmp_path / "export.trees.jsonl.gz", [{"message_tree_id": "p0", "prompt": MESSAGES[0]}])
    write_lines(tmp_path / ".cache/validation.jsonl", MESSAGES)
    assert load_comparisons(tmp_path).report.files == ("train.messages.jsonl.gz",)


def test_a_folder_like_a_published_one_with_a_further_split_is_read_whole(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_parquet(tmp_path / f"data/{split}-00000-of-00001.parquet", [SYNTHETIC])
    assert {name: part.report.kept for name, part in load_splits(tmp_path).items()} == {"train": 1, "test": 1}


def test_a_published_split_is_read_whole_though_only_its_files_are_fetched(hub: list[dict[str, Any]]) -> None:
    for name in ("anthropic_rlhf", "oasst1", "shp", "hellaswag", "hfsummary"):
        report = load_comparisons(name, split="train").report
        assert (report.rows > 0, report.dropped) == (True, {})


def test_a_folder_of_two_published_sets_is_not_read_as_one_of_them(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "a", "openai/webgpt_comparisons")
    write_snapshot(tmp_path / "b", "Anthropic/hh-rlhf")
    with pytest.raises(BadData, match="are of different formats"):
        load_comparisons(tmp_path)


def test_a_folder_of_two_formats_is_an_error_that_names_both(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [own_row(ranks=[0, 1, 2])])
    write_lines(tmp_path / "b.jsonl", [webgpt_row("A", "B", 1.0)])
    with pytest.raises(BadData, match=r"a\.jsonl \(prefrank\) and b\.jsonl \(webgpt\) are of different formats"):
        load_comparisons(tmp_path)


@pytest.mark.parametrize(
    ("row", "format"),
    [
        (hh_row("a", "b", "c"), "hh"),
        ({"chosen": "Q: a b", "rejected": "Q: a c"}, "implicit_pairs"),
        ({**hh_row("a", "b", "c"), "prompt": "a"}, "prefrank_pairs"),
        ({"message_tree_id": "p0", "prompt": {}}, "trees"),
        ({"instruction": "a", "input": "", "output": ["b", "c"]}, "ranked_lists"),
        (MESSAGES[0], "messages"),
        (shp_row(), "shp"),
    ],
)
def test_a_file_is_recognised_by_its_columns(tmp_path: Path, row: dict[str, Any], format: str) -> None:
    assert locate(write_lines(tmp_path / "a.jsonl", [row]), None).files[0].format_name == format


def test_the_starter_set_loads_and_its_splits_share_no_prompt() -> None:
    parts = load_splits("starter")
    prompts = [{c.prompt for c in part.comparisons} for part in parts.values()]
    assert list(parts) == ["train", "validation"]
    assert not prompts[0] & prompts[1]
    assert all(len(c.replies) == 4 for c in load_comparisons("starter").comparisons)


@pytest.mark.parametrize(
    ("other", "split"),
    [("eval.jsonl", "validation"), ("evaluation/0.jsonl", "validation"), ("holdout.jsonl", "validation"),
     ("testing.jsonl", "test")],
)  # fmt: skip
def test_a_file_called_eval_beside_train_is_what_to_evaluate_on(tmp_path: Path, other: str, split: str) -> None:
    write_lines(tmp_path / "train.jsonl", [SYNTHETIC])
    write_lines(tmp_path / other, [{**SYNTHETIC, "prompt": "Another?"}])
    loaded = load_comparisons(tmp_path, split="eval")
    assert (loaded.report.split, loaded.report.files, loaded.report.unread) == (split, (other,), ())
    assert load_comparisons(tmp_path, split="train").report.kept == 1
    assert load_comparisons(tmp_path, split="evaluation").comparisons == loaded.comparisons


def test_a_file_of_human_eval_alone_is_no_split(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "human_eval.jsonl", [SYNTHETIC])
    assert locate(path, None).splits == ("train", "validation")
    assert locate(tmp_path, None).splits == ("train", "validation")


def test_files_that_are_not_read_are_said(tmp_path: Path) -> None:
    for name in ("train", "more", "export"):
        write_lines(tmp_path / f"{name}.jsonl", [SYNTHETIC])
    for report in (load_comparisons(tmp_path).report, load_comparisons(tmp_path, split="train").report):
        assert report.unread == ("export.jsonl", "more.jsonl")
    assert describe(load_splits(tmp_path)).unread == report.unread
    assert report.warning == describe(load_splits(tmp_path)).warning
    said = "not read, since they are of no split, or no part of the published set: export.jsonl, more.jsonl"
    assert report.warning == said
    (tmp_path / "train.jsonl").unlink()
    assert load_comparisons(tmp_path).report.warning == ""
