"""Text that is made safe to show."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accl.text import printable, printable_lines

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


def test_line_feeds_of_a_log_are_kept() -> None:
    assert printable_lines("a\x1b[2J\r\n\tb\n") == "a␛[2J\n    b\n"
