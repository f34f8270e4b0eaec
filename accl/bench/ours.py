"""accl as a contestant: the steps of the training loop, without evaluations, records and checkpoints."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from accl.bench.floor import measure_rates, synchronise
from accl.bench.process import RATES, WINDOW, Entry, Parent, Ready, Window
from accl.bench.work import Shape, lengths_of, live_parameters, shape_of
from accl.data.sampler import Draw
from accl.training.backends.select import StepPath, choose
from accl.training.device import make_repeatable
from accl.training.optim import learning_rate
from accl.training.outbox import Outbox
from accl.training.setup import Workbench, build, make_sampler

# How often the training loop lets waiting figures leave the device.
FIGURES_EVERY = 50


class Course:
    """The steps of a window: always the same ones, on the same questions, so that windows and contestants compare.

    They begin where a run has left its warm-up behind and the memory bank is open.
    """

    def __init__(self, bench: Workbench, steps: int) -> None:
        self.bench, self.steps = bench, steps
        self.first = bench.bank_start + 1
        self._sampler = bench.sampler.state()
        self._weights = bench.curriculum.weights.copy()

    def start(self) -> None:
        """Back to the first step."""
        self.bench.sampler.restore(self._sampler)
        self.bench.curriculum.weights[:] = self._weights

    def draws(self) -> list[Draw]:
        """The questions of a window under the weights at its start."""
        self.start()
        return [self.bench.sampler.draw(self.first + i, self._weights) for i in range(self.steps)]


class Loop:
    """What the training loop does in its steps."""

    def __init__(self, bench: Workbench, path: StepPath, course: Course) -> None:
        self.bench, self.path, self.course = bench, path, course
        self.outbox = Outbox(bench.placement.device)

    def run(self, steps: int) -> list[Draw]:
        """Take the first ``steps`` steps of the course; returns what was drawn."""
        bench = self.bench
        drawn: list[Draw] = []
        pending: list[Tensor] = []
        bench.model.train()
        for step in range(self.course.first, self.course.first + steps):
            draw = bench.sampler.draw(step, bench.curriculum.weights)
            pending.append(self.path.step(step, draw, learning_rate(bench.config.optim, step, bench.total_steps)))
            drawn.append(draw)
            if len(pending) == FIGURES_EVERY:
                pending = self._send(pending)
            self.outbox.deliver()
            if bench.curriculum.should_update(step):
                bench.curriculum.update(step)
        self._send(pending)
        self.outbox.drain()
        return drawn

    def _send(self, pending: list[Tensor]) -> list[Tensor]:
        if pending:
            self.outbox.send(torch.stack(pending), lambda figures: figures.tolist())
        return []

    def window(self, shape: Shape) -> Window:
        """Time all steps of the course."""
        device = self.bench.placement.device
        self.course.start()
        reset_memory(device)
        began = time.monotonic()
        drawn = self.run(self.course.steps)
        synchronise(device)
        ended = time.monotonic()
        memory = memory_used(device)
        return counted(shape, began, ended, memory, drawn, lengths_of(self.bench.assembler, drawn))


def counted(
    shape: Shape,
    began: float,
    ended: float,
    memory: tuple[int, int | None],
    draws: list[Draw],
    lengths_N: NDArray[np.int64],
    **facts: Any,
) -> Window:
    """A window with what was done in it."""
    questions = sum(len(draw.questions) for draw in draws)
    flops = shape.flops(lengths_N, questions, len(draws))
    return Window(began, ended, len(draws), questions, int(lengths_N.sum()), flops, *memory, facts)


def reset_memory(device: torch.device) -> None:
    """Wait for the device, and count its memory from here."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)


def memory_used(device: torch.device) -> tuple[int, int | None]:
    """Bytes held, and of tensors; see `accl.bench.process.Window`."""
    if device.type == "cuda":
        # A captured graph's tensors are allocated when it is captured, not when it runs: only what is held shows them.
        return torch.cuda.max_memory_reserved(device), torch.cuda.max_memory_allocated(device)
    return int(psutil.Process().memory_info().rss), None


def make_room(device: torch.device) -> None:
    """Give cached GPU memory back where the contestants would not all fit otherwise."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        if free < total / 2:
            torch.cuda.empty_cache()


def prepare(entry: Entry, parent: Parent) -> tuple[Workbench, Course]:
    """The workbench of an entry, built as a training process builds it."""
    make_repeatable(entry.config.train.seed, entry.config.train.deterministic)
    bench = build(entry.config, parent.say)
    if entry.min_tokens:
        keep_long(bench, entry.min_tokens)
    return bench, Course(bench, entry.steps)


def keep_long(bench: Workbench, tokens: int) -> None:
    """Leave training questions that are shorter out of the draws."""
    train = bench.positions["train"]
    long = train[bench.assembler.lengths(train) >= tokens]
    bench.positions = {**bench.positions, "train": long}
    bench.sampler = make_sampler(bench.config, bench.blob, bench.positions, bench.tasks, bench.steps_per_epoch)


def facts_of(bench: Workbench, shape: Shape) -> dict[str, Any]:
    """What the report says of a contestant's model and device."""
    return {
        "model": bench.facts["model"]["description"],
        "parameters": bench.facts["model"]["parameters"],
        "trained_parameters": shape.parameters,
        "live_parameters": live_parameters(bench, shape),
        "device": bench.facts["device"],
    }


def run(entry: Entry, parent: Parent) -> None:
    """The process of accl as a contestant."""
    bench, course = prepare(entry, parent)
    if not entry.tracking:
        # On the instance, so that the path, which knows nothing of benches, calls these instead.
        vars(bench.curriculum).update(observe=_forget, update=_forget)
    shape = shape_of(bench)
    parent.say("warming up")
    began = time.monotonic()
    # A path may keep the device's cores for itself.
    threads = torch.get_num_threads()
    path, reason = choose(bench, lambda done, of: parent.say(f"warming up {done}/{of}"))
    parent.say(f"on the {path.name} path" + (f" ({reason})" if reason else ""))
    loop = Loop(bench, path, course)
    course.start()
    # The whole course at least: a length that had no graph yet gets it here.
    warmup = max(entry.warmup, entry.steps)
    loop.run(warmup)
    synchronise(bench.placement.device)
    parent.send(Ready({**facts_of(bench, shape), "path": path.name, "why": reason}, warmup, time.monotonic() - began))
    while (command := parent.command()) in (WINDOW, RATES):
        if command == RATES:
            own = torch.get_num_threads()
            torch.set_num_threads(threads)
            parent.send(measure_rates(bench.placement))
            torch.set_num_threads(own)
        else:
            parent.send(loop.window(shape))
            make_room(bench.placement.device)


def _forget(*_: object) -> None:
    """Watch nothing."""
