"""Several runs in one training process on a GPU: captured steps beside those of others, and memory for all of them."""

from __future__ import annotations

from pathlib import Path
from threading import Barrier, Thread

import numpy as np
import pytest
import torch
from conftest import SHORT
from contexts import ContextMaker
from numpy.typing import NDArray
from test_life import until
from test_together import FOR_EVER, events, start_together

from accl.config import resolve
from accl.launch import process
from accl.method.model import ModelOutput
from accl.store.reader import query
from accl.store.rundir import RunDir
from accl.store.state import State, observe, read_state
from accl.training.backends.reference import ReferenceBackend
from accl.training.context import TrainingContext
from accl.training.device import use_own_stream
from accl.training.evaluate import evaluate
from accl.training.testing import evaluate_split

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU"),
]
SETS = [option.removeprefix("--set=") for option in SHORT]


def prepare(root: Path, recipe: str, *sets: str) -> RunDir:
    return process.prepare(root, resolve(recipe, "demo", [*SETS, "train.device=cuda", *sets]).config, ["accl", "train"])


def losses(run: RunDir) -> list[float]:
    [rows] = query(run.database, ("SELECT value FROM run.metrics WHERE name = 'train/loss' ORDER BY step", ()))
    return [value for (value,) in rows]


# transformers' DeBERTa, the demo's encoder, cannot be captured.
@pytest.mark.parametrize(("backend", "model"), [("packed", "random:tiny"), ("cudagraph", "random:all-MiniLM-L6-v2")])
def test_captured_steps_of_runs_of_one_process_are_those_of_runs_of_their_own(
    tmp_path: Path, backend: str, model: str
) -> None:
    sets = f"train.backend={backend}", f"model.name={model}"
    arms = [("full", "train.seed=1"), ("baseline", "train.seed=2"), ("full", "train.seed=3")]
    shared = [prepare(tmp_path, *arm, *sets) for arm in arms]
    alone = prepare(tmp_path, *arms[0], *sets)
    beside = prepare(tmp_path, "full", FOR_EVER, *sets)
    own, trainer = process.start(alone), start_together(beside, *shared)
    try:
        assert own.wait() == 0
        until(lambda: not any(observe(run).state.active for run in shared))
        assert [read_state(run).reason for run in (*shared, beside)] == [""] * 4
        process.stop(beside)
        assert trainer.wait() == 0
    finally:
        trainer.kill()
    assert [observe(run).state for run in shared] == [State.FINISHED] * 3
    assert read_state(beside).step > 0
    assert f"steps are computed by the {backend} backend" in events(shared[0], "backend")[0]
    # Not to the bit: sums that kernels take by atomic additions come in any order, in a run of its own as well.
    assert losses(shared[0]) == pytest.approx(losses(alone), rel=5e-3)
    assert losses(shared[0]) != pytest.approx(losses(shared[2]), rel=5e-3)


class LargeBatches(ReferenceBackend):
    """Takes memory as an evaluation of a larger encoder does."""

    BYTES = 2**29

    def forward(self, questions: NDArray[np.int64]) -> ModelOutput:
        torch.empty(self.BYTES, dtype=torch.uint8, device="cuda")
        return super().forward(questions)


def test_evaluations_of_runs_of_one_process_are_those_of_one_run_and_their_memory_is_held_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    contexts = [ContextMaker(monkeypatch)("cuda") for _ in range(2)]
    answers: list[NDArray[np.float64]] = []

    def evaluations(of: list[TrainingContext]) -> int:
        """Evaluate in a thread for each context, at the same time; return the bytes that torch holds afterwards."""
        barrier = Barrier(len(of))

        def work(context: TrainingContext) -> None:
            use_own_stream("cuda")
            backend = LargeBatches(context)
            barrier.wait()
            each = (evaluate_split(context, backend, "validation", None, lambda: None) for _ in range(3))
            answers.extend(evaluated.probabilities for evaluated in each)

        threads = [Thread(target=work, args=(context,)) for context in of]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return torch.cuda.memory_reserved()

    torch.cuda.synchronize()  # the threads' streams do not wait for that which the contexts were made on
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    one = evaluations(contexts[:1]) - before
    assert one >= LargeBatches.BYTES
    assert evaluations(contexts) - before < 1.5 * one

    context, questions = contexts[0], contexts[0].positions["validation"]
    context.model.eval()
    alone = evaluate(
        ReferenceBackend(context).forward, context.assembler, questions, context.tasks, torch.device("cuda"),
        batch_size=len(questions), most_tokens=2**17, progress=lambda: None,
    )  # fmt: skip
    assert len(answers) == 9
    assert all(np.array_equal(each, alone.probabilities) for each in answers)
