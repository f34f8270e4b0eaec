"""Every backend against the reference: losses, gradients, trackers, memory bank, checkpoints and resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contexts import (
    WORDS,
    ContextMaker,
    assert_same_metrics,
    bank_of,
    buffers,
    learn,
    no_progress,
    same_bits,
    script,
    set_rate,
    some_draws,
    weights,
)
from torch import Tensor

from accl.training import checkpoint
from accl.training.backends.backend import StepBackend
from accl.training.backends.reference import ReferenceBackend
from accl.training.backends.select import BACKENDS, select_backend
from accl.training.checkpoint import Progress, Target
from accl.training.context import TrainingContext

gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU")]
CASES = [
    ("cpu", "cpu"),
    ("packed", "cpu"),
    pytest.param(("cudagraph", "cuda"), marks=gpu),
    pytest.param(("packed", "cuda"), marks=gpu),
]
# transformers' DeBERTa looks at values on the host, which a CUDA graph cannot hold.
ROBERTA = {"model": "roberta-base", "hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128}
ENCODERS: dict[str, dict[str, Any]] = {"cudagraph": ROBERTA}
# Encoders that are packed beside DeBERTa; the first word is transformers' name.
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {"type_vocab_size": 2},
    "distilbert": {"hidden_dim": 128},
    "electra": {"type_vocab_size": 2, "embedding_size": 64},
    "electra small": {"type_vocab_size": 2, "embedding_size": 32},
    "modernbert": {"intermediate_size": 64, "local_attention": 64, "global_attn_every_n_layers": 2},
    "mpnet": {"max_position_embeddings": 514},
    "roberta": {},
}
RATE = 2e-5


@pytest.fixture(params=CASES, ids=["cpu", "packed-cpu", "cudagraph", "packed"])
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A backend's name, and the device it is for."""
    name, device = request.param
    return name, device


Pair = Callable[..., tuple[StepBackend, StepBackend]]


@pytest.fixture
def pair(case: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> Pair:
    """Makes a backend, and the reference on the same device, on equal contexts of their own."""
    make = ContextMaker(monkeypatch)

    def build(*changed: str, long: bool = False, dropout: float = 0.0) -> tuple[StepBackend, StepBackend]:
        name, device = case
        options: dict[str, Any] = {"long": long, "dropout": dropout, **ENCODERS.get(name, {})}
        backend, _ = select_backend(make(device, f"train.backend={name}", *changed, **options), no_progress)
        reference = ReferenceBackend(make(device, "train.backend=reference", *changed, **options))
        for each in (backend, reference):
            set_rate(context_of(each), RATE)
        return backend, reference

    return build


@pytest.fixture
def family_pair(monkeypatch: pytest.MonkeyPatch) -> Pair:
    """Makes the packed backend and the reference for an encoder of `FAMILIES`."""
    make = ContextMaker(monkeypatch)

    def context(device: str, family: str, backend: str, *changed: str) -> TrainingContext:
        options = ROBERTA | {"model_type": family.split()[0]} | FAMILIES[family]
        made = make(device, f"train.backend={backend}", *changed, long=True, **options)
        set_rate(made, RATE)
        # MPNet's padding is token 1 whatever the tokenizer: here that is the first of every input.
        for module in made.model.encoder.modules():
            if getattr(module, "padding_idx", None) is not None:
                module.padding_idx = made.assembler.pad_id  # type: ignore[assignment]
        return made

    def build(device: str, family: str, *changed: str) -> tuple[StepBackend, StepBackend]:
        backend, _ = select_backend(context(device, family, "packed", *changed), no_progress)
        expected = context(device, family, "reference", *changed)
        if device == "cpu":  # where its own rounding is the greater one
            expected.model.double()
        return backend, ReferenceBackend(expected)

    return build


def context_of(backend: StepBackend) -> TrainingContext:
    context: TrainingContext = backend.context  # type: ignore[attr-defined]
    return context


def gradients(backend: StepBackend) -> dict[str, Tensor]:
    """The gradients of step 1, from AdamW's first moment after it: exp_avg = (1 - beta1) g."""
    state = backend.optimizer_state()
    names = dict(context_of(backend).model.named_parameters())
    assert {key.partition(".")[2] for key in state} <= set(names)
    return {
        name: (value / 0.1).double().cpu()
        for key, value in expanded(backend, state).items()
        for kind, _, name in [key.partition(".")]
        if kind == "exp_avg"
    }


def expanded(backend: StepBackend, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Moments with a row for each row of their parameter, whatever rows the backend keeps."""
    whole = {}
    for key, value in state.items():
        kind, _, name = key.partition(".")
        rows = state.get(f"rows.{name}")
        if kind != "rows":
            shape = context_of(backend).model.get_parameter(name).shape
            whole[key] = (
                value if rows is None or not value.dim() else value.new_zeros(shape).index_copy_(0, rows, value)
            )
    return whole


def wrong(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> dict[str, float]:
    """Gradients that are farther off than their own norm and a trifle of the whole's allow: the bias of all keys, and
    the last one of per_option, are 0 by mathematics and rounding alone."""
    assert actual.keys() == expected.keys()
    whole = float(torch.stack([g.norm() for g in expected.values()]).norm())
    off = {name: float((actual[name] - g).norm()) for name, g in expected.items()}
    return {n: e for n, e in off.items() if e > tolerance * (float(expected[n].norm()) + 0.01 * whole)}


def distance(actual: dict[str, Tensor], expected: dict[str, Tensor], start: dict[str, Tensor]) -> float:
    """Distance between weights, as a share of how far they have come.

    AdamW makes whole steps of gradients that are rounding alone (see `wrong`), so their parameters are left out.
    """
    names = [name for name in start if not name.endswith(("key_proj.bias", "key.bias", "classifier.4.bias"))]
    between, moved = (
        torch.stack([(expected[name] - state[name]).norm() for name in names]).norm() for state in (actual, start)
    )
    return float(between / moved)


def test_there_is_a_case_for_every_backend() -> None:
    cases = {case.values[0][0] if hasattr(case, "values") else case[0] for case in CASES}
    assert cases | {"reference"} == set(BACKENDS)


@pytest.mark.parametrize("head", ["per_option", "single_sequence"])
def test_gradients_are_those_of_the_reference(pair: Pair, head: str) -> None:
    backends = pair(f"model.head={head}", "optim.max_grad_norm=1e9", long=True)
    for each in backends:
        context = context_of(each)
        script(context, some_draws(context, 1))
        each.step(1)
    assert wrong(*map(gradients, backends), 5e-5) == {}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=gpu)])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_logits_and_gradients_of_every_packed_encoder_are_those_of_the_reference(
    family_pair: Pair, family: str, device: str
) -> None:
    backends = family_pair(device, family, "model.head=per_option", "optim.max_grad_norm=1e9")
    logits = []
    for each in backends:
        context = context_of(each)
        logits.append(each.forward(context.positions["validation"][:9]).logits_BC)
        script(context, some_draws(context, 1))
        each.step(1)
    assert float((logits[0] - logits[1]).norm() / logits[1].norm()) < 1e-5
    actual, expected = map(gradients, backends)
    # Nearly all of the gradient of the last bias before pooling cancels between options, and the rest is rounding.
    last = {name for name in expected if name.endswith(("layer.1.output.LayerNorm.bias", "1.output_layer_norm.bias"))}
    assert wrong(actual, expected, 1e-4) == {}
    assert set(wrong(actual, expected, 1e-5)) <= last


@pytest.mark.parametrize("steps", [60, pytest.param(200, marks=pytest.mark.slow)])
def test_losses_over_many_steps_are_those_of_the_reference(pair: Pair, steps: int) -> None:
    backend, reference = pair()
    start = weights(context_of(backend))
    actual, expected = learn(backend, range(1, steps + 1)), learn(reference, range(1, steps + 1))
    assert float(expected["classification"][-1]) != float(expected["classification"][0])
    # Accuracy goes by whole questions, and may turn on a rounding.
    accuracy = [metrics.pop("accuracy") for metrics in (actual, expected)]
    assert float((accuracy[0] - accuracy[1]).abs().mean()) < 0.01
    assert_same_metrics(actual, expected, 1e-2)
    assert_same_metrics(*({n: v[:5] for n, v in metrics.items()} for metrics in (actual, expected)), 1e-3)
    for each in (backend, reference):
        each.optimizer_state()
    assert distance(weights(context_of(backend)), weights(context_of(reference)), start) < 0.05


def test_rows_that_no_question_uses_stay_to_the_bit(pair: Pair) -> None:
    backend, _ = pair()
    before = weights(context_of(backend))[WORDS]
    learn(backend, range(1, 4))
    backend.optimizer_state()
    after = weights(context_of(backend))[WORDS]
    unused = np.setdiff1d(np.arange(len(before)), context_of(backend).assembler.used_tokens())
    assert len(unused) > 100
    assert torch.equal(after[unused], before[unused])
    assert (after != before).any(1).sum() > 50


def test_trackers_and_memory_bank_are_those_of_the_reference(pair: Pair) -> None:
    backends = pair()
    for each in backends:
        learn(each, range(1, 11))
    actual, expected = (buffers(context_of(each)) for each in backends)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            actual[name], value, rtol=1e-4, atol=1e-5, equal_nan=True, msg=lambda text, n=name: f"{n}: {text}"
        )
    assert int(bank_of(context_of(backends[0])).written_K.sum()) > 0
    drawn = [context_of(each).sampler.drawn.tolist() for each in backends]
    assert drawn[0] == drawn[1]


def test_the_bank_is_used_from_its_first_step_on(pair: Pair) -> None:
    opening, reference = pair("memory_bank.start_step=3")
    closed, _ = pair("memory_bank.start_step=1000")
    for each in (opening, reference, closed):
        set_rate(context_of(each), 0.0)
    actual, expected, without = (learn(each, range(1, 7))["contrastive"] for each in (opening, reference, closed))
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)
    assert float((actual - without)[:3].abs().max()) < 1e-4
    assert float((actual - without)[3:].abs().min()) > 1e-2


def test_evaluation_is_that_of_the_reference(pair: Pair) -> None:
    backends = pair(long=True, dropout=0.1)
    outputs = []
    for each in backends:
        context = context_of(each)
        context.model.eval()
        outputs.append(each.forward(context.positions["validation"][:9]))
    for name in ("logits_BC", "features_BD", "z_BE"):
        actual, expected = (getattr(output, name) for output in outputs)
        assert not actual.requires_grad
        assert float((actual - expected).norm() / expected.norm()) < 1e-5, name


@pytest.mark.parametrize("first", ["backend", "reference"])
def test_a_checkpoint_goes_on_with_another_backend(pair: Pair, tmp_path: Path, first: str) -> None:
    source, target = pair() if first == "backend" else reversed(pair())
    start = weights(context_of(source))
    learn(source, range(1, 4))
    save(source, tmp_path, 3)
    expected = learn(source, range(4, 8))
    load(target, tmp_path, 3)
    actual = learn(target, range(4, 8))
    for metrics in (actual, expected):
        metrics.pop("accuracy")
    assert_same_metrics(actual, expected, 2e-3)
    for each in (source, target):
        each.optimizer_state()
    # Without the moments, or their count of steps, it would be more than the whole way.
    assert distance(weights(context_of(target)), weights(context_of(source)), start) < 0.05


def test_a_resumed_run_takes_the_steps_of_an_uninterrupted_one(
    pair: Pair, case: tuple[str, str], tmp_path: Path
) -> None:
    (whole, _), (resumed, _) = (pair(dropout=0.1) for _ in range(2))
    learn(whole, range(1, 4))
    save(whole, tmp_path, 3)
    expected = learn(whole, range(4, 9))
    load(resumed, tmp_path, 3)
    actual = learn(resumed, range(4, 9))
    if case[1] == "cpu":  # a GPU's atomics promise no bits
        assert same_bits(actual, expected)
        assert same_bits(weights(context_of(resumed)), weights(context_of(whole)))
        assert same_bits(buffers(context_of(resumed)), buffers(context_of(whole)))
    assert_same_metrics(actual, expected, 5e-3)


def test_a_backend_changes_nothing_of_the_context(pair: Pair) -> None:
    backend, _ = pair()
    context = context_of(backend)
    threads, modules = torch.get_num_threads(), dict(context.model.named_modules())
    names = list(context.model.state_dict())
    chunk_rows, encoder = context.assembler.chunk_rows, context.model.encoder
    learn(backend, range(1, 3))
    context.model.eval()
    backend.forward(context.positions["validation"][:3])
    assert torch.get_num_threads() == threads
    assert context.assembler.chunk_rows == chunk_rows
    assert context.model.encoder is encoder
    assert dict(context.model.named_modules()) == modules
    assert list(context.model.state_dict()) == names
    assert len(context.model.state_dict()[WORDS]) == context.model.encoder.config.vocab_size  # type: ignore[union-attr]


def test_preparing_leaves_weights_moments_trackers_and_bank_as_they_were(
    case: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, device = case
    options: dict[str, Any] = ENCODERS.get(name, {})
    context = ContextMaker(monkeypatch)(device, f"train.backend={name}", dropout=0.1, **options)
    before = (weights(context), buffers(context))
    backend, _ = select_backend(context, no_progress)
    moments = {key: value for key, value in backend.optimizer_state().items() if not key.startswith("rows.")}
    assert all(float(value.abs().max()) == 0 for value in moments.values())
    assert same_bits(weights(context), before[0])
    assert same_bits(buffers(context), before[1])
    assert context.sampler.drawn.sum() == 0


def save(backend: StepBackend, root: Path, step: int) -> None:
    context = context_of(backend)
    progress = Progress(step, context.sampler.state(), context.curriculum.weights.tolist(), 0.0, 0.0, -1.0, 0)
    files = checkpoint.files_of(context.model, backend.optimizer_state(), checkpointed(context))
    checkpoint.save(root, progress, files)


def load(backend: StepBackend, root: Path, step: int) -> None:
    context = context_of(backend)
    used = torch.from_numpy(context.assembler.used_tokens())
    folder = root / checkpoint.folder_name(step)
    numbers = len(context.sampler.state())
    target = Target(context.model, checkpointed(context), used, numbers, context.tasks)
    progress, state = checkpoint.load(folder, target)
    backend.load_optimizer_state(state)
    backend.sync_weights()
    context.sampler.restore(progress.sampler)


def checkpointed(context: TrainingContext) -> dict[str, torch.nn.Module]:
    return {"curriculum": context.curriculum.state, "bank": bank_of(context)}
