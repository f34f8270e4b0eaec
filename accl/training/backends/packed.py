"""The fast path for DeBERTa-v2 and -v3 on a GPU: packed sequences, and the whole step as one CUDA graph.

Questions lie end to end in a stream whose length is rounded up to one of a few, and each length has its graph: from the
tokens, which stay on the device, to gradients, whose update is done beside the next step's forward pass. A step costs
the host one copy of a few hundred numbers and one launch, and nothing in it waits for the device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from accl.data.packed import Packed, Packer
from accl.data.sampler import Draw
from accl.kernels.triton.adamw import square_sums
from accl.kernels.triton.aside import Aside
from accl.kernels.triton.attention import Stream
from accl.kernels.triton.deberta import FastDeberta
from accl.kernels.triton.embedding import means, means_backward
from accl.kernels.triton.flat import NOTHING, FlatAdamW, FlatParameters
from accl.kernels.triton.overdue import MATRICES, VECTORS, WORDS, Overdue
from accl.kernels.triton.parameters import matrices, vectors
from accl.kernels.triton.pointwise import unpack
from accl.kernels.triton.tables import part_of
from accl.method.model import ModelOutput
from accl.training.backends.heads import enable_bank, judge, undone, watch
from accl.training.backends.inputs import Inputs
from accl.training.device import seed_step
from accl.training.optim import decays
from accl.training.setup import Workbench

# Lengths of a stream come in steps of at least so many tokens, and of an eighth of the power of two below.
STEP_TOKENS = 128
# Sequences are taken to be at least so long, and else a power of two.
REACH = 256
# Batches drawn to see which sizes will come, and the share of them from which one is captured ahead.
DRAWS, WORTH = 512, 0.004

# Tokens of a stream, and the reach of its longest sequence: what a captured step is made for.
Size = tuple[int, int]


class FastPath:
    """Optimizer steps by CUDA graphs; see `accl.training.backends.reference.EagerPath` for what a path does."""

    name = "packed"

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        model, config, device = bench.model, bench.config, bench.placement.device
        self._packer = Packer(bench.assembler)
        self._tokens = torch.from_numpy(self._packer.tokens).to(device)
        size = config.train.batch_size + bench.sampler.auxiliary_questions
        self._inputs = self._room(size)

        encoder: Any = model.encoder
        inner, small = list(matrices(encoder)), list(vectors(encoder))
        words: list[nn.Parameter] = [encoder.embeddings.word_embeddings.weight]
        known = {id(parameter) for parameter in (*inner, *small, *words)}
        # A loss without the contrastive term never reaches its head, which then stays as it is.
        idle = set() if config.loss.contrastive_weight > 0 else {id(p) for p in model.contrastive_head.parameters()}
        others = [(p, decay) for p, decay in decays(model) if id(p) not in known | idle]
        # In the order of `accl.kernels.triton.overdue`.
        sections = [[p for p, decay in others if decay], inner, small, [p for p, decay in others if not decay], words]
        self._flat = flat = FlatParameters(sections)
        # Whole pieces of what `Overdue` updates at a time, though nobody reads what lies behind the vectors.
        first, end = flat.bounds[MATRICES], flat.bounds[WORDS]
        computed = bench.placement.autocast or torch.float32
        narrow = flat.values[first:end] if computed == torch.float32 else flat.values[first:end].to(computed)
        self._adamw = FlatAdamW(
            flat,
            decayed=VECTORS,
            weight_decay=config.optim.weight_decay,
            max_norm=config.optim.max_grad_norm,
            narrow=None if computed == torch.float32 else narrow,
            narrow_section=MATRICES,
            rates=self._inputs.rates,
        )
        self.optimizer: torch.optim.Optimizer = self._adamw
        self._encoder = FastDeberta(model.encoder, flat, self._adamw, narrow, first)
        self._graphs: dict[Size, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._pool = torch.cuda.graph_pool_handle()
        # What nothing waits for gives way to the rest.
        self._main = torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]
        self._side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # Once for all graphs: torch has few streams, and cuBLAS keeps memory for each that it has seen.
        self._aside = Aside(device)
        self._overdue = Overdue(self._adamw, flat, encoder.config.num_hidden_layers, self._side)

    def warm_up(self, progress: Callable[[int, int], None]) -> None:
        """Compile, and capture the sizes that will come; before weights or moments of a checkpoint are loaded.

        Args:
            progress: told how many sizes are done, and of how many.
        """
        sizes = self._likely_sizes()
        for done, size in enumerate(sizes):
            progress(done, len(sizes))
            self._graph(size)
        progress(len(sizes), len(sizes))
        torch.cuda.synchronize()

    def settle(self) -> None:
        """Do the update that the last step left to the next one; before weights or moments are looked at."""
        self._adamw.settle()

    def refresh(self) -> None:
        """Take note of weights that were put into the model."""
        self._adamw.refresh()

    def step(self, step: int, draw: Draw, rate: float) -> Tensor:
        """One optimizer step; as in `EagerPath.step`, but its update is done by the next one, or by `settle`."""
        packed = self._packer.pack(draw.questions, draw.option_order)
        graph, figures = self._graph(self._size(packed))
        # After a capture, whose rehearsal draws random numbers.
        seed = seed_step(self.bench.config.train.seed, step, self.bench.placement.device)
        self._inputs.send(packed, seed, self._adamw.owed)
        enable_bank(self.bench, step)
        graph.replay()
        self._adamw.owe(step, rate)
        return figures.clone()

    def forward(self, questions: NDArray[np.int64]) -> ModelOutput:
        """As in `EagerPath.forward`."""
        self.settle()
        packed = self._packer.pack(questions)
        inputs = self._room(len(questions))
        inputs.send(packed, 0, NOTHING)
        size = self._size(packed)
        hidden_TD = self._encoder.infer(*self._stream(inputs, size), size[1])
        pooled_ND = means(hidden_TD, inputs.cu_seqlens, self._packer.segments, inputs.inverse_perm)
        with self.bench.placement.autocasting():
            return self.bench.model.heads(pooled_ND, inputs.labels.task_B)

    def _room(self, questions: int) -> Inputs:
        sequences = questions * self._packer.sequences_per_question
        return Inputs(questions, sequences, self._packer.segments, self.bench.placement.device)

    def _likely_sizes(self) -> list[Size]:
        """Sizes, largest first, that a share of batches worth it has; by drawing as the sampler does at first."""
        found: Counter[Size] = Counter()
        sampler = self.bench.sampler.clone()
        for step in range(1, DRAWS + 1):
            draw = sampler.draw(step, self.bench.curriculum.weights)
            found[self._size(self._packer.pack(draw.questions, draw.option_order))] += 1
        return sorted((size for size, times in found.items() if times >= WORTH * DRAWS), reverse=True)

    def _size(self, packed: Packed) -> Size:
        longest = int(np.diff(packed.cu_seqlens[:: self._packer.segments]).max())
        return stream_length(packed.total), max(REACH, 1 << (longest - 1).bit_length())

    def _stream(self, inputs: Inputs, size: Size) -> tuple[Tensor, Stream]:
        """Token ids, and the sequences that they belong to."""
        ids, start, end = (torch.empty(size[0], dtype=torch.int32, device=inputs.device) for _ in range(3))
        pad = self.bench.assembler.cls_id
        unpack(inputs.source, inputs.cu_seqlens, self._tokens, self._packer.segments, pad, (ids, start, end))
        return ids, Stream(start, end, inputs.seed)

    def _work(self, size: Size) -> Tensor:
        """All of a step on the device: the update that is owed, gradients, and their norm; returns the figures."""
        inputs, segments = self._inputs, self._packer.segments
        hidden_TD, track = self._encoder.learn(*self._stream(inputs, size), size[1], self._overdue)
        pooled_ND = means(hidden_TD, inputs.cu_seqlens, segments, inputs.inverse_perm)
        judged = judge(self.bench, pooled_ND, inputs.labels, self._aside)
        norms = judged.backward(self._aside)
        main = torch.cuda.current_stream()
        # Beside the encoder's backward pass: many small kernels that nothing in this step waits for.
        self._side.wait_stream(main)
        with torch.cuda.stream(self._side):
            watch(self.bench, judged)
            figures = judged.figures(norms)
        dhidden_TD = torch.zeros_like(hidden_TD)
        assert judged.shared_ND.grad is not None
        means_backward(judged.shared_ND.grad, inputs.cu_seqlens, segments, inputs.inverse_perm, size[1], dhidden_TD)
        gradients = self._encoder.backward(dhidden_TD, track)
        words = square_sums(self._flat.section(self._flat.gradients, WORDS))
        gradients.join()
        norm = self._adamw.measure({MATRICES: gradients.squares, WORDS: [words]})
        main.wait_stream(self._side)
        return torch.cat([figures, norm.reshape(1)])

    def _graph(self, size: Size) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        if size not in self._graphs:
            self._graphs[size] = self._capture(size)
        return self._graphs[size]

    def _capture(self, size: Size) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        self.settle()
        self._encoder.prepare(size[1])
        if _variant(size) not in {_variant(known) for known in self._graphs}:
            self._compile(size)
        graph = torch.cuda.CUDAGraph()
        # Graphs run one after the other, so they can share their memory. Other threads may go on meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._main, capture_error_mode="thread_local"):
            figures = self._work(size)
        return graph, figures

    def _compile(self, size: Size) -> None:
        """Kernels are compiled and loaded at their first launch, which must not be a captured one."""
        with undone(self.bench):
            self._main.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._main):
                # No sequences, padding alone: those of the last step may not fit. And nothing is owed.
                self._inputs.clear()
                self._work(size)
                self._flat.gradients.zero_()
            torch.cuda.current_stream().wait_stream(self._main)
            torch.cuda.synchronize()


def _variant(size: Size) -> tuple[int, int]:
    """What kernels are compiled for."""
    tokens, reach = size
    return reach, part_of(tokens)


def stream_length(tokens: int) -> int:
    """The length that a stream of so many tokens is rounded up to: at most an eighth more, or 128."""
    step = max(STEP_TOKENS, (1 << max(tokens, 1).bit_length() - 1) // 8)
    return -(-max(tokens, 1) // step) * step
