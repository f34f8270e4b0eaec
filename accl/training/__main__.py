"""``python -m accl.training RUN_DIR``: train the run that was prepared there, or go on with it."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from accl.config import Config, load
from accl.errors import AcclError, RunError
from accl.store.provenance import ChangedError, Launch, check_config
from accl.store.rundir import RunDir
from accl.store.state import State
from accl.training.interrupt import Interrupt
from accl.training.memory import memory_errors
from accl.training.report import Reporter

if TYPE_CHECKING:
    from accl.training.context import TrainingContext

EXIT_FAILED = 1


def main(arguments: list[str]) -> int:
    """Train, and return the exit code: 0 finished or stopped, an `AcclError`'s own, 1 for anything else."""
    parser = argparse.ArgumentParser("python -m accl.training", description="Train a run that accl has prepared.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--accept-changes", action="store_true", help="go on although the run is not what it was")
    parser.add_argument("--launched", type=json.loads, default={}, help="command and git of the launcher, as JSON")
    options = parser.parse_args(arguments)
    if not (options.run / "config.yaml").is_file():
        print(f"error: {options.run} is no run that `accl train` has prepared", file=sys.stderr)  # noqa: T201
        return RunError.exit_code
    run = RunDir(options.run.resolve())
    interrupt = Interrupt()

    def ask(_signal: int, _frame: FrameType | None) -> None:
        if interrupt.asked:
            raise KeyboardInterrupt
        interrupt.asked = True

    # Before anything else: a stop while libraries still load must not look like a crash.
    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    reporter = Reporter(run)
    try:
        config = load(run.config)
        launch = Launch(options.accept_changes, **options.launched)
        if not launch.accept_changes:
            check_config(run, config)  # before anything is loaded by it
        with memory_errors(run, config):
            state, reason = _train(run, config, launch, reporter, interrupt)
        reporter.close(state, reason, 0)
        return 0
    except ChangedError as error:  # nothing was done: the run can go on as well as before
        reporter.event("error", "refused", str(error))
        reporter.close(State.STOPPED, str(error), error.exit_code)
        return error.exit_code
    except AcclError as error:
        reporter.event("error", "failed", str(error))
        reporter.close(State.FAILED, str(error), error.exit_code)
        return error.exit_code
    except KeyboardInterrupt:
        reporter.close(State.STOPPED, "stopped at once by a second signal; goes on from its last checkpoint", 130)
        return 130
    except BaseException as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        reporter.event("error", "failed", reason)
        reporter.close(State.FAILED, reason, EXIT_FAILED)
        return EXIT_FAILED


def _train(run: RunDir, config: Config, launch: Launch, reporter: Reporter, interrupt: Interrupt) -> tuple[State, str]:
    reporter.phase("loading libraries")
    # Imports take seconds: by now the run shows as starting, and signals are handled.
    from accl.training.device import prewarm_cuda, set_determinism

    determinism = set_determinism(config.train.seed, config.train.deterministic)
    prewarm_cuda(config.train.device)

    from accl.training import start
    from accl.training.backends.select import select_backend
    from accl.training.load import MachineLoad
    from accl.training.loop import Trainer
    from accl.training.setup import build_context

    reporter.watch_load(MachineLoad().read)
    context = build_context(config, reporter.phase)
    notices = start.record(run, config, context.provenance, determinism, launch)
    backend, reason = select_backend(context, lambda done, total: reporter.phase(f"warming up {done}/{total}"))
    trainer = Trainer(run, context, backend, reporter, interrupt)
    if trainer.resume():
        reporter.event("info", "resumed", f"resumed from step {trainer.step}")
    else:
        _record_start(context, reporter)
    for notice in notices:
        reporter.event(notice.level, notice.kind, notice.message)
    words = f"steps are computed by the {backend.name} backend"
    level = "warning" if backend.name == "reference" and config.train.backend == "auto" else "info"
    reporter.event(level, "backend", f"{words} ({reason})" if reason else words)
    seconds = time.time() - reporter.state.pid_started
    reporter.event("info", "ready", f"ready for the first step {seconds:.1f} s after the process began")
    if trainer.train():
        return State.FINISHED, ""
    return State.STOPPED, f"stopped as asked after step {trainer.step}; goes on with: accl resume {run.id}"


def _record_start(context: TrainingContext, reporter: Reporter) -> None:
    recorder = reporter.recorder
    recorder.rewind(-1)  # of an earlier life that was killed before its first checkpoint
    recorder.tasks((i, s.name, s.subcategory, s.category) for i, s in enumerate(context.subjects))
    recorder.meta({f"floor/{name}": f"{value:.6f}" for name, value in context.baselines.items()})
    recorder.meta({"protocol": context.config.data.protocol, "k": str(context.tasks)})
    for notice in context.notices:
        reporter.event(notice.level, notice.kind, notice.message)
    reporter.event("info", "model", f"{context.provenance.model.parameters:,} parameters, all trained")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
