"""The weights of a DeBERTa-v2 as `c/encoder.c` is given them, and memory for their gradients."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from accl.kernels.cpu.native import pointer

# Floats that a gradient begins at a multiple of: 64 bytes, as memory of its own does.
ALIGNMENT = 16
# Groups of weights that stand below the layers; and how many tensors each group of a layer has.
BELOW = 5
GIVEN = (3, 3, 2, 2, *(1,) * 10)


class Weights:
    """Of a `DebertaV2Model`, but for the table of words.

    Attributes:
        groups: those that are one matrix or vector in a product, in the order of c/encoder.c; empty ones for what the
            module does not have.
        parameters: all of them, in that order.
    """

    def __init__(self, module: Any) -> None:
        encoder, norm = module.encoder, module.embeddings.LayerNorm
        normed = [encoder.LayerNorm] if "layer_norm" in encoder.norm_rel_ebd else []
        below = [[norm], [norm], [encoder.rel_embeddings], normed, normed]
        names = ("weight", "bias", "weight", "weight", "bias")
        self.groups = [[getattr(m, name) for m in modules] for modules, name in zip(below, names, strict=True)]
        sizes = [1] * BELOW
        for layer in encoder.layer:
            self.groups += _of_layer(layer)
            sizes += GIVEN
        # With a place for each tensor that a module may lack.
        self._slots: list[Tensor | None] = []
        for group, size in zip(self.groups, sizes, strict=True):
            self._slots += group or [None] * size
        self.parameters: list[Tensor] = [parameter for group in self.groups for parameter in group]

    def pointers(self, words: Tensor) -> NDArray[np.int64]:
        """`Weights` of c/encoder.c, with the table of words."""
        return np.array([0 if tensor is None else pointer(tensor) for tensor in (words, *self._slots)], np.int64)


class Gradients:
    """Of all weights, end to end in ``flat``: a thread has them for itself, and writes to them in every step.

    Attributes:
        pointers: `Gradients` of c/encoder.c.
        offsets, counts: where those of each parameter begin, and how many elements they have.
    """

    def __init__(self, weights: Weights) -> None:
        groups = weights.groups
        # What is added up from 0 on comes first; matrices, of which each is written once, are left as they are found.
        added = [i for i, group in enumerate(groups) if i < BELOW or (group and group[0].ndim == 1)]
        order = added + sorted(set(range(len(groups))) - set(added))
        sizes = [sum(parameter.numel() for parameter in groups[i]) for i in order]
        begins = [0, *accumulate(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes)]
        self.flat = torch.empty(begins[-1])
        place = dict(zip(order, begins, strict=False))
        at = [pointer(self.flat) + 4 * place[i] if group else 0 for i, group in enumerate(groups)]
        self.pointers = np.array([pointer(self.flat), begins[len(added)], *at], np.int64)
        counts = [[parameter.numel() for parameter in group] for group in groups]
        offsets = [place[i] + before for i, of_group in enumerate(counts) for before in [0, *accumulate(of_group)][:-1]]
        self.offsets = np.array(offsets, np.int64)
        self.counts = np.array([count for of_group in counts for count in of_group], np.int64)


def _of_layer(layer: Any) -> list[list[Tensor]]:
    """Of a `DebertaV2Layer`."""
    attention, mix = layer.attention.self, layer.attention.output
    inner = [attention.query_proj, attention.key_proj, attention.value_proj]
    # In the order of the first two of `inner`.
    positions = [] if attention.share_att_key else [attention.pos_query_proj, attention.pos_key_proj]
    rest = [mix.dense, mix.LayerNorm, layer.intermediate.dense, layer.output.dense, layer.output.LayerNorm]
    together = [[getattr(m, name) for m in modules] for modules in (inner, positions) for name in ("weight", "bias")]
    return [*together, *([getattr(m, name)] for m in rest for name in ("weight", "bias"))]
