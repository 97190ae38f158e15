"""What can go wrong before a container runs; each ends up as a waiting reason or an Event of the pod.

KubeletError
├── ConfigError   CreateContainerConfigError: the container refers to something that does not exist
├── ImageError    ErrImagePull: no such image on this cluster
└── VolumeError   FailedMount: a volume cannot be made yet
"""


class KubeletError(Exception):
    """A pod cannot go on; the message is for its author."""


class ConfigError(KubeletError):
    """A container refers to a ConfigMap, Secret, key or field that does not exist."""


class ImageError(KubeletError):
    """The local cluster knows no such image."""


class VolumeError(KubeletError):
    """A volume cannot be made yet, or never."""
