"""The run directory: the one contract between processes.

::

    runs/20261122-101500-full-s42-7f3a/
      config.yaml       the resolved configuration; never changes
      provenance.json   command, commit, versions, device, data fingerprint, model revision
      state.json        what the run is doing; replaced atomically (see `accl.store.state`)
      run.lock          locked as long as a trainer lives (see `accl.store.lock`)
      run.stop          a person asked the trainer to stop; usually absent (see `accl.store.stop`)
      labels.json       name, tags and a note, edited by people (see `accl.store.labels`)
      experiment.json   the experiment that it belongs to, if any (see `accl.store.experiment`)
      queue.json        its place in the queue, while it waits (see `accl.store.waiting`)
      run.duckdb        all measurements (see `accl.store.schema`)
      console.log       stdout and stderr of the training process
      checkpoints/      step-00001200/{model,optimizer}.safetensors + state.json
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accl.choices import parse_whole_number
from accl.errors import AbsentError, BusyError, ConfigError, DamagedError, RunError
from accl.files import replace_file
from accl.store import files
from accl.store.deadline import DEADLINE_S, each_within, within
from accl.store.files import RESTORE
from accl.text import printable

if TYPE_CHECKING:
    from accl.config import Config

# A made id: UTC time, recipe, seed, four random digits.
_ID = re.compile(r"\d{8}-\d{6}-.+-s\d+-[0-9a-f]{4}", re.DOTALL)
_OTHER_FOLDER = "Choose another with --runs DIR or the environment variable ACCL_RUNS."
LAST = "last"  # what is typed for the newest run
JSON_DEPTH = 32  # levels of nesting
SETUP_LIMIT = 8192  # characters; accl writes a few hundred

# The top-level entries of a configuration that hold a `Setup`, each with its indented lines.
_SETUP = re.compile(r"^(?:recipe|profile|train):.*(?:\n(?![^\s#]).*)*", re.MULTILINE)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step: a reader sees the old text or the new, never a part of either."""
    replace_file(path, text.encode())


@dataclass(frozen=True)
class Setup:
    """The part of a configuration that a table of runs and its curves show; ``batch_size`` is 0 if unknown."""

    recipe: str
    profile: str
    seed: int
    batch_size: int = 0


class _File:
    """Path of a file in a run directory, as an attribute of `RunDir` that is made once, for those who look often."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __set_name__(self, _owner: type[RunDir], attribute: str) -> None:
        self.attribute = attribute

    def __get__(self, run: RunDir, _owner: type[RunDir]) -> Path:
        path: Path = vars(run).setdefault(self.attribute, run.path / self.name)  # found there from now on
        return path


@dataclass(frozen=True)
class RunDir:
    """Paths of the files of one run, and the few reads and writes that need nothing but a path."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def typed(self) -> str:
        """The id as an argument of a command: a folder from elsewhere may have any name, and hints are pasted."""
        return shlex.quote(self.id)

    config = _File("config.yaml")
    provenance = _File("provenance.json")
    state = _File("state.json")
    lock = _File("run.lock")
    stop = _File("run.stop")
    labels = _File("labels.json")
    experiment = _File("experiment.json")
    queue = _File("queue.json")
    database = _File("run.duckdb")
    console = _File("console.log")
    checkpoints = _File("checkpoints")

    @property
    def created(self) -> float:
        """Time at which the run was made, in seconds since the epoch; NaN when nothing tells it.

        It is what the provenance says, which neither another time zone nor a copy under another name changes; else the
        time in the id; else that of the configuration's file.
        """
        with suppress(RunError, KeyError, TypeError, ValueError, OverflowError):
            return _utc(datetime.fromisoformat(self.read_json(self.provenance)["created"]))
        with suppress(ValueError, OverflowError):
            return _utc(datetime.strptime(self.id[:15], "%Y%m%d-%H%M%S"))
        with suppress(OSError):
            return os.lstat(self.config).st_mtime
        return math.nan

    @property
    def age_key(self) -> tuple[float, bool, str]:
        """Key that sorts runs from the oldest to the newest; of copies made together the original is the newest."""
        return (-math.inf if math.isnan(created := self.created) else created, is_id(self.id), self.id)

    def made_as(self) -> str:
        """Return the id that the run was made under, which a copy or a new name keeps; empty when it is not known.

        Raises:
            DamagedError, RunError: the provenance cannot be read.
        """
        return str(self.read_json(self.provenance).get("run", ""))

    def config_text(self) -> str:
        """Read ``config.yaml`` as it is.

        Raises:
            AbsentError: there is no configuration.
            DamagedError: it cannot be read.
        """
        try:
            return files.read_text(self.config)
        except FileNotFoundError as error:
            raise AbsentError(f"{self.config} is missing.", RESTORE) from error

    def setup(self, whole: str | None = None) -> Setup:
        """Read recipe, profile and seed from ``config.yaml`` without validating the rest of it.

        A table of runs needs this of every run, so only the entries that hold them are parsed: a tenth of the work
        of `accl.config.load`.

        Args:
            whole: text of the file; read when None.

        Raises:
            AbsentError: there is no configuration.
            DamagedError: it cannot be read, or does not name all three.
        """
        from accl.yamlfile import parse_yaml  # here: most users of run directories never read a configuration

        whole = self.config_text() if whole is None else whole
        entries = list(_SETUP.finditer(whole))
        if len(entries) > 3 or sum(len(entry[0]) for entry in entries) > SETUP_LIMIT:
            what = f"{self.config} has a second recipe, profile or train, or too much of them."
            raise DamagedError(what, RESTORE)
        try:
            text = ""
            for entry in entries:  # each in its line of the file
                text += "\n" * (whole.count("\n", 0, entry.start()) - text.count("\n")) + entry[0]
            written = parse_yaml(text, self.config)
            recipe, profile = written["recipe"].text, written["profile"].text
            seed = parse_whole_number(written["train.seed"].text)
            size = written.get("train.batch_size")
            batch_size = parse_whole_number(size.text) if size else 0
        except ConfigError as error:
            raise DamagedError(error.what, RESTORE) from error
        except (KeyError, ValueError) as error:
            raise DamagedError(f"{self.config} does not say recipe, profile and train.seed.", RESTORE) from error
        if not 0 <= seed < 2**64:
            raise DamagedError(f"{self.config} has the seed {seed}.", RESTORE)
        if not 0 <= batch_size < 2**31:
            raise DamagedError(f"{self.config} has the batch size {batch_size}.", RESTORE)
        return Setup(recipe, profile, seed, batch_size)

    def load_config(self) -> Config:
        """Read the whole configuration.

        Raises:
            AbsentError: there is none.
            DamagedError: it cannot be read or does not validate.
        """
        from accl.config import load  # here, as above

        self.setup()  # which opens the file with precaution
        try:
            return load(self.config)
        except ConfigError as error:
            raise DamagedError(error.what, RESTORE) from error

    def read_json(self, path: Path) -> dict[str, Any]:
        """Read a JSON file of this run; empty when the file does not exist (yet).

        Raises:
            DamagedError: it holds no JSON object, names a key twice, is nested deeper than `JSON_DEPTH`, or holds text
                that cannot be written.
        """
        try:
            text = files.read_text(path)
            content = json.loads(text, object_pairs_hook=_object)
            if "\\u" in text or text.count("{") + text.count("[") > JSON_DEPTH:  # else nothing can be wrong
                _check(content, JSON_DEPTH)
        except FileNotFoundError:
            return {}
        except RecursionError as error:
            raise DamagedError(f"{path} is nested too deeply.", RESTORE) from error
        except ValueError as error:  # no JSON, a number of thousands of digits, or as below
            raise DamagedError(f"{path} is not valid JSON: {error}.", RESTORE) from error
        if not isinstance(content, dict):
            raise DamagedError(f"{path} holds no JSON object.", RESTORE)
        return content

    def write_json(self, path: Path, content: Mapping[str, Any]) -> None:
        """Replace a JSON file of this run atomically."""
        write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _utc(time: datetime) -> float:
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key comes twice")
    return content


def _check(value: Any, depth: int) -> None:
    if isinstance(value, (dict, list)):
        if not depth:
            raise ValueError("it is nested too deeply")
        for item in [*value, *value.values()] if isinstance(value, dict) else value:
            _check(item, depth - 1)
    elif isinstance(value, str):
        value.encode()  # a UnicodeEncodeError, which is a ValueError, where half of a surrogate pair stands alone


def create_run(root: Path, recipe: str, seed: int, now: datetime | None = None) -> RunDir:
    """Make an empty run directory with a fresh id under ``root``.

    Args:
        now: time for the id, which has it in UTC; the current time when None.

    Raises:
        RunError: the runs folder cannot be made or written, or no database can be in it.
    """
    if "?" in os.path.realpath(root):
        what = f"The runs folder {root} has a ? in its path, which DuckDB takes for the start of options."
        raise RunError(what, _OTHER_FOLDER)
    stamp = (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y%m%d-%H%M%S")
    run = RunDir(root / f"{stamp}-{recipe}-s{seed}-{secrets.token_hex(2)}")
    try:
        root.mkdir(parents=True, exist_ok=True)
        run.path.mkdir()
    except OSError as error:
        raise RunError(f"The runs folder {root} cannot be written ({error.strerror}).", _OTHER_FOLDER) from error
    return run


def is_id(name: str) -> bool:
    """Return whether a name has the form of the ids that `create_run` makes."""
    return _ID.fullmatch(name) is not None


def is_run(run: RunDir) -> bool:
    """Return whether a path is a run, whole or broken.

    It is one when it has a ``config.yaml`` of any kind, and when its name is an id; but a folder with an id and neither
    configuration nor console log is only being made.
    """
    try:
        os.lstat(run.config)
        return True
    except FileNotFoundError:
        return is_id(run.id) and (os.path.islink(run.path) or os.path.lexists(run.console))
    except (OSError, ValueError):  # no folder, no permission, a loop, a disk that fails; a NUL in the name
        return is_id(run.id)


def run_folders(root: Path) -> list[RunDir]:
    """Return the runs under ``root`` by name, broken ones and those that do not answer in time among them.

    Raises:
        RunError: the folder cannot be read.
        BusyError: it does not answer in time.
    """
    try:
        names = within(DEADLINE_S, lambda: sorted(os.listdir(root)))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"The runs folder {root} cannot be read ({error.strerror}).", _OTHER_FOLDER) from error
    runs = [RunDir(root / name) for name in names]
    answers = each_within(DEADLINE_S, is_run, runs)
    return [run for run, found in answers if found is True or isinstance(found, BusyError)]


def list_runs(root: Path) -> list[RunDir]:
    """Return the runs under ``root``, broken ones among them, from the oldest to the newest (`RunDir.age_key`).

    Raises:
        RunError, BusyError: as `run_folders`.
    """
    keys = dict(each_within(DEADLINE_S, lambda run: run.age_key, run_folders(root)))
    return sorted(keys, key=lambda run: key if isinstance(key := keys[run], tuple) else (-math.inf, False, run.id))


def find_run(root: Path, name: str) -> RunDir:
    """Return the one run that ``name`` means: a path, an id, a name that people gave, or an unambiguous part of an id.

    ``last`` is the newest. A whole id comes first, then a whole name, then a part between hyphens, then any other part:
    ``full-s1`` is not ``full-s12``.

    Raises:
        RunError: the name is blank, or none or several match.
        BusyError: the folder does not answer in time.
    """
    if not name.strip():
        raise RunError("The name of a run is empty.", "List the runs there are with: accl runs")
    if within(DEADLINE_S, lambda: is_run(RunDir(Path(name)))):
        return RunDir(Path(os.path.realpath(name)))
    runs = list_runs(root)
    matches = matching_runs(runs, name)
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise RunError(f"No run named {name!r} in {root}.", _what_was_meant(runs, name))
    shown = ", ".join(run.id for run in matches[-3:])
    raise RunError(f"{len(matches)} runs match {name!r}: {shown}.", "Type more of the id, or `last` for the newest.")


def _what_was_meant(runs: Sequence[RunDir], name: str) -> str:
    """Return the hint for a name that no run has: the experiment that has it, or begins with it, if there is one."""
    experiments = Counter(found for _, found in each_within(DEADLINE_S, experiment_of, runs) if isinstance(found, str))
    members = experiments.get(name, 0)
    if members:
        of = "1 run" if members == 1 else f"{members:,} runs"
        return f"It is an experiment of {of}; name one of those that are listed by: accl runs {typed_query(name)}"
    if begun := [each for each in experiments if each.startswith(name)]:
        near = shlex.quote(printable(begun[0][:60]))
        return f"Did you mean the experiment {near}? List the runs there are with: accl runs"
    return "List the runs there are with: accl runs"


def typed_query(name: str) -> str:
    """Write the query for the runs of an experiment as an argument of a command."""
    plain = name.replace("-", "").replace("_", "").replace(".", "").isalnum()
    quoted = name.replace('"', '""')
    return shlex.quote(f"experiment={name}" if plain else f'experiment="{quoted}"')


def matching_runs(runs: Sequence[RunDir], name: str) -> list[RunDir]:
    """Return those of several runs, from the oldest to the newest, that ``name`` means in the first way that fits any.

    The ways are those of `find_run`, but for paths.
    """
    if name == LAST:
        return list(runs[-1:])
    if exact := [run for run in runs if run.id == name]:
        return exact
    if named := [run for run, given in each_within(DEADLINE_S, given_name, runs) if given == name]:
        return named
    segments = [run for run in runs if f"-{name}-" in f"-{run.id}-"]
    return segments or [run for run in runs if name in run.id]


def given_name(run: RunDir) -> str:
    """Return the name that people gave a run; empty when there is none or it cannot be read."""
    return _name_in(run, run.labels)


def experiment_of(run: RunDir) -> str:
    """Return the experiment of a run as its file has it; empty when there is none or it cannot be read."""
    return _name_in(run, run.experiment)


def _name_in(run: RunDir, path: Path) -> str:
    with suppress(RunError, OSError):
        name = run.read_json(path).get("name")
        return name if isinstance(name, str) else ""
    return ""
