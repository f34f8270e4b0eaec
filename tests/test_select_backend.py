"""Which backend a run takes, that the run says so, and what backends share."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from contexts import bank_of, buffers, same_bits
from embeddings import contrastive_loss
from torch import Tensor, nn

from accl.config import resolve
from accl.errors import ConfigError
from accl.method.contrastive import MemoryBank
from accl.training.backends.capture import preserve_state
from accl.training.backends.cpu import useful_threads
from accl.training.backends.select import select_backend
from accl.training.context import TrainingContext
from accl.training.device import to_device
from accl.training.setup import build_context
from accl.training.step import compute_losses, update_trackers

START = 7
NO_COMPILER = "not cpu: no C compiler (cc) was found"


@pytest.fixture(scope="module")
def context() -> TrainingContext:
    """A small demo on the CPU."""
    sets = [
        "train.batch_size=8",
        "sampler.questions_per_task=2",
        "train.max_steps=20",
        f"memory_bank.start_step={START}",
    ]
    return build_context(resolve("full", "demo", sets).config, lambda _: None)


def asking_for(context: TrainingContext, backend: str) -> TrainingContext:
    config = context.config
    train = config.train.model_copy(update={"backend": backend})
    return dataclasses.replace(context, config=config.model_copy(update={"train": train}))


def unexpected_progress(done: int, total: int) -> None:
    raise AssertionError(f"{done}/{total}")


# --- choice


def test_a_cpu_takes_the_c_backend_for_an_encoder_that_it_knows(context: TrainingContext) -> None:
    backend, reason = select_backend(asking_for(context, "auto"), unexpected_progress)
    assert (backend.name, reason) == ("cpu", "")


def test_a_cpu_takes_packed_layers_in_bf16_and_without_a_c_compiler(
    context: TrainingContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    bf16 = dataclasses.replace(context.placement, autocast=torch.bfloat16)
    backend, reason = select_backend(
        dataclasses.replace(asking_for(context, "auto"), placement=bf16), unexpected_progress
    )
    assert (backend.name, reason) == ("packed", "")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    backend, reason = select_backend(asking_for(context, "auto"), unexpected_progress)
    assert (backend.name, reason) == ("packed", NO_COMPILER)
    with pytest.raises(ConfigError, match=r"train\.backend=cpu is not available: no C compiler \(cc\) was found"):
        select_backend(asking_for(context, "cpu"), unexpected_progress)


def test_an_encoder_that_cannot_be_packed_is_run_by_the_reference(
    context: TrainingContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context.model.encoder.config, "conv_kernel_size", 3, raising=False)
    backend, reason = select_backend(asking_for(context, "auto"), unexpected_progress)
    assert backend.name == "reference"
    convolution = "a convolution beside the first layer"
    assert reason == f"not cpu: {convolution}; not packed: {convolution}; not cudagraph: it needs an NVIDIA GPU"


@pytest.mark.parametrize("name", ["packed", "cpu", "reference"])
def test_the_backend_asked_for_is_taken(context: TrainingContext, name: str) -> None:
    backend, reason = select_backend(asking_for(context, name), unexpected_progress)
    assert (backend.name, reason) == (name, "as asked for by train.backend")


def test_a_backend_that_needs_a_gpu_is_refused_without_one(context: TrainingContext) -> None:
    with pytest.raises(ConfigError) as refused:
        select_backend(asking_for(context, "cudagraph"), unexpected_progress)
    assert "train.backend=cudagraph is not available: it needs an NVIDIA GPU." in str(refused.value)
    assert "--set train.backend=auto" in str(refused.value)


def test_a_backend_is_prepared_with_dropout_on_as_training_has_it(context: TrainingContext) -> None:
    context.model.encoder.eval()
    select_backend(asking_for(context, "cpu"), unexpected_progress)
    assert all(module.training for module in context.model.modules())


# --- memory bank


def a_batch() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return nn.functional.normalize(torch.randn(6, 4), dim=-1), torch.tensor([0, 0, 1, 1, 2, 2]), torch.arange(6)


def test_a_disabled_bank_takes_embeddings_in_and_gives_none_out() -> None:
    z_BE, task_B, text_B = a_batch()
    bank = MemoryBank(3, 4, 4)
    bank.enable(False)
    bank.write(z_BE, task_B, text_B + 100)
    assert not bank.enabled
    assert bank.written_K.tolist() == [2, 2, 2]
    assert not bank.candidates().filled_M.any()

    def loss(bank: MemoryBank | None) -> Tensor:
        candidates = None if bank is None else bank.candidates()
        return contrastive_loss(z_BE, task_B, text_B, torch.ones(6), temperature=0.1, bank=candidates).loss

    torch.testing.assert_close(loss(bank), loss(None))
    bank.enable(True)
    assert bank.candidates().filled_M.sum() == 6
    assert not torch.allclose(loss(bank), loss(None))


def test_whether_a_bank_is_enabled_is_not_part_of_a_checkpoint() -> None:
    disabled, other = MemoryBank(3, 4, 4), MemoryBank(3, 4, 4)
    disabled.enable(False)
    other.load_state_dict(disabled.state_dict())
    assert other.enabled
    assert bool(other.enabled_flag)


def test_the_bank_is_enabled_after_its_first_step_and_disabled_again_before_it(context: TrainingContext) -> None:
    bank = bank_of(context)
    for step in (1, START, START + 1, START + 2, START):
        context.enable_bank(step)
        assert bool(bank.enabled_flag) == bank.enabled == (step > START)


# --- rehearsals


def track_a_batch(context: TrainingContext, step: int) -> None:
    draw = context.sampler.clone().draw(step, context.curriculum.weights)
    batch = to_device(context.assembler.batch(draw.questions, draw.option_order), torch.device("cpu"))
    losses = compute_losses(context, context.model.pooled(batch.chunks, batch.inverse_perm_N), batch.labels)
    update_trackers(context, losses.output, batch.labels)


def test_a_rehearsal_leaves_no_trace_in_curriculum_and_bank(context: TrainingContext) -> None:
    track_a_batch(context, 1)
    before = buffers(context)
    with preserve_state(context):
        track_a_batch(context, 2)
        assert not same_bits(buffers(context), before)
    assert same_bits(buffers(context), before)


def test_neither_does_one_that_fails(context: TrainingContext) -> None:
    before = buffers(context)

    def fail() -> None:
        with preserve_state(context):
            track_a_batch(context, 3)
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    assert same_bits(buffers(context), before)


# --- threads


@pytest.mark.parametrize(
    ("tokens", "hidden", "cores", "expected"),
    [(800, 128, 1, 1), (800, 128, 2, 2), (800, 128, 16, 10), (1, 16, 16, 1), (1400, 768, 16, 16), (1400, 768, 96, 79)],
)
def test_small_steps_are_divided_among_few_threads(tokens: int, hidden: int, cores: int, expected: int) -> None:
    assert useful_threads(tokens, 12 * hidden**2, cores) == expected
