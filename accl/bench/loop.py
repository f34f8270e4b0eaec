"""``python -m accl.bench.loop``: the worker that times accl's training loop.

It takes the loop's steps without evaluations, records and checkpoints.
"""

from __future__ import annotations

import time
from multiprocessing.connection import Connection

import torch
from numpy import float64
from numpy.typing import NDArray
from torch import Tensor

from accl.bench.device import WindowTimer, free_cached_memory, measure_rates, synchronise
from accl.bench.protocol import RATES, Candidate, MeasuredWindow
from accl.bench.schedule import Schedule, prepare
from accl.bench.worker import commands, serve
from accl.data.sampler import Draw
from accl.training.backends.backend import StepBackend
from accl.training.backends.select import select_backend

# Steps after which the training loop looks at the metrics that wait on the device.
METRICS_EVERY = 50


class Loop:
    """The training loop's steps: a schedule, computed by a backend."""

    def __init__(self, schedule: Schedule, backend: StepBackend) -> None:
        self.schedule, self.backend = schedule, backend
        self._draws: list[Draw] = []
        self._draw = schedule.context.sampler.draw
        # On the instance: backends draw by themselves, and what was drawn is counted after the window.
        vars(schedule.context.sampler)["draw"] = self._record_draw

    def _record_draw(self, step: int, weights: NDArray[float64]) -> Draw:
        self._draws.append(self._draw(step, weights))
        return self._draws[-1]

    def run(self, steps: int) -> None:
        """Take the first ``steps`` steps of the schedule."""
        context, first = self.schedule.context, self.schedule.first
        pending: list[Tensor] = []
        context.model.train()
        self.schedule.restart()
        self._draws.clear()
        for step in range(first, first + steps):
            pending.append(self.backend.step(step).values_M)
            if (step - first) % METRICS_EVERY == METRICS_EVERY - 1:
                torch.stack(pending).tolist()
                pending.clear()
            if context.curriculum.should_update(step):
                context.curriculum.update(step)
        if pending:
            torch.stack(pending).tolist()

    def window(self) -> MeasuredWindow:
        """Time all steps of the schedule."""
        timer = WindowTimer(self.schedule.context.placement.device)
        self.run(self.schedule.steps)
        window = timer.stop()
        return window(self.schedule.work(self._draws))


def run(candidate: Candidate, connection: Connection) -> None:
    """Prepare accl's loop, warm it up, and obey the comparison's commands."""
    schedule = prepare(candidate, connection.send)
    context = schedule.context
    device = context.placement.device
    if not candidate.tracking:
        # On the instance, so that the backend, which knows nothing of benches, calls these instead.
        vars(context.curriculum).update(observe=_ignore, update=_ignore)
    connection.send("warming up")
    began = time.monotonic()
    backend, reason = select_backend(context, lambda done, total: connection.send(f"warming up {done}/{total}"))
    connection.send(f"by the {backend.name} backend" + (f" ({reason})" if reason else ""))
    loop = Loop(schedule, backend)
    # The whole schedule at least: a length that had no graph yet gets it here.
    warmup = max(candidate.warmup, candidate.steps)
    loop.run(warmup)
    synchronise(device)
    connection.send(f"ready, {warmup} steps in {time.monotonic() - began:.1f} s")
    connection.send({**schedule.description(), "backend": backend.name, "why": reason})
    for command in commands(connection):
        if command == RATES:
            connection.send(measure_rates(context.placement))
        else:
            connection.send(loop.window())
            free_cached_memory(device)


def _ignore(*_: object) -> None:
    """Track nothing."""


if __name__ == "__main__":
    serve(run)
