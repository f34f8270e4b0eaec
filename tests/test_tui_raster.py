"""The braille raster: what is drawn, and what must not be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tui.raster import DOT_BITS, dashed_line, raster

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=64)
NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=64)


def dots(bits: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Unfold cells to single dots."""
    rows, columns = bits.shape
    on = (bits[:, None, :, None] & DOT_BITS[None, :, None, :]) > 0
    return on.reshape(rows * 4, columns * 2)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=60),
    st.integers(1, 30),
    st.integers(1, 12),
)
def test_every_point_inside_the_range_is_drawn(points: list[tuple[float, float]], columns: int, rows: int) -> None:
    x, y = np.array(points).T
    picture = dots(raster(x, y, columns, rows, (0.0, 1.0), (0.0, 1.0)))
    for a, b in points:
        across, down = round(a * (columns * 2 - 1)), round(rows * 4 - 1 - b * (rows * 4 - 1))
        assert picture[max(0, down - 1) : down + 2, max(0, across - 1) : across + 2].any()
    # On a grid of dots, exactly the dot of the point.
    grid_x, grid_y = np.rint(x * (columns * 2 - 1)), np.rint(y * (rows * 4 - 1))
    exact = dots(raster(grid_x, grid_y, columns, rows, (0.0, columns * 2.0 - 1), (0.0, rows * 4.0 - 1)))
    assert exact[(rows * 4 - 1 - grid_y).astype(int), grid_x.astype(int)].all()


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=30), FINITE, FINITE, st.booleans())
def test_any_numbers_whatever_draw_something_or_nothing(
    points: list[tuple[float, float]], low: float, high: float, log: bool
) -> None:
    x, y = np.array(points, float).reshape(-1, 2).T
    assert raster(x, y, 9, 4, (min(low, high), max(low, high)), (low, high), log=log).shape == (4, 9)


@given(st.floats(1e-300, 1e300), st.integers(2, 40))
def test_scale_does_not_matter(scale: float, n: int) -> None:
    x, y = np.arange(n, dtype=float), np.arange(n, dtype=float) % 7
    at_one = raster(x, y, 20, 5, (0.0, n - 1.0), (0.0, 7.0))
    scaled = raster(x, y * scale, 20, 5, (0.0, n - 1.0), (0.0, 7.0 * scale))
    # Rounding may move a dot that lies exactly between two places.
    assert (dots(at_one) != dots(scaled)).sum() <= 0.1 * dots(at_one).sum() + 2


def test_the_line_between_two_points_has_no_holes() -> None:
    picture = dots(raster(np.array([0.0, 39.0]), np.array([0.0, 3.0]), 20, 5, (0.0, 39.0), (0.0, 19.0)))
    assert picture.any(axis=0).all()


def test_a_steep_line_has_no_holes_either() -> None:
    picture = dots(raster(np.array([0.0, 1.0]), np.array([0.0, 19.0]), 20, 5, (0.0, 39.0), (0.0, 19.0)))
    assert picture.any(axis=1).all()


def test_a_gap_is_not_joined_even_inside_one_dot_column() -> None:
    x, y = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, np.nan, 19.0, 19.0])
    wide = dots(raster(x, y, 2, 5, (0.0, 3.0), (0.0, 19.0)))
    assert not wide[1:19].any()
    narrow = dots(raster(x, y, 2, 5, (0.0, 3000.0), (0.0, 19.0)))
    assert narrow[0, 0]
    assert narrow[19, 0]
    assert not narrow[1:19].any()


def test_a_single_point_is_one_dot() -> None:
    assert dots(raster(np.array([5.0]), np.array([5.0]), 10, 5, (0.0, 19.0), (0.0, 19.0))).sum() == 1


def test_a_constant_series_in_a_range_without_width_runs_through_the_middle() -> None:
    picture = dots(raster(np.arange(20.0), np.full(20, 3.5), 10, 3, (0.0, 19.0), (3.5, 3.5)))
    assert picture.any(axis=0).all()
    assert set(np.flatnonzero(picture.any(axis=1))) <= {5, 6}


def test_points_outside_the_range_are_cut_off_and_the_line_to_them_is_not() -> None:
    picture = dots(raster(np.array([0.0, 19.0]), np.array([0.0, 38.0]), 10, 5, (0.0, 19.0), (0.0, 19.0)))
    assert picture[:, :9].any(axis=0).all()
    assert not picture[:, 11:].any()


def test_a_logarithmic_axis_makes_a_geometric_series_straight() -> None:
    x = np.arange(20.0)
    straight = raster(x, x, 10, 5, (0.0, 19.0), (0.0, 19.0))
    logarithmic = raster(x, 10.0**x, 10, 5, (0.0, 19.0), (1.0, 1e19), log=True)
    assert (straight == logarithmic).all()


def test_what_is_not_positive_breaks_the_line_on_a_logarithmic_axis() -> None:
    picture = dots(raster(np.arange(3.0), np.array([10.0, -1.0, 10.0]), 10, 5, (0.0, 2.0), (1.0, 100.0), log=True))
    assert picture.sum() == 2


@pytest.mark.parametrize(("columns", "rows"), [(0, 5), (5, 0), (0, 0)])
def test_no_room_is_no_error(columns: int, rows: int) -> None:
    assert raster(np.arange(3.0), np.arange(3.0), columns, rows, (0.0, 2.0), (0.0, 2.0)).size == 0


def test_a_level_is_dashed_and_level() -> None:
    picture = dots(dashed_line(5.0, 12, 3, (0.0, 11.0)))
    assert np.flatnonzero(picture.any(axis=1)).tolist() == [6]
    assert picture[6].sum() == 12
    assert not dashed_line(50.0, 12, 3, (0.0, 11.0)).any()
