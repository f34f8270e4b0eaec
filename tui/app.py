"""The Textual app: colours, style sheet, the commands of every screen, and the way from one screen to another.

The app only reads run directories. Training processes run in sessions of their own: leaving the
app, in whatever way, never affects them.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console
from textual.actions import ActionParseResult
from textual.app import App
from textual.dom import DOMNode
from textual.notifications import SeverityLevel
from textual.screen import ModalScreen, Screen

from accl.store.rundir import RunDir
from accl.text import printable
from tui import theme
from tui.alerts import Alert, Alerts
from tui.command import Command
from tui.commands import COMMANDS, bindings, present, refused
from tui.messages import Ask, OpenCompare, OpenHelp, OpenLaunch, OpenRun, Prompt
from tui.palettes import PALETTES
from tui.repaint import shortened
from tui.screens.runs import RunsScreen  # the other screens are imported when they are opened, for a fast start
from tui.services import Services
from tui.viewstate import Choices, ViewState
from tui.watch import Watcher
from tui.widgets.keybar import say
from tui.widgets.strip import StripWidget

POLL_S = 1.0
SAVE_S = 5.0


class AcclApp(App[None], inherit_bindings=False):
    """Watch and compare the runs under ``root``.

    Args:
        root: folder of the run directories.
        interval: seconds between two reads of the run directories.
        opened: runs to open over the list: one by itself, several compared.
        view: how the user left the app.
        palette: name of the palette that the terminal asks for, whatever the user chose.
    """

    TITLE = "accl"
    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS = bindings("everywhere")
    settings: ClassVar[Mapping[str, Choices]] = {"palette": list(PALETTES)}

    def __init__(
        self,
        root: Path,
        interval: float = POLL_S,
        opened: Sequence[RunDir] = (),
        view: ViewState | None = None,
        palette: str | None = None,
    ) -> None:
        self.palette = theme.DEFAULT
        self.services = Services(root, Watcher(interval), view or ViewState())
        self.services.view.attach("everywhere", self)
        self.alerts = Alerts(self.services.watcher, root, lambda alert: self.call_later(self._tell, alert))
        self._forced = palette
        # Without colours, Textual shall write none either, instead of greys.
        super().__init__(ansi_color=True if self._shown_palette == "no-colours" else None)
        # The traceback of a bug may quote a run: without colours it can pass a stream that lets no escape through.
        self.error_console = Console(stderr=True, markup=False, highlight=False, color_system=None)
        # Classes for the style sheet, set on every screen by its size.
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]
        self.VERTICAL_BREAKPOINTS = [(0, "-tiny"), (10, "-short"), (18, "-tall")]
        self.opened = opened

    @property
    def _shown_palette(self) -> str:
        return self._forced or self.palette

    def get_default_screen(self) -> Screen[None]:
        return RunsScreen(self.services)

    def on_load(self) -> None:
        for palette in PALETTES.values():
            self.register_theme(theme.textual_theme(palette))
        self._show_palette()

    def on_mount(self) -> None:
        # There is little garbage, and a search of all that lives would stop the app for up to a tenth of a second.
        gc.freeze()
        gc.set_threshold(2000, 5, 500)
        gc.enable()
        self.set_interval(SAVE_S, self.services.view.save)
        self.alerts.follow()
        if len(self.opened) == 1:
            self.post_message(OpenRun(self.opened[0]))
        elif self.opened:
            self.post_message(OpenCompare(list(self.opened)))

    def on_unmount(self) -> None:
        gc.unfreeze()
        self.alerts.unfollow()
        self.services.view.save()

    def _tell(self, alert: Alert) -> None:
        self.notify(alert.message, title=alert.title, severity=alert.severity)

    def _show_palette(self) -> None:
        theme.use(self._shown_palette)
        self.theme = f"accl-{self._shown_palette}"
        for screen in self.screen_stack if self.is_running else ():
            for widget in screen.query(StripWidget):
                widget.redraw()

    def _display(self, screen: Screen[Any], renderable: Any) -> None:
        """Write an update to the terminal."""
        super()._display(screen, shortened(renderable))

    async def run_action(
        self,
        action: str | ActionParseResult,
        default_namespace: DOMNode | None = None,
        namespaces: Mapping[str, DOMNode] | None = None,
    ) -> bool:
        """Perform an action; of a command that cannot be done now, say why."""
        command = refused(default_namespace or self, action) if isinstance(action, str) else None
        if command is None:
            return await super().run_action(action, default_namespace, namespaces)
        say(self.screen, command.otherwise)
        return True

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,
    ) -> None:
        """Show a notification; its text is never read as ``markup``."""
        super().notify(printable(message), title=printable(title), severity=severity, timeout=timeout, markup=False)

    def on_open_run(self, message: OpenRun) -> None:
        from tui.screens.run import RunScreen

        self.push_screen(RunScreen(self.services, message.run, message.pane, message.questions))

    def on_open_compare(self, message: OpenCompare) -> None:
        from tui.screens.compare import CompareScreen

        self.push_screen(CompareScreen(self.services, message.runs))

    def on_open_launch(self, message: OpenLaunch) -> None:
        from tui.screens.launch import LaunchScreen

        self.push_screen(LaunchScreen(self.services, message))

    def on_open_queue(self) -> None:
        from tui.screens.queue import QueueScreen

        self.push_screen(QueueScreen(self.services))

    def on_open_help(self, message: OpenHelp) -> None:
        from tui.screens.help import HelpScreen

        self.push_screen(HelpScreen(list(present(self.screen))))

    def on_ask(self, message: Ask) -> None:
        from tui.screens.confirm import ConfirmScreen

        def on_answer(confirmed: bool | None) -> None:
            if confirmed:
                # A worker of the app, not of the screen: leaving the screen must not cancel what was asked for.
                self.run_worker(message.then(), group="asked")

        self.push_screen(ConfirmScreen(message), on_answer)

    def on_prompt(self, prompt: Prompt) -> None:
        from tui.screens.prompt import PromptScreen

        def on_answer(text: str | None) -> None:
            if text is not None and text != prompt.value:
                self.run_worker(prompt.then(text), group="asked")

        self.push_screen(PromptScreen(prompt), on_answer)

    def action_help(self) -> None:
        if not isinstance(self.screen, ModalScreen):
            self.post_message(OpenHelp())

    def action_palette(self) -> None:
        if isinstance(self.screen, ModalScreen):
            return
        from tui.screens.palette import PaletteScreen

        nodes = present(self.screen)
        offered = [command for command in COMMANDS if (node := nodes.get(command.scope)) and command.enabled(node)]
        offered.sort(key=lambda command: list(nodes).index(command.scope))

        async def run(command: Command | None) -> None:
            if command is not None:
                await self.run_action(command.run, nodes[command.scope])

        self.push_screen(PaletteScreen(offered), run)

    def action_side(self) -> None:
        self.screen.toggle_class("-no-side")

    def action_colours(self, palette: str) -> None:
        self.palette = palette
        if self._forced not in (None, palette):
            self.notify(f"This terminal shows {self._forced}; elsewhere it will be {palette}.", title="Colours")
        self._show_palette()

    def action_reset_view(self) -> None:
        self.services.view.reset()
        self.notify("The app will open as it did the first time.", title="View forgotten")
