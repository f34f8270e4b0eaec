"""Buckets of distances are those that transformers' encoders look up."""

from __future__ import annotations

import pytest
import torch
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

from accl.kernels.buckets import log_buckets, mpnet_buckets

DISTANCE = torch.arange(-2100, 2101)


@pytest.mark.parametrize(("buckets", "longest"), [(256, 512), (32, 128), (32, 512), (64, 2048), (8, 24)])
def test_those_of_deberta(buckets: int, longest: int) -> None:
    expected = make_log_bucket_position(DISTANCE, buckets, longest).long()
    assert torch.equal(log_buckets(DISTANCE, buckets, longest), expected)


@pytest.mark.parametrize("buckets", [32, 64])
def test_those_of_mpnet(buckets: int) -> None:
    expected = MPNetEncoder.relative_position_bucket(-DISTANCE, num_buckets=buckets)
    assert torch.equal(mpnet_buckets(DISTANCE, buckets), expected)
