"""What both readers of archives give: entries, one after the other. Pure values."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from codetune_trainer.errors import InvalidArchive


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of an archive, or something that stands where a file could."""

    name: bytes
    """As it stands in the archive, with `/` between its parts."""
    size: int
    """Bytes, as the archive says."""
    obstacle: str = ""
    """Why it can't be read; empty for a normal file."""
    folder: bool = False
    """A folder: of interest only when its name is refused."""
    content: Iterator[bytes] = field(default_factory=lambda: iter(()))
    """Its bytes in pieces; to be read before the next entry is asked for, or not at all."""


def damaged(what: str) -> InvalidArchive:
    """The failure of an archive that is not whole."""
    hint = "Make it anew and check it with `tar -tf` or `unzip -t`; set archive.sha256 to prove that it came whole."
    return InvalidArchive(f"The archive is damaged or was cut: {what}.", hint)


def too_many_entries(limit: int) -> InvalidArchive:
    """The failure of an archive with more entries than are read."""
    hint = "Split it into several sources, or use a git or volume source."
    return InvalidArchive(f"The archive has more than {limit} entries.", hint)


def too_long_names(limit: int) -> InvalidArchive:
    """Names that together are longer than is taken."""
    hint = "Leave folders out that nobody reads, or split the archive into several sources."
    return InvalidArchive(f"The archive's names have more than {limit} bytes together.", hint)
