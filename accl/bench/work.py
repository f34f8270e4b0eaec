"""What a training step has to do, whoever does it: real tokens, floating-point operations, bytes of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from accl.data.sampler import Draw
from accl.data.tokens import Assembler, Batch
from accl.training.setup import Workbench

# Of one fp32 parameter in one step: AdamW reads parameter, gradient and two moments and writes all but the gradient.
ADAMW_BYTES = 7 * 4
# The backward pass writes its gradient, and clipping reads it for the norm.
GRADIENT_BYTES = 2 * 4


@dataclass(frozen=True)
class Shape:
    """The sizes of a model that its work follows from.

    Attributes:
        token_weights: weights of the matrix products that every token passes, in all layers.
        row_weights: of the classification head, which every sequence passes.
        question_weights: of the contrastive head, where it learns.
        layers, width: of the encoder.
        distances: rows of the table of relative positions; 0 without disentangled attention.
        position_terms: how many of content-to-position and position-to-content there are.
        parameters: all that a loss reaches.
        vocabulary: parameters of the token embeddings, a part of ``parameters``.
    """

    token_weights: int
    row_weights: int
    question_weights: int
    layers: int
    width: int
    distances: int
    position_terms: int
    parameters: int
    vocabulary: int

    def flops(self, lengths_N: NDArray[np.int64], questions: int, steps: int) -> float:
        """Operations of forward and backward passes over sequences of those lengths, padding never counted.

        A matrix product of m x k by k x n takes 2 m k n, and its two gradients as much each, hence 6 for each
        weight and token, and three times the forward cost for products of activations. With W = width, S =
        distances, t = position_terms::

            6 token_weights sum L                       layers' matrix products
            + 12 layers W sum L^2                       scores q k^T, and their product with v
            + 6 t layers W sum L min(L, S)              scores against positions: a query meets L of them, S at most
            + 6 t layers W^2 S steps                    the position table through each layer's projection, once a step
            + 6 (row_weights N + question_weights B)    heads

        Softmax, norms, activations, dropout and the losses are not counted: they are no matrix products, and together
        stay below a hundredth.
        """
        L = lengths_N.astype(np.float64)
        attention = 12 * self.layers * self.width * (L**2).sum()
        scores = self.position_terms * self.layers * self.width * (L * np.minimum(L, self.distances)).sum()
        table = self.position_terms * self.layers * self.width**2 * self.distances * steps
        heads = self.row_weights * len(L) + self.question_weights * questions
        return float(6 * (self.token_weights * L.sum() + scores + table + heads) + attention)


def shape_of(bench: Workbench) -> Shape:
    """The sizes of a workbench's model."""
    model = bench.model
    encoder: Any = model.encoder
    config = encoder.config
    linear = {name: module for name, module in encoder.named_modules() if isinstance(module, nn.Linear)}
    # pos_: projections of the position table, counted by its rows. A pooler is never run.
    per_token = [module for name, module in linear.items() if "pos_" not in name and "pooler" not in name]
    contrastive = bench.config.loss.contrastive_weight > 0
    # As the whole encoder has them, though accl may hold the rows alone that the corpus uses.
    everything = int(bench.facts["model"]["parameters"])
    head = sum(p.numel() for p in model.contrastive_head.parameters())
    disentangled = getattr(config, "relative_attention", False)
    return Shape(
        token_weights=sum(module.weight.numel() for module in per_token),
        row_weights=sum(module.weight.numel() for module in model.classifier if isinstance(module, nn.Linear)),
        question_weights=model.contrastive_head.weight.numel() if contrastive else 0,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        distances=2 * _span(config) if disentangled else 0,
        position_terms=len({"c2p", "p2c"} & set(config.pos_att_type)) if disentangled else 0,
        parameters=everything if contrastive else everything - head,
        vocabulary=config.vocab_size * config.hidden_size,
    )


def _span(config: Any) -> int:
    """Distances to either side that DeBERTa's position table tells apart."""
    for rows in (config.position_buckets, config.max_relative_positions):
        if rows > 0:
            return int(rows)
    return int(config.max_position_embeddings)


def live_parameters(bench: Workbench, shape: Shape) -> int:
    """Parameters that can change: rows of the vocabulary that no training question uses have no gradient and no
    weight decay, so AdamW leaves them as they are."""
    blob = bench.blob
    parts = 1 + blob.choices
    seen = [np.zeros(0, np.int32)]
    for name in ("train", "auxiliary"):
        positions = bench.positions[name]
        if len(positions):  # a split's questions stand next to each other
            seen.append(blob.ids[blob.offsets[positions[0] * parts] : blob.offsets[(positions[-1] + 1) * parts]])
    special = 2  # the ids that open and close an input; padding has no gradient
    letters = {i for letter in blob.letters for i in letter} if bench.config.model.head == "single_sequence" else set()
    rows = len(set(np.unique(np.concatenate(seen)).tolist()) | letters) + special
    return shape.parameters - shape.vocabulary + rows * shape.width


def step_bytes(parameters: int) -> int:
    """Bytes that AdamW, the gradients and the norm for clipping must move in one step of fp32 parameters."""
    return parameters * (ADAMW_BYTES + GRADIENT_BYTES)


def rows_of(batch: Batch) -> list[NDArray[np.int64]]:
    """The token ids of a batch's sequences, without padding, in the order of its questions."""
    rows = [ids[: int(real.sum())] for chunk, mask in batch.chunks for ids, real in zip(chunk, mask, strict=True)]
    return [rows[row] for row in batch.inverse_perm]


def lengths_of(assembler: Assembler, draws: Sequence[Draw]) -> NDArray[np.int64]:
    """Tokens of every sequence of some draws, N: [CLS] and [SEP] count, padding does not."""
    batches = (assembler.batch(draw.questions, draw.option_order) for draw in draws)
    return np.concatenate([mask.sum(1) for batch in batches for _, mask in batch.chunks])
