"""The cores that control groups allow."""

from pathlib import Path

import pytest

from prefrank.serving.cores import allowed_cores


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "400000 100000\n"}, 4),
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"a/b/cpu.max": "300000 100000\n", "cpu.max": "max 100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "600000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 6),
        ({"cpu.max": "torn"}, None),
    ],
)
def test_the_smallest_share_counts_in_whole_cores(tmp_path: Path, files: dict[str, str], expected: int | None) -> None:
    for name, text in {"../../../proc/self/cgroup": "0::/a/b\n"}.items() | files.items():
        path = tmp_path / "sys" / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "proc" / "self").mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert allowed_cores(tmp_path) == expected
