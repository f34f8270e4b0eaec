"""The contract of an encoder's passes over packed sequences, and which implementations there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from torch import Tensor, nn

from accl.kernels.triton import deberta, layers, postnorm_parts
from accl.kernels.triton.attention import PackedSequences
from accl.kernels.triton.embedding import WordEmbedding
from accl.kernels.triton.flat import FlatParameters
from accl.kernels.triton.parameters import layer_matrices, layer_vectors
from accl.kernels.triton.postnorm import PackedPostNorm
from accl.training.optim import decayed


class PackedEncoder(Protocol):
    """Computes an encoder over the T tokens of packed sequences, with its parameters where `FlatParameters` put them.

    All passes can be captured in a CUDA graph after `prepare` and a first launch.
    """

    def prepare(self, longest: int) -> None:
        """Compute what passes over sequences of at most ``longest`` tokens need; captured passes must not."""

    def infer(self, ids_T: Tensor, sequences: PackedSequences, longest: int) -> Tensor:
        """Return the hidden states, T x D, without dropout and without gradient."""

    def forward(self, ids_T: Tensor, sequences: PackedSequences, longest: int) -> tuple[Tensor, Any]:
        """Return the hidden states, T x D, without autograd's graph, with dropout by ``sequences.seed``, and what
        `backward` needs."""

    def backward(self, dhidden_TD: Tensor, cache: Any) -> None:
        """Compute the gradients of all parameters of the encoder in place; called once for each `forward`.

        Those of `PackedFamily.written_matrices` are written; those of the words and of all others are added to what is
        there, which is 0 at the beginning of a step, or are written.

        Args:
            dhidden_TD: gradient to the hidden states, in their type; may be overwritten.
        """


@dataclass(frozen=True)
class PackedFamily:
    """A way to compute some encoders over packed sequences.

    Attributes:
        model_types: what transformers calls these encoders; None for any.
        unsupported: returns why an encoder of these types cannot be computed, in a few words; None if it can.
        written_matrices: parameters of an encoder with weight decay whose gradients the backward pass writes, so that
            nothing has to set them to 0. layer_vectors: those that stand beside them, without weight decay. All lie in
            this order, without gaps where their sizes are multiples of 64, and have a copy in the type of the
            computation.
        make: returns the passes, from the encoder, the words in use, the flat parameters, the copy of these matrices
            and vectors, and the index in ``flat.values`` of its first element.
    """

    model_types: frozenset[str] | None
    unsupported: Callable[[Any], str | None]
    written_matrices: Callable[[Any], Iterable[nn.Parameter]]
    layer_vectors: Callable[[Any], Iterable[nn.Parameter]]
    make: Callable[[Any, WordEmbedding, FlatParameters, Tensor, int], PackedEncoder]

    def reason(self, encoder: Any) -> str | None:
        """Return why this family does not compute an encoder; None if it does."""
        kind = encoder.config.model_type
        if self.model_types is not None and kind not in self.model_types:
            return f"no packed layers are like those of {kind}"
        return self.unsupported(encoder)


DEBERTA = PackedFamily(
    frozenset({"deberta-v2"}),
    deberta.unsupported,
    lambda encoder: layer_matrices(deberta.layer_modules(encoder)),
    lambda encoder: layer_vectors(deberta.layer_modules(encoder)),
    deberta.PackedDeberta,
)
POST_NORM = PackedFamily(
    frozenset(postnorm_parts.PARTS),
    postnorm_parts.unsupported,
    lambda encoder: layer_matrices(postnorm_parts.parts_of(encoder).layers),
    lambda encoder: layer_vectors(postnorm_parts.parts_of(encoder).layers),
    PackedPostNorm,
)


def _encoder_parameters(encoder: Any, decays: bool) -> list[nn.Parameter]:
    """Return the parameters of an encoder but its words, those with weight decay or those without."""
    words = encoder.get_input_embeddings().weight
    return [parameter for parameter, decayed_ in decayed(encoder) if decayed_ == decays and parameter is not words]


OWN_LAYERS = PackedFamily(
    None,
    layers.unsupported,
    partial(_encoder_parameters, decays=True),
    partial(_encoder_parameters, decays=False),
    layers.PackedLayers,
)
# The first one that supports an encoder computes it.
FAMILIES = (DEBERTA, POST_NORM, OWN_LAYERS)


def family_of(encoder: Any) -> PackedFamily | None:
    """Return the family that computes an encoder; None if none does."""
    return next((family for family in FAMILIES if family.reason(encoder) is None), None)


def unsupported(encoder: Any) -> str | None:
    """Return why no family computes an encoder, in the words of the first one for its type; None if one does."""
    if family_of(encoder) is not None:
        return None
    own = [f for f in FAMILIES if f.model_types is None or encoder.config.model_type in f.model_types]
    return (own or FAMILIES)[0].reason(encoder)
