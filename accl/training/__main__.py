"""``python -m accl.training RUN_DIR``: train the run that was prepared there, or go on with it."""

from __future__ import annotations

import signal
import sys
import time
import traceback
from pathlib import Path
from types import FrameType

from accl.config import Config, load
from accl.errors import AcclError, RunError
from accl.store.rundir import RunDir
from accl.store.state import State
from accl.training.interrupt import Interrupt
from accl.training.report import Reporter

EXIT_FAILED = 1


def main(arguments: list[str]) -> int:
    """Train; returns the exit code: 0 finished or stopped, an `AcclError`'s own, 1 for anything else."""
    if len(arguments) != 1 or not (Path(arguments[0]) / "config.yaml").is_file():
        print("usage: python -m accl.training RUN_DIR   (prepared by `accl train`)", file=sys.stderr)  # noqa: T201
        return RunError.exit_code
    run = RunDir(Path(arguments[0]).resolve())
    interrupt = Interrupt()

    def ask(_signal: int, _frame: FrameType | None) -> None:
        if interrupt.asked:
            raise KeyboardInterrupt
        interrupt.asked = True

    # From the first moment on: a stop while libraries still load must not look like a crash.
    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    reporter = Reporter(run)
    try:
        config = load(run.config)
        state, reason = _train(run, config, reporter, interrupt)
        reporter.close(state, reason, 0)
        return 0
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


def _train(run: RunDir, config: Config, reporter: Reporter, interrupt: Interrupt) -> tuple[State, str]:
    reporter.phase("loading libraries")
    # Seconds of imports: by now the run shows as starting, and a signal is heard.
    from accl.training.device import make_repeatable, open_early

    determinism = make_repeatable(config.train.seed, config.train.deterministic)
    open_early(config.train.device)

    from accl.training import provenance
    from accl.training.backends.select import choose
    from accl.training.load import MachineLoad
    from accl.training.loop import Trainer
    from accl.training.setup import build

    reporter.watch_load(MachineLoad().read)
    bench = build(config, reporter.phase)
    known = run.read_json(run.provenance)
    run.write_json(run.provenance, {**known, **provenance.environment(), **bench.facts, "determinism": determinism})
    path, reason = choose(bench, lambda done, of: reporter.phase(f"warming up {done}/{of}"))
    trainer = Trainer(run, bench, path, reporter, interrupt)
    if reporter.state.checkpoint_last:
        trainer.resume(reporter.state.checkpoint_last)
        reporter.event("info", "resumed", f"resumed from step {trainer.step}")
    else:
        recorder = reporter.recorder
        recorder.rewind(-1)  # of an earlier life that was killed before its first checkpoint
        recorder.tasks((i, s.name, s.subcategory, s.category) for i, s in enumerate(bench.subjects))
        recorder.meta({f"floor/{name}": f"{value:.6f}" for name, value in bench.floors.items()})
        recorder.meta({"protocol": config.data.protocol, "k": str(bench.tasks)})
        for level, kind, message in bench.notes:
            reporter.event(level, kind, message)
        reporter.event("info", "model", f"{bench.facts['model']['parameters']:,} parameters, all trained")
    words = f"steps are computed on the {path.name} path"
    reporter.event("info", "path", f"{words} ({reason})" if reason else words)
    seconds = time.time() - reporter.state.pid_started
    reporter.event("info", "ready", f"ready for the first step {seconds:.1f} s after the process began")
    if trainer.train():
        return State.FINISHED, ""
    return State.STOPPED, f"stopped as asked after step {trainer.step}; goes on with: accl resume {run.id}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
