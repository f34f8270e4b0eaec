"""Fixtures of all tests: a cache of their own, and the command."""

from __future__ import annotations

import atexit
import gc
import os
import subprocess
import time
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path

import hypothesis
import pytest
import typer
from command_line import run_command
from typer.testing import CliRunner

from accl.data.sources import synthetic
from accl.launch import process
from accl.launch.machine import cores
from accl.store.rundir import RunDir
from accl.store.state import State, observe

# One thread per process: the suite itself runs on all cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["NO_COLOR"] = "1"
os.environ.pop("ACCL_RUNS", None)

# How long an example takes depends on what else runs on the machine.
hypothesis.settings.register_profile("accl", deadline=None)
hypothesis.settings.load_profile("accl")

# Half of what a small context takes to build; `test_synthetic.py` holds that it is the same every time.
synthetic.generate = cache(synthetic.generate)

# A run of the demo profile that takes seconds.
SHORT = [
    "--set=train.max_steps=12",
    "--set=train.checkpoint_every=4",
    "--set=eval.every=6",
    "--set=eval.max_questions=60",
    "--set=curriculum.warmup_epochs=0.005",
    "--set=curriculum.update_every=2",
]

LONGEST = {"test_backends", "test_examples", "test_resume", "test_together", "test_train", "test_worker"}

Accl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage while modules load, nor ever again in what they have made, which stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_xdist_auto_num_workers() -> int:
    """Return one worker more than there are processors, as tests wait for processes, timers and disks."""
    return cores() + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no worker is left alone with one of them."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let the end of a worker look for no garbage, of which nobody would hear, and that of any other process for all.

    DuckDB reports as leaked what is not found.
    """
    if hasattr(config, "workerinput"):
        gc.freeze()
        atexit.register(_leave)
    else:
        gc.unfreeze()


def _leave() -> None:
    """End a worker without taking its objects apart, which would take seconds."""
    atexit.unregister(_leave)
    atexit._run_exitfuncs()
    os._exit(0)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One cache for all of xdist's workers, so that kernels are compiled and questions tokenised once."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    os.environ["ACCL_CACHE"] = str(folder / "cache")


def run_accl(
    *arguments: str, cwd: Path | None = None, fork_trainers: bool = True, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the real command in a process of its own, without a terminal; see `run_command`."""
    done = run_command(*arguments, cwd=cwd, fork_trainers=fork_trainers, **env)
    return subprocess.CompletedProcess(["accl", *arguments], done.code, done.stdout.decode(), done.stderr.decode())


def wait(run: RunDir, step: int | None = None) -> State:
    """Wait until the run has done ``step`` or has ended; return its state."""
    deadline = time.monotonic() + 180
    while True:
        state = observe(run)
        if not state.state.active or (step is not None and state.step >= step and state.pid):
            return state.state
        assert time.monotonic() < deadline
        time.sleep(0.01)


def compare_app() -> typer.Typer:
    """Return `accl compare` alone, to be run in this process."""
    from accl.cli.compare import compare

    app = typer.Typer()
    app.command("compare")(compare)
    return app


def printed_by_compare(root: Path, *arguments: str, columns: int = 80) -> str:
    """Return what `accl compare` prints about the runs under ``root``; raises what it raises."""
    done = CliRunner().invoke(compare_app(), [*arguments, "--runs", str(root)], env={"COLUMNS": str(columns)})
    if done.exception is not None:
        raise done.exception
    return done.stdout


@pytest.fixture(name="accl")
def _accl() -> Accl:
    return run_accl


class Trainer:
    """Stands for the process of a trainer, whose end nobody has to wait for."""

    def wait(self) -> int:
        return 0


@pytest.fixture(name="started")
def _started(monkeypatch: pytest.MonkeyPatch) -> list[RunDir]:
    """Return the list of runs that are started, in place of starting them."""
    started: list[RunDir] = []
    monkeypatch.setattr(process, "start", lambda run: (started.append(run), Trainer())[1])
    return started
