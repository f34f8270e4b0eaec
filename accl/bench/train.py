"""`accl bench train`: accl's training steps and whole runs, against other trainers and against the device itself."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accl.bench.comparison import Comparison
from accl.bench.protocol import Candidate, Rates
from accl.bench.report import Report, Row
from accl.bench.results import Pair, failure_row, rate_rows, report_rows, whole_rows
from accl.bench.whole import measure_whole_peer, measure_whole_run
from accl.config import resolve
from accl.errors import AcclError, ConfigError

# Cores per worker from which they get ready beside each other.
CORES_EACH = 3
# Packages that peers need.
NEEDED = {
    "eager": ["accelerate"],
    "compile": ["accelerate"],
    "sentence-transformers": ["accelerate", "datasets", "sentence_transformers"],
}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """The options of `accl bench train`, whose help describes them."""

    recipe: str
    models: list[str]
    profiles: list[str]
    overrides: list[str]
    steps: int
    warmup: int
    rounds: int
    backends: list[str]
    arms: list[str]
    peer: list[str]
    compile_warmup: int
    limit: float
    min_tokens: int
    together: bool
    apart: bool
    whole: bool
    output: str | None


@dataclass(frozen=True)
class Setting:
    """An encoder under a profile, which is measured before the next one starts.

    Attributes:
        model: value of ``model.name``; empty for the profile's own.
    """

    model: str
    profile: str

    def overrides(self, recipe: str) -> list[str]:
        """Return the overrides that choose the encoder; a revision belongs to the profile's own alone."""
        if not self.model or resolve(recipe, self.profile).config.model.name == self.model:
            return []
        return [f"model.name={self.model}", "model.revision="]


def settings(options: Options) -> list[Setting]:
    """Return every model under every profile.

    Raises:
        ConfigError: the model is given twice.
    """
    if options.models and any(word.startswith("model.name=") for word in options.overrides):
        raise ConfigError("--model and --set model.name=... both name the encoder.", "Leave one of them out.")
    return [Setting(model, profile) for profile in options.profiles for model in options.models or [""]]


def candidates(options: Options, setting: Setting) -> list[Candidate]:
    """The candidates of a setting, accl's first.

    Raises:
        ConfigError: the recipe, the profile or an override is wrong, or a peer lacks a package.
    """
    overrides = [*options.overrides, *setting.overrides(options.recipe)]

    def candidate(name: str, recipe: str, backend: str, warmup: int) -> Candidate:
        config = resolve(recipe, setting.profile, [*overrides, f"train.backend={backend}"]).config
        return Candidate(name, config, options.steps, warmup, backend, min_tokens=options.min_tokens)

    chosen = []
    for backend in options.backends:
        chosen += [
            candidate(f"accl {recipe} ({backend})", recipe, backend, options.warmup)
            for recipe in options.arms or [options.recipe]
        ]
        if options.arms:
            chosen.append(replace(chosen[-1], name=f"{chosen[-1].name}, no tracking", tracking=False))
    for peer in dict.fromkeys(options.peer):
        if missing := [package for package in NEEDED[peer] if find_spec(package) is None]:
            raise ConfigError(
                f"--peer {peer} needs the package {' and '.join(missing)}, which is not installed.",
                "Type: pip install 'accl[bench]'",
            )
        warmup = max(options.warmup, options.compile_warmup) if peer == "compile" else options.warmup
        # The reference leaves the encoder as transformers made it.
        name = f"Trainer {peer}" if peer in ("eager", "compile") else peer
        own = candidate(name, options.recipe, "reference", warmup)
        chosen.append(replace(own, backend="", peer=peer))
    return chosen


def measure(options: Options) -> Report:
    """Measure one setting after the other, with progress on stderr; what fails is a row with its reason.

    The report is written after each setting where ``options.output`` names a file, so that no setting costs another.

    Raises:
        ConfigError: the options are wrong; nothing was started.
    """
    began = time.monotonic()
    chosen = [candidates(options, setting) for setting in settings(options)]
    rows: list[Row] = []
    described: list[dict[str, Any]] = []
    rates: dict[tuple[str, str], Rates] = {}
    report = Report.create("train", asdict(options), rows)
    for its in chosen:
        config = its[0].config
        labels = {"model": config.model.name, "profile": config.profile}
        where = f"{config.model.name}, {config.profile}: " if len(chosen) > 1 else ""

        def say(words: str, where: str = where) -> None:
            print(f"[{time.monotonic() - began:6.1f} s] {where}{words}", file=sys.stderr, flush=True)  # noqa: T201

        device = (config.train.device, config.train.precision)
        measured: list[Row] = []
        if options.rounds:
            known = rates.get(device)
            measured, description, new = _compare(options, its, known, say)
            described.append({**labels, **description, "rates": new and asdict(new)})
            if new and not known:
                rates[device] = new
                rows += rate_rows(new)
        if options.whole:
            measured += _whole_runs(options, its, say)
        rows += [{**row, **labels} for row in measured]
        report = Report.create("train", {**asdict(options), "measured": described}, rows)
        if options.output:
            report.write(Path(options.output))
    return report


def failures(report: Report) -> list[str]:
    """Return what of accl itself could not be measured, with the reasons; a peer may fail."""
    return [row["what"] for row in report.rows if row.get("failed") and not row.get("peer")]


def _compare(
    options: Options, chosen: Sequence[Candidate], rates: Rates | None, say: Say
) -> tuple[list[Row], dict[str, Any], Rates | None]:
    """Time the steps of the candidates in turns.

    Args:
        rates: of the device; measured here when None.

    Returns:
        rows, the description of the first candidate that ran, and the rates, None where nothing ran.
    """
    pairs: list[Pair] = []
    failed: list[Row] = []
    with ExitStack() as stack:
        # A write to a worker that has ended must raise: the command line lets the signal end this process.
        stack.callback(signal.signal, signal.SIGPIPE, signal.signal(signal.SIGPIPE, signal.SIG_IGN))
        comparison = Comparison(options.limit, say, stack)
        for turn in [[candidate] for candidate in chosen] if options.apart else [list(chosen)]:
            for group in _groups(turn):
                comparison.add(group)
            while rates is None and comparison.running:
                rates = comparison.rates()
                if rates is not None:
                    speed = f"{rates.flops / 1e12:.3g} TFLOP/s in {rates.precision}, {rates.bytes / 1e9:.4g} GB/s"
                    say(f"{rates.device}: {speed}")
            comparison.rounds(options.rounds)
            if options.together and comparison.results[0].worker:
                try:
                    pairs = comparison.pairs(options.rounds)
                except AcclError as error:
                    failed = [failure_row(f"two of {comparison.results[0].name} at once", str(error))]
            for result in comparison.running:
                comparison.remove(result)
    description = next((result.description for result in comparison.results if result.description), {})
    return [*report_rows(comparison.results, rates, pairs), *failed], description, rates


def _whole_runs(options: Options, chosen: Sequence[Candidate], say: Say) -> list[Row]:
    """Take a whole run of each candidate of accl and of the Trainer, one after the other."""
    rows: list[Row] = []
    for candidate in chosen:
        if candidate.peer == "sentence-transformers" or not candidate.tracking:
            continue
        try:
            if candidate.peer:
                whole = measure_whole_peer(candidate, options.limit, say)
            else:
                whole = measure_whole_run(candidate.config, options.limit, say)
        except AcclError as error:
            say(f"{candidate.name}: failed: {error}")
            rows.append(failure_row(candidate.name, str(error), candidate.peer))
        else:
            say(f"{candidate.name}: {whole.seconds:.1f} s, {whole.ready:.1f} s of them until the first step")
            rows += whole_rows(candidate.name, whole)
    return rows


def _groups(chosen: Sequence[Candidate]) -> list[list[Candidate]]:
    """Candidates that get ready beside each other.

    Compiling is timed, so it has the machine to itself; on few cores workers would slow each other.
    """
    beside = [candidate for candidate in chosen if not candidate.compile]
    alone = [[candidate] for candidate in chosen if candidate.compile]
    enough = (os.cpu_count() or 1) >= CORES_EACH * len(beside)
    return [*([beside] if enough else [[candidate] for candidate in beside]), *alone]
