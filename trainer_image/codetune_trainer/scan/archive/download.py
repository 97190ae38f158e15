"""Fetches one file over HTTP: only when it changed, and on from where a former attempt was cut.

What came so far lies in `download`, and what the server said of it in `download.json`. Bytes before the last full
stretch are on the disk for certain, because each stretch is synced before the next begins; a killed attempt is resumed
from there.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import httpx2

from codetune_trainer.errors import SourceUnavailable, UnsupportedSource
from codetune_trainer.scan.archive.asking import Interrupted, ask, explain
from codetune_trainer.scan.archive.limits import Limits
from codetune_trainer.scan.archive.urls import Link
from codetune_trainer.scan.archive.validators import Validators, read_content_range

ATTEMPTS = 8
"""How often a download is begun or resumed in one scan."""
FIRST_PAUSE_SECONDS = 1.0
"""Before the second attempt; it doubles, up to `LONGEST_PAUSE_SECONDS`."""
LONGEST_PAUSE_SECONDS = 30.0
FETCH_SECONDS = 3 * 3600.0
"""For all attempts of a scan together."""
STRETCH_BYTES = 8 * 2**20
"""Bytes between two syncs."""


@dataclass
class Download:
    """A file that is fetched into a folder.

    Args:
        folder: Where `download` and `download.json` are; nobody else works in it.
        link: Where it comes from.
        headers: Credentials; sent to the link's own origin only.
        limits: What is allowed.
    """

    folder: Path
    link: Link
    headers: Mapping[str, str]
    limits: Limits

    @property
    def file(self) -> Path:
        """What came so far."""
        return self.folder / "download"

    def fetch(self, held: Validators | None) -> Validators | None:
        """Have the whole file in `file`.

        Args:
            held: What the server said of the version that is here already; None when there is none.

        Returns:
            What the server says of the version that came; None when it is the one that is here already.

        Raises:
            SourceError: By what is wrong with the link, the credentials or the server.
        """
        until = time.monotonic() + FETCH_SECONDS
        offset = self._find_synced()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._attempt(held, offset, until)
            except Interrupted as cut:
                if attempt >= min(ATTEMPTS, cut.attempts) or time.monotonic() > until:
                    raise self._give_up(cut, attempt) from cut
                pause = min(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), LONGEST_PAUSE_SECONDS)
                time.sleep(max(pause, min(cut.wait_seconds, 2 * LONGEST_PAUSE_SECONDS)))
            # This process wrote it and is still there: every byte counts.
            offset = self.file.stat().st_size if self.file.exists() else 0
        raise AssertionError("the last attempt gives up")

    def discard(self) -> None:
        """Remove what came so far."""
        self.file.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)

    @property
    def _notes(self) -> Path:
        return self.folder / "download.json"

    def _attempt(self, held: Validators | None, offset: int, until: float) -> Validators | None:
        partial = self._load_notes() if offset else None
        resume = partial.if_range() if partial is not None else ""
        wanted = held.conditions() if held is not None else {}
        if resume:
            wanted |= {"Range": f"bytes={offset}-", "If-Range": resume}
        with ask(self.link, self.headers, wanted) as response:
            if response.status_code == 304 and held is not None:
                return None
            if response.status_code == 206 and resume and partial is not None:
                return self._go_on(response, partial, offset, until)
            if response.status_code == 416 and resume:
                self.discard()
                raise Interrupted("it has no more bytes than were here", attempts=ATTEMPTS)
            if response.status_code != 200:
                raise explain(response, self.link, credentials=bool(self.headers))
            return self._begin(response, until)

    def _begin(self, response: httpx2.Response, until: float) -> Validators:
        self.discard()
        validators = Validators.read(response.headers)
        self._check_size(validators.bytes or 0)
        self._save_notes(validators)
        self._receive(response, 0, until)
        return validators

    def _go_on(self, response: httpx2.Response, partial: Validators, offset: int, until: float) -> Validators:
        start, total = read_content_range(response.headers.get("Content-Range", ""))
        same = not response.headers.get("ETag") or response.headers["ETag"] == partial.etag
        if start != offset or not same or (partial.bytes is not None and total not in {None, partial.bytes}):
            self.discard()
            raise Interrupted("it went on with something else than was asked for", attempts=ATTEMPTS)
        self._check_size(total or 0)
        self._receive(response, offset, until)
        whole = total or partial.bytes
        if whole is not None and self.file.stat().st_size < whole:  # a server may give less than was asked for
            raise Interrupted("it gave only a part of what is missing", attempts=ATTEMPTS)
        return partial

    def _receive(self, response: httpx2.Response, offset: int, until: float) -> None:
        """Write the body behind what is there, synced a stretch at a time."""
        with self.file.open("r+b" if offset else "wb") as file:
            file.truncate(offset)
            file.seek(offset)
            for chunk in _read_body(response):
                stretch = STRETCH_BYTES - offset % STRETCH_BYTES
                for piece in (chunk[:stretch], *_split(chunk[stretch:], STRETCH_BYTES)):
                    file.write(piece)
                    offset += len(piece)
                    if offset % STRETCH_BYTES == 0:
                        _sync(file)
                self._check_size(offset)
                if time.monotonic() > until:
                    raise Interrupted(f"it did not end within {FETCH_SECONDS:.0f} s", attempts=1)
            _sync(file)

    def _check_size(self, size: int) -> None:
        if size > self.limits.archive_bytes:
            self.discard()
            message = f"{self.link.shown} has more than {self.limits.archive_bytes} bytes, the most that is fetched."
            hint = "Split it into several sources, leave big data files out of it, or use a git or volume source."
            raise UnsupportedSource(message, hint)

    def _find_synced(self) -> int:
        """Bytes of a former process's download that can be trusted."""
        if not self.file.exists():
            return 0
        return max(self.file.stat().st_size - 1, 0) // STRETCH_BYTES * STRETCH_BYTES

    def _load_notes(self) -> Validators | None:
        try:
            return Validators(**json.loads(self._notes.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None  # half written by a killed process, or by another version: begin anew

    def _save_notes(self, validators: Validators) -> None:
        self._notes.write_text(json.dumps(asdict(validators)))

    def _give_up(self, cut: Interrupted, attempts: int) -> SourceUnavailable:
        times = "" if attempts == 1 else f" (tried {attempts} times)"
        hint = cut.hint or "Check the URL, and that the cluster's network and proxy let the scan reach it."
        return SourceUnavailable(f"{self.link.shown} can't be fetched: {cut}{times}.", hint)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _split(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def _read_body(response: httpx2.Response) -> Iterator[bytes]:
    """The body as it is sent. Raises: Interrupted when it ends too early."""
    with interruptions():
        # Whatever came is given at once: of pieces of one size the last one would be lost in a cut.
        yield from response.iter_raw()


@contextmanager
def interruptions() -> Iterator[None]:
    """Tells a connection that broke as what may be tried again."""
    try:
        yield
    except httpx2.TransportError as error:
        raise Interrupted(str(error) or type(error).__name__, attempts=ATTEMPTS) from error
