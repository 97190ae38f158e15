"""A Secret's volume on a folder of this machine, for tests of what reads one."""

import itertools
import os
from collections.abc import Mapping
from pathlib import Path

_numbers = itertools.count(1)


def mount(folder: Path, data: Mapping[str, str]) -> None:
    """Write a Secret's files as the kubelet does: a dated folder behind one link that is swapped."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f"..{next(_numbers)}"
    fresh.mkdir()
    for name, text in data.items():
        (fresh / name).write_text(text)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "..data_tmp").symlink_to(fresh.name)
    os.replace(folder / "..data_tmp", folder / "..data")
    for gone in {path.name for path in folder.iterdir() if not path.name.startswith("..")} - set(data):
        (folder / gone).unlink()
