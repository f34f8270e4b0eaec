"""The frame of the app: the list of commands, colours, what is kept, and what is repainted."""

from __future__ import annotations

import json
import os
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

import pytest
from factory import ALL_TASKS, finished_run
from rich.ansi import AnsiDecoder
from rich.color import Color
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import LayoutUpdate
from textual.geometry import Region
from textual.screen import Screen
from textual.strip import Strip
from tui_pilot import TICK, on_screen, open_app, open_newest_run, runs_listed, runs_screen, until

from tui import theme
from tui.app import AcclApp
from tui.commands import BY_ID, COMMANDS, SCOPES, of_scope
from tui.palettes import ARMS, BACKGROUNDS, PALETTES, TEXTS
from tui.panes.confusion import ConfusionPane
from tui.repaint import shortened
from tui.screens.help import HelpScreen, KeyPage
from tui.screens.palette import PaletteScreen
from tui.screens.run import RunScreen
from tui.screens.runs import RunsScreen
from tui.snapshot import pending
from tui.text import strip
from tui.viewstate import MAX_TEXT, ViewState, view_file
from tui.widgets.filter import Filter
from tui.widgets.keybar import KeyBar
from tui.widgets.strip import changed_regions
from tui.widgets.table import Table

# --- commands


def test_every_command_has_an_id_of_its_own_a_title_and_a_scope() -> None:
    assert len(BY_ID) == len(COMMANDS)
    for command in COMMANDS:
        assert command.title
        assert command.scope in SCOPES
        assert command.keys or command.scope == "everywhere", "a command without a key is found in the palette"


# What has the focus at the same time.
@pytest.mark.parametrize(
    "scopes",
    [
        ("runs", "lists"),
        ("runs", "groups"),
        *(("run", pane, widget) for pane in ("curriculum", "confusion", "tasks") for widget in ("lists", "grid")),
        *(("run", pane) for pane in ("health", "questions", "log", "machine")),
        ("compare", "lists"),
        ("palette",),
        ("confirm",),
        ("prompt",),
        ("launch",),
        ("queue", "lists"),
        ("help",),
    ],
)
def test_no_key_means_two_things(scopes: tuple[str, ...]) -> None:
    for one, other in combinations((command for scope in (*scopes, "everywhere") for command in of_scope(scope)), 2):
        assert not set(one.keys) & set(other.keys), (one.id, other.id)


@pytest.mark.parametrize("key", ["colon", "ctrl+p"])
async def test_the_palette_is_narrowed_by_typing_and_runs_a_command(tmp_path: Path, key: str) -> None:
    finished_run(tmp_path, curves=False)
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot)
        await pilot.press(key)
        await until(pilot, lambda: isinstance(pilot.app.screen, PaletteScreen))
        table = pilot.app.screen.query_one(Table)
        assert {"runs.open", "lists.up", "everywhere.quit"} <= {row.key for row in table.rows}
        assert "run.back" not in {row.key for row in table.rows}, "it is of another screen"
        await pilot.press(*"open run")
        await until(pilot, lambda: [row.key for row in table.rows] == ["runs.open"])
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))


async def test_the_palette_leaves_out_what_cannot_be_done(tmp_path: Path) -> None:
    async with open_app(tmp_path) as pilot:
        await pilot.press("colon")
        await until(pilot, lambda: isinstance(pilot.app.screen, PaletteScreen))
        keys = {row.key for row in pilot.app.screen.query_one(Table).rows}
        assert "runs.open" not in keys, "there is no run"
        assert "runs.filter" in keys
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))


@pytest.mark.parametrize(
    ("pane", "key", "label", "why"),
    [
        ("3", "full_stop", "later", "this is the newest matrix"),
        ("3", "tab", "list", "it needs 110 columns"),
        ("6", "n", "next", "type / and what to find first"),
        ("7", "right", "cursor", "the charts are not shown"),
    ],
)
async def test_a_key_that_can_do_nothing_is_not_at_the_foot_and_says_why(
    tmp_path: Path, pane: str, key: str, label: str, why: str
) -> None:
    finished_run(tmp_path)
    async with open_app(tmp_path, (100, 24)) as pilot:
        screen = await open_newest_run(pilot)
        await pilot.press(pane)
        bar = screen.query_one(KeyBar)
        await until(pilot, lambda: not screen.pending and f" {label} " not in bar.text_lines[0])
        await pilot.press(key)
        await until(pilot, lambda: why in bar.text_lines[0])


async def test_enter_says_why_it_opens_nothing(tmp_path: Path) -> None:
    async with open_app(tmp_path) as pilot:
        await pilot.press("enter")
        bar = pilot.app.screen.query_one(KeyBar)
        await until(pilot, lambda: "there is nothing here to do it with" in bar.text_lines[0])


async def test_the_charts_of_the_machine_bring_their_keys_to_the_foot(tmp_path: Path) -> None:
    finished_run(tmp_path)
    async with open_app(tmp_path) as pilot:
        screen = await open_newest_run(pilot)
        await pilot.press("7", "tab")
        await until(pilot, lambda: " jump " in screen.query_one(KeyBar).text_lines[0])


async def test_a_wider_screen_brings_the_keys_of_what_it_shows_to_the_foot(tmp_path: Path) -> None:
    finished_run(tmp_path)
    async with open_app(tmp_path, (100, 24)) as pilot:
        screen = await open_newest_run(pilot)
        await pilot.press("7")
        await until(pilot, lambda: " cursor " not in screen.query_one(KeyBar).text_lines[0])
        await pilot.resize_terminal(120, 24)
        await until(pilot, lambda: " cursor " in screen.query_one(KeyBar).text_lines[0])


async def test_help_begins_with_what_is_on_screen(tmp_path: Path) -> None:
    finished_run(tmp_path, curves=False)
    async with open_app(tmp_path, (160, 45)) as pilot:
        await open_newest_run(pilot)
        await pilot.press("3", "question_mark")
        await until(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))
        page = pilot.app.screen.query_one(KeyPage)
        assert set(page.scopes[:4]) == {"run", "confusion", "grid", "everywhere"}
        first = page.text_lines[0].split()
        assert first[:2] == ["One", "run"]
        assert len(first) > 2, "a second column begins beside it"


# --- mouse


async def test_double_click_opens_a_head_sorts_and_tabs_are_clicked(tmp_path: Path) -> None:
    for seed, correct in ((1, 0.3), (2, 0.9), (3, 0.6)):
        finished_run(tmp_path, seed=seed, correct=correct, curves=False)
    async with open_app(tmp_path, (120, 30)) as pilot:
        await runs_listed(pilot, 3)
        table = pilot.app.screen.query_one(Table)
        x = table.text_lines[0].index(" test ") + 3

        def tests() -> list[str]:
            return [row.cells[10][0] for row in table.rows[1:]]  # below that of the arm

        await pilot.click(Table, offset=(x, 0))
        await until(pilot, lambda: tests() == sorted(tests(), reverse=True))
        assert "test▼" in table.text_lines[0]
        await pilot.click(Table, offset=(x, 0))
        await until(pilot, lambda: tests() == sorted(tests()))
        await pilot.click(Table, offset=(10, 2), times=2)
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        screen = pilot.app.screen
        assert isinstance(screen, RunScreen)
        assert screen.run.id == table.rows[1].key
        await pilot.click("#tabs", offset=(3 * len(" 1 health "), 0))
        await until(pilot, lambda: screen.pane_name == "confusion")


# --- colours


def luminance(colour: Color) -> float:
    """Relative luminance as WCAG 2 defines it."""
    shares = [part / 255 for part in colour.get_truecolor()]
    r, g, b = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("name", [name for name, palette in PALETTES.items() if not palette.ansi])
def test_text_and_lines_are_told_from_every_background(name: str) -> None:
    palette = PALETTES[name]
    for text in (*TEXTS, *ARMS):
        for background in BACKGROUNDS:
            dark, light = sorted(luminance(palette.colour(colour)) for colour in (text, background))
            assert (light + 0.05) / (dark + 0.05) >= (7 if name == "high-contrast" else 4.5), (text, background)


def test_an_arm_keeps_its_colour_and_seeds_are_shades_of_it() -> None:
    arms = ["baseline", "contrastive", "full", "my-own"]
    assert len({theme.arm_style(arm) for arm in arms}) == 4
    assert theme.arm_style("my-own") == theme.arm_style("my-own")
    assert len({theme.painted(theme.arm_style("full", seed)) for seed in (42, 43, 44)}) == 3


def test_another_palette_shows_in_the_next_line_that_is_made() -> None:
    def colour() -> object:
        (segment,) = strip([("x", theme.DIM)], 1)
        return segment.style and segment.style.color

    try:
        dark = colour()
        theme.use("light")
        assert colour() != dark
        theme.use("no-colours")
        assert colour() == Color.parse("default")
        assert theme.painted(theme.CURSOR).reverse
    finally:
        theme.use(theme.DEFAULT)
    assert theme.painted(Style(color="#123456")) == Style(color="#123456"), "colours of no name stay"


@pytest.mark.parametrize(
    ("environment", "forced"),
    [
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "xterm", "COLORTERM": "truecolor"}, None),
        ({"TERM": "xterm"}, "16-colours"),
        ({"TERM": "linux"}, "16-colours"),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, "no-colours"),
        ({"TERM": "xterm-256color", "NO_COLOR": ""}, None),
    ],
)
def test_limits_of_the_terminal_are_recognised(environment: dict[str, str], forced: str | None) -> None:
    assert theme.forced_palette(environment) == forced


@pytest.mark.parametrize(
    "palette",
    [pytest.param(name, marks=[] if name in ("light", "no-colours") else pytest.mark.slow) for name in PALETTES],
)
async def test_every_palette_draws_the_confusion_grid(tmp_path: Path, palette: str) -> None:
    finished_run(tmp_path)
    app = AcclApp(tmp_path, interval=TICK, palette=palette)
    try:
        async with app.run_test(size=(80, 24)) as pilot:
            await runs_listed(pilot)
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.screen, RunScreen))
            await pilot.press("3")
            await until(pilot, lambda: "test questions" in on_screen(pilot))
            assert ("░" in on_screen(pilot)) == PALETTES[palette].ramp
    finally:
        theme.use(theme.DEFAULT)


# --- what is kept


async def test_the_view_is_as_it_was_left(tmp_path: Path) -> None:
    finished_run(tmp_path / "runs")
    file = tmp_path / "state" / "view.json"
    try:
        async with AcclApp(tmp_path / "runs", TICK, view=ViewState(file)).run_test(size=(80, 24)) as pilot:
            await runs_listed(pilot)
            await pilot.press("f", *"baseline", "enter", "o", "enter")
            await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
            await pilot.press("x", "3")
            await until(pilot, lambda: "test questions" in on_screen(pilot))
            await pilot.press("o", "y", "colon", *"light", "enter")
            await until(pilot, lambda: theme.current().name == "light")
        theme.use(theme.DEFAULT)
        async with AcclApp(tmp_path / "runs", TICK, view=ViewState(file)).run_test(size=(80, 24)) as pilot:
            await runs_listed(pilot)
            assert pilot.app.theme == "accl-light"
            listed = runs_screen(pilot).list
            assert (listed.filter_text, listed.sort) == ("baseline", "arm/run▼")
            assert runs_screen(pilot).query_one(Filter).value == "baseline"
            screen = await open_newest_run(pilot)
            pane = screen.pane
            assert isinstance(pane, ConfusionPane)
            assert (pane.order, pane.scale) == ("name", "linear")
    finally:
        theme.use(theme.DEFAULT)


class Owner:
    settings: ClassVar = {"order": ["name", "size"], "log": (False, True), "text": None}
    order, log, text = "name", False, ""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1]",
        b"\xff\xfe",
        b"[" * 60000,
        json.dumps({"a.order": "bogus", "a.log": 1, "a.text": ["x"]}).encode(),
        json.dumps({"a.order": None, "a.log": {}, "a.text": "x" * (MAX_TEXT + 1)}).encode(),
        b'{"a.order": "size", "x": "' + b"x" * 70000 + b'"}',
    ],
)
def test_a_damaged_view_counts_as_none(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "view.json"
    file.write_bytes(content)
    owner, view = Owner(), ViewState(file)
    view.attach("a", owner)
    assert (owner.order, owner.log, owner.text) == ("name", False, "")
    owner.order = "size"
    view.save()
    again = Owner()
    ViewState(file).attach("a", again)
    assert again.order == "size"


def test_a_view_that_cannot_be_kept_harms_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    view = ViewState(tmp_path / "file" / "view.json")
    view.attach("a", Owner())
    view.save()
    view.reset()


def test_a_reset_forgets_the_file_and_what_is_open(tmp_path: Path) -> None:
    file, owner = tmp_path / "view.json", Owner()
    view = ViewState(file)
    view.attach("a", owner)
    view.save()
    assert file.stat().st_mode & 0o077 == 0
    view.reset()
    owner.order = "size"
    view.save()
    assert not file.exists()


def test_each_folder_of_runs_has_a_view_in_the_users_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert view_file(Path("runs")) == view_file(tmp_path / "runs") != view_file(tmp_path / "others")
    assert tmp_path in view_file(Path("runs")).parents
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert view_file(Path("runs")).is_relative_to(os.path.expanduser("~"))


# --- what is repainted


def test_only_cells_that_differ_are_a_region() -> None:
    def lines(*texts: str) -> list[Any]:
        return [strip([(text, theme.PLAIN)], 30) for text in texts]

    assert changed_regions(lines("same", "a   b"), lines("same", "a   b")) == []
    (region,) = changed_regions(lines("same", "step 120"), lines("same", "step 130"))
    assert region == (6, 1, 1, 1)
    assert len(changed_regions(lines("x" + " " * 20 + "y"), lines("X" + " " * 20 + "Y"))) == 2
    (wide,) = changed_regions(lines("漢字"), lines("漢文"))
    assert (wide.x, wide.width) == (2, 2), "a wide character is repainted as a whole"


def test_an_update_writes_what_differs_from_the_piece_before_and_blanks_in_any_colour() -> None:
    red, bold = Style(color="#ff0000", bgcolor="#000000"), Style(color="#ff0000", bgcolor="#000000", bold=True)
    green, marked = Style(color="#00ff00", bgcolor="#000000"), Style(color="#00ff00", bgcolor="#0000ff")
    line = [(t, s) for s in (red, green, marked, bold, Style(), red, Style(underline=True)) for t in ("a", " ", "b")]
    line += [(" ", s) for s in (red, marked, Style(), bold)]
    update = shortened(LayoutUpdate([[Strip([Segment(*piece) for piece in line])]], Region(0, 0, 25, 1)))
    console = Console(color_system="truecolor")
    written = update.render_segments(console)
    (shown,) = AnsiDecoder().decode(written.replace("\x1b[1;1H", ""))
    for i, (text, style) in enumerate(line):
        seen = shown.get_style_at_offset(console, i)
        assert (shown.plain[i], seen.bgcolor, seen.underline) == (text, style.bgcolor, style.underline)
        assert text == " " or (seen.color, seen.bold) == (style.color, style.bold)
    assert len(written) < len(Strip([Segment(*piece) for piece in line]).render(console)) / 2


async def test_a_key_repaints_what_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cursor key writes less than 4 KB in the list, the bars and the grid."""
    for seed in range(3):
        finished_run(tmp_path, seed=seed, tasks=ALL_TASKS, steps=60)
    app = AcclApp(tmp_path, interval=3600.0)
    written: list[int] = []

    def display(_: Screen[Any], update: Any) -> None:
        if update is not None:
            written.append(len(shortened(update).render_segments(app.console)))

    async def key(name: str) -> int:
        await until(pilot, lambda: not pending(app))
        written.clear()
        await pilot.press(name)
        await until(pilot, lambda: bool(written) and not pending(app))
        return sum(written)

    async with app.run_test(size=(160, 45)) as pilot:
        await runs_listed(pilot, 3)
        await until(pilot, lambda: runs_screen(pilot).is_complete)
        monkeypatch.setattr(app, "_display", display)
        assert await key("down") < 4096
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, RunScreen) and app.screen.view is not None)
        for pane, names in (("2", ("down", "down")), ("3", ("right", "down", "down"))):
            await pilot.press(pane)
            await until(pilot, lambda: app.focused is not None and app.focused.is_on_screen)
            for name in names:
                assert await key(name) < 4096, (pane, name)
