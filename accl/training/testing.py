"""The test of the weights that validation chose: at the end of a run, or later, when a person asks for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from accl.config import load
from accl.errors import AbsentError, DamagedError, RunError
from accl.store.additions import add_rows
from accl.store.files import writing
from accl.store.lock import TESTING
from accl.store.manifest import folder_name
from accl.store.provenance import Change, ChangedError, check_config, fact_changes, read_provenance
from accl.store.rows import RowCollector
from accl.store.rundir import RunDir
from accl.store.state import RunState, State, claim, read_state, write_state
from accl.store.tested import TEST_EVENT, look_words, read_tested
from accl.training import checkpoint
from accl.training.backends.backend import StepBackend
from accl.training.backends.select import select_backend
from accl.training.context import TrainingContext
from accl.training.device import evaluating, set_determinism
from accl.training.evaluate import MOST_TOKENS, Evaluated, evaluate
from accl.training.memory import memory_errors
from accl.training.recording import record_test
from accl.training.report import say
from accl.training.setup import build_context

# Questions of one evaluation batch, as a multiple of the training batch: without gradients there is room for more.
EVALUATION_BATCHES = 4
# On a GPU, which the host would keep waiting with short batches, their tokens alone are limited: the hidden states of a
# batch have so many numbers, and as many tokens as memory that grows with tokens alone, such as scores, allows.
HIDDEN_NUMBERS, MOST_TOKENS_ON_GPU = 2**25, 2**17


def evaluate_split(
    context: TrainingContext, backend: StepBackend, split: str, limit: int | None, progress: Callable[[], Any]
) -> Evaluated:
    """Evaluate a split, or ``limit`` of its questions, with the weights that are in the model.

    Args:
        progress: called before each batch, and while other runs of the process evaluate; it may raise, which ends the
            evaluation.
    """
    questions = some_questions(context.positions[split], limit)
    on_cpu = context.placement.device.type == "cpu"
    width = context.model.contrastive_head.in_features
    context.model.eval()
    with evaluating(context.placement.device, progress):
        result = evaluate(
            backend.forward,
            context.assembler,
            questions,
            context.tasks,
            context.placement.device,
            batch_size=EVALUATION_BATCHES * context.config.train.batch_size if on_cpu else len(questions),
            most_tokens=MOST_TOKENS if on_cpu else min(HIDDEN_NUMBERS // width, MOST_TOKENS_ON_GPU),
            progress=progress,
        )
    context.model.train()
    return result


def some_questions(questions: NDArray[np.int64], limit: int | None) -> NDArray[np.int64]:
    """Return the questions of a split, or ``limit`` of them: the same ones each time, spread over the tasks."""
    if limit is None or limit >= len(questions):
        return questions
    # Splits lie in the order of tasks.
    spread: NDArray[np.int64] = torch.linspace(0, len(questions) - 1, limit).long().numpy()
    return questions[spread]


def load_best(run: RunDir, context: TrainingContext, backend: StepBackend, best_step: int) -> None:
    """Put the weights that validation chose into the model.

    No other weights will do: testing those that validation did not choose would be another experiment.

    Raises:
        DamagedError: they are missing or damaged.
    """
    try:
        checkpoint.load_model(run.checkpoints / folder_name(best_step), context.model)
    except DamagedError as error:
        raise DamagedError(
            f"The weights that validation chose cannot be tested: {error.what}",
            "Restore the file from a backup, or train a new run.",
        ) from error
    backend.sync_weights()


def read_test_split(run: RunDir, phase: Callable[[str], None]) -> None:
    """Test a finished run whose test split is unread, and record what the end of training would have recorded.

    The rows come into the database together or not at all. A run that was tested before is left as it is.

    Args:
        phase: called with a few words before each slow part.

    Raises:
        RunError: the run has not finished, or its configuration, questions or model are not what they were.
        BusyError: another process holds the run or its database.
        AbsentError, DamagedError: files of the run are missing or damaged.
        DataError, HubError, ConfigError, DeviceError: as `build_context`.
    """
    lock = claim(run, TESTING)
    try:
        state = read_state(run)
        if state.state is not State.FINISHED:
            raise RunError(f"{run.id} is {state.state}, not finished.", f"Go on with: accl resume {run.typed}")
        if read_tested(run) is None:
            _test(run, state, phase)
    finally:
        lock.abandon()


def _test(run: RunDir, state: RunState, phase: Callable[[str], None]) -> None:
    config = load(run.config)
    try:
        check_config(run, config)
        set_determinism(config.train.seed, config.train.deterministic)
        with memory_errors(run, config):
            context = build_context(config, phase)
            facts = json.loads(json.dumps(context.provenance.as_json()))  # as the provenance gives them back
            if changes := fact_changes(read_provenance(run), facts):
                raise ChangedError(run, changes)
            backend, _ = select_backend(context, lambda done, total: phase(f"warming up {done}/{total}"))
            best_step = _best_step(run, state)
            load_best(run, context, backend, best_step)
            phase("testing")
            result = evaluate_split(context, backend, "test", None, lambda: None)
    except ChangedError as error:
        hint = "Undo that: another test would be another experiment."
        raise _with_exit_code(RunError(error.what, hint), error.exit_code) from error
    journal = _Journal(state)
    record_test(context, journal, state.step, best_step, result)
    journal.recorder.event(state.elapsed, "info", TEST_EVENT, look_words(best_step))
    if device := _moved(run, context.provenance.device):
        journal.recorder.event(state.elapsed, "warning", "provenance", f"tested on other hardware: {device}")
    add_rows(run, journal.recorder.rows)
    with writing(run.state):
        write_state(run, state.changed(latest=journal.newest))


def _best_step(run: RunDir, state: RunState) -> int:
    """Return the step of the weights that validation chose, as the last checkpoint has it.

    Raises:
        AbsentError: the run has no checkpoint.
        DamagedError: the last one is damaged.
    """
    if not state.checkpoint_last:
        raise AbsentError(f"{run.id} has no checkpoint.", "Train it again.")
    return checkpoint.load_progress(run.checkpoints / state.checkpoint_last).best_step


class _Journal:
    """Collects what a test records; see `accl.training.recording.Journal`."""

    def __init__(self, state: RunState) -> None:
        self.recorder, self.seconds, self.newest = RowCollector(), state.elapsed, dict(state.latest)

    def latest(self, values: dict[str, float]) -> None:
        self.newest |= values

    def say(self, line: str) -> None:
        say(line)


def _moved(run: RunDir, device: dict[str, str | int]) -> str:
    """Say what differs from the device that the run was trained on; empty when nothing does."""
    was = read_provenance(run).get("device", {})
    kinds = ("type", "name", "precision")
    changes = [Change(key, was.get(key), device.get(key)) for key in kinds if was.get(key) != device.get(key)]
    return "; ".join(map(str, changes)) if was else ""


def _with_exit_code(error: RunError, code: int) -> RunError:
    error.exit_code = code
    return error
