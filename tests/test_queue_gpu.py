"""The worker on the GPUs of this machine: one run for each, and the next when one is free."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
from conftest import SHORT
from test_life import kill, until

from accl.cli.waiting import wait_for
from accl.config import resolve
from accl.launch import gpus, process, queue
from accl.launch.places import name_of
from accl.store.lock import TRAINING, holder
from accl.store.rundir import RunDir
from accl.store.state import START_MARK, State, observe, read_state

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU"),
]


def shown_to(run: RunDir) -> str:
    """The GPU that the environment of a run's trainer shows; empty when none lives."""
    held = holder(run)
    if held is None or held.purpose != TRAINING:
        return ""
    with suppress(psutil.Error):
        return psutil.Process(held.pid).environ().get("CUDA_VISIBLE_DEVICES", "")
    return ""


def test_every_gpu_trains_one_run_and_the_next_when_it_is_free(tmp_path: Path) -> None:
    names = [name_of(gpu) for gpu in gpus.gpus()]
    sets = [*(option.removeprefix("--set=") for option in SHORT), "train.device=cuda", "train.max_steps=400"]
    configs = [resolve("baseline", "demo", [*sets, f"train.seed={seed}"]).config for seed in range(len(names) + 1)]
    runs = [process.prepare(tmp_path, config, ["accl", "train"], "gpus") for config in configs]
    try:
        queue.enqueue(tmp_path, runs)
        until(lambda: sorted(map(shown_to, runs[:-1])) == sorted(names))
        assert observe(runs[-1]).state is State.QUEUED
        assert wait_for(tmp_path, runs) == 0
    finally:
        if pid := queue.worker_pid(tmp_path):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for run in runs:
            kill(run)
    assert all(run.console.read_text(encoding="utf-8").count(START_MARK) == 1 for run in runs)
    ended = sorted(read_state(run).ended for run in runs[:-1])
    assert read_state(runs[-1]).started >= ended[0]
