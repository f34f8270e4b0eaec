"""The panes of a run, and the comparison of runs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from factory import ALL_TASKS, SIX_TASKS, STARTED, finished_run, running_run
from tui_pilot import TICK, on_screen, open_app, open_newest_run, until

from accl.store.writer import Recorder
from tui.matrix import Scale, cluster_order, compact
from tui.panes.confusion import ConfusionPane
from tui.screens.runs import RunsScreen
from tui.widgets.bars import Bars
from tui.widgets.chartgrid import ChartGrid
from tui.widgets.heatmap import Heatmap
from tui.widgets.text import Text


async def test_curves_grow_while_a_recorder_writes(tmp_path: Path) -> None:
    run = running_run(tmp_path, step=60)
    async with open_app(tmp_path) as pilot:
        screen = await open_newest_run(pilot)
        grid = screen.query_one(ChartGrid)
        await until(pilot, lambda: grid.extent == (0.0, 60.0))
        recorder = Recorder(run.database, interval=TICK)
        recorder.metrics(61, 1.0, 4.0, {"train/loss": 0.125, "train/brand_new": 7.0})
        recorder.evaluation(61, "validation", {"n": 4, "new_score": 0.5})
        await until(pilot, lambda: grid.extent == (0.0, 61.0))
        await until(pilot, lambda: "validation/new_score" in grid.charts)
        assert "train/brand_new" in grid.charts
        recorder.event(4.0, "warning", "precision", "bf16 is not to be had here, so fp32 it is")
        await until(pilot, lambda: "!" in on_screen(pilot))
        recorder.close()


async def test_keys_move_the_cursor_and_change_axis_scale_and_range(tmp_path: Path) -> None:
    finished_run(tmp_path)
    async with open_app(tmp_path) as pilot:
        screen = await open_newest_run(pilot)
        grid = screen.query_one(ChartGrid)
        await until(pilot, lambda: bool(grid.displayed))
        assert grid.extent == (0.0, 200.0)
        await pilot.press("at", *"100", "enter")
        assert "step 100 · epoch 1.50 · 5.0 s" in on_screen(pilot)
        await pilot.press("x")
        assert (grid.view.axis, grid.extent, grid.view.cursor) == ("epoch", (0.0, 3.0), 1.5)
        await pilot.press("x")
        assert grid.view.axis == "questions"
        await pilot.press("x")
        assert (grid.view.axis, grid.extent, grid.view.cursor) == ("time", (0.0, 10.0), 5.0)
        assert "10.0 s" in grid.text_lines[-1]
        await pilot.press("plus")
        assert grid.view.range(grid.extent) == (2.5, 7.5)
        await pilot.press("y", "r", "z")
        await until(pilot, lambda: grid.displayed == ["loss"])
        assert grid.log_y
        assert grid.raw
        await pilot.press("down")
        await until(pilot, lambda: grid.displayed == ["accuracy"])
        await pilot.press("escape", "escape", "escape")
        assert isinstance(pilot.app.screen, RunsScreen), "full screen, then the cursor, then the screen"


async def test_validation_accuracy_is_shown_with_both_floors(tmp_path: Path) -> None:
    finished_run(tmp_path, trivial_baselines={"majority_letter": 0.278, "longest_option": 0.262})
    async with open_app(tmp_path) as pilot:
        screen = await open_newest_run(pilot)
        grid = screen.query_one(ChartGrid)
        await until(pilot, lambda: "accuracy" in grid.displayed)
        await pilot.press("down", "z")
        await until(pilot, lambda: grid.displayed == ["accuracy"])
        text = "\n".join(grid.text_lines)
        assert "27.8 % ╌ majority" in text
        assert "26.2 % ╌ longest" in text
        assert "75.0 % validation" in text
        losses, accuracies = (grid.charts[title] for title in ("loss", "accuracy"))
        floors = {floor.style for floor in accuracies.floors}
        styles = [{line.name: line.style for line in chart.lines} for chart in (losses, accuracies)]
        assert styles[0]["validation"] == styles[1]["validation"]
        assert floors.isdisjoint([*styles[0].values(), *styles[1].values()])


async def test_the_metric_filter_narrows_the_charts_and_escape_drops_it_first(tmp_path: Path) -> None:
    finished_run(tmp_path)
    async with open_app(tmp_path) as pilot:
        screen = await open_newest_run(pilot)
        grid = screen.query_one(ChartGrid)
        await until(pilot, lambda: bool(grid.displayed))
        await pilot.press("slash", *"rate$", "enter")
        await until(pilot, lambda: grid.displayed == ["learning rate"])
        await pilot.press("escape")
        await until(pilot, lambda: len(grid.matching) > 1)
        assert pilot.app.screen is screen


async def test_task_weights_are_sorted_and_compared_with_uniform(tmp_path: Path) -> None:
    run = running_run(tmp_path, tasks=ALL_TASKS, step=10)
    weights = np.arange(1, 58) / np.arange(1, 58).sum()
    recorder = Recorder(run.database)
    recorder.curriculum(100, "confusion", weights.tolist(), list(range(57)))
    recorder.close()
    async with open_app(tmp_path) as pilot:
        screen = await open_newest_run(pilot)
        await pilot.press("2")
        bars = screen.query_one(Bars)
        await until(pilot, lambda: len(bars.bars) == 57)
        assert bars.bars[0].name == ALL_TASKS[-1][0]
        assert bars.bars[0].drawn == 56
        assert bars.uniform == pytest.approx(1 / 57)
        assert "▾ uniform" in bars.text_lines[0]
        assert ALL_TASKS[-1][0] in bars.text_lines[1]
        assert "×1.97" in bars.text_lines[1]
        assert "policy confusion" in on_screen(pilot)
        await pilot.press("end")
        assert ALL_TASKS[0][0] in bars.text_lines[-1]
        await pilot.press("o", "o", "home")
        assert bars.bars[0].name == min(name for name, _, _ in ALL_TASKS)


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
async def test_the_cursor_names_its_pair_and_value(tmp_path: Path, size: tuple[int, int]) -> None:
    run = running_run(tmp_path, tasks=ALL_TASKS, step=10)
    matrix = np.arange(57 * 57, dtype=float).reshape(57, 57) / 10000
    matrix = (matrix + matrix.T) / 2
    counts = np.full((57, 57), 11)
    counts[0, 5] = counts[5, 0] = 0
    recorder = Recorder(run.database)
    recorder.confusion(10, "similarity", matrix.ravel().tolist(), counts.ravel().tolist())
    recorder.close()
    async with open_app(tmp_path, size) as pilot:
        screen = await open_newest_run(pilot)
        await pilot.press("3")
        pane = screen.query_one(ConfusionPane)
        await until(pilot, lambda: len(pane.task_order) == 57)
        assert "training stream" in on_screen(pilot)
        grid = screen.query_one(Heatmap)
        row, column = grid.cursor
        assert pane.pair in {pane.ranking[0], pane.ranking[0][::-1]}
        assert row < column, "the pair is not in the triangle that shows the matrix"
        grid.move_to(0, 1)
        await pilot.press("down", "down", "l", "right", "j")
        a, b = pane.pair
        assert (a, b) == (pane.task_order[3], pane.task_order[3])
        await pilot.press("l", "l")
        a, b = pane.pair
        text = "\n".join(screen.query_one("#pair", Text).text_lines)
        assert ALL_TASKS[a][0] in text
        assert ALL_TASKS[b][0] in text
        assert f"{matrix[a, b]:#.3g}" in text
        assert "11 pairs" in text
        row = [matrix[a, c] for c in range(57) if c != a]
        assert f"{sum(value > matrix[a, b] for value in row) + 1} in its row" in text
        # The order changes, the pair does not.
        await pilot.press("o")
        assert pane.pair == (a, b)
        assert pane.task_order == sorted(range(57), key=lambda i: ALL_TASKS[i][0])
        grid = screen.query_one(Heatmap)
        grid.move_to(0, 5)
        await until(pilot, lambda: "never seen together" in on_screen(pilot))


async def test_the_list_of_pairs_moves_the_cursor(tmp_path: Path) -> None:
    run = running_run(tmp_path, tasks=ALL_TASKS, step=10)
    matrix = np.zeros((57, 57))
    matrix[7, 30] = matrix[30, 7] = 0.9
    matrix[2, 3] = matrix[3, 2] = 0.5
    recorder = Recorder(run.database)
    recorder.confusion(10, "similarity", matrix.ravel().tolist(), [1] * 57 * 57)
    recorder.close()
    async with open_app(tmp_path, (120, 40)) as pilot:
        screen = await open_newest_run(pilot)
        await pilot.press("3")
        pane = screen.query_one(ConfusionPane)
        await until(pilot, lambda: bool(pane.ranking))
        assert pane.ranking[:2] == [(7, 30), (2, 3)], "a symmetric pair stands once"
        await pilot.press("tab", "enter")
        await until(pilot, lambda: pane.pair == (7, 30))
        assert "rank 1 of 1,596" in "\n".join(screen.query_one("#pair", Text).text_lines)
        assert screen.query_one(Heatmap).has_focus


async def test_each_z_changes_the_size_of_the_cells(tmp_path: Path) -> None:
    finished_run(tmp_path, tasks=ALL_TASKS)
    async with open_app(tmp_path) as pilot:
        screen = await open_newest_run(pilot)
        await pilot.press("3")
        grid = screen.query_one(Heatmap)
        await until(pilot, lambda: len(grid.matrix) == 57)
        pictures = []
        for _ in range(4):
            await pilot.press("z")
            pictures.append(grid.text_lines)
        assert all(one != other for one, other in pairwise(pictures))


async def test_the_matrix_of_the_test_questions_is_preferred_and_v_changes_it(tmp_path: Path) -> None:
    finished_run(tmp_path)
    async with open_app(tmp_path) as pilot:
        await open_newest_run(pilot)
        await pilot.press("3")
        await until(pilot, lambda: "test questions" in on_screen(pilot))
        await pilot.press("v")
        await until(pilot, lambda: "training stream" in on_screen(pilot))


async def test_the_scale_leaves_the_diagonal_out(tmp_path: Path) -> None:
    finished_run(tmp_path)
    async with open_app(tmp_path) as pilot:
        screen = await open_newest_run(pilot)
        await pilot.press("3")
        grid = screen.query_one(Heatmap)
        await until(pilot, lambda: len(grid.matrix) == 6)
        off = grid.matrix[~np.eye(6, dtype=bool)]
        assert (grid.scale.at(0.0), grid.scale.at(1.0)) == (pytest.approx(off.min()), pytest.approx(off.max()))
        for zoom in ("small", "medium", "numbers"):
            await pilot.press("z")
            assert grid.zoom == zoom
            assert len(grid.text_lines) == grid.size.height
        assert compact(off.max()) in "\n".join(grid.text_lines)


async def test_the_lower_triangle_is_the_difference_to_a_run_or_a_moment(tmp_path: Path) -> None:
    matrix = np.full((6, 6), 0.25)
    finished_run(tmp_path, "baseline", similarity=matrix, started=STARTED - 60)
    finished_run(tmp_path, "full", similarity=matrix + 0.5)
    async with open_app(tmp_path, (120, 36)) as pilot:
        screen = await open_newest_run(pilot)
        await pilot.press("3")
        pane, grid = screen.query_one(ConfusionPane), screen.query_one(Heatmap)
        await until(pilot, lambda: grid.lower is not None and "minus baseline s42" in on_screen(pilot))
        assert grid.values[3, 1] == pytest.approx(0.5)
        assert grid.values[1, 3] == pytest.approx(0.75)
        assert "baseline s42 .25 (+.50)" in on_screen(pilot)
        await pilot.press("d", "v")
        await until(pilot, lambda: "training stream" in on_screen(pilot) and "minus step 50" in on_screen(pilot))
        await pilot.press("comma")
        await until(pilot, lambda: "◂ 150 ▸" in on_screen(pilot) and screen.is_complete)
        await pilot.press("b", "full_stop")
        await until(pilot, lambda: "minus step 150" in on_screen(pilot))
        await pilot.press("d", "slash", *"econ phil", "enter")
        await until(pilot, lambda: grid.lower is None and grid.has_focus)
        assert [SIX_TASKS[i][0] for i in pane.pair] == ["econometrics", "philosophy"]
        await pilot.press("n", "o", "o", "R", "p")
        await until(pilot, lambda: pane.order == "cluster" and pane.by_rows and "playing" in on_screen(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: "playing" not in on_screen(pilot) and pane.step is None)


def test_one_outlier_does_not_take_all_colours() -> None:
    values = np.array([0.1, 0.2, 0.3, 0.4, 1000.0])
    assert Scale.of(values, "quantiles").shares(values).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert Scale.of(values, "linear").shares(values)[3] < 0.001
    change = Scale.of(np.array([-2.0, 0.0, 1.0, np.nan]), "linear", diverging=True)
    assert change.shares(np.array([-2.0, 0.0, 1.0])).tolist() == [0.0, 0.5, 0.75]
    assert np.isnan(change.shares(np.array([np.nan]))[0])
    assert (change.at(0.0), change.at(0.5), change.at(1.0)) == (-2.0, 0.0, 2.0)


def test_similar_tasks_are_neighbours_in_the_order_of_clusters() -> None:
    matrix = np.full((6, 6), 0.1)
    for cluster in ((0, 3, 5), (1, 2, 4)):
        matrix[np.ix_(cluster, cluster)] = 0.8
    order = cluster_order(matrix)
    assert {frozenset(order[:3]), frozenset(order[3:])} == {frozenset((0, 3, 5)), frozenset((1, 2, 4))}
    assert cluster_order(np.full((3, 3), np.nan)) != []


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.344, ".34"), (-0.12, "-.12"), (-0.001, ".00"), (1.34, "1.3"), (78.04, "78"), (123456.0, "1e5"), (np.nan, "·")],
)
def test_numbers_of_cells_are_short(value: float, text: str) -> None:
    assert compact(value) == text
