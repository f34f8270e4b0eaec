"""Random configurations, most of them wrong: each has to be refused in words or taken for exactly what was typed."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from accl.config import configs_folder, dump, flat, load, resolve
from accl.config.tree import flatten
from accl.config.values import FIELDS, type_in_words
from accl.errors import AcclError

# Text that some reader somewhere takes for something else than it is.
_LISTED = """
null ~ none no Yes ON true 2024-01-01 12:30:45 1e3 1e3.5 0x10 0o7 010 1_000 .inf -.INF nan 1e999 1e-999 -1 +1 1. .5 1,5
# 'q' "q" [a] {} {a:b} *a &a !t | > % @ ` - << = ../x s3://x C:\\x a=b ٣ １６ é 数据 😀
uniform hardest(4) hardest(inf) hardest(1)(2) hardest(1e999) debiased(.1) semi_hard( proportional(-1)
"""
_WORDS = (
    *_LISTED.split(),
    *"\t\n\r\0\x1b\x85\u200b\u2028\u202e\ufeff\udcff\uffff",
    *("", "mm #2", " x", "x ", "a: b", "- a", "9" * 4301, str(2**63), str(2**64), "x" * 5000),
)
_CHAIN = "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
_FRAGMENTS = (
    *("[" * 200_000, "{" * 200_000, "{a: " * 50_000, "- " * 10_000, "? " * 10_000, f"a: &a [x]\n{_CHAIN}"),
    *("&a [*a]", "*a", "&a ", "!!int ", "!t ", "<<: ", "a: &a {b: c}\nd: {<<: *a}\n", "---\n", "...\n", "%YAML 1.1\n"),
    *("train:\n", "train.seed: 1\n", "train: 5\n", "  seed: 1\n", "null", "x" * 2000, "é", "#", "\r\n", "\n\n"),
    *(": ", "- ", "? ", "'", '"', "|\n", ">\n", "{", "}", "[", "]", "\t", "\0", "\x1b", "\u2028"),
)


def make_input(rng: random.Random) -> tuple[str, str | bytes]:
    """Return ``--set`` and a ``key=value`` item, or ``yaml`` and the bytes of a file."""
    return ("--set", _item(rng)) if rng.random() < 0.5 else ("yaml", _file(rng))


def try_input(content: str | bytes) -> str:
    """Try what `make_input` made; return ``accepted`` or ``refused``.

    Raises:
        AssertionError: it was taken for something else than was typed.
    """
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "recipe.yaml"
        try:
            if isinstance(content, str):
                config = resolve("full", "demo", [content]).config
            else:
                file.write_bytes(content)
                config = resolve(str(file), "demo").config
        except AcclError:
            return "refused"
        values = flat(config)
        for key, typed in _typed(content).items():
            if not _means(typed, values[key]):
                raise AssertionError(f"{key}={typed!r} was read as {values[key]!r}")
        file.write_text(dump(config), encoding="utf-8")
        if load(file) != config:
            raise AssertionError("the file of the run reads differently")
    return "accepted"


def _item(rng: random.Random) -> str:
    key = rng.choice(list(FIELDS))
    if rng.random() < 0.1:
        key = _mangled(rng, key, _WORDS)
    return key + rng.choice(["=", "=", "=", "=", " = ", "==", ""]) + _value(rng, key)


def _value(rng: random.Random, key: str) -> str:
    """Make a value, half of them by the range that the key explains."""
    makers: list[Callable[[], str]] = [
        lambda: rng.choice(_WORDS),
        lambda: _mangled(rng, rng.choice(_WORDS), _WORDS),
        lambda: "".join(chr(rng.randrange(rng.choice([128, 0x110000]))) for _ in range(rng.randint(0, 12))),
        lambda: str(rng.randint(-(2**70), 2**70) >> rng.randint(0, 70)),
        lambda: repr(rng.uniform(-1, 1) * 10.0 ** rng.randint(-330, 308)),
        lambda: str(rng.randint(0, 100)),
        lambda: repr(round(rng.uniform(0, 2), rng.randint(1, 17))),
        lambda: rng.choice(type_in_words(FIELDS[key]).replace(",", "").split()) if key in FIELDS else "",
    ]
    return rng.choice(makers)()


def _file(rng: random.Random) -> bytes:
    text = rng.choice(_shipped())
    if rng.random() < 0.3:
        key = rng.choice(list(FIELDS))
        text = f"{key.replace('.', ': {')}: {_value(rng, key)}}}\n"
    for _ in range(rng.choice([0, 1, 1, 2, 5])):
        text = _mangled(rng, text, _FRAGMENTS)
    encoding = rng.choice(["utf-8"] * 9 + ["utf-16", "latin-1"])
    content = bytearray(text.encode(encoding, errors="replace" if encoding == "latin-1" else "surrogatepass"))
    if content and rng.random() < 0.1:
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content)


def _mangled(rng: random.Random, text: str, pieces: tuple[str, ...]) -> str:
    """Cut a part out of a text, or put a piece in."""
    begin = rng.randint(0, len(text))
    end = rng.choice([begin, begin, min(len(text), begin + rng.randint(0, 20)), len(text)])
    return text[:begin] + rng.choice([*pieces, ""]) + text[end:]


@cache
def _shipped() -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted(configs_folder().rglob("*.yaml"))]


def _typed(content: str | bytes) -> dict[str, str]:
    """Return the text of every value of an accepted input, taken apart without the reader that is under test."""
    if isinstance(content, str):
        key, _, text = content.partition("=")
        return {key.strip(): text}
    return flatten(yaml.load(content, getattr(yaml, "CBaseLoader", yaml.BaseLoader)) or {})


def _means(typed: str, value: Any) -> bool:
    """Return whether a value is what was typed."""
    if value is None:
        return typed.lower() in ("", "~", "null", "none")
    if isinstance(value, bool):
        return typed.strip(" \t").lower() in (("true", "yes", "on") if value else ("false", "no", "off"))
    if isinstance(value, int):
        return Fraction(typed) == value
    if isinstance(value, float):
        return float(Fraction(typed)) == value
    # A choice may be written without its number and with blanks around it.
    return value in (typed, typed.strip()) or str(value).partition("(")[0] == typed.strip()
