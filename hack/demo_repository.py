"""A real git repository with one commit, made from a pure-Python package that pip installed."""

import argparse
import importlib.metadata
import os
import shutil
import subprocess
import tempfile
from pathlib import Path


def make_repository(package: str, target: Path) -> None:
    """Write a bare repository of the package's .py files to `target`. Raises: PackageNotFoundError."""
    distribution = importlib.metadata.distribution(package)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for file in distribution.files or []:
            if file.suffix == ".py":
                destination = tree / file
                destination.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(distribution.locate_file(file).__fspath__(), destination)
        _commit(tree, f"{package} {distribution.version}")
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        _git(tree, "clone", "--quiet", "--bare", ".", str(target.resolve()))


def _commit(tree: Path, message: str) -> None:
    _git(tree, "init", "--quiet", "--initial-branch=main")
    _git(tree, "add", "--all")
    _git(tree, "commit", "--quiet", "--message", message)


def _git(tree: Path, *arguments: str) -> None:
    # A fixed author and date: the same package always gives the same commit.
    identity = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in {
            "NAME": "Codetune demo",
            "EMAIL": "demo@codetune.dev",
            "DATE": "2026-01-01T00:00:00Z",
        }.items()
    }
    subprocess.run(["git", *arguments], cwd=tree, check=True, env={**os.environ, **identity})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package")
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    make_repository(options.package, options.target)
