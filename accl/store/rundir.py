"""The run directory: the one contract between processes.

::

    runs/20261122-101500-full-s42-7f3a/
      config.yaml       the resolved configuration; never changes
      provenance.json   command, commit, versions, device, data fingerprint, model revision
      state.json        what the run is doing; replaced atomically (see `accl.store.state`)
      labels.json       tags and a note, edited by people
      run.duckdb        all measurements (see `accl.store.schema`)
      console.log       stdout and stderr of the training process
      checkpoints/      step-00001200/{model,optimizer}.safetensors + state.json
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from accl.errors import ConfigError, RunError
from accl.files import replace_file

# The top-level entries of a configuration that hold a `Setup`, each with its indented lines.
_SETUP = re.compile(r"^(?:recipe|profile|train):.*(?:\n(?![^\s#]).*)*", re.MULTILINE)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step: a reader sees the old text or the new, never a part of either."""
    replace_file(path, text.encode())


@dataclass(frozen=True)
class Setup:
    """The part of a configuration that a table of runs shows."""

    recipe: str
    profile: str
    seed: int


class _File:
    """Path of a file in a run directory, as an attribute of `RunDir`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, run: RunDir, _owner: type[RunDir]) -> Path:
        return run.path / self.name


@dataclass(frozen=True)
class RunDir:
    """Paths of the files of one run, and the few reads and writes that need nothing but a path."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    config = _File("config.yaml")
    provenance = _File("provenance.json")
    state = _File("state.json")
    labels = _File("labels.json")
    database = _File("run.duckdb")
    console = _File("console.log")
    checkpoints = _File("checkpoints")

    def setup(self) -> Setup:
        """Read recipe, profile and seed from ``config.yaml`` without validating the rest of it.

        A table of runs needs this of every run, so only the entries that hold them are parsed: a tenth of the work
        of `accl.config.load`.

        Raises:
            ConfigError: the file cannot be read, or does not name all three.
        """
        import yaml  # here: most users of run directories never read a configuration

        try:
            text = self.config.read_text(encoding="utf-8")
            entries = "\n".join(_SETUP.findall(text))
            # Values stay text: a recipe called 1e3 is not a number.
            parsed = yaml.load(entries, getattr(yaml, "CBaseLoader", yaml.BaseLoader))
            return Setup(parsed["recipe"], parsed["profile"], int(parsed["train"]["seed"]))
        except OSError as error:
            raise ConfigError(f"{self.config} cannot be read ({error.strerror}).") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{self.config} is not valid YAML: {' '.join(str(error).split())}.") from error
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{self.config} does not say recipe, profile and train.seed.") from error

    def read_json(self, path: Path) -> dict[str, Any]:
        """Read a JSON file of this run; empty when the file does not exist (yet).

        Raises:
            RunError: the file exists and holds no JSON object.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RunError(
                f"{path} is not valid JSON: {error}.", "Restore it from a backup or delete the run."
            ) from error
        if not isinstance(content, dict):
            raise RunError(f"{path} holds no JSON object.", "Restore it from a backup or delete the run.")
        return content

    def write_json(self, path: Path, content: Mapping[str, Any]) -> None:
        """Replace a JSON file of this run atomically."""
        write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def create_run(root: Path, recipe: str, seed: int, now: datetime | None = None) -> RunDir:
    """Make an empty run directory with a fresh id under ``root``.

    Raises:
        RunError: the runs folder cannot be made or written.
    """
    stamp = (now or datetime.now()).strftime("%Y%m%d-%H%M%S")
    run = RunDir(root / f"{stamp}-{recipe}-s{seed}-{secrets.token_hex(2)}")
    try:
        root.mkdir(parents=True, exist_ok=True)
        run.path.mkdir()
    except OSError as error:
        hint = "Choose another with --runs DIR or the environment variable ACCL_RUNS."
        raise RunError(f"The runs folder {root} cannot be written ({error.strerror}).", hint) from error
    return run


def list_runs(root: Path) -> list[RunDir]:
    """Return the runs under ``root``, oldest first. A folder is a run when it has a configuration."""
    if not root.is_dir():
        return []
    return [RunDir(path) for path in sorted(root.iterdir()) if (path / "config.yaml").is_file()]


def find_run(root: Path, name: str) -> RunDir:
    """Return the one run that ``name`` means: a path, an id, or an unambiguous part of an id; ``last`` is the newest.

    A whole id comes before parts, and a part between hyphens before any other: ``full-s1`` is not ``full-s12``.

    Raises:
        RunError: none or several match.
    """
    direct = Path(name)
    if (direct / "config.yaml").is_file():
        return RunDir(direct.resolve())
    runs = list_runs(root)
    if name == "last" and runs:
        return runs[-1]
    exact = [run for run in runs if run.id == name]
    segments = [run for run in runs if f"-{name}-" in f"-{run.id}-"]
    matches = exact or segments or [run for run in runs if name in run.id]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise RunError(f"No run named {name!r} in {root}.", "List the runs there are with: accl runs")
    shown = ", ".join(run.id for run in matches[-3:])
    raise RunError(f"{len(matches)} runs match {name!r}: {shown}.", "Type more of the id, or `last` for the newest.")
