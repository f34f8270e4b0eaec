"""Parts that backends with CUDA graphs share."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from accl.kernels.triton.streams import on_common_stream, on_own_stream
from accl.training.context import TrainingContext
from accl.training.device import exclusive_randomness, step_seed

# Memory of a device that runs which share a process leave free, as a share: what others of them ask for meanwhile.
LEFT_FREE = 0.25


class GraphRecorder:
    """Recorder of the CUDA graphs of one run, with a stream, memory and a generator state of the run's own.

    A graph draws random numbers by the generator state that was the device's default while it was captured. That state
    belongs to this run alone, so that seeding and replaying disturb no other run of the process, and wait for none.

    Attributes:
        stream: the stream that graphs are captured on. Its priority is higher than that of streams beside it, which
            yield to it; recorders alone have such streams, so that no two runs work with cuBLAS on the same.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream: torch.cuda.Stream = torch.cuda.Stream(device, priority=-1)
        self._memory = torch.cuda.graph_pool_handle()
        self._is_shared = on_own_stream()
        self._default = torch.cuda.default_generators[device.index or 0]
        with exclusive_randomness():
            self._state = self._default.clone_state()

    def seed(self, seed: int, step: int) -> int:
        """Seed the random numbers of the next replay by (seed, step), and return their seed."""
        number = step_seed(seed, step)
        self._state.manual_seed(number)
        return number

    @contextmanager
    def rehearsing(self) -> Iterator[None]:
        """Launch the body's kernels one by one, random numbers from the recorder's state, and wait for their end.

        They run on the common stream, whose memory is there for rehearsals and evaluations of all runs of the process.
        """
        with self._drawing():
            with on_common_stream(self.stream.device) as stream:
                yield
            stream.synchronize()
            self._release_memory()

    @contextmanager
    def capturing(self) -> Iterator[torch.cuda.CUDAGraph]:
        """Capture the body's kernels in a graph. Graphs of a recorder share memory: replay one after the other."""
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        # In a process one capture at a time; whatever else other threads do goes on meanwhile.
        with self._drawing(), _without_collection():
            # A capture resets the seed on the device, which steps that were replayed before may still have to read.
            self.stream.wait_stream(current)
            with torch.cuda.stream(self.stream):
                graph.capture_begin(pool=self._memory, capture_error_mode="thread_local")
                try:
                    yield graph
                finally:
                    graph.capture_end()
            current.wait_stream(self.stream)

    def settle(self) -> None:
        """Wait for the device after a capture that failed; a capture of another thread would be broken by that too."""
        with exclusive_randomness():
            torch.cuda.synchronize()

    def _release_memory(self) -> None:
        """Give back what a rehearsal took: graphs have memory of their own. No capture of another thread is under way.

        Each piece that is given back waits for all work on the device, which other runs of the process keep busy. So
        among those it stays on the common stream for whoever has use for it, until memory gets scarce.
        """
        if self._is_shared:
            free, total = torch.cuda.mem_get_info(self.stream.device)
            if free > LEFT_FREE * total:
                return
        torch.cuda.empty_cache()

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        with exclusive_randomness():
            before = self._default.graphsafe_get_state()
            self._default.graphsafe_set_state(self._state)
            try:
                yield
            finally:
                self._default.graphsafe_set_state(before)


@contextmanager
def _without_collection() -> Iterator[None]:
    """Take nothing apart meanwhile: what is left of another run may hold graphs and events."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextmanager
def preserve_state(context: TrainingContext) -> Iterator[None]:
    """Undo on exit what happens to curriculum and memory bank inside: for the rehearsal of a step."""
    modules = [context.curriculum.state, *([] if context.bank is None else [context.bank])]
    before = [{name: value.clone() for name, value in module.state_dict().items()} for module in modules]
    try:
        yield
    finally:
        for module, values in zip(modules, before, strict=True):
            module.load_state_dict(values)
