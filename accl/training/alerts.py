"""Alerts: what a person who is not looking would want to be told about a run.

An alert is an event of the run, and is handed to the command of ``alerts.command``, as JSON on its standard input, in a
thread: a step never waits for it, and nothing that it does or fails to do harms the run. Whoever kills a trainer takes
this with it: that a run crashed is told by those who look at it, the list of runs and the app.
"""

from __future__ import annotations

import json
import shlex
import shutil
import socket
import statistics
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from accl.store.rundir import RunDir
from accl.store.state import STALLED_AFTER_S, RunState, State
from accl.store.trusted import is_allowed
from accl.text import printable

REPEAT_S = 600.0  # an alert of a kind comes at most so often
COMMAND_S = 10.0  # the command is killed after it
DISK_EVERY_S = 30.0
LEAST_FREE = 2**30  # bytes of the disk of the run

# A spike: the median of the newest losses is so many deviations of single steps above the median of those before.
SPIKE_DEVIATIONS, SPIKE_STEPS, SPIKE_AFTER, SPIKE_MEMORY = 4.0, 10, 100, 200
LEAST_DEVIATION = 0.05  # nats
COLLAPSED = 0.1  # of the tasks that the weights are as even as


class Alerts:
    """The alerts of one run.

    Args:
        event: records an event: level, kind and message.
        state: tells the state of the run.
    """

    def __init__(self, run: RunDir, event: Callable[[str, str, str], None], state: Callable[[], RunState]) -> None:
        self._run, self._event, self._state = run, event, state
        self._command: Sequence[str] = ()
        self._told: dict[str, float] = {}
        self._losses: deque[float] = deque(maxlen=SPIKE_MEMORY)
        self._disk_due = 0.0
        self._sending: list[threading.Thread] = []

    def use(self, command: str | None) -> None:
        """Hand alerts to a command from now on, unless nobody on this machine has allowed it; None for none."""
        if command and not is_allowed(command):
            allowing = f"accl resume {self._run.typed} --alerts"
            self._event(
                "warning", "alert", f"alerts.command is not run: it was typed elsewhere; to allow it: {allowing}"
            )
            command = None
        self._command = shlex.split(command) if command else ()

    def tell(self, kind: str, message: str, level: str = "warning") -> None:
        """Record an alert and hand it on, unless there was one of its kind a short while ago."""
        now = time.monotonic()
        if now - self._told.get(kind, -REPEAT_S) < REPEAT_S:
            return
        self._told[kind] = now
        self._event(level, kind, message)
        self._send(kind, level, message)

    # What is watched.

    def losses(self, step: int, values: Sequence[float]) -> None:
        """Take the cross-entropies, in nats, of the newest steps, the last of which is ``step``."""
        newest = [*self._losses, *values][-SPIKE_STEPS:]
        if len(self._losses) >= SPIKE_AFTER:
            usual = statistics.median(self._losses)
            spread = 1.4826 * statistics.median(abs(loss - usual) for loss in self._losses)  # a deviation, if normal
            now = statistics.median(newest)
            if now > usual + SPIKE_DEVIATIONS * max(spread, LEAST_DEVIATION):
                self.tell("spike", f"the classification loss rose to {now:.3f} at step {step}, from {usual:.3f}")
        self._losses.extend(values)

    def effective_tasks(self, step: int, effective: float, tasks: int) -> None:
        """Take how many of the tasks the weights of the curriculum amount to."""
        if effective < max(2.0, COLLAPSED * tasks):
            self.tell("collapse", f"the curriculum draws from {effective:.1f} of {tasks} tasks at step {step}")

    def look(self) -> None:
        """Look at progress and at the disk; called about once a second."""
        state, now = self._state(), time.time()
        if state.state is State.RUNNING and (idle := now - state.progressed) > STALLED_AFTER_S:
            self.tell("stall", f"no progress for {idle:.0f} s at step {state.step}")
        if time.monotonic() >= self._disk_due:
            self._disk_due = time.monotonic() + DISK_EVERY_S
            try:
                free = shutil.disk_usage(self._run.path).free
            except OSError:
                return
            if free < LEAST_FREE:
                self.tell("disk", f"only {free / 2**20:,.0f} MiB are free on the disk of the run")

    def ended(self, state: RunState) -> None:
        """Hand on how the run ended, if it finished or failed, and wait for what was handed on."""
        if state.state in (State.FINISHED, State.FAILED):
            accuracy = state.latest.get("test/accuracy", state.latest.get("validation/accuracy"))
            reached = "" if accuracy is None else f"accuracy {accuracy:.4f}"
            level = "info" if state.state is State.FINISHED else "error"
            self._send(state.state.value, level, state.reason or reached)
        for thread in self._sending:
            thread.join(2 * COMMAND_S)

    # The command.

    def _send(self, kind: str, level: str, message: str) -> None:
        if not self._command:
            return
        state = self._state()
        content = {
            "run": self._run.id,
            "folder": str(self._run.path),
            "kind": kind,
            "level": level,
            "message": message,
            "state": state.state.value,
            "step": state.step,
            "total_steps": state.total_steps,
            "latest": state.latest,
            "host": socket.gethostname(),
            "time": time.time(),
        }
        thread = threading.Thread(target=self._run_command, args=(content,), name="alert", daemon=True)
        self._sending = [*(sending for sending in self._sending if sending.is_alive()), thread]
        thread.start()

    def _run_command(self, content: dict[str, Any]) -> None:
        try:
            done = subprocess.run(
                self._command,
                input=json.dumps(content).encode(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=COMMAND_S,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            problem = f"took more than {COMMAND_S:g} s"
        except (OSError, ValueError) as error:
            problem = f"cannot be run ({error})"
        else:
            if not done.returncode:
                return
            said = printable(done.stderr.decode(errors="replace").strip()[-200:])
            problem = f"ended with {done.returncode}{f': {said}' if said else ''}"
        self._event("warning", "alert", f"alerts.command {problem}")
