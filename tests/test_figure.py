"""Figures for a paper: the right runs, the right numbers, files that can be printed, committed and refused early."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from factory import SIX_TASKS, STARTED, crashed_run, finished_run
from hostile import acting, hostile_run
from typer.testing import CliRunner

from accl.analysis import plots
from accl.analysis.armset import choose_armsets, only_one
from accl.analysis.figures import (
    MAX_POINTS,
    compare_armset,
    confusion_matrices,
    curve_panels,
    forest_rows,
    measure,
    seed_band,
    task_rows,
    task_weights,
)
from accl.bench.runs import record_answers
from accl.cli.figure import app
from accl.errors import AcclError, CompareError, ConfigError, RunError
from accl.store.curve import raw_curve
from accl.store.experiment import write_experiment
from accl.store.rundir import RunDir
from accl.store.writer import Recorder

KINDS = ("curves", "weights", "confusion", "forest", "tasks")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of baseline and of full, and one of contrastive."""
    folder = tmp_path_factory.mktemp("figures")
    correct = {"baseline": (0.5, 0.5, 0.4), "full": (0.6, 0.7, 0.6), "contrastive": (0.5,)}
    for recipe, shares in correct.items():
        for seed, share in enumerate(shares, 1):
            finished_run(folder, recipe, seed=seed, correct=share)
    return folder


def figure(root: Path, *words: str) -> str:
    """Return what `accl figure` prints; raises what it raises."""
    done = CliRunner().invoke(app, [*words, "--runs", str(root)], env={"COLUMNS": "120"})
    if done.exception is not None:
        raise done.exception
    return done.output  # with the notes


# The files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_is_written_and_says_what_it_shows(root: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"{kind}.svg"
    printed = figure(root, kind, "baseline", "full", "-o", str(path))
    assert "baseline (reference)  1, 2 and 3" in printed
    assert f"Wrote {path}" in printed
    tree = ElementTree.parse(path).getroot()
    assert tree.tag.endswith("svg")
    assert float(tree.attrib["width"].removesuffix("pt")) == pytest.approx(72 * 3.25)
    assert len(list(tree.iter("{http://www.w3.org/2000/svg}path"))) > 10


def test_the_long_labels_of_a_sweep_leave_room_for_what_is_drawn(tmp_path: Path) -> None:
    for weight in (0.03, 0.1, 0.3):
        for lr in (1e-5, 2e-5):
            finished_run(tmp_path, "full", overrides=[f"loss.contrastive_weight={weight}", f"optim.lr={lr}"])
    for kind in ("forest", "curves", "tasks"):
        printed = figure(tmp_path, kind, "full", "-o", str(tmp_path / "f.svg"))
        assert "contrastive_weight=0.03 lr=2e-05" in printed
        assert "not applied" not in printed  # what matplotlib says where nothing is left for the axes


def test_a_pdf_embeds_truetype_fonts_and_has_no_date(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "curves.pdf"
    figure(root, "curves", "baseline", "full", "--columns", "2", "-o", str(path))
    content = path.read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/FontFile2" in content
    assert b"/Type3" not in content
    assert b"/CreationDate" not in content
    assert b"/MediaBox [ 0 0 486 " in content  # 6.75 inches


@pytest.mark.parametrize("suffix", [".pdf", ".svg", ".png"])
def test_the_same_numbers_are_the_same_bytes_whatever_the_user_has_set(
    root: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{name}{suffix}" for name in ("one", "two")]
    for path, size in zip(paths, (7, 20), strict=True):
        monkeypatch.setitem(mpl.rcParams, "font.size", size)
        figure(root, "forest", "baseline", "full", "-o", str(path))
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_arms_differ_without_colours() -> None:
    styles = [plots._style(index) for index in range(20)]
    assert len({(str(style["linestyle"]), style["marker"]) for style in styles}) == 20


def test_values_on_the_colour_map_grow_lighter() -> None:
    red, green, blue = mpl.colormaps["cividis"](np.linspace(0, 1, 64))[:, :3].T
    assert (np.diff(0.2126 * red + 0.7152 * green + 0.0722 * blue) > 0).all()


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("f.jpg", ConfigError, r"'\.jpg'.*\.pdf, \.svg or \.png"),
        ("f", ConfigError, "suffix ''"),
        ("nowhere/f.pdf", ConfigError, "no folder"),
        ("folder.pdf", ConfigError, "is a folder"),
    ],
)
def test_a_file_that_cannot_be_is_refused_before_any_run_is_looked_for(
    tmp_path: Path, name: str, kind: type[AcclError], words: str
) -> None:
    (tmp_path / "folder.pdf").mkdir()
    with pytest.raises(kind, match=words):
        figure(tmp_path, "curves", "no such run", "-o", str(tmp_path / name))


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(AcclError, match=r"accl\[paper\]"):
        figure(tmp_path, "curves", "no such run", "-o", str(tmp_path / "f.pdf"))


def test_hostile_text_is_drawn_as_text(tmp_path: Path) -> None:
    runs = [hostile_run(tmp_path, recipe) for recipe in ("baseline", "full")]
    for kind in ("curves", "tasks"):
        path = tmp_path / f"{kind}.svg"
        printed = figure(tmp_path, kind, *(str(run.path) for run in runs), "-o", str(path))
        assert not acting(printed)
        assert not acting(path.read_text(encoding="utf-8"))
        tags = {element.tag.partition("}")[2] for element in ElementTree.parse(path).iter()}
        assert not tags & {"script", "a", "foreignObject"}


# The runs ----------------------------------------------------------------------------------------


def labels(root: Path, *names: str, reference: str | None = None) -> dict[str, list[int]]:
    chosen = only_one(choose_armsets(root, names, reference=reference))
    return {arm.label: chosen.seeds(arm) for arm in chosen.arms}


def test_a_recipe_means_its_finished_runs_of_every_seed_in_the_order_of_the_names(root: Path) -> None:
    assert labels(root, "full", "baseline") == {"full": [1, 2, 3], "baseline": [1, 2, 3]}
    assert next(iter(labels(root, "full", "baseline"))) == "full"
    assert next(iter(labels(root, "full", "baseline", reference="baseline"))) == "baseline"
    with pytest.raises(CompareError, match=r"no arm 'fool'.*full and baseline"):
        labels(root, "full", "baseline", reference="fool")


def test_no_name_means_all_finished_runs_with_baseline_first(root: Path) -> None:
    assert labels(root) == {"baseline": [1, 2, 3], "full": [1, 2, 3], "contrastive": [1]}


def test_an_experiment_means_its_members_told_apart_by_the_keys_that_differ(tmp_path: Path) -> None:
    for weight in (0.1, 0.3):
        for seed in (1, 2):
            run = finished_run(tmp_path, "full", seed=seed, overrides=[f"loss.contrastive_weight={weight}"])
            write_experiment(run, "three weights")
    write_experiment(crashed_run(tmp_path), "three weights")
    finished_run(tmp_path, "baseline")
    (chosen,) = choose_armsets(tmp_path, ["three weights"])
    found = {arm.label: chosen.seeds(arm) for arm in chosen.arms}
    assert found == {"full contrastive_weight=0.1": [1, 2], "full contrastive_weight=0.3": [1, 2]}
    assert "1 of three weights has not finished" in " ".join(chosen.notes)


def test_of_equal_runs_the_newest_counts_unless_both_are_named(tmp_path: Path) -> None:
    old, new = (finished_run(tmp_path, "full", started=STARTED + when) for when in (0, 100))
    (chosen,) = choose_armsets(tmp_path, ["full"])
    assert [chosen.setups[i].run for i in chosen.arms[0].members] == [new]
    assert old.id in " ".join(chosen.notes)
    assert len(chosen.setups) == len(chosen.configs) == 1
    assert labels(tmp_path, old.id, new.id) == {"full": [42, 42]}


def test_recipes_share_their_terms_and_other_terms_are_no_part_of_a_figure(tmp_path: Path) -> None:
    finished_run(tmp_path, "baseline", fingerprint="aa" * 8, started=STARTED)
    finished_run(tmp_path, "full", fingerprint="aa" * 8, started=STARTED)
    newest = finished_run(tmp_path, "baseline", fingerprint="bb" * 8, started=STARTED + 100)
    assert labels(tmp_path, "baseline", "full") == {"baseline": [42], "full": [42]}
    assert "data aaaa" in only_one(choose_armsets(tmp_path, ["baseline", "full"])).terms
    assert [len(each.setups) for each in choose_armsets(tmp_path)] == [1, 2]
    with pytest.raises(CompareError, match="differ in their terms"):
        only_one(choose_armsets(tmp_path))
    with pytest.raises(CompareError, match=r"No finished run of full matches .*data"):
        choose_armsets(tmp_path, [newest.id, "full"])


def test_a_run_named_by_its_id_need_not_be_finished(tmp_path: Path) -> None:
    run = crashed_run(tmp_path)
    assert labels(tmp_path, run.id) == {"full": [42]}
    with pytest.raises(CompareError, match="no finished run of full"):
        choose_armsets(tmp_path, ["full"])
    with pytest.raises(CompareError, match="no finished run in"):
        choose_armsets(tmp_path)
    with pytest.raises(RunError, match="No run named"):
        choose_armsets(tmp_path, ["nothing"])


def test_a_run_that_cannot_be_read_is_left_out_and_said(tmp_path: Path) -> None:
    finished_run(tmp_path, "baseline")
    broken = finished_run(tmp_path, "full")
    broken.provenance.write_text("[", encoding="utf-8")
    (chosen,) = choose_armsets(tmp_path)
    assert [arm.label for arm in chosen.arms] == ["baseline"]
    assert broken.id in " ".join(chosen.notes)


# The numbers -------------------------------------------------------------------------------------


def curve(values: list[float], every: int = 10) -> object:
    steps = np.arange(1, len(values) + 1) * every
    return raw_curve(steps, steps / 100, steps * 16.0, steps * 6.0, np.array(values))


def test_a_band_is_mean_and_standard_deviation_over_the_seeds_that_have_a_value() -> None:
    band = seed_band("full", [curve([1, 2, 3]), curve([3, float("nan"), 7]), curve([2, 4])], "time")
    assert band.seeds == 3
    assert band.x_P.tolist() == pytest.approx([1, 2, 3])  # minutes
    assert band.mean_P.tolist() == [2, 3, 5]
    assert band.sd_P.tolist() == pytest.approx([1, 2**0.5, 8**0.5])


def test_one_seed_has_no_band_and_a_long_curve_few_points() -> None:
    band = seed_band("full", [curve([float(i) for i in range(5000)])])
    assert len(band.x_P) == MAX_POINTS
    assert np.isnan(band.sd_P).all()
    assert band.mean_P.mean() == pytest.approx(np.mean(range(5000)))
    assert (np.diff(band.mean_P) > 0).all()


def test_accuracies_are_drawn_in_per_cent_and_an_unknown_metric_lists_others(root: Path) -> None:
    chosen = only_one(choose_armsets(root, ["baseline", "full"]))
    measured = measure(chosen, ("curves",))
    (panel,) = curve_panels(chosen, measured, ["validation/accuracy"])
    assert panel.title == "validation accuracy (%)"
    assert panel.bands[0].mean_P[-1] == pytest.approx(75)
    assert [band.seeds for band in panel.bands] == [3, 3]
    with pytest.raises(AcclError, match=r"no.*|No run has the metric 'train/los'"):
        curve_panels(chosen, measured, ["train/los"])


def test_weights_are_those_in_force_and_a_uniform_arm_has_none(tmp_path: Path) -> None:
    tasks = SIX_TASKS[:2]
    for seed, updates in ((1, {0: 0.5, 10: 0.6}), (2, {0: 0.5, 20: 0.8})):
        run = finished_run(tmp_path, "full", seed=seed, tasks=tasks, curves=False)
        recorder = Recorder(run.database)
        for step, weight in updates.items():
            recorder.curriculum(step, "confusion", [weight, 1 - weight], [step, step])
        assert recorder.close() == 0
    chosen = only_one(choose_armsets(tmp_path, ["full"]))
    (weights,) = task_weights(chosen, measure(chosen, ("curriculum",)))
    assert weights.steps_P.tolist() == [0, 10, 20]
    assert weights.mean_PK[:, 0].tolist() == pytest.approx([0.5, 0.55, 0.7])
    assert weights.heaviest == [0, 1]

    run = finished_run(tmp_path, "baseline", tasks=tasks, curves=False)
    recorder = Recorder(run.database)
    recorder.curriculum(0, "uniform", [0.5, 0.5], [0, 0])
    assert recorder.close() == 0
    alone = only_one(choose_armsets(tmp_path, ["baseline"]))
    with pytest.raises(AcclError, match="baseline drew all tasks alike"):
        task_weights(alone, measure(alone, ("curriculum",)))


def test_matrices_are_means_over_seeds_ordered_by_category_and_differences_to_the_reference(tmp_path: Path) -> None:
    def similar(value: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        matrix = np.eye(6)
        matrix[0, 5] = matrix[5, 0] = value
        return matrix

    for recipe, seed, value in (("baseline", 1, 0.2), ("baseline", 2, 0.4), ("full", 1, 0.1)):
        finished_run(tmp_path, recipe, seed=seed, similarity=similar(value), curves=False)
    chosen = only_one(choose_armsets(tmp_path, ["baseline", "full"]))
    measured = measure(chosen, ("confusion",))
    first, _ = confusion_matrices(chosen, measured)
    names = [task.name for task in first.tasks]
    assert [task.category for task in first.tasks] == sorted(task.category for task in first.tasks)
    assert sum(n for _, n in first.categories) == 6
    ends = {SIX_TASKS[0][0], SIX_TASKS[5][0]}
    a, b = (names.index(name) for name in ends)
    assert first.values_KK[a, b] == pytest.approx(0.3)
    ((left, right, value),) = first.ranked(1)
    assert ({left.name, right.name}, value) == (ends, pytest.approx(0.3))
    (change,) = confusion_matrices(chosen, measured, differences=True)
    assert change.values_KK[a, b] == pytest.approx(-0.2)
    assert change.label == "full − baseline"
    with pytest.raises(AcclError, match=r"kind 'other'.*similarity/test"):
        confusion_matrices(chosen, measured, "other")


def test_differences_are_those_of_compare(root: Path, compared: Callable[..., str]) -> None:
    expected = json.loads(compared(root, "baseline", "full", "--all-seeds", "--format", "json"))["arms"][1]
    comparison = compare_armset(only_one(choose_armsets(root, ["baseline", "full"])))
    (row,) = forest_rows(comparison)
    assert (row.delta / 100, row.low / 100, row.high / 100) == pytest.approx(
        (expected["difference"]["delta"], expected["difference"]["low"], expected["difference"]["high"])
    )
    assert row.p_holm == pytest.approx(expected["p_holm"])
    assert [value / 100 for value in row.per_seed] == pytest.approx(expected["difference"]["per_seed"])


@pytest.fixture(name="compared")
def _compared() -> Callable[..., str]:
    from conftest import printed_by_compare

    return printed_by_compare


def test_tasks_are_ordered_by_gain_and_the_ends_can_be_taken(tmp_path: Path) -> None:
    # Question i belongs to task i mod 6: full gains task 0, loses task 5.
    before = [task in (1, 2, 3, 5) for task in range(6)] * 4
    after = [task in (0, 1, 2, 3) for task in range(6)] * 4
    runs: list[RunDir] = [
        finished_run(tmp_path, "baseline", correct=before),
        finished_run(tmp_path, "full", correct=after),
    ]
    comparison = compare_armset(only_one(choose_armsets(tmp_path, [run.id for run in runs])))
    rows = task_rows(comparison)
    assert len(rows) == 6
    assert (rows[0].name, rows[0].accuracy, rows[0].n) == (SIX_TASKS[0][0], {"baseline": 0.0, "full": 100.0}, 4)
    assert [row.name for row in task_rows(comparison, top=1)] == [SIX_TASKS[0][0], SIX_TASKS[5][0]]


def test_runs_whose_test_is_unread_are_drawn_by_their_validation(tmp_path: Path) -> None:
    for recipe, share in (("baseline", 0.5), ("full", 0.6)):
        run = finished_run(tmp_path, recipe, predictions=False, overrides=["eval.test=false"])
        recorder = Recorder(run.database)
        record_answers(recorder, "validation", np.arange(100) < 100 * share, 6)
        assert recorder.close() == 0
    with pytest.raises(AcclError, match=r"2 of 2 runs have not been tested.*accl test"):
        figure(tmp_path, "forest", "baseline", "full", "-o", str(tmp_path / "f.svg"))
    words = ("baseline", "full", "--split", "validation", "-o", str(tmp_path / "f.svg"))
    assert "Wrote" in figure(tmp_path, "tasks", *words)
    (row,) = forest_rows(compare_armset(only_one(choose_armsets(tmp_path)), "validation"))
    assert row.delta == pytest.approx(10)


def test_a_difference_needs_two_arms_that_were_tested(root: Path, tmp_path: Path) -> None:
    with pytest.raises(CompareError, match="one arm alone, full"):
        figure(root, "forest", "full", "-o", str(tmp_path / "f.pdf"))
    assert not (tmp_path / "f.pdf").exists()
