"""What every pod of the node needs: the API client, the Event recorder, the pools, the state folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from codetune_local.kubelet.addressing import AddressPool
from codetune_local.kubelet.devices import CorePool
from codetune_local.kubelet.hostnames import HostNames
from codetune_local.kubelet.podfolders import PodFolder
from codetune_local.kubelet.settings import KubeletSettings
from codetune_local.machinery.client import Client
from codetune_local.machinery.recording import Recorder
from codetune_local.machinery.times import Clock, utc_now

_ALIAS_LENGTH = 12


@dataclass
class NodeServices:
    """Shared by all pods of the node."""

    client: Client
    recorder: Recorder
    state: Path
    short_folder: Path
    """Holds a short link to each pod's folder."""
    addresses: AddressPool
    settings: KubeletSettings
    allocatable: Mapping[str, str]
    names: HostNames
    cores: CorePool = field(default_factory=CorePool)
    clock: Clock = utc_now
    addresses_in_use: dict[str, str] = field(default_factory=dict)
    """Pod uid → address."""
    gpus_in_use: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Pod uid → device numbers."""

    def pod_folder(self, uid: str) -> PodFolder:
        """Where that pod's files lie."""
        return PodFolder(self.state / "pods" / uid, self.short_folder / uid.replace("-", "")[:_ALIAS_LENGTH])
