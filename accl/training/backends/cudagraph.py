"""The generic path for other encoders on a GPU: transformers' own layers, the whole step one CUDA graph per length.

Sequences are padded to one of a few lengths, so that shapes come again; a step then costs the host one copy and one
launch instead of a thousand launches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from accl.data.sampler import Draw
from accl.method.model import ModelOutput
from accl.training.backends.heads import Judged, enable_bank, judge, undone, watch
from accl.training.backends.reference import EagerPath
from accl.training.device import Labels, seed_step
from accl.training.optim import make_optimizer
from accl.training.setup import Workbench

# Sequences are padded to multiples of so many tokens.
STEP_TOKENS = 64


@dataclass(frozen=True)
class _Inputs:
    """A padded batch, always at the same place on the device: N x L ids and mask, and labels."""

    ids_NL: Tensor
    mask_NL: Tensor
    labels: Labels


class UncapturableError(Exception):
    """An encoder does something that a CUDA graph cannot hold, such as looking at values on the host."""


class GraphedPath:
    """Optimizer steps by CUDA graphs; see `accl.training.backends.reference.EagerPath` for what a path does."""

    name = "cudagraph"

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.optimizer = make_optimizer(bench.model, bench.config.optim, capturable=True)
        self._eager = EagerPath(bench, self.optimizer)
        self._rate: Tensor = self.optimizer.param_groups[0]["lr"]
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, _Inputs, Tensor]] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(bench.placement.device)  # type: ignore[no-untyped-call]

    def warm_up(self, progress: Callable[[int, int], None]) -> None:
        """Capture every length up to the longest of the training questions; before a checkpoint is loaded.

        Raises:
            UncapturableError: that is not possible with this encoder.
        """
        bench = self.bench
        generator = torch.cuda.default_generators[bench.placement.device.index or 0]
        untouched = generator.clone_state()
        longest = self._length(int(bench.assembler.lengths(bench.positions["train"]).max()))
        lengths = list(range(longest, 0, -STEP_TOKENS))
        for done, length in enumerate(lengths):
            progress(done, len(lengths))
            try:
                self._graph(length)
            except RuntimeError as error:
                torch.cuda.synchronize()
                # A capture that broke off leaves gradients of its own, and a generator that takes itself for captured.
                bench.model.zero_grad(set_to_none=True)
                generator.graphsafe_set_state(untouched)
                reason = str(error).splitlines()[0]
                raise UncapturableError(f"the encoder cannot be captured in a CUDA graph ({reason})") from error
        progress(len(lengths), len(lengths))
        torch.cuda.synchronize()

    def settle(self) -> None:
        """As in `EagerPath.settle`: nothing."""

    def refresh(self) -> None:
        """Nothing to do: graphs read the weights where they are."""

    def step(self, step: int, draw: Draw, rate: float) -> Tensor:
        """One optimizer step; as in `EagerPath.step`."""
        batch = self.bench.assembler.batch(draw.questions, draw.option_order)
        (ids, mask), *_ = batch.chunks
        graph, inputs, figures = self._graph(self._length(ids.shape[1]))
        seed_step(self.bench.config.train.seed, step, self.bench.placement.device)
        enable_bank(self.bench, step)
        self._rate.fill_(rate)
        for there, here in ((inputs.ids_NL, ids), (inputs.mask_NL, mask)):
            padding = ((0, 0), (0, there.shape[1] - here.shape[1]))
            value = self.bench.assembler.pad_id if there is inputs.ids_NL else 0
            there.copy_(torch.from_numpy(np.pad(here, padding, constant_values=value)), non_blocking=True)
        labels = inputs.labels
        for there, here in (
            (labels.task_B, batch.task),
            (labels.answer_B, batch.answer),
            (labels.text_id_B, batch.text_id),
        ):
            there.copy_(torch.from_numpy(here), non_blocking=True)
        graph.replay()
        return figures.clone()

    def forward(self, questions: NDArray[np.int64]) -> ModelOutput:
        """As in `EagerPath.forward`."""
        return self._eager.forward(questions)

    def _length(self, tokens: int) -> int:
        return -(-tokens // STEP_TOKENS) * STEP_TOKENS

    def _graph(self, length: int) -> tuple[torch.cuda.CUDAGraph, _Inputs, Tensor]:
        if length not in self._graphs:
            self._graphs[length] = self._capture(length)
        return self._graphs[length]

    def _gradients(self, inputs: _Inputs) -> tuple[Judged, Tensor]:
        bench = self.bench
        with bench.placement.autocasting():
            pooled_ND = bench.model.pool(inputs.ids_NL, inputs.mask_NL)
        judged = judge(bench, pooled_ND, inputs.labels)
        norms = judged.backward()
        torch.autograd.backward(pooled_ND, judged.shared_ND.grad)
        return judged, norms

    def _capture(self, length: int) -> tuple[torch.cuda.CUDAGraph, _Inputs, Tensor]:
        bench, device = self.bench, self.bench.placement.device
        size = bench.config.train.batch_size + bench.sampler.auxiliary_questions
        rows = size * bench.model.sequences_per_question
        labels = Labels(*(torch.zeros(size, dtype=torch.long, device=device) for _ in range(3)))
        ids_NL = torch.full((rows, length), bench.assembler.pad_id, device=device)
        inputs = _Inputs(ids_NL, torch.ones_like(ids_NL), labels)
        parameters = list(bench.model.parameters())
        if not self._graphs:
            # Libraries prepare themselves at their first use, which must not be a captured one. At rate 0, with
            # gradients of 0, the update changes nothing, and leaves moments of 0 behind.
            self._rate.zero_()
            with undone(bench):
                # What is to be undone is copied before, and put back after, all that happens on the other stream.
                self._stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(self._stream):
                    judged, norms = self._gradients(inputs)
                    watch(bench, judged)
                    judged.figures(norms)
                    for parameter in parameters:
                        if parameter.grad is not None:
                            parameter.grad.zero_()
                    self.optimizer.step()
                torch.cuda.current_stream().wait_stream(self._stream)
            for state in self.optimizer.state.values():
                state["step"].zero_()
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            judged, norms = self._gradients(inputs)
            norm = nn.utils.clip_grad_norm_(parameters, bench.config.optim.max_grad_norm)
            self.optimizer.step()
            watch(bench, judged)
            out = torch.cat([judged.figures(norms), norm.detach().float().reshape(1)])
        self.optimizer.zero_grad(set_to_none=True)
        return graph, inputs, out
