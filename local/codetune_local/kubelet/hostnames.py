"""Names of pods under headless Services, in a file: what cluster DNS would answer for them.

Processes share the host's resolver, which can't be told. Programs that need such a name look into this file.
"""

import os
from pathlib import Path

from codetune_local.machinery.objects import Obj, namespace_of

ENV_HOSTS = "CODETUNE_HOSTS"
"""Tells a pod with such a name where the file is; lines as in /etc/hosts."""


def list_names(pod: Obj) -> tuple[str, ...]:
    """A pod's names, the longest first; none without a hostname and a subdomain."""
    host, subdomain = pod["spec"].get("hostname"), pod["spec"].get("subdomain")
    if not host or not subdomain:
        return ()
    short = f"{host}.{subdomain}"
    service = f"{short}.{namespace_of(pod)}.svc"
    return f"{service}.cluster.local", service, f"{short}.{namespace_of(pod)}"


class HostNames:
    """The names of all pods of the node; the newest pod of a name has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._addresses: dict[tuple[str, ...], str] = {}

    def add(self, pod: Obj, address: str) -> None:
        """Name a pod that starts."""
        if names := list_names(pod):
            self._addresses[names] = address
            self._write()

    def remove(self, pod: Obj, address: str) -> None:
        """Forget a pod, unless another one has its name by now."""
        names = list_names(pod)
        if self._addresses.get(names) == address:
            del self._addresses[names]
            self._write()

    def _write(self) -> None:
        lines = [f"{address} {' '.join(names)}\n" for names, address in self._addresses.items()]
        beside = self.path.with_suffix(".part")
        beside.write_text("".join(lines))
        os.replace(beside, self.path)
