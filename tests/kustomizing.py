"""What kustomize makes of a folder, by the kubectl of this environment."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

GITOPS = Path(__file__).resolve().parents[1] / "examples" / "gitops"
OVERLAYS = sorted((GITOPS / "kustomize" / "overlays").iterdir())


def render_text(folder: Path) -> str:
    """`kubectl kustomize FOLDER`."""
    kubectl = Path(sys.executable).with_name("kubectl")
    done = subprocess.run([str(kubectl), "kustomize", str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def render_kustomization(folder: Path) -> list[dict[str, Any]]:
    """The objects of a folder with a kustomization.yaml."""
    return list(yaml.safe_load_all(render_text(folder)))
