"""The benchmarks at tiny sizes: their reports, and what must hold at any size. No speed is asserted."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from accl.bench import commands
from accl.bench.report import Report, commit, missed, row
from accl.bench.runs import METRICS, K, finished_run
from accl.cli.bench import app
from accl.cli.output import Format, emit
from accl.cli.reports import origins, report_tables
from accl.errors import ConfigError
from accl.store.columns import RunReader

SMALL = {
    "store": ["--steps=25"],
    "tui": ["--steps=25", "--runs=4", "--repeat=1", "--only=compare"],
    "cli": ["--runs=3", "--repeat=1"],
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name == "tui" else ()) for name in SMALL],
    name="bench",
)
def _bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, dict[str, Any]]:
    """The report of each bench as written, and as printed."""
    file = tmp_path_factory.mktemp("bench") / "report.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "environment", lambda _: {**os.environ})  # compiling all bytecode anew takes seconds
        done = call(request.param, *SMALL[request.param], "--output", str(file), "--format", "json")
    assert done.exit_code == 0, done.stderr
    return Report.read(file), json.loads(done.stdout)


def call(*arguments: str) -> Result:
    """Run `accl bench` in this process."""
    return CliRunner().invoke(app, arguments)


def test_a_bench_reports_where_when_and_with_what_it_was_measured(bench: tuple[Report, dict[str, Any]]) -> None:
    report, printed = bench
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", report.date)
    assert re.search(r", \d+ cores?", report.device)
    assert {"python", "accl", "torch", "transformers", "duckdb", "textual"} <= set(report.versions)
    assert report.commit == commit()
    assert {name: str(value) for name, value in report.settings.items()} == {
        option.split("=")[0].removeprefix("--"): option.split("=")[1] for option in SMALL[report.name]
    }
    assert printed["rows"] == report.rows


def test_every_row_says_what_how_much_of_which_unit_how_sure_and_how_much_was_wanted(
    bench: tuple[Report, dict[str, Any]],
) -> None:
    report, _ = bench
    assert report.rows
    for found in report.rows:
        assert {"what", "value", "unit", "spread", "target"} <= set(found)
        assert found["value"] >= 0
        assert not isinstance(found["unit"], float)
    assert len({found["what"] for found in report.rows}) == len(report.rows)


def test_no_row_is_lost_however_it_is_recorded_and_whoever_reads(tmp_path: Path) -> None:
    from accl.bench.store import measure

    rows = measure(tmp_path, 120)
    lost = [found for found in rows if found["what"].startswith("rows lost")]
    assert [found["value"] for found in lost] == [0, 0, 0]
    assert [found["target"] for found in lost] == [0, 0, 0]
    # Thirteen metrics a step; at step 100 also the weights and their matrix.
    assert {found["put"] for found in lost} == {120 * 13 + 2}
    [reads] = [found["reads"] for found in rows if "reads" in found]
    assert reads > 0


@pytest.mark.parametrize("bench", ["cli"], indirect=True)
def test_commands_are_measured_against_their_targets(bench: tuple[Report, dict[str, Any]]) -> None:
    report, _ = bench
    assert {found["what"]: found["target"] for found in report.rows} == {
        "accl --help": 0.2,
        "accl runs, 3 runs": 0.4,
        "accl show last": None,
        "accl compare baseline contrastive full, of 3 runs": None,
    }


def test_figures_above_their_target_are_missed() -> None:
    rows = [row("within", [1], "s", 1), row("above", [1.1], "s", 1), row("without", [9], "s")]
    assert [found["what"] for found in missed(rows)] == ["above"]


@pytest.mark.slow
def test_every_part_of_the_bench_of_the_app_measures() -> None:
    done = call("tui", "--steps=25", "--runs=20", "--repeat=2", "--format=json")
    assert done.exit_code == 0, done.stderr
    found = " ".join(row["what"] for row in json.loads(done.stdout)["rows"])
    for part in ("list of runs", "finished runs", "live runs", "long run", "confusion", "comparing runs", "load"):
        assert part in found


def test_synthetic_runs_hold_what_was_asked_for(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "full", 7, steps=200, questions=2 * K)
    reader = RunReader(run)
    assert reader.refresh()
    assert set(METRICS) <= set(reader.last.curves)
    assert all(len(reader.last.curves[name]) == 200 for name in METRICS)
    assert reader.last.confusion["similarity"].matrix.shape == (K, K)
    assert reader.last.task_accuracy["test"][1].tolist() == [2] * K
    assert (run.setup().recipe, run.setup().seed) == ("full", 7)


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    report = Report.create(
        "train", {"steps": 3}, [row("step", [1.0, 2.0, 4.0], "ms", 5.0, path="graph"), row("x", [3], "s")]
    )
    report.write(tmp_path / "report.json")
    assert Report.read(tmp_path / "report.json") == report
    assert report.rows[0] == {"what": "step", "value": 2.0, "unit": "ms", "spread": 1.5, "target": 5.0, "path": "graph"}
    assert report.rows[1]["spread"] is None


@pytest.mark.parametrize("content", ["{}", "[1]", "no json", '{"name": "x", "unknown": 1}'])
def test_a_file_that_is_no_report_is_one_clear_error(tmp_path: Path, content: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="not a report"):
        Report.read(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        Report.read(tmp_path / "missing.json")


def markdown(*reports: Report) -> str:
    buffer = io.StringIO()
    emit(report_tables(reports), Format.MD, Console(file=buffer), notes=origins(reports))
    return buffer.getvalue()


def test_the_markdown_table_has_figures_with_units_and_their_origin_beneath() -> None:
    common = ("2026-11-22T10:00:00+00:00", "abc1234-dirty", "A CPU, 2 cores", {"python": "3.11.7", "accl": "0.1.0"})
    store = Report("store", *common, {}, [row("a|b", [0.0123, 0.0125], "ms", 0.5), row("rows lost", [0], "rows", 0)])
    cli = Report("cli", *common, {}, [row("accl --help", [1234.5], "s")])
    origin = "2026-11-22, commit abc1234-dirty, A CPU, 2 cores; python 3.11.7, accl 0.1.0."
    assert markdown(store).splitlines() == [
        "| what | median | spread | target |",
        "| :--- | ---: | ---: | ---: |",
        "| a\\|b | 0.0124 ms | 0.0001 ms | 0.5 ms |",
        "| rows lost | 0 rows | – | 0 rows |",
        "",
        f"store: {origin}",
    ]
    assert markdown(store, cli).splitlines() == [
        "| bench | what | median | spread | target |",
        "| :--- | :--- | ---: | ---: | ---: |",
        "| store | a\\|b | 0.0124 ms | 0.0001 ms | 0.5 ms |",
        "| store | rows lost | 0 rows | – | 0 rows |",
        "| cli | accl --help | 1,234 s | – | – |",
        "",
        f"store, cli: {origin}",
    ]


def test_figures_of_a_candidate_share_a_line_and_settings_name_what_was_changed() -> None:
    def comparison(overrides: list[str], ms: float) -> Report:
        rows = [
            row("a: time of a step", [ms, ms, ms], "ms", who="a", measure="time of a step"),
            row("a: peak memory", [100.0], "MiB", who="a", measure="peak memory"),
            row("b: time of a step", [8.0], "ms", who="b", measure="time of a step"),
            row("copy", [5.0], "GB/s"),
        ]
        return Report.create("train", {"profile": "demo", "overrides": overrides}, rows)

    lines = markdown(comparison([], 2.0), comparison(["data.path=x", "train.batch_size=4"], 4.0)).splitlines()
    assert lines[:6] == [
        "| setting |  | ms/step | peak MiB |",
        "| :--- | :--- | ---: | ---: |",
        "| demo | a | 2 ± 0 | 100 |",
        "|  | b | 8 | – |",
        "| demo, train.batch_size=4 | a | 4 ± 0 | 100 |",
        "|  | b | 8 | – |",
    ]
    assert "| train | copy | 5 GB/s | – | – |" in lines


def test_a_report_from_before_backends_had_their_name_is_still_printed(tmp_path: Path) -> None:
    old = Report.create(
        "train",
        {"profile": "demo", "overrides": [], "paths": ["auto"], "path": "graphed"},
        [row("a: time of a step", [2.0], "ms", who="a", measure="time of a step", path="graphed")],
    )
    old.write(tmp_path / "old.json")
    done = call("table", str(tmp_path / "old.json"))
    assert done.exit_code == 0, done.stderr
    assert "| demo | a | 2 |" in done.stdout.splitlines()


def test_the_command_prints_the_table_of_reports(tmp_path: Path) -> None:
    report = Report.create("store", {}, [row("recording", [70000.0], "rows/s")])
    report.write(tmp_path / "store.json")
    done = call("table", str(tmp_path / "store.json"))
    assert done.exit_code == 0, done.stderr
    assert done.stdout == markdown(report)
    assert isinstance(call("table", str(tmp_path / "none.json")).exception, ConfigError)
