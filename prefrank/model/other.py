"""Any other sequence classifier of transformers, behind the same call as our own encoders.

A decoder (its head is the linear layer `score`) runs on the whole batch padded on the right: nothing that stands
after a token can reach it. Its score is read at each row's last real token. transformers itself looks for the last
token that is not the padding id, and so misses an end-of-text token that doubles as padding, and refuses batches
where there is no padding id. Every other model runs on groups of rows of equal length, without padding, because
what padding does to it (mixing, windows, mean or last-token pooling) differs from model to model.

This is the only module that imports transformers, and only when such a model is loaded. Parameters carry
`model.` before transformers' own names.
"""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from prefrank.errors import BadModel
from prefrank.model.heads import head_names
from prefrank.model.pack import Pack, pack_batch
from prefrank.types import Batch

_NO_TOKEN = -1
_OLD_BUFFERS = (".inv_freq", ".masked_bias", ".attention.bias", ".position_ids")


class OtherNetwork(nn.Module):
    """A transformers sequence classifier: `network(batch)` gives [N] float32 scores, [N, H] if it has H > 1 heads.

    Args:
        model: a `PreTrainedModel`.
        raw: its config.json.
        heads: names of its outputs.
    """

    def __init__(self, model: nn.Module, raw: Mapping[str, Any], heads: tuple[str, ...]) -> None:
        super().__init__()
        config: Any = model.config
        text = config.get_text_config()
        self.model: Any = model
        self.config: dict[str, Any] = dict(raw)
        self.heads = heads
        self.output_layer = f"model.{_output_layer(model, len(heads))}"
        self.architecture = type(model).__name__
        self.vocab_size: int = text.vocab_size
        self.max_positions = _max_positions(model, text)
        self.decoder = isinstance(dict(model.named_children()).get("score"), nn.Linear)
        compared = raw.get("model_type") in ("xlnet", "funnel")  # types of two tokens, without a table of them
        self.typed = "token_type_ids" in inspect.signature(model.forward).parameters and (
            compared or getattr(text, "type_vocab_size", 0) > 1
        )
        self._checkpointed = False
        config.use_cache = text.use_cache = False
        if not self.decoder and text.pad_token_id is None:
            text.pad_token_id = _NO_TOKEN  # else transformers refuses two rows at a time

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether training keeps no activations inside layers."""
        return self._checkpointed

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, wanted: bool) -> None:
        if wanted and not self.model.supports_gradient_checkpointing:
            raise BadModel(f"{self.architecture} has no gradient checkpointing; turn it off")
        # transformers 5.23 renamed the methods and warns of the old names.
        word = "activation" if hasattr(self.model, "activation_checkpointing_enable") else "gradient"
        getattr(self.model, f"{word}_checkpointing_{'enable' if wanted else 'disable'}")()
        self._checkpointed = wanted

    def forward(self, batch: Batch) -> Float[Tensor, "N *H"]:
        device = next(self.parameters()).device
        pack = pack_batch(batch, vocab_size=self.vocab_size, max_positions=self.max_positions, device=device)
        if self.decoder:
            return self._score_last(pack, torch.tensor(np.diff(batch.starts), device=device)).float()
        return torch.cat([self._score_group(*group) for group in _groups(pack)]).float()

    def _score_last(self, pack: Pack, lengths: Int64[Tensor, " N"]) -> Float[Tensor, "N *H"]:
        """A decoder's scores at the last token of each row."""
        mask = torch.arange(pack.longest, device=lengths.device) < lengths[:, None]
        ids = torch.zeros(mask.shape, dtype=torch.long, device=lengths.device)
        ids[mask] = pack.ids
        hidden = self.model.base_model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        rows = torch.arange(len(lengths), device=lengths.device)
        return self.model.score(hidden[rows, lengths - 1]).squeeze(-1)

    def _score_group(self, ids: Int64[Tensor, "n L"], types: Int64[Tensor, "n L"]) -> Float[Tensor, "n *H"]:
        """The model's own scores of rows of equal length."""
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self.typed and types.any():  # else as where a tokenizer gives none, which is not 0 to every model
            inputs["token_type_ids"] = types
        return self.model(**inputs).logits.squeeze(-1)

    def save_weights(self, folder: Path) -> None:
        """Write the weights as transformers does, with its own conversions and tied tensors."""
        with quiet_transformers():
            self.model.save_pretrained(folder)


def load_other(
    folder: Path,
    raw: Mapping[str, Any],
    *,
    new_heads: tuple[str, ...] | None,
    dropout: float | None,
    dtype: torch.dtype,
    device: torch.device,
) -> OtherNetwork:
    """Load any sequence classifier through transformers, with all of its outputs; see `load_network`.

    Args:
        new_heads: names of new outputs, None to keep those it has.

    Raises:
        BadModel: transformers cannot load it, it has no head, or is an encoder-decoder.
    """
    import transformers  # costs seconds, so not at the top

    with quiet_transformers(), _one_line(folder):
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        if config.is_encoder_decoder:
            raise BadModel(f"{folder} is an encoder-decoder ({config.model_type}); wanted an encoder or a decoder")
        if new_heads:
            config.id2label = dict(enumerate(new_heads))
            config.label2id = {name: number for number, name in enumerate(new_heads)}
        if dropout is not None:
            _set_dropout(config, dropout)
        model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=new_heads is not None,
        )
    _check(folder, model, report, new_heads is not None)
    network = OtherNetwork(model.to(device), raw, new_heads or head_names(raw, config.num_labels))
    if new_heads:
        _reset_output(network.get_submodule(network.output_layer), config.get_text_config())
    return network.eval()


def _groups(pack: Pack) -> Iterator[tuple[Int64[Tensor, "n L"], Int64[Tensor, "n L"]]]:
    parts = zip(pack.group_rows, pack.ids.split(pack.group_tokens), pack.types.split(pack.group_tokens), strict=True)
    return ((ids.view(rows, -1), types.view(rows, -1)) for rows, ids, types in parts)


def _max_positions(model: nn.Module, config: Any) -> int | None:
    """Positions a row may use; models that count them as RoBERTa does lose those up to the padding id."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1
    values = config.to_dict()
    return values.get("max_position_embeddings", values.get("n_positions"))


def _set_dropout(config: Any, rate: float) -> None:
    for part in (config, config.get_text_config()):
        for name, value in part.to_dict().items():
            named = "dropout" in name or name.endswith("pdrop")
            if named and (isinstance(value, float) or value in (0, None)) and not isinstance(value, bool):
                setattr(part, name, rate)


def _check(folder: Path, model: Any, report: Mapping[str, Any], new_head: bool) -> None:
    backbone = f"{model.base_model_prefix}."
    missing = sorted(report["missing_keys"])
    if not new_head and any(not name.startswith(backbone) for name in missing):
        raise BadModel(f"{folder} has no reward head; train one, or pass a reward model")
    lacking = [name for name in missing if name.startswith(backbone)]
    if lacking:
        raise BadModel(f"the weights in {folder} lack {', '.join(lacking[:3])}; copy or download them again")
    # A backbone comes with the head it was trained with, which a new head replaces.
    unknown = [name for name in report["unexpected_keys"] if not name.endswith(_OLD_BUFFERS)]
    unknown = sorted(name for name in unknown if name.startswith(backbone) or not new_head)
    if unknown:
        raise BadModel(f"the weights in {folder} do not fit its config.json: it knows no {', '.join(unknown[:3])}")


def _output_layer(model: nn.Module, count: int) -> str:
    """Name of the linear layer that gives the outputs: the last one of so many."""
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return [name for name, module in linear if module.out_features == count][-1]


def _reset_output(output: Any, config: Any) -> None:
    spread = getattr(config, "initializer_range", 0.02)
    with torch.no_grad():
        output.weight.copy_(torch.empty(output.weight.shape).normal_(0.0, spread))
        if output.bias is not None:
            output.bias.zero_()


@contextmanager
def _one_line(folder: Path) -> Iterator[None]:
    """transformers raises nearly anything for a folder it cannot load; we keep the first line."""
    try:
        yield
    except BadModel:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadModel(f"transformers cannot load {folder} as a sequence classifier: {reason}") from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars, advice and load reports, which we check ourselves. What was set before is set again."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
