"""Runs of the program `fetch` against a stand-in of the model hub."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from codetune_api.contracts import FetchConfig
from codetune_api.protocol import Event, parse
from codetune_trainer.config import Places
from codetune_trainer.fetch import fetch
from codetune_trainer.reporting import Reporter
from standin_hub import REPOSITORY, Hub, serve_hub

NONCE = "n" * 16


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, as the pod's environment names it."""
    with serve_hub() as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield made


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A store and a scratch folder."""
    for name in ("store", "scratch"):
        (tmp_path / name).mkdir()
    return Places(store=tmp_path / "store", scratch=tmp_path / "scratch")


@dataclass
class Fetcher:
    """Runs the program's body."""

    places: Places
    read_output: Callable[[], str]

    def __call__(self, revision: str = "main", repository: str = REPOSITORY, **more: Any) -> Path:
        """Fetch; returns the model's folder."""
        config = FetchConfig(nonce=NONCE, namespace="team", name="f", repository=repository, revision=revision, **more)
        return fetch(config, self.places, Reporter(config.nonce))

    def events(self) -> list[Event]:
        """What was said since the last look."""
        return [event for line in self.read_output().splitlines() if (event := parse(line, NONCE)) is not None]


@pytest.fixture
def run(places: Places, capsys: pytest.CaptureFixture[str]) -> Fetcher:
    """`run(...)` fetches."""
    return Fetcher(places, lambda: capsys.readouterr().out)
