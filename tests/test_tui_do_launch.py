"""New runs from the app: the form, what it means, and that it starts what it says."""

from __future__ import annotations

import math
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from factory import crashed_run, finished_run
from snapshots import SIZES, freeze
from textual.pilot import Pilot
from textual.widgets import Input
from tui_pilot import assert_picture, on_screen, open_app, open_newest_run, runs_listed, runs_screen, until

from accl.config import load
from accl.errors import ConfigError, DataError
from accl.launch import process, queue
from accl.launch.plan import Action
from accl.store.experiment import read_experiment
from accl.store.rundir import RunDir, list_runs
from accl.store.summary import Summary, SummaryReader
from tui import draft as drafts
from tui.app import AcclApp
from tui.draft import about, draft
from tui.form import Form
from tui.screens.launch import Field, LaunchScreen, Way
from tui.screens.runs import RunsScreen
from tui.snapshot import _lines as lines_of
from tui.snapshot import pending
from tui.widgets.keybar import KeyBar


@pytest.fixture(autouse=True)
def _idle_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.load.machine_load", lambda: ("GPU0 94% 412W 38/80GB",))
    monkeypatch.setattr(queue, "ensure_worker", lambda _: None)


@pytest.fixture(name="told")
def _told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr(AcclApp, "notify", lambda _, message, title="", **__: told.append(f"{title} {message}"))
    return told


def summaries(*runs: RunDir) -> list[Summary]:
    return [SummaryReader(run).read(0.0) for run in runs]


async def opened(pilot: Pilot[None], key: str = "n") -> LaunchScreen:
    """Open the form, and wait until what it begins with is judged."""
    await pilot.press(key)
    await until(pilot, lambda: isinstance(pilot.app.screen, LaunchScreen))
    await judged(pilot)
    assert isinstance(pilot.app.screen, LaunchScreen)
    return pilot.app.screen


async def judged(pilot: Pilot[None]) -> None:
    await until(pilot, lambda: not pending(pilot.app))  # type: ignore[arg-type]


def field(pilot: Pilot[None], name: str) -> Field:
    return pilot.app.screen.query_one(f"#{name}", Field)


# --- what a form means


def test_a_form_is_resolved_and_says_how_it_differs(tmp_path: Path) -> None:
    drafted = draft(tmp_path, Form("contrastive", "demo", changes="optim.lr=5e-5 train.epochs=3"))
    assert drafted.changed.keys() == {"optim.lr", "train.epochs"}
    assert drafted.changed["optim.lr"][1] == 5e-5
    assert [member.config.train.seed for member in drafted.members] == [42]
    assert (drafted.experiment, math.isnan(drafted.seconds)) == ("", True)


def test_several_seeds_are_an_experiment_of_which_what_has_finished_is_kept(tmp_path: Path) -> None:
    form = Form("full", "demo", seeds="1,2,3")
    name = draft(tmp_path, form).experiment
    assert name.startswith("train-full-demo-")
    run = process.prepare(tmp_path, draft(tmp_path, Form("full", "demo", seeds="2")).config, ["accl"], name)
    members = draft(tmp_path, form).members
    assert [member.action for member in members] == [Action.TRAIN, Action.WAIT, Action.TRAIN]
    assert members[1].run == run


def test_runs_like_another_one_take_all_of_its_configuration(tmp_path: Path) -> None:
    old = finished_run(tmp_path, "full", seed=7, overrides=["optim.lr=3e-5", "train.epochs=9"], curves=False)
    drafted = draft(tmp_path, Form(like=old, changes="loss.contrastive_weight=0.1"))
    assert drafted.config.train.seed == 7
    assert drafted.config.optim.lr == 3e-5
    assert drafted.changed.keys() == {"loss.contrastive_weight"}


def test_runs_may_be_like_one_from_before_a_section_was_added(tmp_path: Path) -> None:
    old = finished_run(tmp_path, "full", curves=False)
    written = old.config.read_text()
    old.config.write_text("".join(re.split(r"^alerts:\n(?:  .*\n)+", written, flags=re.MULTILINE)))
    assert "alerts" not in old.config.read_text()
    assert draft(tmp_path, Form(like=old)).changed == {}


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (Form("ful", "demo"), "Did you mean 'full'"),
        (Form("full", "demo", changes="optim.lrr=1"), "Did you mean 'optim.lr'"),
        (Form("full", "demo", changes="optim.lr=fast"), "expected number"),
        (Form("full", "demo", changes="optim.lr"), "is not key=value"),
        (Form("full", "demo", changes="data.path='a b"), "Close the quote"),
        (Form("full", "demo", seeds="1,x"), "--seeds"),
        (Form("full", "demo", seeds="1", changes="train.seed=3"), "Remove one of the two"),
    ],
)
def test_what_is_wrong_in_a_form_is_said_with_what_to_type(tmp_path: Path, form: Form, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        draft(tmp_path, form)
    assert words in str(caught.value)


def test_how_long_it_takes_is_told_by_runs_of_the_same_kind(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "full", steps=200, curves=False, overrides=["train.max_steps=null"])
    (summary,) = summaries(run)
    assert summary.state is not None
    state = summary.state.changed(latest={"steps_per_second": 10.0}, elapsed=25.0)
    seen = [Summary(run, state, summary.setup, config=summary.config)]
    epochs = load(run.config).train.epochs

    def seconds(changes: str, profile: str = "demo", seeds: str = "") -> float:
        return draft(tmp_path, Form("full", profile, seeds, changes), seen).seconds

    assert seconds("train.max_steps=100") == pytest.approx(10.0 + 5.0), "and what it took beside the steps"
    assert seconds("train.max_steps=null") == pytest.approx(25.0)
    assert seconds("train.max_steps=null", seeds="1,2,3") == pytest.approx(75.0)
    assert seconds(f"train.max_steps=null train.epochs={epochs * 2}") == pytest.approx(45.0)
    assert math.isnan(seconds("train.max_steps=null train.batch_size=8"))
    assert math.isnan(seconds("data.path=x", profile="minilm"))


def test_the_key_that_is_typed_is_explained() -> None:
    assert about("train.epochs=3 optim.lr=").startswith("optim.lr: number above 0")
    assert about("optim") == about("nothing.like_it=1") == about("") == ""


def test_the_command_that_does_the_same_is_kept_with_the_run(tmp_path: Path) -> None:
    form = Form("full", "demo", seeds="1", changes="train.max_steps=5 data.path='a b'")
    assert form.command == [
        *("accl", "train", "full", "--profile", "demo", "--seeds", "1"),
        *("--set", "train.max_steps=5", "--set", "data.path=a b"),
    ]
    assert Form(like=RunDir(tmp_path / "old")).command == ["accl", "train", "--like", "old"]


# --- the form on the screen


async def test_what_is_typed_is_judged_and_then_started(tmp_path: Path, started: list[RunDir], told: list[str]) -> None:
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot, 0)
        await opened(pilot)
        field(pilot, "profile").value = "demo"
        await pilot.press(*"train.max_stepz=7")
        await judged(pilot)
        assert "Did you mean 'train.max_steps'" in " ".join(on_screen(pilot).split())
        await pilot.press("left", "left", "backspace", "s")
        await judged(pilot)
        assert "train.max_steps" in on_screen(pilot)
        assert "1000 → 7" in on_screen(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: bool(started) and bool(told))
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        await runs_listed(pilot)
    (run,) = started
    assert load(run.config).train.max_steps == 7
    assert run.read_json(run.provenance)["command"] == [
        *("accl", "train", "full", "--profile", "demo", "--set", "train.max_steps=7")
    ]
    assert told[0].startswith(f"Started: {run.id}")


async def test_several_seeds_wait_in_the_queue_as_one_experiment(
    tmp_path: Path, started: list[RunDir], told: list[str]
) -> None:
    old = crashed_run(tmp_path, seed=3)
    async with open_app(tmp_path) as pilot:
        await open_newest_run(pilot)
        screen = await opened(pilot, "L")
        assert old.id in on_screen(pilot)
        assert not screen.query("#recipe"), "they are of the run"
        await pilot.press("shift+tab", *"1,2")
        await judged(pilot)
        assert "2 runs of full (demo), seeds 1, 2" in on_screen(pilot)
        assert "one after the other" in on_screen(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: bool(told))
    assert told[0].startswith("Queued: 2 runs")
    assert not started
    waiting = [entry.run for entry in queue.waiting(tmp_path)]
    assert [load(run.config).train.seed for run in waiting] == [1, 2]
    assert {run.read_json(run.provenance)["based_on"] for run in waiting} == {old.id}
    assert len({read_experiment(run) for run in waiting} - {""}) == 1


async def test_one_run_waits_if_it_is_told_to(tmp_path: Path, started: list[RunDir], told: list[str]) -> None:
    finished_run(tmp_path, curves=False)
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot)
        await opened(pilot)
        assert field(pilot, "profile").value == "demo", "as the newest run"
        await pilot.press("tab", "down")
        assert pilot.app.screen.query_one(Way).value == "in the queue"
        await pilot.press("enter")
        await until(pilot, lambda: bool(told))
    assert not started
    assert len(queue.waiting(tmp_path)) == 1


async def test_the_form_is_filled_in_by_the_mouse_as_well(tmp_path: Path, started: list[RunDir]) -> None:
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot, 0)
        await opened(pilot)
        way = pilot.app.screen.query_one(Way)
        await pilot.click(way, offset=(9, 0))
        assert (way.value, way.has_focus) == ("in the queue", True)
        await pilot.click(way, offset=(2, 0))
        assert way.value == "now"
        await pilot.click("#profile", offset=(3, 0))
        await pilot.press(*"demo")
        await pilot.click(pilot.app.screen.query_one(KeyBar), offset=(3, 0))
        await until(pilot, lambda: bool(started))
    assert load(started[0].config).profile == "demo"


async def test_down_goes_through_recipes_and_through_keys_that_contain_what_is_typed(tmp_path: Path) -> None:
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot, 0)
        await opened(pilot)
        await pilot.press("x", "space", *"epochs", "down")
        assert field(pilot, "changes").value == "x curriculum.warmup_epochs="
        await pilot.press("down")
        assert field(pilot, "changes").value == "x train.epochs="
        await pilot.press("down", "up", "3")
        assert field(pilot, "changes").value == "x train.epochs=3"
        await pilot.press("shift+tab", "shift+tab", "shift+tab", "down", "down")
        assert field(pilot, "recipe").value == "unweighted"
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
    assert list_runs(tmp_path) == []


async def test_the_field_that_is_typed_into_is_seen_on_the_smallest_screen(tmp_path: Path) -> None:
    async with open_app(tmp_path, (20, 5)) as pilot:
        await runs_listed(pilot, 0)
        screen = await opened(pilot)
        for key in ("shift+tab", "shift+tab", "shift+tab", "tab", "tab", "tab"):
            focused = screen.focused
            assert focused is not None
            await until(pilot, lambda focused=focused: focused.region.bottom <= 4 and focused.region.y >= 0)
            await pilot.press(key)


async def test_what_cannot_run_here_makes_no_run_and_leaves_the_form_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise DataError("There are no questions in mmlu.", "Name the folder: data.path=DIR")

    monkeypatch.setattr(drafts, "check_all", refuse)
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot, 0)
        await opened(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: "There are no questions in mmlu." in on_screen(pilot))
        assert isinstance(pilot.app.screen, LaunchScreen)
        assert pilot.app.screen.query_one("#changes", Input).has_focus
    assert list_runs(tmp_path) == []


async def test_who_leaves_the_form_while_it_is_checked_is_told_how_it_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    free = threading.Event()

    def refuse(*_: Any) -> None:
        free.wait()
        raise DataError("There are no questions.")

    monkeypatch.setattr(drafts, "check_all", refuse)
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot, 0)
        await opened(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: "checking its data" in on_screen(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        free.set()
        await until(pilot, lambda: told == ["Not started There are no questions."])


async def test_pictures_of_the_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    freeze(monkeypatch)
    finished_run(tmp_path, "full", curves=False)
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot)
        await until(pilot, lambda: runs_screen(pilot).is_complete)
        await opened(pilot)
        field(pilot, "seeds").value = "1,2,3"
        await pilot.press(*"optim.lr=5e-5 curriculum.policy=uniform train.epo")
        await pilot.press("down", "3")
        for width, height in SIZES:
            await pilot.resize_terminal(width, height)
            await judged(pilot)
            await assert_picture(pilot, f"launch-{width}x{height}", lambda: lines_of(pilot.app))
