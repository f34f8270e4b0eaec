"""The compact embedding: the same numbers as the whole one, in training, in state dicts and in checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from accl.config import resolve
from accl.errors import RunError
from accl.kernels.triton.vocabulary import CompactEmbedding
from accl.training import checkpoint
from accl.training.backends.reference import EagerPath
from accl.training.checkpoint import Progress
from accl.training.setup import Workbench, build

WORDS = "encoder.embeddings.word_embeddings.weight"
ROWS, WIDTH = 12, 5


def whole_embedding(padding: int | None = 0) -> nn.Embedding:
    torch.manual_seed(0)
    return nn.Embedding(ROWS, WIDTH, padding_idx=padding)


def gradient_of_rows(embedding: nn.Module, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings, and their gradient under a loss that sees every number of them differently."""
    out = embedding(ids)
    (out * torch.arange(1.0, 1 + out.numel()).view_as(out).sin()).sum().backward()
    weight = embedding.weight
    assert isinstance(weight, Tensor)
    assert weight.grad is not None
    return out.detach(), weight.grad


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_embeddings_and_gradients_are_those_of_the_whole(data: st.DataObject) -> None:
    used = data.draw(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=ROWS, unique=True))
    ids = torch.tensor(data.draw(st.lists(st.lists(st.sampled_from(used), min_size=3, max_size=3), min_size=1)))
    # Among the used rows or not: padding that no input holds must not take another row's place.
    whole = whole_embedding(data.draw(st.none() | st.integers(0, ROWS - 1)))
    compact = CompactEmbedding(whole, torch.tensor(used))
    expected, expected_gradient = gradient_of_rows(whole, ids)
    found, gradient = gradient_of_rows(compact, ids)
    assert torch.equal(found, expected)
    torch.testing.assert_close(gradient, expected_gradient[used])
    assert compact.weight.shape == (len(used), WIDTH)


def test_its_state_is_the_whole_table_with_what_was_learnt_in_place() -> None:
    whole = whole_embedding()
    before, used = whole.weight.detach().clone(), [7, 0, 3]
    compact = CompactEmbedding(whole, torch.tensor(used))
    with torch.no_grad():
        compact.weight.add_(1)
    state = compact.state_dict()
    assert list(state) == ["weight"]
    expected = before.clone()
    expected[used] += 1
    assert torch.equal(state["weight"], expected)
    assert torch.equal(whole.weight, before)


def test_a_whole_table_that_is_loaded_comes_back() -> None:
    compact = CompactEmbedding(whole_embedding(), torch.tensor([7, 0, 3]))
    parameter = compact.weight
    other = torch.randn(ROWS, WIDTH)
    compact.load_state_dict({"weight": other.clone()})
    assert compact.weight is parameter
    assert torch.equal(compact(torch.tensor([3, 7])), other[[3, 7]])
    assert torch.equal(compact.state_dict()["weight"], other)
    again = whole_embedding()
    again.load_state_dict(compact.state_dict())
    assert torch.equal(again.weight, other)


def test_a_table_of_another_size_and_a_missing_one_are_refused() -> None:
    compact = CompactEmbedding(whole_embedding(), torch.tensor([7, 0, 3]))
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        compact.load_state_dict({"weight": torch.randn(ROWS + 1, WIDTH)})
    with pytest.raises(RuntimeError, match="Missing key"):
        compact.load_state_dict({})


# --- training


@pytest.fixture(scope="module")
def prepared() -> dict[str, Workbench]:
    """The demo with the whole embedding and with the compact one, before any step."""
    settings_ = ["train.max_steps=20", "train.batch_size=8", "sampler.questions_per_task=2"]
    return {
        path: build(resolve("full", "demo", [*settings_, f"train.backend={path}"]).config, lambda _: None)
        for path in ("reference", "auto")
    }


@pytest.fixture
def benches(prepared: dict[str, Workbench]) -> Iterator[tuple[Workbench, Workbench]]:
    """Both, put back afterwards."""
    kept = [{k: v.clone() for k, v in bench.model.state_dict().items()} for bench in prepared.values()]
    bank = {k: v.clone() for k, v in bank_of(prepared["auto"]).state_dict().items()}
    yield prepared["reference"], prepared["auto"]
    for bench, state in zip(prepared.values(), kept, strict=True):
        bench.model.load_state_dict(state)
        bank_of(bench).load_state_dict(bank)


def bank_of(bench: Workbench) -> nn.Module:
    assert bench.bank is not None
    return bench.bank


def learn(bench: Workbench, path: EagerPath, steps: range) -> Tensor:
    """Some steps on questions of fixed order; their figures, steps x figures."""
    bench.model.train()
    sampler = bench.sampler.clone()
    draws = {step: sampler.draw(step, bench.curriculum.weights) for step in range(1, steps.stop)}
    return torch.stack([path.step(step, draws[step], 1e-3) for step in steps])


def assert_same_weights(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=2e-6, msg=lambda text, n=name: f"{n}: {text}")


def test_training_with_the_used_rows_alone_is_training_with_all(benches: tuple[Workbench, Workbench]) -> None:
    eager, auto = benches
    before = {name: value.clone() for name, value in auto.model.state_dict().items()}
    assert_same_weights(before, eager.model.state_dict())
    used = auto.assembler.used_tokens()
    assert 0 < len(used) < len(before[WORDS])
    figures = [learn(bench, EagerPath(bench), range(1, 6)) for bench in benches]
    torch.testing.assert_close(*figures, rtol=1e-4, atol=1e-5)

    expected, found = eager.model.state_dict(), auto.model.state_dict()
    assert_same_weights(found, expected)
    unused = np.setdiff1d(np.arange(len(before[WORDS])), used)
    for table in (expected[WORDS], found[WORDS]):
        assert torch.equal(table[unused], before[WORDS][unused])
        assert torch.equal(table[auto.assembler.pad_id], before[WORDS][auto.assembler.pad_id])
    moved = (found[WORDS] != before[WORDS]).any(1)
    assert moved.sum() > 50


@pytest.mark.parametrize("first", ["reference", "auto"])
def test_a_checkpoint_of_one_embedding_gives_the_other_its_weights_and_not_its_moments(
    benches: tuple[Workbench, Workbench], first: str, tmp_path: Path
) -> None:
    here, there = benches if first == "reference" else reversed(benches)
    path = EagerPath(here)
    learn(here, path, range(1, 4))
    progress = Progress(3, here.sampler.state(), here.curriculum.weights.tolist(), 0.0, 0.0, -1.0, 0)
    name = checkpoint.save(tmp_path, progress, here.model, path.optimizer, {"bank": bank_of(here)})
    with pytest.raises(RunError, match=r"made with another train\.backend: .*word_embeddings"):
        checkpoint.load(tmp_path / name, there.model, EagerPath(there).optimizer, {"bank": bank_of(there)})
    checkpoint.load_model(tmp_path / name, there.model)
    assert_same_weights(there.model.state_dict(), here.model.state_dict())
