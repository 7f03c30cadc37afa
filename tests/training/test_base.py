"""What a run starts from: a base whose files do not belong together is refused, with the tensor named."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from prefrank.errors import BadInput, BadModel
from prefrank.training import dry_run, train
from prefrank.training.loop import train as loop
from prefrank.training.start import load_model
from tests.tiny import decoder_folder


def changed(folder: Path, **values: object) -> Path:
    path = decoder_folder(folder) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


@pytest.mark.parametrize("call", [train, dry_run])
@pytest.mark.parametrize("new_head", [True, "auto"])
def test_weights_of_other_shapes_are_named_and_never_drawn_anew(recipe, tmp_path, call, new_head):
    base = changed(tmp_path / "base", intermediate_size=64)
    with pytest.raises(
        BadModel, match=r"down_proj\.weight is \[32, 48\], its config.json asks for \[32, 64\]"
    ) as caught:
        call(recipe(model_name=str(base), new_head=new_head))
    assert "report" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_head_of_another_shape_is_replaced_by_a_new_one_and_else_refused(recipe, tmp_path):
    base = changed(tmp_path / "base", id2label={"0": "a", "1": "b"})
    assert train(recipe(model_name=str(base), new_head=True, max_steps=1)).steps == 1
    keys = {"heads": ["a", "b"], "new_head": False, "overwrite": True}
    with pytest.raises(BadInput, match="has no head 'a'; wanted one of REWARD"):
        train(recipe(model_name=str(base), **keys))


def test_weights_and_tokenizer_are_of_one_version_though_the_folder_is_replaced_between_them(
    recipe: Any, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, other = shutil.copytree(bert, tmp_path / "model"), shutil.copytree(bert, tmp_path / "other")
    read: list[int] = []
    swapped: list[Path] = []

    def load(*given: Any, **more: Any) -> Any:
        read.append(folder.stat().st_ino)
        network = load_model(*given, **more)
        if not swapped:
            swapped.append(folder.rename(tmp_path / "old"))
            other.rename(folder)
        return network

    monkeypatch.setattr(loop, "load_model", load)
    train(recipe(model_name=str(folder)))
    assert len(set(read)) == 2
