"""A pod that has to go: not ready at once, connections closed with their answers, nothing that is under way cut off."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.contracts import DesiredAdapter
from codetune_server.__main__ import main
from codetune_server.draining import POLL_SECONDS, drain

if TYPE_CHECKING:
    from unit.server.conftest import Pod

    Make = Callable[..., DesiredAdapter]

TOKEN = "a-secret-token"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


async def test_a_leaving_pod_is_not_ready_and_says_what_is_under_way(pod: "Pod", make_adapter: "Make") -> None:
    await pod.put(make_adapter("tuned"))
    pod.vllm.may_stream.clear()
    streams = [pod.start_stream("tuned") for _ in range(2)]
    await pod.until(lambda: pod.vllm.active.total() == 2)
    assert (await pod.client.get("/codetune/ready")).status_code == 200

    leaving = await pod.client.put("/codetune/drain", headers=AUTHORIZED)
    assert leaving.json() == {"inFlight": 2}
    unready = await pod.client.get("/codetune/ready")
    assert (unready.status_code, unready.json()["message"]) == (503, "the pod is about to end")

    pod.vllm.may_stream.set()
    answers = await asyncio.gather(*streams)
    assert all(answer.text.endswith("data: [DONE]\n\n") for answer in answers)
    assert (await pod.client.put("/codetune/drain", headers=AUTHORIZED)).json() == {"inFlight": 0}


async def test_a_late_request_is_served_and_its_connection_closed(pod: "Pod", make_adapter: "Make") -> None:
    await pod.put(make_adapter("tuned"))
    assert "connection" not in (await pod.complete("tuned")).headers
    await pod.client.put("/codetune/drain", headers=AUTHORIZED)
    late = await pod.complete("tuned", stream=True)
    assert late.status_code == 200
    assert late.headers["connection"] == "close"
    assert late.text.endswith("data: [DONE]\n\n")


async def test_a_request_that_breaks_is_not_waited_for(pod: "Pod") -> None:
    pod.vllm.breaks_requests = True
    with pytest.raises(RuntimeError, match="broke"):
        await pod.complete("base")
    assert (await pod.client.put("/codetune/drain", headers=AUTHORIZED)).json() == {"inFlight": 0}


@pytest.mark.parametrize(("method", "headers", "status"), [("PUT", {}, 401), ("GET", AUTHORIZED, 405)])
async def test_only_the_token_sends_a_pod_away(method: str, headers: dict[str, str], status: int, pod: "Pod") -> None:
    await pod.put()
    assert (await pod.client.request(method, "/codetune/drain", headers=headers)).status_code == status
    assert (await pod.client.get("/codetune/ready")).status_code == 200


class Leaving:
    """A server that has so many requests under way, one fewer at each question."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.asked: list[tuple[str, str]] = []
        self.port = 0


@pytest.fixture
def server() -> Iterator[Leaving]:
    leaving = Leaving()

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            leaving.asked.append((self.path, self.headers["Authorization"]))
            body = b'{"inFlight": %d}' % leaving.in_flight
            leaving.in_flight -= 1
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    leaving.port = listening.server_address[1]
    thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
    thread.start()
    yield leaving
    listening.shutdown()
    thread.join()
    listening.server_close()


class Clock:
    """Time that passes by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    return {"CODETUNE_ADAPTER_TOKEN_FILE": str(tmp_path / "token"), "CODETUNE_BIND_HOST": "127.0.0.1"}


@pytest.mark.parametrize(
    ("waited", "in_flight", "settle", "seconds"),
    [
        pytest.param(0.0, 0, 0, 60, id="nobody is there"),
        pytest.param(5.0, 0, 5, 60, id="late requests are waited for"),
        pytest.param(8 * POLL_SECONDS, 8, 0, 60, id="the last request"),
        pytest.param(3.0, 1000, 1, 3, id="no longer than there is time"),
    ],
)
def test_the_hook_waits_as_long_as_it_must(
    waited: float, in_flight: int, settle: float, seconds: float, server: Leaving, environment: dict[str, str]
) -> None:
    server.in_flight, clock = in_flight, Clock()
    assert drain(environment, port=server.port, seconds=seconds, settle=settle, sleep=clock.sleep, clock=clock) == 0
    assert clock.now == waited
    assert set(server.asked) == {("/codetune/drain", f"Bearer {TOKEN}")}


@pytest.mark.parametrize("kind", ["no token", "no server"])
def test_the_hook_holds_nothing_up_that_never_served(
    kind: str, server: Leaving, environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    if kind == "no token":
        environment["CODETUNE_ADAPTER_TOKEN_FILE"] += "-none"
    port = server.port if kind == "no token" else 1
    assert drain(environment, port=port, seconds=60, settle=5, sleep=clock.sleep, clock=clock) == 0
    assert clock.now == 0
    assert "nothing to drain" in capsys.readouterr().err


LOADING = """
import pathlib, signal, sys, time
from codetune_server.loading import note_process
signal.signal(signal.SIGTERM, signal.SIG_IGN)
note_process(pathlib.Path(sys.argv[1]))
time.sleep(60)
"""


@contextmanager
def running(script: str, scratch: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process whose number is noted in the folder, if not by itself."""
    process, noted = subprocess.Popen([sys.executable, "-c", script, str(scratch)]), scratch / "codetune-server.pid"
    try:
        if script is not LOADING:
            noted.write_text(str(process.pid))
        while not noted.exists() or not noted.read_text():
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_hook_ends_a_server_that_has_not_come_up_and_hears_of_no_signal(
    environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(LOADING, tmp_path) as process:
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        assert drain(environment, port=1, seconds=60, settle=5, scratch=tmp_path) == 0
        assert process.wait(10) == -signal.SIGKILL
    assert "which was loading, is ended" in capsys.readouterr().err


def test_the_hook_ends_no_server_that_answers(server: Leaving, environment: dict[str, str], tmp_path: Path) -> None:
    with running(LOADING, tmp_path) as process:
        assert drain(environment, port=server.port, seconds=1, settle=0, scratch=tmp_path) == 0
        environment["CODETUNE_ADAPTER_TOKEN_FILE"] += "-none"
        assert drain(environment, port=server.port, seconds=1, settle=0, scratch=tmp_path) == 0
        assert process.poll() is None


def test_the_hook_ends_nobody_else_who_has_the_number_by_now(environment: dict[str, str], tmp_path: Path) -> None:
    with running("import time; time.sleep(60)", tmp_path) as process:
        assert drain(environment, port=1, seconds=60, settle=5, scratch=tmp_path) == 0
        assert process.poll() is None


def test_the_hook_is_a_command(server: Leaving, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["drain", "--port", str(server.port), "--seconds", "1", "--settle", "0"]) == 0
    assert server.asked
