"""YAML files: sections of `key: value` are read as written, and whatever else a file is or holds is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import run_accl
from hypothesis import given
from hypothesis import strategies as st

from accl.config import dump, load, resolve
from accl.config.tree import flatten
from accl.errors import ConfigError
from accl.yamlfile import DEPTH_LIMIT, SIZE_LIMIT, parse_yaml, read_yaml

MAP_BOMB = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b} {{x: *{a}, y: *{a}}}\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(f"b{i}: {{<<: [{', '.join(['*a'] * 50)}]}}\n" for i in range(50))


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[" * 200_000, 1, "a list"),
        ("{a: " * 200_000, 1, f"more than {DEPTH_LIMIT} deep"),
        ("{" * 200_000, 1, "a key is no word"),
        ("? " * 200_000, 1, "a key is no word"),
        ("a:\n" + "".join(" " * i + "a:\n" for i in range(1, 1000)), 9, f"more than {DEPTH_LIMIT} deep"),
        ("train:\n  seed: [1, 2]\n", 2, "a list"),
        ("- train\n", 1, "a list"),
        (MAP_BOMB, 1, "anchors and aliases"),
        (MERGES, 1, "anchors and aliases"),
        ("a: 1\nb: *a\n", 2, "anchors and aliases"),
        ("&k a: 1\n", 1, "anchors and aliases"),
        ("a: 1\nb: !!int 3\n", 2, "tags"),
        ("a: !!python/object/apply:os.system [true]\n", 1, "tags"),
        ("a: !!binary aGk=\n", 1, "tags"),
        ("a: ! x\n", 1, "tags"),
        ("a: 1\n\na: 2\n", 3, "'a' is written in line 1 already"),
        (
            "train:\n  seed: 1\nloss:\n  temperature: 1\ntrain:\n  epochs: 2\n",
            5,
            "'train' is written in line 1 already",
        ),
        ("train.seed: 1\ntrain: {seed: 2}\n", 2, "'train.seed' is written in line 1 already"),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("---\n---\na: 1\n", 2, "second document"),
        ("a: 1\n...\n---\n", 3, "second document"),
        ("train\n", 1, "text without a key"),
        ("'quoted'\n", 1, "text without a key"),
        ("? [a, b]\n: 1\n", 1, "a list"),
        ("? {a: b}\n: 1\n", 1, "a key is no word"),
        (": 1\n", 1, ""),
        ("'': 1\n", 1, "a key is empty"),
        ("a: b: c\n", 1, "not valid YAML"),
        ("a:\n\tb: 1\n", 2, "not valid YAML"),
        ("a: 'b\n", 2, "not valid YAML"),
        ("%YAML 9.0\n---\na: 1\n", 1, "not valid YAML"),
        ("a: 1\nb: \0\n", 2, "U+0000"),
        ("a: 1\n# \x1b[2J\n", 2, "U+001B"),
        ("a: x\u2028b: 2\n", 1, "U+2028"),
        ("a: x\x85b: 2\n", 1, "U+0085"),
        ("a: \ufffe\n", 1, "U+FFFE"),
    ],
    ids=range(36),
)
def test_what_is_no_section_of_values_is_refused_in_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        read_yaml(file)
    assert f"{file}, line {line}" in refused.value.what
    assert words in refused.value.what
    assert "\n" not in refused.value.what


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}", "\ufeff", "\n" * 1000])
def test_an_empty_file_has_no_values(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    assert read_yaml(tmp_path / "mine.yaml") == {}


def test_values_are_the_text_that_is_written_with_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(b"\xef\xbb\xbfa:\r\n  b: no # comment\r\n  c: '2024-01-01'\r\nd.e: 0x10\r\n<<: 1\r\n")
    values = read_yaml(file)
    assert {key: (value.text, value.style) for key, value in values.items()} == {
        "a.b": ("no", "plain"),
        "a.c": ("2024-01-01", "quoted"),
        "d.e": ("0x10", "plain"),
        "<<": ("1", "plain"),
    }
    assert values["d.e"].where == f"{file}, line 4"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("loss: {temperature: 1}".encode("utf-16"), ["is UTF-16, not UTF-8", "iconv -f UTF-16"]),
        ("a: 1".encode("utf-16-be"), ["U+0000"]),
        ("\ufeffa: 1".encode("utf-32"), ["is UTF-32, not UTF-8"]),
        ("# ok\n# règle\n".encode("latin-1"), ["line 2", "0xE8", "iconv -f LATIN1"]),
        (b"a: \xff\n", ["line 1", "0xFF"]),
        (b"#" * (SIZE_LIMIT + 1), [f"more than {SIZE_LIMIT:,} bytes"]),
    ],
    ids=range(6),
)
def test_a_file_that_is_no_utf8_or_too_long_says_so(tmp_path: Path, content: bytes, words: list[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        read_yaml(file)
    for word in [str(file), *words]:
        assert word in str(refused.value)


def test_only_regular_files_are_read_and_links_to_them(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("a: 1\n")
    (tmp_path / "link.yaml").symlink_to(file)
    assert read_yaml(tmp_path / "link.yaml")["a"].text == "1"
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    (tmp_path / "dangling.yaml").symlink_to(tmp_path / "nowhere")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.yaml")
    for name, words in (
        ("folder", "is not a file"),
        ("pipe", "is not a file"),
        ("zero", "is not a file"),
        ("loop", "cannot be read"),
        ("dangling", "no file"),
        ("nowhere", "no file"),
        ("x" * 300, "cannot be read"),
        ("nul\0", "cannot be read"),
        ("mine.yaml/below", "Not a directory"),
    ):
        with pytest.raises(ConfigError, match=words):
            read_yaml(tmp_path / f"{name}.yaml")
    file.chmod(0)
    if os.getuid():
        with pytest.raises(ConfigError, match="Permission denied"):
            read_yaml(file)


def test_the_largest_files_are_read_or_refused_at_once() -> None:
    # Nothing is asserted: quadratic work on a megabyte would not come to an end.
    for text in (
        "".join(f"k{i}: v\n" for i in range(90_000)),
        f"a: {'x ' * 500_000}",
        f"a: '{chr(39) * 999_998}'",
        f"{'x ' * 500_000}: 1",
        f"a:\n{' ' * 999_000}b: 1",
        "? " * 500_000,
        "a: " + "- " * 500_000,
    ):
        with suppress(ConfigError):
            parse_yaml(text, Path("big.yaml"))


@pytest.mark.parametrize("option", ["recipe", "profile", "weights"])
@pytest.mark.parametrize("text", ["[" * 200_000, MAP_BOMB, MERGES], ids=["nested", "bomb", "merges"])
def test_hostile_files_of_every_kind_are_refused_on_the_command_line(tmp_path: Path, option: str, text: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    arguments = {
        "recipe": [str(file)],
        "profile": ["full", "--profile", str(file)],
        "weights": ["full", "--set", "curriculum.policy=fixed", "--set", f"curriculum.weights_file={file}"],
    }
    done = run_accl("config", "show", *arguments[option])
    assert done.returncode == ConfigError.exit_code
    assert f"{file}, line 1" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_pipe_in_place_of_a_recipe_keeps_no_command_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    done = run_accl("train", str(tmp_path / "pipe.yaml"), "--profile", "demo", cwd=tmp_path)
    assert (done.returncode, "is not a file" in done.stderr) == (ConfigError.exit_code, True)
    assert not (tmp_path / "runs").exists()


def test_without_libyaml_files_are_read_the_same(tmp_path: Path) -> None:
    code = """
        import sys, yaml
        del yaml.CSafeLoader
        from accl.config import resolve, dump
        print(dump(resolve("full", "demo").config), end="")
    """
    done = subprocess.run([sys.executable, "-c", code.replace("\n        ", "\n")], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (dump(resolve("full", "demo").config), "")
    (tmp_path / "config.yaml").write_text(done.stdout)
    assert load(tmp_path / "config.yaml") == resolve("full", "demo").config


KEYS = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
TREES = st.recursive(
    st.text(max_size=8), lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3), max_leaves=8
)


@given(st.dictionaries(KEYS, TREES, max_size=3))
def test_what_yaml_writes_is_read_as_it_was(tree: dict[str, object]) -> None:
    import yaml

    text = yaml.safe_dump(tree, allow_unicode=True)
    flat = flatten(tree)
    try:
        read = parse_yaml(text, Path("mine.yaml"))
    except ConfigError:
        assert any(not value.isprintable() for value in flat.values())
        return
    assert {key: value.text for key, value in read.items()} == flat
