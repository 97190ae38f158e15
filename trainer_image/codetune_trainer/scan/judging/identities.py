"""Tells by what is listed of a file whether it is one that an earlier scan judged. Pure."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codetune_trainer.scan.records import UNSETTLED, Found
from codetune_trainer.scan.sources.preparing import Readable
from codetune_trainer.scan.sources.volumes import Looked, describe

IDENTITY = "S16"

Places = npt.NDArray[np.int64]


def identify(source: Readable, paths: Sequence[Found | bytes], seen: Sequence[Looked]) -> list[bytes]:
    """Of each file 16 bytes that change when its verdict could; empty when nothing tells that it didn't.

    Args:
        source: Where the files are.
        paths: As they were listed.
        seen: What was seen of each.
    """
    begun = hashlib.blake2b(f"{source.name}\0{source.digest}\0".encode(), digest_size=16)
    return [
        _identify(begun.copy(), describe(path, one))
        if isinstance(path, Found) or isinstance(one, Found)
        else _identify_plain(begun.copy(), path, one)
        for path, one in zip(paths, seen, strict=True)
    ]


def _identify(digest: "hashlib.blake2b", found: Found) -> bytes:
    path, key, size, obstacle, stamp = found
    if stamp == UNSETTLED:
        return b""
    digest.update(f"{path}\0{size}\0{stamp}\0{obstacle}\0".encode() + key)
    return digest.digest()


def _identify_plain(digest: "hashlib.blake2b", path: bytes, seen: os.stat_result) -> bytes:
    digest.update(b"%b\0%d %d %d %d" % (path, seen.st_size, seen.st_ino, seen.st_mtime_ns, seen.st_ctime_ns))
    return digest.digest()


@dataclass(frozen=True)
class Known:
    """The files that an earlier scan judged, by their identities; a plain value that is sent to other processes."""

    identities: npt.NDArray[np.bytes_]
    """In the order in which that scan listed them."""
    order: Places
    """Sorts them."""

    @classmethod
    def of(cls, identities: npt.NDArray[np.bytes_]) -> "Known":
        """Those with these identities, of which there is at least one."""
        return cls(np.ascontiguousarray(identities), np.argsort(identities, kind="stable"))

    def find(self, identities: Sequence[bytes]) -> Places:
        """The place of each file, -1 where it is not known; fastest where they are listed in the same order."""
        asked = np.array(identities, IDENTITY)
        first = self._search(asked[:1])
        places = np.minimum(np.arange(len(asked)) + first, len(self.identities) - 1)
        elsewhere = self.identities[places] != asked
        places[elsewhere] = self._search(asked[elsewhere])
        return np.where((self.identities[places] == asked) & (asked != b""), places, -1)

    def _search(self, asked: npt.NDArray[np.bytes_]) -> Places:
        found = np.searchsorted(self.identities, asked, sorter=self.order)
        places: Places = self.order[np.minimum(found, len(self.order) - 1)]
        return places
