"""Has the content behind Git LFS pointers in a mirror, as blobs of its own that refs keep for the next scan."""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from codetune_trainer.errors import SourceError, UnsupportedSource
from codetune_trainer.scan.git.lfs_server import Pointer, fetch_objects
from codetune_trainer.scan.git.mirror import Mirror
from codetune_trainer.scan.git.objects import BlobReader, Entry, describe
from codetune_trainer.scan.git.tree import StandIn
from codetune_trainer.scan.records import Found

POINTER_BYTES = 1024
"""Pointers are shorter, says the specification of Git LFS."""
MOST_BYTES = 4 * 2**30
"""All objects that one scan fetches of a repository; as much as an archive may have."""
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:[a-z0-9.-]+ [^\n]*\n)*?"
    rb"oid sha256:(?P<sha256>[0-9a-f]{64})\n(?:[a-z0-9.-]+ [^\n]*\n)*?size (?P<size>[0-9]{1,15})\n"
)
_REFS = "refs/codetune/lfs/"
_BLOBS_AT_ONCE = 256


@dataclass
class Lfs:
    """The pointers of one tree.

    Args:
        mirror: Where the tree is.
        authorization: HTTP header for the repository's own host; empty: none.
        prefix: Path of the tree inside the source; empty or with `/` at its end.
        wants: Whether a file of this path and size would be read.
    """

    mirror: Mirror
    authorization: str
    prefix: str
    wants: Callable[[Found], bool]
    _small: dict[bytes, list[str]] = field(default_factory=dict)

    def look_at(self, entry: Entry) -> None:
        """An entry of the tree, which may be a pointer."""
        found = describe(entry)
        if found.key and found.size <= POINTER_BYTES:
            self._small.setdefault(found.key, []).append(f"{self.prefix}{found.path}")

    def fetch(self) -> tuple[dict[bytes, StandIn], list[SourceError]]:
        """What stands in for each pointer, by its blob; and why objects could not be fetched, one for each.

        Raises:
            SourceError: The mirror can't be read.
        """
        pointers = dict(self._read_pointers())
        wanted = {pointer for blob, pointer in pointers.items() if self._is_wanted(blob, pointer)}
        held = self._list_held()
        missing = [pointer for pointer in wanted if pointer.sha256 not in held]
        failures = self._fetch(sorted(missing, key=lambda pointer: pointer.sha256), held)
        self._forget({pointer.sha256 for pointer in pointers.values()}, held)
        stand_ins = {blob: _stand_in(pointer, held, failures) for blob, pointer in pointers.items()}
        return stand_ins, list(failures.values())

    def _read_pointers(self) -> Iterator[tuple[bytes, Pointer]]:
        reader = BlobReader(self.mirror.folder, self.mirror.here.reading)
        try:
            left = iter(self._small)
            while blobs := list(islice(left, _BLOBS_AT_ONCE)):
                for blob, content in zip(blobs, reader.read(blobs), strict=True):
                    if match := _POINTER.fullmatch(content):
                        yield blob, Pointer(match["sha256"].decode(), int(match["size"]))
        finally:
            reader.close()

    def _is_wanted(self, blob: bytes, pointer: Pointer) -> bool:
        return any(self.wants(Found(path, b"", pointer.size)) for path in self._small[blob])

    def _fetch(self, missing: list[Pointer], held: dict[str, bytes]) -> dict[str, SourceError]:
        """Fetch objects and add them to those that are held; returns why others could not be had."""
        failures: dict[str, SourceError] = {}
        budget = MOST_BYTES
        affordable = []
        for pointer in missing:
            budget -= pointer.size
            if budget < 0:
                failures[pointer.sha256] = UnsupportedSource(f"more than {MOST_BYTES} bytes together")
            else:
                affordable.append(pointer)
        try:
            for pointer, got in fetch_objects(self.mirror.remote, self.authorization, affordable):
                if isinstance(got, SourceError):
                    failures[pointer.sha256] = got
                else:
                    held[pointer.sha256] = self._keep(pointer, got)
        except SourceError as error:
            failures |= {each.sha256: error for each in affordable if each.sha256 not in held}
        return failures

    def _keep(self, pointer: Pointer, content: bytes) -> bytes:
        # An empty file's pointer is an empty file, so there is content to give.
        blob = self.mirror.here.run("hash-object", "-w", "--stdin", data=content).strip()
        self.mirror.here.run("update-ref", self._refs + pointer.sha256, blob)
        return blob.encode()

    @property
    def _refs(self) -> str:
        return f"{_REFS}{hashlib.sha256(self.mirror.holder.encode()).hexdigest()[:16]}/"

    def _list_held(self) -> dict[str, bytes]:
        listed = self.mirror.here.run("for-each-ref", "--format=%(refname) %(objectname)", self._refs).split()
        return {name.rpartition("/")[2]: blob.encode() for name, blob in zip(listed[::2], listed[1::2], strict=True)}

    def _forget(self, named: set[str], held: dict[str, bytes]) -> None:
        gone = "".join(f"delete {self._refs}{sha256}\n" for sha256 in sorted(held.keys() - named))
        if gone:
            self.mirror.here.run("update-ref", "--stdin", data=gone.encode())


def _stand_in(pointer: Pointer, held: dict[str, bytes], failures: dict[str, SourceError]) -> StandIn:
    if pointer.sha256 in held:
        return StandIn(pointer.size, key=held[pointer.sha256])
    if pointer.sha256 in failures:
        why = failures[pointer.sha256].message.rstrip(".")
        return StandIn(pointer.size, obstacle=f"a Git LFS pointer, not fetched: {why}")
    return StandIn(pointer.size)  # larger than what would be read, so it is not asked for
