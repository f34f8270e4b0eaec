"""What the packed backend alone promises, on a GPU; `test_backends` holds it against the reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from contexts import (
    WORDS,
    ContextMaker,
    assert_same_metrics,
    learn,
    no_progress,
    script,
    set_rate,
    some_draws,
    weights,
)
from torch import Tensor

from accl.config import resolve
from accl.training.backends.reference import ReferenceBackend
from accl.training.context import TrainingContext
from accl.training.setup import build_context

if TYPE_CHECKING:
    from accl.training.backends.packed import PackedBackend

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU"),
]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> ContextMaker:
    return ContextMaker(monkeypatch)


def packed(context: TrainingContext) -> PackedBackend:
    from accl.training.backends.packed import PackedBackend

    return PackedBackend(context)


def first_gradients(context: TrainingContext, backend: PackedBackend | ReferenceBackend) -> Tensor:
    """All gradients of step 1, joined, from AdamW's first moment after it; of the embedding, those of its used rows."""
    backend.step(1)
    state, used = backend.optimizer_state(), torch.from_numpy(context.assembler.used_tokens())
    parts = []
    for name, parameter in context.model.named_parameters():
        value = state[f"exp_avg.{name}"].cpu()
        if "word_embeddings" in name and value.shape == parameter.shape:
            value = value[used]
        parts.append(value.flatten())
    return torch.cat(parts)


def test_bf16_is_as_near_to_fp32_as_autocast_is(make: ContextMaker) -> None:
    sets = ("optim.max_grad_norm=1e9",)
    exact, *low = (
        make("cuda", *sets, f"train.precision={precision}", model="deberta-v3-base", long=True)
        for precision in ("fp32", "bf16", "bf16")
    )
    draws = some_draws(exact, 1)
    for context in (exact, *low):
        script(context, draws)
    expected = first_gradients(exact, ReferenceBackend(exact))
    autocast = first_gradients(low[0], ReferenceBackend(low[0]))
    ours = first_gradients(low[1], packed(low[1]))
    assert 0 < float((ours - expected).norm()) < 1.5 * float((autocast - expected).norm())


def test_gradients_at_the_size_of_deberta_v3_base_are_those_of_transformers(make: ContextMaker) -> None:
    contexts = [make("cuda", "optim.max_grad_norm=1e9", model="deberta-v3-base", long=True) for _ in range(2)]
    draws = some_draws(contexts[0], 1)
    assert int(contexts[0].assembler.lengths(draws[0].questions).max()) > 300
    for context in contexts:
        script(context, draws)
    expected = first_gradients(contexts[0], ReferenceBackend(contexts[0]))
    assert float((first_gradients(contexts[1], packed(contexts[1])) - expected).norm() / expected.norm()) < 1e-5


def test_captured_steps_are_those_that_are_launched_one_by_one(make: ContextMaker) -> None:
    captured, launched = (packed(make("cuda", dropout=0.1, long=True)) for _ in range(2))
    draws = [*some_draws(captured.context, 3, longest=60), *some_draws(captured.context, 5)]
    for backend in (captured, launched):
        script(backend.context, draws)
        set_rate(backend.context, 1e-3)
    expected = learn(captured, range(1, 9))
    assert len(captured._captured) >= 3
    launched._step_for = lambda size: Launcher(launched, size)  # type: ignore[assignment, return-value]
    actual = learn(launched, range(1, 9))
    assert not launched._captured
    assert_same_metrics(actual, expected, 5e-3)


class Launcher:
    """A captured step's look, whose replay launches every kernel."""

    def __init__(self, backend: PackedBackend, size: tuple[int, int]) -> None:
        self.graph, self._backend, self._size = self, backend, size
        self.names: list[str] = []
        self.values = torch.empty(0)

    def replay(self) -> None:
        with self._backend._recorder._drawing():  # as a graph does
            metrics = self._backend._learn(self._size)
        self.names, self.values = list(metrics), torch.stack(list(metrics.values()))


def test_equal_seeds_give_equal_steps_and_other_seeds_other_ones(make: ContextMaker) -> None:
    backends = [packed(make("cuda", dropout=0.2)) for _ in range(2)]
    draws = some_draws(backends[0].context, 5)
    for backend in backends:
        script(backend.context, draws)
        set_rate(backend.context, 1e-3)
    first, second = (learn(backend, range(1, 6)) for backend in backends)
    # Not to the bit: the reference alone promises that.
    assert float(first["loss"][0]) == pytest.approx(float(second["loss"][0]), rel=1e-6)
    assert_same_metrics(first, second, 5e-3)
    # The same questions in another step, at rate 0, meet another mask.
    script(backends[0].context, draws[:1])
    set_rate(backends[0].context, 0.0)
    losses = [float(backends[0].step(step)["classification"]) for step in (6, 7, 6)]
    assert losses[0] == pytest.approx(losses[2], rel=1e-6)
    assert abs(losses[0] - losses[1]) > 1e-4


def test_each_replay_takes_its_own_learning_rate(make: ContextMaker) -> None:
    context = make("cuda")
    backend = packed(context)
    script(context, some_draws(context, 1))

    def moved(step: int, rate: float) -> float:
        before = weights(context)
        set_rate(context, rate)
        backend.step(step)
        backend.optimizer_state()
        after = weights(context)
        return float(torch.stack([(after[name] - value).norm() for name, value in before.items()]).norm())

    assert moved(1, 0.0) == 0
    whole, tenth = moved(2, 1e-3), moved(3, 1e-4)
    assert whole > 0
    assert 0.05 < tenth / whole < 0.2
    assert moved(4, 0.0) == 0
    assert len(backend._captured) == 1


def test_loss_curves_differ_from_those_of_the_reference_by_less_than_seeds_do() -> None:
    def late_loss(backend: str, seed: int) -> float:
        sets = [f"train.backend={backend}", f"train.seed={seed}", "train.device=cuda", "train.precision=bf16"]
        context = build_context(resolve("full", "demo", [*sets, "train.max_steps=200"]).config, lambda _: None)
        context.model.train()
        set_rate(context, 1e-3)
        steps = ReferenceBackend(context) if backend == "reference" else packed(context)
        return float(learn(steps, range(1, 201))["classification"][150:].mean())

    theirs, ours = (np.array([late_loss(name, seed) for seed in (1, 2, 3, 4)]) for name in ("reference", "packed"))
    # Welch's t of about 6 degrees of freedom, at 1 %.
    assert abs(ours.mean() - theirs.mean()) < 3.7 * math.sqrt((ours.var(ddof=1) + theirs.var(ddof=1)) / 4)


def test_lengths_of_streams_are_few_and_little_longer_than_what_they_hold() -> None:
    from accl.training.backends.packed import stream_length

    lengths = [stream_length(tokens) for tokens in range(40_000)]
    assert lengths == sorted(lengths)
    for tokens, length in enumerate(lengths):
        assert length % 128 == 0
        assert max(tokens, 1) <= length
        assert length <= max(tokens + 127, 128, 9 / 8 * tokens)
        assert tokens < 4096 or length <= 17 / 16 * tokens
        assert stream_length(length) == length
    assert len(set(lengths)) < 120


def test_compiling_leaves_weights_and_moments(make: ContextMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    import triton

    from accl.kernels.triton import attention

    packed(make("cuda", dropout=0.1)).prepare(no_progress)
    for kernel in vars(attention).values():
        if isinstance(kernel, triton.JITFunction):
            kernel.device_caches.clear()  # the others are compiled, and launched on what these would have written

    def undefined(make_tensor: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def made(*arguments: Any, **options: Any) -> Tensor:
            tensor = make_tensor(*arguments, **options)
            return tensor.fill_(math.nan) if tensor.is_cuda and tensor.is_floating_point() else tensor

        return made

    for name in ("empty", "empty_like"):
        monkeypatch.setattr(torch, name, undefined(getattr(torch, name)))
    context = make("cuda", dropout=0.1)
    modules = (context.model, context.curriculum.state)
    before = [{name: value.clone() for name, value in module.state_dict().items()} for module in modules]
    backend = packed(context)
    backend.prepare(no_progress)
    state = backend.optimizer_state()
    for module, values in zip(modules, before, strict=True):
        torch.testing.assert_close(module.state_dict(), values, rtol=0, atol=0, equal_nan=True)
    assert not any(value.any() for name, value in state.items() if name.startswith("exp_avg"))


def test_a_rehearsal_in_mid_run_leaves_the_updates_that_words_wait_for(make: ContextMaker) -> None:
    def moments(rehearses: bool) -> Tensor:
        backend = packed(make("cuda"))
        script(backend.context, some_draws(backend.context, 3))
        set_rate(backend.context, 0.0)
        learn(backend, range(1, 3))
        if rehearses:
            backend._rehearse(next(iter(backend._captured)))
        learn(backend, range(3, 4))
        return backend.optimizer_state()[f"exp_avg.{WORDS}"].clone()

    expected, found = moments(rehearses=False), moments(rehearses=True)
    assert float((found - expected).norm() / expected.norm()) < 1e-4
