"""Runs the dashboard: follows the resources and serves the pages until it is told to stop."""

import sys
import threading
import webbrowser
from dataclasses import dataclass
from datetime import UTC, datetime

from codetune_cli.connecting import Connection
from codetune_cli.dashboard.following import KINDS, Board, Follower
from codetune_cli.dashboard.pages import View
from codetune_cli.dashboard.serving import Dashboard
from codetune_cli.errors import CliError
from codetune_cli.showing import Screen


@dataclass(frozen=True)
class Wish:
    """What was asked for."""

    everywhere: bool
    """All namespaces."""
    port: int
    """0: any free one."""
    browser: bool
    """Whether to open one."""


def show_dashboard(wish: Wish, connection: Connection, screen: Screen) -> None:
    """Serve it until Ctrl-C. Raises: CliError."""
    board, stopped = Board(), threading.Event()
    namespace = "" if wish.everywhere else connection.namespace

    def look() -> View:
        version, shelves = board.read()
        return View(version, namespace, shelves, datetime.now(UTC))

    try:
        server = Dashboard(wish.port, board, look)
    except OSError as error:
        raise CliError(f"--port {wish.port} can't be used: {error.strerror}. Leave it out for a free one.") from error
    for kind in KINDS:
        follower = Follower(connection, kind, wish.everywhere, board)
        threading.Thread(target=follower.run, args=(stopped,), daemon=True).start()
    with server:
        screen.result(server.url)
        sys.stdout.flush()
        scope = f"namespace {namespace}" if namespace else "all namespaces"
        screen.say(f"The dashboard of {scope} is at this address, for this machine alone. Ctrl-C ends it.")
        if wish.browser:
            webbrowser.open(server.issue_ticket())
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            stopped.set()
