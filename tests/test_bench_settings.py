"""`accl bench train` measures several encoders in one call, and whole runs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from accl.bench import train
from accl.bench.protocol import Candidate, WorkerError
from accl.bench.report import Report
from accl.bench.train import Options, candidates, settings
from accl.bench.whole import WholeRun, measure_whole_peer, measure_whole_run
from accl.cli.bench import app
from accl.cli.reports import report_tables
from accl.config import Config, resolve
from accl.errors import ConfigError, TrainingError


def _nothing(_: str) -> None:
    """Ignore progress."""


def _options(**given: Any) -> Options:
    none: dict[str, Any] = {key: [] for key in ("models", "profiles", "overrides", "arms", "peer")}
    off = dict.fromkeys(("together", "apart", "whole"), False)
    few = dict.fromkeys(("steps", "warmup", "compile_warmup"), 1)
    rest: dict[str, Any] = {"recipe": "baseline", "backends": ["auto"], "limit": 60.0, "min_tokens": 0, "output": None}
    return Options(**(none | off | few | rest | {"rounds": 0} | given))


def test_every_model_is_measured_under_every_profile() -> None:
    options = _options(models=["random:tiny", "mine/encoder"], profiles=["demo", "minilm"])
    chosen = [candidates(options, setting)[0].config for setting in settings(options)]
    assert [(config.model.name, config.profile) for config in chosen] == [
        ("random:tiny", "demo"),
        ("mine/encoder", "demo"),
        ("random:tiny", "minilm"),
        ("mine/encoder", "minilm"),
    ]
    assert all(config.model.revision == "" for config in chosen)
    own = _options(profiles=["minilm"])
    (pinned,) = candidates(own, settings(own)[0])
    assert pinned.config.model.revision
    named = _options(models=[pinned.config.model.name], profiles=["minilm"])
    assert candidates(named, settings(named)[0]) == [pinned]
    with pytest.raises(ConfigError, match="both name the encoder"):
        settings(_options(models=["a"], overrides=["model.name=b"]))


def test_a_model_that_fails_is_a_row_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = WholeRun(10.0, 4.0, {"the command": 1.0, "training": 6.0, "testing": 3.0}, steps=12)

    def run(config: Config, limit: float, _say: object) -> WholeRun:
        assert limit == 7
        if config.model.name == "broken":
            raise WorkerError("the whole run ended with exit code 3")
        return whole

    monkeypatch.setattr(train, "measure_whole_run", run)
    output = tmp_path / "report.json"
    words = ["train", "-p", "demo", "--model", "broken", "--model", "random:tiny", "--rounds=0", "--whole", "--limit=7"]
    done = CliRunner().invoke(app, [*words, f"--output={output}"])
    assert isinstance(done.exception, TrainingError)
    assert "1 part could not be measured" in done.exception.what
    assert "exit code 3" in done.exception.what
    encoders, runs, _ = report_tables([Report.read(output)])
    assert [(row["encoder"], row["backend"]) for row in encoders.rows] == [
        ("broken", "failed: the whole run ended with exit code 3")
    ]
    assert dict(zip(runs.titles, runs.cells[0], strict=True)) == {
        "encoder": "tiny",
        "steps": "12",
        "whole run (s)": "10.0",
        "ready for the first step (s)": "4.0",
        "the command (s)": "1.0 (10 %)",
        "training (s)": "6.0 (60 %)",
        "testing (s)": "3.0 (30 %)",
    }
    nothing = CliRunner().invoke(app, ["train", "-p", "demo", "--rounds=0"])
    assert nothing.exit_code == 2
    assert "without --whole" in nothing.stderr


@pytest.mark.slow
@pytest.mark.parametrize("peer", ["", "eager"])
def test_a_whole_run_is_the_sum_of_its_phases(peer: str) -> None:
    config = resolve("baseline", "demo", ["train.max_steps=6", "eval.every=3", "eval.max_questions=60"]).config
    if peer:
        whole = measure_whole_peer(Candidate("Trainer eager", config, 1, 1, peer=peer), 120, _nothing)
    else:
        whole = measure_whole_run(config, 120, _nothing)
    assert whole.steps == 6
    assert sum(whole.phases.values()) == pytest.approx(whole.seconds)
    assert min(whole.phases.values()) >= 0
    assert {"loading libraries", "training", "validating", "saving", "testing"} <= set(whole.phases)
    start = list(whole.phases).index("training")
    assert whole.ready == pytest.approx(sum(list(whole.phases.values())[:start]), abs=0.2)


@pytest.mark.slow
def test_a_whole_run_that_fails_or_takes_too_long_says_so_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(WorkerError, match=r"exit code 4: .*/nowhere"):
        measure_whole_run(resolve("baseline", "demo", ["data.path=/nowhere"]).config, 120, _nothing)
    with pytest.raises(WorkerError, match="had not ended after 4 s"):
        measure_whole_run(resolve("baseline", "demo", ["train.max_steps=100000"]).config, 4, _nothing)
    assert not list(tmp_path.iterdir())
    running = (" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
    assert not [words for words in running if str(tmp_path) in words]
