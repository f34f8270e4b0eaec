"""`accl config`: what can be configured, and what a run would get."""

from __future__ import annotations

from typing import Annotated, Any

import typer
import yaml

from accl.cli.output import Format, emit
from accl.cli.table import Column, Table
from accl.config import DEFAULT_PROFILE, Resolved, available, configs_folder, flat, resolve

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Show recipes, profiles and resolved configurations."
)

FormatOption = Annotated[Format, typer.Option("--format", "-f", help="How to print.")]


@app.command()
def show(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or the path of a recipe file.")] = "full",
    profile: Annotated[str, typer.Option("--profile", "-p", help="A profile's name or path.")] = DEFAULT_PROFILE,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one value; may be repeated.")
    ] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Print every value that a run would get, and where it comes from.

    Example:

      accl config show full --profile paper --set train.batch_size=32
    """
    resolved = resolve(recipe, profile, overrides or ())
    rows = [
        {"key": key, "value": value, "origin": resolved.origin[key]}
        for key, value in flat(resolved.config).items()
        if key in resolved.origin
    ]
    if format is Format.TABLE:  # as YAML, so that it can be copied into a file of one's own
        typer.echo(_commented_yaml(resolved), nl=False)
        return
    columns = [Column("key"), Column("value", show=_value), Column("origin")]
    emit(Table(f"{resolved.config.recipe} under {resolved.config.profile}", columns, rows), format)


@app.command(name="list")
def list_(format: FormatOption = Format.TABLE) -> None:
    """List the recipes and profiles that come with accl."""
    rows = [
        {"kind": kind[:-1], "name": name, "about": _first_comment(kind, name)}
        for kind in ("recipes", "profiles")
        for name in available(kind)
    ]
    emit(Table("Recipes and profiles", [Column("kind"), Column("name"), Column("about", wrap=True)], rows), format)


def _commented_yaml(resolved: Resolved) -> str:
    lines = [f"# recipe {resolved.config.recipe} under profile {resolved.config.profile}"]
    section = ""
    for key, value in flat(resolved.config).items():
        head, _, leaf = key.partition(".")
        if not leaf:
            continue
        if head != section:
            lines.append(f"{head}:")
            section = head
        entry = yaml.safe_dump({leaf: value}, allow_unicode=True, width=1000).strip()
        lines.append(f"  {entry:<36}  # {resolved.origin[key]}")
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """As it would be typed after --set."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _first_comment(kind: str, name: str) -> str:
    lines = (configs_folder() / kind / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return lines[0].removeprefix("# ") if lines and lines[0].startswith("#") else ""
