"""Standard streams on which no text can act, and which take every character."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import logging, sys, warnings
from accl.streams import guard_streams, styled
guard_streams({arguments})
{code}
"""


def guarded(code: str, arguments: str = "", redirected: str = "", **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program with guarded streams."""
    program = PROGRAM.format(arguments=arguments, code=code)
    command = ["bash", "-c", f'"$0" -c "$1" {redirected}', sys.executable, program]
    return subprocess.run(command, capture_output=True, env={"PYTHONPATH": str(Path(__file__).parents[1]), **env})


@pytest.mark.parametrize(
    "code",
    [
        r"print('\x1b]0;owned\x07')",
        r"sys.stderr.write('\x9b2J\u202e')",
        r"warnings.warn('\x1b[2J')",
        r"logging.warning('\x1b[2J')",
        r"raise ValueError('\x1b[2J', 'http://me:geheim@host')",
        r"logging.warning('http://me:geheim@host')",
        r"print('geheim'.join(['http://me:', '@host\x7f']), file=sys.stderr)",
    ],
)
def test_nothing_that_is_printed_in_whatever_way_acts_or_tells(code: str) -> None:
    done = guarded(code)
    shown = done.stdout + done.stderr
    assert shown
    assert not set(shown.decode()) & set("\x1b\x07\x7f\x9b\u202e")
    assert b"geheim" not in shown


def test_layout_and_styles_pass() -> None:
    done = guarded(r"print('a\tb\r\nc'); styled(sys.stdout).write('\x1b[1mbold\x1b[0m')")
    assert done.stdout == b"a\tb\r\nc\n\x1b[1mbold\x1b[0m"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_character_that_the_encoding_lacks_becomes_a_question_mark(encoding: str) -> None:
    done = guarded(r"print('é ▶ ok \udcff', file=sys.stderr); print('é ▶ ok')", PYTHONIOENCODING=encoding)
    assert done.returncode == 0
    assert b" ? ok" in done.stdout
    assert b" ? ok" in done.stderr


@pytest.mark.parametrize("encoding", ["idna", "undefined"])
def test_an_encoding_that_takes_no_text_gives_way_to_utf_8(encoding: str) -> None:
    done = guarded("print('é ▶'); print('é ▶', file=sys.stderr)", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (0, "é ▶\n", "é ▶\n")


def test_a_console_log_is_utf_8_whatever_the_environment_says() -> None:
    done = guarded("print('é ▶')", "'utf-8', lossy=True", PYTHONIOENCODING="ascii")
    assert done.stdout.decode() == "é ▶\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_drops_messages_and_ends_nothing() -> None:
    code = "print('a'); print('b', file=sys.stderr); sys.stdout.flush(); sys.exit(5)"
    assert guarded(code, "lossy=True", ">/dev/full 2>/dev/full").returncode == 5


@pytest.mark.parametrize("redirected", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_no_file_takes_the_place_of_a_closed_stream(redirected: str, tmp_path: Path) -> None:
    file = tmp_path / "precious"
    code = f"file = open({str(file)!r}, 'w'); print('a'); print('b', file=sys.stderr); sys.exit(file.fileno() < 3)"
    assert guarded(code, "", redirected).returncode == 0
    assert file.read_bytes() == b""
