"""``python -m accl.bench.train``: accl's training step against transformers' Trainer, and against the device itself."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accl.bench.process import RATES, WINDOW, Contestant, Entry, Ready, Window
from accl.bench.report import Report, Row, measured
from accl.bench.results import PEER, Result, print_table, report_rows
from accl.config import DEFAULT_PROFILE, Config, available, resolve
from accl.errors import AcclError, ConfigError

if TYPE_CHECKING:
    from accl.bench.floor import Rates

PEERS = ("eager", "compile")
# Cores per contestant from which they get ready beside each other.
CORES_EACH = 3


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    it = argparse.ArgumentParser(
        prog="accl bench train",
        description="Time accl's training step, in turns with transformers' Trainer on the same questions.",
    )
    add = it.add_argument
    add("recipe", nargs="?", default="baseline", help="what accl trains (default: baseline, which the peers train too)")
    add("--profile", "-p", default=DEFAULT_PROFILE, help=f"{', '.join(available('profiles'))}, or a YAML file")
    add("--set", "-s", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="override any value")
    add("--steps", type=_positive, default=200, help="steps of a timed window")
    add("--warmup", type=_positive, default=30, help="untimed steps before the first window")
    add("--rounds", type=_positive, default=3, help="timed windows of each contestant")
    add(
        "--paths", type=_names, default=["auto"], metavar="A,B", help="values of train.backend for accl (default: auto)"
    )
    add("--arms", type=_names, default=[], metavar="A,B", help="recipes to time in turns, and what tracking costs")
    add("--peer", action="append", choices=PEERS, default=[], help="Trainer as it is, or with torch_compile=True")
    add(
        "--compile-warmup",
        type=_positive,
        default=1,
        metavar="STEPS",
        help="untimed steps of a compiled peer, at least",
    )
    add("--limit", type=float, default=300, metavar="SECONDS", help="for building and warming up, and for a window")
    add("--min-tokens", type=int, default=0, metavar="N", help="leave shorter training questions out")
    either = it.add_mutually_exclusive_group()
    either.add_argument("--together", action="store_true", help="time two processes of accl at once as well")
    either.add_argument(
        "--apart", action="store_true", help="one contestant after the other: no turns, but memory for one at a time"
    )
    add("--output", "-o", type=Path, metavar="FILE.json", help="write the report as JSON too")
    return it


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def entries(asked: argparse.Namespace) -> list[Entry]:
    """The contestants, accl's first.

    Raises:
        ConfigError: of the recipe, the profile or an override; or the peers' Trainer lacks a package.
    """
    recipes = asked.arms or [asked.recipe]
    found = []
    for path in asked.paths:
        for name in recipes:
            config = _config(asked, name, path)
            found.append(
                Entry(f"accl {name} ({path})", config, asked.steps, asked.warmup, path, min_tokens=asked.min_tokens)
            )
        if asked.arms:
            found.append(replace(found[-1], name=f"{found[-1].name}, no tracking", tracking=False))
    if asked.peer and find_spec("accelerate") is None:
        raise ConfigError(
            "transformers' Trainer needs the package accelerate, which is not installed.",
            "Type: pip install 'accl[bench]'",
        )
    for peer in dict.fromkeys(asked.peer):
        compiled = peer == "compile"
        warmup = max(asked.warmup, asked.compile_warmup) if compiled else asked.warmup
        # The reference backend is the one that leaves the encoder as transformers made it.
        config = _config(asked, asked.recipe, "reference")
        long = asked.min_tokens
        found.append(Entry(f"{PEER} {peer}", config, asked.steps, warmup, compile=compiled, min_tokens=long))
    return found


def _config(asked: argparse.Namespace, recipe: str, path: str) -> Config:
    return resolve(recipe, asked.profile, [*asked.overrides, f"train.backend={path}"]).config


@dataclass
class Race:
    """Contestants that take turns; one that fails drops out with its reason."""

    limit: float
    say: Callable[[str], None]
    stack: ExitStack
    results: list[Result] = field(default_factory=list)
    running: dict[str, Contestant] = field(default_factory=dict)

    def enter(self, entries: Sequence[Entry]) -> None:
        """Start contestants beside each other, and wait until all are ready or have failed.

        Raises:
            AcclError: one of accl's own failed.
        """
        for entry in entries:
            self.results.append(Result(entry))
            self.running[entry.name] = self.start(entry)
        for result in self.results[-len(entries) :]:
            ready = self._try(result, lambda contestant: contestant.ready(self.limit))
            if isinstance(ready, Ready):
                result.ready = ready
                self.say(f"{result.entry.name}: ready, {ready.warmup_steps} steps in {ready.warmup_seconds:.1f} s")

    def leave(self, entry: Entry) -> None:
        """End a contestant's process, if it still runs: its windows stay."""
        contestant = self.running.pop(entry.name, None)
        if contestant is not None:
            contestant.close()

    def start(self, entry: Entry) -> Contestant:
        """A contestant's process, which ends with the race."""
        contestant = Contestant(entry, lambda phase: self.say(f"{entry.name}: {phase}"))
        self.stack.callback(contestant.close)
        return contestant

    def rates(self) -> Rates:
        """What the device does at best, measured while all wait."""
        first = next(iter(self.running.values()))
        first.ask(RATES)
        rates: Rates = first.answer(self.limit)
        return rates

    def rounds(self, number: int) -> None:
        """So many windows of each contestant that is there, in turns."""
        for done in range(number):
            self.say(f"round {done + 1} of {number}")
            for result in self.results:
                window = self._try(result, lambda contestant: contestant.window(self.limit))
                if isinstance(window, Window):
                    result.windows.append(window)
                    self.say(f"{result.entry.name}: {1000 * window.seconds / window.steps:.2f} ms/step")

    def together(self, rounds: int) -> list[tuple[Window, Window]]:
        """Windows of accl's first contestant and of a second process like it, begun at the same time."""
        result = self.results[0]
        twin = self.start(result.entry)
        twin.ready(self.limit)
        pairs = []
        for _ in range(rounds):
            both = (self.running[result.entry.name], twin)
            for contestant in both:
                contestant.ask(WINDOW)
            first, second = (contestant.answer(self.limit) for contestant in both)
            pairs.append((first, second))
            self.say(f"together: {', '.join(f'{1000 * w.seconds / w.steps:.2f}' for w in pairs[-1])} ms/step")
        return pairs

    def _try(self, result: Result, act: Callable[[Contestant], Any]) -> Any:
        contestant = self.running.get(result.entry.name)
        if contestant is None:
            return None
        try:
            return act(contestant)
        except AcclError as error:
            if result.entry.path:
                raise
            result.failed = str(error)
            self.say(f"{result.entry.name}: failed: {error}")
            self.leave(result.entry)
            return None


def measure(asked: argparse.Namespace, say: Callable[[str], None]) -> tuple[list[Result], Rates, list[Row]]:
    """Run the race that was asked for: what each contestant took, the device's rates, the report's rows.

    Raises:
        AcclError: accl itself could not be measured.
    """
    contestants = entries(asked)
    with ExitStack() as stack:
        race = Race(asked.limit, say, stack)
        first, *others = [[entry] for entry in contestants] if asked.apart else [contestants]
        for group in _groups(first):
            race.enter(group)
        rates = race.rates()
        say(f"{rates.device}: {rates.flops / 1e12:.3g} TFLOP/s in {rates.precision}, {rates.bytes / 1e9:.4g} GB/s")
        race.rounds(asked.rounds)
        pairs = race.together(asked.rounds) if asked.together else []
        for (entry,) in others:
            race.leave(race.results[-1].entry)
            race.enter([entry])
            race.rounds(asked.rounds)
    return race.results, rates, report_rows(race.results, rates, pairs)


def _groups(contestants: Sequence[Entry]) -> list[list[Entry]]:
    """Who gets ready beside whom: compiling is timed, so it has the machine to itself, and few cores share badly."""
    beside = [entry for entry in contestants if not entry.compile]
    alone = [[entry] for entry in contestants if entry.compile]
    enough = (os.cpu_count() or 1) >= CORES_EACH * len(beside)
    return [*([beside] if enough else [[entry] for entry in beside]), *alone]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    asked = parser().parse_args(arguments)
    began = time.monotonic()

    def say(words: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {words}", file=sys.stderr, flush=True)  # noqa: T201

    try:
        results, rates, rows = measure(asked, say)
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(asked).items()}
        facts = results[0].facts
        report = Report.here("train", {**settings, **facts, "rates": vars(rates)}, rows)
        if asked.output is not None:
            report.write(asked.output)
    except AcclError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    print_table(results, rows)
    print(measured(report))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
