"""Fast steps against eager ones, on a GPU; what imports Triton is imported where a GPU is there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor
from workbenches import (
    DEVICE_NAME,
    QUESTIONS,
    WORDS,
    Maker,
    assert_same_figures,
    bank_of,
    learn,
    no_progress,
    some_draws,
)

from accl.config import resolve
from accl.data.sampler import Draw
from accl.kernels.triton.vocabulary import CompactEmbedding
from accl.training import checkpoint
from accl.training.backends.heads import enable_bank, judge, watch
from accl.training.backends.reference import EagerPath
from accl.training.checkpoint import Progress
from accl.training.device import seed_step, to_device
from accl.training.objective import FIGURES
from accl.training.setup import Workbench, build

if TYPE_CHECKING:
    from accl.training.backends.packed import FastPath

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU"),
]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Maker:
    return Maker(monkeypatch)


def fast_path(bench: Workbench) -> FastPath:
    from accl.training.backends.packed import FastPath

    return FastPath(bench)


def eager_gradients(bench: Workbench, draw: Draw) -> dict[str, Tensor]:
    """As `EagerPath.step` computes them, before clipping; of the embedding, those of the rows in use."""
    batch = to_device(bench.assembler.batch(draw.questions, draw.option_order), bench.placement.device)
    with bench.placement.autocasting():
        pooled_ND = bench.model.pooled(batch.chunks, batch.inverse_perm_N)
    enable_bank(bench, 1)
    judged = judge(bench, pooled_ND, batch.labels)
    judged.backward()
    torch.autograd.backward(pooled_ND, judged.shared_ND.grad)
    watch(bench, judged)
    found = {name: p.grad.clone() for name, p in bench.model.named_parameters() if p.grad is not None}
    bench.model.zero_grad(set_to_none=True)
    if not isinstance(bench.model.get_submodule(WORDS.removesuffix(".weight")), CompactEmbedding):
        found[WORDS] = found[WORDS][bench.assembler.used_tokens()]
    return found


def fast_gradients(path: FastPath, draw: Draw) -> dict[str, Tensor]:
    """What a captured step at rate 0, which changes no weight, leaves in place."""
    path.step(1, draw, 0.0)
    return {name: p.grad.clone() for name, p in path.bench.model.named_parameters() if p.grad is not None}


def wrong(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> dict[str, float]:
    """Gradients that are farther off than their own norm and a trifle of the whole's allow: the bias of all keys, and
    the last one of per_option, are 0 by mathematics and rounding alone."""
    assert found.keys() == expected.keys()
    whole = float(torch.stack([g.double().norm() for g in expected.values()]).norm())
    off = {name: float((found[name].double() - g.double()).norm()) for name, g in expected.items()}
    return {n: e for n, e in off.items() if e > tolerance * (float(expected[n].double().norm()) + 0.01 * whole)}


def apart(found: dict[str, Tensor], expected: dict[str, Tensor], before: dict[str, Tensor]) -> float:
    """Distance between weights, as a share of how far they have come.

    AdamW makes whole steps of gradients that are rounding alone (see `wrong`), so their parameters are left out.
    """
    names = [name for name in before if not name.endswith(("key_proj.bias", "classifier.4.bias"))]
    between, moved = (
        torch.stack([(expected[name].cpu() - state[name].cpu()).norm() for name in names]).norm()
        for state in (found, before)
    )
    return float(between / moved)


@pytest.mark.parametrize("head", ["per_option", "single_sequence"])
@pytest.mark.parametrize("model", ["tiny", "deberta-v3-base"])
def test_logits_and_all_gradients_are_those_of_transformers(make: Maker, model: str, head: str) -> None:
    eager, fast = (make(path, f"model.head={head}", model=model, long=True) for path in ("reference", "auto"))
    path = fast_path(fast)
    # First short ones alone: the reach of the longer ones comes later, as it may in a run.
    draws = [*some_draws(fast, 1, longest=60), *some_draws(fast, 3)]
    longest = [int(fast.assembler.lengths(draw.questions).max()) for draw in draws]
    assert longest[0] <= 60
    assert max(longest) > 300
    for draw in draws:
        assert wrong(fast_gradients(path, draw), eager_gradients(eager, draw), 1e-5) == {}

    questions = fast.positions["validation"][:9]
    reference = EagerPath(eager)
    with torch.no_grad():
        for bench in (eager, fast):
            bench.model.eval()
        found, expected = path.forward(questions), reference.forward(questions)
    for name in ("logits_BC", "features_BD", "z_BE"):
        a, b = getattr(found, name), getattr(expected, name)
        assert float((a - b).norm() / b.norm()) < 1e-5, name


def test_bf16_is_as_near_to_fp32_as_autocast_is(make: Maker) -> None:
    exact = make("reference", model="deberta-v3-base", long=True)
    narrow = [make(path, "train.precision=bf16", model="deberta-v3-base", long=True) for path in ("reference", "auto")]
    (draw,) = some_draws(exact, 1)
    expected = eager_gradients(exact, draw)
    far = []
    for found in (eager_gradients(narrow[0], draw), fast_gradients(fast_path(narrow[1]), draw)):
        gap = torch.cat([(found[name] - g).flatten() for name, g in expected.items()]).norm()
        far.append(float(gap / torch.cat([g.flatten() for g in expected.values()]).norm()))
    assert 0 < far[1] < 1.5 * far[0]


def test_steps_learn_what_eager_ones_learn_and_leave_unused_words_to_the_bit(make: Maker) -> None:
    eager, fast = (make(path, long=True) for path in ("reference", "auto"))
    before = {name: value.clone() for name, value in fast.model.state_dict().items()}
    path, draws = fast_path(fast), some_draws(fast, 20)
    found, expected = learn(path, draws, 1e-4), learn(EagerPath(eager), draws, 1e-4)
    # Accuracy goes by whole questions, and may turn on a rounding.
    accuracy = [figures.pop("accuracy") for figures in (found, expected)]
    assert float((accuracy[0] - accuracy[1]).abs().sum()) <= 2 / QUESTIONS
    assert_same_figures(found, expected, 5e-3)
    path.settle()
    after, reference = fast.model.state_dict(), eager.model.state_dict()
    assert list(after) == list(reference)
    assert [value.shape for value in after.values()] == [value.shape for value in reference.values()]
    unused = np.setdiff1d(np.arange(len(before[WORDS])), fast.assembler.used_tokens())
    assert len(unused) > 100
    assert torch.equal(after[WORDS][unused], before[WORDS][unused])
    assert apart(after, reference, before) < 0.05


def test_captured_steps_are_those_that_are_launched_one_by_one(make: Maker) -> None:
    captured, launched = (fast_path(make("auto", dropout=0.1, long=True)) for _ in range(2))
    draws = [*some_draws(captured.bench, 3, longest=60), *some_draws(captured.bench, 5)]
    found = learn(captured, draws)
    assert len(captured._graphs) >= 3
    rows = []
    for step, draw in enumerate(draws, 1):
        packed = launched._packer.pack(draw.questions, draw.option_order)
        seed = seed_step(launched.bench.config.train.seed, step, launched.bench.placement.device)
        launched._inputs.send(packed, seed, launched._adamw.owed)
        enable_bank(launched.bench, step)
        rows.append(launched._work(launched._size(packed)).cpu())
        launched._adamw.owe(step, 1e-3)
    assert not launched._graphs
    expected = dict(zip((*FIGURES, "grad_norm"), torch.stack(rows).T, strict=True))
    assert_same_figures(found, expected, 5e-3)


def test_equal_seeds_give_equal_steps_and_other_seeds_other_ones(make: Maker) -> None:
    paths = [fast_path(make("auto", dropout=0.2)) for _ in range(2)]
    draws = some_draws(paths[0].bench, 5)
    first, again = (learn(path, draws) for path in paths)
    # Not to the bit: the reference alone promises that.
    assert float(first["loss"][0]) == pytest.approx(float(again["loss"][0]), rel=1e-6)
    assert_same_figures(first, again, 5e-3)
    # The same questions in another step, at rate 0, meet another mask.
    losses = [float(paths[0].step(step, draws[0], 0.0)[1]) for step in (6, 7, 6)]
    assert losses[0] == pytest.approx(losses[2], rel=1e-6)
    assert abs(losses[0] - losses[1]) > 1e-4


def test_each_replay_takes_its_own_learning_rate(make: Maker) -> None:
    bench = make("auto")
    path, (draw,) = fast_path(bench), some_draws(bench, 1)

    def moved(step: int, rate: float) -> float:
        before = {name: value.clone() for name, value in bench.model.state_dict().items()}
        path.step(step, draw, rate)
        path.settle()
        after = bench.model.state_dict()
        return float(torch.stack([(after[n] - v).norm().cpu() for n, v in before.items()]).norm())

    assert moved(1, 0.0) == 0
    whole, tenth = moved(2, 1e-3), moved(3, 1e-4)
    assert whole > 0
    assert 0.05 < tenth / whole < 0.2
    assert moved(4, 0.0) == 0
    assert len(path._graphs) == 1


def test_a_captured_step_sees_the_bank_open_and_close(make: Maker) -> None:
    eager = EagerPath(make("reference", "memory_bank.start_step=3"))
    opening, closed = (fast_path(make("auto", f"memory_bank.start_step={start}")) for start in (3, 1000))
    draws = some_draws(opening.bench, 6)
    found, expected, without = (learn(path, draws, 0.0) for path in (opening, eager, closed))
    assert_same_figures(found, expected, 1e-3)
    apart = (found["contrastive"] - without["contrastive"]).abs()
    assert float(apart[:3].max()) < 1e-4
    assert float(apart[3:].min()) > 1e-2
    # Closed again, by a step before its first one.
    shut = [float(path.step(2, draws[0], 0.0)[2]) for path in (opening, closed)]
    assert shut[0] == pytest.approx(shut[1], abs=1e-4)


def test_warming_up_leaves_weights_moments_curriculum_and_bank_as_they_were(make: Maker) -> None:
    bench = make("auto", dropout=0.1)
    watching = {"model": bench.model, "curriculum": bench.curriculum.state, "bank": bank_of(bench)}
    before = {k: {n: v.clone() for n, v in m.state_dict().items()} for k, m in watching.items()}
    path, told = fast_path(bench), []
    path.warm_up(lambda done, of: told.append((done, of)))
    assert told[-1][0] == told[-1][1] == len(path._graphs) > 0
    for key, module in watching.items():
        for name, value in module.state_dict().items():
            assert np.array_equal(value.cpu(), before[key][name].cpu(), equal_nan=value.is_floating_point()), name
    for state in path.optimizer.state.values():
        assert float(state["exp_avg"].abs().max()) == float(state["exp_avg_sq"].abs().max()) == 0
    assert bench.sampler.drawn.sum() == 0


@pytest.mark.parametrize("first", ["reference", "packed"])
def test_a_checkpoint_of_one_path_goes_on_with_the_other(make: Maker, first: str, tmp_path: Path) -> None:
    # Both with the used rows of the embedding alone, as a run has them that is resumed on another machine.
    eager, fast = EagerPath(make("auto")), fast_path(make("auto"))
    here, there = (eager, fast) if first == "reference" else (fast, eager)
    there.warm_up(no_progress)
    draws = some_draws(here.bench, 6)
    learn(here, draws[:3], 1e-4)
    before = {name: value.clone() for name, value in here.bench.model.state_dict().items()}
    progress = Progress(3, here.bench.sampler.state(), [], 0.0, 0.0, -1.0, 0)
    buffers = [{"bank": bank_of(path.bench)} for path in (here, there)]
    here.settle()
    name = checkpoint.save(tmp_path, progress, here.bench.model, here.optimizer, buffers[0])
    expected = learn(here, draws[3:], 1e-4, first=4)
    checkpoint.load(tmp_path / name, there.bench.model, there.optimizer, buffers[1])
    there.refresh()
    assert_same_figures(learn(there, draws[3:], 1e-4, first=4), expected, 5e-3)
    for path in (here, there):
        path.settle()
    # Without the moments, or their count of steps, it would be more than the whole way.
    assert apart(there.bench.model.state_dict(), here.bench.model.state_dict(), before) < 0.05


def test_loss_curves_differ_from_eager_ones_by_less_than_seeds_do() -> None:
    def late_loss(path: str, seed: int) -> float:
        sets = [f"train.backend={path}", f"train.seed={seed}", f"train.device={DEVICE_NAME}", "train.precision=bf16"]
        bench = build(resolve("full", "demo", [*sets, "train.max_steps=200"]).config, lambda _: None)
        bench.model.train()
        way = EagerPath(bench) if path == "reference" else fast_path(bench)
        draws = [bench.sampler.draw(step, bench.curriculum.weights) for step in range(1, 201)]
        return float(learn(way, draws)["classification"][150:].mean())

    eager, fast = (np.array([late_loss(path, seed) for seed in (1, 2, 3, 4)]) for path in ("reference", "auto"))
    # Welch's t of about 6 degrees of freedom, at 1 %.
    assert abs(fast.mean() - eager.mean()) < 3.7 * math.sqrt((fast.var(ddof=1) + eager.var(ddof=1)) / 4)


def test_lengths_of_streams_are_few_and_little_longer_than_what_they_hold() -> None:
    from accl.training.backends.packed import stream_length

    lengths = [stream_length(tokens) for tokens in range(40_000)]
    assert lengths == sorted(lengths)
    for tokens, length in enumerate(lengths):
        assert length % 128 == 0
        assert max(tokens, 1) <= length
        assert length <= max(tokens + 127, 128, 9 / 8 * tokens)
        assert stream_length(length) == length
    assert len(set(lengths)) < 60
