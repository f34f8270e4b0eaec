"""`accl tui --web`: the app in a browser of this machine, for whom has the address and for nobody else."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from factory import finished_run

from accl.errors import AcclError
from tui import web


def test_without_textual_serve_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "find_spec", lambda _: None)
    with pytest.raises(AcclError) as caught:
        web.serve(tmp_path, [], 8000, print)
    assert caught.value.hint == "pip install 'accl[web]'"


def test_a_port_that_is_taken_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "find_spec", lambda _: True)
    with socket.create_server((web.HOST, 0)) as other, pytest.raises(AcclError, match="Address already in use"):
        web.serve(tmp_path, [], other.getsockname()[1], print)


def test_a_path_is_one_word_to_the_shell_whatever_it_holds(tmp_path: Path) -> None:
    folder = tmp_path / "a b$(touch owned)'\";`x`\n<b>"
    run = finished_run(folder)
    assert shlex.split(web.command_line(folder, [run]))[-3:] == ["tui", str(folder), str(run.path)]


@pytest.mark.slow
def test_a_page_has_an_app_which_ends_with_the_server_and_only_its_address_leads_there(tmp_path: Path) -> None:
    pytest.importorskip("textual_serve")
    import aiohttp

    run = finished_run(tmp_path)
    with socket.create_server((web.HOST, 0)) as free:
        port = free.getsockname()[1]
    words = ["tui", "last", "--runs", str(tmp_path), "--web", "--port", str(port)]
    server = subprocess.Popen([sys.executable, "-m", "accl.cli.main", *words], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = server.stdout.readline().strip()

    async def look() -> bytes:
        drawn = b""
        async with aiohttp.ClientSession() as session:
            for path in ("", "ws", "static/js/textual.js", "x/ws"):
                async with session.get(f"http://127.0.0.1:{port}/{path}") as response:
                    assert response.status == 404
            async with session.get(address) as response:
                assert "connect-src ws://127.0.0.1" in response.headers["Content-Security-Policy"]
                assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
            async with session.ws_connect(f"{address}ws?width=120&height=36") as page:
                async for message in page:
                    drawn += message.data
                    if run.id.encode() in drawn:
                        os.kill(server.pid, signal.SIGINT)
        return drawn

    try:
        drawn = asyncio.run(asyncio.wait_for(look(), 60))
        assert run.id.encode() in drawn
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.communicate()
