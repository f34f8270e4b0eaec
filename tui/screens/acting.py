"""Base of the screens from which something can be done with runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from accl.store.rundir import RunDir
from tui import actions
from tui.feed import RunSummary
from tui.messages import Ask, OpenLaunch, Prompt
from tui.screens.polling import PollingScreen
from tui.services import Undo
from tui.widgets.keybar import redraw_keys

Steps = dict[RunDir, Callable[[], Any]]  # what undoes something, by the run to which it was done


class ActingScreen(PollingScreen):
    """A screen with runs that something can be done with; subclasses say which.

    Attributes:
        machine: texts about the load of the machine, as far as it was looked at.
    """

    machine: tuple[str, ...] = ()

    @property
    def targets(self) -> Sequence[RunSummary]:
        """Runs with which something is done."""
        raise NotImplementedError

    @property
    def known(self) -> Sequence[RunSummary]:
        """All runs that the screen knows of."""
        return self.targets

    def after_deletion(self, runs: Sequence[RunDir]) -> None:
        """Show no more what was deleted."""

    # What can be done now.

    @property
    def has_targets(self) -> bool:
        return bool(self.targets)

    @property
    def has_one_target(self) -> bool:
        return len(self.targets) == 1

    @property
    def can_stop(self) -> bool:
        return bool(actions.active(self.targets))

    @property
    def can_resume(self) -> bool:
        return bool(actions.resumable(self.targets))

    @property
    def can_delete(self) -> bool:
        return bool(actions.deletable(self.targets))

    @property
    def can_undo(self) -> bool:
        return bool(self.services.done)

    # Doing it.

    def action_stop(self) -> None:
        runs = actions.active(self.targets)
        consequences = ("It finishes its step, writes a checkpoint,", "and can be resumed later.")

        async def stop() -> None:
            await self._perform(runs, actions.stop, "Stopping", "Not stopped:")

        self._ask("Stop {}?", runs, consequences, stop)

    def action_resume(self) -> None:
        runs = actions.resumable(self.targets)
        if len(runs) == 1:
            self._work(self._perform(runs, actions.resume, "Resuming", "Not resumed:"))
            return

        async def enqueue() -> None:
            await self._enqueue(runs)

        self._ask("Resume {}?", runs, ("They go on one after the other, in the queue.",), enqueue)

    def action_enqueue(self) -> None:
        self._work(self._enqueue(actions.resumable(self.targets)))

    async def _enqueue(self, runs: Sequence[RunDir]) -> None:
        await self._perform(runs, actions.enqueue, "Queued:", "Not queued:")

    def action_launch(self, like: bool) -> None:
        run = self.targets[0].run if like else None
        self.post_message(OpenLaunch(run, [each.summary for each in self.known], self.machine))

    def action_restart(self) -> None:
        runs = [each.run for each in self.targets]

        async def restart() -> None:
            self.app.notify("Checking its data and model …", title=f"Again: {actions.subject(runs)}")
            await self._perform(runs, actions.restart, "Again:", "Not started:", actions.CHECK_DEADLINE_S)

        self._ask("Train {} again, as new?", runs, ("The same configuration, from the beginning.",), restart)

    def action_tag(self) -> None:
        runs = [each.run for each in self.targets]
        now = {tag: None for each in self.targets for tag in each.summary.labels.tags}

        async def tag(text: str) -> None:
            words = text.split()
            removed = [word.removeprefix("-") for word in words if word.startswith("-")]
            added = [word.removeprefix("+") for word in words if not word.startswith("-")]
            await self._label(runs, "tags", lambda steps: actions.labelling(steps, add=added, remove=removed))

        shown = " ".join(f"#{each}" for each in now) or "none"
        words = sorted({tag for each in self.known for tag in each.summary.labels.tags})
        self._prompt("Tags", ("paper adds a tag, -old removes one", f"now: {shown}"), tag, words=words)

    def action_note(self) -> None:
        runs = [each.run for each in self.targets]
        notes = {each.summary.labels.note for each in self.targets}

        async def note(text: str) -> None:
            await self._label(runs, "note", lambda steps: actions.labelling(steps, note=text))

        several = () if len(notes) == 1 else ("Their notes differ: what is typed replaces all of them.",)
        self._prompt("Note", several, note, notes.pop() if len(notes) == 1 else "")

    def action_rename(self) -> None:
        runs = [each.run for each in self.targets]
        names = {each.summary.labels.name for each in self.known if each.run not in runs}

        async def rename(text: str) -> None:
            await self._label(runs, "name", lambda steps: actions.naming(steps, text, names))

        told = ("Commands find it by its name, too; its id and folder stay.",)
        self._prompt("Name", told, rename, self.targets[0].summary.labels.name)

    def action_delete(self) -> None:
        runs = actions.deletable(self.targets)

        async def delete() -> None:
            steps: Steps = {}
            deleted = await self._perform(runs, actions.deleting(steps), "Deleted:", "Not deleted:")
            if deleted:
                self.services.done.append(Undo("the deletion", steps))
                self.after_deletion(deleted)

        told = ["The trash keeps it until u, or accl restore,", "brings it back, or accl purge ends it."]
        if len(left := [each for each in self.targets if each.run not in runs]):
            told.append(f"{len(left)} active {'run is' if len(left) == 1 else 'runs are'} left.")
        self._ask("Delete {}?", runs, tuple(told), delete)

    def action_undo(self) -> None:
        undo = self.services.done.pop()
        runs = list(undo.steps)
        self._work(self._perform(runs, actions.undoing(undo.steps), f"Undone: {undo.what} of", "Not undone:"))

    # How it is done.

    def _work(self, work: Awaitable[Any]) -> None:
        # A worker of the app, not of the screen: leaving the screen must not cancel what was asked for.
        self.app.run_worker(work, group="asked")

    async def _perform(
        self, runs: Sequence[RunDir], act: actions.Act, done: str, failed: str, deadline: float = 0.0
    ) -> list[RunDir]:
        deadline = deadline or actions.DEADLINE_S
        done_to = await actions.perform(self.app, self.services, runs, act, done, failed, deadline)
        if self.is_open:
            redraw_keys(self)
        return done_to

    async def _label(self, runs: Sequence[RunDir], what: str, make: Callable[[Steps], actions.Act]) -> None:
        steps: Steps = {}
        await self._perform(runs, make(steps), f"Changed: the {what} of", f"Not changed: the {what} of")
        if steps:
            self.services.done.append(Undo(f"the {what}", steps))

    def _ask(
        self,
        question: str,
        runs: Sequence[RunDir],
        consequences: tuple[str, ...],
        then: Callable[[], Awaitable[None]],
    ) -> None:
        which = "this run" if len(runs) == 1 else f"{len(runs)} runs"
        self.post_message(Ask(question.format(which), ", ".join(actions.named(runs)), consequences, then))

    def _prompt(
        self,
        title: str,
        explanation: tuple[str, ...],
        then: Callable[[str], Awaitable[None]],
        value: str = "",
        words: Sequence[str] = (),
    ) -> None:
        subject = actions.subject([each.run for each in self.targets])
        self.post_message(Prompt(title, subject, explanation, then, value, words))
