"""DeBERTa's position table by distance: its rows are buckets of distances, which attention wants one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Reach:
    """How the position table is laid out by distance, up to a reach of R.

    Attributes:
        row: int32, 2R; row of the table for the distance d at d + R. first, end: int32, W; the places in ``row`` that
            hold each row of the table.
        most: that one of them holds, rounded up to a power of two.
    """

    row: Tensor
    first: Tensor
    end: Tensor
    most: int


def span(config: Any) -> int:
    """Half the rows of a configuration's position table."""
    longest = config.max_relative_positions if config.max_relative_positions >= 1 else config.max_position_embeddings
    return int(config.position_buckets if config.position_buckets > 0 else longest)


def by_distance(config: Any, reach: int, device: torch.device) -> Reach:
    """The position table of a configuration laid out by distance, with transformers' own buckets."""
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    half = span(config)
    distance = torch.arange(-reach, reach)
    if config.position_buckets > 0:
        longest = (
            config.max_relative_positions if config.max_relative_positions >= 1 else config.max_position_embeddings
        )
        distance = make_log_bucket_position(distance, config.position_buckets, longest).long()
    row = (distance + half).clamp(0, 2 * half - 1)
    # Farther apart is never an earlier row, so the places of a row lie side by side.
    bounds = torch.searchsorted(row, torch.arange(2 * half + 1))
    most = 1 << (int((bounds[1:] - bounds[:-1]).max()) - 1).bit_length()
    row, first, end = (part.int().to(device) for part in (row, bounds[:-1], bounds[1:]))
    return Reach(row, first, end, most)
