"""Actions on runs, one or several, each in a thread; the app says how it went.

Nothing here waits in the thread that draws. What is done to a run that does not answer in time is left behind, and
said.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from textual.app import App

from accl.errors import ConfigError, RunError
from accl.store.deadline import each_within
from accl.store.labels import Labels, edit_labels, read_labels
from accl.store.rundir import LAST, RunDir
from accl.store.state import State, read_state
from accl.store.summary import as_problem
from tui.feed import RunSummary
from tui.services import Services
from tui.threads import in_daemon_thread

DEADLINE_S = 60.0  # for one run: a start asks git, and the worker of the queue needs some seconds
CHECK_DEADLINE_S = 600.0  # for the checks before a new run, which may fetch a model
NAMED = 3  # runs that a question names

Act = Callable[[RunDir], str]
"""Does something to a run, and returns a sentence about what follows, or nothing."""


async def perform(
    app: App[Any],
    services: Services,
    runs: Sequence[RunDir],
    act: Act,
    done: str,
    failed: str,
    deadline: float,
) -> list[RunDir]:
    """Do something to runs, one after the other, and notify the user; return the runs to which it was done.

    Args:
        done, failed: titles of the notifications, before the name of the run or the number of runs; without ``done``
            only what fails is told.
        deadline: seconds that it may take for one run.
    """
    answers = await in_daemon_thread(lambda: list(each_within(deadline, act, runs)))
    services.watcher.look_again()
    errors = [(run, answer) for run, answer in answers if isinstance(answer, BaseException)]
    succeeded = [run for run, answer in answers if not isinstance(answer, BaseException)]
    if errors:
        run, error = errors[0]
        others = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        app.notify(f"{as_problem(error, run.path)}{others}", title=f"{failed} {run.id}", severity="error")
    if succeeded and done:
        words = next((answer for _, answer in answers if isinstance(answer, str) and answer), "")
        app.notify(words, title=f"{done} {subject(succeeded)}")
    return succeeded


def subject(runs: Sequence[RunDir]) -> str:
    """Return the id of one run, or the number of several."""
    return runs[0].id if len(runs) == 1 else f"{len(runs)} runs"


def named(runs: Sequence[RunDir]) -> list[str]:
    """Return the ids of the first runs, and how many more there are."""
    more = len(runs) - NAMED
    return [run.id for run in runs[:NAMED]] + ([f"and {more} more"] if more > 0 else [])


def stop(run: RunDir) -> str:
    """Ask a run to stop after its current step."""
    from accl.launch import process  # not needed to show runs: imported late for a fast start

    process.stop(run)
    return "It finishes its step, writes a checkpoint and ends."


def resume(run: RunDir) -> str:
    """Start the trainer of a run that has stopped, from its last checkpoint."""
    from accl.launch import process

    step = read_state(run).goes_on_from
    reap(process.start(run))
    return f"It goes on from {f'step {step:,}' if step else 'the beginning'}."


def enqueue(run: RunDir) -> str:
    """Let a run that has stopped go on as soon as there is a place for it."""
    from accl.launch import queue

    queue.enqueue(run.path.parent, [run])
    return "What waits goes on one after the other: Q shows it."


def restart(old: RunDir) -> str:
    """Train a new run with the configuration of an old one, in the same folder."""
    from accl.launch import process
    from accl.launch.preflight import check

    config = old.load_config()
    check(config, lambda _: None)
    run = process.prepare(old.path.parent, config, ["accl", "restart", old.id], based_on=old.id)
    reap(process.start(run))
    return f"It trains as {run.id}."


def reap(trainer: Any) -> None:
    """Wait for the end of a trainer in the background, so that none is left as a zombie while the app is open."""
    threading.Thread(target=trainer.wait, daemon=True).start()


def deleting(steps: dict[RunDir, Callable[[], Any]]) -> Act:
    """Return what moves a run to the trash, together with others, and adds what undoes that to the steps."""
    from accl.store.trash import remove_runs, restore_run

    now = datetime.now(UTC)

    def act(run: RunDir) -> str:
        (answer,) = remove_runs([run], now)
        if isinstance(answer, RunError):
            raise answer
        steps[run] = lambda: restore_run(answer)
        return "u brings it back, and so does: accl restore"

    return act


def labelling(steps: dict[RunDir, Callable[[], Any]], **changes: Any) -> Act:
    """Return what changes the labels of a run as `edit_labels`, and adds what undoes that to the steps."""

    def act(run: RunDir) -> str:
        before = read_labels(run)
        after = edit_labels(run, **changes)
        steps[run] = lambda: _restore(run, before, after)
        return ""

    return act


def naming(steps: dict[RunDir, Callable[[], Any]], name: str, taken: Collection[str]) -> Act:
    """Return what gives a run a name, as `labelling` does; ``taken``: names of other runs."""
    label = labelling(steps, name=name)

    def act(run: RunDir) -> str:
        if name.strip() == LAST:
            raise ConfigError(f"{LAST!r} always means the newest run.", "Give it another name.")
        label(run)
        return "Another run has this name too, so that it means none of them." if name.strip() in taken else ""

    return act


def _restore(run: RunDir, before: Labels, after: Labels) -> None:
    added = [tag for tag in before.tags if tag not in after.tags]
    removed = [tag for tag in after.tags if tag not in before.tags]
    edit_labels(run, name=before.name, note=before.note, add=added, remove=removed)


def undoing(steps: Mapping[RunDir, Callable[[], Any]]) -> Act:
    """Return what undoes the steps that were done to runs."""

    def act(run: RunDir) -> str:
        steps[run]()
        return ""

    return act


def active(summaries: Sequence[RunSummary]) -> list[RunDir]:
    """Return the runs that can be stopped."""
    return [each.run for each in summaries if each.active]


def resumable(summaries: Sequence[RunSummary]) -> list[RunDir]:
    """Return the runs that can go on, or be started: of those that wait, now."""
    known = [each for each in summaries if each.summary.state is not None]
    return [each.run for each in known if each.state.state.ended_early or each.state.state is State.QUEUED]


def deletable(summaries: Sequence[RunSummary]) -> list[RunDir]:
    """Return the runs of which no trainer lives, those that cannot be read among them."""
    return [each.run for each in summaries if not each.trains]
