"""Several runs in one training process on a GPU: captured steps beside those of others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import SHORT
from test_life import until
from test_together import FOR_EVER, events, start_together

from accl.config import resolve
from accl.launch import process
from accl.store.reader import query
from accl.store.rundir import RunDir
from accl.store.state import State, observe, read_state

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
