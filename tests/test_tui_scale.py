"""Ticks, and short numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from accl.text import printable
from tui.scale import log_ticks, padded, percent, short, ticks
from tui.text import bar, cut, fit, sparkline, wrapped

FINITE = st.floats(-1e300, 1e300)


@given(FINITE, st.floats(1e-12, 1e12), st.integers(1, 12))
def test_ticks_lie_inside_the_range_and_are_no_more_than_asked(low: float, span: float, most: int) -> None:
    found = ticks((low, low + span), most)
    assert len(found) <= most
    slack = span * 1e-6 + abs(low) * 1e-9
    assert all(low - slack <= value <= low + span + slack for value in found)


def test_ticks_are_round_numbers() -> None:
    assert ticks((0.0, 9910.0), 5) == [0.0, 2000.0, 4000.0, 6000.0, 8000.0]
    assert ticks((0.243, 0.381), 4) == pytest.approx([0.25, 0.3, 0.35])


def test_logarithmic_ticks_are_powers_of_ten() -> None:
    assert log_ticks((0.05, 200.0), 5) == [0.1, 1.0, 10.0, 100.0]
    assert log_ticks((1.1, 1.9), 3) == pytest.approx([1.25, 1.5, 1.75])


@given(FINITE, FINITE, st.booleans())
def test_padding_never_loses_the_range(a: float, b: float, log: bool) -> None:
    low, high = min(a, b), max(a, b)
    if log:
        low, high = abs(low) + 1e-300, abs(low) + 1e-300 + abs(high)
    wide = padded((low, high), log)
    assert wide[0] <= low
    assert high <= wide[1]
    assert all(math.isfinite(value) for value in wide)


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_numbers_stay_short(value: float) -> None:
    assert 1 <= len(short(value)) <= 9


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.25, "0.250"), (1200, "1,200"), (12500, "12.5k"), (2e-5, "2e-5"), (math.nan, "–"), (3e6, "3M")],
)
def test_numbers_are_written_as_people_write_them(value: float, text: str) -> None:
    assert short(value) == text


@given(st.floats(1e-3, 1e3), st.floats(0.01, 100), st.integers(2, 8))
def test_neighbouring_ticks_never_read_alike(low: float, width: float, most: int) -> None:
    marks = ticks((low, low + low * width), most)
    step = marks[1] - marks[0] if len(marks) > 1 else None
    texts = [short(value, step) for value in marks]
    assert len(set(texts)) == len(texts)


def test_shares_are_percentages() -> None:
    assert percent(0.3372) == "33.7 %"
    assert percent(0.35, 0.05) == "35 %"
    assert percent(math.nan) == "–"


@given(st.text(), st.integers(0, 30))
def test_what_does_not_fit_ends_in_an_ellipsis(text: str, width: int) -> None:
    assert cell_len(cut(text, width)) <= width
    if cell_len(text) > width > 0:
        assert cut(text, width).rstrip().endswith("…")


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)), st.integers(0, 30), st.booleans())
def test_a_cell_is_exactly_as_wide_as_its_column(text: str, width: int, right: bool) -> None:
    assert cell_len(fit(text, width, right)) == width


@given(st.floats(allow_nan=True), st.integers(0, 40))
def test_a_bar_never_leaves_its_room(share: float, width: int) -> None:
    assert len(bar(share, width)) == width


def test_a_spark_line_spans_its_values() -> None:
    assert sparkline([0.0, 1.0, 2.0], 3) == "▁▅█"
    assert sparkline([], 3) == ""


@given(st.text("ab 漢\x1b", max_size=60), st.integers(1, 12))
def test_wrapped_lines_fit_and_lose_nothing_but_blanks(text: str, width: int) -> None:
    lines = wrapped(text, width)
    assert all(cell_len(line) <= max(2, width) for line in lines)
    assert "".join(lines).replace(" ", "") == printable(text).replace(" ", "")
