"""Text from runs, data sets and users never acts on a terminal, a table, a page or a picture."""

from __future__ import annotations

import ast
import asyncio
import csv
import html.parser
import io
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from conftest import run_accl
from hostile import (
    EVIL,
    EVIL_NAME,
    EVIL_VALUE,
    Printed,
    abandon,
    acting,
    break_each,
    crash,
    hostile_run,
    run_each,
)
from tui_pilot import on_screen, open_app, open_comparison, open_newest_run, until

from accl.cli.output import Format
from accl.store.rundir import RunDir
from accl.text import printable
from tui.snapshot import take_snapshot

ROOT = Path(__file__).resolve().parent.parent


class Runs(NamedTuple):
    """A folder of runs, itself of a hostile name: two that ended well, and one that crashed."""

    root: Path
    full: str
    baseline: str
    crashed: str


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    root = tmp_path_factory.mktemp("hostile") / EVIL_NAME
    full, baseline, crashed = (hostile_run(root, recipe) for recipe in ("full", "baseline", "contrastive"))
    crash(crashed)
    return Runs(root, full.id, baseline.id, crashed.id)


@pytest.fixture(scope="module")
def broken(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of runs each of which has a damaged file, but for one that is trained on another host."""
    root = tmp_path_factory.mktemp("broken") / EVIL_NAME
    copies = [RunDir(root / f"20261122-101500-full-s42-{i:04x}{EVIL_NAME}") for i in range(6)]
    for copy in copies:
        shutil.copytree(runs.root / runs.full, copy.path)
    abandon(copies[0])
    break_each(iter(copies[1:]))
    return root


def commands(runs: Runs) -> list[list[str]]:
    return [
        ["runs"],
        ["show", runs.full],
        ["show", runs.full, "--questions"],
        ["compare", str(runs.root / runs.baseline), str(runs.root / runs.full)],
        ["show", runs.crashed],
        ["compare", runs.baseline, runs.crashed],  # which did not finish: refused
        ["show", "s42"],  # which is ambiguous: refused with the names
        ["show", EVIL],
        ["stop", runs.full],
        ["resume", runs.full],
    ]


def formatted(root: Path, commands: Sequence[list[str]], *formats: Format) -> list[list[str]]:
    plain = ("stop", "resume", "logs")
    return [
        [*words, *([] if words[0] in plain else ["-f", format]), "--runs", str(root)]
        for format in formats
        for words in commands
    ]


def assert_harmless(printed: Sequence[Printed]) -> None:
    """Assert that the hostile text was printed by every command, and has no effect."""
    for done in printed:
        assert not acting(done.text), done.text
        assert "should not have" not in done.text, done.text
        assert "owned" in re.sub(r"[│\s]", "", done.text), done.text  # in a narrow table it is broken


def test_no_command_prints_text_that_a_terminal_acts_upon(runs: Runs) -> None:
    every = formatted(runs.root, commands(runs), Format.TABLE)
    every += formatted(runs.root, commands(runs)[:3], Format.JSON, Format.CSV, Format.MD, Format.TEX)
    assert_harmless(run_each(every))


@pytest.mark.slow
@pytest.mark.parametrize("columns", ["40", "120", "400"])
def test_no_command_prints_such_text_in_any_format_and_width(runs: Runs, columns: str) -> None:
    assert_harmless(run_each(formatted(runs.root, commands(runs), *Format), COLUMNS=columns))


def on_broken(root: Path) -> list[list[str]]:
    ids = sorted(path.name for path in root.iterdir())
    shown = [["show", name] for name in ids]
    return [["runs"], *shown, *([word, ids[0]] for word in ("stop", "resume", "logs")), ["compare", ids[0], ids[1]]]


def test_runs_that_cannot_be_read_are_quoted_harmlessly(broken: Path) -> None:
    every = formatted(broken, on_broken(broken), Format.TABLE)
    *printed, listed = run_each([*every, ["runs", "-f", "json", "--runs", str(broken)]])
    assert_harmless(printed)
    assert [done.code for done in printed[:7]] == [0, 0, *[12] * 5]
    problems = [row["problem"] for row in json.loads(listed.stdout)]
    assert not acting(listed.text)
    assert [problem["kind"] for problem in problems if problem] == ["damaged"] * 2
    assert all("owned" in problem["message"] for problem in problems if problem)


@pytest.mark.slow
def test_runs_that_cannot_be_read_are_quoted_harmlessly_in_any_format(broken: Path) -> None:
    assert_harmless(run_each(formatted(broken, on_broken(broken), *Format)))


def test_colours_are_the_only_escapes_of_a_terminal_with_colours(runs: Runs) -> None:
    colours = {"FORCE_COLOR": "1", "NO_COLOR": "", "TERM": "xterm-256color"}
    for done in run_each(formatted(runs.root, commands(runs)[:5], Format.TABLE), **colours):
        assert not acting(done.text, colours=True)


def test_markup_is_shown_and_not_applied(runs: Runs) -> None:
    done = run_accl("show", runs.baseline, "--runs", str(runs.root), COLUMNS="1000")
    assert done.stdout.count("[bold red]rich[/bold red][link=http://evil]here[/link]") > 5
    assert ":bomb:" in done.stdout


def test_json_loses_nothing(runs: Runs) -> None:
    done = run_accl("show", str(runs.root / runs.full), "--format", "json")
    found = json.loads(done.stdout)
    assert found["provenance"][EVIL] == {EVIL: EVIL}
    assert found["config"]["model"]["name"] == EVIL_VALUE
    assert EVIL in {event["kind"] for event in found["events"]}
    assert "\\u009b" in done.stdout
    assert "\\u202e" in done.stdout
    assert "\\u007f" in done.stdout


def test_csv_holds_no_formula(runs: Runs) -> None:
    done = run_accl("runs", "--format", "csv", "--runs", str(runs.root))
    rows = list(csv.reader(io.StringIO(done.stdout)))
    assert len(rows) == 1 + 3
    assert "'" + printable(EVIL) in {cell for row in rows for cell in row}
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "@"))]


class Tags(html.parser.HTMLParser):
    """The tags that a page has."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)


def test_markdown_has_no_tags_links_or_code_of_the_text(runs: Runs) -> None:
    shown = run_accl("show", str(runs.root / runs.full), "--format", "md").stdout
    tags = Tags()
    tags.feed(shown)
    assert tags.found == set()
    assert "script" in shown
    for opening in "[`|":
        unescaped = [line for line in shown.splitlines() if f"{opening}" in line.replace(f"\\{opening}", "")]
        assert all(opening == "|" and line.startswith("| ") for line in unescaped)
    assert len({line.replace("\\|", "").count("|") for line in shown.splitlines() if line.startswith("|")}) <= 3
    assert "http://" not in shown  # which GitHub would make a link


def test_tex_has_no_commands_of_the_text(runs: Runs) -> None:
    shown = run_accl("show", str(runs.root / runs.full), "--format", "tex").stdout
    assert "input" in shown
    assert "\\input" not in shown
    ours = ("% ", "\\begin{tabular}", "\\toprule", "\\midrule", "\\bottomrule", "\\end{tabular}")
    lines = [line for line in shown.splitlines() if line]
    assert all(line.startswith(ours) or line.endswith("\\\\") for line in lines)
    assert not [line for line in lines if line.startswith(("[", "*"))]


def test_the_console_log_is_printed_line_by_line_without_its_escapes(runs: Runs) -> None:
    for follow in ([], ["--follow"]):
        done = run_accl("logs", str(runs.root / runs.full), *follow)
        assert not acting(done.stdout)
        lines = done.stdout.splitlines()
        assert lines[-2] == "last version"
        assert lines[-1].startswith("FooError: ␛]0;owned␇")
        assert len(lines) == 3


TYPED = [
    ["show", EVIL],
    ["show", "a", EVIL],
    [f"--{EVIL}"],
    [EVIL],
    ["runs", "--format", EVIL],
    ["runs", f"--{EVIL}=1"],
    ["train", EVIL],
    ["--debug", "train", EVIL],
    ["train", "full", "--profile", EVIL],
    ["train", "full", "--set", EVIL],
    ["train", "full", "--set", f"{EVIL}=1"],
    ["train", "full", "--set", f"curriculum.policy={EVIL}"],
    ["train", "full", "--profile", "demo", "--set", f"data.path=./{EVIL}"],
    ["train", "full", "--profile", "demo", "--set", f"model.name=./{EVIL}"],
    ["train", "full", "--seed", EVIL],
    ["config", "explain", EVIL],
    ["config", "show", "full", "--set", f"data.path={EVIL}"],
    ["tui", "--picture", "x.svg", "--size", EVIL],
    ["bench", EVIL],
]


def test_messages_about_what_was_typed_quote_it_harmlessly(tmp_path: Path) -> None:
    printed = run_each([words if "train" not in words else [*words, "--runs", str(tmp_path)] for words in TYPED])
    for words, done in zip(TYPED, printed, strict=True):
        assert not acting(done.text), words
        assert "should not have" not in done.text, done.text
        assert done.code or words[:2] == ["config", "show"], words
    assert sum("owned" in done.text for done in printed) >= len(TYPED) - 4
    assert not list(tmp_path.iterdir())


def test_refused_questions_and_files_are_quoted_harmlessly(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "test"
    folder.mkdir(parents=True)
    (folder / f"{EVIL_NAME[:40]}_test.csv").write_text(f'"{EVIL}",a,b,c,d,"{EVIL}"\n', encoding="utf-8")
    recipe = tmp_path / f"{EVIL_NAME[:40]}.yaml"
    recipe.write_text(f"? {json.dumps(EVIL)}\n: 1\n", encoding="utf-8")
    for words in (["full", "--set", f"data.path={folder.parent}", "--set", "model.name=random:tiny"], [str(recipe)]):
        done = run_accl("train", *words, "--profile", "demo", cwd=tmp_path, PYTHONPATH=str(ROOT))
        assert done.returncode in (3, 4), done.stderr
        assert not acting(done.stdout + done.stderr), done.stderr
        assert "owned" in done.stderr


def test_a_configuration_printed_as_yaml_can_be_copied_whatever_it_holds() -> None:
    done = run_accl("config", "show", "full", "--set", f"data.path={EVIL_VALUE}", "--set", "model.name=Größe")
    assert not acting(done.stdout)
    assert yaml.safe_load(done.stdout)["data"]["path"] == EVIL_VALUE
    assert "name: Größe" in done.stdout


# --- the app


async def _screens(root: Path) -> list[str]:
    """Return the text of every screen and pane of the app, as drawn."""
    shown = []
    async with open_app(root, size=(160, 50)) as pilot:
        await until(pilot, lambda: "owned" in on_screen(pilot))
        shown.append(on_screen(pilot))
        await pilot.press("f", *"full")
        shown.append(on_screen(pilot))
        await pilot.press("escape", "down")
        await open_newest_run(pilot)
        for pane in "12345":
            await pilot.press(pane)
            await pilot.pause()
            shown.append(on_screen(pilot))
            for key in ("v", "z", "z", "o"):
                await pilot.press(key)
                shown.append(on_screen(pilot))
        await pilot.press("t")
        await pilot.pause()
        shown.append("\n".join("".join(segment.text for segment in line) for line in _lines(pilot.app)))
        await pilot.press("escape")
        await pilot.press("escape")
        await open_comparison(pilot, *"ggg", "home", "space", "end", "space", "c")
        await pilot.pause()
        shown.append(on_screen(pilot))
    return shown


def _lines(app: object) -> list[list[object]]:
    return app.screen._compositor.render_strips()  # type: ignore[attr-defined, no-any-return]


def test_no_screen_draws_text_that_a_terminal_acts_upon(runs: Runs) -> None:
    shown = asyncio.run(_screens(runs.root))
    assert len(shown) > 20
    for screen in shown:
        assert not acting(screen), screen
    assert sum("owned" in screen for screen in shown) > 10


def test_notifications_show_their_text_as_it_is(runs: Runs) -> None:
    async def notified() -> str:
        async with open_app(runs.root, size=(160, 50)) as pilot:
            pilot.app.screen.notify(EVIL, title=EVIL, markup=True)
            await until(pilot, lambda: "[bold" in _pictured(pilot.app.export_screenshot()))
            return _pictured(pilot.app.export_screenshot())

    assert not acting(asyncio.run(notified()))


def _pictured(svg: str) -> str:
    return "".join(ET.fromstring(svg).itertext())


def test_what_is_pasted_into_a_filter_is_printable(runs: Runs) -> None:
    from textual.widgets import Input

    async def filtered() -> str:
        async with open_app(runs.root) as pilot:
            field = pilot.app.screen.query_one(Input)
            field.value = EVIL
            return field.value

    assert asyncio.run(filtered()) == printable(EVIL)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "keys", [["enter", "4"], pytest.param([], marks=SLOW), pytest.param(["enter", "3"], marks=SLOW)]
)
def test_a_picture_is_valid_xml_without_the_escapes(runs: Runs, tmp_path: Path, keys: list[str]) -> None:
    picture = tmp_path / "picture.svg"
    take_snapshot(runs.root, [], (160, 50), keys).save(picture)
    root = ET.fromstring(picture.read_text(encoding="utf-8"))
    assert not acting("".join(root.itertext()))
    assert "owned" in "".join(root.itertext()).replace("\xa0", " ")
    assert not [element for element in root.iter() if element.tag.endswith(("script", "}a", "image"))]


# --- by type and not by memory


def _calls(folder: str, exempt: str) -> dict[str, set[str]]:
    """The names that each module of a folder calls or imports, dotted, but for one module."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        if path != ROOT / exempt:
            names: set[str] = set()
            tree = ast.parse(path.read_text(encoding="utf-8"))
            typing = {
                id(inner)
                for node in ast.walk(tree)
                if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
                for inner in ast.walk(node)
            }
            for node in ast.walk(tree):
                if isinstance(node, ast.Call):
                    names.add(ast.unparse(node.func))
                elif isinstance(node, ast.ImportFrom) and id(node) not in typing:
                    names |= {f"{node.module}.{alias.name}" for alias in node.names}
                elif isinstance(node, ast.Import) and id(node) not in typing:
                    names |= {alias.name for alias in node.names}
            found[str(path.relative_to(ROOT))] = names
    return found


def test_commands_print_through_one_module() -> None:
    forbidden = {"print", "Console", "input", "rich.print", "rich.console.Console", "rich.prompt.Prompt"}
    forbidden |= {f"{module}.{name}" for module in ("typer", "click") for name in ("echo", "secho", "prompt")}
    forbidden |= {f"sys.{stream}.write" for stream in ("stdout", "stderr", "__stdout__", "__stderr__")}
    calls = _calls("accl/cli", "accl/cli/output.py")
    assert len(calls) > 10
    assert {path: names & forbidden for path, names in calls.items() if names & forbidden} == {}


def test_the_app_makes_lines_of_text_in_one_module() -> None:
    allowed = {
        "rich.console.Console",
        "rich.color.Color",
        "rich.color.ColorSystem",
        "rich.style.Style",
        "textual.widgets.Input",
        "textual.widgets.ContentSwitcher",
    }
    forbidden = {"Segment", "Strip", "Content", "Static", "Content.from_markup"}
    calls = _calls("tui", "tui/text.py")
    assert len(calls) > 20
    for path, names in calls.items():
        drawing = {name for name in names if name.startswith(("rich", "textual.widgets", "textual.content"))}
        assert not (drawing - allowed) | (names & forbidden), path


# --- streams


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("latin-1", marks=SLOW)])
def test_a_stdout_without_utf_8_gets_what_it_can_hold(runs: Runs, encoding: str) -> None:
    every = formatted(runs.root, commands(runs)[:3], Format.TABLE, Format.JSON)
    for words, done in zip(every, run_each(every, PYTHONIOENCODING=encoding), strict=True):
        assert done.code == 0, done.stderr
        text = done.stdout.decode(encoding)
        assert "json" not in words or json.loads(text)


@pytest.mark.parametrize(
    "redirected", [">&- 2>&- <&-", *(pytest.param(closed, marks=SLOW) for closed in (">&-", "2>&-", "<&-"))]
)
def test_closed_streams_are_no_obstacle(runs: Runs, redirected: str) -> None:
    before = {path: path.read_bytes() for path in runs.root.rglob("*") if path.is_file()}
    for command in ("runs", "show last", "tui"):
        words = f"{sys.executable} -m accl.cli.main {command} {redirected}"
        done = subprocess.run(
            ["bash", "-c", words], env={**os.environ, "ACCL_RUNS": str(runs.root)}, capture_output=True
        )
        assert b"Traceback" not in done.stderr
        assert done.returncode in (0, 7, 10, 12), (command, done.stderr)
    assert {path: path.read_bytes() for path in runs.root.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_that_cannot_be_written_is_an_error_in_one_line(runs: Runs) -> None:
    for command in ("runs", "runs --format json", "--version", "--help"):
        words = f"{sys.executable} -m accl.cli.main {command} > /dev/full"
        done = subprocess.run(
            ["bash", "-c", words], env={**os.environ, "ACCL_RUNS": str(runs.root)}, capture_output=True
        )
        assert done.returncode == 1
        assert done.stderr.decode().startswith("error: The output cannot be written (No space left on device).")


def test_a_reader_that_leaves_ends_the_command_quietly(runs: Runs) -> None:
    words = f"set -o pipefail; {sys.executable} -m accl.cli.main runs --format json | head -c 1"
    done = subprocess.run(["bash", "-c", words], env={**os.environ, "ACCL_RUNS": str(runs.root)}, capture_output=True)
    assert done.stderr == b""


def test_a_terminal_that_cannot_draw_is_given_as_the_reason(runs: Runs) -> None:
    import pty

    controller, terminal = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "accl.cli.main", "tui", "--runs", str(runs.root)],
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "dumb"},
    )
    os.close(controller)
    os.close(terminal)
    assert done.returncode == 10
    assert b"This terminal cannot draw the app: TERM=dumb." in done.stderr
