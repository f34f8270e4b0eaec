"""Buckets of the distances between two tokens, as the encoders with learned relative positions make them.

The formulas are those of transformers' models, operation by operation, so that no rounding differs: at the edge of a
bucket it would move a distance into the next one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def log_buckets(distance: Tensor, buckets: int, longest: int) -> Tensor:
    """Return the signed bucket of each distance in DeBERTa-v2 and -v3, int64: of its own up to ``buckets / 2``, and
    beyond that by the logarithm of the distance up to ``longest``."""
    half = buckets // 2
    near = (distance < half) & (distance > -half)
    length = torch.where(near, torch.tensor(half - 1).type_as(distance), distance.abs())
    scale = torch.log(torch.tensor((longest - 1) / half))
    far = torch.ceil(torch.log(length / half) / scale * (half - 1)) + half
    return torch.where(length <= half, distance.type_as(far), far * torch.sign(distance)).long()


def mpnet_buckets(distance: Tensor, buckets: int, longest: int = 128) -> Tensor:
    """Return the bucket of each distance i - j of query i and key j in MPNet, int64: one half for keys behind the
    query and one for those before it, and in each a quarter of all buckets for a distance each."""
    half = buckets // 2
    exact = half // 2
    length = distance.abs()
    far = exact + (torch.log(length.float() / exact) / math.log(longest / exact) * (half - exact)).long()
    within = torch.where(length < exact, length, torch.min(far, torch.full_like(far, half - 1)))
    return (distance < 0).long() * half + within
