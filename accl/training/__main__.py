"""``python -m accl.training RUN_DIR``: train the run that was prepared there, or go on with it.

``python -m accl.training --together RUN_DIR RUN_DIR...`` trains several in one process.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from accl.config import Config, load
from accl.errors import INTERRUPTED, AcclError, BusyError, RunError
from accl.store import stop
from accl.store.lock import LOCK_VARIABLE, TRAINING, RunLock
from accl.store.provenance import ChangedError, Launch, check_config
from accl.store.rundir import RunDir
from accl.store.state import State, claim, read_state, write_state
from accl.streams import guard_streams
from accl.training.driver import begin_context
from accl.training.garbage import no_collection
from accl.training.guard import LockGuard
from accl.training.interrupt import Interrupt, StoppedAtOnce, StoppedEarly
from accl.training.memory import memory_errors
from accl.training.report import Reporter
from accl.training.together import SharedProcess, train_together

if TYPE_CHECKING:
    from accl.store.writer import Recorder
    from accl.training.context import TrainingContext
    from accl.training.loop import Trainer

EXIT_FAILED = 1
WAITING = "waiting for other runs of its process to be prepared"


def main(arguments: list[str]) -> int:
    """Train, and return the exit code.

    It is 0 when the run finished or a person stopped it, 75 when a signal stopped it that nobody had asked for, an
    `AcclError`'s own, and 1 for anything else; of several runs the largest.
    """
    # Before anything else: a stop while libraries still load must not look like a crash.
    interrupt = Interrupt()
    interrupt.listen()
    parser = argparse.ArgumentParser("python -m accl.training", description="Train runs that accl has prepared.")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--together", action="store_true", help="train several runs, each in a thread of its own")
    parser.add_argument("--accept-changes", action="store_true", help="go on although the run is not what it was")
    parser.add_argument("--launched", type=json.loads, default={}, help="command and git of the launcher, as JSON")
    options = parser.parse_args(arguments)
    if len(options.runs) > 1 and not options.together:  # by which others know whom a signal would reach
        parser.error("several runs need --together")
    for path in options.runs:
        if not (path / "config.yaml").is_file():
            print(f"error: {path} is no run that `accl train` has prepared", file=sys.stderr)  # noqa: T201
            return RunError.exit_code
    runs = [RunDir(path.resolve()) for path in options.runs]
    inherited = dict(zip(runs, os.environ.pop(LOCK_VARIABLE, "").split(","), strict=False))
    launch = Launch(options.accept_changes, **options.launched)
    process = SharedProcess(runs)

    def train(run: RunDir, interrupt: Interrupt) -> int:
        try:
            with _take_lock(run, inherited.get(run, "")) as lock:
                process.wait_for_first(run)
                return _run(run, lock, launch, interrupt, process)
        except RunError as error:
            print(f"error: {error}", file=process.console(run) or sys.stderr)
            return error.exit_code

    if process.is_shared:
        return train_together(process, interrupt, train)
    return train(runs[0], interrupt)


def _take_lock(run: RunDir, inherited: str) -> RunLock:
    """Take over the lock that the launcher holds, or take it oneself when started by hand."""
    if inherited.isdecimal() and (lock := RunLock.adopt(run, int(inherited), TRAINING)) is not None:
        return lock
    lock = claim(run, TRAINING)
    stop.unmark(run)
    return lock


def _run(run: RunDir, lock: RunLock, launch: Launch, interrupt: Interrupt, process: SharedProcess) -> int:
    try:
        reporter = Reporter(run, stop=lambda: interrupt.asked, console=process.console(run))
    except AcclError as error:
        failed = read_state(run).changed(state=State.FAILED, reason=str(error), exit_code=error.exit_code)
        write_state(run, failed.changed(ended=time.time()))
        raise
    reporter.clock.move(process.waited[run], WAITING)
    with LockGuard(lock, reporter, process.say):
        try:
            config = load(run.config)
            reporter.alerts.use(config.alerts.command)
            if not launch.accept_changes:
                check_config(run, config)  # before anything is loaded by it
            with memory_errors(run, config, len(process.runs)):
                state, reason = _train(run, config, launch, reporter, interrupt, process)
        except StoppedEarly:
            state, reason = State.STOPPED, "while it prepared"
        except ChangedError as error:  # nothing was done: the run can go on as well as before
            reporter.event("error", "refused", str(error))
            return reporter.close(State.STOPPED, str(error), error.exit_code)
        except AcclError as error:
            if not (interrupt.asked and isinstance(error, BusyError)):
                reporter.event("error", "failed", str(error))
                return reporter.close(State.FAILED, str(error), error.exit_code)
            state, reason = State.STOPPED, "while it waited for its database"
        except StoppedAtOnce:
            how = "stopped at once, without a checkpoint; goes on from its last one"
            return reporter.close(State.STOPPED, how, 130)
        except KeyboardInterrupt:
            how = "stopped at once by a later SIGINT; goes on from its last checkpoint"
            return reporter.close(State.STOPPED, how, 130)
        except BaseException as error:
            with suppress(OSError):  # a full disk
                traceback.print_exc(file=process.console(run))
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            if process.is_shared and "CUDA error" in reason:
                reason += " (such an error ends all runs of a process, and another of them may have caused it)"
            reporter.event("error", "failed", reason)
            return reporter.close(State.FAILED, reason, EXIT_FAILED)
        return _close(run, reporter, interrupt, state, reason)


def _close(run: RunDir, reporter: Reporter, interrupt: Interrupt, state: State, reached: str) -> int:
    """Record the end of a run that did not fail, and return its exit code."""
    if state is State.FINISHED:
        reporter.event("info", "finished", f"finished after step {reporter.state.step}")
        return reporter.close(state, "", 0)
    how, code = "as asked", 0
    if interrupt.signal != "SIGINT" and not stop.marked(run):
        how, code = f"by {interrupt.signal}, which nobody asked for,", INTERRUPTED
        reporter.update(interrupted_by=interrupt.signal)
    return reporter.close(state, f"stopped {how} {reached}; goes on with: accl resume {run.typed}", code)


def _train(
    run: RunDir, config: Config, launch: Launch, reporter: Reporter, interrupt: Interrupt, process: SharedProcess
) -> tuple[State, str]:
    """Train, and return how it ended and, of a run that was stopped, how far it came."""

    def wait() -> None:
        interrupt.check()
        if reporter.state.phase == WAITING:
            reporter.update()
        else:
            reporter.phase(WAITING)

    with process.preparing(wait):
        trainer = _prepare(run, config, launch, reporter, interrupt, process)
    if trainer.train():
        return State.FINISHED, ""
    return State.STOPPED, f"after step {trainer.step}"


def _prepare(
    run: RunDir, config: Config, launch: Launch, reporter: Reporter, interrupt: Interrupt, process: SharedProcess
) -> Trainer:
    """Prepare everything up to the first step."""

    def phase(words: str) -> None:
        interrupt.check()
        reporter.phase(words)

    phase("loading libraries")
    begin_context(config.train.device)
    # Imports take seconds: by now the run shows as starting, and signals are handled.
    with no_collection():
        from accl.training.device import exclusive_randomness, prewarm_cuda, set_determinism, use_own_stream

    with exclusive_randomness():
        determinism = set_determinism(config.train.seed, config.train.deterministic)
    prewarm_cuda(config.train.device)
    from accl.training import start
    from accl.training.backends.select import select_backend
    from accl.training.load import MachineLoad
    from accl.training.loop import Trainer
    from accl.training.setup import build_context

    if process.is_shared:
        use_own_stream(config.train.device)
    reporter.watch_load(MachineLoad().read)
    with no_collection():
        context = build_context(config, phase, process.loaded)
    notices = start.record(run, config, context.provenance, determinism, launch)
    phase("warming up")
    backend, reason = select_backend(context, lambda done, total: phase(f"warming up {done}/{total}"))
    trainer = Trainer(run, context, backend, reporter, interrupt, len(process.runs))
    if trainer.resume():
        reporter.event("info", "resumed", f"resumed from step {trainer.step}")
        _record_notices(context, reporter, "cache")  # of this process; the others stand from the first start
    else:
        _record_start(context, reporter)
    for notice in notices:
        reporter.event(notice.level, notice.kind, notice.message)
    _record_facts(context, reporter.recorder)
    words = f"steps are computed by the {backend.name} backend"
    level = "warning" if backend.name == "reference" and config.train.backend == "auto" else "info"
    reporter.event(level, "backend", f"{words} ({reason})" if reason else words)
    if process.is_shared:
        reporter.event("info", "shared", process.describe(run))
        if backend.name == "reference":
            turns = "the runs of its process take turns, since its steps are launched kernel by kernel"
            reporter.event("warning", "shared", f"{turns}: without --per-gpu they are as fast")
    parts = reporter.clock.seconds()
    spent = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in parts.items())
    ready = f"ready for the first step {sum(parts.values()):.1f} s after the process began"
    reporter.event("info", "ready", f"{ready} ({spent})")
    return trainer


def _record_notices(context: TrainingContext, reporter: Reporter, kind: str = "") -> None:
    for notice in context.notices:
        if kind in ("", notice.kind):
            reporter.event(notice.level, notice.kind, notice.message)


def _record_start(context: TrainingContext, reporter: Reporter) -> None:
    reporter.recorder.rewind(-1)  # of an earlier life that was killed before its first checkpoint
    _record_notices(context, reporter)
    reporter.event("info", "model", f"{context.provenance.model.parameters:,} parameters, all trained")


def _record_facts(context: TrainingContext, recorder: Recorder) -> None:
    """Record what holds for the whole run; again when it is resumed, since its database may have been lost."""
    recorder.tasks((i, s.name, s.subcategory, s.category) for i, s in enumerate(context.subjects))
    recorder.meta({f"floor/{name}": f"{value:.6f}" for name, value in context.baselines.items()})
    recorder.meta({"protocol": context.config.data.protocol, "k": str(context.tasks)})


def _leave(code: int) -> NoReturn:
    """End the process. Where CUDA is in use, what the system takes back at once is not taken apart before, which
    would take Python and CUDA more than a second."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    guard_streams("utf-8", lossy=True)  # readers of the console log expect UTF-8, and a full disk ends no run
    _leave(main(sys.argv[1:]))
