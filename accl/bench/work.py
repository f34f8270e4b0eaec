"""The work of a training step, whoever does it: real tokens, floating-point operations, parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from accl.data.sampler import Draw
from accl.data.tokens import Assembler
from accl.training.context import TrainingContext


@dataclass(frozen=True)
class Shape:
    """The sizes of a model that its work follows from.

    Attributes:
        token_weights: weights of the matrix products that every token passes, in all layers.
        row_weights: weights of the classification head, which every sequence passes.
        question_weights: weights of the contrastive head; 0 where it does not learn.
        layers, width: number of the encoder's layers, and its hidden size.
        distances: rows of the table of relative positions; 0 without disentangled attention.
        position_terms: number of attention terms with positions (content-to-position, position-to-content).
        parameters: number of parameters that a loss reaches.
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
        """Floating-point operations of the forward and backward passes over sequences, without padding.

        A matrix product of m x k by k x n takes 2 m k n, and its two gradients as much each, hence 6 for each
        weight and token, and three times the forward cost for products of activations. With W = width, S =
        distances, t = position_terms::

            6 token_weights sum L                       layers' matrix products
            + 12 layers W sum L^2                       scores q k^T, and their product with v
            + 6 t layers W sum L min(L, S)              scores against positions: a query meets L of them, S at most
            + 6 t layers W^2 S steps                    the position table through each layer's projection, once a step
            + 6 (row_weights N + question_weights B)    heads

        Softmax, norms, activations, dropout and the losses are not counted: they are no matrix products, and together
        stay below 1 %.

        Args:
            lengths_N: tokens of every sequence of all steps.
            questions, steps: totals of the same steps.
        """
        L = lengths_N.astype(np.float64)
        attention = 12 * self.layers * self.width * (L**2).sum()
        scores = self.position_terms * self.layers * self.width * (L * np.minimum(L, self.distances)).sum()
        table = self.position_terms * self.layers * self.width**2 * self.distances * steps
        heads = self.row_weights * len(L) + self.question_weights * questions
        return float(6 * (self.token_weights * L.sum() + scores + table + heads) + attention)


def shape_of(context: TrainingContext) -> Shape:
    """The sizes of the model that a training process has built."""
    model = context.model
    encoder: Any = model.encoder
    config = encoder.config
    contrastive = context.config.loss.contrastive_weight > 0
    # Counted on the whole encoder, though accl may hold only the rows of the vocabulary that the corpus uses.
    everything = context.provenance.model.parameters
    head = sum(p.numel() for p in model.contrastive_head.parameters())
    disentangled = getattr(config, "relative_attention", False)
    return Shape(
        # pos_: projections of the position table, counted by its rows. A pooler is never run.
        token_weights=sum(
            module.weight.numel()
            for name, module in encoder.named_modules()
            if isinstance(module, nn.Linear) and "pos_" not in name and "pooler" not in name
        ),
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
    """Number of distances to either side that DeBERTa's position table distinguishes."""
    rows = (config.position_buckets, config.max_relative_positions, config.max_position_embeddings)
    return int(next(number for number in rows if number > 0))


def live_parameters(context: TrainingContext, shape: Shape) -> int:
    """Number of parameters that can change: without rows of the vocabulary that no training question uses.

    Those have no gradient and no weight decay, so AdamW leaves them as they are.
    """
    blob = context.blob
    parts = 1 + blob.choices
    used: set[int] = set()
    for positions in (context.positions["train"], context.positions["auxiliary"]):
        if len(positions):  # a split's questions stand next to each other
            ids = blob.ids[blob.offsets[positions[0] * parts] : blob.offsets[(positions[-1] + 1) * parts]]
            used.update(np.unique(ids).tolist())
    if context.config.model.head == "single_sequence":
        used.update(i for letter in blob.letters for i in letter)
    special = 2  # the ids that open and close an input; padding has no gradient
    return shape.parameters - shape.vocabulary + (len(used) + special) * shape.width


def lengths_of(assembler: Assembler, draws: Sequence[Draw]) -> NDArray[np.int64]:
    """Number of tokens of every sequence of some draws, N; [CLS] and [SEP] count, padding does not."""
    batches = (assembler.batch(draw.questions, draw.option_order) for draw in draws)
    return np.concatenate([mask.sum(1) for batch in batches for _, mask in batch.chunks])
