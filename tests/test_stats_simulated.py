"""`accl bench statistics`, and what only simulation shows of the statistics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import run_command

from accl.analysis.crossed import difference_over_seeds
from accl.analysis.power import smallest_difference
from accl.analysis.stats import paired_difference
from accl.bench import statistics
from accl.bench.report import missed
from accl.bench.statistics import Simulation, against_references, draw, share


def test_drawn_answers_have_the_difference_and_the_spread_over_seeds_that_were_asked_for() -> None:
    answers, truth = draw(np.random.default_rng(0), 50, 4, 2000, seed_sd=0.015, deltas=[0.0, 0.03])
    assert answers.shape == (50, 3, 4, 2000)
    differences = truth[:, 1:] - truth[:, :1]
    assert differences.mean(axis=(0, 2)) == pytest.approx([0.0, 0.03], abs=0.004)
    assert differences.std(axis=(0, 2)) == pytest.approx(0.015, rel=0.15)
    # About each run: the answers' mean is its truth, but for the draw of 2,000 questions.
    assert (answers.mean(axis=3) - truth).std() == pytest.approx(np.sqrt(0.25 / 2000), rel=0.1)


@pytest.mark.parametrize("seeds", [2, 10])
def test_an_interval_over_two_or_ten_seeds_covers_the_truth_and_finds_nothing_where_nothing_is(seeds: int) -> None:
    rows = {row["what"]: row for row in Simulation(400, 300).over_seeds(seeds, 0.01)}
    assert len(rows) == 3
    for what, row in rows.items():
        if "coverage" in what:
            assert row["value"] >= 93
        else:
            assert row["value"] <= row["target"] == pytest.approx(5 + 2 * 1.09, abs=0.01)


@pytest.mark.parametrize(("seeds", "seed_sd"), [(1, 0.0), (5, 0.01)])
def test_the_smallest_difference_is_significant_four_times_out_of_five(seeds: int, seed_sd: float) -> None:
    def drawn(delta: float) -> np.ndarray:
        return draw(np.random.default_rng(seeds), 300, seeds, 600, seed_sd=seed_sd, deltas=[delta])[0]

    smallest = float(np.sqrt(np.mean([smallest_difference(a, b) ** 2 for a, b in drawn(0.02)])))
    found = [
        (difference_over_seeds(a, b) if seeds > 1 else paired_difference(a[0], b[0])).p for a, b in drawn(smallest)
    ]
    assert np.mean(np.array(found) <= 0.05) == pytest.approx(0.8, abs=0.06)


def test_more_seeds_and_more_questions_show_smaller_differences() -> None:
    generator = np.random.default_rng(2)

    def smallest(seeds: int, questions: int) -> float:
        ((first, second),) = draw(generator, 1, seeds, questions, seed_sd=0.01, deltas=[0.0])[0]
        return smallest_difference(first, second)

    assert smallest(10, 3000) < smallest(3, 3000)
    assert smallest(1, 8000) < smallest(1, 500)
    with pytest.raises(ValueError, match="cannot pair"):
        smallest_difference(np.ones((3, 4), bool), np.ones((2, 4), bool))


def test_a_share_outside_of_its_limits_is_a_missed_target() -> None:
    rows = [share("low", [True, False], (93.0, 98.0)), share("high", [True], (93.0, 98.0))]
    rows += [share("inside", [True] * 19 + [False], (93.0, 98.0)), share("free", [False], (None, None))]
    assert [row["what"] for row in missed(rows)] == ["low", "high"]
    assert rows[2]["error"] == pytest.approx(100 * np.sqrt(0.95 * 0.05 / 20))


def test_the_statistics_agree_with_scipy_which_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = list(against_references())
    assert len(rows) == 4
    assert not missed(rows)
    monkeypatch.setattr(statistics, "find_spec", lambda _: None)
    rows = list(against_references())
    assert rows[-1]["what"].endswith("left out, scipy is not installed")
    assert rows[-1]["value"] is None
    assert not missed(rows)


def test_the_command_prints_limits_and_errors_and_fails_where_a_target_is_missed(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    words = ("bench", "statistics", "--experiments", "8", "--questions", "100", "--output", str(report))
    printed = run_command(*words)
    assert "93 to 98 %" in printed.text
    assert "5 seeds, sd 1.5: coverage, difference on hard pairs" in printed.text
    assert printed.code == 1, "eight experiments cannot have a coverage between 93 and 98 %"
    assert "targets missed: " in printed.text
    rows = json.loads(report.read_text())["rows"]
    # 4 intervals and 2 tests of single runs; 3 figures of each of 4 numbers of seeds and 4 spreads; 4 powers
    assert len([row for row in rows if "error" in row]) == 4 + 2 + 3 * 16 + 4
    assert f"{len(missed(rows))} targets missed" in printed.text
