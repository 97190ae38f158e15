"""The dashboard's page in a real browser. Skipped where there is none."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
import websocket

if TYPE_CHECKING:
    from unit.cli.conftest import Desk

pytestmark = pytest.mark.skipif(not shutil.which("chromium"), reason="takes a browser: apt-get install chromium")
_PATIENCE_SECONDS = 30.0


class Tab:
    """What a page of the browser holds, asked for by its DevTools protocol."""

    def __init__(self, port: str) -> None:
        with urlopen(f"http://127.0.0.1:{port}/json") as answer:
            (page,) = (target for target in json.load(answer) if target["type"] == "page")
        self._line = websocket.create_connection(page["webSocketDebuggerUrl"], suppress_origin=True, timeout=20)
        self._asked = 0

    def evaluate(self, expression: str) -> Any:
        """The value of JavaScript."""
        self._asked += 1
        asked = {"id": self._asked, "method": "Runtime.evaluate", "params": {"expression": expression}}
        self._line.send(json.dumps(asked))
        while (told := json.loads(self._line.recv())).get("id") != self._asked:
            pass
        return told["result"]["result"].get("value")

    def close(self) -> None:
        """Ask no more."""
        self._line.close()

    def wait_for(self, expression: str) -> None:
        """Until JavaScript is true."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not self.evaluate(expression):
            assert time.monotonic() < deadline, (expression, self.evaluate("document.body.innerText"))
            time.sleep(0.1)


@contextmanager
def browse(url: str, folder: Path) -> Iterator[Tab]:
    """A browser with a page."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    command = ["chromium", *options, f"--user-data-dir={folder}", url]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline, told = time.monotonic() + _PATIENCE_SECONDS, folder / "DevToolsActivePort"
            while not told.exists() or not told.read_text():
                assert time.monotonic() < deadline
                time.sleep(0.1)
            with closing(Tab(told.read_text().split()[0])) as tab:
                yield tab
        finally:
            process.terminate()


@contextmanager
def show(desk: "Desk") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command as a process, and the address that it prints."""
    command = [sys.executable, "-m", "codetune_cli", "dashboard", "--kubeconfig", str(desk.kubeconfig), "-n", "team"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_an_open_page_shows_what_changes_and_says_when_it_no_longer_can(desk: "Desk", tmp_path: Path) -> None:
    spec = {"projectRef": {"name": "shop"}, "baseModel": "hf://org/base"}
    desk.define()
    desk.make("FineTune", "finetunes", "tuned", spec, {"progress": {"percent": 10}, "remaining": "<b>12m</b>"})
    with show(desk) as (command, url), browse(url, tmp_path / "browser") as tab:
        tab.wait_for("document.querySelector('progress')?.value === 10")
        assert tab.evaluate("location.search") == ""  # the token stands in no address that is kept
        tab.wait_for("getComputedStyle(document.querySelector('table')).borderCollapse === 'collapse'")
        assert "<b>12m</b>" in tab.evaluate("document.querySelector('main').innerText")
        desk.make("FineTune", "finetunes", "another", spec, {"progress": {"percent": 60}})
        tab.wait_for("document.querySelector('progress')?.value === 60")
        assert tab.evaluate("document.querySelectorAll('progress').length") == 2
        assert tab.evaluate("document.getElementById('lost').hidden") is True
        command.send_signal(signal.SIGINT)
        assert command.wait(20) == 0
        tab.wait_for("document.getElementById('lost').hidden === false")
