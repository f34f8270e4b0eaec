"""Answers to a shell that completes a word of the command line: completions, or nothing at all."""

from __future__ import annotations

import io
import os
import re
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import typer
from typer.main import get_command

VARIABLE = "_ACCL_COMPLETE"  # is set by the script that `accl --show-completion` prints
_BREAK = re.compile(r"[=:]+")


def answer_shell(app: typer.Typer) -> int:
    """Print what the shell asks for, as typer does it, and return the exit code.

    Whatever goes wrong, nothing is printed: a message would be taken for completions, or stand in the line that is
    being typed.
    """
    kept = ""
    printed, code = io.StringIO(), 0
    with redirect_stdout(printed), redirect_stderr(io.StringIO()):
        try:
            kept = join_words() if os.environ[VARIABLE] == "complete_bash" else ""
            command = get_command(app)
            leave_unread(command)
            command(prog_name="accl", complete_var=VARIABLE)
        except SystemExit as end:  # fish reads the exit code
            code = end.code if isinstance(end.code, int) else 1
        except Exception:
            return 1
    from accl.cli.output import say_fields

    completions = [line.removeprefix(kept) for line in printed.getvalue().splitlines()]
    say_fields(line for line in completions if line)
    return code


def leave_unread(command: Any) -> None:
    """Let a command keep its values as they are typed: typer imports pydantic to read them, which takes too long."""
    own = command.get_params

    def unread(context: Any) -> list[Any]:
        parameters: list[Any] = own(context)
        for parameter in parameters:
            parameter.process_value = lambda _context, value: value
        return parameters

    command.get_params = unread
    for inner in getattr(command, "commands", {}).values():
        leave_unread(inner)


def join_words() -> str:
    """Join the words that bash has broken at = and :, and return the part of the current one that bash keeps.

    Bash gives ``--set``, ``train.device``, ``=`` and ``cu`` for ``--set train.device=cu``, and replaces ``cu``.
    """
    text, current = os.environ["COMP_WORDS"], int(os.environ["COMP_CWORD"])
    joined: list[str] = []
    place, kept, glued = 0, "", False
    words = text.split("\n" if "\n" in text else " ")
    for index, word in enumerate(words + [""] * (current + 1 - len(words))):
        breaks = _BREAK.fullmatch(word) is not None
        if joined and (breaks or (glued and word)):
            before = joined[-1]
            joined[-1] += word
        else:
            before = ""
            joined.append(word)
        if index == current:
            place, kept = len(joined) - 1, before + (word if breaks else "")
            joined = joined[: place + 1]
            break
        glued = breaks
    os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = "\n".join(joined), str(place)
    return kept
