"""Any other sequence classifier of transformers, behind the same call as our own encoders.

A decoder (its head is the linear layer `score`) runs on the whole batch padded on the right: nothing that stands
after a token can reach it. Its score is read at the rightmost token of a row that is not `scored_padding`, as
transformers reads it; where that is None, at the row's last token (`padding.py` says which models have which rule).
Every other model runs on groups of rows of equal length, without padding, because what padding does to it (mixing,
windows, mean or last-token pooling) differs from model to model.

The head runs in float32 on what the backbone gives, whatever the weights' type and autocast say. transformers is
imported only when such a model is loaded. Parameters carry `model.` before transformers' own names. A folder's own code
runs only with `trust_remote_code`; its model then scores by its own forward pass.
"""

import copy
import inspect
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from prefrank.checks import is_count
from prefrank.errors import BadModel, short
from prefrank.model.custom_code import custom_class
from prefrank.model.empty import empty
from prefrank.model.fit import drop_rows
from prefrank.model.foreign import foreign, no_head, shown_names
from prefrank.model.heads import HeadLinear, head_names, widened
from prefrank.model.mapping import read_if_unmapped
from prefrank.model.network import head_modules
from prefrank.model.pack import Pack, pack_batch
from prefrank.model.quiet import quiet_transformers
from prefrank.model.segments import scored_places
from prefrank.model.weights import FLOATS, Weights
from prefrank.types import Batch, Causal

_NO_TOKEN = -1
_OLD_BUFFERS = (".inv_freq", ".masked_bias", ".attention.bias", ".position_ids")


class OtherNetwork(nn.Module):
    """A transformers sequence classifier: `network(batch)` gives [N] float32 scores, [N, H] if it has H > 1 heads.

    Args:
        model: a `PreTrainedModel`.
        raw: its config.json.
        heads: names of its outputs.
        custom: whether its class comes from the folder's own code, which is left as it is.
    """

    def __init__(
        self, model: nn.Module, raw: Mapping[str, Any], heads: tuple[str, ...], *, custom: bool = False
    ) -> None:
        super().__init__()
        config: Any = model.config
        text = config.get_text_config()
        self.model: Any = model
        self.config: dict[str, Any] = copy.deepcopy(dict(raw))
        self.heads = heads
        self.uncut: dict[str, Tensor] = {}
        self.fused = False
        self.causal: Causal | None = None
        self.output_layer = f"model.{_output_layer(model, len(heads))}"
        self.architecture = type(model).__name__
        self.vocab_size: int = text.vocab_size
        self.max_positions = _max_positions(model, text)
        self.decoder = not custom and isinstance(dict(model.named_children()).get("score"), nn.Linear)
        self.scored_padding: int | None = None
        self.pass_over_padding()
        compared = raw.get("model_type") in ("xlnet", "funnel")  # types of two tokens, without a table of them
        self.typed = "token_type_ids" in inspect.signature(model.forward).parameters and (
            compared or _setting(text, "type_vocab_size", 0) > 1
        )
        self.types = 3 if compared else max(2, _setting(text, "type_vocab_size", 2))
        self._checkpointed = False
        config.use_cache = text.use_cache = False
        if not self.decoder and _setting(text, "pad_token_id", None) is None:
            text.pad_token_id = _NO_TOKEN  # else transformers refuses two rows at a time
        if not custom:
            self._widen_head()

    def _widen_head(self) -> None:
        """Head in float32. A decoder's hidden states are widened after the one that counts is taken; of other models
        all are, before they are pooled.
        """
        modules = dict(self.named_modules())
        for name in head_modules(self):
            for inner, module in list(modules[name].named_modules(prefix=name)):
                if type(module) is nn.Linear:
                    _put(self, inner, HeadLinear.of(module))
                else:
                    for parameter in module.parameters(recurse=False):
                        parameter.data = widened(parameter.data)
        if not self.decoder:
            self.model.base_model.register_forward_hook(_widen_states)

    def score_last_token(self) -> None:
        """Read a decoder's score at each row's last token, whatever that is. No token stands for padding then, so that
        the embedding of every one is trained.
        """
        self.scored_padding = None
        embedding: Any = self.model.get_input_embeddings()
        if self.decoder and isinstance(embedding, nn.Embedding):
            embedding.padding_idx = None

    def pass_over_padding(self) -> None:
        """Read a decoder's score at the rightmost token that is not its config's padding, as transformers does."""
        config = self.model.config.get_text_config()
        self.scored_padding = config.pad_token_id if self.decoder else None

    def drop_rows(self, folder: Path, count: int) -> None:
        """Take off the last rows of the table of embeddings, as `fit.drop_rows` does."""
        drop_rows(self.model.get_input_embeddings(), folder, count)
        self.vocab_size -= count
        self.model.config.get_text_config().vocab_size = self.vocab_size
        text_config(self.config)["vocab_size"] = self.vocab_size

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

    def obstacle(self) -> str | None:
        """Why attention is not a kernel call of ours here."""
        return "it is for models that run on networks of prefrank's own, and this one runs through transformers"

    def sharing(self, ids: Int64[np.ndarray, " T"]) -> AbstractContextManager[None]:
        """Nothing that micro-batches have in common is known of transformers' models."""
        return nullcontext()

    def forward(self, batch: Batch) -> Float[Tensor, "N *H"]:
        device = next(self.parameters()).device
        limit = self.max_positions
        pack = pack_batch(batch, vocab_size=self.vocab_size, max_positions=limit, device=device, types=self.types)
        if self.decoder:
            lengths, places = np.diff(batch.starts), scored_places(batch, self.scored_padding)
            return self._score_at(pack, torch.tensor(lengths, device=device), torch.tensor(places, device=device))
        return torch.cat([self._score_group(*group) for group in _groups(pack)]).float()

    def _score_at(self, pack: Pack, lengths: Int64[Tensor, " N"], places: Int64[Tensor, " N"]) -> Float[Tensor, "N *H"]:
        """A decoder's scores at one token of each row."""
        mask = torch.arange(pack.longest, device=lengths.device) < lengths[:, None]
        ids = torch.zeros(mask.shape, dtype=torch.long, device=lengths.device)
        ids[mask] = pack.ids
        hidden = self.model.base_model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        rows = torch.arange(len(lengths), device=lengths.device)
        return self.model.score(hidden[rows, places]).squeeze(-1).float()

    def _score_group(self, ids: Int64[Tensor, "n L"], types: Int64[Tensor, "n L"]) -> Float[Tensor, "n *H"]:
        """The model's own scores of rows of equal length."""
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self.typed and types.any():  # else as where a tokenizer gives none, which is not 0 to every model
            inputs["token_type_ids"] = types
        return self.model(**inputs).logits.squeeze(-1)

    def save_weights(self, folder: Path, *, rows: int | None = None) -> None:
        """Write the weights as transformers does, with its own conversions and tied tensors.

        Args:
            rows: of the table of embeddings, where it is to be longer in the file: the rest are zeros.
        """
        longer = nullcontext() if rows is None else _longer(self.model.get_input_embeddings(), rows)
        with quiet_transformers(), longer:
            self.model.save_pretrained(folder)


def load_other(
    folder: Path,
    raw: Mapping[str, Any],
    *,
    new_heads: tuple[str, ...] | None,
    dropout: float | None,
    dtype: torch.dtype,
    device: torch.device,
    trust_remote_code: bool = False,
) -> OtherNetwork:
    """Load any sequence classifier through transformers, with all of its outputs; see `load_network`.

    Args:
        new_heads: names of new outputs, None to keep those it has.

    Raises:
        BadModel: transformers cannot load it, it has no head, or is an encoder-decoder.
    """
    import transformers  # costs seconds, so not at the top

    custom = custom_class(raw) if trust_remote_code else None
    loader = transformers.AutoModel if custom == "AutoModel" else transformers.AutoModelForSequenceClassification
    trusted = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    described = dict(raw) | {"auto_map": None} if trust_remote_code else raw  # for what errors say
    with quiet_transformers(), _one_line(folder, described):
        config = transformers.AutoConfig.from_pretrained(folder, **trusted)
        if config.is_encoder_decoder:
            raise BadModel(f"{folder} is an encoder-decoder ({config.model_type}); wanted an encoder or a decoder")
        if custom is None:
            _run_here(config)
            _check_stored(folder, loader, config, Weights(folder))
        if new_heads:
            config.id2label = dict(enumerate(new_heads))
            config.label2id = {name: number for number, name in enumerate(new_heads)}
        if dropout is not None:
            _set_dropout(config, dropout)
        model, report = loader.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # else transformers points to a report that is not shown; see _check
            **trusted,
        )
        read_if_unmapped(model)
        _check(folder, described, model, report, new_head=new_heads is not None, custom=custom is not None)
        count = config.num_labels if custom != "AutoModel" or "id2label" in raw else 1
        heads = new_heads or head_names(raw, count)
        network = OtherNetwork(model.to(device), raw, heads, custom=custom is not None)
    if dtype.itemsize < torch.float32.itemsize and custom is None:
        _read_head(network, folder, device)
    if new_heads:
        _reset_output(network.get_submodule(network.output_layer), config.get_text_config())
    return network.eval()


def text_config(raw: dict[str, Any]) -> dict[str, Any]:
    """The part of config.json that is of the text model: a part of its own where a model sees more than text."""
    part = raw.get("text_config")
    return part if isinstance(part, dict) else raw


def _read_head(network: OtherNetwork, folder: Path, device: torch.device) -> None:
    """The head's weights as the file has them, which transformers has rounded to the backbone's type."""
    names = {name for module in head_modules(network) for name, _ in _parameters_of(network, module)}
    stored = Weights(folder).take(lambda name: f"model.{name}" if f"model.{name}" in names else None).tensors
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name in stored and stored[name].shape == parameter.shape:
                parameter.copy_(stored[name].to(device))


def _parameters_of(network: nn.Module, module: str) -> Iterator[tuple[str, nn.Parameter]]:
    return network.get_submodule(module).named_parameters(prefix=module)


def _put(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(root.get_submodule(parent), child, module)


def _widen_states(module: nn.Module, inputs: Any, output: Any) -> None:
    for name in ("last_hidden_state", "pooler_output"):
        if isinstance(output, dict) and isinstance(value := output.get(name), Tensor):
            output[name] = widened(value)


@contextmanager
def _longer(embedding: Any, rows: int) -> Iterator[None]:
    """Inside the block a table of embeddings has so many rows, the new ones zeros."""
    before = embedding.weight
    if rows <= len(before):
        yield
        return
    more = before.new_zeros(rows - len(before), before.shape[1])
    embedding.weight = nn.Parameter(torch.cat([before.detach(), more]), requires_grad=before.requires_grad)
    try:
        yield
    finally:
        embedding.weight = before


def _groups(pack: Pack) -> Iterator[tuple[Int64[Tensor, "n L"], Int64[Tensor, "n L"]]]:
    parts = zip(pack.group_rows, pack.ids.split(pack.group_tokens), pack.types.split(pack.group_tokens), strict=True)
    return ((ids.view(rows, -1), types.view(rows, -1)) for rows, ids, types in parts)


def _max_positions(model: nn.Module, config: Any) -> int | None:
    """Positions a row may use; models that count them as RoBERTa does lose those up to the padding id."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1
    values = config.to_dict()
    positions = values.get("max_position_embeddings", values.get("n_positions"))
    if positions is None or positions == -1:
        return None
    if not is_count(positions):
        raise BadModel(f"config.json has {short(positions)} positions; wanted a whole number of at least 1")
    return int(positions)


_OWN_WAYS = {
    "_attn_implementation": ("eager", "sdpa"),
    "_experts_implementation": ("eager", "batched_mm", "grouped_mm"),
}
"""How transformers computes something by itself. By other names it looks for programs, on the hub too, and runs them;
they change the speed and no score.
"""


def _setting(config: Any, name: str, default: Any) -> Any:
    """A setting that not every model's config has: which attributes one has depends on its class, and some have it
    under a name of their own (`attribute_map`), so that `to_dict` would not do.
    """
    return getattr(config, name, default)


def _run_here(config: Any) -> None:
    """Leave out of a config.json, and of its parts, what it says of programs to run the model with."""
    for name, ways in _OWN_WAYS.items():
        if name in dir(config):
            asked = getattr(config, name)
            setattr(config, name, asked if isinstance(asked, str) and asked in ways else None)


_MORE_NUMBERS = 1 << 26
"""What a model may have beside its stored numbers: a new head and pooler, masks of positions."""


def _check_stored(folder: Path, loader: Any, config: Any, weights: Weights) -> None:
    """See that the model of a config.json is not much larger than the weights beside it, before it is made, and that
    they are floats, since transformers casts whatever has the right shape.

    Raises:
        BadModel: they are not, or it has more tensors than could have been stored.
    """
    file = str(folder / "config.json")
    with empty(file, len(weights)):
        model = loader.from_config(copy.deepcopy(config))
    own = {name for name, _ in model.named_parameters()}
    for name, dtype in weights.dtypes.items() if not _setting(config, "quantization_config", None) else ():
        if dtype not in FLOATS and not own.isdisjoint({name, f"{model.base_model_prefix}.{name}"}):
            raise BadModel(f"in {folder} the tensor {name} is of {str(dtype).removeprefix('torch.')}; wanted floats")
    packed = 8 if _setting(config, "quantization_config", None) else 2  # several numbers in one, or tied tables
    stored = weights.nbytes if packed == 8 else weights.numel
    parts = (*model.parameters(), *model.buffers())
    if (wanted := sum(part.numel() for part in parts)) > packed * stored + _MORE_NUMBERS:
        raise BadModel(
            f"{file} describes a model of {wanted:,} numbers, but the weights hold {stored:,}; do they belong together?"
        )


def _set_dropout(config: Any, rate: float) -> None:
    for part in (config, config.get_text_config()):
        for name, value in part.to_dict().items():
            named = "dropout" in name or name.endswith("pdrop")
            if named and (isinstance(value, float) or value in (0, None)) and not isinstance(value, bool):
                setattr(part, name, rate)


def _check(
    folder: Path, raw: Mapping[str, Any], model: Any, report: Mapping[str, Any], *, new_head: bool, custom: bool
) -> None:
    backbone = f"{model.base_model_prefix}."
    missing = sorted(report["missing_keys"])
    if not new_head and any(custom or not name.startswith(backbone) for name in missing):
        raise no_head(folder, raw)
    lacking = [name for name in missing if name.startswith(backbone)]
    if lacking:
        raise BadModel(f"the weights in {folder} lack {', '.join(lacking[:3])}; copy or download them again")
    # A backbone comes with the head it was trained with, which a new head replaces.
    for name, stored, wanted in sorted(report["mismatched_keys"]):
        if name.startswith(backbone) or not new_head:
            shapes = f"{list(stored)}, its config.json asks for {list(wanted)}"
            raise BadModel(f"in {folder} the tensor {name} is {shapes}; do the files belong together?")
    unknown = [name for name in report["unexpected_keys"] if not name.endswith(_OLD_BUFFERS)]
    unknown = sorted(name for name in unknown if name.startswith(backbone) or not new_head)
    if unknown:
        raise BadModel(
            f"the weights in {folder} do not fit its config.json: it knows no {shown_names(unknown)}"
            f"{foreign(folder, raw)}"
        )


def _output_layer(model: nn.Module, count: int) -> str:
    """Name of the linear layer that gives the outputs: the last one of so many."""
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return [name for name, module in linear if module.out_features == count][-1]


def _reset_output(output: Any, config: Any) -> None:
    spread = _setting(config, "initializer_range", 0.02)
    with torch.no_grad():
        output.weight.copy_(torch.empty(output.weight.shape).normal_(0.0, spread))
        if output.bias is not None:
            output.bias.zero_()


@contextmanager
def _one_line(folder: Path, raw: Mapping[str, Any]) -> Iterator[None]:
    """transformers raises nearly anything for a folder it cannot load; we keep the first line."""
    try:
        yield
    except BadModel:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        reason = reason.partition(" For details look at ")[0][:300]  # a report that is not shown
        raise BadModel(
            f"transformers cannot load {folder} as a sequence classifier: {reason}{foreign(folder, raw)}"
        ) from error
