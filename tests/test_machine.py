"""Cores and memory are those that this process may use, whatever the system tells or hides."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from accl.launch import machine

GB = 10**9
UNLIMITED = "9223372036854771712\n"  # of version 1


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 64 cores and 100 GB, 80 of them free, without control groups."""
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "PROC", tmp_path / "proc")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=80 * GB, total=100 * GB))
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


NOTHING_SAID = {"cgroup/cpu.max": "", "cgroup/memory.max": "\n", "cgroup/memory/memory.limit_in_bytes": "none"}
WITHOUT_LIMITS = {
    "cgroup/cpu.max": "max 100000\n",
    "cgroup/memory.max": "max\n",
    "cgroup/cpu/cpu.cfs_quota_us": "-1\n",
    "cgroup/cpu/cpu.cfs_period_us": "100000\n",
    "cgroup/memory/memory.limit_in_bytes": UNLIMITED,
}
CONTAINER = {
    "cgroup/cpu.max": "250000 100000\n",
    "cgroup/memory.max": f"{8 * GB}\n",
    "cgroup/memory.current": f"{3 * GB}\n",
    "proc/self/cgroup": "0::/\n",
}
# The job around the step has the limit; the root of a host has no such files.
JOB = {
    "proc/self/cgroup": "0::/slurm/job_7/step_0\n",
    "cgroup/slurm/job_7/cpu.max": "300000 100000\n",
    "cgroup/slurm/job_7/step_0/cpu.max": "max 100000\n",
    "cgroup/slurm/job_7/memory.max": f"{8 * GB}\n",
    "cgroup/slurm/job_7/memory.current": f"{3 * GB}\n",
    "cgroup/slurm/job_7/step_0/memory.max": f"{20 * GB}\n",
}
VERSION_1 = {
    "proc/self/cgroup": "5:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n\n0::/\nodd\n",
    "cgroup/cpu/docker/ab/cpu.cfs_quota_us": "250000\n",
    "cgroup/cpu/docker/ab/cpu.cfs_period_us": "100000\n",
    "cgroup/memory/docker/ab/memory.limit_in_bytes": f"{8 * GB}\n",
    "cgroup/memory/docker/ab/memory.usage_in_bytes": f"{3 * GB}\n",
}
# Of the host's path nothing but its end is mounted in the container.
MOUNTED_AT_THE_ROOT = {**CONTAINER, "proc/self/cgroup": "0::/docker/ab\n"}
FULL = {"cgroup/memory.max": f"{8 * GB}\n", "cgroup/memory.current": f"{9 * GB}\n", "cgroup/cpu.max": "5000 100000\n"}


@pytest.mark.parametrize(
    ("files", "cores", "memory"),
    [
        ({}, 64, (80, 100)),
        (NOTHING_SAID, 64, (80, 100)),
        (WITHOUT_LIMITS, 64, (80, 100)),
        (CONTAINER, 3, (5, 8)),
        (MOUNTED_AT_THE_ROOT, 3, (5, 8)),
        (JOB, 3, (5, 8)),
        (VERSION_1, 3, (5, 8)),
        (FULL, 1, (0, 8)),
    ],
)
def test_the_limits_of_containers_and_jobs_count(
    groups: Path, files: dict[str, str], cores: int, memory: tuple[int, int]
) -> None:
    write(groups, files)
    assert machine.cores() == cores
    free, total = memory
    assert machine.memory() == (free * GB, total * GB)


def test_a_path_that_leads_out_of_the_tree_is_not_followed(groups: Path) -> None:
    write(groups, {"proc/self/cgroup": "0::/../outside\n", "outside/cpu.max": "100000 100000\n", "cgroup/x": ""})
    assert machine.cores() == 64


@pytest.mark.usefixtures("groups")
def test_cores_are_counted_where_there_is_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert machine.cores() == 12
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.cores() == 1


@pytest.mark.usefixtures("groups")
def test_memory_is_unknown_where_the_system_hides_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden() -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "virtual_memory", hidden)
    assert machine.memory() is None
