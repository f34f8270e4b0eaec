"""The weights of a layer that `accl.fast.row_layer` computes with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Floats that a gradient begins at a multiple of: 64 bytes, as memory of its own does.
ALIGNMENT = 16


@dataclass(frozen=True)
class Weights:
    """Parameters of a layer, or their gradients.

    ``inner`` are queries, keys and values, one below the other; ``position`` queries and keys of the position table,
    where they are not the first two thirds of ``inner``. ``norm``: gain and bias.

    Attributes:
        own_positions: whether the position table is projected with weights of its own.
    """

    inner_3ED: Tensor
    inner_3E: Tensor
    position_2ED: Tensor
    position_2E: Tensor
    own_positions: bool
    mix_DE: Tensor
    mix_D: Tensor
    norm1: tuple[Tensor, Tensor]
    up_FD: Tensor
    up_F: Tensor
    down_DF: Tensor
    down_D: Tensor
    norm2: tuple[Tensor, Tensor]

    @classmethod
    def joined(cls, own: Sequence[Tensor]) -> Weights:
        """From the tensors of a layer in the order of `parameters`."""
        *first, mix_DE, mix_D, gain1_D, bias1_D, up_FD, up_F, down_DF, down_D, gain2_D, bias2_D = own
        positions = [torch.cat(first[6:8]), torch.cat(first[8:10])] if len(first) > 6 else []
        matrices, vectors = [mix_DE, up_FD, down_DF], [mix_D, gain1_D, bias1_D, up_F, down_D, gain2_D, bias2_D]
        return cls._of(
            [torch.cat(first[0:3]), *positions[:1], *matrices], [torch.cat(first[3:6]), *positions[1:], *vectors]
        )

    @classmethod
    def _of(cls, matrices: Sequence[Tensor], vectors: Sequence[Tensor]) -> Weights:
        """From what `matrices` and `vectors` give."""
        inner_3ED, *position, mix_DE, up_FD, down_DF = matrices
        inner_3E, *positions, mix_D, gain1_D, bias1_D, up_F, down_D, gain2_D, bias2_D = vectors
        shared = len(inner_3E) // 3 * 2
        return cls(
            inner_3ED=inner_3ED,
            inner_3E=inner_3E,
            position_2ED=position[0] if position else inner_3ED[:shared],
            position_2E=positions[0] if positions else inner_3E[:shared],
            own_positions=bool(position),
            mix_DE=mix_DE,
            mix_D=mix_D,
            norm1=(gain1_D, bias1_D),
            up_FD=up_FD,
            up_F=up_F,
            down_DF=down_DF,
            down_D=down_D,
            norm2=(gain2_D, bias2_D),
        )

    @property
    def matrices(self) -> list[Tensor]:
        """All of two dimensions."""
        positions = [self.position_2ED] if self.own_positions else []
        return [self.inner_3ED, *positions, self.mix_DE, self.up_FD, self.down_DF]

    @property
    def vectors(self) -> list[Tensor]:
        """All of one."""
        positions = [self.position_2E] if self.own_positions else []
        return [self.inner_3E, *positions, self.mix_D, *self.norm1, self.up_F, self.down_D, *self.norm2]

    def parted(self) -> list[Tensor]:
        """The tensors of a layer in the order of `parameters`."""
        positions = [*self.position_2ED.chunk(2), *self.position_2E.chunk(2)] if self.own_positions else []
        return [
            *self.inner_3ED.chunk(3),
            *self.inner_3E.chunk(3),
            *positions,
            self.mix_DE,
            self.mix_D,
            *self.norm1,
            self.up_FD,
            self.up_F,
            self.down_DF,
            self.down_D,
            *self.norm2,
        ]


class Gradients:
    """Of the position table, the embedding's norm, and the weights of all layers, end to end in ``flat``: a thread has
    them for itself, and writes to them in every step.

    Args:
        table_RD, norm, weights: what they are gradients of.
    """

    def __init__(self, table_RD: Tensor, norm: tuple[Tensor, Tensor], weights: Sequence[Weights]) -> None:
        # What is added up from 0 on comes first; matrices, of which each is written once, are left as they are found.
        vectors = [table_RD, *norm, *(vector for of_layer in weights for vector in of_layer.vectors)]
        tensors = [*vectors, *(matrix for of_layer in weights for matrix in of_layer.matrices)]
        sizes = [size for tensor in tensors for size in (tensor.numel(), -tensor.numel() % ALIGNMENT)]
        self.flat = torch.empty(sum(sizes))
        self._added = self.flat[: sum(sizes[: 2 * len(vectors)])]
        parts = torch.split_with_sizes(self.flat, sizes)[::2]
        views = iter([part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)])
        self.table_RD = next(views)
        self.norm = (next(views), next(views))
        of_vectors = [[next(views) for _ in of_layer.vectors] for of_layer in weights]
        of_matrices = [[next(views) for _ in of_layer.matrices] for of_layer in weights]
        self.layers = [Weights._of(*both) for both in zip(of_matrices, of_vectors, strict=True)]
        parted = [*self.norm, *(tensor for of_layer in self.layers for tensor in of_layer.parted())]
        self.places = [tensor.storage_offset() for tensor in parted], [tensor.numel() for tensor in parted]
        """Where those of the norm and the weights begin, and how many elements they have, in the order of `parameters`,
        layer by layer."""

    def clear(self) -> None:
        """Before a step."""
        self._added.zero_()


def parameters(layer: Any) -> list[Tensor]:
    """Of a `DebertaV2Layer`."""
    attention, mix = layer.attention.self, layer.attention.output
    inner = [attention.query_proj, attention.key_proj, attention.value_proj]
    positions = [] if attention.share_att_key else [attention.pos_query_proj, attention.pos_key_proj]
    rest = [mix.dense, mix.LayerNorm, layer.intermediate.dense, layer.output.dense, layer.output.LayerNorm]
    together = [getattr(m, name) for group in (inner, positions) for name in ("weight", "bias") for m in group]
    return [*together, *(getattr(m, name) for m in rest for name in ("weight", "bias"))]
