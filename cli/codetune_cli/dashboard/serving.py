"""Answers the browser: on this machine's own address, and only to who knows the token.

A page of another site that the same browser shows could ask this server too. It gets nothing: it knows no token, the
cookie is not sent for it, and a name of its own that it lets point here is not one that this server answers to.
"""

import hmac
import secrets
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from codetune_cli.dashboard.following import Board
from codetune_cli.dashboard.pages import View, render_missing, render_overview, render_resource

ADDRESS = "127.0.0.1"
_WAIT_SECONDS = 25.0
"""How long a page waits for a change before it asks again."""
_STATIC = {"/page.js": "text/javascript", "/style.css": "text/css"}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Dashboard(ThreadingHTTPServer):
    """The server.

    Args:
        port: To listen at; 0: any free one.
        board: What is known.
        look: Makes the view that pages are rendered from.

    Raises:
        OSError: The port can't be had.
    """

    daemon_threads = True

    def __init__(self, port: int, board: Board, look: Callable[[], View]) -> None:
        super().__init__((ADDRESS, port), _Handler)
        self.board, self.look = board, look
        self.token = secrets.token_urlsafe(32)
        self.cookie = f"codetune-{self.server_port}"
        """Cookies are shared by all ports of an address."""
        self._tickets: set[str] = set()

    @property
    def url(self) -> str:
        """What to open; the browser gets its cookie there."""
        return self._address(self.token)

    def issue_ticket(self) -> str:
        """The same, but good for once: a command to open it is seen by all users of the machine."""
        ticket = secrets.token_urlsafe(32)
        self._tickets.add(ticket)
        return self._address(ticket)

    def take_ticket(self, ticket: str) -> bool:
        """Whether it is one, which it is no more from now on."""
        try:
            self._tickets.remove(ticket)
        except KeyError:
            return False
        return True

    def _address(self, token: str) -> str:
        return f"http://{ADDRESS}:{self.server_port}/?token={token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error; anything else is the program's, and is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Dashboard
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "codetune", ""
    timeout = 60

    def do_GET(self) -> None:
        """Every request: there is nothing but to read."""
        try:
            url = urlsplit(self.path)
        except ValueError:
            self._answer(HTTPStatus.BAD_REQUEST, "This is no address.")
            return
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        if self.headers.get("Host") not in {f"{name}:{self.server.server_port}" for name in (ADDRESS, "localhost")}:
            self._answer(HTTPStatus.MISDIRECTED_REQUEST, "This server answers at its own address only.")
        elif self._is(token := query.get("token", "")) or self.server.take_ticket(token):
            self._let_in(url.path)
        elif not self._is(self._cookie()):
            self._answer(HTTPStatus.FORBIDDEN, "Open the address that `kubectl codetune dashboard` printed.")
        elif url.path == "/changes":
            self._tell_changes(query.get("since", ""))
        elif url.path in _STATIC:
            content = (files("codetune_cli.dashboard") / "static" / url.path[1:]).read_text()
            self._answer(HTTPStatus.OK, content, _STATIC[url.path])
        else:
            self._show(url.path)

    def _show(self, path: str) -> None:
        view = self.server.look()
        if path == "/":
            self._answer(HTTPStatus.OK, render_overview(view), "text/html")
            return
        parts = [unquote(part) for part in path.split("/")[1:]]
        entry = view.find(*parts) if len(parts) == 3 else None
        if entry is None:
            self._answer(HTTPStatus.NOT_FOUND, render_missing(view, " ".join(parts)), "text/html")
        else:
            self._answer(HTTPStatus.OK, render_resource(view, entry), "text/html")

    def _tell_changes(self, since: str) -> None:
        """Answer once there is something newer than what the page shows, or after a while."""
        if not since.isdecimal():
            self._answer(HTTPStatus.BAD_REQUEST, f"since={since!r} is no number of a change.")
            return
        self.server.board.wait(int(since), _WAIT_SECONDS)
        self._answer(HTTPStatus.OK, str(self.server.board.read()[0]))

    def _is(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(errors="replace"), self.server.token.encode())

    def _cookie(self) -> str:
        """Not by `http.cookies`: beside one that is not to the letter it finds none, and other ports' come here too."""
        for given in self.headers.get("Cookie", "").split(";"):
            name, _, value = given.strip().partition("=")
            if name == self.server.cookie:
                return str(value)
        return ""

    def _let_in(self, path: str) -> None:
        cookie = f"{self.server.cookie}={self.server.token}; HttpOnly; SameSite=Strict; Path=/"
        self._answer(HTTPStatus.SEE_OTHER, "", headers={"Location": f"/{path.lstrip('/')}", "Set-Cookie": cookie})

    def _answer(
        self, status: HTTPStatus, text: str, kind: str = "text/plain", headers: dict[str, str] | None = None
    ) -> None:
        content = text.encode()
        self.send_response(status)
        entity = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(content))}
        for name, value in {**_HEADERS, **entity, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the first address has the token in it."""
