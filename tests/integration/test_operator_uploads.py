"""Uploads on a local cluster, from `kubectl codetune upload` to the dataset: the real operator, store service and scan.

Every request of the command goes through the API server's service proxy with the rights of a person, not of an admin.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from integration.conftest import Team

Obj = dict[str, Any]

CODE = {
    ".gitignore": "build/\n*.secret\n!keep.secret\n",
    "shop/cart.py": "def total(items):\n    return sum(item.price for item in items)\n",
    "shop/order.py": "class Order:\n    def __init__(self, items):\n        self.items = items\n",
    "shop/tax.py": "def tax(amount):\n    return amount * 19 / 100\n",
    "build/made.py": "MADE = 1\n",
    "token.secret": "not to be sent\n",
}
ROLE = Path(__file__).parents[2] / "examples" / "uploads" / "role.yaml"
"""The smallest role that will do."""


def make_project(*sources: Obj, name: str = "shop") -> Obj:
    listed = list(sources) or [{"name": "code", "upload": {}}]
    return {
        "apiVersion": "codetune.dev/v1alpha1",
        "kind": "Project",
        "metadata": {"name": name},
        "spec": {"sources": listed},
    }


class Person:
    """Somebody with the rights above and a kubeconfig."""

    def __init__(self, team: "Team", folder: Path) -> None:
        self.team, self.folder = team, folder
        role = yaml.safe_load(ROLE.read_text())
        team.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "person"}},
            role,
            {
                "apiVersion": role["apiVersion"],
                "kind": "RoleBinding",
                "metadata": {"name": "person"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role["metadata"]["name"]},
                "subjects": [{"kind": "ServiceAccount", "name": "person", "namespace": team.name}],
            },
        )
        config = yaml.safe_load(team.installation.cluster.kubeconfig.read_text())
        config["users"] = [{"name": "person", "user": {"token": team.kubectl("create", "token", "person").strip()}}]
        config["contexts"][0]["context"] |= {"user": "person", "namespace": team.name}
        self.kubeconfig = folder / "person.kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(config))

    def write(self, files: dict[str, str]) -> Path:
        """A folder of this person. Returns: the folder."""
        root = self.folder / "work"
        for path, text in files.items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        return root

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """`kubectl codetune …`, through kubectl itself, as a person types it."""
        programs = self.folder / "bin"
        if not programs.exists():
            programs.mkdir()
            plugin = programs / "kubectl-codetune"
            plugin.write_text(f'#!/bin/sh\nexec {sys.executable} -m codetune_cli "$@"\n')
            plugin.chmod(0o755)
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": f"{programs}:{os.environ['PATH']}"}
        kubectl = str(Path(sys.executable).parent / "kubectl")
        return subprocess.run(
            [kubectl, "codetune", *arguments], env=environment, capture_output=True, text=True, timeout=100, check=False
        )

    def do(self, *arguments: str) -> str:
        """The same, which must succeed. Returns: what it prints."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def person(team: "Team", tmp_path: Path) -> Person:
    return Person(team, tmp_path)


def test_an_upload_becomes_a_dataset_that_can_be_browsed(team: "Team", person: Person) -> None:
    team.apply(make_project())
    waiting = team.wait_for_phase("cproj", "shop", "Failed")["status"]
    assert waiting["failure"]["reason"] == "UploadMissing"
    assert "kubectl codetune upload shop PATH --source code" in waiting["conditions"][0]["message"]
    folder = person.write(CODE)

    told = person.do("upload", "shop", str(folder))

    project = team.wait_for_phase("cproj", "shop", "Ready")
    assert project["status"]["files"]["accepted"] == 3
    assert f"sha256:{project['status']['sources'][0]['commit']}" in told
    rows = [json.loads(line) for line in person.do("files", "shop", "-o", "json").splitlines()]
    assert {row["path"] for row in rows} == {f"code/{path}" for path in CODE if path[:5] not in {"build", "token"}}
    assert person.do("files", "shop", "--rejected").splitlines()[1].split()[:2] == ["rejected", "NotSelected"]
    assert len(person.do("files", "shop", "--accepted", "shop/t*.py").splitlines()) == 2

    again = person.do("upload", "shop", str(folder))
    assert "scanned these very files already" in again

    person.write({"shop/more.py": "MORE = 1\n"})
    person.do("upload", "shop", str(folder))
    team.wait_until(lambda: team.status("cproj", "shop")["files"]["accepted"] == 4, "the new file is in the dataset")

    kept = team.store() / team.name / "projects/shop"
    assert (kept / "uploads/code/CURRENT.json").exists()
    team.kubectl("delete", "cproj", "shop", "--timeout=60s")
    assert not kept.exists()


def test_the_store_service_is_there_only_while_it_is_needed(team: "Team", person: Person) -> None:
    git = {"name": "app", "git": {"url": team.repository("app", CODE)}}
    team.apply(make_project(git))
    team.wait_for_phase("cproj", "shop", "Ready")
    assert team.names("deployments") == []

    assert "shop/cart.py" in person.do("files", "shop")  # asks for it
    assert team.names("deployments") == ["codetune-store"]
    team.kubectl("annotate", "cproj", "shop", "codetune.dev/store-until=2026-01-01T00:00:00Z", "--overwrite")
    team.wait_until(lambda: not team.names("deployments") and not team.names("pods"), "it went again")

    team.apply(make_project(git, {"name": "code", "upload": {}}))
    team.kubectl("wait", "--for=create", "deployment/codetune-store", "--timeout=30s")
    team.kubectl("wait", "--for=condition=Available", "deployment/codetune-store", "--timeout=60s")
    team.kubectl("delete", "cproj", "shop", "--timeout=60s")
    team.wait_until(lambda: not team.names("deployments") and not team.names("services"), "it went with its Project")
    assert "codetune-store-token" not in team.names("secrets")


MISTAKES: dict[str, tuple[str, list[str]]] = {
    "a project that is not there": ("There are: shop", ["upload", "web", "."]),
    "a project without an upload source": ("upload: {}", ["upload", "shop", "."]),
    "files of a project that is not there": ("There are: shop", ["files", "web"]),
    "a run that may not be read": ("can't be read", ["download", "run"]),
}


def test_a_mistake_is_told_with_its_cure(team: "Team", person: Person) -> None:
    team.apply(make_project({"name": "app", "git": {"url": "file:///nowhere"}}))
    for expected, arguments in MISTAKES.values():
        done = person.run(*arguments)
        assert done.returncode == 1
        assert expected in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


def test_nobody_gets_at_uploads_without_the_right(team: "Team", person: Person) -> None:
    team.apply(make_project())
    person.do("upload", "shop", str(person.write(CODE)))
    team.wait_for_phase("cproj", "shop", "Ready", 120)
    team.kubectl("patch", "role", "codetune-upload", "--type=json", "-p", '[{"op": "remove", "path": "/rules/2"}]')
    proxied = person.run("files", "shop")
    team.kubectl("patch", "role", "codetune-upload", "--type=json", "-p", '[{"op": "remove", "path": "/rules/1"}]')
    secret = person.run("upload", "shop", str(person.folder / "work"))
    assert "services/proxy" in proxied.stderr
    assert "codetune-store-token" in secret.stderr
