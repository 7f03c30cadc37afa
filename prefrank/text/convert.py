"""A folder's tokenizer as transformers makes it: of folders without tokenizer.json, and for what its classes decide.

transformers gets copies of the files alone, in a folder of their own: what a tokenizer_config.json says of other files
is not followed, no code is run, nothing is asked of anybody.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefrank.errors import BadModel
from prefrank.text.reader import one_line

_PLACES = ("vocab_file", "merges_file", "tokenizer_file", "spm_file", "source_spm", "target_spm",
           "special_tokens_map_file", "added_tokens_file", "chat_template_file", "gguf_file", "name_or_path",
           "vocab_files_names")  # fmt: skip
"""Keys by which a tokenizer_config.json points elsewhere."""
_TOLD = ("model_type", "tokenizer_class", "transformers_version")
"""What of config.json decides which class reads a folder, and how."""


def in_transformers(files: Mapping[str, bytes], model: Mapping[str, Any], where: object) -> Any:
    """The tokenizer that `AutoTokenizer` makes of these files.

    Args:
        model: the model's config.json.
        where: the folder, for errors.

    Raises:
        BadModel: transformers cannot read it.
    """
    from transformers import AutoTokenizer  # seconds to import

    with tempfile.TemporaryDirectory(prefix="prefrank-") as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_bytes(content)
        if "tokenizer_config.json" in files:
            config = json.loads(files["tokenizer_config.json"])
            config = {key: value for key, value in config.items() if key not in _PLACES}
            (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        if model:
            known = {key: model[key] for key in _TOLD if isinstance(model.get(key), str)}
            (folder / "config.json").write_text(json.dumps(known), encoding="utf-8")
        with one_line(BadModel, f"the tokenizer in {where} cannot be read"):
            # Without trust_remote_code it asks, and a "y" on standard input runs the folder's code
            return AutoTokenizer.from_pretrained(name, local_files_only=True, trust_remote_code=False)
