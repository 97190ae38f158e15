"""How much of an archive is believed: every bound in one place, with the reason for its size."""

from dataclasses import dataclass

from codetune_trainer.scan.rules.judge import READ_LIMIT_BYTES


@dataclass(frozen=True)
class Limits:
    """Bounds of one archive; documented in docs/sources-archive.md."""

    archive_bytes: int = 4 * 2**30
    """Bytes that are downloaded: the source of the largest public code bases, packed, and half as much again."""
    unpacked_bytes: int = 16 * 2**30
    """Bytes that are unpacked, kept or not."""
    entries: int = 500_000
    """Entries, with those that say something about other entries only."""
    ratio: int = 200
    """Bytes that may come out of one byte; source code as xz packs it has about 10, logs have about 50."""
    ratio_free_bytes: int = 256 * 2**20
    """So many bytes may come out before the ratio counts: a small archive of one repeated line is no attack."""
    name_bytes: int = 4096
    """Length of a path; no file system has longer ones."""
    all_names_bytes: int = 64 * 2**20
    """All paths together, which are held in memory: 500,000 entries with 130 bytes each, twice what Linux has."""
    header_bytes: int = 2**20
    """Length of what a tar says about one entry in front of it."""
    file_bytes: int = READ_LIMIT_BYTES
    """A larger file is listed, and its content is not kept: no rule would ever read it."""


LIMITS = Limits()
"""What holds for every Project."""
