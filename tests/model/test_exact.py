"""The exact engine gives the module tree's and transformers' scores, whatever a row is scored beside."""

from pathlib import Path

import pytest
import torch

from prefrank.model import load_network, score_batches
from prefrank.model.exact import TorchEngine
from prefrank.model.layout import lay_out
from tests.parity.reference import CONFIGS, V3, alone, batch_of, model_of, reference_scores, saved

LENGTHS = [1, 2, 3, 3, 3, 5, 9, 9, 17, 31, 33, 64]


@pytest.mark.parametrize("name", CONFIGS)
def test_scores_equal_those_of_the_network_and_of_transformers(name: str, tmp_path: Path) -> None:
    reference = model_of(*CONFIGS[name])
    network = load_network(saved(reference, tmp_path))
    batch = batch_of(LENGTHS)
    with torch.no_grad():
        theirs = torch.cat([reference_scores(reference, row) for row in alone(batch)])
    scores = TorchEngine(lay_out(network))(batch)
    assert theirs.std() > 0.01
    torch.testing.assert_close(scores, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(scores, score_batches(network, [batch]), atol=1e-5, rtol=0)
