"""Which version of each adapter answers, and who is still using which: plain state, no I/O.

A version is loaded into vLLM under its own name, `NAME@DIGEST12`. Switching a name to another version is one
assignment; the old one stays loaded until the last request that began with it has ended.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

DIGEST_LETTERS = 12
SEPARATOR = "@"


def version_model(name: str, digest: str) -> str:
    """The model name under which vLLM holds a version: `NAME@` and the first 12 hex digits of its digest."""
    return f"{name}{SEPARATOR}{digest.removeprefix('sha256:')[:DIGEST_LETTERS]}"


@dataclass(eq=False)
class Version:
    """One adapter version that vLLM holds."""

    name: str
    """The stable name that requests use."""
    digest: str
    folder: Path
    in_flight: int = 0
    """Requests that began with this version and have not ended."""

    @property
    def model(self) -> str:
        """The name under which vLLM holds it."""
        return version_model(self.name, self.digest)


class VersionTable:
    """The versions that vLLM holds, and the one of each name that new requests get.

    `on_idle` is called when the last request of a version ends that no name points at any more.
    """

    def __init__(self, on_idle: Callable[[], None]) -> None:
        self._on_idle = on_idle
        self._loaded: dict[str, Version] = {}
        self._current: dict[str, Version] = {}

    def __bool__(self) -> bool:
        """Whether vLLM holds any version."""
        return bool(self._loaded)

    def loaded(self, model: str) -> Version | None:
        """The version that vLLM holds under this name, serving or on its way out."""
        return self._loaded.get(model)

    def current(self, name: str) -> Version | None:
        """The version that a stable name means now."""
        return self._current.get(name)

    def names(self) -> list[str]:
        """The stable names that answer now, in the order in which they came."""
        return list(self._current)

    def add(self, version: Version) -> None:
        """Note that vLLM holds a version; nothing is routed to it yet."""
        self._loaded[version.model] = version

    def forget(self, version: Version) -> None:
        """Note that vLLM no longer holds a version. Raises: ValueError while the version is in use."""
        if version.in_flight or self._current.get(version.name) is version:
            raise ValueError(
                f"{version.model} is still in use: retire it and wait for its {version.in_flight} requests"
            )
        del self._loaded[version.model]

    def switch(self, version: Version) -> None:
        """New requests for the version's name get this version from now on."""
        self._current[version.name] = version

    def retire(self, names: Iterable[str]) -> None:
        """New requests for these names get nothing from now on."""
        for name in names:
            self._current.pop(name, None)

    def begin(self, version: Version) -> None:
        """A request starts to use a version."""
        version.in_flight += 1

    def end(self, version: Version) -> None:
        """A request has ended, well or not."""
        version.in_flight -= 1
        if not version.in_flight and self._current.get(version.name) is not version:
            self._on_idle()

    def digests(self) -> set[str]:
        """The digests of all versions that vLLM holds."""
        return {version.digest for version in self._loaded.values()}

    def unused(self) -> list[Version]:
        """The versions that nobody uses and no name points at: vLLM can let go of them."""
        return [v for v in self._loaded.values() if not v.in_flight and self._current.get(v.name) is not v]
