"""An address of its own for every pod and Service, out of the loopback network 127/8.

Linux answers on all of 127/8. Elsewhere only 127.0.0.1 exists; then everything shares it and ports must differ.
"""

import ipaddress
import json
import secrets
import socket
from collections.abc import Container
from pathlib import Path

from codetune_local.kubelet.shim import write_json

POD_NETWORK = ipaddress.IPv4Network("127.128.0.0/10")
SERVICE_NETWORK = ipaddress.IPv4Network("127.96.0.0/12")
SHARED_ADDRESS = "127.0.0.1"


def has_whole_loopback() -> bool:
    """Whether this host answers on more than 127.0.0.1."""
    with socket.socket() as probe:
        try:
            probe.bind((str(POD_NETWORK[1]), 0))
        except OSError:
            return False
    return True


class AddressPool:
    """Hands out addresses one after the other; where it stands is kept in a file.

    It begins at a random place, so that several clusters on one machine do not meet.
    """

    def __init__(self, network: ipaddress.IPv4Network, path: Path, *, shared: bool = False) -> None:
        self._network = network
        self._path = path
        self._shared = shared
        self._next = json.loads(path.read_text())["next"] if path.exists() else secrets.randbelow(self._size)

    @property
    def _size(self) -> int:
        return self._network.num_addresses - 2

    def take(self, in_use: Container[str]) -> str:
        """The next address that is not in use. Raises: RuntimeError when all are."""
        if self._shared:
            return SHARED_ADDRESS
        for offset in range(self._size):
            index = (self._next + offset) % self._size
            address = str(self._network[index + 1])
            if address not in in_use:
                self._next = index + 1
                write_json(str(self._path), {"next": self._next})
                return address
        raise RuntimeError(f"all addresses of {self._network} are in use: delete some pods or Services")
