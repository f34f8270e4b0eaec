"""Mapping of relative distances to the rows of DeBERTa's position table, each of which serves a bucket of distances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from accl.kernels.buckets import log_buckets


@dataclass(frozen=True)
class RelativePositions:
    """Mapping between the 2R relative distances and the W rows of the position table.

    Attributes:
        row: 2R, int32; row of the table for the distance d at index d + R.
        first, end: W, int32; row w serves the indices [first[w], end[w]) of ``row``.
    """

    row: Tensor
    first: Tensor
    end: Tensor


def relative_positions(config: Any, max_distance: int, device: torch.device) -> RelativePositions:
    """Return the mapping of a `DebertaV2Config` up to ``max_distance``, with transformers' own buckets."""
    longest = config.max_relative_positions if config.max_relative_positions >= 1 else config.max_position_embeddings
    half = config.position_buckets if config.position_buckets > 0 else longest
    distance = torch.arange(-max_distance, max_distance)
    if config.position_buckets > 0:
        distance = log_buckets(distance, config.position_buckets, longest)
    row = (distance + half).clamp(0, 2 * half - 1)
    # Rows never decrease with the distance, so the distances that a row serves are consecutive.
    bounds = torch.searchsorted(row, torch.arange(2 * half + 1))
    row, first, end = (part.int().to(device) for part in (row, bounds[:-1], bounds[1:]))
    return RelativePositions(row, first, end)
