import platform
import sys

import psutil
import pytest
import torch

from prefrank.cli.allocator import keep_freed_memory


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc", reason="it is about glibc's allocator"
)
def test_freed_memory_stays_inside_the_block_and_goes_at_its_end():
    process = psutil.Process()
    before = process.memory_info().rss
    with keep_freed_memory():
        block = torch.ones(50_000_000)
        del block
        assert process.memory_info().rss > before + 150_000_000
    assert process.memory_info().rss < before + 50_000_000
