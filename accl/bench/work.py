"""The work of a training step, whoever does it: real tokens, floating-point operations, parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from accl.data.sampler import Draw
from accl.data.tokens import Assembler
from accl.training.context import TrainingContext

# Length of the input that shows which layers tokens pass: odd, since a table of relative positions has an even number
# of rows.
COUNTED_TOKENS = 31


@dataclass(frozen=True)
class Shape:
    """The sizes of a model that its work follows from.

    Attributes:
        token_weights: weights of the matrix products that every token passes, in all layers.
        row_weights: weights of the classification head, which every sequence passes.
        question_weights: weights of the contrastive head; 0 where it does not learn.
        layers, width: number of the encoder's layers, and its hidden size.
        local_layers, window: number of those layers whose tokens meet only tokens at most ``window`` away.
        distances: rows of the table of relative positions; 0 without disentangled attention.
        position_terms: number of attention terms with positions (content-to-position, position-to-content).
        parameters: number of parameters that a loss reaches.
        vocabulary: parameters of the token embeddings, a part of ``parameters``.
        embedding: parameters of the embedding of one token, which some encoders project to ``width``.
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
    embedding: int
    local_layers: int = 0
    window: int = 0

    def flops(self, lengths_N: NDArray[np.int64], questions: int, steps: int) -> float:
        """Floating-point operations of the forward and backward passes over sequences, without padding.

        A matrix product of m x k by k x n takes 2 m k n, and its two gradients as much each, hence 6 for each
        weight and token, and three times the forward cost for products of activations. With W = width, S =
        distances, t = position_terms::

            6 token_weights sum L                       layers' matrix products
            + 12 layers W sum pairs                     scores q k^T, and their product with v
            + 6 t layers W sum L min(L, S)              scores against positions: a query meets L of them, S at most
            + 6 t layers W^2 min(S, 2 max L) steps      the position table through each layer's projection, once a step
            + 6 (row_weights N + question_weights B)    heads

        A sequence has L^2 pairs of a query and a key; in a local layer without those further apart than its window.

        Softmax, norms, activations, dropout and the losses are not counted: they are no matrix products, and together
        stay below 1 %.

        Args:
            lengths_N: tokens of every sequence of all steps.
            questions, steps: totals of the same steps.
        """
        L = lengths_N.astype(np.float64)
        beyond = np.maximum(L - self.window, 1)
        pairs = self.layers * (L**2).sum() - self.local_layers * (beyond * (beyond - 1)).sum()
        attention = 12 * self.width * pairs
        scores = self.position_terms * self.layers * self.width * (L * np.minimum(L, self.distances)).sum()
        table = self.position_terms * self.layers * self.width**2 * min(self.distances, 2 * L.max()) * steps
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
    embeddings = encoder.get_input_embeddings().weight
    local = (getattr(config, "layer_types", None) or []).count("sliding_attention")
    return Shape(
        token_weights=_token_weights(encoder, disentangled),
        row_weights=sum(module.weight.numel() for module in model.classifier if isinstance(module, nn.Linear)),
        question_weights=model.contrastive_head.weight.numel() if contrastive else 0,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        distances=2 * _span(config) if disentangled else 0,
        position_terms=len({"c2p", "p2c"} & set(config.pos_att_type)) if disentangled else 0,
        parameters=everything if contrastive else everything - head,
        vocabulary=embeddings.numel(),
        embedding=embeddings.shape[1],
        local_layers=local,
        window=config.sliding_window if local else 0,
    )


@torch.no_grad()
def _token_weights(encoder: nn.Module, disentangled: bool) -> int:
    """Return the weights of the linear layers that every token passes, each as often as it is passed.

    They are counted while a short input passes the encoder, so that layers shared by several (ALBERT) count for each,
    and a pooler that is never run does not. With disentangled attention, positions pass some of them as well: those
    are `Shape.position_terms`.
    """
    counts: list[float] = []

    def count(module: nn.Module, _inputs: object, output: Tensor) -> None:
        assert isinstance(module, nn.Linear)
        share = output.numel() / module.out_features / COUNTED_TOKENS
        if not disentangled or share == 1:
            counts.append(module.weight.numel() * min(share, 1.0))  # more rows than tokens are padding

    hooks = [module.register_forward_hook(count) for module in encoder.modules() if isinstance(module, nn.Linear)]
    training, weight = encoder.training, next(encoder.parameters())
    encoder.eval()
    try:
        ids_BL = torch.full((1, COUNTED_TOKENS), 2, device=weight.device)
        encoder(input_ids=ids_BL, attention_mask=torch.ones_like(ids_BL))
    finally:
        encoder.train(training)
        for hook in hooks:
            hook.remove()
    return round(sum(counts))


def _span(config: Any) -> int:
    """Return the number of distances to either side that DeBERTa's position table distinguishes."""
    # Only later versions put distances into buckets.
    names = ("position_buckets", "max_relative_positions", "max_position_embeddings")
    return int(next(number for name in names if (number := getattr(config, name, 0)) > 0))


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
    return shape.parameters - shape.vocabulary + (len(used) + special) * shape.embedding


def lengths_of(assembler: Assembler, draws: Sequence[Draw]) -> NDArray[np.int64]:
    """Number of tokens of every sequence of some draws, N; [CLS] and [SEP] count, padding does not."""
    batches = (assembler.batch(draw.questions, draw.option_order) for draw in draws)
    return np.concatenate([mask.sum(1) for batch in batches for _, mask in batch.chunks])
