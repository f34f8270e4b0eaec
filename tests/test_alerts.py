"""Alerts come once, in words, and reach the user's command without ever harming the run."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accl.config import resolve
from accl.errors import ConfigError
from accl.launch import process
from accl.store.rundir import RunDir
from accl.store.state import STALLED_AFTER_S, RunState, State
from accl.store.trusted import allow, is_allowed
from accl.training import alerts as module
from accl.training.alerts import Alerts


class Watched:
    """Alerts whose events are kept."""

    def __init__(self, folder: Path, state: State = State.RUNNING) -> None:
        self.state = RunState(state, step=700, progressed=time.time())
        self.events: list[tuple[str, str, str]] = []
        self.alerts = Alerts(RunDir(folder), lambda *event: self.events.append(event), lambda: self.state)

    @property
    def kinds(self) -> list[str]:
        return [kind for _, kind, _ in self.events]


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def noise(count: int, mean: float, seed: int = 0) -> list[float]:
    return list(np.random.default_rng(seed).normal(mean, 0.15, count))


@given(seed=st.integers(0, 10_000))
def test_a_loss_that_falls_with_noise_is_no_spike(seed: int) -> None:
    watched = Watched(Path())
    noisy = np.random.default_rng(seed).gamma(4, 0.25, 1000) * np.linspace(1.4, 0.1, 1000)
    for at in range(0, 1000, 20):
        watched.alerts.losses(at + 20, list(noisy[at : at + 20]))
    assert watched.kinds == []


def test_a_loss_that_rises_and_stays_is_one_spike(watched: Watched) -> None:
    watched.alerts.losses(200, noise(200, 0.5))
    watched.alerts.losses(201, [9.0])  # one bad batch
    assert watched.kinds == []
    watched.alerts.losses(221, noise(20, 3.0))
    watched.alerts.losses(241, noise(20, 3.0))
    assert watched.kinds == ["spike"]
    assert "at step 221" in watched.events[0][2]


def test_weights_on_few_tasks_are_a_collapse(watched: Watched) -> None:
    watched.alerts.effective_tasks(100, 51.8, 57)
    watched.alerts.effective_tasks(150, 5.8, 57)
    assert watched.kinds == []
    watched.alerts.effective_tasks(200, 5.2, 57)
    assert watched.events == [("warning", "collapse", "the curriculum draws from 5.2 of 57 tasks at step 200")]


def test_no_progress_and_no_room_are_told(watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.alerts.look()
    assert watched.kinds == []
    monkeypatch.setattr(module, "LEAST_FREE", 2**62)
    full = Watched(tmp_path)
    full.state = full.state.changed(progressed=time.time() - STALLED_AFTER_S - 1)
    for _ in range(2):
        full.alerts.look()
    assert full.kinds == ["stall", "disk"]


def test_the_command_gets_json_without_a_shell(watched: Watched, tmp_path: Path) -> None:
    told = tmp_path / "told $(touch owned).jsonl"
    script = tmp_path / "tell.py"
    script.write_text("import sys; open(sys.argv[1], 'ab').write(sys.stdin.buffer.read() + b'\\n')")
    allow(command := f"{sys.executable} {script} '{told}'")
    watched.alerts.use(command)
    watched.alerts.tell("nan", "the loss is nan at step 7", "error")
    watched.alerts.ended(watched.state.changed(state=State.FAILED, reason="the loss is nan"))
    lines = [json.loads(line) for line in told.read_text().splitlines()]
    assert sorted((line["kind"], line["level"]) for line in lines) == [("failed", "error"), ("nan", "error")]
    assert {line["run"] for line in lines} == {tmp_path.name}
    assert not (tmp_path / "owned").exists()
    assert watched.kinds == ["nan"]


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import sys; sys.exit('no\\x1b[2J room')", "ended with 1: no␛[2J room"),
        ("import time; time.sleep(60)", "took more than"),
    ],
)
def test_a_command_that_fails_or_hangs_is_an_event(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, words: str
) -> None:
    monkeypatch.setattr(module, "COMMAND_S", 1.0 if "sleep" in program else 30.0)
    script = tmp_path / "fail.py"
    script.write_text(program)
    allow(command := f"{sys.executable} {script}")
    watched.alerts.use(command)
    watched.alerts.ended(watched.state.changed(state=State.FINISHED))
    [(level, kind, message)] = watched.events
    assert (level, kind) == ("warning", "alert")
    assert words in message


def test_a_program_that_is_not_there_is_refused_before_the_run(tmp_path: Path) -> None:
    for command, words in (("no-such-program --now", "no-such-program"), ("'open", "cannot be understood")):
        with pytest.raises(ConfigError, match=words):
            resolve("full", "demo", [f"alerts.command={command}"])
    script = tmp_path / "tell"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o700)
    assert resolve("full", "demo", [f"alerts.command={script} --now"]).config.alerts.command == f"{script} --now"


def test_a_program_that_only_a_run_names_is_not_run_until_it_is_typed(watched: Watched, tmp_path: Path) -> None:
    script = tmp_path / "tell"
    script.write_text(f"#!/bin/sh\ncat > {tmp_path}/told\n")
    script.chmod(0o700)
    config = resolve("full", "demo", [f"alerts.command={script}"]).config
    process.prepare(tmp_path / "runs", config, ["accl", "restart", "full-s1"])
    watched.alerts.use(str(script))
    watched.alerts.ended(watched.state.changed(state=State.FAILED))
    [(_, kind, message)] = watched.events
    assert kind == "alert"
    assert "accl resume" in message
    assert not (tmp_path / "told").exists()
    process.prepare(tmp_path / "runs", config, ["accl", "train", "full", "--set", f"alerts.command={script}"])
    assert not is_allowed(f"{script} --now")
    watched.alerts.use(str(script))
    watched.alerts.ended(watched.state.changed(state=State.FAILED))
    assert (tmp_path / "told").exists()
