"""The images that the local cluster knows. An image is matched by the last part of its repository name. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_REFERENCE = re.compile(
    r"^(?P<repository>[^@]+?)(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@(?P<digest>[\w+.-]+:[0-9a-fA-F]+))?$"
)

PYTHON_NAMES = ("python", "python3")
"""A command that begins with one of these runs this installation's interpreter."""


@dataclass(frozen=True)
class Image:
    """What an image would say about how to run it."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    """The default arguments."""
    env: Mapping[str, str] = field(default_factory=dict)


_PYTHON_ENV = {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
_CATALOG: dict[str, Image] = {
    "codetune-trainer": Image(("python3", "-m", "codetune_trainer"), env=_PYTHON_ENV),
    "codetune-server": Image(("python3", "-m", "codetune_server"), env=_PYTHON_ENV),
    "codetune-server-cpu": Image(("python3", "-m", "codetune_server"), env=_PYTHON_ENV),
    "codetune-operator": Image(("python3", "-m", "codetune_operator"), env=_PYTHON_ENV),
    # For tests and try-outs: programs of this host under the names of well-known small images.
    "exec": Image(),
    "busybox": Image(command=("sh",)),
    "python": Image(command=("python3",), env={"PYTHONUNBUFFERED": "1"}),
}


def find_image(reference: str) -> Image | None:
    """The image of that name, whatever its registry, tag and digest; None when this cluster has none."""
    match = _REFERENCE.match(reference)
    if match is None:
        return None
    return _CATALOG.get(match["repository"].rpartition("/")[2])


def list_known_images() -> list[str]:
    """Names for messages."""
    return sorted(_CATALOG)
