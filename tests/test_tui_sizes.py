"""Every screen and pane at every size, under keys and under the mouse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from factory import ALL_TASKS, finished_run
from textual import events
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widget import Widget
from tui_pilot import open_app, runs_listed, until

from tui.commands import COMMANDS, of_scope
from tui.text import cell_len
from tui.widgets.keybar import KeyBar
from tui.widgets.strip import StripWidget

FEW = [(20, 5), (80, 24), (300, 5), (160, 45), (20, 100), (300, 100)]
ALL = [(width, height) for width in (20, 40, 60, 80, 110, 160, 220, 300) for height in (5, 10, 24, 45, 100)]
DOING = {f"runs.{name}" for name in ("restart", "tag", "note", "rename", "delete", "new", "like", "queue")}
# Keys that lead to another screen, or change the runs, which other tests press.
LEAVING = {"q", "ctrl+q", "ctrl+c", "escape", "enter", "c", "t", "f", "slash", "question_mark", "f1", "colon", "ctrl+p"}
# What is done with runs asks first, or asks for text.
LEAVING |= {key for command in COMMANDS if command.id in DOING for key in command.keys}
KEYS = sorted({key for command in COMMANDS for key in command.keys if not key.isdigit()} - LEAVING)
PANES = [command.keys[0] for command in of_scope("run") if command.keys and command.keys[0].isdigit()]
# Keys from the list to each screen, by its name.
SCREENS: dict[str, list[list[str]]] = {
    "list": [[]],
    "run": [["enter", pane] for pane in PANES],
    "compare": [["ctrl+a", "c"]],
    "help": [["question_mark"]],
    "palette": [["colon"]],
    "prompt": [["T"]],
    "launch": [["n"], ["L"]],
    "queue": [["Q"]],
}


def make_runs(root: Path) -> None:
    for seed, recipe in enumerate(("baseline", "full", "full")):
        finished_run(root, recipe, seed=seed, tasks=ALL_TASKS, steps=60)


@contextmanager
def back_to(pilot: Pilot[None], screen: Screen[object]) -> Iterator[None]:
    """Go back to a screen, whatever was opened over it."""
    yield
    while len(pilot.app.screen_stack) > 1 and pilot.app.screen is not screen:
        pilot.app.pop_screen()
    assert pilot.app.screen is screen


def strips(screen: Screen[object]) -> list[StripWidget]:
    return [widget for widget in screen.query(StripWidget) if widget.is_on_screen and widget.size]


async def go(pilot: Pilot[None], keys: list[str]) -> Screen[object]:
    """Press keys, each once the screen shows all that there is."""
    for key in keys:
        await pilot.press(key)
        await until(pilot, lambda: getattr(pilot.app.screen, "is_complete", True))
    return pilot.app.screen


async def tour(pilot: Pilot[None], sizes: list[tuple[int, int]]) -> None:
    """Show every screen and pane at every size, and make sure that no line is wider than its widget."""
    runs = pilot.app.screen
    for ways in SCREENS.values():
        for way in ways:
            with back_to(pilot, runs):
                screen = await go(pilot, way)
                for size in sizes:
                    await pilot.resize_terminal(*size)
                    await pilot.pause()
                    for widget in strips(screen):
                        assert all(cell_len(line) <= widget.size.width for line in widget.text_lines), (way, size)


async def test_every_screen_and_pane_is_drawn_at_any_size(tmp_path: Path) -> None:
    make_runs(tmp_path)
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot, 3)
        await tour(pilot, [(20, 5), (200, 60)])


@pytest.mark.slow
async def test_every_screen_and_pane_is_drawn_at_all_sizes(tmp_path: Path) -> None:
    make_runs(tmp_path)
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot, 3)
        await tour(pilot, ALL)
        await tour(pilot, ALL[::-1])


@pytest.mark.slow
@pytest.mark.parametrize("size", FEW)
async def test_every_key_is_taken_on_every_screen_at_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    make_runs(tmp_path)
    async with open_app(tmp_path, size) as pilot:
        await runs_listed(pilot, 3)
        runs = pilot.app.screen
        for ways in SCREENS.values():
            for way in ways:
                with back_to(pilot, runs):
                    await go(pilot, way)
                    await pilot.press(*KEYS, *KEYS[::-1])


async def use_mouse(pilot: Pilot[None], widget: Widget) -> None:
    """Turn the wheel over the middle of a widget, drag from there, click and double click there."""
    column, row = widget.size.width // 2, widget.size.height // 2
    for turned in (events.MouseScrollDown, events.MouseScrollUp):
        await pilot._post_mouse_events([turned], widget=widget, offset=(column, row))
    await pilot.mouse_down(widget, offset=(column, row))
    await pilot.hover(widget, offset=(0, 0))
    await pilot.mouse_up(widget, offset=(0, 0))
    await pilot.click(widget, offset=(column, row))
    await pilot.click(widget, offset=(column, row), times=2)


@pytest.mark.parametrize(
    "name", [name if name == "list" else pytest.param(name, marks=pytest.mark.slow) for name in SCREENS]
)
async def test_every_widget_takes_wheel_drag_click_and_double_click(tmp_path: Path, name: str) -> None:
    make_runs(tmp_path)
    async with open_app(tmp_path, (160, 45)) as pilot:
        await runs_listed(pilot, 3)
        runs = pilot.app.screen
        for way in SCREENS[name]:
            with back_to(pilot, runs):
                screen = await go(pilot, way)
                for widget in strips(screen):
                    # The foot runs what is clicked, and a double click may have opened another screen.
                    if not isinstance(widget, KeyBar) and widget.is_on_screen and pilot.app.screen is screen:
                        await use_mouse(pilot, widget)
                assert pilot.app.is_running
