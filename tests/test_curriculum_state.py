"""The curriculum of a run: warm-up, when it acts, its checkpoint, the matrices it keeps, and weights from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from accl.choices import POLICIES
from accl.config import Curriculum, resolve
from accl.config.weights import read_weights
from accl.data.fit import order_weights
from accl.errors import ConfigError
from accl.method.contrastive import uncertainty_weights
from accl.method.curriculum import load_policy
from accl.method.model import ModelOutput
from accl.training.curriculum import CurriculumState

CPU = torch.device("cpu")
NAMES = POLICIES.names()
OBSERVING = [name for name in NAMES if load_policy(name).updates_needed]


def settings_of(**changes: Any) -> Curriculum:
    base = resolve("full", "demo").config.curriculum.model_dump()
    return Curriculum(**{**base, "warmup_steps": 0, "update_every": 5, **changes})


def state_of(policy: str, tasks: int = 6, places: int | None = 4, **changes: Any) -> CurriculumState:
    names = [f"t{i}" for i in range(tasks)]
    questions = np.arange(10, 10 + tasks)
    return CurriculumState(settings_of(policy=policy, **changes), names, questions, 50, 8, places, CPU)


def batch(step: int, tasks: int = 6) -> tuple[ModelOutput, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    output = ModelOutput(
        torch.zeros(8, 8),
        torch.randn(8, 4, generator=generator) * 2,
        torch.randn(8, 8, generator=generator) + 1,
        torch.nn.functional.normalize(torch.randn(8, 5, generator=generator), dim=-1),
    )
    task_B = torch.randperm(tasks, generator=generator)[:4].repeat_interleave(2)
    return output, torch.randint(4, (8,), generator=generator), task_B


def advance(state: CurriculumState, steps: range) -> NDArray[np.float64]:
    for step in steps:
        state.observe(*batch(step))
        if state.should_update(step):
            state.update(step)
    return state.weights


WRITTEN = {"proportional": "proportional(0.5)"}


@pytest.mark.parametrize("name", NAMES)
def test_weights_go_on_from_a_checkpoint_as_if_never_interrupted(name: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {}
    if name == "fixed":
        (tmp_path / "w.yaml").write_text("".join(f"t{i}: {i}\n" for i in range(6)))
        changes["weights_file"] = str(tmp_path / "w.yaml")
    whole = state_of(WRITTEN.get(name, name), **changes)
    advance(whole, range(1, 18))
    kept = {key: value.clone() for key, value in whole.state.state_dict().items()}
    weights = whole.weights.copy()
    expected = advance(whole, range(18, 41)).copy()
    resumed = state_of(WRITTEN.get(name, name), **changes)
    resumed.state.load_state_dict(kept)
    resumed.weights[:] = weights
    assert np.array_equal(advance(resumed, range(18, 41)), expected)
    for key, value in whole.state.state_dict().items():
        assert torch.equal(resumed.state.state_dict()[key].nan_to_num(-1), value.nan_to_num(-1)), key
    if load_policy(name).updates_needed:
        assert expected.std() > 0


def test_a_batch_is_observed_as_if_each_watched_by_itself() -> None:
    together, alone = state_of("confusion"), state_of("confusion")
    for step in range(4):
        output, answer_B, task_B = batch(step)
        task_B[:step] = -1
        together.observe(output, answer_B, task_B)
        alone.similarity.observe(output.features_BD, task_B)
        alone.literal.observe(output.z_BE, task_B)
        alone.prototype.observe(output.features_BD, task_B)
        loss_B = F.cross_entropy(output.logits_BC, answer_B, reduction="none")
        alone.statistics.observe(loss_B, uncertainty_weights(output.logits_BC), task_B, 4)
    expected = alone.state.state_dict()
    for name, value in together.state.state_dict().items():
        torch.testing.assert_close(value, expected[name], equal_nan=True, msg=lambda text, n=name: f"{n}: {text}")
    assert together.statistics.count_VK[0].sum() > 0


@pytest.mark.parametrize("name", OBSERVING)
def test_weights_stay_uniform_while_warming_up_and_move_after(name: str) -> None:
    state = state_of(name, warmup_steps=12)
    for step in range(1, 31):
        advance(state, range(step, step + 1))
        if step < 15:
            assert (state.weights == 1 / 6).all()
            assert step >= 12 or state.name(step) == f"uniform (warm-up of {name})"
    assert state.weights.std() > 0
    assert state.name(15) == name


def test_policies_that_observe_nothing_act_from_the_first_step_on(tmp_path: Path) -> None:
    state = state_of("proportional(1)", warmup_steps=1000)
    assert state.weights.tolist() == pytest.approx([n / 75 for n in range(10, 16)])
    assert state.inactive_reason(1) is None
    assert state.name(0) == "proportional(1)"
    file = tmp_path / "w.yaml"
    file.write_text("t0: 0\nt1: 1\nt2: 3\n")
    fixed = state_of("fixed", tasks=3, weights_file=str(file))
    assert fixed.weights.tolist() == [0, 0.25, 0.75]
    assert not state_of("uniform", tasks=2).inactive_reason(1)


def test_warmup_steps_win_over_epochs() -> None:
    assert state_of("confusion", warmup_steps=7, warmup_epochs=3).warmup_steps == 7
    assert state_of("confusion", warmup_steps=None, warmup_epochs=3).warmup_steps == 150


@pytest.mark.parametrize("name", OBSERVING)
@pytest.mark.parametrize("warmup", [0, 4, 5, 12])
def test_whether_a_policy_can_act_is_known_beforehand(name: str, warmup: int) -> None:
    """Tried out: the first step that is drawn by other weights than uniform, if any."""
    state = state_of(name, warmup_steps=warmup)
    acted = None
    for step in range(1, 31):
        if acted is None and state.weights.std() > 0:
            acted = step  # this step is drawn by them
        advance(state, range(step, step + 1))
    assert acted is not None
    assert state.inactive_reason(acted) is None
    assert state.inactive_reason(acted - 1) is not None


def test_a_policy_that_never_acts_says_why() -> None:
    assert "warm-up lasts 40 steps and the run 30; lower curriculum.warmup_steps" in str(
        state_of("confusion", warmup_steps=40).inactive_reason(30)
    )
    assert "curriculum.epsilon=1" in str(state_of("confusion", epsilon=1).inactive_reason(30))
    assert "one task" in str(state_of("confusion", tasks=1, places=None).inactive_reason(30))
    assert "first update is due at step 10" in str(state_of("uncertainty_gradient").inactive_reason(10))


def test_all_matrices_are_kept_under_every_policy_and_masked_where_never_observed() -> None:
    state = state_of("uniform", tasks=7)  # the seventh is never drawn
    advance(state, range(1, 21))
    matrices = {kind: (value_KK.numpy(), count_KK.numpy()) for kind, (value_KK, count_KK) in state.matrices().items()}
    assert list(matrices) == ["similarity", "literal", "prototype"]
    for kind, (matrix, counts) in matrices.items():
        assert np.array_equal(np.isnan(matrix), counts == 0), kind
        assert np.isnan(matrix[6]).all()
        assert np.isnan(matrix[:, 6]).all()
        assert not np.isnan(matrix[:6, :6]).any()
        assert kind == "prototype" or np.array_equal(matrix[:6, :6], matrix[:6, :6].T)
    assert np.nansum(matrices["prototype"][0], axis=1)[:6] == pytest.approx(1)
    assert matrices["literal"][0][0, 1] > 1  # a sum, not a mean


# --- the weights file


def read_ordered(file: Path, names: list[str]) -> np.ndarray:
    return order_weights(read_weights(file), file, names, np.ones(len(names), np.int64))


def test_a_weights_file_is_read_in_the_order_of_the_tasks(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text("b: 2\na: 0.5\n")
    assert read_ordered(file, ["a", "b"]).tolist() == [0.5, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\n", "missing b"),
        ("a: 1\nb: 1\nz: 1\n", "unknown z"),
        ("a: 1\nz: 1\n", "unknown z; missing b"),
        *(
            (f"a: 1\nb: {value}\n", "'b'=.*line 2.*at least 0")
            for value in ("-1", ".nan", ".inf", "1e999", "true", "much")
        ),
        ("a: 0\nb: 0\n", "no finite sum above 0"),
        ("a: 1e308\nb: 1e308\n", "no finite sum above 0"),
        ("- a\n- b\n", "a list is not accepted"),
        ("a: {1\n", "not valid YAML"),
    ],
)
def test_a_weights_file_that_does_not_fit_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_ordered(file, ["a", "b"])


def test_a_missing_weights_file_and_weight_on_empty_tasks_alone_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"curriculum\.weights_file: There is no file .*nowhere\.yaml"):
        read_weights(tmp_path / "nowhere.yaml")
    file = tmp_path / "w.yaml"
    file.write_text("a: 1\nb: 0\n")
    with pytest.raises(ConfigError, match="only to tasks without training questions"):
        CurriculumState(
            settings_of(policy="fixed", weights_file=str(file)), ["a", "b"], np.array([0, 5]), 50, 8, None, CPU
        )
