"""Experiments in a folder of runs: nothing is made twice, and how long it will take is told by what was seen here."""

from __future__ import annotations

import fcntl
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from factory import crashed_run, finished_run, running_run

from accl.config import Config, resolve
from accl.errors import BusyError
from accl.launch import experiment, process, queue
from accl.launch.experiment import Speeds, exclusive, make_missing, read_members, submit
from accl.launch.plan import Action, Member, assign, expand
from accl.store.experiment import read_experiment, write_experiment
from accl.store.rundir import RunDir, run_folders
from accl.store.state import State, observe, read_state, write_state
from accl.store.summary import SummaryReader, read_summaries

NAME = "weights"


def configs(*recipes: str, seeds: tuple[int, ...] = (1, 2)) -> list[Config]:
    return expand([partial(resolve, recipe, "demo") for recipe in recipes], [], seeds, [])[0]


def make(root: Path, wanted: list[Config], based_on: str = "") -> tuple[list[Member], list[RunDir]]:
    with exclusive(root):
        existing, _ = read_members(root, NAME)
        members = assign(wanted, existing)
        return members, make_missing(root, NAME, members, ["accl", "ablate"], based_on)


@pytest.fixture
def no_worker(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders for which a worker would have been started."""
    folders: list[Path] = []
    monkeypatch.setattr(queue, "ensure_worker", folders.append)
    return folders


def test_a_second_call_makes_no_new_run(tmp_path: Path) -> None:
    wanted = configs("baseline", "full")
    first, runs = make(tmp_path, wanted, based_on="older")
    assert [member.action for member in first] == [Action.TRAIN] * 4
    assert [read_experiment(run) for run in runs] == [NAME] * 4
    assert [run.load_config() for run in runs] == wanted
    assert {run.read_json(run.provenance)["based_on"] for run in runs} == {"older"}
    second, again = make(tmp_path, wanted)
    assert [member.action for member in second] == [Action.WAIT] * 4
    assert again == runs
    wider, more = make(tmp_path, configs("baseline", "full", seeds=(1, 2, 3)))
    assert [member.action for member in wider] == [Action.WAIT] * 4 + [Action.TRAIN] * 2
    assert set(run_folders(tmp_path)) == set(more) > set(runs)


def test_two_calls_at_once_make_no_run_twice(tmp_path: Path) -> None:
    wanted = configs("baseline", "full")
    with ThreadPoolExecutor(4) as pool:
        made = [future.result()[1] for future in [pool.submit(make, tmp_path, wanted) for _ in range(4)]]
    assert all(runs == made[0] for runs in made)
    assert len(run_folders(tmp_path)) == 4


def test_who_makes_runs_is_waited_for_and_then_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = os.open(queue.queue_folder(tmp_path) / experiment.LOCK, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    monkeypatch.setattr(experiment, "LOCK_S", 0.0)
    with pytest.raises(BusyError, match="Another command is making the runs"), exclusive(tmp_path):
        pass
    os.close(descriptor)
    with exclusive(tmp_path):
        pass


def test_runs_that_were_stopped_or_failed_go_on_and_finished_ones_are_kept(
    tmp_path: Path, no_worker: list[Path]
) -> None:
    finished, stopped = finished_run(tmp_path, seed=1, curves=False), finished_run(tmp_path, seed=2, curves=False)
    write_state(stopped, read_state(stopped).changed(state=State.STOPPED, step=50))
    crashed, running = crashed_run(tmp_path, "baseline", seed=3), running_run(tmp_path, "baseline", seed=4)
    other = finished_run(tmp_path, seed=5, curves=False)  # of no experiment
    for run in (finished, stopped, crashed, running):
        write_experiment(run, NAME)
    members, runs = make(tmp_path, configs("baseline", seeds=(1, 2, 3, 4, 5)))
    actions = [Action.KEEP, Action.RESUME, Action.RESUME, Action.WAIT, Action.TRAIN]
    assert [member.action for member in members] == actions
    assert runs[:4] == [finished, stopped, crashed, running]
    assert runs[4] not in (finished, stopped, crashed, running, other)
    assert members[1].left == 0.75
    submit(tmp_path, runs, jobs=2)
    waiting = {entry.run: entry for entry in queue.waiting(tmp_path)}
    assert set(waiting) == {stopped, crashed, runs[4]}
    assert {entry.waiting.jobs for entry in waiting.values() if entry.waiting} == {2}
    assert no_worker
    assert read_state(finished).state is State.FINISHED


@pytest.mark.usefixtures("no_worker")
def test_a_run_that_waits_already_keeps_its_place_and_is_no_longer_paused(tmp_path: Path) -> None:
    _, runs = make(tmp_path, configs("full", seeds=(1, 2, 3)))
    submit(tmp_path, runs)
    queue.pause(tmp_path, runs[1:], "the first failed")
    submit(tmp_path, runs)
    entries = queue.waiting(tmp_path)
    assert [entry.run for entry in entries] == runs
    assert all(entry.ready for entry in entries)


@pytest.mark.usefixtures("no_worker")
def test_a_run_that_the_worker_starts_meanwhile_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, runs = make(tmp_path, configs("full", seeds=(1, 2)))
    started = running_run(tmp_path, "full", seed=9)
    rests = experiment._rests
    looks: list[RunDir] = []

    def rests_at_first(run: RunDir) -> bool:
        looks.append(run)
        return rests(run) or (run == started and looks.count(run) == 1)

    monkeypatch.setattr(experiment, "_rests", rests_at_first)
    submit(tmp_path, [started, *runs])
    assert [entry.run for entry in queue.waiting(tmp_path)] == runs
    assert observe(started).state is State.RUNNING


def test_a_member_that_cannot_be_read_is_said_and_its_place_trained_anew(tmp_path: Path) -> None:
    wanted = configs("full", seeds=(1,))
    _, (broken,) = make(tmp_path, wanted)
    broken.state.write_text("{")
    existing, notes = read_members(tmp_path, NAME)
    assert existing == []
    assert len(notes) == 1
    assert broken.id in notes[0]
    members, (new,) = make(tmp_path, wanted)
    assert members[0].action is Action.TRAIN
    assert new != broken


def speeds(root: Path) -> Speeds:
    return Speeds(read_summaries([SummaryReader(run) for run in run_folders(root)], time.time()))


def seen(root: Path, recipe: str, steps_per_second: float, *, started: float, state: State = State.FINISHED) -> None:
    run = finished_run(root, recipe, started=started, curves=False)
    before = read_state(run)
    write_state(
        run,
        before.changed(
            state=state,
            host=before.host or process.socket.gethostname(),
            started=started,
            step=100,
            elapsed=100 / steps_per_second + 7,
            latest={**before.latest, "steps_per_second": steps_per_second},
        ),
    )


def test_the_time_is_that_of_the_newest_run_of_the_recipe_or_else_of_another(tmp_path: Path) -> None:
    (baseline,), (full,) = configs("baseline", seeds=(1,)), configs("full", seeds=(1,))
    train = [Member(config, Action.TRAIN) for config in (baseline, full)]
    assert [speeds(tmp_path).seconds(member, 1000) for member in train] == [None, None]
    seen(tmp_path, "full", 10.0, started=1000.0)
    assert [speeds(tmp_path).seconds(member, 1000) for member in train] == pytest.approx([107, 107])
    seen(tmp_path, "baseline", 40.0, started=2000.0)
    seen(tmp_path, "baseline", 1.0, started=3000.0, state=State.STOPPED)  # less sure than one that finished
    found = speeds(tmp_path)
    assert [found.seconds(member, 1000) for member in train] == pytest.approx([32, 107])
    assert found.seconds(Member(full, Action.RESUME, left=0.5), 1000) == pytest.approx(57)
    assert found.seconds(Member(full, Action.KEEP, left=0.0), 1000) == 0
    other = resolve("full", "demo", ["model.name=somewhere"]).config
    assert found.seconds(Member(other, Action.TRAIN), 1000) is None


def test_the_speed_of_another_machine_tells_nothing(tmp_path: Path) -> None:
    seen(tmp_path, "full", 10.0, started=1000.0)
    (run,) = run_folders(tmp_path)
    write_state(run, read_state(run).changed(host="elsewhere"))
    assert speeds(tmp_path).find(configs("full", seeds=(1,))[0]) is None
