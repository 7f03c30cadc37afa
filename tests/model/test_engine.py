"""Engines in a program that does other things: threads, forks, copies, other systems."""

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from time import sleep
from typing import Any

import pytest
import torch

from prefrank import native
from prefrank.errors import BadInput
from prefrank.model import load_network, make_engine, run, score_batches
from prefrank.model.checkpoint import load_quantised
from prefrank.model.engine import _LIMITING, LimitedEngine
from prefrank.model.families import lay_out
from tests.parity.reference import CONFIGS, OTHERS, TABLE, batch_of, model_of, saved

BATCH = batch_of([3, 5, 5, 17])
KINDS = [*TABLE, "electra projected", "deberta v2 xxlarge", "llama", "modernbert mean"]


class CountsThreads:
    kernels, precision, streams = "torch", "float32", 1

    def __call__(self, batch: Any) -> torch.Tensor:
        return torch.tensor([float(torch.get_num_threads())])


def threads_of_a_new_thread() -> int:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_a_number_of_threads_is_the_engines_alone(wanted: int) -> None:
    before = torch.get_num_threads(), threads_of_a_new_thread()
    engine = LimitedEngine(CountsThreads(), wanted)
    with ThreadPoolExecutor(3) as callers:
        assert [int(each) for each in callers.map(engine, [BATCH] * 9)] == [wanted] * 9
    assert int(engine(BATCH)) == wanted
    with _LIMITING[os.getpid()]:  # none of the engine's threads is just being started
        assert (torch.get_num_threads(), threads_of_a_new_thread()) == before


def test_threads_that_start_at_once_leave_the_programs_number_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before, setting = (torch.get_num_threads(), threads_of_a_new_thread()), torch.set_num_threads

    def set_slowly(number: int) -> None:
        setting(number)
        sleep(0.005)

    monkeypatch.setattr(torch, "set_num_threads", set_slowly)
    for wanted in (4, 5):
        engine, together = LimitedEngine(CountsThreads(), wanted), Barrier(24)

        def call(number: int, engine: LimitedEngine = engine, together: Barrier = together) -> int:
            together.wait()
            return int(engine(BATCH))

        with ThreadPoolExecutor(24) as callers:
            assert list(callers.map(call, range(24))) == [wanted] * 24
        settled = ((torch.get_num_threads(), threads_of_a_new_thread()) == before for _ in range(500))
        assert any(same or sleep(0.01) for same in settled)  # threads that had nothing to do may still be starting


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_torch_engines_take_a_number_of_threads(kind: str, tmp_path: Path) -> None:
    network = load_network(saved(model_of(*(CONFIGS | OTHERS)[kind]), tmp_path))
    engine = make_engine(network, kernels="torch", num_threads=2)
    assert isinstance(engine, LimitedEngine)
    assert engine.num_threads == 2
    wanted = run(make_engine(network, kernels="torch"), [BATCH])
    torch.testing.assert_close(run(engine, [BATCH]), wanted, atol=1e-6, rtol=0)
    with pytest.raises(BadInput, match="num_threads is 0; wanted a whole number from 1"):
        make_engine(network, num_threads=0)


AFTER_USE = """
import os, sys, torch
from pathlib import Path
from threading import Barrier
from time import sleep
from prefrank.model import load_network, make_engine, run
from tests.parity.reference import batch_of

torch.set_num_threads(2)
torch.randn(900, 900) @ torch.randn(900, 900)  # OpenMP has its threads now
network, batch = load_network(Path(sys.argv[1])), batch_of([60] * 64)
engine = make_engine(network, kernels="torch", num_threads=int(sys.argv[2]) or None)
wanted = run(engine, [batch])
child = os.fork()
if not child:
    os._exit(0 if torch.allclose(run(engine, [batch]), wanted, atol=1e-5) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("num_threads", [0, 2])
@pytest.mark.parametrize("kind", ["deberta-v2", "llama"])
def test_a_fork_scores_after_its_parent_has(kind: str, num_threads: int, tmp_path: Path) -> None:
    wide = {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 512}
    name, options = (CONFIGS | OTHERS)[kind]
    saved(model_of(name, options | wide), tmp_path)
    command = [sys.executable, "-W", "ignore", "-c", AFTER_USE, str(tmp_path), str(num_threads)]
    assert subprocess.run(command, timeout=60, check=False, cwd=Path(__file__).parents[2]).returncode == 0


@pytest.mark.parametrize("again", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
@pytest.mark.parametrize("kind", KINDS)
def test_networks_and_their_engines_are_copied_and_pickled(
    kind: str, again: Callable[[Any], Any], tmp_path: Path
) -> None:
    network: Any = load_network(saved(model_of(*(CONFIGS | OTHERS)[kind]), tmp_path))
    wanted = score_batches(network, [BATCH])
    torch.testing.assert_close(score_batches(again(network), [BATCH]), wanted, atol=1e-6, rtol=0)
    engines = [make_engine(network), make_engine(network, num_threads=1), make_engine(network, kernels="torch")]
    for engine in engines:
        torch.testing.assert_close(run(again(engine), [BATCH]), wanted, atol=1e-5, rtol=0)


@pytest.mark.skipif(not native.available(), reason="needs the kernels")
def test_quantised_networks_and_engines_are_copied_and_pickled(tmp_path: Path) -> None:
    network = load_quantised(saved(model_of(*CONFIGS["deberta-v2"]), tmp_path), "int16")
    engine = make_engine(network, num_threads=3)
    wanted = run(engine, [BATCH])
    for again in (copy.deepcopy(engine), pickle.loads(pickle.dumps(engine))):
        assert torch.equal(run(again, [BATCH]), wanted)
        assert (again.streams, again.kernels, again.precision) == (3, engine.kernels, "int16")
    for same in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(run(make_engine(same), [BATCH]), wanted)
    laid = pickle.loads(pickle.dumps(lay_out(network)))
    assert torch.equal(laid.layers[0].query.weight, network.deberta.encoder.layer[0].attention.self.query_proj.weight)


def test_models_are_imported_where_the_system_knows_no_forks() -> None:
    """Windows, simulated: it has neither `os.register_at_fork` nor the flags of a private mapping."""
    code = (
        "import mmap, os, torch\n"
        "for name in ('register_at_fork', 'fork', 'sched_getaffinity'): vars(os).pop(name, None)\n"
        "for name in ('MAP_PRIVATE', 'MAP_ANONYMOUS', 'MAP_SHARED'): vars(mmap).pop(name, None)\n"
        "import prefrank.model, prefrank.model.integer_weights as quantise\n"
        "integers, scales = quantise.quantise_weight(torch.randn(64, 64), 'int16')\n"
        "assert (integers * scales[:, None]).std() > 0.9\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
