"""Small workbenches for comparing ways to compute a step, and what they make of the same questions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from accl.config import resolve
from accl.data.sampler import Draw
from accl.method.contrastive import MemoryBank
from accl.training.encoder import ARCHITECTURES
from accl.training.objective import FIGURES
from accl.training.setup import Workbench, build

DEVICE_NAME = "cuda"
WORDS = "encoder.embeddings.word_embeddings.weight"
QUESTIONS = 8
SMALL = (
    *("train.max_steps=200", "train.precision=fp32", f"train.batch_size={QUESTIONS}", "sampler.questions_per_task=2"),
    *("memory_bank.start_step=0", "data.max_length=512", f"train.device={DEVICE_NAME}"),
)


def no_progress(_done: int, _of: int) -> None:
    """For a warm-up that nobody watches."""


class Maker:
    """Makes small workbenches; architectures are changed for the test alone."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def __call__(
        self, path: str, *changed: str, model: str = "tiny", dropout: float = 0.0, long: bool = False, **sizes: Any
    ) -> Workbench:
        """The demo with an encoder far from its start, where no term of a score is small.

        Args:
            changed: ``key=value``. dropout: in all places. long: texts of up to 500 tokens, not one line.
            sizes: of the architecture.
        """
        shape = {"num_hidden_layers": 2, "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        self._patch.setitem(ARCHITECTURES, model, ARCHITECTURES[model] | shape | sizes)
        sets = [*SMALL, f"model.name=random:{model}", f"train.backend={path}", *changed]
        bench = build(resolve("full", "demo", sets).config, lambda _: None)
        without_dropout(bench, dropout)
        torch.manual_seed(1)
        state = bench.model.state_dict()
        for name, value in state.items():
            scale = 0.02 if name == WORDS else 0.08
            state[name] = value + scale * torch.randn(value.shape).to(value.device)
        bench.model.load_state_dict(state)
        bench.model.train()
        if long:
            lengthen(bench)
        return bench


def without_dropout(bench: Workbench, dropout: float = 0.0) -> None:
    for module in bench.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout


def lengthen(bench: Workbench) -> None:
    """Give the questions texts as long as MMLU's: mostly short, some of hundreds of tokens."""
    rng, blob = np.random.default_rng(0), bench.blob
    length = np.diff(blob.offsets)
    count = len(blob)
    length[:: 1 + blob.choices] = np.where(
        rng.random(count) < 0.3, rng.integers(290, 500, count), rng.integers(1, 50, count)
    )
    offsets = np.concatenate([[0], np.cumsum(length)])
    bench.blob = dataclasses.replace(blob, ids=rng.choice(blob.ids, int(offsets[-1])), offsets=offsets)
    bench.assembler.blob = bench.blob


def some_draws(bench: Workbench, count: int, longest: int = 512, seed: int = 0) -> list[Draw]:
    """Batches of a few tasks' questions, each with its options in another order."""
    rng, train = np.random.default_rng(seed), bench.positions["train"][:400]
    pool = train[bench.assembler.lengths(train) <= longest]
    choices = np.tile(np.arange(bench.blob.choices), (QUESTIONS, 1))
    return [Draw(rng.choice(pool, QUESTIONS, replace=False), rng.permuted(choices, axis=1)) for _ in range(count)]


def bank_of(bench: Workbench) -> MemoryBank:
    assert bench.bank is not None
    return bench.bank


def learn(path: Any, draws: Sequence[Draw], rate: float = 1e-3, first: int = 1) -> dict[str, Tensor]:
    """Figures by name, one value a step, on the CPU."""
    rows = torch.stack([path.step(step, draw, rate) for step, draw in enumerate(draws, first)]).cpu()
    return dict(zip((*FIGURES, "grad_norm"), rows.T, strict=True))


def assert_same_figures(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    for name, values in expected.items():
        torch.testing.assert_close(
            found[name], values, rtol=tolerance, atol=tolerance, equal_nan=True, msg=lambda text, n=name: f"{n}: {text}"
        )
