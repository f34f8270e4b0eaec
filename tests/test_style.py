"""What CONTRIBUTING.md says of imports and docstrings, held for every module of accl and tui."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TREES = {
    path: ast.parse(path.read_text(encoding="utf-8"))
    for package in ("accl", "tui")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): tree for path, tree in TREES.items()}
FOLDERS = {module_name(path) for path in TREES if path.name == "__init__.py"}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Everything below a node that runs, also within functions."""
    for child in ast.iter_child_nodes(node):
        if not is_type_checking(child):
            yield child
            yield from statements(child)


def imported(name: str, tree: ast.AST) -> set[str]:
    """The modules of this tree that a module names in its imports."""
    found: set[str] = set()
    package = name.split(".") if name in FOLDERS else name.split(".")[:-1]
    for node in statements(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            # `from folder import x` means folder/x.py where there is one, and folder/__init__.py otherwise.
            found |= {f"{source}.{a.name}" if f"{source}.{a.name}" in MODULES else source for a in node.names}
    return found & MODULES.keys()


def circle(edges: dict[str, set[str]]) -> list[str]:
    """The modules of one circle, its first again at its end; empty where there is none."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        done.add(name)
        return next(filter(None, (visit(other, [*path, name]) for other in sorted(edges[name]))), [])

    return next(filter(None, (visit(name, []) for name in sorted(edges))), [])


def test_no_module_imports_itself_through_others() -> None:
    assert circle({name: imported(name, tree) for name, tree in MODULES.items()}) == []


def test_a_circle_would_be_found() -> None:
    assert circle({"a": {"b", "d"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    body = "import tui.app\ndef f():\n    from accl.store import reader\nif TYPE_CHECKING:\n    import accl.errors"
    assert imported("accl.choices", ast.parse(body)) == {"tui.app", "accl.store.reader"}


# --- docstrings

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
FRAGMENTS = ("Of ", "What ", "It ", "They ", "Nobody ", "Another one", "Same")


def public(node: ast.Module | ast.ClassDef, name: str) -> Iterator[tuple[str, str]]:
    """The names and docstrings of a module or a class and of all public classes and functions in it."""
    documented: list[tuple[str, Documented]] = [(name, node)]
    for child in node.body:
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from public(child, f"{name}.{child.name}")
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) and not child.name.startswith("_"):
            documented.append((f"{name}.{child.name}", child))
    for place, each in documented:
        text = ast.get_docstring(each)
        if text is not None:
            yield place, text


def fault(docstring: str) -> str | None:
    """What is wrong with how a docstring begins, or None."""
    summary = re.sub(r"\s+", " ", re.split(r"\n\s*\n", docstring)[0])
    if not re.match(r"[A-Z`]", summary):
        return "begins neither with a capital letter nor with code"
    if summary.startswith(FRAGMENTS):
        return "begins with a fragment or a pronoun"
    return None if re.search(r"\.(?=\s|$)", summary) else "has no full stop after its first sentence"


def test_public_docstrings_begin_with_a_sentence() -> None:
    docstrings = [found for name, tree in MODULES.items() for found in public(tree, name)]
    assert len(docstrings) > 500
    assert {place: wrong for place, text in docstrings if (wrong := fault(text))} == {}


@pytest.mark.parametrize(
    "docstring",
    ["of two.", "Of two runs.", "Return it", "Return it:\n\nDone.", "It is one.", "Same as above.", "3 runs."],
)
def test_a_fragment_would_be_found(docstring: str) -> None:
    assert fault(docstring)


@pytest.mark.parametrize("docstring", ["Return it.", "`x` times 1.5 in full.", "Offer both.\n\nOf two: none"])
def test_a_sentence_is_no_fragment(docstring: str) -> None:
    assert fault(docstring) is None
