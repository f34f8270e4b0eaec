"""``python -m accl.bench.loop``: the worker that times accl's training loop.

It takes the loop's steps without evaluations, records and checkpoints.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from accl.bench.device import WindowTimer, free_cached_memory, measure_rates, synchronise
from accl.bench.protocol import RATES, WINDOW, Candidate, MeasuredWindow, Ready
from accl.bench.schedule import Schedule, describe, prepare
from accl.bench.work import Shape, lengths_of, shape_of
from accl.bench.worker import Parent, serve
from accl.data.sampler import Draw
from accl.training.backends.select import StepPath, choose
from accl.training.optim import learning_rate
from accl.training.outbox import Outbox

# Steps after which the training loop sends the metrics that wait on the device.
METRICS_EVERY = 50


class Loop:
    """The training loop's steps.

    Args:
        schedule: the steps, and the model and data they use.
        backend: computes a step.
    """

    def __init__(self, schedule: Schedule, backend: StepPath) -> None:
        self.schedule, self.backend, self.bench = schedule, backend, schedule.bench
        self.outbox = Outbox(self.bench.placement.device)

    def run(self, steps: int) -> list[Draw]:
        """Take the first ``steps`` steps of the schedule; returns their draws."""
        bench, first = self.bench, self.schedule.first
        draws: list[Draw] = []
        pending: list[Tensor] = []
        bench.model.train()
        for step in range(first, first + steps):
            draw = bench.sampler.draw(step, bench.curriculum.weights)
            pending.append(self.backend.step(step, draw, learning_rate(bench.config.optim, step, bench.total_steps)))
            draws.append(draw)
            if len(pending) == METRICS_EVERY:
                self._send(pending)
            self.outbox.deliver()
            if bench.curriculum.due(step):
                bench.curriculum.update(step)
        self._send(pending)
        self.outbox.drain()
        return draws

    def _send(self, pending: list[Tensor]) -> None:
        if pending:
            self.outbox.send(torch.stack(pending), lambda metrics: metrics.tolist())
            pending.clear()

    def window(self, shape: Shape) -> MeasuredWindow:
        """Time all steps of the schedule."""
        self.schedule.restart()
        timer = WindowTimer(self.bench.placement.device)
        draws = self.run(self.schedule.steps)
        timer.stop()
        return timer.window(shape, draws, lengths_of(self.bench.assembler, draws))


def run(candidate: Candidate, parent: Parent) -> None:
    """Prepare accl's loop, warm it up, and obey the parent's commands."""
    schedule = prepare(candidate, parent)
    bench = schedule.bench
    device = bench.placement.device
    if not candidate.tracking:
        # On the instance, so that the backend, which knows nothing of benches, calls these instead.
        vars(bench.curriculum).update(observe=_ignore, update=_ignore)
    shape = shape_of(bench)
    parent.say("warming up")
    began = time.monotonic()
    # A backend may keep the device's cores for itself.
    threads = torch.get_num_threads()
    backend, reason = choose(bench, lambda done, of: parent.say(f"warming up {done}/{of}"))
    parent.say(f"on the {backend.name} path" + (f" ({reason})" if reason else ""))
    loop = Loop(schedule, backend)
    # The whole schedule at least: a length that had no graph yet gets it here.
    warmup = max(candidate.warmup, candidate.steps)
    schedule.restart()
    loop.run(warmup)
    synchronise(device)
    description = {**describe(bench, shape), "path": backend.name, "why": reason}
    parent.send(Ready(description, warmup, time.monotonic() - began))
    while (command := parent.command()) in (WINDOW, RATES):
        if command == RATES:
            own = torch.get_num_threads()
            torch.set_num_threads(threads)
            parent.send(measure_rates(bench.placement))
            torch.set_num_threads(own)
        else:
            parent.send(loop.window(shape))
            free_cached_memory(device)


def _ignore(*_: object) -> None:
    """Track nothing."""


if __name__ == "__main__":
    serve(run)
