"""Unpacks gzip, bzip2, xz and zstd in small steps: what comes out is bounded, whatever goes in.

Every step asks for a bounded number of bytes, dictionaries are bounded, and what has come out is compared with what has
gone in after each step.
"""

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from codetune_trainer.errors import InvalidArchive
from codetune_trainer.scan.archive.limits import Limits

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHUNK_BYTES = 1 << 18
_MEMORY_BYTES = 128 * 2**20
"""Memory of an xz decoder; `xz -9` needs half of it."""
_WINDOW_LOG = 27
"""128 MiB: what `zstd -d` takes without being asked to take more."""

DAMAGE = (zlib.error, lzma.LZMAError, zstd.ZstdError, EOFError, OSError, ValueError)
"""What the decoders raise for bytes that are none of theirs; bz2 raises OSError and ValueError."""


class Decoder(Protocol):
    """What bz2, lzma and zstd have in common."""

    @property
    def eof(self) -> bool:
        """Whether the stream is at its end."""

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes out without more going in."""

    @property
    def unused_data(self) -> bytes:
        """What went in and lies behind the end."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most `max_length` bytes."""


class Inflate:
    """zlib in the shape of the other decoders.

    Args:
        window_bits: zlib's `wbits`: 31 for gzip, -15 for what zip has.
    """

    def __init__(self, window_bits: int) -> None:
        self._inner = zlib.decompressobj(window_bits)
        self._full = False

    @property
    def eof(self) -> bool:
        """Whether the stream is at its end."""
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes out without more going in."""
        return not self._full and not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        """What went in and lies behind the end."""
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most `max_length` bytes."""
        done = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self._full = len(done) == max_length  # zlib may hold more although it took all that it was given
        return done


def open_xz() -> Decoder:
    """A decoder of xz."""
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY_BYTES)


def open_lzma_alone() -> Decoder:
    """A decoder of what zip calls LZMA, under a header of its own."""
    return lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MEMORY_BYTES)


def open_zstd() -> Decoder:
    """A decoder of zstd."""
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})


@dataclass(frozen=True)
class Packing:
    """A way to pack one stream of bytes."""

    name: str
    magics: tuple[bytes, ...]
    """What a stream begins with."""
    open: Callable[[], Decoder]


PACKINGS = (
    Packing("gzip", (b"\x1f\x8b\x08",), lambda: Inflate(31)),
    Packing("bzip2", (b"BZh",), bz2.BZ2Decompressor),
    Packing("xz", (b"\xfd7zXZ\0",), open_xz),
    Packing("zstd", (b"\x28\xb5\x2f\xfd", *(bytes([0x50 + i]) + b"\x2a\x4d\x18" for i in range(16))), open_zstd),
)


class Bounds:
    """Counts what came out of an archive, against what went in.

    Args:
        limits: What is allowed.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.unpacked = 0

    def add(self, unpacked: int, packed_so_far: int) -> None:
        """Some more came out. Raises: InvalidArchive when it is too much."""
        self.unpacked += unpacked
        limits = self._limits
        if self.unpacked > limits.unpacked_bytes:
            hint = "Split it into several sources, or use a git or volume source."
            raise InvalidArchive(f"The archive unpacks to more than {limits.unpacked_bytes} bytes.", hint)
        if self.unpacked > max(limits.ratio_free_bytes, limits.ratio * packed_so_far):
            hint = "Leave files of that kind out of the archive, or use a git or volume source."
            message = f"The archive unpacks to more than {limits.ratio} times its size, as a decompression bomb does."
            raise InvalidArchive(message, hint)


class PlainStream:
    """Bytes of a tar that is not packed.

    Args:
        file: The archive, at its beginning.
        bounds: Gets every byte that is read.
    """

    def __init__(self, file: BinaryIO, bounds: Bounds) -> None:
        self._file = file
        self._bounds = bounds
        self._read = 0

    def read(self, size: int) -> bytes:
        """So many bytes, fewer at the end only. Raises: InvalidArchive when it is beyond a limit."""
        data = self._file.read(size)
        self._read += len(data)
        self._bounds.add(len(data), self._read)
        return data


class PackedStream:
    """Bytes of a packed tar; streams that follow each other are one, as the packers' own tools have it.

    Args:
        file: The archive, at its beginning.
        packing: How it is packed.
        bounds: Gets every byte that comes out.
    """

    def __init__(self, file: BinaryIO, packing: Packing, bounds: Bounds) -> None:
        self._file = file
        self._packing = packing
        self._bounds = bounds
        self._decoder: Decoder | None = packing.open()
        self._input = b""
        self._packed = 0
        self._ready = bytearray()

    def read(self, size: int) -> bytes:
        """So many bytes, fewer at the end only.

        Raises:
            InvalidArchive: The stream is damaged or cut, or beyond a limit.
        """
        while len(self._ready) < size and self._decoder is not None:
            self._step()
        data = bytes(self._ready[:size])
        del self._ready[:size]
        return data

    def _step(self) -> None:
        assert self._decoder is not None
        if self._decoder.eof:
            self._begin_next()
            return
        if self._decoder.needs_input and not self._input and not self._fill():
            raise self._damaged("it ends in the middle")
        data, self._input = self._input, b""
        try:
            out = self._decoder.decompress(data, CHUNK_BYTES)
        except DAMAGE as error:
            raise self._damaged(str(error)) from error
        self._bounds.add(len(out), self._packed)
        self._ready += out

    def _begin_next(self) -> None:
        """Another stream behind the one that ended, padding, or the end."""
        assert self._decoder is not None
        self._input = self._decoder.unused_data
        while not self._input.strip(b"\0"):
            self._input = b""
            if not self._fill():
                self._decoder = None
                return
        self._input = self._input.lstrip(b"\0")
        longest = max(map(len, self._packing.magics))
        while len(self._input) < longest and self._fill():
            pass
        if not self._input.startswith(self._packing.magics):
            raise self._damaged("bytes follow its end that belong to nothing")
        self._decoder = self._packing.open()

    def _fill(self) -> bool:
        data = self._file.read(CHUNK_BYTES)
        self._packed += len(data)
        self._input += data
        return bool(data)

    def _damaged(self, said: str) -> InvalidArchive:
        if "emory" in said or "window" in said.lower():
            hint = "Pack it again with a smaller window: at most `xz -9` or `zstd --long=27`."
            return InvalidArchive(f"The {self._packing.name} stream needs more memory than is given: {said}.", hint)
        message = f"The archive is damaged or was cut: its {self._packing.name} stream can't be unpacked: {said}."
        return InvalidArchive(message, "Make it anew and check it with `tar -tf`; set archive.sha256 to prove it.")
