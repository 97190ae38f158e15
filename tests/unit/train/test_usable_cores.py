"""Cores that a process of the trainer's image keeps busy: as many as its container is granted."""

import os
from pathlib import Path

import pytest
from codetune_trainer.cores import read_quota, usable_cores
from codetune_trainer.train.machine import count_threads

V1 = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")
JOINED = ("cpu,cpuacct/cpu.cfs_quota_us", "cpu,cpuacct/cpu.cfs_period_us")
LIMITS = [
    pytest.param({"cpu.max": "200000 100000"}, 2.0, id="two cores"),
    pytest.param({"cpu.max": "50000 100000\n"}, 0.5, id="half a core"),
    pytest.param({"cpu.max": "max 100000"}, None, id="no limit"),
    pytest.param({"cpu.max": "?"}, None, id="something else"),
    pytest.param({"cpu.max": "100000 0"}, None, id="no period"),
    pytest.param({}, None, id="no file"),
    pytest.param({V1[0]: "150000\n", V1[1]: "100000\n"}, 1.5, id="cgroup v1"),
    pytest.param({JOINED[0]: "300000", JOINED[1]: "100000"}, 3.0, id="cgroup v1, two controllers in one folder"),
    pytest.param({V1[0]: "-1", V1[1]: "100000"}, None, id="cgroup v1 without a limit"),
    pytest.param({V1[0]: "100000"}, None, id="cgroup v1 without a period"),
    pytest.param({"cpu.max": "max 100000", V1[0]: "100000", V1[1]: "100000"}, None, id="v2 wins where it is there"),
]


def write_limits(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(("files", "expected"), LIMITS)
def test_what_the_container_is_granted(tmp_path: Path, files: dict[str, str], expected: float | None) -> None:
    assert read_quota(write_limits(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("affinity", "quota", "expected"),
    [
        pytest.param(8, "max 100000", 8, id="no limit"),
        pytest.param(8, "200000 100000", 2, id="fewer than the node has"),
        pytest.param(8, "150000 100000", 2, id="a part of a core is one more"),
        pytest.param(8, "10000 100000", 1, id="never none"),
        pytest.param(2, "800000 100000", 2, id="more than the process may run on"),
    ],
)
def test_cores_are_those_of_the_affinity_and_at_most_those_that_are_granted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, affinity: int, quota: str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(affinity)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    limits = write_limits(tmp_path, {"cpu.max": quota})
    assert usable_cores(limits) == count_threads(limits) == expected
