"""A report is one page that needs nothing else, says the numbers of compare, and shows hostile text as text."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from conftest import printed_by_compare, run_accl
from factory import ALL_TASKS, STARTED, crashed_run, finished_run
from hostile import EVIL, acting, hostile_run
from typer.testing import CliRunner

from accl.analysis.report.gather import gather
from accl.analysis.report.page import page
from accl.analysis.report.svg import round_ticks
from accl.bench.runs import record_answers
from accl.cli.report import report
from accl.errors import AcclError, CompareError, ConfigError, RunError
from accl.store.experiment import write_experiment
from accl.store.labels import edit_labels
from accl.store.writer import Recorder

VOID = {"meta", "br"}
TAGS = """html head meta title style body header main section nav h1 h2 h3 h4 p a div table thead tbody tr th td figure
    figcaption ul li details strong summary pre code footer svg path text circle"""
ATTRIBUTES = """lang charset http-equiv content name class id href style viewbox role aria-label d transform cx cy r x y
    stroke-dasharray data-arm data-key data-value data-sd data-low data-high data-task data-category data-claim"""
OURS = set(TAGS.split())


class Page(HTMLParser):
    """What a page holds: tags, attributes, values of cells by row, and the text that is seen."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.cells: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
        self.text, self._open, self._row = "", list[str](), ""
        self.feed(content)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        found: dict[str, Any] = dict(attrs)
        self.attributes |= found.keys()
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            marks = [f"{name}:{value}" for name, value in found.items() if name.startswith("data-")]
            self._row = marks[0].removeprefix("data-") if marks else ""
        if "data-key" in found:
            names = ("data-value", "data-sd", "data-low", "data-high")
            self.cells[self._row][found["data-key"]] = {name[5:]: float(found[name]) for name in names if name in found}

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text += data


def write(root: Path, path: Path, *names: str) -> str:
    """Write a report as the command does, and return what it printed; raises what it raises."""
    app = typer.Typer()
    app.command("report")(report)
    done = CliRunner().invoke(app, [*names, "-o", str(path), "--runs", str(root)], env={"COLUMNS": "120"})
    if done.exception is not None:
        raise done.exception
    return done.stdout


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three arms with three seeds."""
    root = tmp_path_factory.mktemp("report")
    for recipe, shares in {
        "baseline": (0.5, 0.4, 0.5),
        "contrastive": (0.6, 0.5, 0.7),
        "full": (0.6, 0.7, 0.6),
    }.items():
        for seed, share in enumerate(shares, 1):
            finished_run(root, recipe, seed=seed, correct=share)
    return root


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two arms with five seeds."""
    root = tmp_path_factory.mktemp("five")
    for recipe, share in {"baseline": 0.5, "full": 0.6}.items():
        for seed in range(1, 6):
            finished_run(root, recipe, seed=seed, correct=share + 0.01 * seed, curves=False)
    return root


# The numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["three", "five"])
def test_its_numbers_are_those_of_compare(folder: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(folder)
    names = [arm for arm in ("baseline", "contrastive", "full") if any(root.glob(f"*{arm}*"))]
    compared = json.loads(printed_by_compare(root, *names, "--all-seeds", "--format", "json"))
    shown = Page(page(gather(root))).cells
    assert [row for row in shown if row.startswith("arm:")] == [f"arm:{name}" for name in names]
    for arm in compared["arms"]:
        cells = shown[f"arm:{arm['label']}"]
        assert (cells["accuracy"]["value"], cells["accuracy"]["sd"]) == pytest.approx(
            (arm["accuracy"]["mean"], arm["accuracy"]["sd"])
        )
        assert cells["floor"]["value"] == pytest.approx(max(arm["trivial_baselines"].values()))
        if difference := arm["difference"]:
            expected = (difference["delta"], difference["low"], difference["high"], arm["p_holm"])
            found = cells["delta"]
            actual = (found["value"], found["low"], found["high"], cells["p_holm"]["value"])
            assert actual == pytest.approx(expected)
        else:
            assert "delta" not in cells
    per_seed = [seed["arms"] for seed in compared["per_seed"]]
    for kind, group in (("category", "categories"), ("task", "tasks")):
        rows = {row.partition(":")[2]: cells for row, cells in shown.items() if row.startswith(f"{kind}:")}
        for index, name in enumerate(names):
            by_name = defaultdict(list)
            for arms in per_seed:
                for entry in arms[index][group]:
                    by_name[entry["name"] if kind == "category" else entry["task"]["name"]].append(entry["accuracy"])
            assert {key: cells[f"{name}/accuracy"]["value"] for key, cells in rows.items()} == pytest.approx(
                {key: float(np.mean(values)) for key, values in by_name.items()}
            )


def test_its_claims_are_those_of_accl_claims(three: Path, tmp_path: Path) -> None:
    claims = json.loads(run_accl("claims", "--format", "json", "--runs", str(three)).stdout)["claims"]
    shown = Page(page(gather(three)))
    assert len(claims) == 4
    for claim in claims:
        assert claim["statement"] in shown.text
        assert claim["reason"] in shown.text
        for part, evidence in enumerate(claim["evidence"]):
            cell = shown.cells[f"claim:{claim['key']}{part or ''}"]["value"]
            assert cell["value"] == evidence["value"]
            if evidence["low"] is not None and not evidence["bound"]:
                assert (cell["low"], cell["high"]) == (evidence["low"], evidence["high"])
    finished_run(tmp_path, "full")
    assert "Claims" not in page(gather(tmp_path))


def test_cells_show_their_values_rounded_and_the_reference_has_no_difference(three: Path) -> None:
    shown = Page(page(gather(three, ["baseline", "full"])))
    value = shown.cells["arm:full"]["delta"]["value"]
    assert f"{100 * value:+.2f} [" in shown.text
    assert set(shown.cells["arm:full"]) >= {"validation", "accuracy", "floor", "delta", "p_holm", "training_seconds"}
    assert shown.cells["arm:full"]["validation"] == {"value": 0.75, "sd": 0.0}
    assert shown.cells["arm:full"]["training_seconds"]["value"] == 12.5
    assert "difference to full" in Page(page(gather(three, reference="full"))).text


def test_ticks_are_round_and_within_the_ends() -> None:
    assert round_ticks(0, 1000, 5) == [0, 200, 400, 600, 800, 1000]
    assert round_ticks(-0.32, 0.31, 4) == pytest.approx([-0.2, 0, 0.2])
    assert round_ticks(5, 5, 4) == [5]
    assert round_ticks(float("nan"), 5, 4) == []


# The page ----------------------------------------------------------------------------------------


def test_the_page_has_every_section_and_needs_neither_network_nor_scripts(three: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    printed = write(three, path)
    assert f"Wrote {path}" in printed
    content = path.read_text(encoding="utf-8")
    shown = Page(content)
    for words in ("Results", "Curves", "Task weights", "Confusion between tasks", "Tasks and categories"):
        assert words in shown.text
    for words in ("loss.contrastive_weight", "Provenance", "00112233aabbccdd", "All finished runs"):
        assert words in shown.text
    assert shown.tags <= OURS
    assert not shown.attributes & {"src", "onload", "onclick", "xlink:href", "srcset"}
    assert "://" not in content
    assert set(re.findall(r'href="(.)', content)) == {"#"}
    assert "url(" not in content
    assert "default-src 'none'" in content


def test_what_people_wrote_about_a_run_stands_beside_it(tmp_path: Path) -> None:
    edit_labels(finished_run(tmp_path), name="first try", note="the good one")
    assert "first try: the good one" in Page(page(gather(tmp_path))).text


def test_equal_runs_make_equal_pages(three: Path) -> None:
    assert page(gather(three)) == page(gather(three))


def test_a_report_of_all_57_tasks_is_small(tmp_path: Path) -> None:
    for recipe in ("baseline", "contrastive", "full"):
        finished_run(tmp_path, recipe, tasks=ALL_TASKS, questions=570)
    assert len(page(gather(tmp_path))) < 1.5e6


def test_of_a_sweep_of_many_arms_a_few_matrices_are_drawn(tmp_path: Path) -> None:
    for i in range(1, 10):
        finished_run(tmp_path, "full", overrides=[f"loss.contrastive_weight={i / 10}"], curves=False)
    content = page(gather(tmp_path))
    assert content.count('aria-label="confusion of') == 2 * 6
    assert "3 arms more: accl figure confusion" in Page(content).text
    assert len(Page(content).cells) > 9


def test_hostile_text_is_shown_and_does_nothing(tmp_path: Path) -> None:
    runs = [hostile_run(tmp_path / "runs", recipe) for recipe in ("baseline", "full")]
    path = tmp_path / "report.html"
    printed = write(tmp_path / "runs", path, *(str(run.path) for run in runs))
    content = path.read_text(encoding="utf-8")
    shown = Page(content)
    assert not acting(printed)
    assert not acting(content)
    assert shown.tags <= OURS
    assert shown.attributes <= set(ATTRIBUTES.split())
    assert "<script>html</script>" in shown.text
    assert "[bold red]rich[/bold red]" in shown.text
    assert EVIL not in content


def test_credentials_in_a_command_are_masked(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    provenance = run.read_json(run.provenance)
    command = ["accl", "train", "full", "--set", "data.path=https://anna:secret@example.org/data"]
    run.write_json(run.provenance, {**provenance, "command": command})
    content = page(gather(tmp_path))
    assert "example.org" in content
    assert "secret" not in content


# The runs ----------------------------------------------------------------------------------------


def test_runs_on_other_terms_stand_in_a_part_of_their_own(tmp_path: Path) -> None:
    for fingerprint, when in (("aa" * 8, 0), ("bb" * 8, 100)):
        finished_run(tmp_path, "baseline", fingerprint=fingerprint, started=STARTED + when)
    finished_run(tmp_path, "full", fingerprint="bb" * 8, started=STARTED + 50)
    referred = [part.chosen.reference for part in gather(tmp_path, reference="full").parts]
    assert referred == ["full", "baseline"]
    found = gather(tmp_path)
    assert [part.chosen.setups[0].fingerprint[:2] for part in found.parts] == ["bb", "aa"]
    content = page(found)
    ids = re.findall(r' id="([^"]*)"', content)
    assert len(ids) == len(set(ids)) > 8
    assert {f"#{name}" for name in ids} == set(re.findall(r'href="([^"]*)"', content))


def test_an_experiment_has_its_name_as_title_and_its_arms_by_their_keys(tmp_path: Path) -> None:
    for weight in (0.1, 0.3):
        run = finished_run(tmp_path, "full", overrides=[f"loss.contrastive_weight={weight}"])
        write_experiment(run, "two weights")
    finished_run(tmp_path, "baseline")
    shown = Page(page(gather(tmp_path, ["two weights"])))
    assert shown.text.strip().startswith("two weights")
    assert set(shown.cells) >= {"arm:full contrastive_weight=0.1", "arm:full contrastive_weight=0.3"}
    assert "arm:baseline" not in shown.cells


def test_what_cannot_be_read_is_left_out_and_said(tmp_path: Path) -> None:
    finished_run(tmp_path, "baseline", seed=1)
    untested = finished_run(tmp_path, "full", seed=1, predictions=False)
    damaged = finished_run(tmp_path, "full", seed=2)
    damaged.database.write_bytes(b"no database")
    path = tmp_path / "report.html"
    write(tmp_path, path)
    shown = Page(path.read_text(encoding="utf-8"))
    assert f"Not in the comparison: Run {untested.id} has no answers" in shown.text
    assert f"Left out: {damaged.id}: run.duckdb" in shown.text
    assert str(tmp_path) not in shown.text
    assert "accuracy" not in shown.cells["arm:full"]
    assert shown.cells["arm:full"]["validation"]["value"] == 0.75
    assert "accuracy" in shown.cells["arm:baseline"]


def test_runs_whose_test_is_unread_are_compared_on_the_best_validation(tmp_path: Path) -> None:
    for recipe, share in (("baseline", 0.5), ("full", 0.6)):
        run = finished_run(tmp_path, recipe, correct=share, predictions=False, overrides=["eval.test=false"])
        recorder = Recorder(run.database)
        record_answers(recorder, "validation", np.arange(100) < 100 * share, 6)
        assert recorder.close() == 0
    shown = Page(page(gather(tmp_path)))
    assert "100 validation questions" in shown.text
    assert "This is the validation, not the test" in shown.text
    assert "full is best" in shown.text
    assert shown.cells["arm:full"]["delta"]["value"] == pytest.approx(0.1)
    assert "training questions" in shown.text  # of the similarities
    asked = Page(page(gather(tmp_path, split="test")))
    assert "not tested" in asked.text
    assert "eval.test=false left the test unread (2)" in asked.text


def test_a_run_that_did_not_finish_can_be_reported_by_its_id(tmp_path: Path) -> None:
    run = crashed_run(tmp_path)
    shown = Page(page(gather(tmp_path, [run.id])))
    assert "not tested" in shown.text
    assert "Curves" in shown.text
    with pytest.raises(CompareError, match="no finished run"):
        gather(tmp_path)
    with pytest.raises(RunError, match="No run named"):
        gather(tmp_path, ["nothing"])


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("r.pdf", ConfigError, r"\.html or \.htm"),
        ("nowhere/r.html", AcclError, "no folder"),
        ("f.html", AcclError, "folder"),
    ],
)
def test_a_file_that_cannot_be_is_refused_before_any_run_is_looked_for(
    tmp_path: Path, name: str, kind: type[AcclError], words: str
) -> None:
    (tmp_path / "f.html").mkdir()
    with pytest.raises(kind, match=words):
        write(tmp_path, tmp_path / name, "no such run")
