"""Registries of choices: a folder is a registry, and every file in it is one choice, named by the file.

The docstring of a file describes the choice: its first line is a sentence that tables show, the rest is shown where
the choice is explained. A choice that takes a number in brackets, such as ``hardest(16)``, declares it as a literal::

    PARAMETER = {"name": "k", "least": 1, "whole": True, "default": 16, "about": "negatives kept per anchor"}

with any of the bounds ``least``, ``above``, ``most`` and ``below``. Docstrings and literals are read from the source,
so that checking and explaining a value imports neither the choice nor torch; `Registry.load` imports it to be run. All
folders of the package's ``__path__`` are searched: a folder appended to it adds choices without touching accl.
"""

from __future__ import annotations

import ast
import difflib
import math
import operator
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

_BOUNDS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "least": ("of at least", operator.ge),
    "above": ("above", operator.gt),
    "most": ("of at most", operator.le),
    "below": ("below", operator.lt),
}


_WHOLE = re.compile(r"[+-]?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def parse_whole_number(text: str) -> int:
    """Read decimal digits, which do not begin with 0 but for 0 itself.

    Raises:
        ValueError: the text is anything else, or beyond 64 bits.
    """
    if not _WHOLE.fullmatch(text):
        raise ValueError("a whole number is written in digits alone")
    if len(text) > 20:
        raise ValueError("it does not fit in 64 bits")
    return int(text)


def parse_number(text: str) -> float:
    """Read a finite decimal number, such as 0.1, -2 or 1e-3.

    Raises:
        ValueError: the text is anything else, or too large or too small for a floating-point number.
    """
    if not _NUMBER.fullmatch(text):
        raise ValueError("a number is written as 0.1, -2 or 1e-3")
    number = float(text)
    if math.isinf(number) or (number == 0 and re.search("[1-9]", re.split("[eE]", text)[0])):
        raise ValueError("it does not fit in a floating-point number")
    return number


@dataclass(frozen=True)
class Parameter:
    """The number that a choice takes in brackets.

    Attributes:
        default: its value where the choice is written without brackets.
        about: its meaning and unit, in a few words. whole: whether only whole numbers are accepted.
        bounds: limits by the words ``least``, ``above``, ``most`` and ``below``.
    """

    name: str
    default: float
    about: str
    whole: bool = False
    bounds: Mapping[str, float] = field(default_factory=dict)

    @property
    def range(self) -> str:
        """The accepted numbers in words: ``a whole number of at least 1``."""
        limits = " and ".join(f"{_BOUNDS[word][0]} {limit:,.15g}" for word, limit in self.bounds.items())
        return f"a{' whole' * self.whole} number {limits}".rstrip()

    def accepts(self, number: float) -> bool:
        """Return whether a number is finite and in range."""
        if not math.isfinite(number) or (self.whole and number != math.floor(number)):
            return False
        return all(_BOUNDS[word][1](number, limit) for word, limit in self.bounds.items())


@dataclass(frozen=True)
class Choice:
    """One file of a registry: first line and rest of its docstring, number in brackets, and literals by name."""

    name: str
    summary: str
    details: str
    parameter: Parameter | None
    literals: Mapping[str, Any]

    @property
    def form(self) -> str:
        """The choice as it is written: ``confusion`` or ``hardest(k)``."""
        return f"{self.name}({self.parameter.name})" if self.parameter else self.name


@dataclass(frozen=True)
class Registry:
    """The choices of a package, whose docstring says what a file has to define.

    Attributes:
        function: the function that every file defines, with its arguments.
    """

    package: str
    function: str

    def names(self) -> list[str]:
        """Return the names of all choices, sorted."""
        return sorted(self._files())

    def choice(self, name: str) -> Choice:
        """Describe a choice.

        Raises:
            ValueError: there is none of that name, or its file cannot be parsed.
        """
        files = self._files()
        if name not in files:
            forms = ", ".join(self.choice(known).form for known in self.names())
            near = difflib.get_close_matches(name, files, n=1, cutoff=0.5)
            raise ValueError(f"should be one of {forms}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return _read(files[name], self.function)

    def parse(self, text: str) -> tuple[Choice, float]:
        """Read ``name`` or ``name(number)``.

        Returns:
            the choice, and its number: the default if none is written, NaN for a choice without one.

        Raises:
            ValueError: the name is unknown, the number is out of range, or the choice takes none.
        """
        match = re.fullmatch(r"(\w+)(?:\(([^()]*)\))?", text.strip(), re.ASCII)
        name, number = match.groups() if match else (text, None)
        choice = self.choice(name)
        parameter = choice.parameter
        if parameter is None:
            if number is not None:
                raise ValueError(f"{choice.name} takes no number")
            return choice, math.nan
        if number is None:
            return choice, float(parameter.default)
        try:
            value = parse_number(number.strip())
        except ValueError:
            value = math.nan
        if not parameter.accepts(value):
            raise ValueError(f"{choice.form} takes {parameter.range}, not {number[:40]!r}")
        return choice, value

    def load(self, text: str) -> tuple[ModuleType, float]:
        """Import the choice that ``text`` names; number and errors are those of `parse`."""
        choice, number = self.parse(text)
        return import_module(f"{self.package}.{choice.name}"), number

    def _files(self) -> dict[str, Path]:
        return _scan(tuple(import_module(self.package).__path__))


@cache
def _scan(folders: tuple[str, ...]) -> dict[str, Path]:
    return {path.stem: path for folder in reversed(folders) for path in Path(folder).glob("[!_]*.py")}


@cache
def _read(path: Path, function: str) -> Choice:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise ValueError(f"cannot be read: {path}, line {error.lineno}: {error.msg}") from error
    except (OSError, ValueError, RecursionError, MemoryError) as error:  # a folder, no UTF-8, a NUL, deep nesting
        raise ValueError(f"cannot be read: {path}: {error or 'it is nested too deeply'}") from error
    _check_function(tree, path, function)
    summary, _, details = (ast.get_docstring(tree) or "").partition("\n")
    literals: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            with suppress(ValueError):  # not a literal
                literals[node.targets[0].id] = ast.literal_eval(node.value)
    return Choice(path.stem, summary, details.strip(), _parameter(literals.get("PARAMETER"), path), literals)


def _check_function(tree: ast.Module, path: Path, function: str) -> None:
    """Refuse a file that does not define its function, which would only be found out in the middle of a run.

    Raises:
        ValueError: the function is not there, or takes another number of arguments.
    """
    name, _, arguments = function.rstrip(")").partition("(")
    defined = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    if name not in defined:
        near = difflib.get_close_matches(name, defined, n=1, cutoff=0.5)
        raise ValueError(f"cannot be used: {path} does not define {function}" + (f", but {near[0]}" if near else ""))
    taken = defined[name].args
    positional, expected = len(taken.posonlyargs) + len(taken.args), len(arguments.split(","))
    if not positional - len(taken.defaults) <= expected <= (math.inf if taken.vararg else positional):
        raise ValueError(f"cannot be used: {path}, line {defined[name].lineno}: the function should be {function}")


def _parameter(declared: Any, path: Path) -> Parameter | None:
    """Make the parameter of a choice from its literal; None for a choice without one.

    Raises:
        ValueError: the literal is no declaration of a parameter.
    """
    if declared is None:
        return None
    try:
        bounds = {word: declared[word] for word in _BOUNDS if word in declared}
        parameter = Parameter(**{key: declared[key] for key in declared if key not in _BOUNDS}, bounds=bounds)
        usable = parameter.accepts(parameter.default)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"cannot be used: {path}: PARAMETER is not as accl.choices describes it: {error}") from error
    if not usable:
        raise ValueError(f"cannot be used: {path}: the default of PARAMETER is out of its range")
    return parameter


POLICIES = Registry("accl.method.policies", "compute_weights(stats, params)")
NEGATIVES = Registry("accl.method.negatives", "select(pairs, parameter)")
LOSSES = Registry("accl.method.losses", "compute_losses(pairs, log_negatives_B, parameter)")
METRICS = Registry("accl.method.metrics", "compute(answers)")
SOURCES = Registry("accl.data.sources", "load(path, revision)")
