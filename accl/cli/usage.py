"""Command lines that cannot be read, as errors like all others: what is wrong in one line, and what to type instead."""

from __future__ import annotations

import re
import sys
from typing import Any

import typer

from accl.errors import AcclError

EXIT_CODE = 2  # as everywhere, for a command line that cannot be read
# Typer carries a click of its own, whose other exceptions are not public.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def usage_error(error: Any) -> AcclError:
    """Make the error for a `UsageError`."""
    command = error.ctx.command_path if error.ctx else _typed_command()
    what, hint = _told(error, command)
    made = AcclError(what, f"{hint}How it is typed: {command} --help")
    made.exit_code = EXIT_CODE
    return made


def _told(error: Any, command: str) -> tuple[str, str]:
    """Return what is wrong, and a hint or nothing."""
    kind, parameter = type(error).__name__, getattr(error, "param", None)
    message = error.message.removeprefix("Value error, ").partition(", unable to parse")[0].rstrip(".")
    if kind == "NoSuchOption":
        near = ", ".join(sorted(error.possibilities or ()))
        return f"{command} has no option {error.option_name}.", f"Did you mean: {near}? " if near else ""
    if kind == "MissingParameter" and parameter is not None:
        example = _example(error.ctx.command)
        return (
            f"{command} needs {_missing(error.ctx.command, parameter)}",
            f"For example: {example}   " if example else "",
        )
    if parameter is not None:
        name = _name(parameter)
        refused = message.removeprefix("Input ")
        return (f"{name} {refused}." if refused != message else f"{name}: {message}."), ""
    if extra := re.fullmatch(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", message, re.DOTALL):
        override = next((word for word in extra[1].split() if re.match(r"\w+\.\w+=", word)), "")
        return f"{command} does not take: {extra[1]}", f"Did you mean: --set {override}? " if override else ""
    if inner := getattr(error.ctx and error.ctx.command, "commands", None):
        what, _, near = message.partition(" Did you mean ")
        hint = f"Did you mean {near} " if near else ""
        return f"{command}: {what.rstrip('.')}.", f"{hint}It has: {', '.join(inner)}. "
    return f"{message}.", ""


def _typed_command() -> str:
    """Return the command that was typed, for an error that does not know it."""
    return " ".join(["accl", *[word for word in sys.argv[1:2] if word.isalpha()]])


def _name(parameter: Any) -> str:
    """Return what is typed for an option, or shown for an argument."""
    if parameter.param_type_name == "option":
        return str(max(parameter.opts, key=len))
    return str(parameter.metavar or parameter.name.upper())


def _missing(command: Any, parameter: Any) -> str:
    """Return what is missing: of arguments all that are needed, since it is not known which of them was typed."""
    if parameter.param_type_name == "option":
        return f"{_name(parameter)}."
    needed = [_name(each) for each in command.params if each.param_type_name == "argument" and each.required]
    words = " and ".join(needed)
    return words if words.endswith(".") else f"{words}."


def _example(command: Any) -> str:
    _, _, below = (command.help or "").partition("\nExample")
    return next((line for line in below.splitlines() if line.startswith("accl ")), "")
