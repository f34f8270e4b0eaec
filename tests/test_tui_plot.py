"""Curves by dot column, the cells made of them, and the shared x axis."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accl.store.curve import Curve, raw_curve
from tui.plot import Kind, arm_curve, band_dots, canvas, dot_columns, median_line, put_points
from tui.raster import Floats, dot_rows, raster
from tui.xview import XView, convert

VALUES = st.floats(-1e6, 1e6)
BROKEN = st.sampled_from([float("nan"), float("inf"), float("-inf")])


def curve_of(values: Floats, every: int = 1) -> Curve:
    steps = (np.arange(len(values)) + 1) * every
    return raw_curve(steps, steps / 100, steps * 16.0, steps * 0.5, np.asarray(values, np.float64))


def binned(values: Floats, size: int) -> Curve:
    """Make a curve with bins of ``size`` values each."""
    count = len(values) // size
    v, last = np.reshape(values[: count * size], (count, size)), (np.arange(count) + 1) * size
    quantiles = np.quantile(v, [0.1, 0.5, 0.9], axis=1)
    n = np.full(count, size)
    clock = (last / 100, last * 16.0, last * 0.5)
    broken = np.zeros(count, np.int64)
    return Curve(
        last - size + 1, last, *clock, n, broken, quantiles[1], *quantiles[[0, 2]], v.min(axis=1), v.max(axis=1)
    )


@settings(max_examples=50)
@given(st.lists(VALUES | BROKEN, min_size=1, max_size=80), st.integers(2, 60))
def test_a_dot_column_has_the_quantiles_of_its_values_and_marks_broken_ones(values: list[float], dots: int) -> None:
    curve = curve_of(np.array(values))
    columns = dot_columns(curve, "step", (0.0, float(len(values))), dots)
    place = np.rint(np.arange(1, len(values) + 1) / len(values) * (dots - 1)).astype(int)
    for column in range(dots):
        own = np.array(values)[place == column]
        finite = np.sort(own[np.isfinite(own)])
        assert columns.broken[column] == (len(finite) < len(own))
        if not len(finite):
            assert np.isnan([columns.median[column], columns.low[column], columns.high[column]]).all()
            continue
        assert columns.median[column] == finite[(len(finite) - 1) // 2]
        assert columns.lowest[column] == finite[0]
        assert columns.highest[column] == finite[-1]
        assert finite[0] <= columns.low[column] <= columns.median[column] <= columns.high[column] <= finite[-1]


def test_the_quantiles_of_single_bins_are_kept_and_those_of_many_are_close_to_the_values() -> None:
    values = np.random.default_rng(0).standard_normal(40_000)
    curve = binned(values, 100)
    alone = dot_columns(curve, "step", (100.0, 40_000.0), 400)
    np.testing.assert_array_equal(alone.median, curve.median)
    np.testing.assert_array_equal(alone.low, curve.low)
    np.testing.assert_array_equal(alone.high, curve.high)
    together = dot_columns(curve, "step", (0.0, 40_000.0), 8)
    assert together.median == pytest.approx(np.zeros(8), abs=0.1)
    assert together.low == pytest.approx(np.full(8, -1.28), abs=0.15)
    assert together.high == pytest.approx(np.full(8, 1.28), abs=0.15)


@settings(max_examples=50)
@given(st.lists(VALUES, min_size=1, max_size=60), st.integers(1, 20), st.integers(1, 10))
def test_the_line_and_its_band_lie_where_the_values_are_and_nowhere_else(
    values: list[float], cells: int, rows: int
) -> None:
    curve = curve_of(np.array(values))
    columns = dot_columns(curve, "step", (0.0, len(values) + 1.0), cells * 2)
    y_range = (min(values) - 1.0, max(values) + 1.0)
    bits = median_line(columns, cells, rows, y_range, False)
    band = band_dots(columns, cells, rows, y_range, False)
    known = np.flatnonzero(np.isfinite(columns.median))
    rows_of = np.rint(dot_rows(columns.median[known], rows, y_range)).astype(int) // 4
    assert (bits[rows_of, known // 2] > 0).all(), "every median is in its cell"
    assert (band[rows_of, known // 2] > 0).all(), "the band holds the median"
    outside = np.setdiff1d(np.arange(cells), np.arange(known[0] // 2, known[-1] // 2 + 1))
    assert not bits[:, outside].any()
    assert not band[:, outside].any()


def test_the_line_runs_on_to_the_next_value_outside_and_stops_at_broken_ones() -> None:
    curve = curve_of(np.array([0.0, 1.0, np.nan, 3.0, 4.0]), every=10)
    zoomed = dot_columns(curve, "step", (12.0, 18.0), 20)
    assert median_line(zoomed, 10, 4, (0.0, 4.0), False).any(axis=0).all()
    whole = dot_columns(curve, "step", (10.0, 50.0), 41)
    bits = median_line(whole, 20, 4, (0.0, 4.0), False).any(axis=0)
    assert bits[:5].all()
    assert not bits[6:14].any()
    assert np.flatnonzero(whole.broken).tolist() == [20]


def test_a_cell_belongs_to_the_line_with_most_dots_in_it() -> None:
    x = np.arange(20.0)
    flat = raster(x, np.full(20, 2.0), 10, 1, (0.0, 19.0), (0.0, 3.0))
    dot = raster(x[:1], np.zeros(1), 10, 1, (0.0, 19.0), (0.0, 3.0))
    none = np.zeros((1, 10), np.int64)
    drawn = canvas([(dot, Kind.LINE), (flat, Kind.LINE)], [none, none], [], (1, 10))
    assert (drawn.owner == 1).all()
    assert drawn.glyphs[0, 0] == 0x2800 + int(dot[0, 0] | flat[0, 0]), "no dot is lost"


def test_evaluations_are_points_where_they_were_made() -> None:
    nothing = np.zeros((4, 10), np.uint8)
    drawn = canvas([(nothing, Kind.FAINT)], [np.zeros((4, 10), np.int64)], [], (4, 10))
    put_points(drawn, curve_of(np.array([0.0, np.nan, 3.0])), "step", (1.0, 3.0), (0.0, 3.0), False, 0)
    assert np.argwhere(drawn.kinds == Kind.POINT).tolist() == [[0, 9], [3, 0]]


def test_an_arm_is_the_median_of_its_seeds_with_the_range_as_band() -> None:
    seeds = [curve_of(np.arange(10.0) + offset) for offset in (0.0, 1.0, 5.0)]
    short = curve_of(np.arange(4.0) - 9.0)
    arm = arm_curve([*seeds, short])
    assert arm.last.tolist() == list(range(1, 11))
    assert arm.median[:2].tolist() == [0.5, 1.5]
    assert arm.median[4:].tolist() == [5.0, 6.0, 7.0, 8.0, 9.0, 10.0], "a seed that has ended counts no more"
    assert arm.low[0] == -9.0
    assert arm.high[-1] == 14.0
    np.testing.assert_array_equal(arm.epoch, seeds[0].epoch)


def test_an_arm_is_aligned_by_step_and_keeps_what_is_broken() -> None:
    broken = curve_of(np.array([1.0, np.nan, np.nan]), every=2)
    arm = arm_curve([broken, curve_of(np.array([3.0, 3.0, 3.0]), every=2), curve_of(np.zeros(6))])
    assert arm.last.tolist() == [1, 2, 3, 4, 5, 6]
    assert arm.median[1] == 1.0
    assert arm.broken.tolist() == [0, 0, 0, 1, 0, 1]
    assert (arm.first <= arm.last).all()


EXTENT = (0.0, 1000.0)


@given(st.lists(st.tuples(st.sampled_from(["zoom", "pan", "move", "at"]), st.floats(-50, 50)), max_size=20))
def test_no_sequence_of_keys_leaves_the_data(moves: list[tuple[str, float]]) -> None:
    view = XView()
    for name, amount in moves:
        if name == "zoom":
            view = view.zoomed(2.0 if amount > 0 else 0.5, EXTENT)
        elif name == "pan":
            view = view.panned(amount / 50, EXTENT)
        elif name == "move":
            view = view.moved(int(amount), 100, EXTENT)
        else:
            view = view.at(amount * 40, EXTENT)
        low, high = view.range(EXTENT)
        assert EXTENT[0] <= low < high <= EXTENT[1]
        if name in ("move", "at"):
            assert view.cursor is not None
            assert low <= view.cursor <= high


def test_the_cursor_stays_in_place_while_zooming_and_stands_on_whole_steps() -> None:
    view = XView().at(250.4, EXTENT)
    assert view.cursor == 250.0
    assert view.zoomed(2.0, EXTENT).range(EXTENT) == (125.0, 625.0)
    assert view.zoomed(2.0, EXTENT).zoomed(0.5, EXTENT).range(EXTENT) == EXTENT
    assert XView().moved(0, 100, EXTENT).cursor == 1000.0
    assert XView(cursor=5.0).moved(1, 10_000, EXTENT).cursor == 6.0, "no key is without an effect"


def test_another_axis_shows_the_same_part_of_the_run() -> None:
    clock = curve_of(np.zeros(1000))
    view = XView(low=200.0, high=400.0, cursor=300.0).on_axis("time", clock)
    assert view == XView("time", 100.0, 200.0, 150.0)
    assert view.on_axis("step", clock) == XView("step", 200.0, 400.0, 300.0)
    assert convert(0.0, "step", "epoch", clock) == 0.0
