"""Completion of the last word that is typed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual.suggester import Suggester


class WordSuggester(Suggester):
    """Suggests the first word, of those that ``words`` returns, that begins as the last one typed does."""

    def __init__(self, words: Callable[[], Sequence[str]]) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self.words = words

    async def get_suggestion(self, value: str) -> str | None:
        return completed(value, self.words())


def completed(value: str, words: Sequence[str]) -> str | None:
    """Return the text with its last word completed, None if there is nothing to complete it to."""
    last = value.rpartition(" ")[2]
    sign = last[: len(last) - len(last.lstrip("+-#"))]  # of a tag that is added or removed
    begun = last.removeprefix(sign)
    found = next((word for word in words if begun and word.startswith(begun) and word != begun), None)
    return value[: len(value) - len(begun)] + found if found else None
