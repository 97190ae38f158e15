"""An API server that is faked at the transport: answers by a table, real client, real HTTP."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from codetune_operator.cluster.connecting import Cluster
from kubernetes.client import ApiClient, Configuration


@dataclass(frozen=True)
class Request:
    """What arrived."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]


@dataclass
class Api:
    """Answers requests by a table: method and path → status and body, or a function of the request."""

    url: str
    answers: dict[tuple[str, str], tuple[int, Any] | Callable[[Request], tuple[int, Any]]] = field(default_factory=dict)
    seen: list[Request] = field(default_factory=list)

    def answer(self, request: Request) -> tuple[int, Any]:
        self.seen.append(request)
        found = self.answers.get((request.method, request.path), (404, {"message": f"{request.path} not found"}))
        return found(request) if callable(found) else found

    def connect(self) -> Cluster:
        configuration = Configuration(host=self.url, api_key={"BearerToken": "Bearer secret-token"})
        return Cluster(ApiClient(configuration))

    def calls(self) -> list[tuple[str, str]]:
        return [(request.method, request.path) for request in self.seen]


@pytest.fixture
def api() -> Iterator[Api]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            parts = urlsplit(self.path)
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            headers = {key.lower(): value for key, value in self.headers.items()}
            body = json.loads(content) if content else None
            status, answer = served.answer(Request(self.command, parts.path, query, body, headers))
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Api(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield served
    server.shutdown()
    thread.join()
    server.server_close()
