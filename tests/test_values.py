"""A value means what was typed: the declared type of its key decides how it is read, in files and after `--set`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from conftest import run_accl
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from accl.config import Config, dump, flat, load, resolve
from accl.config.values import FIELDS, TEXT_LIMIT, read_value
from accl.errors import ConfigError
from accl.yamlfile import Written


def value_of(key: str, text: str) -> Any:
    return flat(resolve("full", "demo", [f"{key}={text}"]).config)[key]


def written_back(tmp_path: Path, config: Config) -> Config:
    file = tmp_path / "config.yaml"
    file.write_text(dump(config), encoding="utf-8")
    return load(file)


VERBATIM = [
    "mm #2", "2024-01-01", "no", "1e3", "0x10", " leading blank", "trailing blank ", "null", "None", "~",
    "[a]", "{a: b}",
    "'quoted'", '"quoted"', "a: b", "a=b", "=", "*a", "&a", "!tag", "%x", "@x", "`x`", "| x", "> x", "- x", "? x", "#x",
    "---", "...", ".nan", "1_000", "12:30:45", "<<", "é", "数据", "😀", "a\u00a0b", "a,b", "\\n", "${HOME}",
    "~/x", "true",
]  # fmt: skip


@pytest.mark.parametrize("text", VERBATIM)
def test_text_is_taken_verbatim_and_kept_in_the_run(tmp_path: Path, text: str) -> None:
    config = resolve("full", "demo", [f"data.path={text}", f"model.name={text}", f"data.revision={text}"]).config
    assert (config.data.path, config.model.name, config.data.revision) == (text, text, text)
    assert written_back(tmp_path, config) == config


# Everything that is no control character, surrogate, noncharacter U+FFFE or U+FFFF, or line separator.
TEXT = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="\ufffe\uffff"), max_size=300
)


@given(text=TEXT)
def test_any_text_goes_through_set_and_the_runs_file_unchanged(tmp_path_factory: Any, text: str) -> None:
    config = resolve("full", "demo", [f"data.revision={text}"]).config
    assert config.data.revision == text
    assert written_back(tmp_path_factory.getbasetemp(), config) == config


@given(seed=st.integers(0, 2**63 - 1), rate=st.floats(1e-300, 100))
def test_numbers_go_through_set_and_the_runs_file_unchanged(tmp_path_factory: Any, seed: int, rate: float) -> None:
    config = resolve("full", "demo", [f"train.seed={seed}", f"optim.lr={rate!r}"]).config
    assert (config.train.seed, config.optim.lr) == (seed, rate)
    assert written_back(tmp_path_factory.getbasetemp(), config) == config


def test_a_file_gives_text_keys_the_text_that_stands_there(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    for written, read in (
        ("no", "no"),
        ("1e3", "1e3"),
        ("0123", "0123"),
        ("2024-01-01 # day", "2024-01-01"),
        ("12:30:45", "12:30:45"),
        ("'null'", "null"),
        ('""', ""),
        ("' x '", " x "),
    ):
        mine.write_text(f"data:\n  revision: {written}\n")
        assert resolve(str(mine), "demo").config.data.revision == read
    for written in ("", "~", "null", "Null", '"a\\tb"', "|\n    a\n    b"):
        mine.write_text(f"data:\n  revision: {written}\n")
        with pytest.raises(ConfigError, match=r"data\.revision=.*line 2.*expected text"):
            resolve(str(mine), "demo")


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("train.seed", "0", 0),
        ("train.seed", "+7", 7),
        ("train.seed", " 7 ", 7),
        ("train.seed", str(2**63 - 1), 2**63 - 1),
        ("train.epochs", "3", 3.0),
        ("train.epochs", ".5", 0.5),
        ("optim.lr", "1e-3", 1e-3),
        ("optim.lr", "1E-3", 1e-3),
        *(("data.permute_options", word, True) for word in ("true", "True", "YES", "on")),
        *(("data.permute_options", word, False) for word in ("false", "FALSE", "no", "Off")),
        *(("train.max_steps", word, None) for word in ("null", "NULL", "none", "None", "~", "")),
        *(("curriculum.weights_file", word, None) for word in ("null", "~", "")),
        ("loss.uncertainty_weight", "none", "none"),
        ("loss.negatives", "hardest", "hardest(16)"),
    ],
)
def test_the_type_of_the_key_decides(key: str, text: str, value: Any) -> None:
    read = value_of(key, text)
    assert (read, type(read)) == (value, type(value))


DIGITS = "9" * 4301
REFUSED = {
    "train.seed": [
        "-1", "1.0", "1e3", "1e3.5", "0x10", "0o7", "007", "1_000", "1,000", "٣", "１６", "²", "true", "yes",
        "null", "", " ",
        "3 4", "3\n", "'3'", ".inf", "nan", str(2**63), str(2**64), DIGITS, f"-{DIGITS}", "[1]", "--1",
        "2024-01-01", "1;2",
    ],
    "train.epochs": [
        "0", "-1", "nan", "NaN", ".nan", "inf", "-inf", ".inf", "Infinity", "1e999", f"1e{DIGITS}",
        DIGITS, "1_0", "٣", "1e",
        "e3", ".", "", "true", "null", "1.2.3", "0x1p3", "1e-999", "100001", "1 2",
    ],
    "train.max_steps": ["0", "2147483648", "1.5", "yes", "nul"],
    "data.permute_options": ["1", "0", "y", "n", "t", "null", "", "truee", "ｔｒｕｅ", "'true'"],
    "train.batch_size": ["1", "65537", str(2**31), DIGITS],
    "optim.lr": ["0", "-1e-3", "101", "1e-3x", "1e400"],
    "loss.temperature": ["0", "1e-7", "1e7"],
    "train.precision": ["BF16", " bf16", "fp16", "", "null", "fp32\0"],
    "data.path": [
        "", "  ", "a\0b", "a\nb", "a\tb", "a\x1bb", "a\x85b", "a\u2028b", "a\udcffb", "a\ufffeb",
        "x" * (TEXT_LIMIT + 1),
    ],
    "model.name": ["", "a\nb"],
    "loss.negatives": [
        "hardest(inf)", "hardest(nan)", "hardest(1e999)", "hardest(1)(2)", "hardest(", "hardest)",
        "hardest(1_6)", "hardest(٣)",
        "hardest(１６)", "hardest(0x10)", f"hardest({DIGITS})", "hardest(-1)", "ｈａｒｄｅｓｔ", "hardest((1))", "",
        "null", "hardest\0",
        "../hardest", "hardest(1,2)", "__init__", "x" * 5000, "semi_hard(infinity)", "debiased(1)",
    ],
    "curriculum.policy": ["proportional(1e6)", "proportional(nan)", "uniform(1)", "true"],
}  # fmt: skip


@pytest.mark.parametrize(("key", "text"), [(key, text) for key, texts in REFUSED.items() for text in texts], ids=str)
def test_what_is_not_of_the_type_and_range_is_refused_with_what_is(key: str, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve("full", "demo", [f"{key}={text}"])
    what = refused.value.what
    assert key in what
    assert ("(--set)" in what and f"accl config explain {key}" in refused.value.hint) or "is empty" in what
    assert what.isprintable()
    assert len(what) < 400


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("train.seed=1e3", ["train.seed='1e3' (--set)", "whole number of at least 0", "9,223,372,036,854,775,807"]),
        ("train.epochs=.inf", ["train.epochs='.inf'", "number above 0 and of at most 100,000"]),
        ("optim.lr=fast", ["optim.lr='fast'", "number above 0 and of at most 100"]),
        ("train.device=gpu", ["train.device='gpu'", "auto, cpu or cuda"]),
        ("train.deterministic=2", ["train.deterministic='2'", "true or false", "yes"]),
        ("train.max_steps=many", ["or null"]),
        ("train=5", ["train (--set) is a section", "train.seed"]),
        ("train.=5", ["Unknown key 'train.'"]),
        ("=5", ["not key=value"]),
        (f"{'k' * 5000}=5", ["Unknown key 'kkk"]),
        ("train.se\x1bed=5", ["Unknown key"]),
        ("data.path=", ["data.path is empty"]),
        ("recipe=x", ["Unknown key 'recipe'"]),
    ],
)
def test_a_refusal_names_key_text_type_and_range(item: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve("full", "demo", [item])
    for word in words:
        assert word in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "line",
    ["seed: '3'", "seed: true", "seed: 3.0", "seed: 2024-01-01", "seed:", "seed: |\n    3", "deterministic: 'yes'"],
)
def test_a_file_is_held_to_the_types_too(tmp_path: Path, line: str) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"train:\n  {line}\n")
    with pytest.raises(ConfigError, match=rf"train\.{line.split(':')[0]}=.*mine\.yaml, line 2\): expected"):
        resolve(str(mine), "demo")


@pytest.mark.parametrize(
    ("text", "words"), [("train: 5", "is a section"), ("train:", "is a section"), ("1: 2", "Unknown key '1'")]
)
def test_a_section_is_no_value_and_a_key_no_number(tmp_path: Path, text: str, words: str) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(text)
    with pytest.raises(ConfigError, match=words):
        resolve(str(mine), "demo")


def test_the_last_of_several_values_counts_and_this_is_said() -> None:
    resolved = resolve("full", "demo", ["train.seed=1", "train.seed=2"])
    assert resolved.config.train.seed == 2
    assert resolved.notes == ("train.seed is set more than once: '2' counts.",)
    with pytest.raises(ConfigError, match=r"train\.backend is there by its old and by its new name"):
        resolve("full", "demo", ["train.backend=cpu", "train.path=eager"])


def test_no_number_of_a_configuration_is_unbounded_or_infinite() -> None:
    values = resolve("full", "demo").config.model_dump()
    for key, field in FIELDS.items():
        if {int, float} & {field.annotation, *getattr(field.annotation, "__args__", ())}:
            assert {"ge", "gt"} & {name for entry in field.metadata for name in vars_of(entry)}, key
            assert {"le", "lt"} & {name for entry in field.metadata for name in vars_of(entry)}, key
            section, leaf = key.split(".")
            for value in (math.inf, math.nan, "1", True, 2**100):
                with pytest.raises(ValidationError):
                    Config.model_validate(values | {section: values[section] | {leaf: value}})


def vars_of(entry: object) -> set[str]:
    return {name for name in ("ge", "gt", "le", "lt") if hasattr(entry, name)}


def test_every_key_reads_its_own_value_back() -> None:
    for key, value in flat(resolve("full", "paper").config).items():
        if key in FIELDS:
            text = "null" if value is None else str(value)
            assert read_value(key, Written(text, "typed", "--set")) == value


def test_a_text_is_typed_verbatim_on_the_command_line(tmp_path: Path) -> None:
    done = run_accl("config", "show", "full", "-p", "demo", "--set", "model.name=mm #2", "--set", "data.revision=no")
    (tmp_path / "mine.yaml").write_text(done.stdout)
    config = resolve(str(tmp_path / "mine.yaml"), "demo").config
    assert (config.model.name, config.data.revision) == ("mm #2", "no")
