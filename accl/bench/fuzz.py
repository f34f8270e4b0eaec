"""Random configurations, most of them wrong: each has to be refused in words or taken for exactly what was typed."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from accl.config import Config, configs_folder, dump, flat, load, resolve
from accl.config.recipes import flatten
from accl.config.values import FIELDS, type_in_words
from accl.errors import AcclError
from accl.store.deadline import each_within

DEADLINE_S = 5.0  # for one input

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


@dataclass
class Fuzzed:
    """What became of random inputs.

    Attributes:
        accepted, refused: numbers of inputs by kind, ``--set`` and ``yaml``.
        problems: kind, input and what went wrong: a traceback, no answer in time, or another value than was typed.
    """

    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    problems: list[tuple[str, Any, str]] = field(default_factory=list)


def fuzz_config(seed: int, count: int) -> Fuzzed:
    """Try ``count`` random inputs, the same for the same seed: ``--set`` items and YAML files in turn."""
    found = Fuzzed()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = list(generate(seed, count))

        def attempt(case: tuple[str, Any]) -> bool:
            kind, content = case
            return _try_item(content, folder) if kind == "--set" else _try_file(content, folder)

        for (kind, content), result in each_within(DEADLINE_S, attempt, inputs):
            if isinstance(result, BaseException):
                found.problems.append((kind, content, f"{type(result).__name__}: {result}"))
            else:
                (found.accepted if result else found.refused)[kind] += 1
    return found


def generate(seed: int, count: int) -> Iterator[tuple[str, Any]]:
    """Yield ``count`` inputs: ``--set`` with a ``key=value`` item, or ``yaml`` with the bytes of a file."""
    rng = random.Random(seed)
    shipped = [path.read_text(encoding="utf-8") for path in sorted(configs_folder().rglob("*.yaml"))]
    for number in range(count):
        yield ("--set", _item(rng)) if number % 2 else ("yaml", _file(rng, shipped))


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


def _file(rng: random.Random, shipped: list[str]) -> bytes:
    text = rng.choice(shipped)
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


def _try_item(item: str, folder: Path) -> bool:
    try:
        config = resolve("full", "demo", [item]).config
    except AcclError:
        return False
    key, _, typed = item.partition("=")
    value = flat(config)[key.strip()]
    if not _means(typed, value):
        raise AssertionError(f"it was read as {value!r}")
    _check_kept(config, folder)
    return True


def _try_file(content: bytes, folder: Path) -> bool:
    file = folder / "recipe.yaml"
    file.write_bytes(content)
    try:
        config = resolve(str(file), "demo").config
    except AcclError:
        return False
    values = flat(config)
    # Every scalar as text, by the loader that is not under test; what it would choke on was refused before.
    for key, text in flatten(yaml.load(content, getattr(yaml, "CBaseLoader", yaml.BaseLoader)) or {}).items():
        if not _means(text, values[key]):
            raise AssertionError(f"{key} was read as {values[key]!r}")
    _check_kept(config, folder)
    return True


def _means(typed: str, value: Any) -> bool:
    """Return whether a value is what was typed, told without the reader that is under test."""
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


def _check_kept(config: Config, folder: Path) -> None:
    """Fail unless a configuration is the same after it was written into a run and read back."""
    file = folder / "config.yaml"
    file.write_text(dump(config), encoding="utf-8")
    if load(file) != config:
        raise AssertionError("the file of the run reads differently")
