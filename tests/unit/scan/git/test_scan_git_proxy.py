"""The proxy that the environment names is the one that git and Git LFS go through: a real one, on the loopback."""

import http.client
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from unit.scan.conftest import Listen, Workshop
    from unit.scan.git.conftest import GitSite


@dataclass
class Proxy:
    """A forward proxy, and what went through it."""

    url: str = ""
    target: tuple[str, int] = ("", 0)
    """Where every name leads: the names of the tests exist behind the proxy only."""
    seen: list[str] = field(default_factory=list)


class ProxyHandler(BaseHTTPRequestHandler):
    """Tunnels for https, and passes requests on for http."""

    proxy: Proxy

    def do_CONNECT(self) -> None:
        self.proxy.seen.append(f"CONNECT {self.path}")
        with socket.create_connection(self.proxy.target) as behind:
            self.send_response(200)
            self.end_headers()
            pair = [self.connection, behind]
            while True:
                ready, _, _ = select.select(pair, [], [], 30)
                data = ready[0].recv(1 << 16) if ready else b""
                if not data:
                    break
                pair[pair.index(ready[0]) - 1].sendall(data)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.proxy.seen.append(f"{self.command} {parts.scheme}://{parts.netloc}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name: value for name, value in self.headers.items() if not name.lower().startswith("proxy-")}
        behind = http.client.HTTPConnection(*self.proxy.target, timeout=30)
        behind.request(self.command, f"{parts.path}?{parts.query}".rstrip("?"), body, headers)
        answer = behind.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        behind.close()

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the test's output is not for it."""


@pytest.fixture
def proxy(listen: "Listen") -> Iterator[Proxy]:
    """A running proxy."""
    made = Proxy()
    with listen(type("Handler", (ProxyHandler,), {"proxy": made})) as made.url:
        yield made


def lead(proxy: Proxy, site: "GitSite") -> None:
    """Let the proxy lead to a site."""
    parts = urlsplit(site.url)
    proxy.target = (str(parts.hostname), int(parts.port or 0))


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy", "ALL_PROXY"])
def test_a_host_that_only_the_proxy_knows_is_reached(
    workshop: "Workshop", site: "GitSite", proxy: Proxy, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    workshop.repository().commit({"a.py": workshop.code("a")})
    lead(proxy, site)
    monkeypatch.setenv(variable, proxy.url)
    source = {"name": "repo", "git": {"url": "http://git.invalid/repo/.git"}}
    assert list(workshop.scan(source).files) == ["repo/a.py"]
    assert set(proxy.seen) == {"GET http://git.invalid", "POST http://git.invalid"}


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY"])
def test_https_is_tunnelled_and_its_certificate_checked(
    workshop: "Workshop", secure_site: "GitSite", proxy: Proxy, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    workshop.repository().commit({"a.py": workshop.code("a"), "b.py": secure_site.put(b"b = 1\n")})
    lead(proxy, secure_site)
    monkeypatch.setenv(variable, proxy.url)
    # The certificate is for 127.0.0.1; only the proxy's host has a server on this port.
    source = {"name": "repo", "git": {"url": "https://127.0.0.1:7/repo/.git", "lfs": True}}
    secure_site.place = lambda sha256: {"actions": {"download": {"href": f"https://127.0.0.1:7/lfs/{sha256}"}}}
    assert list(workshop.scan(source).files) == ["repo/a.py", "repo/b.py"]
    assert set(proxy.seen) == {"CONNECT 127.0.0.1:7"}


def test_hosts_that_need_no_proxy_are_reached_without(
    workshop: "Workshop", site: "GitSite", proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.repository().commit({"a.py": workshop.code("a")})
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert list(workshop.scan(site.source()).files) == ["repo/a.py"]
    assert proxy.seen == []
