"""The backend for encoders on a GPU: packed sequences, Triton kernels, and the whole step as one CUDA graph.

Questions lie end to end in a stream whose length is rounded up to one of a few, and each length has its graph: from the
tokens, which stay on the device, to the update. A step costs the host one copy of a few hundred numbers and one launch,
and nothing in it waits for the device. `accl.training.backends.packed_encoder` has the encoders that can be computed
so, and `accl/kernels/README.md` tells which stream computes what.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from triton.errors import TritonError

from accl.data.packed import Packed, Packer
from accl.errors import first_line
from accl.kernels.triton.attention import PackedSequences
from accl.kernels.triton.compiling import compile_concurrently
from accl.kernels.triton.deferred import DeferredRows
from accl.kernels.triton.embedding import WordEmbedding, mean_pool, mean_pool_backward
from accl.kernels.triton.flat import FlatAdamW, FlatParameters
from accl.kernels.triton.pointwise import pack_tokens
from accl.kernels.triton.rel_scores import most_of_residue
from accl.kernels.triton.streams import SideStream, on_own_stream
from accl.method.model import ModelOutput
from accl.training.backends.backend import StepMetrics, UnavailableError
from accl.training.backends.capture import GraphRecorder, preserve_state
from accl.training.backends.inputs import NUM_SHARED_STAGING_BUFFERS, NUM_STAGING_BUFFERS, StepInputs
from accl.training.backends.packed_encoder import family_of
from accl.training.context import TrainingContext
from accl.training.optim import decayed, learning_rate
from accl.training.step import compute_losses, step_metrics, update_trackers

# Stream lengths are multiples of so many tokens.
LENGTH_MULTIPLE = 128
# The relative distances of a stream are taken to be at least so many, and else a power of two.
LEAST_DISTANCE = 256
# Batches drawn in advance to see which kernels will be needed.
SAMPLED_DRAWS = 64

# Sections of the flat parameters. Weight decay applies to the first two; the backward pass writes the gradients of the
# layers' matrices, and adds to all others.
HEAD_MATRICES, LAYER_MATRICES, LAYER_VECTORS, HEAD_VECTORS, WORDS = range(5)
# Tokens of a stream, and the relative distance that none of its sequences exceeds: a step is captured for each.
Size = tuple[int, int]


@dataclass(frozen=True)
class _CapturedStep:
    graph: torch.cuda.CUDAGraph
    names: list[str]
    values: Tensor


class PackedBackend:
    """Replays captured steps over packed sequences; see `accl.training.backends.backend.StepBackend`."""

    name = "packed"

    def __init__(self, context: TrainingContext) -> None:
        self.context = context
        model, config, device = context.model, context.config, context.placement.device
        self._packer = Packer(context.assembler)
        self._tokens = torch.from_numpy(self._packer.tokens).to(device)
        ahead = NUM_SHARED_STAGING_BUFFERS if on_own_stream() else NUM_STAGING_BUFFERS
        self._inputs = self._make_inputs(context.questions_per_step, ahead)

        encoder: Any = model.encoder
        family = family_of(encoder)
        assert family is not None, "no family computes this encoder"
        self._embedding: nn.Parameter = encoder.get_input_embeddings().weight
        self._used = torch.from_numpy(context.assembler.used_tokens()).to(device)
        words = nn.Parameter(self._embedding.detach()[self._used])
        matrices, vectors = list(family.written_matrices(encoder)), list(family.layer_vectors(encoder))
        elsewhere = {id(parameter) for parameter in (*matrices, *vectors, self._embedding)}
        if config.loss.contrastive_weight == 0:  # its head gets no gradient, and AdamW would decay it
            elsewhere |= {id(parameter) for parameter in model.contrastive_head.parameters()}
        heads = [(p, decays) for p, decays in decayed(model) if id(p) not in elsewhere]
        head_matrices, head_vectors = [p for p, decays in heads if decays], [p for p, decays in heads if not decays]
        self._flat = flat = FlatParameters([head_matrices, matrices, vectors, head_vectors, [words]])
        learnt = {id(parameter) for parameter in flat.parameters}
        self._parameters = {
            name: words if p is self._embedding else p
            for name, p in model.named_parameters()
            if id(p) in learnt or p is self._embedding
        }
        self._adamw = FlatAdamW(
            flat,
            decayed=LAYER_VECTORS,
            updated=WORDS,
            weight_decay=config.optim.weight_decay,
            max_norm=config.optim.max_grad_norm,
            rates=self._inputs.rates,
        )
        # The layers' weights in the type of the computation, made anew at each pass.
        first, end = flat.bounds[LAYER_MATRICES], flat.bounds[HEAD_VECTORS]
        self._layer_values = flat.values[first:end]
        self._layer_weights = self._layer_values.to(context.placement.autocast or torch.float32)
        row_V = torch.full((len(self._embedding),), -1, dtype=torch.long, device=device)
        row_V[self._used] = torch.arange(len(self._used), device=device)
        self._words = WordEmbedding(row_V, flat.view(flat.values, words), flat.view(flat.gradients, words))
        moments = (flat.view(self._adamw.exp_avg, words), flat.view(self._adamw.exp_avg_sq, words))
        self._word_updates = DeferredRows(self._words, *moments, self._adamw.params)
        self._encoder = family.make(encoder, self._words, flat, self._layer_weights, first)
        self._steps_done = 0
        self._captured: dict[Size, _CapturedStep] = {}
        self._recorder = GraphRecorder(device)
        self._tracker_stream = SideStream(device)

    def prepare(self, progress: Callable[[int, int], None]) -> None:
        """Compile the kernels, and capture a size for each; the others are captured when they first come.

        Graphs share memory, so the largest sizes come first.
        """
        sizes = self._first_sizes()
        for done, size in enumerate(sizes):
            progress(done, len(sizes))
            try:
                self._step_for(size)
            except torch.cuda.OutOfMemoryError:
                raise
            except (RuntimeError, TritonError) as error:
                self._recorder.settle()
                # A broken pass leaves gradients behind.
                self.context.model.zero_grad(set_to_none=True)
                what = f"the packed step cannot be compiled or captured ({first_line(error)})"
                raise UnavailableError(what) from error
        progress(len(sizes), len(sizes))

    def step(self, step: int) -> StepMetrics:
        context, config = self.context, self.context.config
        draw = context.sampler.draw(step, context.curriculum.weights)
        packed = self._packer.pack(draw.questions, draw.option_order)
        captured = self._step_for(self._size(packed))
        seed = self._recorder.seed(config.train.seed, step)  # after a capture, whose rehearsal draws random numbers
        lr = learning_rate(config.optim, step, context.total_steps)
        self._inputs.send(packed, seed, self._adamw.params.rates_of(step, lr))
        context.enable_bank(step)
        captured.graph.replay()
        self._steps_done = step
        return StepMetrics(captured.names, captured.values.clone())

    @torch.no_grad()
    def forward(self, questions: NDArray[np.int64]) -> ModelOutput:
        packed = self._packer.pack(questions)
        inputs = self._make_inputs(len(questions), 1)
        inputs.send(packed, 0, (0.0, 0.0, 0.0))
        size = self._size(packed)
        self._word_updates.flush()
        self._layer_weights.copy_(self._layer_values)
        hidden_TD = self._encoder.infer(*self._sequences(inputs, size), size[1])
        pooled_ND = mean_pool(hidden_TD, inputs.cu_seqlens, self._packer.segments, inputs.inverse_perm)
        with self.context.placement.autocasting():
            return self.context.model.heads(pooled_ND, inputs.labels.task_B)

    def optimizer_state(self) -> dict[str, Tensor]:
        self._word_updates.flush()
        with torch.no_grad():
            self._embedding[self._used] = self._words.values
        state: dict[str, Tensor] = {}
        for name, parameter in self._parameters.items():
            state[f"step.{name}"] = torch.tensor(float(self._steps_done))
            state[f"exp_avg.{name}"] = self._flat.view(self._adamw.exp_avg, parameter)
            state[f"exp_avg_sq.{name}"] = self._flat.view(self._adamw.exp_avg_sq, parameter)
            if parameter.shape != self.context.model.get_parameter(name).shape:
                state[f"rows.{name}"] = self._used
        return state

    def load_optimizer_state(self, state: Mapping[str, Tensor]) -> None:
        self._word_updates.flush()
        for name, parameter in self._parameters.items():
            for key, flat in (("exp_avg", self._adamw.exp_avg), ("exp_avg_sq", self._adamw.exp_avg_sq)):
                value = state[f"{key}.{name}"]
                own = self._flat.view(flat, parameter)
                own.copy_(value if value.shape == own.shape else value[self._used.to(value.device)])
            self._steps_done = int(state[f"step.{name}"])

    def sync_weights(self) -> None:
        self._word_updates.flush()
        self._words.values.copy_(self._embedding.detach()[self._used])

    # Inputs ----------------------------------------------------------------------------------------

    def _make_inputs(self, questions: int, ahead: int) -> StepInputs:
        sequences = questions * self._packer.sequences_per_question
        return StepInputs(questions, sequences, self._packer.segments, self.context.placement.device, ahead)

    def _first_sizes(self) -> list[Size]:
        """Return the largest size of each kernel variant in some batches, drawn as the sampler does at first."""
        largest: dict[tuple[int, int], Size] = {}
        sampler, weights = self.context.sampler.clone(), self.context.curriculum.weights
        for step in range(1, SAMPLED_DRAWS + 1):
            draw = sampler.draw(step, weights)
            size = self._size(self._packer.pack(draw.questions, draw.option_order))
            largest[_kernel_variant(size)] = max(size, largest.get(_kernel_variant(size), size))
        return sorted(largest.values(), reverse=True)

    def _size(self, packed: Packed) -> Size:
        return stream_length(packed.total), max(LEAST_DISTANCE, 1 << (packed.longest - 1).bit_length())

    def _sequences(self, inputs: StepInputs, size: Size) -> tuple[Tensor, PackedSequences]:
        """Return the stream's token ids, T, and the sequences that they belong to."""
        ids, start, end = (torch.empty(size[0], dtype=torch.int32, device=inputs.device) for _ in range(3))
        pad = self.context.assembler.cls_id
        pack_tokens(inputs.source, inputs.cu_seqlens, self._tokens, self._packer.segments, pad, (ids, start, end))
        return ids, PackedSequences(start, end, inputs.seed)

    # The step on the device ------------------------------------------------------------------------

    def _learn(self, size: Size) -> dict[str, Tensor]:
        """Do what `accl.training.step.learn` does, with the encoder's forward and backward pass in Triton."""
        context, inputs, flat = self.context, self._inputs, self._flat
        for first, end in ((HEAD_MATRICES, LAYER_MATRICES), (LAYER_VECTORS, WORDS)):
            flat.gradients[flat.bounds[first] : flat.bounds[end]].zero_()
        self._layer_weights.copy_(self._layer_values)
        ids_T, sequences = self._sequences(inputs, size)
        self._word_updates.catch_up(ids_T)
        hidden_TD, cache = self._encoder.forward(ids_T, sequences, size[1])
        segments = self._packer.segments
        pooled_ND = mean_pool(hidden_TD, inputs.cu_seqlens, segments, inputs.inverse_perm).requires_grad_()
        losses = compute_losses(context, pooled_ND, inputs.labels)
        losses.total.backward()
        assert pooled_ND.grad is not None
        # Many small kernels that nothing in this step waits for, beside the encoder's backward pass.
        with self._tracker_stream.on_stream():
            update_trackers(context, losses.output, inputs.labels)
            metrics = step_metrics(losses, inputs.labels, self._adamw.params.norm)
        dhidden_TD = torch.zeros_like(hidden_TD)
        mean_pool_backward(pooled_ND.grad, inputs.cu_seqlens, segments, inputs.inverse_perm, size[1], dhidden_TD)
        self._encoder.backward(dhidden_TD, cache)
        metrics["grad_norm"] = self._adamw.step(self._word_updates.square_sums())
        self._word_updates.record()
        self._tracker_stream.join()
        return metrics

    def _step_for(self, size: Size) -> _CapturedStep:
        if size not in self._captured:
            self._captured[size] = self._capture(size)
        return self._captured[size]

    def _capture(self, size: Size) -> _CapturedStep:
        self._encoder.prepare(size[1])
        if _kernel_variant(size) not in {_kernel_variant(other) for other in self._captured}:
            self._rehearse(size)
        with self._recorder.capturing() as graph:
            metrics = self._learn(size)
            values = torch.stack(list(metrics.values()))
        return _CapturedStep(graph, list(metrics), values)

    def _rehearse(self, size: Size) -> None:
        """Take a step or two without effect: kernels are compiled at their first launch, which must not be captured.

        Their inputs have no sequences, padding alone: those of the last step may not fit. The rate is 0, so weights
        stay; moments are put back, and the weights as well: an update by what `_compile` leaves undefined is none.
        """
        with preserve_state(self.context), self._recorder.rehearsing():
            self._word_updates.flush()
            kept = [(each, each.clone()) for each in (self._flat.values, self._adamw.exp_avg, self._adamw.exp_avg_sq)]
            self._inputs.clear()
            left_out = self._compile(size)
            self._word_updates.flush()
            for tensor, before in kept:
                tensor.copy_(before)
            if left_out:
                self._learn(size)
                self._word_updates.flush()
                for tensor, before in kept:
                    tensor.copy_(before)

    def _compile(self, size: Size) -> bool:
        """Compile what a step and an evaluation launch, several kernels at a time; see `compile_concurrently`.

        Returns:
            whether launches were left out; not where all was compiled before, as by another run of the process.
        """
        with compile_concurrently(launch=("_pack_tokens",)) as left_out:
            self._learn(size)
            self._encoder.infer(*self._sequences(self._inputs, size), size[1])
        return bool(left_out)


def _kernel_variant(size: Size) -> tuple[int, int]:
    """Return what kernels are compiled for."""
    tokens, max_distance = size
    return max_distance, most_of_residue(tokens)


def stream_length(tokens: int) -> int:
    """Return the length that a stream of so many tokens is rounded up to.

    That is up to 128 more, an eighth of 1,024 tokens and more, and a sixteenth of 4,096 and more: capturing a length
    takes as long as a few hundred steps of small streams lose by padding, and fewer of large ones.
    """
    power_of_two = 1 << max(tokens, 1).bit_length() - 1
    step = max(LENGTH_MULTIPLE, min(power_of_two // 8, 256), power_of_two // 32)
    return -(-max(tokens, 1) // step) * step
