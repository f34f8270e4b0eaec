"""`accl wait` and `accl queue`: what they print, and how they end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_line import run_command
from factory import crashed_run, finished_run, running_run
from hostile import EVIL, acting, hostile_run
from test_queue import order, prepared

from accl.cli import waiting
from accl.cli.output import Format, SafeConsole
from accl.cli.queue import list_
from accl.errors import INTERRUPTED, ConfigError, RunError, TrainingError
from accl.launch import queue
from accl.store.rundir import RunDir
from accl.store.state import State, read_state, write_state
from accl.store.summary import SummaryReader, read_summaries
from accl.store.waiting import read_waiting, write_waiting


@pytest.fixture(autouse=True)
def _no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "ensure_worker", lambda _root: None)


def end(run: RunDir, state: State, reason: str = "", interrupted_by: str = "") -> None:
    ended = read_state(run).changed(state=state, reason=reason, interrupted_by=interrupted_by, ended=time.time())
    write_state(run, ended)


@pytest.fixture(name="sleeps")
def _sleeps(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """What happens while the command sleeps, one after the other."""
    happening: list[Callable[[], object]] = []
    clock = SimpleNamespace(time=time.time, monotonic=time.monotonic, sleep=lambda _seconds: happening.pop(0)())
    monkeypatch.setattr(waiting, "time", clock)
    return happening


def test_waiting_ends_when_the_last_run_has_and_tells_how_each_went(
    tmp_path: Path, sleeps: list[Callable[[], object]], capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [prepared(tmp_path, seed) for seed in (1, 2)]
    queue.enqueue(tmp_path, runs)

    def step(run: RunDir, state: State, number: int) -> None:
        now = time.time()
        changed = read_state(run).changed(state=state, step=number, total_steps=200, started=now - 9, heartbeat=now)
        write_state(run, changed.changed(progressed=now, latest={"validation/accuracy": 0.5}))
        run.queue.unlink(missing_ok=True)

    sleeps += [
        lambda: step(runs[0], State.RUNNING, 50),
        lambda: step(runs[0], State.RUNNING, 55),
        lambda: end(runs[0], State.FINISHED),
        lambda: step(runs[1], State.RUNNING, 199),
        lambda: end(runs[1], State.FINISHED),
    ]
    assert waiting.wait_for(tmp_path, runs) == 0
    assert sleeps == []
    printed = capsys.readouterr().err
    assert printed.count("full s1  50/200  validation 50.00 %") == 1
    assert "55/200" not in printed  # of the same tenth
    assert "✓ full s2  finished in 9.0 s: validation 50.00 %" in printed
    assert printed.endswith("2 of 2 runs finished\n")


def test_the_end_of_the_last_steps_is_watched_more_closely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [running_run(tmp_path, seed=seed, step=step, steps=40) for seed, step in ((1, 40), (2, 30))]
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        match len(pauses):
            case 1:
                write_state(runs[1], read_state(runs[1]).changed(step=40))
            case 2:
                end(runs[0], State.FINISHED)
            case 3:
                end(runs[1], State.FINISHED)

    monkeypatch.setattr(waiting, "time", SimpleNamespace(time=time.time, monotonic=lambda: 9.0, sleep=sleep))
    assert waiting.wait_for(tmp_path, runs) == 0
    assert pauses == [waiting.POLL_EVERY_S, waiting.LAST_POLL_EVERY_S, waiting.LAST_POLL_EVERY_S]


def test_the_exit_code_is_the_worst_end(tmp_path: Path) -> None:
    finished, crashed = finished_run(tmp_path), crashed_run(tmp_path)
    stopped, preempted, unreadable = (prepared(tmp_path, seed) for seed in range(3))
    end(stopped, State.STOPPED, "stopped as asked")
    end(preempted, State.STOPPED, "stopped by SIGTERM", "SIGTERM")
    unreadable.state.write_text("{", encoding="utf-8")
    assert waiting.wait_for(tmp_path, [finished]) == 0
    assert waiting.wait_for(tmp_path, [finished, preempted]) == INTERRUPTED
    for run in (crashed, stopped, unreadable):
        assert waiting.wait_for(tmp_path, [finished, preempted, run]) == TrainingError.exit_code


def test_what_is_paused_is_not_waited_for_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [prepared(tmp_path, seed) for seed in (1, 2)]
    queue.enqueue(tmp_path, runs)
    queue.pause(tmp_path, runs, "run x failed after 3 s: no memory")
    assert waiting.wait_for(tmp_path, runs) == TrainingError.exit_code
    printed = capsys.readouterr().err
    assert "full s2  paused\n" in printed
    assert printed.count("paused: run x failed after 3 s: no memory") == 1
    assert "accl queue resume" in printed


def test_ctrl_c_ends_the_waiting_alone(
    tmp_path: Path, sleeps: list[Callable[[], object]], capsys: pytest.CaptureFixture[str]
) -> None:
    run = running_run(tmp_path)

    def press() -> None:
        raise KeyboardInterrupt

    sleeps.append(press)
    assert waiting.wait_for(tmp_path, [run]) == 130
    assert "go on by themselves" in capsys.readouterr().err
    assert read_state(run).state is State.RUNNING


def test_a_worker_that_died_is_replaced_while_something_waits(
    tmp_path: Path, sleeps: list[Callable[[], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, looks = prepared(tmp_path), []
    queue.enqueue(tmp_path, [run])
    monkeypatch.setattr(queue, "ensure_worker", looks.append)
    sleeps.append(lambda: end(run, State.STOPPED))
    waiting.wait_for(tmp_path, [run])
    assert looks == [tmp_path]


def test_runs_are_called_by_arm_and_seed_by_their_name_or_where_these_are_the_same_by_id(tmp_path: Path) -> None:
    def names() -> list[str]:
        readers = [SummaryReader(run) for run in runs]
        return list(waiting.short_names(read_summaries(readers, time.time())).values())

    runs = [finished_run(tmp_path, "full", seed=seed) for seed in (1, 2)]
    runs.append(finished_run(tmp_path, "full", seed=1, overrides=["optim.lr=0.1"]))
    runs[1].write_json(runs[1].labels, {"name": "the good one"})
    assert names() == ["full lr=0.001 s1", "the good one", "full lr=0.1 s1"]
    runs.append(finished_run(tmp_path, "full", seed=1))
    assert names() == [runs[0].id, "the good one", "full lr=0.1 s1", runs[3].id]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_view_fits_the_terminal_and_shows_first_what_trains(tmp_path: Path, columns: int) -> None:
    sets = ["loss.contrastive_weight=0.1", "optim.lr=1e-5"]
    runs = [finished_run(tmp_path, "full", seed=seed, overrides=sets) for seed in (1, 2)]
    runs += [running_run(tmp_path, "full", seed=3), prepared(tmp_path, 4), crashed_run(tmp_path)]
    now = time.time()
    training = read_state(runs[2]).changed(latest={"validation/accuracy": 0.4321, "steps_per_second": 0.01})
    write_state(runs[2], training.changed(total_steps=24_000))
    queue.enqueue(tmp_path, [runs[3]])
    summaries = read_summaries([SummaryReader(run) for run in runs], now)
    names = waiting.short_names(summaries)

    def drawn(lines: int) -> list[str]:
        console = SafeConsole(width=columns, file=StringIO())
        console.print(waiting._view(summaries, names, (columns, lines)))
        assert isinstance(console.file, StringIO)
        return console.file.getvalue().splitlines()

    head, *rows = drawn(24)
    assert max(map(len, rows)) <= columns
    assert len(rows) == 5
    assert [row[0] for row in rows] == ["▶", "…", "✓", "✓", "☠"]
    if columns >= 80:
        assert head == "2 finished   1 training   1 waiting   1 crashed"
        assert rows[0].rstrip().endswith("80/24,000 43.21 % 27 d 16 h")
        assert all(f" s{seed} " in row for seed, row in zip((3, 4, 1, 2), rows, strict=False))
    assert len(drawn(6)) == 5
    assert drawn(6)[-1].startswith("… 2 more")


# --- the commands, in a process of their own; nothing that waits is ready, so that no worker is started


def accl(root: Path, *words: str, code: int = 0) -> str:
    printed = run_command(*words, cwd=root, ACCL_RUNS=str(root), COLUMNS="80")
    assert printed.code == code, printed.text
    return printed.text


@pytest.fixture(name="paused")
def _paused(tmp_path: Path) -> list[RunDir]:
    runs = [prepared(tmp_path, seed, "weights" if seed < 3 else "") for seed in range(1, 5)]
    queue.enqueue(tmp_path, runs)
    queue.pause(tmp_path, runs)
    return runs


def test_the_list_has_what_trains_and_what_waits_in_order(tmp_path: Path, paused: list[RunDir]) -> None:
    training = running_run(tmp_path, "baseline")
    paused[3].queue.write_text("[]", encoding="utf-8")
    printed = accl(tmp_path, "queue")
    lines = [line for line in printed.splitlines() if "-s" in line]
    assert [line.split()[:2] for line in lines[:5]] == [
        ["–", training.id],
        *([str(number), run.id] for number, run in enumerate(paused, 1)),
    ]
    assert "▶ 80/200" in lines[0]
    assert lines[1].split()[2:] == ["‖", "paused", "weights"]
    assert "? damaged" in lines[4]
    assert printed.count("paused: by hand") == 1
    assert "accl queue resume" in printed
    assert max(map(len, printed.splitlines()[:7])) <= 80
    rows = json.loads(accl(tmp_path, "queue", "list", "--format", "json"))
    assert [(row["place"], row["experiment"], row["paused"]) for row in rows] == [
        (None, None, None),
        (1, "weights", "by hand"),
        (2, "weights", "by hand"),
        (3, None, "by hand"),
        (4, None, None),
    ]
    assert rows[4]["problem"]["kind"] == "damaged"


def test_an_empty_queue_says_how_to_fill_it(tmp_path: Path) -> None:
    assert "accl queue add" in accl(tmp_path, "queue")
    assert json.loads(accl(tmp_path, "queue", "--format", "json")) == []
    assert "nothing trains or waits" in accl(tmp_path, "wait")


def test_a_queue_whose_worker_cannot_start_is_listed_and_that_is_said(tmp_path: Path) -> None:
    run = prepared(tmp_path)
    queue.enqueue(tmp_path, [run])
    (queue.queue_folder(tmp_path) / queue.LOCK).mkdir()
    printed = accl(tmp_path, "queue")
    assert "note: The worker of the queue ended with exit code 7. See: " in printed
    assert f"1  {run.id}" in printed
    assert "cannot be opened" in (tmp_path / queue.FOLDER / queue.LOG).read_text(encoding="utf-8")
    assert "exit code 7" in accl(tmp_path, "wait", code=RunError.exit_code)


def test_a_queue_that_goes_nowhere_names_the_log_of_its_worker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = prepared(tmp_path)
    queue.enqueue(tmp_path, [run])
    list_(Format.TABLE, tmp_path)
    assert capsys.readouterr().err == ""  # the worker has hardly looked
    place = read_waiting(run)
    assert place is not None
    write_waiting(run, place.changed(since=time.time() - 60))
    list_(Format.TABLE, tmp_path)
    assert "nothing trains; the worker tells" in capsys.readouterr().err
    running_run(tmp_path)
    list_(Format.TABLE, tmp_path)
    assert capsys.readouterr().err == ""


def test_waiting_runs_are_chosen_by_a_query(tmp_path: Path, paused: list[RunDir]) -> None:
    assert accl(tmp_path, "queue", "move", "s3").split() == ["moved", paused[2].id]
    assert order(tmp_path) == [paused[2], paused[0], paused[1], paused[3]]
    accl(tmp_path, "queue", "move", "experiment:weights", "--to", "3")
    assert order(tmp_path) == [paused[2], paused[3], *paused[:2]]
    accl(tmp_path, "queue", "cancel", "experiment:weights")
    assert order(tmp_path) == paused[2:]
    done = accl(tmp_path, "queue", "pause", "s3", "OR", "s4")
    assert "finished" not in done
    assert "accl queue resume" in done
    accl(tmp_path, "queue", "cancel", "--all")
    assert order(tmp_path) == []
    assert read_state(paused[3]).state is State.STOPPED


def test_what_a_command_of_the_queue_cannot_do_it_says(tmp_path: Path, paused: list[RunDir]) -> None:
    assert "matches: nothing" in accl(tmp_path, "queue", "pause", "nothing", code=RunError.exit_code)
    for words in ([], ["s1", "--all"]):
        assert "accl queue" in accl(tmp_path, "queue", "cancel", *words, code=ConfigError.exit_code)
    finished = finished_run(tmp_path, "baseline")
    assert "has finished" in accl(tmp_path, "queue", "add", finished.id, code=RunError.exit_code)
    elsewhere = finished_run(tmp_path / "other", "baseline")
    assert "is not in" in accl(tmp_path, "queue", "add", str(elsewhere.path), code=RunError.exit_code)
    assert order(tmp_path) == paused


@pytest.mark.usefixtures("paused")
def test_wait_leaves_out_what_nobody_will_start_and_ends_with_the_code_of_the_rest(tmp_path: Path) -> None:
    prepared(tmp_path, 9)
    printed = accl(tmp_path, "wait", code=TrainingError.exit_code)
    assert "0 of 4 runs finished" in printed
    assert "nothing that matches s9 trains or waits" in accl(tmp_path, "wait", "s9")


def test_hostile_text_is_shown_and_has_no_effect(tmp_path: Path) -> None:
    run = hostile_run(tmp_path)
    write_state(run, read_state(run).changed(state=State.STOPPED))
    run.write_json(run.labels, {"name": EVIL})
    run.write_json(run.experiment, {"name": EVIL})
    queue.enqueue(tmp_path, [run])
    content = run.read_json(run.queue)
    run.write_json(run.queue, content | {"paused": EVIL, "command": [EVIL]})
    damaged = prepared(tmp_path)
    damaged.write_json(damaged.queue, content | {"inode": damaged.path.stat().st_ino, "position": EVIL})
    printed = [accl(tmp_path, "queue", "--format", format) for format in ("table", "json", "csv", "md", "tex")]
    printed.append(accl(tmp_path, "wait", code=TrainingError.exit_code))
    for text in printed:
        assert not acting(text)
        assert "owned" in text
    assert len(json.loads(printed[1])) == 2
    view = SafeConsole(width=80, file=StringIO())
    summaries = read_summaries([SummaryReader(run)], time.time())
    view.print(waiting._view(summaries, waiting.short_names(summaries), (80, 24)))
    assert isinstance(view.file, StringIO)
    assert len(view.file.getvalue().splitlines()) == 2
