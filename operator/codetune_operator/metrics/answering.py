"""The HTTP server of scrapes: threads beside the event loop, and few of them, since whoever reaches the port may ask.

The library's own has a thread for each open connection, for as long as its client likes, and puts as many answers
together at once, of tens of megabytes each where there are thousands of resources: any pod that reaches the port could
end the operator.
"""

import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from socketserver import TCPServer
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

CONNECTIONS = 16
"""Open at once; a further one is closed unheard, and Prometheus counts a scrape that failed."""


class _Handler(WSGIRequestHandler):
    timeout = 10.0
    """Seconds that a client may be silent, or take nothing: Prometheus waits no longer for a whole scrape."""

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are no news."""


class _Server(ThreadingWSGIServer):
    def __init__(self, *args: Any, **options: Any) -> None:
        self._free = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__(*args, **options)

    def server_bind(self) -> None:
        """Without asking DNS for the name of the pod's address, as the base class does: nobody may answer there."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or said nothing, is not worth a line of the log. What fails in a scrape is logged
        before it gets here."""


class _ServerOfIPv6(_Server):
    address_family = socket.AF_INET6


@contextmanager
def answer(url: str, registry: CollectorRegistry) -> Iterator[None]:
    """Answer scrapes at this place. Raises: OSError or ValueError, where nothing can listen there."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    kind = _ServerOfIPv6 if family == socket.AF_INET6 else _Server
    server = make_server(str(address[0]), port, _one_by_one(make_wsgi_app(registry)), kind, _Handler)
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _one_by_one(app: WSGIApplication) -> WSGIApplication:
    lock = threading.Lock()

    def take_turns(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        with lock:
            return app(environ, start_response)

    return take_turns
