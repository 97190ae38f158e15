"""Sends what the store service lacks, in pieces that each can be sent again, so a cut costs one piece at most."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from codetune_api.storing import MissingBlob, UploadProgress, UploadRequest
from codetune_api.uploads import PACK_HEADER_BYTES, UploadHead, pack_header

from codetune_cli.errors import CliError, StoreRefused
from codetune_cli.listing import Listing
from codetune_cli.storing import StoreClient
from codetune_cli.waiting import Pause, Say, insist, sleep

T = TypeVar("T")

PIECE_BYTES = 4 * 2**20
"""Of a manifest, a pack or a large content: half of what the service takes, for proxies on the way."""
SMALL_BYTES = 1 * 2**20
"""Contents up to this size travel together."""


@dataclass(frozen=True)
class Sent:
    """What an upload came to."""

    head: UploadHead
    contents: int
    """How many contents the service lacked, of a new version or because they were damaged there."""


@dataclass(frozen=True)
class Sender:
    """One upload."""

    store: StoreClient
    project: str
    source: str
    listing: Listing
    say: Say
    pause: Pause = sleep

    def send(self, begin: Callable[[int, int], None], sent: Callable[[int], None]) -> Sent:
        """Bring all of it to the service and make it count.

        Args:
            begin: Gets the bytes to send and those that are there already, once both are known.
            sent: Gets the number of bytes of each piece that has arrived.

        Raises:
            CliError: It can't be done; what has arrived stays for another try.
        """
        self._send_manifest()
        missing = self._insist(lambda: self.store.missing(self._session))
        lacking = sum(blob.bytes - blob.offset for blob in missing)
        begin(lacking, self.listing.bytes - lacking)
        for pack in _group([blob for blob in missing if blob.bytes <= SMALL_BYTES and not blob.offset]):
            self._send_pack(pack)
            sent(sum(blob.bytes for blob in pack))
        for blob in missing:
            if blob.bytes > SMALL_BYTES or blob.offset:
                self._send_large(blob, sent)
        return Sent(self._insist(lambda: self.store.commit(self._session)), len(missing))

    @property
    def _session(self) -> str:
        return f"/v1/projects/{self.project}/uploads/{self.source}/{self.listing.session}"

    def _insist(self, attempt: Callable[[], T]) -> T:
        return insist(attempt, self.say, self.pause)

    def _send_manifest(self) -> None:
        manifest = self.listing.manifest
        request = UploadRequest(sha256=self.listing.session, bytes=len(manifest))
        progress = self._insist(lambda: self.store.begin(self.project, self.source, request))
        while not progress.complete:
            piece = manifest[progress.offset : progress.offset + PIECE_BYTES]
            progress = self._put(f"{self._session}/manifest", progress.offset, piece)

    def _send_pack(self, pack: list[MissingBlob]) -> None:
        body = b"".join(pack_header(blob.sha256, blob.bytes) + self._read(blob) for blob in pack)
        self._insist(lambda: self.store.post_pack(self._session, body))

    def _send_large(self, blob: MissingBlob, sent: Callable[[int], None]) -> None:
        offset, done = blob.offset, False
        file = self.listing.contents[blob.sha256]
        while not done:
            piece = _read_piece(file, offset, min(PIECE_BYTES, blob.bytes - offset))
            try:
                progress = self._put(f"{self._session}/blobs/{blob.sha256}", offset, piece)
            except StoreRefused as error:
                if error.reason == "DigestMismatch":
                    raise _changed(file) from error
                raise
            sent(progress.offset - offset)
            offset, done = progress.offset, progress.complete

    def _put(self, path: str, offset: int, piece: bytes) -> UploadProgress:
        """A piece whose answer was lost has arrived nevertheless: the service says from where to go on."""
        try:
            return self._insist(lambda: self.store.put(path, offset, piece))
        except StoreRefused as error:
            if error.reason != "OffsetMismatch" or error.offset is None:
                raise
            return UploadProgress(offset=error.offset, complete=False)

    def _read(self, blob: MissingBlob) -> bytes:
        file = self.listing.contents[blob.sha256]
        try:
            content = file.read_bytes()
        except OSError as error:
            raise _changed(file) from error
        if hashlib.sha256(content).hexdigest() != blob.sha256:
            raise _changed(file)
        return content


def _group(blobs: list[MissingBlob]) -> Iterator[list[MissingBlob]]:
    """Packs of at most `PIECE_BYTES`."""
    pack: list[MissingBlob] = []
    held = 0
    for blob in blobs:
        size = blob.bytes + PACK_HEADER_BYTES
        if pack and held + size > PIECE_BYTES:
            yield pack
            pack, held = [], 0
        pack.append(blob)
        held += size
    if pack:
        yield pack


def _read_piece(file: Path, offset: int, size: int) -> bytes:
    try:
        with file.open("rb") as content:
            content.seek(offset)
            piece = content.read(size)
    except OSError as error:
        raise _changed(file) from error
    if len(piece) != size:
        raise _changed(file)
    return piece


def _changed(file: Path) -> CliError:
    return CliError(f"{file} was changed or removed while it was sent: run the same command again.")
