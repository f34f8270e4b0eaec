"""Attention in chunks, dropout and linear layers of packed sequences on a CPU, and encoders that cannot be packed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, BertConfig, BertModel

from accl.kernels.layers.attention import ChunkedOperations
from accl.kernels.layers.chunks import LEAST_TOKENS, Chunks, cut
from accl.kernels.layers.encoders import INTERFACE, packed_forward, unsupported
from accl.kernels.layers.functions import CpuFunctions
from accl.kernels.layers.operations import Distances
from accl.training import device
from accl.training.device import place

HEADS, CHANNELS = 2, 4
SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}


def test_chunks_hold_every_sequence_once_and_little_padding() -> None:
    lengths = np.sort(np.random.default_rng(0).integers(1, 300, 200))[::-1]
    chunks = Chunks(lengths)
    assert [at for bounds in cut(lengths) for at in range(*bounds)] == list(range(len(lengths)))
    assert sum(chunk.rows for chunk in chunks) < 1.25 * chunks.tokens + LEAST_TOKENS
    x_THC = torch.randn(chunks.tokens, HEADS, CHANNELS)
    assert torch.equal(chunks.gather(chunks.spread(x_THC), HEADS), x_THC)
    # As encoders with rotary positions have them: heads before tokens.
    assert torch.equal(chunks.spread(x_THC.transpose(0, 1).contiguous().transpose(0, 1)), chunks.spread(x_THC))


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("window", [None, 1])
def test_the_gradients_of_attention_are_its_derivatives(
    window: int | None, dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accl.kernels.layers.chunks.LEAST_TOKENS", 4)
    chunks, functions = Chunks(np.array([5, 4, 2, 2, 1])), CpuFunctions()
    assert len(list(chunks)) > 1
    torch.manual_seed(0)
    distances = 2 * chunks.longest - 1
    shapes = [(chunks.tokens, HEADS, CHANNELS)] * 3 + [(HEADS, distances, CHANNELS)] * 2 + [(HEADS, distances)]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def attend(q: Tensor, k: Tensor, v: Tensor, key: Tensor, query: Tensor, bias: Tensor) -> Tensor:
        functions.seed(0)
        terms = Distances(key, query, bias)
        return ChunkedOperations(chunks, functions).attend(
            q, k, v, scale=0.7, dropout=dropout, window=window, distances=terms
        )

    assert torch.autograd.gradcheck(attend, inputs)


def test_dropout_has_its_probability_and_leaves_the_mean() -> None:
    functions, x, drop = CpuFunctions(), torch.ones(301, 1001, requires_grad=True), nn.Dropout(0.1)
    functions.seed(1)
    with functions:
        out = drop(x)
        again = drop(x)
        assert drop.eval()(x) is x
    values = torch.unique(out.detach())
    assert len(values) == 2
    assert not values[0]
    assert float(values[1]) == pytest.approx(1 / 0.9, rel=1e-4)
    assert float((out.detach() == 0).float().mean()) == pytest.approx(0.1, abs=0.002)
    assert not torch.equal(out, again)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(gradient, out.detach())
    functions.seed(1)
    with functions:
        assert torch.equal(nn.Dropout(0.1)(x), out)
        assert not nn.Dropout(1.0)(x).any()


@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_are_torchs(bias: bool) -> None:
    torch.manual_seed(0)
    x, layer = torch.randn(1, 37, 16, requires_grad=True), nn.Linear(16, 24, bias=bias)
    inputs = (x, *layer.parameters())
    with CpuFunctions():
        actual = layer(x)
    expected = F.linear(x, layer.weight, layer.bias)
    dout = torch.randn_like(expected)
    torch.testing.assert_close(actual, expected)
    for own, other in zip(*(torch.autograd.grad(y, inputs, dout) for y in (actual, expected)), strict=True):
        torch.testing.assert_close(own, other)


def test_an_encoder_keeps_its_own_attention_between_packed_calls() -> None:
    encoder = BertModel(BertConfig(**SMALL)).train()
    own = encoder.config._attn_implementation
    assert unsupported(encoder) is None
    assert encoder.training
    chunks, functions = Chunks(np.array([7, 3])), CpuFunctions()
    hidden_TD = packed_forward(encoder)(torch.arange(10), chunks.position_T, ChunkedOperations(chunks, functions))
    assert hidden_TD.shape == (10, 16)
    assert encoder.config._attn_implementation == own != INTERFACE


@pytest.mark.parametrize(
    ("kind", "changed", "reason"),
    [
        ("deberta", {}, "the attention of deberta does not go through transformers' AttentionInterface"),
        ("deberta-v2", {"conv_kernel_size": 3}, "a convolution beside the first layer"),
        ("bert", {"is_decoder": True}, "bert makes something else of packed sequences than of each alone"),
    ],
)
def test_encoders_that_cannot_be_packed_say_why(kind: str, changed: dict[str, Any], reason: str) -> None:
    encoder = AutoModel.from_config(AutoConfig.for_model(kind, **SMALL, **changed))
    assert unsupported(encoder) == reason


@pytest.mark.parametrize("native", [True, False])
def test_a_cpu_computes_in_bf16_if_it_can_and_says_so_if_not(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "computes_bf16", lambda: native)
    placement = place("cpu", "bf16")
    assert placement.autocast == (torch.bfloat16 if native else None)
    assert placement.describe()["precision"] == ("bf16" if native else "fp32")
    assert len(placement.warnings) == (0 if native else 1)
    assert place("cpu", "fp32").autocast is None
