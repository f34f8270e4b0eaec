"""The log of a run, and the pane of machine, configuration and provenance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from factory import STARTED, finished_run, running_run
from snapshots import SIZES, freeze
from tui_pilot import assert_picture, on_screen, open_app, open_newest_run, until

from accl.store.facts import UNKNOWN, read_facts
from accl.store.writer import Recorder
from tui.panes.log import LogPane
from tui.panes.machine import MachinePane
from tui.snapshot import _lines
from tui.widgets.chartgrid import ChartGrid
from tui.widgets.logview import LogView
from tui.widgets.table import Table
from tui.widgets.text import Text


async def test_the_whole_log_is_scrolled_searched_and_followed(tmp_path: Path) -> None:
    run = running_run(tmp_path)
    run.console.write_text("".join(f"line {i}\n" for i in range(50_000)) + "error: needle\nlast\n")
    async with open_app(tmp_path) as pilot:
        screen = await open_newest_run(pilot)
        await pilot.press("6")
        log = screen.query_one(LogView)
        await until(pilot, lambda: log.text_at_cursor == "last")
        assert len(log.part.lines) < 50_000, "only a part is read"
        with run.console.open("a") as stream:
            stream.write("newest\n")
        await until(pilot, lambda: log.text_at_cursor == "newest")
        await pilot.press("home")
        await until(pilot, lambda: log.text_at_cursor == "line 0")
        await pilot.press("slash", *"NEEDLE")
        await until(pilot, lambda: log.text_at_cursor == "error: needle")
        assert "1 of 1 lines" in on_screen(pilot)
        await pilot.press("enter", "slash", "ctrl+u", *"line 4999", "enter")
        await until(pilot, lambda: "11 lines" in on_screen(pilot))
        await pilot.press("home")
        await until(pilot, lambda: log.text_at_cursor == "line 0")
        await pilot.press("n")
        await until(pilot, lambda: log.text_at_cursor == "line 4999")
        await pilot.press("N")
        await until(pilot, lambda: log.text_at_cursor == "line 49999")
        await pilot.press("escape")
        assert pilot.app.screen is screen, "escape drops the search first"
        await pilot.press("end")
        await until(pilot, lambda: log.follows and log.text_at_cursor == "newest")
        run.console.write_text("restarted\n")
        await until(pilot, lambda: log.text_at_cursor == "restarted")


async def test_long_lines_are_wrapped_or_scrolled(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    run.console.write_text(f"{'abcdefghij' * 20}END\nsecond\n")
    async with open_app(tmp_path) as pilot:
        screen = await open_newest_run(pilot)
        await pilot.press("6")
        log = screen.query_one(LogView)
        await until(pilot, lambda: bool(log.part.lines))
        assert "END" not in "\n".join(log.text_lines)
        await pilot.press("right", *["right"] * 9)
        assert "END" in "\n".join(log.text_lines)
        await pilot.press("w")
        assert "END" in "\n".join(log.text_lines)
        assert [line.strip() for line in log.text_lines][3] == "second"


async def test_log_and_charts_share_one_cursor(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    run.console.write_text("".join(f"step {i}: loss\n" for i in range(0, 201, 50)))
    async with open_app(tmp_path) as pilot:
        screen = await open_newest_run(pilot)
        grid = screen.query_one(ChartGrid)
        await until(pilot, lambda: bool(grid.displayed))
        await pilot.press("at", *"120", "enter")
        await until(pilot, lambda: grid.cursor_step == 120)
        await pilot.press("6")
        log = screen.query_one(LogView)
        await until(pilot, lambda: log.text_at_cursor == "step 100: loss")
        assert "▸ step 100: loss" in "\n".join(log.text_lines)
        await pilot.press("down", "enter")
        await until(pilot, lambda: grid.cursor_step == 150)
        await pilot.press("7")
        load = screen.query_one(MachinePane).query_one(ChartGrid)
        await until(pilot, lambda: bool(load.charts))
        assert load.cursor_step == 150


async def test_a_log_that_is_none_says_so(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    run.console.unlink()
    run.console.symlink_to("/etc/passwd")
    async with open_app(tmp_path) as pilot:
        screen = await open_newest_run(pilot)
        await pilot.press("6")
        await until(pilot, lambda: "it is a symbolic link" in on_screen(pilot))
        assert not screen.query_one(LogPane).pending


async def test_differences_to_the_reference_come_first_and_every_value_has_its_origin(tmp_path: Path) -> None:
    finished_run(tmp_path, "contrastive", started=STARTED - 200)
    finished_run(tmp_path, "baseline", started=STARTED - 100)
    run = finished_run(tmp_path, "full", overrides=["train.batch_size=8"])
    content = run.read_json(run.provenance)
    run.write_json(run.provenance, {**content, "command": "accl train full -p demo --set train.batch_size=8 --seed 42"})
    async with open_app(tmp_path, (160, 45)) as pilot:
        screen = await open_newest_run(pilot)
        await pilot.press("7")
        pane, table = screen.query_one(MachinePane), screen.query_one("#configuration", Table)
        await until(pilot, lambda: pane.reference is not None and bool(table.rows))
        rows = {row.key: [text for text, _ in row.cells] for row in table.rows}
        assert rows["train.batch_size"] == ["≠ train.batch_size", "8", "16", "--set"]
        assert rows["train.seed"][3] == "--seed"
        assert rows["curriculum.policy"][3] == "recipe full"
        assert rows["model.name"][3] == "profile demo"
        assert rows["optim.schedule"][3] == "base"
        assert rows[table.rows[0].key][0].startswith("≠")
        count = sum(cells[0].startswith("≠") for cells in rows.values())
        assert f"{count} keys differ from baseline s42" in on_screen(pilot)
        await pilot.press("d")
        assert len(table.rows) == count
        await pilot.press("b")
        assert "from contrastive s42" in on_screen(pilot)
        await pilot.press("d", "slash", *"seed", "enter")
        assert [row.key for row in table.rows] == ["data.split_seed", "train.seed"]
        await pilot.press("escape")
        assert len(table.rows) > 40


async def test_load_is_drawn_over_the_time_of_the_run_with_means_and_peaks(tmp_path: Path) -> None:
    run = running_run(tmp_path, step=100)
    recorder = Recorder(run.database)
    recorder.system(4.0, (90.0, 40.0 * 2**30, 400.0, 95.0, 2.0**31))
    recorder.system(5.0, (50.0, 20.0 * 2**30, None, 55.0, 2.0**30))
    recorder.close()
    async with open_app(tmp_path, (160, 45)) as pilot:
        screen = await open_newest_run(pilot)
        await pilot.press("7")
        pane = screen.query_one(MachinePane)
        grid = pane.query_one(ChartGrid)
        await until(pilot, lambda: "GPU, %" in grid.charts)
        assert grid.charts["GPU, %"].lines[0].curve.x("step").tolist() == [80.0, 100.0]
        head = pane.query_one("#machine-head", Text).text_lines[0]
        assert "GPU 70 % peak 90" in head
        assert "GPU memory 32.2 GB peak 42.9" in head


async def test_a_broken_provenance_and_configuration_are_lines_that_say_so(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    run.provenance.write_text('{"starts": 3}')
    run.config.write_text("recipe: baseline\nprofile: demo\ntrain:\n  seed: 1\nother: [1\n")
    facts = read_facts(run)
    assert [problem.kind for problem in facts.problems] == ["damaged", "unreadable"]
    async with open_app(tmp_path) as pilot:
        await open_newest_run(pilot)
        await pilot.press("7")
        await until(pilot, lambda: "it has other types" in on_screen(pilot))


def test_provenance_lists_every_start_and_what_was_accepted(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    start = {
        "time": "T1",
        "host": "h",
        "device": {"type": "cuda"},
        "versions": {"torch": "2"},
        "git": {"commit": "c" * 40},
    }
    second = {**start, "time": "T2", "versions": {"torch": "3"}, "command": ["accl", "resume", "a b"]}
    second |= {"git": {"commit": "d" * 40, "dirty": True}, "accepted": {"config.optim.lr": [0.1, 0.001]}}
    content = {
        **run.read_json(run.provenance),
        "starts": [start, second],
        "model": {"revision": "r", "encoder": {"x": 1}},
    }
    run.provenance.write_text(json.dumps(content))
    facts = read_facts(run)
    rows = dict(facts.provenance)
    assert rows["start 1"] == f"T1 · h · cuda · {'c' * 12}"
    assert rows["start 2"] == f"T2 · h · cuda · {'d' * 12} dirty"
    assert rows["start 2 command"] == "accl resume 'a b'"
    assert rows["start 2 versions"] == "torch 3"
    assert rows["start 2 accepted config.optim.lr"] == "0.1 → 0.001"
    assert rows["model.revision"] == "r"
    assert list(rows)[-1] == "encoder.x"
    assert facts.origins["optim.lr"] == "start 2"


def test_a_value_that_no_shipped_file_gives_has_no_origin(tmp_path: Path) -> None:
    run = finished_run(tmp_path, overrides=["optim.lr=0.123"])
    assert read_facts(run).origins["optim.lr"] == UNKNOWN


def test_a_value_of_a_swept_run_comes_from_its_grid(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "full", seed=2, overrides=["optim.lr=0.002", "eval.test=false", "train.max_steps=9"])
    content = run.read_json(run.provenance)
    command = "accl sweep full -p demo --grid optim.lr=1e-3,2e-3 --set train.max_steps=9"
    run.write_json(run.provenance, {**content, "command": command.split()})
    origins = read_facts(run).origins
    keys = ("optim.lr", "eval.test", "train.seed", "train.max_steps", "curriculum.policy")
    assert [origins[key] for key in keys] == ["--grid", "sweep", "--seeds", "--set", "recipe full"]


async def test_log_and_machine_look_as_they_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    freeze(monkeypatch)
    finished_run(tmp_path, "baseline", started=STARTED - 100)
    run = finished_run(tmp_path, "full")
    run.console.write_text("--- started\nwarning: odd\n" + "".join(f"step {i}: loss 1.0\n" for i in range(50, 201, 50)))
    async with open_app(tmp_path, SIZES[0]) as pilot:
        screen = await open_newest_run(pilot)
        for pane, key in (("log", "6"), ("machine", "7")):
            await pilot.press(key)
            for size in SIZES:
                await pilot.resize_terminal(*size)
                await until(pilot, lambda: screen.is_complete)
                await assert_picture(pilot, f"{pane}-{size[0]}x{size[1]}", lambda: _lines(pilot.app))
