"""MPNet as a CUDA graph can capture it, against transformers' own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from accl.training.backends.mpnet import make_capturable

ROWS, LONGEST = 3, 514


def encoder_of(model_type: str) -> Any:
    """A small encoder of transformers without dropout, far from its initial biases."""
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = AutoConfig.for_model(model_type, vocab_size=50, max_position_embeddings=LONGEST, **sizes, **dropout)
    encoder = AutoModel.from_config(config, add_pooling_layer=False)
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.normal_(std=0.5)
    return encoder


def pass_through(encoder: Any, length: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The output for some tokens, and the gradients of a loss of it."""
    generator = torch.Generator().manual_seed(length)
    ids_BL = torch.randint(2, 50, (ROWS, length), generator=generator)
    mask_BL = (torch.arange(length) < torch.tensor([[length], [max(1, length // 2)], [1]])).long()
    encoder.zero_grad()
    hidden_BLD = encoder(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
    (hidden_BLD.square() * mask_BL[..., None]).sum().backward()
    return hidden_BLD, {name: weight.grad.clone() for name, weight in encoder.named_parameters()}


@pytest.mark.parametrize("length", [1, 2, 17, 64, 129, 300, 512])
def test_biases_outputs_and_gradients_are_bit_for_bit_those_of_transformers(length: int) -> None:
    own, adapted = encoder_of("mpnet"), encoder_of("mpnet")
    make_capturable(adapted)
    x_BLD = torch.zeros(ROWS, length, 16)
    bias_BHLL = adapted.encoder.compute_position_bias(x_BLD)
    assert bias_BHLL.shape == (ROWS, 2, length, length)
    assert torch.equal(bias_BHLL, own.encoder.compute_position_bias(x_BLD))
    hidden_BLD, gradients = pass_through(adapted, length)
    expected_BLD, expected = pass_through(own, length)
    assert torch.equal(hidden_BLD, expected_BLD)
    assert gradients.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(gradients[name], expected[name])] == []


def test_buckets_are_computed_once_and_are_no_part_of_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoder_of("mpnet")
    names = list(encoder.state_dict())
    make_capturable(encoder)

    def compute_again(*_: object, **__: object) -> Tensor:
        raise AssertionError("the encoder computes its buckets again")

    monkeypatch.setattr(type(encoder.encoder), "relative_position_bucket", compute_again)
    pass_through(encoder, 40)
    assert list(encoder.state_dict()) == names


def test_a_copy_of_the_encoder_has_biases_of_its_own() -> None:
    encoder = encoder_of("mpnet")
    make_capturable(encoder)
    x_BLD = torch.zeros(1, 5, 16)
    twin, before = copy.deepcopy(encoder), encoder.encoder.compute_position_bias(x_BLD)
    with torch.no_grad():
        twin.encoder.relative_attention_bias.weight.zero_()
    assert not twin.encoder.compute_position_bias(x_BLD).any()
    assert torch.equal(encoder.encoder.compute_position_bias(x_BLD), before)


def test_an_encoder_can_have_its_own_computation_back() -> None:
    encoder = encoder_of("mpnet")
    undo = make_capturable(encoder)
    assert "compute_position_bias" in vars(encoder.encoder)
    undo()
    assert "compute_position_bias" not in vars(encoder.encoder)


def test_other_encoders_stay_as_they_are() -> None:
    encoder = encoder_of("bert")
    before = {name: dict(vars(module)) for name, module in encoder.named_modules()}
    undo = make_capturable(encoder)
    undo()
    assert {name: dict(vars(module)) for name, module in encoder.named_modules()} == before
