"""The compare screen: arms over their seeds, painted as they are read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from factory import finished_run, running_run
from snapshots import SIZES, assert_snapshot, freeze
from textual.pilot import Pilot
from tui_pilot import TICK, on_screen, open_app, until

from accl.store.rundir import RunDir
from tui.app import AcclApp
from tui.messages import OpenRun
from tui.screens.compare import CompareScreen
from tui.snapshot import pending
from tui.theme import BOLD
from tui.widgets.chartgrid import ChartGrid
from tui.widgets.forest import Effect, Forest, interval_bar, p_text
from tui.widgets.table import Table

SHARES = {"baseline": 0.5, "contrastive": 0.55, "full": 0.75}


def arms_of_seeds(root: Path, seeds: int = 3) -> list[RunDir]:
    """Make runs of three arms whose accuracies are known."""
    runs = []
    for number, (recipe, share) in enumerate(SHARES.items()):
        for seed in range(1, seeds + 1):
            right = np.random.default_rng(100 * number + seed).random(240) < share
            runs.append(finished_run(root, recipe, seed=seed, correct=right))
    return runs


@asynccontextmanager
async def comparing(root: Path, runs: list[RunDir], size: tuple[int, int]) -> AsyncIterator[Pilot[None]]:
    """Open the app on a comparison, once it is complete."""
    async with AcclApp(root, TICK, runs).run_test(size=size) as pilot:
        await until(pilot, lambda: isinstance(pilot.app.screen, CompareScreen))
        await complete(pilot)
        yield pilot


async def complete(pilot: Pilot[None]) -> None:
    app = pilot.app
    assert isinstance(app, AcclApp)
    await until(pilot, lambda: not pending(app))


def compare_screen(pilot: Pilot[None]) -> CompareScreen:
    assert isinstance(pilot.app.screen, CompareScreen)
    return pilot.app.screen


async def test_arms_are_compared_over_their_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    freeze(monkeypatch)
    runs = arms_of_seeds(tmp_path)
    opened: list[OpenRun] = []
    monkeypatch.setattr(AcclApp, "on_open_run", lambda _, message: opened.append(message))
    async with comparing(tmp_path, runs, SIZES[0]) as pilot:
        screen = compare_screen(pilot)
        for size in SIZES:
            await pilot.resize_terminal(*size)
            await complete(pilot)
            assert_snapshot(f"compare-{size[0]}x{size[1]}", on_screen(pilot).splitlines())
        assert screen.comparing.reference == "baseline"
        chart = screen.query_one(ChartGrid).charts["training loss"]
        assert [line.name for line in chart.lines] == ["baseline", "contrastive", "full"]
        await pilot.press("l")
        chart = screen.query_one(ChartGrid).charts["training loss"]
        assert [line.name for line in chart.lines][:3] == ["baseline s1", "baseline s2", "baseline s3"]
        assert screen.arm is not None
        assert screen.arm.label == "contrastive"
        await pilot.press("full_stop")
        assert screen.arm.label == "full"
        changes = screen.query_one("#changes", Table)
        deltas = [abs(float(row.cells[4][0])) for row in changes.rows]
        assert deltas == sorted(deltas, reverse=True)
        await pilot.press("c")
        assert {row.key for row in changes.rows} == {"STEM", "humanities", "other", "social sciences"}
        await pilot.press("w")
        await until(pilot, lambda: "for ±1" in on_screen(pilot))
        await pilot.press("shift+tab", "shift+tab")
        assert screen.part == "config"
        await until(pilot, lambda: "curriculum.policy" in on_screen(pilot))
        await pilot.press("shift+tab", "end", "enter")
        await until(pilot, lambda: bool(opened))
        assert (opened[0].run, opened[0].pane, opened[0].questions) == (runs[-1], "questions", "flip:baseline wrong")
        # The arm at the cursor becomes the reference.
        await pilot.press("b")
        await complete(pilot)
        assert screen.comparing.reference == "full"
        assert [effect.name for effect in screen.query_one(Forest).effects] == ["baseline", "contrastive"]
        assert all(effect.delta < 0 for effect in screen.query_one(Forest).effects)


async def test_where_there_is_little_room_tab_leads_to_the_charts(tmp_path: Path) -> None:
    async with comparing(tmp_path, arms_of_seeds(tmp_path, seeds=1), (80, 24)) as pilot:
        assert "Δ test to baseline" in on_screen(pilot)
        assert "validation accuracy" not in on_screen(pilot)
        await pilot.press("tab")
        assert "validation accuracy" in on_screen(pilot)
        await pilot.resize_terminal(20, 5)
        await complete(pilot)


async def test_zoomed_in_the_lines_of_arms_and_seeds_have_finer_bins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accl.store.bins.MAX_BINS", 64)  # bins of four steps
    async with comparing(tmp_path, arms_of_seeds(tmp_path, seeds=2), (160, 45)) as pilot:
        grid = compare_screen(pilot).query_one(ChartGrid)
        assert all(line.detail is None for line in grid.charts["training loss"].lines)
        await pilot.press("+", "+", "+")
        await complete(pilot)
        for number in (3, 6):
            lines = grid.charts["training loss"].lines
            assert len(lines) == number
            within = [line.within("step", grid.view.range(grid.extent)) for line in lines]
            assert all((np.diff(curve.last) == 1).all() for curve in within)
            kept = list(lines)
            await pilot.press("l")
        await pilot.press("l")
        assert all(a is b for a, b in zip(grid.charts["training loss"].lines, kept, strict=True)), (
            "nothing is made anew"
        )


async def test_runs_that_are_broken_or_not_finished_say_so_and_the_others_are_compared(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path, recipe, seed=1) for recipe in ("baseline", "full")]
    runs += [finished_run(tmp_path, "full", seed=2), running_run(tmp_path, "contrastive")]
    runs[2].state.write_text("rubbish", encoding="utf-8")
    async with comparing(tmp_path, runs, (160, 45)) as pilot:
        screen = compare_screen(pilot)
        assert [effect.name for effect in screen.query_one(Forest).effects] == ["full"]
        rows = {row.key: [text for text, _ in row.cells] for row in screen.query_one("#arms", Table).rows}
        assert "? damaged" in rows["run 2"]
        assert "▶ running" in rows["contrastive"][1]
        assert "2 not compared" in on_screen(pilot)
        await pilot.press("down")
        assert "state.json" in on_screen(pilot)
        assert len(screen.query_one(ChartGrid).charts["training loss"].lines) == 3


async def test_a_comparison_without_any_test_says_why(tmp_path: Path) -> None:
    runs = [running_run(tmp_path, "baseline", seed=1), running_run(tmp_path, "full", seed=2)]
    async with open_app(tmp_path) as pilot:
        await until(pilot, lambda: "2 runs" in on_screen(pilot))
        await pilot.press("c")
        assert not isinstance(pilot.app.screen, CompareScreen), "nothing is selected yet"
        await pilot.press("space", "down", "space", "c")
        await until(pilot, lambda: "not compared: it is running" in on_screen(pilot))
        await until(pilot, lambda: "no two arms have a finished run each" in on_screen(pilot))
        assert len(compare_screen(pilot).query_one(ChartGrid).charts["training loss"].lines) == len(runs)


def test_a_forest_shows_every_seed_in_any_room() -> None:
    forest = Forest()
    forest.effects = [
        Effect(
            name, BOLD, delta, delta - 4, delta + 4, ((delta - 2, BOLD), (delta + 2, BOLD), (delta + 2, BOLD)), 0.031
        )
        for name, delta in (("contrastive", -3.0), ("full", 9.0))
    ]
    tall, flat = (["".join(s.text for s in line) for line in forest.draw(60, height)] for height in (6, 4))
    assert [line.count("•") for line in tall] == [0, 0, 1, 0, 1, 0]
    assert [line.count("2") > 0 for line in tall[2:5:2]] == [True, True]
    assert all("◆" in line and "├" in line and "+" in line for line in (tall[1], tall[3]))
    assert all("◆" in line and "•" in line and " .031" in line for line in flat[1:3])
    for width in range(1, 60):
        for height in range(1, 8):
            assert all(line.cell_length == width for line in forest.draw(width, height))


def test_bars_and_p_values_fit() -> None:
    assert interval_bar(0.2, 0.5, 0.8, 0.0, 11) == "○ ├──●──┤ ·"
    assert interval_bar(float("nan"), 0.5, 0.8, 0.0, 5) == "·   ·"
    assert [p_text(p) for p in (0.00001, 0.0312, 0.5, 1.0)] == ["<.001", ".031", ".50", "1.00"]
