"""Running out of memory ends a run with one line that names a batch size that fits; what a run took is recorded."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from accl.config import Config, resolve
from accl.errors import TrainingError
from accl.store.rows import RowCollector
from accl.store.rundir import RunDir
from accl.training.memory import GIB, Usage, fitting_batch, memory_errors
from accl.training.recording import record_speed

ASKED = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 24.00 GiB"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path)
    run.write_json(run.provenance, {"model": {"parameters": 184_000_000}})
    return run


def config(*changed: str) -> Config:
    return resolve("full", "paper", ["train.batch_size=64", *changed]).config


def raised(run: RunDir, error: BaseException, settings: Config | None = None) -> TrainingError:
    with pytest.raises(TrainingError) as found, memory_errors(run, settings or config()):
        raise error
    assert found.value.__cause__ is error
    assert "\n" not in str(found.value)
    return found.value


def gpu_of(monkeypatch: pytest.MonkeyPatch, free: float, reserved: float, peak: float) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (int(free * GIB), 24 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: int(reserved * GIB))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: int(peak * GIB))


def test_a_full_gpu_names_the_batch_tried_and_one_that_fits(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_of(monkeypatch, free=1, reserved=22, peak=21.5)
    error = raised(run, torch.OutOfMemoryError(ASKED))
    assert error.what == (
        "The GPU's memory ran out at train.batch_size=64: 21.5 of 23.0 GiB were in use, 2.0 more were needed, and the "
        "model takes 2.7 whatever the batch."
    )
    assert error.hint == "By estimate this fits: --set train.batch_size=32"


def test_runs_that_share_a_process_are_told_to_be_fewer(run: RunDir) -> None:
    with pytest.raises(TrainingError) as found, memory_errors(run, config(), runs=5):
        raise torch.OutOfMemoryError(ASKED)
    assert found.value.what == "The GPU's memory ran out with 5 runs in one process."
    assert found.value.hint == f"Let fewer share a GPU: accl queue add {run.typed} --per-gpu 2"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_libraries_that_run_out_of_gpu_memory_count_too(
    run: RunDir, error: RuntimeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_of(monkeypatch, free=1, reserved=22, peak=21.5)
    assert "--set train.batch_size=32" in str(raised(run, error))


def test_a_gpu_that_does_not_answer_leaves_half_the_batch(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(torch.cuda, "mem_get_info", broken)
    assert str(raised(run, torch.OutOfMemoryError(ASKED))) == (
        "The GPU's memory ran out at train.batch_size=64. Half of it may fit: --set train.batch_size=32"
    )


def test_half_of_a_batch_is_still_whole_groups(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accl.training.memory._usage", lambda *_: None)
    settings = config("train.batch_size=9", "sampler.questions_per_task=3")
    assert "--set train.batch_size=3" in raised(run, torch.OutOfMemoryError(ASKED), settings).hint
    alone = config("train.batch_size=5", "sampler.questions_per_task=5")
    assert "No smaller batch" in raised(run, torch.OutOfMemoryError(ASKED), alone).hint


def test_a_model_that_no_batch_makes_fit_says_so(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_of(monkeypatch, free=0.2, reserved=2.4, peak=2.4)
    assert "No smaller batch would fit" in str(raised(run, torch.OutOfMemoryError(ASKED)))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you "),
    ],
)
def test_a_full_machine_says_so(run: RunDir, error: BaseException) -> None:
    assert raised(run, error).what == "The machine's memory ran out at train.batch_size=64."


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of memory"), KeyboardInterrupt()])
def test_other_errors_stay_what_they_are(run: RunDir, error: BaseException) -> None:
    with pytest.raises(type(error)) as found, memory_errors(run, config()):
        raise error
    assert found.value is error


@pytest.mark.parametrize(
    ("size", "group", "usage", "fits"),
    [
        # What does not depend on the batch is 4, and 64 questions need 32 or more.
        (64, 2, Usage(usable=24, peak=30, wanted=6, fixed=4), 32),
        (64, 2, Usage(usable=13, peak=13, wanted=23, fixed=4), 16),
        (64, 2, Usage(usable=5, peak=5, wanted=31, fixed=4), 0),
        (64, 3, Usage(usable=13, peak=13, wanted=23, fixed=4), 12),
        (60, 5, Usage(usable=40, peak=39, wanted=3, fixed=4), 20),
        (64, 1, Usage(usable=3, peak=3, wanted=1, fixed=4), 0),
        (64, 1, Usage(usable=10**6, peak=3, wanted=0, fixed=4), 32),
        (2, 2, Usage(usable=24, peak=24, wanted=1, fixed=4), 0),
    ],
)
def test_the_estimate_is_a_whole_number_of_groups_times_a_power_of_two(
    size: int, group: int, usage: Usage, fits: int
) -> None:
    assert fitting_batch(size, group, usage) == fits


def test_memory_of_tensors_and_what_is_held_from_others_are_recorded_as_the_share_of_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _device: 10 * GIB)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _device: 15 * GIB)
    rows = RowCollector()
    placement = SimpleNamespace(device=torch.device("cuda", 0))
    context: Any = SimpleNamespace(placement=placement, config=config())
    record_speed(context, rows, 100, 10.0, runs=5)
    meta = [list(row) for row in rows.rows["meta"]]
    assert ["peak_gpu_memory_bytes", str(2 * GIB)] in meta
    assert ["held_gpu_memory_bytes", str(3 * GIB)] in meta
