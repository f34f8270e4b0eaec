"""The weights of a DeBERTa-v2 in the order of c/encoder.c, and memory for their gradients."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from accl.kernels.cpu.native import pointer

# Each gradient begins at a multiple of so many floats: 64 bytes, as in memory of its own.
ALIGNMENT = 16
# Number of groups below the layers, and number of tensors in each group of a layer.
BELOW = 5
LAYER_SIZES = (3, 3, 2, 2, *(1,) * 10)


class Weights:
    """The parameters of a `DebertaV2Model` but for the word table.

    Attributes:
        groups: lists of parameters that kernels use as one matrix or vector; empty for those that the module lacks.
        parameters: all of them, in the order of ``groups``.
    """

    def __init__(self, module: Any) -> None:
        encoder, norm = module.encoder, module.embeddings.LayerNorm
        table_norm = [encoder.LayerNorm] if "layer_norm" in encoder.norm_rel_ebd else []
        below = [[norm], [norm], [encoder.rel_embeddings], table_norm, table_norm]
        names = ("weight", "bias", "weight", "weight", "bias")
        self.groups = [[getattr(m, name) for m in modules] for modules, name in zip(below, names, strict=True)]
        sizes = [1] * BELOW
        for layer in encoder.layer:
            self.groups += _layer_groups(layer)
            sizes += LAYER_SIZES
        # None for each tensor that the module lacks.
        self._slots: list[Tensor | None] = []
        for group, size in zip(self.groups, sizes, strict=True):
            self._slots += group or [None] * size
        self.parameters: list[Tensor] = [parameter for group in self.groups for parameter in group]

    def pointers(self, word_table: Tensor) -> NDArray[np.int64]:
        """Return the struct ``Weights`` of c/encoder.c."""
        return np.array([0 if tensor is None else pointer(tensor) for tensor in (word_table, *self._slots)], np.int64)


class Gradients:
    """Memory for the gradients of all weights, end to end, in which one thread works.

    Attributes:
        flat: the memory. pointers: the struct ``Gradients`` of c/encoder.c.
        offsets, counts: where each parameter's gradient begins in ``flat``, and its number of elements.
    """

    def __init__(self, weights: Weights) -> None:
        groups = weights.groups
        # First those that kernels add to, which must start at 0; then matrices, which are written once.
        summed = [i for i, group in enumerate(groups) if i < BELOW or (group and group[0].ndim == 1)]
        order = summed + sorted(set(range(len(groups))) - set(summed))
        sizes = [sum(parameter.numel() for parameter in groups[i]) for i in order]
        begins = [0, *accumulate(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes)]
        self.flat = torch.empty(begins[-1])
        begin_of = dict(zip(order, begins, strict=False))
        at = [pointer(self.flat) + 4 * begin_of[i] if group else 0 for i, group in enumerate(groups)]
        self.pointers = np.array([pointer(self.flat), begins[len(summed)], *at], np.int64)
        counts = [[parameter.numel() for parameter in group] for group in groups]
        offsets = [begin_of[i] + before for i, group in enumerate(counts) for before in [0, *accumulate(group)][:-1]]
        self.offsets = np.array(offsets, np.int64)
        self.counts = np.array([count for group in counts for count in group], np.int64)


def _layer_groups(layer: Any) -> list[list[Tensor]]:
    """Return the parameters of a `DebertaV2Layer` in the order of ``LayerWeights`` of c/encoder.c."""
    attention, output = layer.attention.self, layer.attention.output
    qkv = [attention.query_proj, attention.key_proj, attention.value_proj]
    position = [] if attention.share_att_key else [attention.pos_query_proj, attention.pos_key_proj]
    rest = [output.dense, output.LayerNorm, layer.intermediate.dense, layer.output.dense, layer.output.LayerNorm]
    joined = [[getattr(m, name) for m in modules] for modules in (qkv, position) for name in ("weight", "bias")]
    return [*joined, *([getattr(m, name)] for m in rest for name in ("weight", "bias"))]
