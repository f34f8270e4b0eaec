"""Values that can be chosen for a key, read from the source of the schema, whose import takes longer than they may.

A shell that completes a word waits for them; `accl.config.values` has them, and all else, for those who can wait.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from accl import choices


@cache
def choosable() -> dict[str, tuple[str, ...]]:
    """Return the values of every key that takes one of a few, by dotted key."""
    tree = ast.parse(Path(__file__).with_name("schema.py").read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    named = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    found: dict[str, tuple[str, ...]] = {}
    for section, kind in _fields(classes["Config"]):
        if isinstance(kind, ast.Name) and kind.id in classes:
            for key, annotation in _fields(classes[kind.id]):
                known = named.get(annotation.id, annotation) if isinstance(annotation, ast.Name) else annotation
                if values := _values(known):
                    found[f"{section}.{key}"] = values
    return found


def _fields(node: ast.ClassDef) -> list[tuple[str, ast.expr]]:
    lines = [line for line in node.body if isinstance(line, ast.AnnAssign)]
    return [(line.target.id, line.annotation) for line in lines if isinstance(line.target, ast.Name)]


def _values(annotation: ast.expr) -> tuple[str, ...]:
    """Return the values of ``Literal[...]``, ``Annotated[str, REGISTRY, ...]`` and ``bool``; none of other types."""
    if isinstance(annotation, ast.Name):
        return ("true", "false") if annotation.id == "bool" else ()
    if not (isinstance(annotation, ast.Subscript) and isinstance(annotation.value, ast.Name)):
        return ()
    inner = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
    if annotation.value.id == "Literal":
        return tuple(str(each.value) for each in inner if isinstance(each, ast.Constant))
    registries = [getattr(choices, each.id, None) for each in inner if isinstance(each, ast.Name)]
    return tuple(name for each in registries if isinstance(each, choices.Registry) for name in each.names())
