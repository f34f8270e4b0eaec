"""Faults inside a real training process: it kills itself at a chosen call, or measures how long recording blocks it.

A folder with a ``sitecustomize.py`` on ``PYTHONPATH`` brings `install` into the process that `accl resume` starts, so
that nothing in the trainer itself knows of it.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

VARIABLE = "ACCL_SOAK"

# Moments to be killed in: module, attribute, and about how many seconds a call takes on a slow machine.
POINTS = {
    "start": ("accl.training.loop", "Trainer.train", 0.0),  # from the start of the process to the first step
    "step": ("accl.training.loop", "Trainer._train_step", 0.03),
    "checkpoint": ("accl.training.checkpoint", "save", 0.1),
    "prune": ("accl.training.checkpoint", "prune", 0.005),
    "database": ("accl.store.append", "RunAppender._try_transaction", 0.02),
    "test": ("accl.training.loop", "Trainer._test", 0.7),
}
STARTUP_S = 3.0  # about how long a process takes to its first step

# Calls of the training thread that must not wait for the disk or for a reader.
RECORDING = (
    *("metrics", "curriculum", "confusion", "evaluation", "task_evaluations", "predictions", "event", "meta", "tasks"),
    *("begin_flush", "end_flush"),
)
WRITING = ("append", "spool")  # methods of the appender, of which one thread at a time calls one


def environment(folder: Path, **order: Any) -> dict[str, str]:
    """Return the environment of a process that carries out ``order``, keyword arguments of `kill_at` or `time_waits`.

    Args:
        folder: for the ``sitecustomize.py``; made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(f"from {__name__} import install\ninstall()\n", encoding="utf-8")
    paths = [str(folder), str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), VARIABLE: json.dumps(order)}


def install() -> None:
    """Carry out the order in the environment if this is a training process."""
    if "accl.training" not in sys.orig_argv or VARIABLE not in os.environ:
        return
    order = json.loads(os.environ[VARIABLE])
    work = kill_at if "point" in order else time_waits
    threading.Thread(target=work, kwargs=order, daemon=True).start()


def kill_at(point: str, call: int, seed: int, log: str) -> None:
    """Kill this process at a random moment of the ``call``-th call at a point, and log whether it was inside of it.

    Args:
        point: key of `POINTS`. call: counted from 1. seed: of the moment.
        log: path of a file to which ``inside`` or ``after`` is written just before.
    """
    share = random.Random(seed).random()
    if point == "start":
        time.sleep(share * STARTUP_S)
        _die(log, "inside")
    module, attribute, seconds = POINTS[point]
    owner, name = _find(module, attribute)
    original = getattr(owner, name)
    calls, inside = 0, threading.Event()

    def end(delay: float) -> None:
        time.sleep(delay)
        _die(log, "inside" if inside.is_set() else "after")

    def patched(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls, seconds
        calls += 1
        inside.set()
        if calls == call:
            threading.Thread(target=end, args=(share * seconds,), daemon=True).start()
        began = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            seconds = time.perf_counter() - began
            inside.clear()
            if calls == call and point == "test":  # the process ends soon, maybe before the moment
                _die(log, "after")

    setattr(owner, name, patched)


def time_waits(log: str) -> None:
    """Write, at the end of this process, the longest time in seconds for which recording blocked the training thread.

    The time that the thread computed does not count, nor what it, or a thread that was writing, waited for a core.

    Args:
        log: path of a file that is rewritten whenever there is a longer one.
    """
    recorder, _ = _find("accl.store.writer", "Recorder.flush")
    appender, _ = _find("accl.store.append", "RunAppender.append")
    longest = settled = 0.0
    writing: dict[
        int, float
    ] = {}  # how long a thread that writes just now, one at a time, had waited for a core before
    lock = threading.Lock()

    def waited_for_core() -> float:
        with lock:
            return settled + sum(_schedstat(f"self/task/{thread}")[1] - before for thread, before in writing.items())

    def writes(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal settled
            thread = threading.get_native_id()
            with lock:
                writing[thread] = _schedstat("thread-self")[1]
            try:
                return original(*args, **kwargs)
            finally:
                with lock:
                    settled += _schedstat("thread-self")[1] - writing.pop(thread)

        return call

    def timed(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal longest
            began, used = time.perf_counter(), sum(_schedstat("thread-self")) + waited_for_core()
            try:
                return original(*args, **kwargs)
            finally:
                used = sum(_schedstat("thread-self")) + waited_for_core() - used
                waited = time.perf_counter() - began - used
                if threading.current_thread() is threading.main_thread() and waited > longest:
                    longest = waited
                    Path(log).write_text(f"{waited:.6f} {original.__name__}", encoding="utf-8")

        return call

    for owner, names, wrap in ((appender, WRITING, writes), (recorder, RECORDING, timed)):
        for name in names:
            setattr(owner, name, wrap(getattr(owner, name)))


def _schedstat(thread: str) -> list[float]:
    """Return seconds for which a thread computed, and for which it waited for a core."""
    return [int(nanoseconds) / 1e9 for nanoseconds in Path("/proc", thread, "schedstat").read_text().split()[:2]]


def _find(module: str, attribute: str) -> tuple[Any, str]:
    """Return the owner and the name of an attribute, once the process has imported its module."""
    while module not in sys.modules:
        time.sleep(0.001)
    owner: Any = importlib.import_module(module)  # waits until the module is complete
    *outer, name = attribute.split(".")
    for part in outer:
        owner = getattr(owner, part)
    return owner, name


def _die(log: str, where: str) -> None:
    Path(log).write_text(where, encoding="utf-8")
    os.kill(os.getpid(), signal.SIGKILL)
