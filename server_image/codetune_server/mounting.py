"""The set of adapters that a pod finds in its mounted ConfigMap: what it begins with, until the operator tells it more.

The kubelet renews such a file within about a minute. What it held at the start may be older than what the operator
wants, and an operator that can't reach the pod has only this way to tell it: so the file is looked at again and again,
until the first set comes over HTTP. From then on the file would only be late.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from codetune_api.contracts import DesiredAdapters
from pydantic import ValidationError

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0


class MountedSet:
    """The file, and what was last read from it."""

    def __init__(self, path: Path | None, *, look_seconds: float = LOOK_SECONDS) -> None:
        self._path = path
        self._look_seconds = look_seconds
        self._content: bytes | None = None
        self._is_superseded = path is None

    def read(self) -> tuple[DesiredAdapters, str]:
        """The set at the start, and why it could not be read (then it is empty)."""
        if self._path is None:
            return DesiredAdapters(), ""
        try:
            self._content = self._path.read_bytes()
            return parse_desired(self._content), ""
        except (OSError, ValueError) as error:
            problem = f"the adapters of this pod can't be read from {self._path}: {error}"
            logger.error("%s", problem)
            return DesiredAdapters(), problem

    def supersede(self) -> None:
        """Somebody who knows better has spoken."""
        self._is_superseded = True

    async def follow(self, adopt: Callable[[DesiredAdapters], object]) -> None:
        """Hand over each set that the file holds later; returns when it is superseded."""
        while not self._is_superseded:
            await asyncio.sleep(self._look_seconds)
            if not self._is_superseded and (desired := self._renewed()):
                logger.info("the mounted set of adapters has changed")
                adopt(desired)

    def _renewed(self) -> DesiredAdapters | None:
        assert self._path is not None
        try:
            content = self._path.read_bytes()
            if content == self._content:
                return None
            self._content = content
            return parse_desired(content)
        except (OSError, ValueError) as error:
            logger.warning("the mounted set of adapters can't be read now: %s", error)
            return None


def parse_desired(body: bytes) -> DesiredAdapters:
    """A desired set from its JSON. Raises: ValueError saying what is wrong with it."""
    try:
        desired = DesiredAdapters.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the body"
        raise ValueError(f"{place}: {first['msg']}") from error
    names = [adapter.name for adapter in desired.adapters]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ValueError(f"each adapter needs its own name; {', '.join(double)} stands there more than once")
    return desired
