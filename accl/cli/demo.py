"""`accl demo`: the ablation on the built-in benchmark, trained side by side and watched."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from accl.cli.output import SafeConsole, print_notes, say
from accl.errors import TerminalError, TrainingError
from accl.store.rundir import RunDir

ARMS = ("baseline", "contrastive", "full")
POLL_EVERY_S = 0.25


def demo() -> None:
    """Train three arms of the ablation side by side, and watch them.

    The arms `baseline`, `contrastive` and `full` train on the built-in benchmark, on the CPU and without a
    download, in a temporary folder of their own. The app opens on them; without a terminal the command
    prints how they go, and compares them at the end. Leaving it never stops training. The last lines say
    how to stop it, to look again, and to remove the folder.

    Example:

      accl demo
    """
    from accl.cli.foreground import end_on_signals
    from accl.cli.tui import open_app
    from accl.config import resolve
    from accl.launch import process
    from accl.launch.machine import cores
    from accl.launch.preflight import check

    end_on_signals()
    configs = [resolve(arm, "demo").config for arm in ARMS]
    print_notes(check(configs[-1], lambda words: say(f"{words} …", err=True, style="dim")))
    root = Path(tempfile.mkdtemp(prefix="accl-demo-"))
    say(f"training {', '.join(ARMS)} side by side in {root}", err=True)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // len(ARMS))))
    runs = [process.prepare(root, config, sys.argv) for config in configs]
    trainers = [process.start(run) for run in runs]
    try:
        open_app(root, runs)
    except TerminalError:
        _follow(runs, trainers)
        _compare(root, runs)
    finally:
        _say_goodbye(root, runs)


def _follow(runs: Sequence[RunDir], trainers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Print how the runs go until their trainers have ended."""
    from accl.cli.progress import print_progress
    from accl.store.state import observe

    console, printed, training = SafeConsole(err=True), dict.fromkeys(runs, ""), True
    while training:
        training = any(trainer.poll() is None for trainer in trainers)
        for arm, run in zip(ARMS, runs, strict=True):
            printed[run] = print_progress(console, observe(run), printed[run], f"{arm:<12}")
        time.sleep(POLL_EVERY_S)


def _compare(root: Path, runs: Sequence[RunDir]) -> None:
    """Print what `accl compare` prints, without tasks.

    Raises:
        TrainingError: a run has not finished.
    """
    from accl.cli.compare import compare
    from accl.store.state import State, observe

    for run in runs:
        state = observe(run)
        if state.state is not State.FINISHED:
            what = f"{run.id} {state.state}" + (f": {state.reason}" if state.reason else "")
            raise TrainingError(what, f"The whole story: accl logs {run.typed} --runs {shlex.quote(str(root))}")
    compare([run.id for run in runs], tasks=0, runs=root)


def _say_goodbye(root: Path, runs: Sequence[RunDir]) -> None:
    """Say what can be done with the runs from now on."""
    from accl.store.state import observe

    folder = shlex.quote(str(root))
    live = [arm for arm, run in zip(ARMS, runs, strict=True) if observe(run).state.active]
    if live:
        stops = "; ".join(f"accl stop {arm} --runs {folder}" for arm in live)
        say(f"training goes on; to stop it:  {stops}", err=True)
    say(f"to look again:  accl tui {' '.join(ARMS)} --runs {folder}", f"to remove it:   rm -r {folder}", err=True)
