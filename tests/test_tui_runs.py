"""The list of runs: groups, figures over seeds, what it reads in the background, order, and its pictures."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from factory import STARTED, crashed_run, finished_run, running_run
from snapshots import SIZES, freeze
from textual.pilot import Pilot
from tui_pilot import TICK, assert_picture, on_screen, open_app, runs_listed, runs_screen, until

from accl.store.experiment import write_experiment
from accl.store.rundir import RunDir
from accl.store.state import RunState, State, read_state, write_state
from accl.store.summary import Summary
from accl.store.writer import Recorder
from tui.app import AcclApp
from tui.arms import Group
from tui.feed import RunFeed, RunsFeed, RunSummary, Speedometer, Speedometers
from tui.runlist import RunList
from tui.runrows import scale_of, time_left
from tui.snapshot import _lines as lines_of
from tui.text import SPARKS
from tui.viewstate import ViewState
from tui.widgets.chartgrid import ChartGrid
from tui.widgets.table import Table


@pytest.fixture(autouse=True)
def _idle_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.load.machine_load", lambda: ("GPU0 94% 412W 38/80GB", "CPU 12%"))


@pytest.fixture(scope="module")
def three_arms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline, a contrastive and a full arm of three seeds each, the full one being the newest."""
    root = tmp_path_factory.mktemp("arms")
    with pytest.MonkeyPatch.context() as patch:
        freeze(patch)
        _make_arms(root)
    return root


def _make_arms(root: Path) -> None:
    for i, (recipe, correct) in enumerate((("baseline", 0.3), ("contrastive", 0.45), ("full", 0.6))):
        for seed in (1, 2, 3):
            share = [question < (correct + seed / 50) * 120 for question in range(120)]
            finished_run(root, recipe, seed=seed, correct=share, steps=60, started=STARTED + 600 * i + seed)


async def complete(pilot: Pilot[None]) -> list[str]:
    """Wait until the list shows all that there is, and return the rows with their head."""
    await until(pilot, lambda: runs_screen(pilot).is_complete)
    return pilot.app.screen.query_one(Table).text_lines


def broken(root: Path) -> RunDir:
    """Make a run whose loss is NaN from step 81 on."""
    run = running_run(root, "full", seed=4)
    recorder = Recorder(run.database)
    for step in range(81, 100):
        recorder.metrics(step, step / 60, step * 0.05, {"train/loss": math.nan})
    recorder.close()
    write_state(run, read_state(run).changed(step=99, latest={"train/loss": math.nan}))
    return run


async def test_pictures_of_the_list(three_arms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    freeze(monkeypatch)
    async with open_app(three_arms, SIZES[0]) as pilot:
        for width, height in SIZES:
            await pilot.resize_terminal(width, height)
            await complete(pilot)
            await assert_picture(pilot, f"runs-{width}x{height}", lambda: lines_of(pilot.app))


async def test_an_arm_shows_its_seeds_and_differs_from_the_baseline_by_an_interval(three_arms: Path) -> None:
    async with open_app(three_arms, (160, 45)) as pilot:
        head, full, *_ = await complete(pilot)
        assert "Δ [95 %]" in head
        assert "▾ full" in full
        assert "64.4 ±2.1 %" in full, "mean and standard deviation over seeds"
        assert "+30.0 [" in full
        assert "••" in full, "a dot for each seed"
        assert "┼" in full, "the floor"
        assert any(mark in full for mark in SPARKS)
        assert "reference" in "\n".join(pilot.app.screen.query_one(Table).text_lines)
        assert "GPU0 94%" in on_screen(pilot)
        assert "keys differ from baseline s3: " in on_screen(pilot)
        assert "loss.contrastive_weight 0 → 0.3" in on_screen(pilot)


async def test_groups_fold_select_all_of_them_and_change_their_kind(three_arms: Path) -> None:
    async with open_app(three_arms, (120, 36)) as pilot:
        await runs_listed(pilot, 9)
        table, screen = pilot.app.screen.query_one(Table), runs_screen(pilot)
        await until(pilot, lambda: len(table.rows) == 12)
        assert screen.highlighted is not None, "the cursor begins on the newest run"
        await pilot.press("left")
        assert screen.highlighted is None
        await pilot.press("space")
        assert len(screen.list.selected) == 3
        assert table.cursor == 1, "and stepped on"
        await pilot.press("up", "left")
        await until(pilot, lambda: len(table.rows) == 9)
        await pilot.press("enter")
        await until(pilot, lambda: len(table.rows) == 12)
        for grouping, count in (("profile", 10), ("experiment", 10), ("state", 10), ("", 9), ("arm", 12)):
            await pilot.press("g")
            await until(pilot, lambda count=count: len(table.rows) == count)
            assert screen.list.grouping == grouping


async def test_a_folded_group_is_folded_when_the_app_is_opened_again(three_arms: Path, tmp_path: Path) -> None:
    file = tmp_path / "view.json"
    for keys, rows in (("left", "left"), 9), ((), 9), (("home", "right"), 12):
        async with AcclApp(three_arms, TICK, view=ViewState(file)).run_test(size=(80, 24)) as pilot:
            await runs_listed(pilot, 9)
            await pilot.press(*keys)
            await until(pilot, lambda rows=rows: len(pilot.app.screen.query_one(Table).rows) == rows)


async def test_arms_of_a_sweep_are_told_apart_by_the_keys_that_differ(tmp_path: Path) -> None:
    for seed in (1, 2):
        finished_run(tmp_path, "baseline", seed=seed, curves=False)
        for rate in ("1e-3", "2e-3"):
            run = finished_run(tmp_path, "full", seed=seed, overrides=[f"optim.lr={rate}"], curves=False)
            write_experiment(run, "rates")
    async with open_app(tmp_path, (120, 36)) as pilot:
        await runs_listed(pilot, 6)

        def groups() -> set[str]:
            return {entry.name[0] for entry in runs_screen(pilot).list.entries.values() if isinstance(entry, Group)}

        await until(pilot, lambda: groups() == {"baseline", "full lr=0.001", "full lr=0.002"})
        assert "▾ full lr=0.002" in on_screen(pilot)
        assert "reference" in on_screen(pilot)
        edited = finished_run(tmp_path, "baseline", seed=3, overrides=["optim.lr=5e-3"], curves=False)
        await until(pilot, lambda: "baseline lr=0.005 s3" in on_screen(pilot))
        shutil.rmtree(edited.path)
        await until(pilot, lambda: groups() == {"baseline", "full lr=0.001", "full lr=0.002"})
        await pilot.press("g", "g")
        await until(pilot, lambda: groups() == {"rates", "no experiment"})


def test_arms_are_sorted_by_the_mean_over_their_seeds_and_follow_the_filter(tmp_path: Path) -> None:
    for recipe, tests in ("full", (0.9, 0.1)), ("baseline", (0.6, 0.6)), ("contrastive", (0.55, 0.7)):
        for seed, test in enumerate(tests):
            finished_run(tmp_path, recipe, seed=seed, correct=test, curves=False)
    listed, view = RunList(), RunsFeed(tmp_path, Speedometers()).fetch()
    assert view is not None
    listed.update(view)

    def arms() -> list[str]:
        return [" ".join(row.cells[i][0] for i in (1, 10)) for row in listed.rows() if row.key.startswith("group")]

    listed.sort = "test▼"
    assert [arm.split()[1] for arm in arms()] == ["contrastive", "baseline", "full"]
    listed.sort = "test▲"
    assert [arm.split()[1] for arm in arms()] == ["full", "baseline", "contrastive"]
    assert "±" in arms()[0]
    listed.set_filter("recipe:full seed:0")
    assert arms() == []
    listed.grouping = "profile"
    (row, _) = listed.rows()
    assert row.cells[2][0] == "✓ 1"
    listed.set_filter("recipe:full")
    (row, *_) = listed.rows()
    assert row.cells[2][0] == "✓ 2", "the row of a group tells of the runs that are shown"


def test_a_seed_that_was_trained_again_counts_once_in_the_mean_of_its_arm(tmp_path: Path) -> None:
    for seed, correct in (1, 0.5), (1, 0.5), (1, 0.5), (2, 0.75):
        finished_run(tmp_path, "full", seed=seed, correct=correct, curves=False)
    view = RunsFeed(tmp_path, Speedometers()).fetch()
    assert view is not None
    group = Group(("full",), view.summaries)
    tests = {each.setup.seed: each.latest("test/accuracy") for each in view.summaries}
    assert (len(group.runs), len(group.tests)) == (4, 2)
    assert group.mean == pytest.approx((tests[1] + tests[2]) / 2)
    assert group.validated == pytest.approx(
        sum({each.setup.seed: each.validated for each in view.summaries}.values()) / 2
    )


async def test_arms_whose_names_do_not_fit_are_still_told_apart(tmp_path: Path) -> None:
    for rate in ("1e-3", "2e-3"):
        changes = [f"optim.lr={rate}", f"loss.contrastive_weight={'0.3' if rate == '1e-3' else '0.1'}"]
        finished_run(tmp_path, "full", overrides=changes, curves=False)
    async with open_app(tmp_path, (80, 24)) as pilot:
        await runs_listed(pilot, 2)
        await until(pilot, lambda: "=0.3 lr=0.001" in on_screen(pilot) and "=0.1 lr=0.002" in on_screen(pilot))


async def test_runs_are_sorted_by_a_configuration_key_that_is_typed(tmp_path: Path) -> None:
    for seed, rate in ((1, "1e-3"), (2, "5e-3"), (3, "2e-3")):
        finished_run(tmp_path, seed=seed, overrides=[f"optim.lr={rate}"], curves=False)
    async with open_app(tmp_path, (160, 30)) as pilot:
        await runs_listed(pilot, 3)
        await pilot.press("O", *"optim.lr", "enter")
        table = pilot.app.screen.query_one(Table)
        await until(pilot, lambda: "optim.lr▼" in table.text_lines[0])
        assert [row.cells[-1][0] for row in table.rows] == ["0.005", "0.002", "0.001"]
        await pilot.press("O", *"optim.lrr", "enter")
        await until(pilot, lambda: "No run has 'optim.lrr'" in on_screen(pilot))
        assert "Did you mean" in on_screen(pilot)


async def test_a_loss_that_is_not_a_number_and_a_damaged_database_say_so_in_their_rows(tmp_path: Path) -> None:
    finished_run(tmp_path, "full", seed=5).database.write_bytes(b"no database" * 500)
    crashed_run(tmp_path, "full", seed=6)
    run = broken(tmp_path)
    run.labels.write_text(json.dumps({"tags": ["odd"], "note": "broke late"}), encoding="utf-8")
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot, 3)
        await complete(pilot)
        assert "NaN @81" in on_screen(pilot)
        assert "? damaged" in on_screen(pilot)
        table, keys = pilot.app.screen.query_one(Table), [row.key for row in pilot.app.screen.query_one(Table).rows]
        table.move_to(keys.index(run.id))
        await until(pilot, lambda: "since step 81" in on_screen(pilot))
        assert "#odd  broke late" in on_screen(pilot)


async def test_the_load_of_the_machine_that_a_run_recorded_is_told_without_a_key(tmp_path: Path) -> None:
    run = running_run(tmp_path)
    recorder = Recorder(run.database)
    for seconds, used in (5.0, 90.0), (6.0, 80.0):
        recorder.system(seconds, (used, 3e10, 400.0, 100.0, 1e9))
    recorder.close()
    async with open_app(tmp_path) as pilot:
        await until(pilot, lambda: "mean GPU 85% 400W" in on_screen(pilot))


async def test_the_curves_of_an_arm_are_those_of_its_seeds(three_arms: Path) -> None:
    async with open_app(three_arms, (160, 45)) as pilot:
        await complete(pilot)
        await pilot.press("left")
        grid = pilot.app.screen.query_one(ChartGrid)
        await until(pilot, lambda: len(grid.charts["training loss"].lines) == 3)
        assert {line.name for line in grid.charts["training loss"].lines} == {"full s1", "full s2", "full s3"}


def observed(speedometer: Speedometer, run: RunDir, seconds: float, step: int, **values: float) -> RunSummary:
    state = RunState(State.RUNNING, step=step, total_steps=4000).changed(**values)
    return speedometer.observe(Summary(run, state), 1000.0 + seconds)


def test_the_spread_of_the_speed_is_that_of_what_was_observed(tmp_path: Path) -> None:
    speedometer = Speedometer()
    found = [observed(speedometer, RunDir(tmp_path), *at) for at in ((0, 0), (60, 10), (70, 20), (80, 40), (90, 50))]
    assert math.isnan(found[3].speed_spread)
    assert found[4].speed_spread == pytest.approx(0.433, abs=0.001)
    assert found[4].steps_per_second == pytest.approx(40 / 30), "the start of the run does not count"
    assert time_left(found[4]) == "49 m 22 s ±21 m"


def test_the_time_left_counts_a_validation_in_and_does_not_leap_after_it(tmp_path: Path) -> None:
    watched, opened, run = Speedometer(), Speedometer(), RunDir(tmp_path)
    for second in range(100):
        before = observed(watched, run, second, 10 * second)
    assert before.left_seconds == pytest.approx(301)
    assert observed(opened, run, 99, 990, elapsed=99).left_seconds == pytest.approx(301), "as the run did before"
    for speedometer in (watched, opened):
        assert observed(speedometer, run, 160, 1000).left_seconds < 2 * before.left_seconds


def test_the_list_and_the_screen_of_a_run_agree_about_the_time_left(tmp_path: Path) -> None:
    run = running_run(tmp_path)
    speedometers = Speedometers()
    listed = RunsFeed(tmp_path, speedometers)
    for step in 90, 100:
        write_state(run, read_state(run).changed(step=step, elapsed=float(step**2)))
        view = listed.fetch()
    assert view is not None
    left = RunFeed(run, speedometers).fetch(()).summary.left_seconds
    assert view.summaries[0].left_seconds == left > 0


def test_a_floor_far_from_the_tests_does_not_press_their_dots_together() -> None:
    assert scale_of([0.79, 0.96], [0.24, math.nan]) == (0.79, 0.96)
    assert scale_of([0.4, 0.6], [0.25]) == (0.25, 0.6)
    assert scale_of([], [0.25]) is None


async def test_a_filter_that_cannot_be_read_is_told_in_an_empty_list_without_curves(tmp_path: Path) -> None:
    finished_run(tmp_path)
    async with open_app(tmp_path, (160, 45)) as pilot:
        await complete(pilot)
        grid = pilot.app.screen.query_one(ChartGrid)
        assert grid.charts
        await pilot.press("f", *"lrr")
        await until(pilot, lambda: "No run matches: lrr" in on_screen(pilot))
        await until(pilot, lambda: not grid.charts)
        await pilot.press(">")
        table = pilot.app.screen.query_one(Table)
        await until(pilot, lambda: "Did you mean 'cfg.optim.lr'?" in " ".join(table.text_lines))
        await pilot.press("escape")
        await until(pilot, lambda: bool(grid.charts))
