"""What can be set about the node."""

from dataclasses import dataclass, field

from codetune_local.kubelet.planning import Backoff

NODE_NAME = "codetune-local"
HOST_IP = "127.0.0.1"
GPU_RESOURCE = "nvidia.com/gpu"


@dataclass(frozen=True)
class KubeletSettings:
    """The node's name and its timings (seconds)."""

    node_name: str = NODE_NAME
    gpus: int = 0
    """How many `nvidia.com/gpu` the node says it has."""
    restart_backoff: Backoff = field(default_factory=Backoff)
    heartbeat: float = 10.0
    memory_check: float = 1.0
    """How often a container's memory is compared with its limit."""
    config_retry: float = 2.0
    """How long a container waits for a ConfigMap or Secret that is missing before it looks again."""
    shutdown_grace: float = 10.0
    """The longest that a pod may take to stop when the whole cluster goes down."""
