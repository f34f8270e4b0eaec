"""The backend for any encoder on a GPU: the reference step, captured as one CUDA graph for each padded length.

Sequences are padded to one of a few lengths, so that shapes come again; a step then costs the host a few copies and one
launch instead of a thousand launches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from accl.errors import first_line
from accl.training.backends.backend import StepMetrics, UnavailableError
from accl.training.backends.capture import GraphRecorder, preserve_state
from accl.training.backends.mpnet import make_capturable
from accl.training.backends.reference import ReferenceBackend
from accl.training.context import TrainingContext
from accl.training.device import DeviceBatch, Labels
from accl.training.optim import learning_rate, make_optimizer, set_learning_rate
from accl.training.step import learn

# Sequences are padded to multiples of so many tokens.
LENGTH_MULTIPLE = 64


@dataclass(frozen=True)
class _CapturedStep:
    """A graph, the padded batch that it reads, and the metrics that it leaves: all at fixed addresses."""

    graph: torch.cuda.CUDAGraph
    batch: DeviceBatch
    names: list[str]
    values: Tensor


class CudaGraphBackend(ReferenceBackend):
    """Replays captured reference steps; see `accl.training.backends.backend.StepBackend`."""

    name = "cudagraph"

    def __init__(self, context: TrainingContext) -> None:
        super().__init__(context, make_optimizer(context.model, context.config.optim, capturable=True))
        self._captured: dict[int, _CapturedStep] = {}
        self._recorder = GraphRecorder(context.placement.device)

    def prepare(self, progress: Callable[[int, int], None]) -> None:
        """Capture every length up to the longest of the training questions."""
        context = self.context
        restore_encoder = make_capturable(context.model.encoder)
        longest = _padded(int(context.assembler.lengths(context.positions["train"]).max()))
        lengths = list(range(longest, 0, -LENGTH_MULTIPLE))
        for done, length in enumerate(lengths):
            progress(done, len(lengths))
            try:
                self._step_for(length)
            except RuntimeError as error:
                self._recorder.settle()
                context.model.zero_grad(set_to_none=True)  # a broken capture leaves gradients behind
                restore_encoder()
                what = f"the encoder cannot be captured in a CUDA graph ({first_line(error)})"
                raise UnavailableError(what) from error
        progress(len(lengths), len(lengths))

    def step(self, step: int) -> StepMetrics:
        context, config = self.context, self.context.config
        draw = context.sampler.draw(step, context.curriculum.weights)
        batch = context.assembler.batch(draw.questions, draw.option_order)
        ((ids, mask),) = batch.chunks
        captured = self._step_for(_padded(ids.shape[1]))
        ((ids_NL, mask_NL),) = captured.batch.chunks
        self._recorder.seed(config.train.seed, step)  # after a capture, whose rehearsal draws random numbers
        context.enable_bank(step)
        set_learning_rate(self.optimizer, learning_rate(config.optim, step, context.total_steps))
        padding = ((0, 0), (0, ids_NL.shape[1] - ids.shape[1]))
        _copy(ids_NL, np.pad(ids, padding, constant_values=context.assembler.pad_id))
        _copy(mask_NL, np.pad(mask, padding))
        labels = captured.batch.labels
        _copy(labels.task_B, batch.task)
        _copy(labels.answer_B, batch.answer)
        _copy(labels.text_id_B, batch.text_id)
        captured.graph.replay()
        return StepMetrics(captured.names, captured.values.clone())

    def _step_for(self, length: int) -> _CapturedStep:
        if length not in self._captured:
            self._captured[length] = self._capture(self._empty_batch(length))
        return self._captured[length]

    def _empty_batch(self, length: int) -> DeviceBatch:
        context, device = self.context, self.context.placement.device
        questions = context.questions_per_step
        labels = Labels(*(torch.zeros(questions, dtype=torch.long, device=device) for _ in range(3)))
        sequences = questions * context.model.sequences_per_question
        ids_NL = torch.full((sequences, length), context.assembler.pad_id, device=device)
        return DeviceBatch([(ids_NL, torch.ones_like(ids_NL))], torch.arange(sequences, device=device), labels)

    def _capture(self, batch: DeviceBatch) -> _CapturedStep:
        if not self._captured:
            self._rehearse(batch)
        with self._recorder.capturing() as graph:
            metrics = learn(self.context, self.optimizer, batch)
            values = torch.stack(list(metrics.values()))
        return _CapturedStep(graph, batch, list(metrics), values)

    def _rehearse(self, batch: DeviceBatch) -> None:
        """Take a step without effect: libraries prepare themselves at their first use, which must not be captured."""
        set_learning_rate(self.optimizer, 0.0)
        with preserve_state(self.context), self._recorder.rehearsing():
            learn(self.context, self.optimizer, batch)
        # At rate 0 the weights stay; the moments must not, nor their memory, which is that of a stream of all runs.
        for state in self.optimizer.state.values():
            for name, value in state.items():
                state[name] = torch.zeros_like(value)


def _padded(tokens: int) -> int:
    return -(-tokens // LENGTH_MULTIPLE) * LENGTH_MULTIPLE


def _copy(target: Tensor, array: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> None:
    target.copy_(torch.from_numpy(array), non_blocking=True)
