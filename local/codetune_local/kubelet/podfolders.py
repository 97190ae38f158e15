"""Where a pod's files lie below the state folder. Pure paths, and making and removing the folder itself."""

import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PodFolder:
    """`STATE/pods/UID`."""

    path: Path
    alias: Path | None = None
    """A short link to it, under which the pod's processes see their files."""

    @property
    def shown(self) -> Path:
        """What processes are told."""
        return self.alias or self.path

    @property
    def volumes(self) -> Path:
        """One folder per volume that is not a claim."""
        return self.shown / "volumes"

    @property
    def scratch(self) -> Path:
        """HOME and TMPDIR of all containers."""
        return self.shown / "scratch"

    @property
    def meta(self) -> Path:
        """What the kubelet gave this pod: address and GPUs."""
        return self.path / "pod.json"

    def container(self, name: str) -> Path:
        """All runs of a container."""
        return self.path / "containers" / name

    def attempt(self, name: str, number: int) -> Path:
        """One run of a container."""
        return self.container(name) / str(number)

    def termination_log(self, name: str, number: int) -> Path:
        """What stands for terminationMessagePath."""
        return self.shown / "containers" / name / str(number) / "termination-log"

    def shells(self, name: str) -> Path:
        """Folders of a container in which nothing lies but mounts."""
        return self.shown / "shells" / name

    def working_folder(self, name: str) -> Path:
        """The working directory when the spec names none."""
        return self.shown / "work" / name

    def make(self, container_names: list[str]) -> None:
        """Make the folders that every pod has."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.alias is not None and not self.alias.is_symlink():
            self.alias.symlink_to(self.path)
        for folder in (self.volumes, self.scratch, *(self.working_folder(name) for name in container_names)):
            folder.mkdir(parents=True, exist_ok=True)

    def remove(self) -> None:
        """Remove everything; claims are links to nowhere here and stay."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self.alias is not None:
            self.alias.unlink(missing_ok=True)
