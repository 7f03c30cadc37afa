"""Broken checkpoints load right or are refused in one line."""

import io
import json
import pickle
import zipfile
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import breaking, targets
from tests.fuzz.breaking import Broken
from tests.fuzz.profiles import fuzz
from tests.fuzz.runner import Worker

JSON = {
    "plain": ["config.json", "tokenizer.json", "tokenizer_config.json"],
    "ours": ["config.json", "prefrank.json", "tokenizer.json", "tokenizer_config.json"],
    "quantised": ["config.json", "prefrank.json"],
    "decoder": ["config.json", "tokenizer.json", "tokenizer_config.json"],
    "deberta": ["config.json", "tokenizer_config.json"],
    "sharded": ["model.safetensors.index.json"],
    "adapter": ["adapter_config.json"],
}
"""What is broken of each model."""
NEW = {
    "special_tokens_map.json": {"cls_token": "[CLS]", "sep_token": {"content": "[SEP]", "lstrip": False},
        "pad_token": "[PAD]"},
    "added_tokens.json": {"[MORE]": 200},
    "generation_config.json": {"pad_token_id": 0},
}  # fmt: skip
"""What a folder may have besides."""


def with_model(worker: Worker, name: str, changed: dict[str, Any]) -> dict[str, Any]:
    """A model as `model`, changed, with what an adapter needs beside it."""
    model = worker.bases[name] | changed
    return breaking.under("model", model) | breaking.under("base", worker.bases["plain"])


@fuzz
@pytest.mark.parametrize("name", JSON)
@given(data=st.data())
def test_a_broken_json_of_a_model_is_refused_in_one_line(worker: Worker, name: str, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(JSON[name]))
    broken = data.draw(breaking.json_of(json.loads(worker.bases[name][file])), file)
    worker.check(targets.rank, "model", files=with_model(worker, name, {file: broken}))


@fuzz
@given(data=st.data())
def test_a_broken_json_beside_a_model_is_refused_in_one_line(worker: Worker, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(list(NEW)))
    name = data.draw(st.sampled_from(["plain", "decoder"]))
    broken = data.draw(breaking.json_of(NEW[file]), file)
    worker.check(targets.rank, "model", files=with_model(worker, name, {file: broken}))


@fuzz
@given(data=st.data())
def test_what_changes_nothing_changes_no_score(worker: Worker, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(JSON)))
    file = data.draw(st.sampled_from(JSON[name]))
    same = data.draw(breaking.same_json(json.loads(worker.bases[name][file])))
    if file != "tokenizer.json":  # has no unknown keys, and a vocabulary
        wanted = worker.check(targets.rank, "model", files=with_model(worker, name, {}))
        assert worker.check(targets.rank, "model", files=with_model(worker, name, {file: same})) == wanted


@fuzz
@given(data=st.data())
def test_broken_weights_are_refused_in_one_line(worker: Worker, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["plain", "ours", "quantised", "sharded", "adapter", "decoder"]))
    files = [one for one in worker.bases[name] if one.endswith(".safetensors")]
    file = data.draw(st.sampled_from(files))
    breaks = data.draw(st.sampled_from([breaking.safetensors_of, breaking.tensors_of, breaking.tensors_of]))
    broken = data.draw(breaks(worker.bases[name][file]), file)
    worker.check(targets.rank, "model", files=with_model(worker, name, {file: broken}))


class Hostile:
    """Unpickled, it makes a folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.mkdir, ("owned",)


def pickled(worker: Worker, draw: Any) -> Broken:
    """pytorch_model.bin with another pickle inside, or broken as bytes."""
    content = worker.bases["deberta"]["pytorch_model.bin"]
    if draw(st.booleans()):
        return draw(breaking.bytes_of(content))
    value = draw(
        st.sampled_from([Hostile(), {"a": Hostile()}, {1: 2}, [], None, {"deberta": {"x": 1}}, {"a": "b"}, print])
    )
    protocol = draw(st.integers(0, 5))
    dumped = pickle.dumps(value, protocol)
    if draw(st.booleans()):
        return Broken(dumped, f"a bare pickle of {value!r:.60}")
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
        for entry in old.namelist():
            new.writestr(entry, dumped if entry.endswith("data.pkl") else old.read(entry))
    return Broken(made.getvalue(), f"a pickle of {value!r:.60}")


@fuzz
@given(data=st.data())
def test_broken_pickles_are_refused_in_one_line_and_run_nothing(worker: Worker, data: st.DataObject) -> None:
    broken = pickled(worker, data.draw)
    worker.check(targets.rank, "model", files=with_model(worker, "deberta", {"pytorch_model.bin": broken}))


TENSORS = {
    "sparse": lambda one: one.to_sparse(),
    "on no device": lambda one: one.to("meta"),
    "complex": lambda one: one.to(torch.complex64),
    "of integers": lambda one: one.to(torch.int64),
    "in float64": lambda one: one.double(),
    "expanded": lambda one: torch.zeros(1).expand(one.shape),
    "huge and expanded": lambda one: torch.zeros(1).expand(1 << 20, 1 << 20),
    "empty": lambda one: one[:0],
    "transposed": lambda one: one.T if one.ndim == 2 else one,
    "without dimensions": lambda one: one.sum(),
    "a text": lambda one: "x",
    "a list": lambda one: one.tolist(),
    "nothing": lambda one: None,
    "nested": lambda one: {"x": one},
    "a parameter": torch.nn.Parameter,
}
"""What a tensor of a pickled state may be instead; some of it is sound."""


@fuzz
@given(data=st.data())
def test_odd_tensors_in_a_pickle_are_used_or_refused(worker: Worker, data: st.DataObject) -> None:
    state = dict(torch.load(io.BytesIO(worker.bases["deberta"]["pytorch_model.bin"]), weights_only=True))
    name, kind = data.draw(st.sampled_from(list(state))), data.draw(st.sampled_from(list(TENSORS)))
    key = data.draw(st.sampled_from([name, name, name, 1, "", "x", f"module.{name}", ("a",), None]))
    changed = TENSORS[kind](state.pop(name))
    state[key] = changed
    whole = {"state_dict": state} if data.draw(st.booleans()) else state
    made = io.BytesIO()
    torch.save(whole, made)
    broken = Broken(made.getvalue(), f"{name} {kind}, as {key!r}{'' if key in whole else ', in state_dict'}")
    worker.check(targets.rank, "model", files=with_model(worker, "deberta", {"pytorch_model.bin": broken}))


@fuzz
@given(data=st.data())
def test_a_broken_sentencepiece_model_is_refused_in_one_line(worker: Worker, data: st.DataObject) -> None:
    broken = data.draw(breaking.bytes_of(worker.bases["deberta"]["spm.model"]))
    worker.check(targets.rank, "model", files=with_model(worker, "deberta", {"spm.model": broken}))


@fuzz
@given(data=st.data())
def test_links_and_pipes_in_a_model_are_followed_or_refused(worker: Worker, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(JSON)))
    file = data.draw(st.sampled_from(list(worker.bases[name])))
    other = data.draw(st.sampled_from([breaking.Fifo(), breaking.Link("."), breaking.Link("/dev/zero"),
                                       breaking.Link(file),
                                       breaking.Link("/etc/hostname"), breaking.Folder()]))  # fmt: skip
    worker.check(
        data.draw(st.sampled_from([targets.rank, targets.inform])),
        "model",
        files=with_model(worker, name, {file: other}),
    )


@fuzz
@given(data=st.data())
def test_a_broken_record_of_a_model_is_shown_or_refused(worker: Worker, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["ours", "quantised", "run/last"]))
    model = worker.bases["run"] if name == "run/last" else worker.bases[name]
    model = {
        one.removeprefix("last/"): held for one, held in model.items() if "/" not in one or one.startswith("last/")
    }
    record = json.loads(model["prefrank.json"]) | {"calibration": targets.CALIBRATION}
    broken = data.draw(breaking.json_of(record))
    files = breaking.under("model", model | {"prefrank.json": broken})
    worker.check(targets.run_command, "info", "model", *data.draw(st.sampled_from([[], ["--json"]])), files=files)
    worker.check(targets.write_card, files=files, writes=["model/README.md"])


ODD = ["range(10**9)", "'a' * 10**9", "range(3)", "range(-1)", "messages", "messages * 9999", "None", "1 / 0",
       "''.__class__", "cycler", "namespace(a=1)", "messages | map('x')", "'%s' % messages", "'a' ~ 'b' * 5000",
       "[[]] * 10**8", "2**2**40", "lipsum(n=9999)", "messages | tojson(indent=99999999)", "'x' | center(10**9)",
       "'%*d' % (10**9, 1)", "raise_exception('a\\nb\\x1b[2J')", "strftime_now('%Y' * 9999)",
       "'a' | replace('', 'a' * 99999)", "messages[0]['content']", "messages[-1].role"]  # fmt: skip


def templates() -> st.SearchStrategy[str]:
    """Programs of a template's language, most of them wrong, some of them endless."""
    value = st.sampled_from(ODD)
    text = st.sampled_from(["", "a", "\0", "\x1b[2J", "{{", "{%", "{#", "<|end|>", "\ud800"])
    shown = st.builds("{{{{ {} }}}}".format, value)

    def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.builds("{{% for m in {} %}}{}{{% endfor %}}".format, value, inner),
            st.builds("{{% if {} %}}{}{{% endif %}}".format, value, inner),
            st.builds("{{% set x = {} %}}{}{{{{ x }}}}".format, value, inner),
            st.builds("{{% macro f() %}}{}{{{{ f() }}}}{{% endmacro %}}{{{{ f() }}}}".format, inner),
            st.builds("{}{}".format, inner, inner),
        )

    return st.recursive(st.one_of(shown, text), larger, max_leaves=6)


@fuzz
@given(template=templates())
def test_a_hostile_template_is_refused_in_one_line(worker: Worker, template: str) -> None:
    config = json.loads(worker.bases["decoder"]["tokenizer_config.json"]) | {"chat_template": template}
    broken = Broken(breaking.dump(config).encode(), template)
    worker.check(targets.rank, "model", files=with_model(worker, "decoder", {"tokenizer_config.json": broken}))


@fuzz
@given(prompt=breaking.texts(), reply=breaking.texts(), name=st.sampled_from(["ours", "decoder", "deberta"]))
def test_hostile_texts_are_scored_or_refused(worker: Worker, prompt: str, reply: str, name: str) -> None:
    worker.check(targets.rank_texts, "model", prompt, [reply, "a"], files=with_model(worker, name, {}))


@fuzz
@given(data=st.data())
def test_adapters_on_adapters_load_or_are_refused_in_one_line(worker: Worker, data: st.DataObject) -> None:
    """Three in a row, of which each names any folder as its base."""
    adapter = worker.bases["adapter"]
    config = json.loads(adapter["adapter_config.json"])
    folders = ["model", "first", "second", "base", ".", "..", "first/../second", "~nosuchuser", "loop", ""]
    files = with_model(worker, "adapter", {}) | {"loop": breaking.Link("loop")}
    for name in ("model", "first", "second"):
        changed = config | {"base_model_name_or_path": data.draw(st.sampled_from(folders))}
        files |= breaking.under(name, adapter | {"adapter_config.json": json.dumps(changed).encode()})
    if data.draw(st.booleans()):
        files |= breaking.under("base", {"adapter_config.json": json.dumps(config).encode()})
    worker.check(data.draw(st.sampled_from([targets.rank, targets.inform])), "model", files=files)
