"""The app in a browser of this machine, served by textual-serve: every page that is opened has an app of its own.

The app can start, stop and delete runs, and lets them run programs (``alerts.command``), so nobody but who was told the
address may reach it: neither other users of this machine nor pages of other sites in the same browser, whatever name
they give to 127.0.0.1. All paths begin with a secret, and without it everything is 404.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accl.errors import AcclError
from accl.launch.process import environment
from accl.store.rundir import RunDir

HOST = "127.0.0.1"
SHUTDOWN_S = 5.0  # for the apps of the pages to end


def serve(root: Path, opened: Sequence[RunDir], port: int, announce: Callable[[str], None]) -> None:
    """Serve the app until Ctrl-C.

    Args:
        root: folder of the run directories.
        opened: runs to open over the list, as `AcclApp` does.
        announce: called with words for the user, the address among them, once the port is open.

    Raises:
        AcclError: textual-serve is not installed, or the port cannot be had.
    """
    if find_spec("textual_serve") is None:
        raise AcclError("The app in a browser needs textual-serve, which is not installed.", "pip install 'accl[web]'")
    from aiohttp import web

    try:
        listener = socket.create_server((HOST, port))
    except OSError as error:
        raise AcclError(
            f"Port {port} cannot be had ({os.strerror(error.errno or 0)}).", "Name another one with --port."
        ) from error
    secret = secrets.token_urlsafe(24)
    announce(f"http://{HOST}:{port}/{secret}/")
    announce("Open it and click into it. Keep the address to yourself: it gives the app your rights.")
    announce("Ctrl-C ends this; training goes on.")
    os.environ.update(environment())  # textual-serve passes this process's on
    site = _site(command_line(root, opened), port, secret)
    web.run_app(site, sock=listener, print=None, access_log=None, shutdown_timeout=SHUTDOWN_S)


def command_line(root: Path, opened: Sequence[RunDir]) -> str:
    """Return the line by which a shell starts the app of a page; the paths may hold anything."""
    # -P: what lies in the working folder is not imported.
    return "exec " + shlex.join(
        [sys.executable, "-P", "-m", "tui", *map(os.path.abspath, (root, *(run.path for run in opened)))]
    )


async def _site(command: str, port: int, secret: str) -> Any:
    from aiohttp import web
    from textual_serve.server import Server

    server = Server(command, HOST, port, title="accl")
    server.console.quiet = True  # it prints an address without the secret
    # Its page names a font of another site, which would learn of every visit; and no site may frame the page.
    policy = f"default-src 'self' 'unsafe-inline' data:; connect-src ws://{HOST}:{port}; frame-ancestors 'none'"

    async def protect(_request: Any, response: Any) -> None:
        response.headers["Content-Security-Policy"] = policy
        response.headers["Referrer-Policy"] = "no-referrer"

    pages: set[asyncio.Task[Any] | None] = set()

    async def remember(request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        task = asyncio.current_task()
        pages.add(task)
        try:
            return await handler(request)
        finally:
            pages.discard(task)

    async def close(_site: Any) -> None:
        for task in filter(None, pages):
            task.cancel()  # textual-serve ends the app of a page then

    site = web.Application(middlewares=[web.middleware(remember)])
    site.on_response_prepare.append(protect)
    site.on_shutdown.append(close)
    site.add_subapp(f"/{secret}", await server._make_app())
    return site
