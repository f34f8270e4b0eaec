"""The READMEs name only files, headings, commands and options that exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from accl.cli.main import COMMANDS, app, load_command

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
READMES = [README, *sorted(ROOT.glob("accl/*/README.md"))]
URL = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
RAW = URL.replace("https://github.com/", "https://raw.githubusercontent.com/") + "/main/"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
EVERY_README = pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))


def prose(readme: Path) -> str:
    """The text without fenced blocks."""
    return FENCE.sub("", readme.read_text(encoding="utf-8"))


def links(readme: Path) -> tuple[list[str], list[str]]:
    """The targets of links, and the sources of pictures."""
    text = CODE.sub("", prose(readme))
    pictures = re.findall(r"!\[[^]]*\]\(([^)\s]+)", text) + re.findall(r'src="([^"]+)"', text)
    targets = re.findall(r"(?<!!)\[(?:[^][]|!\[[^]]*\]\([^)]*\))*\]\(([^)\s]+)", text)
    return targets + re.findall(r'href="([^"]+)"', text), pictures


def anchors(readme: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(readme), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def missing(readme: Path, target: str) -> str | None:
    """Why a link within this repository leads nowhere, or None."""
    path, _, anchor = target.partition("#")
    file = readme.parent / path if path else readme
    if not file.exists():
        return f"{target}: no such file"
    return f"{target}: no such heading" if anchor and anchor not in anchors(file) else None


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) < 130


def test_links_of_the_readme_work_wherever_it_is_shown() -> None:
    targets, pictures = links(README)
    assert len(targets) > 3
    assert pictures
    whole = f"{URL}/blob/main/"
    outside = [t for t in targets if not t.startswith((whole, "#"))] + [p for p in pictures if not p.startswith(RAW)]
    assert outside == []
    within = [target.removeprefix(whole) for target in targets] + [picture.removeprefix(RAW) for picture in pictures]
    assert [why for target in within if (why := missing(README, target))] == []


@EVERY_README
def test_relative_links_lead_to_files(readme: Path) -> None:
    relative = [target for found in links(readme) for target in found if "://" not in target]
    assert [why for target in relative if (why := missing(readme, target))] == []


# --- commands


def commands_of_blocks(text: str) -> Iterator[list[str]]:
    """The words after every `accl` of the fenced blocks of shell."""
    for language, block in FENCE.findall(text):
        if language == "sh":
            # shlex would take the end of the line for a part of the comment.
            block = re.sub(r"(^|\s)#.*", r"\1", block).replace("\\\n", " ")
            lexer = shlex.shlex(block, posix=True, punctuation_chars=";&|{}()\n")
            lexer.whitespace, lexer.commenters = " \t", ""
            lexer.whitespace_split = True
            words: list[str] | None = None
            for token in [*lexer, ";"]:
                if token[0] in ";&|{}()\n":
                    if words is not None:
                        yield words
                    words = None
                elif words is not None and token != "$@":  # a shell function passes its own on
                    words.append(token)
                elif token == "accl":
                    words = []


def commands_of_text(text: str) -> Iterator[list[str]]:
    """The words after `accl` in code within prose and tables.

    In the table of commands, `show RUN` after `accl runs` is `accl show RUN`, and `explain KEY` after
    `accl config show` is `accl config explain KEY`.
    """
    for line in FENCE.sub("", text).splitlines():
        first_column = line.startswith("| `accl ")
        group: list[str] = []
        for column in re.split(r"(?<!\\)\|", line)[1:2] if first_column else [line]:
            for code in CODE.findall(column.replace("\\|", "|")):
                if code.startswith("accl "):
                    words = code.split()[1:]
                    group = words[:1]
                    yield words
                elif first_column:
                    yield code.split() if code.split()[0] in COMMANDS else [*group, *code.split()]


def parse(words: list[str]) -> None:
    """Read a command line as `accl` does, without running it; a name alone is a mention, whatever it needs."""
    name, *rest = (re.sub(r"^\$\w+$", "1", word) for word in words)
    if name.startswith("--"):
        assert any(name in parameter.opts for parameter in get_command(app).params), f"accl {name}"
        return
    assert name in COMMANDS, f"accl {name}"
    command: Any = load_command(name)
    while rest and hasattr(command, "commands"):
        assert rest[0] in command.commands, f"accl {' '.join(words)}"
        command = command.commands[rest.pop(0)]
    if rest and not hasattr(command, "commands"):
        command.make_context("accl", rest)


@EVERY_README
def test_commands_and_their_options_exist(readme: Path) -> None:
    text = readme.read_text(encoding="utf-8")
    found = [*commands_of_blocks(text), *commands_of_text(text)]
    assert found or readme != README
    for words in found:
        parse(words)


def test_what_no_command_takes_would_be_found() -> None:
    lines = "for a in b; do accl train $a --sed 1; done  # accl one\naccl doctor\n(accl tui) && accl compare a \\\n  b"
    block = f"```sh\n{lines}\n```\n"
    assert [*commands_of_blocks(block)] == [["train", "$a", "--sed", "1"], ["doctor"], ["tui"], ["compare", "a", "b"]]
    table = "| `accl config show full` · `explain KEY` · `show RUN` | `stop` |\nsee `accl runs` and `tui`"
    assert [*commands_of_text(table)] == [
        ["config", "show", "full"],
        ["config", "explain", "KEY"],
        ["show", "RUN"],
        ["runs"],
    ]
    for words in (["train", "full", "--sed", "1"], ["retrain"], ["config", "tell"], ["logs", "one", "two"]):
        with pytest.raises(BaseException, match=r"sed|accl|two"):
            parse(words)
