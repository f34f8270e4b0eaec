"""DeBERTa by rows: hidden states, gradients, dropout and weights as with transformers' own module."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import BertConfig, DebertaV2Config, DebertaV2Model

from accl.data.hub import cache_folder
from accl.kernels.cpu.native import load
from accl.kernels.cpu.rooms import Rooms
from accl.kernels.cpu.rows import RowEncoder, unsupported
from accl.kernels.cpu.team import Team
from accl.kernels.triton.vocabulary import CompactEmbedding
from accl.method.model import ContrastiveCurriculumModel, mean_pool

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
VARIANTS: dict[str, dict[str, Any]] = {
    "v3": {},
    "no buckets": {"position_buckets": -1, "max_relative_positions": 6},
    "projections of their own for positions": {"share_att_key": False},
    "table as it is": {"norm_rel_ebd": "none"},
}


def build(**changed: Any) -> Any:
    """An encoder whose attention is far from uniform, so that no term of the scores can hide."""
    torch.manual_seed(0)
    module = DebertaV2Model(DebertaV2Config(**(SMALL | changed)))
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return module


def encoder(module: Any, threads: int) -> RowEncoder:
    kernels = load(cache_folder())
    return RowEncoder(module, kernels, Team(threads, kernels))


def inputs(lengths: list[int], width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(lengths))
    ids_NL = torch.randint(1, VOCABULARY, (len(lengths), width), generator=generator)
    mask_NL = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    return ids_NL * mask_NL, mask_NL


def states_and_gradients(module: Any, encode: Any, ids_NL: Tensor, mask_NL: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Hidden states of real tokens, and the gradients of every parameter under a loss that sees all of them."""
    module.zero_grad()
    hidden_NLD = encode(input_ids=ids_NL, attention_mask=mask_NL).last_hidden_state
    real_TD = hidden_NLD[mask_NL.bool()]
    weights_TD = torch.sin(torch.arange(real_TD.numel(), dtype=real_TD.dtype)).view_as(real_TD)
    (real_TD * weights_TD).sum().backward()
    return real_TD.detach(), {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def assert_same_as_transformers(module: Any, threads: int, ids_NL: Tensor, mask_NL: Tensor) -> None:
    """To 1e-5 of the largest gradient's norm, and some of what single precision costs transformers itself: few rows of
    random weights may be ill-conditioned."""
    exact = deepcopy(module).double()
    expected_TD, expected = states_and_gradients(exact, exact, ids_NL, mask_NL)
    _, theirs = states_and_gradients(module, module, ids_NL, mask_NL)
    found_TD, found = states_and_gradients(module, encoder(module, threads), ids_NL, mask_NL)
    torch.testing.assert_close(found_TD.double(), expected_TD, rtol=0, atol=1e-5 * float(expected_TD.abs().max()))
    assert found.keys() == expected.keys()
    # Not of each tensor's own: a bias of keys or positions moves most scores of a query alike, so its gradient is what
    # is left of sums that cancel.
    largest = max(float(gradient.norm()) for gradient in expected.values())
    for name, gradient in expected.items():
        allowed = 1e-5 * largest + 3 * float((theirs[name] - gradient).norm())
        assert float((found[name] - gradient).norm()) <= allowed, name


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=6, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 19), min_size=1, max_size=7),
    padding=st.integers(0, 2),
    threads=st.integers(1, 3),
)
def test_hidden_states_and_all_gradients_are_those_of_transformers(
    variant: str, lengths: list[int], padding: int, threads: int
) -> None:
    assert_same_as_transformers(build(**VARIANTS[variant]), threads, *inputs(lengths, max(lengths) + padding))


@pytest.mark.parametrize("variant", ["v3", "no buckets", "projections of their own for positions"])
@pytest.mark.parametrize(("hidden", "heads"), [(16, 4), (64, 4), (64, 2), (128, 2), (60, 3)])
def test_heads_of_all_sizes_agree_on_rows_beyond_the_span_of_the_table(variant: str, hidden: int, heads: int) -> None:
    module = build(**VARIANTS[variant] | {"hidden_size": hidden, "num_attention_heads": heads})
    assert_same_as_transformers(module, 2, *inputs([3, 40, 17, 18, 1], 40))


def test_padding_gets_zeros() -> None:
    ids_NL, mask_NL = inputs([2, 5], 6)
    hidden_NLD = encoder(build(), 2)(ids_NL, mask_NL).last_hidden_state
    assert hidden_NLD[mask_NL == 0].abs().max() == 0
    assert hidden_NLD[mask_NL == 1].abs().min() > 0


def test_without_gradients_the_states_are_the_same() -> None:
    module = build()
    ids_NL, mask_NL = inputs([4, 9, 2], 9)
    encode = encoder(module, 2)
    with torch.no_grad():
        alone_NLD = encode(ids_NL, mask_NL).last_hidden_state
    assert not alone_NLD.requires_grad
    torch.testing.assert_close(alone_NLD, encode(ids_NL, mask_NL).last_hidden_state)


def test_autocast_does_not_narrow_it() -> None:
    module = build()
    ids_NL, mask_NL = inputs([4, 9, 2], 9)
    encode = encoder(module, 2)
    exact_TD, exact = states_and_gradients(module, encode, ids_NL, mask_NL)
    with torch.autocast("cpu", torch.bfloat16):
        found_TD, found = states_and_gradients(module, encode, ids_NL, mask_NL)
    assert torch.equal(found_TD, exact_TD)
    torch.testing.assert_close(found, exact, rtol=0, atol=0)


@pytest.mark.parametrize("stranger", [VOCABULARY, 10**9, -1])
def test_a_token_id_beyond_the_vocabulary_is_refused(stranger: int) -> None:
    ids_NL, mask_NL = inputs([4, 9], 9)
    ids_NL[1, 3] = stranger
    with pytest.raises(IndexError, match="1 token ids have no row in an embedding of 50"):
        encoder(build(), 2)(ids_NL, mask_NL)


def test_an_embedding_of_the_used_tokens_alone_gives_the_same() -> None:
    module, (ids_NL, mask_NL) = build(), inputs([4, 9, 2], 9)
    expected_TD, expected = states_and_gradients(module, encoder(module, 2), ids_NL, mask_NL)
    used = ids_NL[mask_NL.bool()].unique().flip(0)
    module.embeddings.word_embeddings = CompactEmbedding(module.embeddings.word_embeddings, used)
    found_TD, found = states_and_gradients(module, encoder(module, 2), ids_NL, mask_NL)
    assert torch.equal(found_TD, expected_TD)
    words = "embeddings.word_embeddings.weight"
    assert torch.equal(found.pop(words), expected.pop(words)[used])
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_the_row_of_padding_is_not_learnt() -> None:
    module = build()
    ids_NL, mask_NL = inputs([4, 9, 2], 9)
    ids_NL[1, 3] = module.embeddings.word_embeddings.padding_idx
    assert_same_as_transformers(module, 2, ids_NL, mask_NL)
    _, found = states_and_gradients(module, encoder(module, 2), ids_NL, mask_NL)
    assert found["embeddings.word_embeddings.weight"].abs().sum(1).gt(0).tolist() == [
        i in ids_NL[mask_NL.bool()] and i != module.embeddings.word_embeddings.padding_idx for i in range(VOCABULARY)
    ]


@pytest.mark.parametrize("threads", [1, 2])
def test_dropout_depends_on_the_seed_alone(threads: int) -> None:
    module = build(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2).train()
    ids_NL, mask_NL = inputs([4, 9, 2, 7], 9)
    encode = encoder(module, threads)

    def drawn(seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        torch.manual_seed(seed)
        return states_and_gradients(module, encode, ids_NL, mask_NL)

    (first_TD, first), (again_TD, again), (other_TD, _) = drawn(1), drawn(1), drawn(2)
    assert torch.equal(first_TD, again_TD)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.allclose(first_TD, other_TD)
    module.eval()
    assert not torch.allclose(first_TD, drawn(1)[0])


@pytest.mark.parametrize("place", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_dropout_shifts_and_scatters_states_as_transformers_does(place: str) -> None:
    module = build(**{place: 0.3}).train()
    ids_NL, mask_NL = inputs([5] * 6, 5)
    many_NL, masks_NL = ids_NL.repeat(600, 1), mask_NL.repeat(600, 1)
    torch.manual_seed(3)

    def sampled(encode: Any) -> Tensor:
        return encode(input_ids=many_NL, attention_mask=masks_NL).last_hidden_state.view(600, -1)

    z, ratio = [], []
    ours = encoder(module, 2)
    with torch.no_grad():
        for _ in range(4):
            theirs_SX, ours_SX = sampled(module), sampled(ours)
            error_X = ((theirs_SX.var(0) + ours_SX.var(0)) / 600).sqrt()
            z.append((theirs_SX.mean(0) - ours_SX.mean(0)) / error_X)
            ratio.append(ours_SX.std(0) / theirs_SX.std(0))
    assert 0.85 < float(torch.stack(z).std()) < 1.15
    assert abs(float(torch.stack(ratio).mean()) - 1) < 0.02


def test_it_stands_in_for_the_encoder_and_leaves_the_weights_where_they_are() -> None:
    model = ContrastiveCurriculumModel(
        build(), hidden=16, tasks=3, choices=4, contrastive_dim=8, head="single_sequence"
    ).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    chunk, inverse_perm_N, task_B = inputs([3, 8, 5], 8), torch.arange(3), torch.tensor([0, 1, 2])
    expected = model([chunk], inverse_perm_N, task_B)
    model.encode = encoder(model.encoder, 2)
    found = model([chunk], inverse_perm_N, task_B)
    torch.testing.assert_close(found.logits_BC, expected.logits_BC, rtol=1e-4, atol=1e-5)
    assert before.keys() == model.state_dict().keys()
    with torch.no_grad():
        model.encoder.embeddings.word_embeddings.weight.copy_(model.encoder.embeddings.word_embeddings.weight.flip(0))
    assert not torch.allclose(model([chunk], inverse_perm_N, task_B).logits_BC, found.logits_BC)
    model.load_state_dict(before)
    torch.testing.assert_close(model([chunk], inverse_perm_N, task_B).logits_BC, found.logits_BC)


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
        (DebertaV2Config(**SMALL), None),
    ],
)
def test_what_it_cannot_compute_it_names(config: Any, reason: str | None) -> None:
    assert unsupported(config) == reason


def test_weights_in_another_precision_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\.float\(\)"):
        encoder(build().double(), 1)


def test_gradients_that_are_one_number_repeated_are_taken_as_well() -> None:
    module = build()
    ids_NL, mask_NL = inputs([4, 9, 2], 9)

    def gradients(ones: bool) -> dict[str, Tensor]:
        module.zero_grad()
        states_TD = encoder(module, 2).states(ids_NL[1], np.array([6, 3]))
        states_TD.sum().backward() if ones else states_TD.backward(torch.ones_like(states_TD))
        return {name: parameter.grad.clone() for name, parameter in module.named_parameters()}

    assert mask_NL[1].all()
    torch.testing.assert_close(gradients(True), gradients(False), rtol=0, atol=0)


def test_an_unsupported_encoder_is_refused() -> None:
    module = DebertaV2Model(DebertaV2Config(**SMALL, conv_kernel_size=3))
    with pytest.raises(ValueError, match="a convolution beside the first layer"):
        encoder(module, 1)


@pytest.mark.parametrize("threads", [1, 3])
def test_means_of_packed_rows_are_those_of_padded_ones(threads: int) -> None:
    module, lengths = build(), [9, 7, 4, 4, 2]
    ids_NL, mask_NL = inputs(lengths, 9)
    encode, inverse_perm_N = encoder(module, threads), torch.tensor([3, 0, 4, 1, 2])
    weight_N = 1.0 + torch.arange(len(lengths))

    def gradients() -> dict[str, Tensor]:
        return {name: parameter.grad.clone() for name, parameter in module.named_parameters()}

    expected_ND = mean_pool(encode(ids_NL, mask_NL).last_hidden_state, mask_NL)[inverse_perm_N]
    (expected_ND.square().sum(1) * weight_N).sum().backward()
    expected = gradients()
    module.zero_grad()
    passage = encode.run(ids_NL[mask_NL.bool()], np.array(lengths), inverse_perm_N.argsort(), learning=True)
    torch.testing.assert_close(passage.out, expected_ND)
    passage.back(2 * weight_N[:, None] * passage.out)
    torch.testing.assert_close(gradients(), expected)


def test_gradients_are_added_to_those_that_are_there_and_only_where_they_are_wanted() -> None:
    module = build()
    ids_NL, mask_NL = inputs([4, 9, 2], 9)
    encode = encoder(module, 2)
    _, once = states_and_gradients(module, encode, ids_NL, mask_NL)
    frozen = "encoder.layer.0.output.dense.weight"
    module.get_parameter(frozen).requires_grad_(False)
    module.zero_grad()
    for _ in range(2):
        hidden_NLD = encode(ids_NL, mask_NL).last_hidden_state
        real_TD = hidden_NLD[mask_NL.bool()]
        (real_TD * torch.sin(torch.arange(real_TD.numel())).view_as(real_TD)).sum().backward()
    twice = {name: p.grad / 2 for name, p in module.named_parameters() if p.grad is not None}
    assert twice.keys() == once.keys() - {frozen}
    torch.testing.assert_close(twice, {name: once[name] for name in twice})


def test_memory_that_is_used_again_leaves_no_trace() -> None:
    module, (ids_NL, mask_NL) = build(), inputs([4, 9, 2], 9)
    encode = encoder(module, 2)
    expected_TD, expected = states_and_gradients(module, encode, ids_NL, mask_NL)

    class Spoilt(Rooms):
        def take(self, count: int) -> Tensor:
            return super().take(count).fill_(float("nan"))

    encode.rooms = Spoilt()
    for _ in range(2):
        found_TD, found = states_and_gradients(module, encode, ids_NL, mask_NL)
        assert torch.equal(found_TD, expected_TD)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_passes_that_overlap_do_not_share_memory() -> None:
    module = build()
    encode, (first, second) = encoder(module, 2), (inputs([4, 9], 9), inputs([7, 5, 1], 7))

    def gradients(together: bool) -> dict[str, Tensor]:
        module.zero_grad()
        losses = []
        for rows in (first, second):
            losses.append(encode(*rows).last_hidden_state.square().sum())
            if not together:
                losses.pop().backward()
        for loss in losses:
            loss.backward()
        return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}

    torch.testing.assert_close(gradients(together=True), gradients(together=False), rtol=0, atol=0)


def test_going_back_twice_is_refused() -> None:
    loss = encoder(build(), 1)(*inputs([4, 9], 9)).last_hidden_state.sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="rows go back through the layers once"):
        loss.backward()
