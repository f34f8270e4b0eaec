"""The worker of the queue: what it starts, where, what it leaves alone, and what survives it."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from conftest import SHORT, run_accl
from factory import running_run
from test_life import kill, until
from test_places import GIB, A, B

from accl.config import resolve
from accl.errors import ConfigError, RunError
from accl.launch import gpus, places, process, queue, worker
from accl.launch.gpus import GpuLoad
from accl.launch.places import Demand
from accl.launch.worker import Worker
from accl.store.lock import TRAINING, holder
from accl.store.rundir import RunDir
from accl.store.state import START_MARK, State, observe, read_state, write_state
from accl.store.writer import Recorder

IDLE = "import signal; signal.pthread_sigmask(signal.SIG_SETMASK, ()); signal.pause()"
FAIL = "raise SystemExit(1)"


class Folder:
    """A folder of runs whose trainers are programs that do nothing, or fail at once."""

    def __init__(self, root: Path, program: Path) -> None:
        self.root, self._program, self._python = root, program, sys.executable
        self.train(IDLE)

    def train(self, code: str, how: str = "") -> None:
        """Let trainers that are started from now on run this code, with the run's lock inherited."""
        self._program.write_text(f'#!/bin/sh\nexec {how} {self._python} -c "{code}" "$@"\n', encoding="utf-8")
        self._program.chmod(0o755)

    def queued(
        self,
        *seeds: int,
        experiment: str = "",
        jobs: int | None = None,
        per_gpu: int = 1,
        sets: Sequence[str] = (),
    ) -> list[RunDir]:
        """Prepare runs with these seeds, and put them into the queue."""
        config = [resolve("full", "demo", [f"train.seed={seed}", *sets]).config for seed in seeds]
        runs = [process.prepare(self.root, each, ["accl"], experiment) for each in config]
        queue.enqueue(self.root, runs, jobs=jobs, per_gpu=per_gpu)
        return runs

    def training(self) -> list[RunDir]:
        return [run for run in self.runs() if (held := holder(run)) is not None and held.purpose == TRAINING]

    def runs(self) -> list[RunDir]:
        return [RunDir(path) for path in sorted(self.root.glob("2*")) if path.is_dir()]

    def end(self, run: RunDir, state: State = State.FINISHED) -> None:
        """End a trainer, with the state that it would have written."""
        kill(run)
        write_state(run, read_state(run).changed(state=state, step=9, ended=read_state(run).started + 99))


@pytest.fixture(name="folder")
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    folder = Folder(tmp_path / "runs", tmp_path / "trainer")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "trainer"))
    monkeypatch.setattr(queue, "ensure_worker", lambda _root: None)
    yield folder
    for run in folder.runs():
        kill(run)


def test_runs_are_started_one_after_the_other_in_their_order(folder: Folder) -> None:
    runs = folder.queued(1, 2, 3)
    queue.move(folder.root, [runs[2]], 2)
    hand = Worker(folder.root)
    for run in (runs[0], runs[2], runs[1]):
        assert hand.look()
        assert hand.look()
        assert folder.training() == [run]
        assert not run.queue.exists()
        folder.end(run)
    assert not hand.look()


def test_the_end_of_a_trainer_ends_the_pause_between_two_looks(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = folder.queued(1, 2, jobs=2)
    hand = Worker(folder.root)
    hand.look()
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        if now > 5 and hand._trainers[runs[0]].poll() is None:
            kill(runs[0])
            hand._trainers[runs[0]].wait()

    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    hand._rest(60.0)
    assert now == pytest.approx(5.0, abs=0.1)
    hand._rest(60.0)  # one that is known to have ended shortens nothing
    assert now == pytest.approx(65.0, abs=0.1)


def test_as_many_as_were_asked_for_train_at_once(folder: Folder) -> None:
    runs = folder.queued(1, 2, 3, jobs=2)
    hand = Worker(folder.root)
    hand.look()
    hand.look()
    assert folder.training() == runs[:2]
    shares = {psutil.Process(held.pid).environ().get(places.THREADS) for run in runs[:2] if (held := holder(run))}
    assert shares == {os.environ[places.THREADS]}  # the user has settled that
    folder.end(runs[0])
    hand.look()
    assert folder.training() == runs[1:]


def test_trainers_go_on_without_a_worker_and_take_their_place_with_the_next(folder: Folder) -> None:
    runs = folder.queued(1, 2)
    Worker(folder.root).look()
    by_hand = running_run(folder.root, "baseline")
    folder.end(runs[0])
    new = Worker(folder.root)
    new.look()
    assert folder.training() == [by_hand]
    assert observe(runs[1]).state is State.QUEUED


def test_a_run_that_fails_at_once_pauses_its_experiment_and_no_other(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = folder.queued(1, 2, 3, experiment="weights")
    others = folder.queued(4, experiment="rates")
    hand = Worker(folder.root)
    folder.train(FAIL)
    hand.look()
    until(lambda: holder(runs[0]) is None)
    folder.train(IDLE)
    hand.look()
    assert observe(runs[0]).state is State.CRASHED
    assert folder.training() == others
    for run in runs[1:]:
        assert observe(run).reason.startswith(f"paused: {runs[0].id} crashed after ")
    hand.look()
    assert capsys.readouterr().out.count(f"{runs[0].id} crashed after ") == 1  # said once, whenever its process ends
    folder.end(others[0])
    assert not hand.look()  # what is paused is nothing to wait for
    queue.unpause(folder.root, runs[1:])
    assert hand.look()
    assert folder.training() == runs[1:2]


def test_a_new_worker_also_sees_the_failure_of_a_run_that_an_earlier_one_started(folder: Folder) -> None:
    runs = folder.queued(1, 2, experiment="weights")
    Worker(folder.root).look()
    new = Worker(folder.root)
    new.look()
    kill(runs[0])
    new.look()
    assert "crashed" in observe(runs[1]).reason
    assert folder.training() == []


@pytest.mark.parametrize(
    ("state", "step", "seconds", "exit_code", "quick"),
    [
        (State.FAILED, 0, 300.0, 1, True),
        (State.FAILED, 5, 29.0, 1, True),
        (State.FAILED, 5, 31.0, 1, False),
        (State.CRASHED, 0, 300.0, None, True),
        (State.STOPPED, 0, 1.0, 0, False),
        (State.STOPPED, 0, 1.0, 75, False),
        (State.STOPPED, 0, 1.0, ConfigError.exit_code, True),
        (State.FINISHED, 0, 1.0, 0, False),
    ],
)
def test_which_ends_count_as_failing_at_once(
    folder: Folder, state: State, step: int, seconds: float, exit_code: int | None, quick: bool
) -> None:
    runs = folder.queued(1, 2, experiment="weights")
    hand = Worker(folder.root)
    hand.look()
    kill(runs[0])
    started = read_state(runs[0]).started
    ended = read_state(runs[0]).changed(state=state, step=step, ended=started + seconds, exit_code=exit_code)
    write_state(runs[0], ended)
    hand.look()
    assert observe(runs[1]).reason.startswith("paused") == quick
    assert folder.training() == ([] if quick else runs[1:])


def test_a_run_that_cannot_be_started_is_paused_with_the_reason(folder: Folder) -> None:
    runs = folder.queued(1, 2)
    text = runs[0].config.read_text(encoding="utf-8")
    runs[0].config.write_text(text.replace("batch_size: ", "batch_size: many "), encoding="utf-8")
    hand = Worker(folder.root)
    hand.look()
    assert "batch_size" in observe(runs[0]).reason
    assert observe(runs[0]).reason.startswith("paused: ")
    assert folder.training() == runs[1:]


def test_a_run_that_cannot_even_be_paused_is_tried_again_later(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = folder.queued(1)
    tries = []

    def fail(*words: object, **_: object) -> None:
        tries.append(words[0])
        raise RunError("No space left on device.")

    monkeypatch.setattr(process, "start_together", fail)
    monkeypatch.setattr(queue, "pause", fail)
    hand = Worker(folder.root)
    assert hand.look()
    assert hand.look()
    assert tries == [[run], folder.root]  # started, and paused
    monkeypatch.setattr(worker, "AGAIN_S", 0.0)
    other = Worker(folder.root)
    assert other.look()
    assert other.look()
    assert len(tries) == 6


def test_a_trainer_works_where_its_command_was_typed(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (run,) = folder.queued(1)
    monkeypatch.chdir("/")
    Worker(folder.root).look()
    held = holder(run)
    assert held is not None
    assert psutil.Process(held.pid).cwd() == str(tmp_path)


def test_no_run_is_started_twice_by_two_who_see_it_wait(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = folder.queued(1)
    seen = queue.waiting(folder.root)
    one, other = Worker(folder.root), Worker(folder.root)
    one.look()
    monkeypatch.setattr(queue, "waiting", lambda _root: seen)
    monkeypatch.setattr(worker, "_trains_here", lambda _summary: False)
    other.look()
    assert run.console.read_text(encoding="utf-8").count(START_MARK) == 1
    kill(run)
    write_state(run, read_state(run).changed(state=State.STOPPED))
    other.look()
    assert run.console.read_text(encoding="utf-8").count(START_MARK) == 1


def test_what_comes_while_a_worker_ends_is_started_by_it(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.root.mkdir()
    works = 0

    def work(_self: Worker) -> None:
        nonlocal works
        works += 1
        if works == 1:
            folder.queued(1)
        else:
            queue.cancel(folder.root, folder.runs())

    monkeypatch.setattr(Worker, "work", work)
    assert worker.main(folder.root) == 0
    assert works == 2


def test_a_second_worker_ends_at_once(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.root.mkdir()
    lock = queue.take_worker_lock(folder.root)
    assert lock is not None
    monkeypatch.setattr(Worker, "work", lambda _self: pytest.fail("it works"))
    assert worker.main(folder.root) == 0
    os.close(lock)


# --- GPUs


def trainers(*runs: RunDir) -> list[int]:
    """The processes that train these runs."""
    return [held.pid for held in map(holder, runs) if held is not None]


@pytest.fixture(name="two_gpus")
def _two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "gpus", lambda: [A, B])
    monkeypatch.setattr(places, "installed", lambda: [A, B])
    monkeypatch.setattr(gpus, "load", lambda gpu: GpuLoad(gpu, None, None, GIB))
    monkeypatch.setattr(places, "torch_cuda", lambda: "12.8")


def gpu_of(pid: int) -> str:
    """The GPU that a process was given; for a moment, while it is just being started, it shows no variables."""
    until(lambda: "CUDA_VISIBLE_DEVICES" in psutil.Process(pid).environ())
    return psutil.Process(pid).environ()["CUDA_VISIBLE_DEVICES"]


@pytest.mark.usefixtures("two_gpus")
def test_each_gpu_gets_a_run_and_one_for_the_processor_passes(folder: Folder) -> None:
    runs = folder.queued(1, 2, 3, sets=["train.device=cuda"])
    (on_cpu,) = folder.queued(4)
    hand = Worker(folder.root)
    hand.look()
    hand.look()
    assert folder.training() == sorted([*runs[:2], on_cpu], key=lambda run: run.id)
    held = [holder(run) for run in runs[:2]]
    shown = [gpu_of(each.pid) for each in held if each]
    assert shown == ["GPU-a", "GPU-b"]
    folder.end(runs[1])
    Worker(folder.root).look()  # another one finds GPU a taken by looking at its trainer
    held_third = holder(runs[2])
    assert held_third is not None
    assert gpu_of(held_third.pid) == "GPU-b"


@pytest.mark.usefixtures("two_gpus")
def test_the_gpu_of_a_trainer_is_known_while_its_process_shows_no_variables_yet(folder: Folder) -> None:
    folder.train(IDLE, "env -i")  # as every process between one program and the next
    runs = folder.queued(1, 2, 3, sets=["train.device=cuda"])
    Worker(folder.root).look()
    until(lambda: not any(psutil.Process(pid).environ() for pid in trainers(*runs[:2])))
    folder.end(runs[0])
    Worker(folder.root).look()
    assert [read_state(run).visible_gpus for run in runs[1:]] == ["GPU-b", "GPU-a"]


@pytest.mark.usefixtures("two_gpus")
def test_runs_that_share_a_gpu_share_a_process_and_all_of_their_places_are_filled_again(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = folder.queued(*range(9), per_gpu=3, sets=["train.device=cuda"])
    hand = Worker(folder.root)
    hand.look()
    assert folder.training() == runs[:6]
    pids = trainers(*runs[:6])
    assert pids == [pids[0], pids[1]] * 3  # the GPUs take turns
    assert [gpu_of(pid) for pid in pids[:2]] == ["GPU-a", "GPU-b"]
    names = f"{runs[0].id}, {runs[2].id}, {runs[4].id}"
    assert f"started {names} on GPU 0, in one process" in capsys.readouterr().out
    for run in (runs[0], runs[2], runs[4]):  # the first end of the process is that of all of them
        folder.end(run)
    hand.look()
    assert folder.training() == [runs[1], runs[3], runs[5], *runs[6:]]
    assert len(set(trainers(*runs[6:]))) == 1


@pytest.mark.usefixtures("two_gpus")
def test_a_run_that_finds_no_place_on_gpus_of_others_says_so_once(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpus, "load", lambda gpu: GpuLoad(gpu, None, None, 20 * GIB))
    (run,) = folder.queued(1, sets=["train.device=cuda"])
    hand = Worker(folder.root)
    assert hand.look()
    assert hand.look()
    assert folder.training() == []
    (line,) = capsys.readouterr().out.splitlines()
    assert f"{run.id} finds no place: it needs 72.0 GiB (its share, since none of its size has finished)" in line
    assert "GPU 0 has 60.0 GiB free, GPU 1 has 60.0 GiB free" in line


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("recorded", "held"),
    [
        ({worker.PEAK: 20 * GIB, worker.HELD: 30 * GIB}, 30 * GIB),
        ({worker.PEAK: 20 * GIB}, worker.HELD_BY_PEAK * 20 * GIB),
    ],
)
def test_the_need_of_a_run_is_what_the_last_one_like_it_held(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, recorded: dict[str, int], held: float
) -> None:
    before, *unlike = folder.queued(1, 2, 3, sets=["train.device=cuda"])
    for run, memory in ((before, recorded), (unlike[0], {worker.HELD: 10**15})):
        recorder = Recorder(run.database)
        recorder.meta({key: str(value) for key, value in memory.items()})
        recorder.close()
        write_state(run, read_state(run).changed(state=State.FINISHED))
    text = unlike[0].config.read_text(encoding="utf-8")
    unlike[0].config.write_text(text.replace("max_length: 64", "max_length: 32"), encoding="utf-8")
    asked: list[float | None] = []

    def note(demand: Demand, *_: object) -> None:
        asked.append(demand.held)

    monkeypatch.setattr(worker, "find_place", note)
    Worker(folder.root).look()
    assert asked == [held]


# --- the real thing: a process of its own, and two trainers


def test_a_killed_worker_is_replaced_and_what_it_started_goes_on(tmp_path: Path) -> None:
    sets = [option.removeprefix("--set=") for option in SHORT]
    configs = [resolve("baseline", "demo", [*sets, f"train.seed={seed}"]).config for seed in (1, 2)]
    runs = [process.prepare(tmp_path, config, ["accl", "train"], "pair") for config in configs]
    try:
        names = [run.id for run in runs]
        added = run_accl("queue", "add", *names, cwd=tmp_path, fork_trainers=False, ACCL_RUNS=str(tmp_path))
        assert added.returncode == 0, added.stderr
        first = queue.worker_pid(tmp_path)
        assert first
        assert os.getsid(first) == first  # of no terminal
        until(lambda: (held := holder(runs[0])) is not None and held.purpose == TRAINING)
        os.kill(first, signal.SIGKILL)
        until(lambda: queue.worker_pid(tmp_path) is None)
        waited = run_accl("wait", cwd=tmp_path, ACCL_RUNS=str(tmp_path))
        assert waited.returncode == 0, waited.stderr
        assert re.search(
            r"(\d) of \1 runs? finished", waited.stderr
        )  # the first may have ended before it was waited for
    finally:
        if pid := queue.worker_pid(tmp_path):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for run in runs:
            kill(run)
    assert [observe(run).state for run in runs] == [State.FINISHED] * 2
    assert all(run.console.read_text(encoding="utf-8").count(START_MARK) == 1 for run in runs)
    assert read_state(runs[0]).latest != read_state(runs[1]).latest
