"""What commands print: raw values for programs, whole cells for people."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from accl.cli.output import Format, emit, plain, print_error
from accl.cli.table import Column, Table, fields, p_value, percent, points, text
from accl.errors import ConfigError
from accl.store.state import State

TABLE = Table(
    "Two arms",
    [
        Column("arm"),
        Column("accuracy", unit="%", justify="right", show=percent),
        Column("note"),
    ],
    [
        {"arm": "baseline", "accuracy": 1 / 3, "note": "a|b [red]", "hidden": [1, 2]},
        {"arm": "full", "accuracy": None, "note": "", "hidden": None},
    ],
)


def printed(
    tables: Table | list[Table], format: Format, width: int = 80, notes: tuple[str, ...] = (), color: bool = False
) -> str:
    buffer = io.StringIO()
    console = Console(file=buffer, width=width, force_terminal=color, color_system="truecolor" if color else None)
    emit(tables, format, console, notes=notes)
    return buffer.getvalue()


def wide_table(columns: int, rows: int, cell: str = "x" * 12) -> Table:
    keys = [f"column_{i}" for i in range(columns)]
    return Table("Wide", [Column(key) for key in keys], [dict.fromkeys(keys, f"{cell}{r}") for r in range(rows)])


def test_json_keeps_every_digit_and_every_key() -> None:
    found = json.loads(printed(TABLE, Format.JSON))
    assert found[0] == {"arm": "baseline", "accuracy": 1 / 3, "note": "a|b [red]", "hidden": [1, 2]}
    assert found[1]["accuracy"] is None


def test_json_of_several_tables_is_an_object_by_name() -> None:
    found = json.loads(printed([TABLE, Table("Other: things", [Column("x")], [{"x": 1}])], Format.JSON))
    assert set(found) == {"two_arms", "other_things"}
    assert found["other_things"] == [{"x": 1}]


def test_json_prints_the_data_given_instead_of_the_rows() -> None:
    buffer = io.StringIO()
    emit(TABLE, Format.JSON, Console(file=buffer, width=20), data={"long": "words " * 40})
    assert json.loads(buffer.getvalue()) == {"long": "words " * 40}


def test_json_has_no_nan() -> None:
    value = {"nan": math.nan, "array": np.array([1.0, math.inf]), "state": State.FINISHED, "path": Path("a/b")}
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == {
        "nan": None,
        "array": [1.0, None],
        "state": "finished",
        "path": "a/b",
    }
    with pytest.raises(TypeError, match="object has no json form"):
        plain(object())


def test_csv_holds_raw_values_and_sends_notes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(printed(TABLE, Format.CSV, notes=("mind this",)))))
    assert float(rows[0]["accuracy"]) == 1 / 3
    assert rows[0]["hidden"] == "[1, 2]"
    assert rows[1]["accuracy"] == ""
    assert capsys.readouterr().err == "mind this\n"


def test_markdown_is_a_github_table_with_pipes_escaped() -> None:
    lines = printed(TABLE, Format.MD, notes=("mind this",)).splitlines()
    assert lines[0] == "**Two arms**"
    assert lines[2] == "| arm | accuracy (%) | note |"
    assert lines[3] == "| :--- | ---: | :--- |"
    assert lines[4] == "| baseline | 33.33 | a\\|b \\[red] |"
    assert lines[-1] == "mind this"


def test_latex_escapes_what_latex_would_read() -> None:
    content = printed(Table("T", [Column("a_b", unit="%")], [{"a_b": "1 ± 2 & {x}"}]), Format.TEX)
    assert r"a b (\%) \\" in content
    assert r"1 $\pm$ 2 \& \{x\} \\" in content
    assert content.count(r"\begin{tabular}{l}") == content.count(r"\end{tabular}") == 1


def test_brackets_in_a_cell_are_not_read_as_markup() -> None:
    assert "a|b [red]" in printed(TABLE, Format.TABLE)


@given(columns=st.integers(1, 20), rows=st.integers(1, 6), width=st.integers(30, 200))
def test_no_line_is_wider_than_the_terminal_and_no_cell_is_broken(columns: int, rows: int, width: int) -> None:
    lines = printed(wide_table(columns, rows), Format.TABLE, width).splitlines()
    assert max(map(len, lines)) <= width
    cells = sum(line.count("x" * 12) for line in lines)
    assert cells == columns * rows


def test_a_wide_table_with_few_rows_is_turned_on_its_side() -> None:
    lines = printed(wide_table(9, 3), Format.TABLE, 60).splitlines()
    assert lines[1].split() == ["column", "0", *(f"{'x' * 12}{r}" for r in range(3))]
    assert len(lines) == 3 + 8


def test_a_table_that_lies_on_its_side_is_split_into_blocks_that_fit() -> None:
    table = replace(wide_table(3, 5), sideways=True)
    lines = printed(table, Format.TABLE, 40).splitlines()
    assert max(map(len, lines)) <= 40
    heads = [line.split()[2:] for line in lines if line.startswith("column 0")]
    assert [len(head) for head in heads] == [2, 2, 1]
    assert printed(table, Format.TABLE, 12) == printed(wide_table(3, 5), Format.TABLE, 12), "record by record"


def test_a_wide_table_with_many_rows_is_printed_record_by_record() -> None:
    lines = printed(wide_table(9, 6), Format.TABLE, 40).splitlines()
    assert len(lines) == 1 + 6 * 9 + 5


def test_headers_are_stacked_before_anything_else_gives_way() -> None:
    table = Table("T", [Column("a"), Column("long_header_indeed"), Column("c")], [{"a": 1, "long_header_indeed": 2}])
    assert "long header indeed" in printed(table, Format.TABLE, 80)
    narrow = printed(table, Format.TABLE, 12)
    assert "\n   header" in narrow
    assert max(map(len, narrow.splitlines())) <= 12


def test_stacked_headers_stand_on_the_rule_and_every_cell_takes_one_line() -> None:
    table = Table("T", [Column("a b", justify="center"), Column("n", justify="right")], [{"a b": "十\nz", "n": 1}])
    table = Table("T", table.columns, [*table.rows, {"a b": "v", "n": 10_000}])
    assert printed(table, Format.TABLE, 80).splitlines() == [
        "T",
        "a b        n",
        "────────────",
        "十 z       1",
        " v    10,000",
    ]
    stacked = Table("", [Column("long header", justify="right"), Column("n")], [{"long header": 1, "n": 2}])
    assert printed(stacked, Format.TABLE, 9).splitlines() == ["  long  ", "header  n", "─────────", "     1  2"]


def test_columns_that_may_wrap_break_between_words() -> None:
    columns = [Column("name", wrap=True), Column("a"), Column("b")]
    found = printed(Table("", columns, [{"name": "high school biology", "a": "y" * 9, "b": "z" * 9}]), Format.TABLE, 34)
    assert "high school" in found
    assert max(map(len, found.splitlines())) <= 34


@pytest.mark.parametrize("wrap", [False, True])
def test_a_list_of_properties_has_no_empty_header(wrap: bool) -> None:
    value = "y " * (60 if wrap else 2)
    table = Table("Title", [Column("key", " "), Column("value", " ", wrap=wrap)], [{"key": "a", "value": value}])
    lines = [line.rstrip() for line in printed(table, Format.TABLE, 60).splitlines()]
    assert lines[0] == "Title"
    assert lines[1].startswith("a  y y")


def test_a_table_without_rows_still_shows_its_columns() -> None:
    empty = Table("Nothing", [Column("arm"), Column("accuracy"), Column("note")])
    assert "accuracy" in printed(empty, Format.TABLE)
    assert printed(empty, Format.CSV) == "arm,accuracy,note\n"
    assert json.loads(printed(empty, Format.JSON)) == []


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table("T", [Column("a", style=lambda _: "red")], [{"a": "warm"}])
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[31m" in printed(table, Format.TABLE, color=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in printed(table, Format.TABLE, color=True)


def test_errors_go_to_stderr_and_their_hint_stays_copyable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    command = "accl train baseline --profile demo && accl train full --profile demo"
    print_error(ConfigError("Unknown [key].", command))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"error: Unknown [key].\n{command}\n"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (percent(0.31254), "31.25"),
        (percent(None), "–"),
        (points(0.0125), "+1.25"),
        (points(-0.0125), "-1.25"),
        (p_value(0.0312), "0.031"),
        (p_value(1e-9), "< 0.001"),
        (text(12345), "12,345"),
        (text(True), "yes"),
        (text(State.CRASHED), "crashed"),
        (text(None), "–"),
    ],
)
def test_values_as_people_read_them(shown: str, expected: str) -> None:
    assert shown == expected


def test_fields_are_attributes_by_key_and_none_without_an_item() -> None:
    error = ConfigError("Unknown key.", "Look.")
    assert fields(error, "what", advice="hint") == {"what": "Unknown key.", "advice": "Look."}
    assert fields(None, "what", advice="hint") == {"what": None, "advice": None}
