"""Which way steps are computed, that it is said, and what all ways share."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from embeddings import contrastive_loss
from torch import Tensor, nn

from accl.config import resolve
from accl.data.packed import Packer
from accl.errors import ConfigError
from accl.method.contrastive import MemoryBank
from accl.store.reader import Follower
from accl.store.rundir import RunDir
from accl.training.backends.cpu import useful_threads
from accl.training.backends.heads import enable_bank, judge, undone, watch
from accl.training.backends.inputs import AHEAD, Inputs
from accl.training.backends.select import choose
from accl.training.device import to_device
from accl.training.setup import Workbench, build

START = 7
NO_GPU = "not packed: it needs an NVIDIA GPU; not cudagraph: it needs an NVIDIA GPU"


@pytest.fixture(scope="module")
def prepared() -> Workbench:
    """A small demo on the CPU."""
    sets = [
        "train.batch_size=8",
        "sampler.questions_per_task=2",
        "train.max_steps=20",
        f"memory_bank.start_step={START}",
    ]
    return build(resolve("full", "demo", sets).config, lambda _: None)


@pytest.fixture
def bench(prepared: Workbench) -> Iterator[Workbench]:
    """It, without what a path may have changed of it and of torch."""
    threads, chunk_rows = torch.get_num_threads(), prepared.assembler.chunk_rows
    yield prepared
    torch.set_num_threads(threads)
    prepared.model.encode, prepared.assembler.chunk_rows = None, chunk_rows


def bank_of(bench: Workbench) -> MemoryBank:
    assert bench.bank is not None
    return bench.bank


def asking_for(bench: Workbench, path: str) -> Workbench:
    config = bench.config
    train = config.train.model_copy(update={"backend": path})
    return dataclasses.replace(bench, config=config.model_copy(update={"train": train}))


def nothing_to_warm_up(done: int, of: int) -> None:
    raise AssertionError(f"{done}/{of}")


# --- choice


def test_a_cpu_computes_by_rows_and_says_why_not_faster(bench: Workbench) -> None:
    path, reason = choose(asking_for(bench, "auto"), nothing_to_warm_up)
    assert path.name == "cpu"
    assert reason == NO_GPU


def test_an_encoder_that_rows_cannot_take_is_run_by_the_reference(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.model.encoder.config, "conv_kernel_size", 3, raising=False)
    path, reason = choose(asking_for(bench, "auto"), nothing_to_warm_up)
    assert path.name == "reference"
    assert reason == f"{NO_GPU}; not cpu: a convolution beside the first layer"


def test_without_a_c_compiler_the_reference_computes_and_says_so(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    path, reason = choose(asking_for(bench, "auto"), nothing_to_warm_up)
    assert path.name == "reference"
    assert reason == f"{NO_GPU}; not cpu: no C compiler (cc) was found"
    with pytest.raises(ConfigError, match=r"train\.backend=cpu cannot be taken: no C compiler \(cc\) was found"):
        choose(asking_for(bench, "cpu"), nothing_to_warm_up)


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_the_path_asked_for_is_taken(bench: Workbench, name: str) -> None:
    path, reason = choose(asking_for(bench, name), nothing_to_warm_up)
    assert (path.name, reason) == (name, "as asked for by train.backend")


@pytest.mark.parametrize("name", ["packed", "cudagraph"])
def test_a_path_that_needs_a_gpu_is_refused_without_one(bench: Workbench, name: str) -> None:
    with pytest.raises(ConfigError) as refused:
        choose(asking_for(bench, name), nothing_to_warm_up)
    assert f"train.backend={name} cannot be taken: it needs an NVIDIA GPU." in str(refused.value)
    assert "--set train.backend=auto" in str(refused.value)


def test_a_path_warms_up_with_dropout_on_as_training_has_it(bench: Workbench) -> None:
    bench.model.encoder.eval()
    choose(asking_for(bench, "cpu"), nothing_to_warm_up)
    assert all(module.training for module in bench.model.modules())


def test_a_run_records_its_path_and_why(full_run: RunDir) -> None:
    follower = Follower(full_run)
    follower.refresh()
    (event,) = [event for event in follower.events if event.kind == "path"]
    assert event.level == "info"
    assert event.message == f"steps are computed on the cpu path ({NO_GPU})"


def test_rows_take_the_steps_of_the_reference(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in bench.model.modules():
        if isinstance(module, nn.Dropout):
            monkeypatch.setattr(module, "p", 0.0)
    weights = {name: value.clone() for name, value in bench.model.state_dict().items()}

    def figures(name: str) -> Tensor:
        bench.model.load_state_dict(weights)
        path, _ = choose(asking_for(bench, name), nothing_to_warm_up)
        sampler, steps = bench.sampler.clone(), range(START, START + 4)
        with undone(bench):
            return torch.stack([path.step(i, sampler.draw(i, bench.curriculum.weights), 1e-3) for i in steps])

    expected = figures("reference")
    assert float(expected[-1, 0]) != float(expected[0, 0])
    torch.testing.assert_close(figures("cpu"), expected, rtol=2e-4, atol=2e-5, equal_nan=True)
    bench.model.load_state_dict(weights)


# --- memory bank


def a_batch() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return nn.functional.normalize(torch.randn(6, 4), dim=-1), torch.tensor([0, 0, 1, 1, 2, 2]), torch.arange(6)


def test_a_closed_bank_takes_in_and_gives_nothing_out() -> None:
    z_BE, task_B, text_id_B = a_batch()
    bank = MemoryBank(3, 4, 4)
    bank.enable(False)
    bank.write(z_BE, task_B, text_id_B + 100)
    assert not bank.enabled
    assert bank.written_K.tolist() == [2, 2, 2]
    assert not bank.candidates().filled_M.any()

    def loss(bank: MemoryBank | None) -> Tensor:
        candidates = None if bank is None else bank.candidates()
        return contrastive_loss(z_BE, task_B, text_id_B, torch.ones(6), temperature=0.1, bank=candidates).loss

    torch.testing.assert_close(loss(bank), loss(None))
    bank.enable(True)
    assert bank.candidates().filled_M.sum() == 6
    assert not torch.allclose(loss(bank), loss(None))


def test_whether_a_bank_is_enabled_is_not_part_of_a_checkpoint() -> None:
    closed, other = MemoryBank(3, 4, 4), MemoryBank(3, 4, 4)
    closed.enable(False)
    other.load_state_dict(closed.state_dict())
    assert other.enabled
    assert bool(other.enabled_flag)


def test_the_bank_opens_after_its_first_step_and_closes_again_before_it(bench: Workbench) -> None:
    bank, opened = bank_of(bench), {}
    for step in (1, START, START + 1, START + 2, START):
        enable_bank(bench, step)
        assert bool(bank.enabled_flag) == bank.enabled
        opened[step] = bank.enabled
        assert bank.enabled == (step > START)
    assert set(opened.values()) == {True, False}


# --- rehearsals


def watched(bench: Workbench) -> dict[str, Tensor]:
    modules = {"curriculum": bench.curriculum.state, "bank": bank_of(bench)}
    return {f"{k}.{name}": value.clone() for k, m in modules.items() for name, value in m.state_dict().items()}


def show_a_batch(bench: Workbench, step: int) -> None:
    draw = bench.sampler.clone().draw(step, bench.curriculum.weights)
    batch = to_device(bench.assembler.batch(draw.questions, draw.option_order), torch.device("cpu"))
    watch(bench, judge(bench, bench.model.pooled(batch.chunks, batch.inverse_perm_N), batch.labels))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """To the bit; what has not been observed yet is NaN."""
    return a.keys() == b.keys() and all(np.array_equal(a[n], b[n], equal_nan=a[n].is_floating_point()) for n in a)


def test_a_rehearsal_leaves_no_trace_in_curriculum_and_bank(bench: Workbench) -> None:
    show_a_batch(bench, 1)
    before = watched(bench)
    with undone(bench):
        show_a_batch(bench, 2)
        assert not same(watched(bench), before)
    assert same(watched(bench), before)


def test_neither_does_one_that_fails(bench: Workbench) -> None:
    before = watched(bench)

    def fail() -> None:
        with undone(bench):
            show_a_batch(bench, 3)
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    assert same(watched(bench), before)


# --- what a captured step reads


def test_what_is_sent_arrives_at_the_same_place_every_time(bench: Workbench) -> None:
    packer, questions = Packer(bench.assembler), bench.config.train.batch_size
    inputs = Inputs(questions, questions * packer.sequences_per_question, packer.segments, torch.device("cpu"))
    views = {name: getattr(inputs, name) for name in ("source", "cu_seqlens", "inverse_perm", "seed", "rates")}
    views |= {name: getattr(inputs.labels, f"{name}_B") for name in ("task", "answer", "text_id")}
    places = {name: view.data_ptr() for name, view in views.items()}
    sampler = bench.sampler.clone()
    for step in range(1, 2 * AHEAD + 2):  # all slots, and the first ones again
        draw = sampler.draw(step, bench.curriculum.weights)
        packed = packer.pack(draw.questions, draw.option_order)
        inputs.send(packed, 2**62 + step, [1e-3 / step, 0.5, 2.0, 1.0])
        for name in ("source", "cu_seqlens", "inverse_perm", "task", "answer", "text_id"):
            assert views[name].tolist() == getattr(packed, name).tolist(), name
        assert views["seed"].tolist() == [2**62 + step]
        assert views["rates"].dtype == torch.float64
        assert views["rates"].tolist() == [1e-3 / step, 0.5, 2.0, 1.0]
    assert {name: view.data_ptr() for name, view in views.items()} == places


# --- threads


@pytest.mark.parametrize(
    ("tokens", "hidden", "cores", "expected"),
    [(800, 128, 1, 1), (800, 128, 2, 2), (800, 128, 16, 10), (1, 16, 16, 1), (1400, 768, 16, 16), (1400, 768, 96, 79)],
)
def test_small_steps_are_shared_out_to_few_threads(tokens: int, hidden: int, cores: int, expected: int) -> None:
    assert useful_threads(tokens, 12 * hidden**2, cores) == expected
