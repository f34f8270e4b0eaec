"""`accl tui --once` and `--picture`: screens as text and as pictures, complete however slow reading is."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from conftest import Accl
from factory import finished_run, running_run

import accl.analysis.arms
import tui.snapshot
from accl.cli.tui import tui as command
from accl.errors import AcclError, ConfigError
from accl.store.experiment import write_experiment
from accl.store.summary import SummaryReader
from tui.app import AcclApp
from tui.snapshot import Snapshot, check_keys, take_snapshot

SIZE = (120, 36)


def text(snapshot: Snapshot) -> str:
    return "\n".join(line.text for line in snapshot.lines)


@pytest.fixture(name="slow_reading")
def _slow_reading(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any, str], threading.Event]]:
    """Return a function that lets a method wait for an event, which comes once the screen was looked at ten times."""
    events: list[threading.Event] = []
    looks: list[str] = []
    pending = tui.snapshot.pending

    def look(app: AcclApp) -> str:
        looks.append(pending(app))
        if len(looks) >= 10:
            for event in events:
                event.set()
        return looks[-1]

    def slow(owner: Any, name: str) -> threading.Event:
        function, event = getattr(owner, name), threading.Event()
        events.append(event)
        monkeypatch.setattr(owner, name, lambda *arguments: (event.wait(), function(*arguments))[1])
        return event

    monkeypatch.setattr(tui.snapshot, "pending", look)
    yield slow
    for event in events:
        event.set()


def test_a_screen_is_printed_as_plain_text_and_drawn_at_once(tmp_path: Path, accl: Accl) -> None:
    run = finished_run(tmp_path / "runs")
    file = tmp_path / "screen.svg"
    options = ["--runs", str(tmp_path / "runs"), "--once", "--picture", str(file), "--press", "4", "--size", "100x30"]
    done = accl("tui", "last", *options)
    assert done.returncode == 0, done.stderr
    drawn = "".join(ElementTree.parse(file).getroot().itertext()).replace("\xa0", " ")
    for shown in (done.stdout, drawn):
        assert run.id in shown
        assert "anatomy" in shown
    lines = done.stdout.splitlines()
    assert len(lines) == 30
    assert all(len(line) <= 100 and line == line.rstrip() for line in lines)
    assert "\x1b" not in done.stdout
    assert "@font-face" not in file.read_text(encoding="utf-8")


def test_one_run_opens_by_itself_and_several_compared_and_escape_leads_to_the_list(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path, recipe) for recipe in ("baseline", "full")]
    assert "1 health" in text(take_snapshot(tmp_path, runs[:1], SIZE))
    assert "Δ test to baseline" in text(take_snapshot(tmp_path, runs, SIZE))
    for opened in (runs[:1], runs):
        assert "2 runs" in text(take_snapshot(tmp_path, opened, SIZE, ["escape"]))


def test_an_experiment_opens_as_a_comparison_of_arms_that_are_told_apart(tmp_path: Path, accl: Accl) -> None:
    for weight in ("0.03", "0.3"):
        write_experiment(finished_run(tmp_path, "full", overrides=[f"loss.contrastive_weight={weight}"]), "weights")
    finished_run(tmp_path, "baseline")
    done = accl("tui", "weights", "--runs", str(tmp_path), "--once", "--size", "80x24")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(" compare  2 arms")
    assert "_weight=0.3" in done.stdout
    assert "_weight=0.03" in done.stdout


@pytest.mark.parametrize("keys", [[], ["enter"], ["space", "down", "space", "c"]], ids=["list", "run", "compare"])
def test_a_screen_waits_for_what_is_read_slowly(
    tmp_path: Path, keys: list[str], slow_reading: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tui.load.machine_load", lambda: ())
    for recipe in ("baseline", "full"):
        finished_run(tmp_path, recipe)
    expected = text(take_snapshot(tmp_path, [], SIZE, keys))
    slow_reading(SummaryReader, "read")
    if "c" in keys:
        slow_reading(accl.analysis.arms, "compare_arms")
    assert text(take_snapshot(tmp_path, [], SIZE, keys)) == expected


def test_what_is_not_read_in_time_is_an_error_that_names_it(tmp_path: Path, slow_reading: Any) -> None:
    run = finished_run(tmp_path)
    slow_reading(SummaryReader, "read")
    with pytest.raises(AcclError, match=r"not complete within 0 s; it waits for: its first look at the runs"):
        take_snapshot(tmp_path, [run], SIZE, deadline=0)


def test_the_database_of_a_run_that_is_held_is_said(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    code = f"import duckdb, sys; c = duckdb.connect({str(run.database)!r}); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert "busy" in text(take_snapshot(tmp_path, [run], SIZE))
        holder.communicate()


def test_runs_that_train_and_runs_that_are_damaged_have_screens(tmp_path: Path) -> None:
    live, damaged = running_run(tmp_path), finished_run(tmp_path, "baseline")
    damaged.database.write_bytes(b"no database")
    assert "80/200" in text(take_snapshot(tmp_path, [live], SIZE))
    assert "damaged" in text(take_snapshot(tmp_path, [damaged], SIZE))
    assert "not compared" in text(take_snapshot(tmp_path, [live, damaged], SIZE))


def test_a_key_that_leaves_the_app_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AcclError, match="A key left the app"):
        take_snapshot(tmp_path, [], SIZE, ["q"])


@pytest.mark.parametrize("key", ["enter", "escape", "slash", "/", "?", "G", "3", "ctrl+p", "shift+right", "f1", "ä"])
def test_keys_that_a_keyboard_has_are_taken(key: str) -> None:
    check_keys([key])


@pytest.mark.parametrize("key", ["enterr", "", "wait:500", "33", "crtl+p", "\x1b"])
def test_a_key_that_no_keyboard_has_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match="There is no key"):
        check_keys(["down", key])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": "big"}, "columns x rows"),
        ({"size": "19x5"}, "from 20x5"),
        ({"size": "9999x9999"}, "from 20x5"),
        ({"web": True}, "--web"),
        ({"once": False, "press": ["q"]}, "--once"),
        ({"names": ["nobody"]}, "No run named 'nobody'"),
        ({"names": ["nobody", "baseline"]}, "No run named 'nobody'"),
    ],
)
def test_what_cannot_be_shown_is_refused_before_anything_is_opened(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    for seed in (1, 2):
        finished_run(tmp_path, seed=seed)
    with pytest.raises(AcclError, match=words):
        command(**{"runs": tmp_path, "once": True, **options})
