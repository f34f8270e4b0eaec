"""Every encoder that has packed layers against transformers' own, on a GPU, or in Triton's interpreter with
TRITON_INTERPRET=1."""

from __future__ import annotations

import itertools
import math
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from contexts import learn, set_rate
from torch import Tensor, nn

from accl.config import resolve
from accl.data.architectures import ARCHITECTURES
from accl.training.backends.reference import ReferenceBackend
from accl.training.setup import build_context

if TYPE_CHECKING:
    from accl.kernels.triton.attention import PackedSequences
    from accl.training.backends.packed_encoder import PackedEncoder

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (torch.cuda.is_available() or INTERPRETED), reason="torch sees no NVIDIA GPU"),
]
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
VOCABULARY, LENGTHS, TOKENS, WIDTH = 40, [60, 31, 20, 1], 128, 64
# transformers' names of encoders, and what distinguishes their settings.
DISENTANGLED = {
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_buckets": 16,
    "position_biased_input": False,
    "type_vocab_size": 0,
}
ENCODERS: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 32, "classifier_dropout_prob": 0.0},
    "bert": {},
    "bert relu": {"hidden_act": "relu"},
    "camembert": {"pad_token_id": 1, "max_position_embeddings": 70},
    "deberta-v2": DISENTANGLED,
    "distilbert": {"dim": WIDTH, "n_heads": 2, "n_layers": 2, "hidden_dim": 128},
    "electra": {"embedding_size": WIDTH},
    "electra small": {"embedding_size": 32},
    "eurobert": {"num_key_value_heads": 1},
    "modernbert": {"num_hidden_layers": 3, "local_attention": 16, "global_attn_every_n_layers": 2},
    "mpnet": {"max_position_embeddings": 70},
    "roberta": {"pad_token_id": 0, "type_vocab_size": 1},
    "xlm-roberta": {"pad_token_id": 1},
}
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}


class OneStream:
    """The side stream of a machine without CUDA: everything is in order there."""

    def __init__(self, _device: torch.device) -> None:
        """Nothing to open."""

    @contextmanager
    def on_stream(self, *_used: Tensor) -> Any:
        yield

    def record_event(self) -> None:
        """Nothing to wait for."""

    def join(self) -> None:
        """Nothing to wait for."""


@pytest.fixture(autouse=True)
def _streams(monkeypatch: pytest.MonkeyPatch) -> None:
    if INTERPRETED:
        for module in ("deberta", "postnorm"):
            monkeypatch.setattr(f"accl.kernels.triton.{module}.SideStream", OneStream)


def encoder_of(model_type: str, dropout: float = 0.0, **changed: Any) -> Any:
    """A small encoder of transformers, far from its initial weights."""
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    names = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout")
    tokens = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 2}
    values = {"vocab_size": VOCABULARY} | SIZES | tokens | dict.fromkeys(names, dropout) | ENCODERS[model_type]
    encoder = AutoModel.from_config(AutoConfig.for_model(model_type.split()[0], **values | changed))
    encoder.pooler = None
    with torch.no_grad():
        for weight in encoder.parameters():
            weight += 0.1 * torch.randn_like(weight)
    return encoder.train().to(DEVICE)


def packed_of(encoder: Any) -> tuple[PackedEncoder, nn.Parameter]:
    """The packed passes of an encoder, as the backend makes them, and the words, whose gradient is kept apart."""
    from accl.kernels.triton.embedding import WordEmbedding
    from accl.kernels.triton.flat import FlatParameters
    from accl.training.backends.packed_encoder import family_of

    family = family_of(encoder)
    assert family is not None
    embedding = encoder.get_input_embeddings().weight
    words = nn.Parameter(embedding.detach().clone())
    matrices, vectors = list(family.written_matrices(encoder)), list(family.layer_vectors(encoder))
    written = {id(parameter) for parameter in (*matrices, *vectors, embedding)}
    rest = [parameter for parameter in encoder.parameters() if id(parameter) not in written]
    flat = FlatParameters([matrices, vectors, rest, [words]])
    weights = flat.values[: flat.bounds[2]].clone()
    rows = torch.arange(VOCABULARY, device=DEVICE)
    table = WordEmbedding(rows, flat.view(flat.values, words), flat.view(flat.gradients, words))
    # The backward pass must write these.
    flat.gradients[: flat.bounds[1]] = torch.nan
    return family.make(encoder, table, flat, weights, 0), words


def stream_of(lengths: list[int]) -> tuple[Tensor, PackedSequences]:
    """Token ids of a stream with padding behind its sequences."""
    from accl.kernels.triton.attention import PackedSequences

    start = torch.arange(TOKENS, dtype=torch.int32)
    end = start + 1
    for first, last in itertools.pairwise(np.cumsum([0, *lengths]).tolist()):
        start[first:last], end[first:last] = first, last
    ids = torch.randint(3, VOCABULARY, (TOKENS,), generator=torch.Generator().manual_seed(1)).int()
    seed = torch.tensor([3], device=DEVICE)
    return ids.to(DEVICE), PackedSequences(start.to(DEVICE), end.to(DEVICE), seed)


@pytest.mark.parametrize("model_type", sorted(ENCODERS))
def test_hidden_states_and_all_gradients_are_those_of_transformers(model_type: str) -> None:
    encoder, reference = encoder_of(model_type), encoder_of(model_type)
    packed, words = packed_of(encoder)
    ids, sequences = stream_of(LENGTHS)
    packed.prepare(256)
    hidden, cache = packed.forward(ids, sequences, 256)
    total = sum(LENGTHS)
    dhidden = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    dhidden[total:] = 0
    packed.backward(dhidden.clone(), cache)

    parts = [reference(input_ids=part[None].long()).last_hidden_state[0] for part in ids[:total].split(LENGTHS)]
    joined = torch.cat(parts)
    joined.backward(dhidden[:total])
    expected = joined.detach()
    assert float((hidden[:total] - expected).norm() / expected.norm()) < 1e-5
    infer = packed.infer(ids, sequences, 256)[:total]
    assert float((infer - expected).norm() / expected.norm()) < 1e-5
    name_of_words = next(n for n, p in encoder.named_parameters() if p is encoder.get_input_embeddings().weight)
    actual = {name: words.grad if name == name_of_words else p.grad for name, p in encoder.named_parameters()}
    wanted = {name: p.grad for name, p in reference.named_parameters()}
    assert actual.keys() == wanted.keys()
    whole = float(torch.stack([g.norm() for g in wanted.values() if g is not None]).norm())
    for name, gradient in wanted.items():
        assert gradient is not None, name
        # The bias of all keys has the gradient 0 by mathematics.
        error = float((actual[name] - gradient).norm())  # type: ignore[operator]
        assert error < 1e-5 * (float(gradient.norm()) + 0.01 * whole), name


@pytest.mark.parametrize("model_type", ["bert", "bert relu", "distilbert", "modernbert", "mpnet"])
def test_dropout_is_that_of_the_seed_and_in_every_place_of_the_encoder(model_type: str) -> None:
    encoder = encoder_of(model_type, dropout=0.5)
    packed, _ = packed_of(encoder)
    ids, sequences = stream_of([64, 64])
    without, with_it = packed.infer(ids, sequences, 256), packed.forward(ids, sequences, 256)[0]
    again = packed.forward(ids, sequences, 256)[0]
    assert torch.equal(with_it, again)
    assert float((with_it - without).norm() / without.norm()) > 0.3
    sequences.seed.add_(1)
    assert float((packed.forward(ids, sequences, 256)[0] - with_it).norm() / without.norm()) > 0.3


@pytest.mark.parametrize(
    ("model_type", "changed", "reason"),
    [
        ("camembert", {"num_attention_heads": 8}, "the packed layers need heads of 16, 32, 64 or 128 channels"),
        ("roberta", {"is_decoder": True}, "the packed layers need no causal mask"),
        ("deberta-v2", {"share_att_key": False}, "the packed layers need share_att_key"),
    ],
)
def test_an_encoder_that_the_layers_do_not_compute_is_refused_with_the_reason(
    model_type: str, changed: dict[str, Any], reason: str
) -> None:
    from accl.training.backends.packed_encoder import unsupported

    assert unsupported(encoder_of(model_type)) is None
    assert unsupported(encoder_of(model_type, **changed)) == reason


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="a backend needs CUDA graphs")
@pytest.mark.parametrize(
    "model_type", ["bert", "distilbert", "electra", "electra small", "modernbert", "mpnet", "roberta"]
)
def test_loss_curves_differ_from_those_of_the_reference_by_less_than_seeds_do(
    model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"max_position_embeddings": 514, "type_vocab_size": 2} | SIZES | ENCODERS[model_type]
    name = "roberta-base"  # any architecture, which is changed for the test
    monkeypatch.setitem(ARCHITECTURES, name, ARCHITECTURES[name] | own | {"model_type": model_type.split()[0]})

    def late_loss(backend: str, seed: int) -> float:
        from accl.training.backends.packed import PackedBackend

        sets = [f"train.backend={backend}", f"train.seed={seed}", "train.device=cuda", "train.precision=bf16"]
        sets += ["train.max_steps=200", f"model.name=random:{name}"]
        context = build_context(resolve("full", "demo", sets).config, lambda _: None)
        # MPNet's padding is token 1 whatever the tokenizer, the first of every input here.
        for module in context.model.encoder.modules():
            if getattr(module, "padding_idx", None) is not None:
                module.padding_idx = context.assembler.pad_id  # type: ignore[assignment]
        context.model.train()
        set_rate(context, 1e-3)
        steps = ReferenceBackend(context) if backend == "reference" else PackedBackend(context)
        return float(learn(steps, range(1, 201))["classification"][150:].mean())

    theirs, ours = (np.array([late_loss(name, seed) for seed in (1, 2, 3, 4)]) for name in ("reference", "packed"))
    # Welch's t of about 6 degrees of freedom, at 1 %.
    assert abs(ours.mean() - theirs.mean()) < 3.7 * math.sqrt((ours.var(ddof=1) + theirs.var(ddof=1)) / 4)
