"""Text that is made safe to show."""

from __future__ import annotations

import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accl.text import duration, printable, printable_lines

INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_every_invisible_character_of_unicode_is_replaced() -> None:
    characters = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) in INVISIBLE]
    assert len(characters) > 2000
    for character in characters:
        shown = printable(f"a{character}b")
        assert not INVISIBLE & {unicodedata.category(c) for c in shown}, hex(ord(character))


@given(st.text(st.characters(exclude_categories=sorted(INVISIBLE))))
def test_printable_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@given(st.text())
def test_making_text_printable_twice_changes_nothing_more(text: str) -> None:
    assert printable(printable(text)) == printable(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("a\tb\nc", "a b c"),
        ("\u202eevil", "[U+202E]evil"),
        ("\x9b2J", "[U+009B]2J"),
        ("Größe 漢字 ✓", "Größe 漢字 ✓"),
    ],
)
def test_what_is_replaced_can_still_be_seen(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.84, "0.8 s"),
        (9.6, "10 s"),
        (42, "42 s"),
        (59.7, "1 m 00 s"),
        (3599.4, "59 m 59 s"),
        (7512, "2 h 05 m"),
        (183600, "2 d 03 h"),
        *((unknown, "–") for unknown in (None, math.nan, math.inf, -1.0)),
    ],
)
def test_a_duration_has_at_most_two_units(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


def test_line_feeds_of_a_log_are_kept() -> None:
    assert printable_lines("a\x1b[2J\r\n\tb\n") == "a␛[2J\n    b\n"
