"""DeBERTa over packed sequences: means, gradients, dropout and weights as with transformers' own module."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import BertConfig, DebertaV2Config, DebertaV2Model

from accl.data.cache import cache_folder
from accl.kernels.cpu.encoder import ForwardContext, PackedEncoder, unsupported
from accl.kernels.cpu.native import load
from accl.kernels.cpu.thread_pool import ThreadPool
from accl.method.model import mean_pool

# Means of padded sequences, N x D, and what adds all gradients to the parameters, given those of the means.
Encode = Callable[[Tensor, Tensor], tuple[Tensor, Callable[[Tensor], Any]]]

VOCABULARY = 50
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "position_buckets": 8,
    "relative_attention": True,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
EMBEDDING = "an embedding of more than tokens, or of another size"
ATTENTION = "attention other than of content to position and position to content"


def build(**changed: Any) -> Any:
    """An encoder whose attention is far from uniform, so that no term of the scores can hide."""
    torch.manual_seed(0)
    module = DebertaV2Model(DebertaV2Config(**(SMALL | changed)))
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return module


def encoder(module: Any, threads: int) -> PackedEncoder:
    kernels = load(cache_folder())
    return PackedEncoder(module, kernels, ThreadPool(threads, kernels))


def inputs(lengths: list[int], width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(lengths))
    ids_NL = torch.randint(1, VOCABULARY, (len(lengths), width), generator=generator)
    mask_NL = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    return ids_NL * mask_NL, mask_NL


def forward(encode: PackedEncoder, ids_NL: Tensor, mask_NL: Tensor, with_gradients: bool = True) -> ForwardContext:
    """Pack the sequences, longest first."""
    length_N, order_N = mask_NL.sum(1).sort(descending=True, stable=True)
    ids_T = ids_NL[order_N][mask_NL[order_N].bool()]
    return encode.forward(ids_T, length_N.numpy(), order_N, with_gradients=with_gradients)


def ours(encode: PackedEncoder) -> Encode:
    def run(ids_NL: Tensor, mask_NL: Tensor) -> tuple[Tensor, Callable[[Tensor], Any]]:
        context = forward(encode, ids_NL, mask_NL)
        return context.mean_ND, context.backward

    return run


def transformers(module: Any) -> Encode:
    def run(ids_NL: Tensor, mask_NL: Tensor) -> tuple[Tensor, Callable[[Tensor], Any]]:
        mean_ND = mean_pool(module(input_ids=ids_NL, attention_mask=mask_NL).last_hidden_state, mask_NL)
        return mean_ND, mean_ND.backward

    return run


def gradients_of(module: Any) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def loss_gradient(mean_ND: Tensor) -> Tensor:
    """The gradient of a loss that sees every element."""
    return torch.sin(torch.arange(mean_ND.numel(), dtype=mean_ND.dtype)).view_as(mean_ND)


def means_and_gradients(
    module: Any, encode: Encode, ids_NL: Tensor, mask_NL: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Means of all sequences, and the gradients of every parameter."""
    module.zero_grad()
    mean_ND, backward = encode(ids_NL, mask_NL)
    backward(loss_gradient(mean_ND))
    return mean_ND.detach(), gradients_of(module)


def assert_same_as_transformers(module: Any, threads: int, ids_NL: Tensor, mask_NL: Tensor) -> None:
    """To 1e-5 of the largest gradient's norm, and some of what single precision costs transformers itself: a few
    sequences of random weights may be ill-conditioned."""
    exact = deepcopy(module).double()
    expected_ND, expected = means_and_gradients(exact, transformers(exact), ids_NL, mask_NL)
    _, theirs = means_and_gradients(module, transformers(module), ids_NL, mask_NL)
    found_ND, found = means_and_gradients(module, ours(encoder(module, threads)), ids_NL, mask_NL)
    torch.testing.assert_close(found_ND.double(), expected_ND, rtol=0, atol=1e-5 * float(expected_ND.abs().max()))
    assert found.keys() == expected.keys()
    # Not of each tensor's own: a bias of keys or positions moves most scores of a query alike, so its gradient is what
    # is left of sums that cancel.
    largest = max(float(gradient.norm()) for gradient in expected.values())
    for name, gradient in expected.items():
        allowed = 1e-5 * largest + 3 * float((theirs[name] - gradient).norm())
        assert float((found[name] - gradient).norm()) <= allowed, name


@settings(max_examples=12, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 19), min_size=1, max_size=7),
    padding=st.integers(0, 2),
    threads=st.integers(1, 3),
)
def test_means_and_all_gradients_are_those_of_transformers(lengths: list[int], padding: int, threads: int) -> None:
    assert_same_as_transformers(build(), threads, *inputs(lengths, max(lengths) + padding))


@pytest.mark.parametrize(("hidden", "heads"), [(16, 4), (64, 4), (64, 2), (128, 2), (60, 3)])
def test_heads_of_all_sizes_agree_on_sequences_beyond_the_span_of_the_table(hidden: int, heads: int) -> None:
    module = build(hidden_size=hidden, num_attention_heads=heads)
    assert_same_as_transformers(module, 2, *inputs([3, 40, 17, 18, 1], 40))


def test_the_states_of_single_tokens_and_all_gradients_are_those_of_transformers() -> None:
    assert_same_as_transformers(build(), 2, *inputs([1] * 5, 1))


def test_without_gradients_the_means_are_the_same_and_there_is_no_backward_pass() -> None:
    encode, (ids_NL, mask_NL) = encoder(build(), 2), inputs([4, 9, 2], 9)
    alone = forward(encode, ids_NL, mask_NL, with_gradients=False)
    assert torch.equal(alone.mean_ND, forward(encode, ids_NL, mask_NL).mean_ND)
    with pytest.raises(RuntimeError, match="one without allows none"):
        alone.backward(alone.mean_ND)


def test_autocast_does_not_lower_its_precision() -> None:
    module = build()
    encode, rows = ours(encoder(module, 2)), inputs([4, 9, 2], 9)
    exact_ND, exact = means_and_gradients(module, encode, *rows)
    with torch.autocast("cpu", torch.bfloat16):
        found_ND, found = means_and_gradients(module, encode, *rows)
    assert torch.equal(found_ND, exact_ND)
    torch.testing.assert_close(found, exact, rtol=0, atol=0)


@pytest.mark.parametrize("stranger", [VOCABULARY, 10**9, -1])
def test_a_token_id_beyond_the_vocabulary_is_refused(stranger: int) -> None:
    ids_NL, mask_NL = inputs([4, 9], 9)
    ids_NL[1, 3] = stranger
    with pytest.raises(IndexError, match="1 token ids have no row in an embedding of 50"):
        forward(encoder(build(), 2), ids_NL, mask_NL)


def test_the_row_of_padding_is_not_learnt() -> None:
    module = build()
    ids_NL, mask_NL = inputs([4, 9, 2], 9)
    ids_NL[1, 3] = module.embeddings.word_embeddings.padding_idx
    assert_same_as_transformers(module, 2, ids_NL, mask_NL)
    _, found = means_and_gradients(module, ours(encoder(module, 2)), ids_NL, mask_NL)
    assert found["embeddings.word_embeddings.weight"].abs().sum(1).gt(0).tolist() == [
        i in ids_NL[mask_NL.bool()] and i != module.embeddings.word_embeddings.padding_idx for i in range(VOCABULARY)
    ]


@pytest.mark.parametrize("threads", [1, 2])
def test_dropout_depends_on_the_seed_alone(threads: int) -> None:
    module = build(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2).train()
    encode, rows = ours(encoder(module, threads)), inputs([4, 9, 2, 7], 9)

    def drawn(seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        torch.manual_seed(seed)
        return means_and_gradients(module, encode, *rows)

    (first_ND, first), (again_ND, again), (other_ND, _) = drawn(1), drawn(1), drawn(2)
    assert torch.equal(first_ND, again_ND)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.allclose(first_ND, other_ND)
    module.eval()
    assert not torch.allclose(first_ND, drawn(1)[0])


@pytest.mark.parametrize("place", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_dropout_shifts_and_scatters_means_as_transformers_does(place: str) -> None:
    module = build(**{place: 0.3}).train()
    # Sequences of one token among them, whose means are hidden states.
    lengths = [5] * 6 + [1] * 6
    ids_NL, mask_NL = inputs(lengths, 5)
    rows = ids_NL.repeat(600, 1), mask_NL.repeat(600, 1)
    torch.manual_seed(3)
    z, ratio = [], []
    encode = encoder(module, 2)
    with torch.no_grad():
        for _ in range(4):
            theirs_SX = transformers(module)(*rows)[0].view(600, -1)
            ours_SX = forward(encode, *rows, with_gradients=False).mean_ND.view(600, -1)
            error_X = ((theirs_SX.var(0) + ours_SX.var(0)) / 600).sqrt()
            z.append((theirs_SX.mean(0) - ours_SX.mean(0)) / error_X)
            ratio.append(ours_SX.std(0) / theirs_SX.std(0))
    assert 0.85 < float(torch.stack(z).std()) < 1.15
    assert abs(float(torch.stack(ratio).mean()) - 1) < 0.02


def test_weights_are_read_anew_at_every_call_and_stay_where_they_are() -> None:
    module = build()
    encode, rows = encoder(module, 2), inputs([3, 8, 5], 8)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    addresses = [parameter.data_ptr() for parameter in module.parameters()]
    first_ND = forward(encode, *rows).mean_ND
    with torch.no_grad():
        module.embeddings.word_embeddings.weight.copy_(module.embeddings.word_embeddings.weight.flip(0))
    assert not torch.allclose(forward(encode, *rows).mean_ND, first_ND)
    module.load_state_dict(before)
    assert torch.equal(forward(encode, *rows).mean_ND, first_ND)
    assert [parameter.data_ptr() for parameter in module.parameters()] == addresses


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (BertConfig(), "bert is not DeBERTa-v2 or v3"),
        (DebertaV2Config(**SMALL | {"relative_attention": False}), ATTENTION),
        (DebertaV2Config(**SMALL | {"pos_att_type": ["c2p"]}), ATTENTION),
        (DebertaV2Config(**SMALL, conv_kernel_size=3), "a convolution beside the first layer"),
        (DebertaV2Config(**SMALL, hidden_act="relu"), "hidden_act=relu instead of gelu"),
        (DebertaV2Config(**SMALL | {"position_biased_input": True}), EMBEDDING),
        (DebertaV2Config(**SMALL | {"type_vocab_size": 2}), EMBEDDING),
        (DebertaV2Config(**SMALL, embedding_size=12), EMBEDDING),
        (DebertaV2Config(**SMALL | {"share_att_key": False}), "its layers need share_att_key"),
        (DebertaV2Config(**SMALL | {"norm_rel_ebd": "none"}), "its layers need norm_rel_ebd=layer_norm"),
        (DebertaV2Config(**SMALL | {"position_buckets": -1}), "its layers need position_buckets"),
        (DebertaV2Config(**SMALL), None),
    ],
)
def test_what_it_cannot_compute_it_names(config: Any, reason: str | None) -> None:
    assert unsupported(config) == reason


def test_weights_in_another_precision_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\.float\(\)"):
        encoder(build().double(), 1)


def test_a_gradient_that_is_one_number_repeated_is_taken_as_well() -> None:
    module, rows = build(), inputs([4, 9, 2], 9)

    def gradients(gradient_ND: Tensor) -> dict[str, Tensor]:
        module.zero_grad()
        forward(encoder(module, 2), *rows).backward(gradient_ND)
        return gradients_of(module)

    expected = gradients(torch.ones(3, 16))
    torch.testing.assert_close(gradients(torch.ones(()).expand(3, 16)), expected, rtol=0, atol=0)


def test_an_unsupported_encoder_is_refused() -> None:
    module = DebertaV2Model(DebertaV2Config(**SMALL, conv_kernel_size=3))
    with pytest.raises(ValueError, match="a convolution beside the first layer"):
        encoder(module, 1)


def test_means_are_where_the_permutation_puts_them() -> None:
    module, lengths = build(), [9, 7, 4, 4, 2]
    ids_NL, mask_NL = inputs(lengths, 9)
    encode, perm_N, weight_N = encoder(module, 3), torch.tensor([3, 0, 4, 1, 2]), 1.0 + torch.arange(5)
    expected_ND, expected_backward = transformers(module)(ids_NL, mask_NL)
    expected_backward(weight_N[:, None] * expected_ND.detach())
    expected = gradients_of(module)
    module.zero_grad()
    context = encode.forward(ids_NL[mask_NL.bool()], np.array(lengths), perm_N, with_gradients=True)
    torch.testing.assert_close(context.mean_ND[perm_N], expected_ND)
    context.backward(weight_N[perm_N.argsort()][:, None] * context.mean_ND)
    torch.testing.assert_close(gradients_of(module), expected)


def test_gradients_are_added_to_those_that_are_there_and_only_where_they_are_wanted() -> None:
    module, rows = build(), inputs([4, 9, 2], 9)
    encode = encoder(module, 2)
    _, once = means_and_gradients(module, ours(encode), *rows)
    frozen = "encoder.layer.0.output.dense.weight"
    module.get_parameter(frozen).requires_grad_(False)
    module.zero_grad()
    for _ in range(2):
        context = forward(encode, *rows)
        context.backward(loss_gradient(context.mean_ND))
    twice = {name: gradient / 2 for name, gradient in gradients_of(module).items()}
    assert twice.keys() == once.keys() - {frozen}
    torch.testing.assert_close(twice, {name: once[name] for name in twice})


def test_passes_that_overlap_do_not_share_memory() -> None:
    module = build()
    encode, (first, second) = encoder(module, 2), (inputs([4, 9], 9), inputs([7, 5, 1], 7))

    def gradients(together: bool) -> dict[str, Tensor]:
        module.zero_grad()
        waiting: list[ForwardContext] = []
        for rows in (first, second):
            waiting.append(forward(encode, *rows))
            if not together:
                context = waiting.pop()
                context.backward(context.mean_ND)
        for context in waiting:
            context.backward(context.mean_ND)
        return gradients_of(module)

    torch.testing.assert_close(gradients(together=True), gradients(together=False), rtol=0, atol=0)


def test_a_second_backward_pass_is_refused() -> None:
    context = forward(encoder(build(), 1), *inputs([4, 9], 9))
    context.backward(context.mean_ND)
    with pytest.raises(RuntimeError, match="allows one backward pass"):
        context.backward(context.mean_ND)
