"""`accl tui` where there is no terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from accl.cli.tui import tui
from accl.errors import TerminalError


def test_without_a_terminal_it_says_what_to_type_instead(tmp_path: Path) -> None:
    with pytest.raises(TerminalError) as caught:
        tui(runs=tmp_path)
    assert "accl runs" in caught.value.hint
    assert "accl tui --once" in caught.value.hint


def test_importing_the_command_does_not_import_textual() -> None:
    code = "import sys, accl.cli.tui; sys.exit('textual' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
