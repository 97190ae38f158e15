"""The examples for GitOps as Flux and Argo CD apply them: server-side, every few minutes, beside the real operator.

Left out: Flux and Argo CD themselves. What they do is apply, compare and read the status, which kubectl does here.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from codetune_api.crd import KINDS
from kustomizing import OVERLAYS, render_text
from unit.operator.kstatus import kstatus

if TYPE_CHECKING:
    from integration.conftest import Installation

Obj = dict[str, Any]
OURS = {kind.model.__name__ for kind in KINDS}
SERVER_SIDE = ("--server-side", "--field-manager=kustomize-controller")


class Stage:
    """An overlay on the cluster."""

    def __init__(self, installation: "Installation", overlay: Path) -> None:
        self.installation, self.name, self.text = installation, f"codetune-{overlay.name}", render_text(overlay)
        self.objects: list[Obj] = [obj for obj in yaml.safe_load_all(self.text) if obj["kind"] in OURS]

    def kubectl(self, *arguments: str, text: str | None = None, check: bool = True) -> str:
        return self.installation.cluster.kubectl(*arguments, text=text, check=check)

    def apply(self) -> None:
        """As a GitOps tool does at each interval."""
        self.kubectl("apply", *SERVER_SIDE, "--validate=strict", "-f", "-", text=self.text)

    def await_no_difference(self) -> None:
        """What the next apply would change is nothing. A status may change while kubectl compares; a spec that does not
        hold what git says, or more than that, is different each time."""

        found = ""

        def look() -> bool:
            nonlocal found
            found = self.kubectl("diff", *SERVER_SIDE, "-f", "-", text=self.text, check=False)
            return not found

        try:
            self.installation.cluster.wait_for(look, "nothing is different", 30)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{found}") from error

    def read(self) -> dict[str, Obj]:
        """Our resources as they are, by kind."""
        return {obj["kind"]: self.read_one(obj["kind"], obj["metadata"]["name"]) for obj in self.objects}

    def read_one(self, kind: str, name: str) -> Obj:
        look = ("get", kind, name, "-n", self.name, "-o", "json", "--show-managed-fields")
        found: Obj = json.loads(self.kubectl(*look))
        return found

    def named(self, kind: str) -> str:
        """`kind/name` of the only one of a kind."""
        (name,) = [obj["metadata"]["name"] for obj in self.objects if obj["kind"] == kind]
        return f"{kind}/{name}"

    def wait_for_the_operator(self) -> dict[str, Obj]:
        """Until it has said something about every resource as it is now."""

        def look() -> dict[str, Obj] | None:
            found = self.read()
            seen = [obj["status"].get("observedGeneration") == obj["metadata"]["generation"] for obj in found.values()]
            return found if all(seen) else None

        found: dict[str, Obj] = self.installation.cluster.wait_for(look, "the operator has seen all of it", 60)
        return found


def own(obj: Obj) -> Obj:
    """What a GitOps tool's field manager owns of an object, and since when."""
    (entry,) = [found for found in obj["metadata"]["managedFields"] if found["manager"] == "kustomize-controller"]
    return dict(entry)


@pytest.fixture(params=OVERLAYS, ids=lambda path: path.name)
def stage(request: pytest.FixtureRequest, installation: "Installation") -> Iterator[Stage]:
    if installation.process is None:
        installation.start_operator()
    made = Stage(installation, request.param)
    yield made
    made.kubectl("delete", "namespace", made.name, "--ignore-not-found", "--timeout=60s")


def test_what_is_applied_again_changes_nothing(stage: Stage) -> None:
    stage.apply()
    before = stage.wait_for_the_operator()
    stage.await_no_difference()

    stage.apply()

    after = stage.read()
    for kind, obj in before.items():
        assert own(after[kind]) == own(obj)
        assert after[kind]["metadata"]["generation"] == obj["metadata"]["generation"]


def test_what_git_does_not_say_is_left_to_others(stage: Stage) -> None:
    stage.apply()
    stage.wait_for_the_operator()
    server = stage.named("ModelDeployment")
    stage.kubectl("scale", server, "--replicas=0", "-n", stage.name)
    stage.kubectl("annotate", stage.named("Project"), "codetune.dev/rescan=now", "-n", stage.name)
    stage.kubectl(
        "patch", stage.named("FineTune"), "--type=merge", "-p", '{"spec": {"suspend": true}}', "-n", stage.name
    )
    stage.wait_for_the_operator()
    stage.await_no_difference()

    stage.apply()

    found = stage.read()
    assert found["ModelDeployment"]["spec"]["replicas"] == 0
    assert found["FineTune"]["spec"]["suspend"] is True
    assert found["Project"]["metadata"]["annotations"]["codetune.dev/rescan"] == "now"


def test_a_resource_is_in_progress_from_its_first_moment_on(stage: Stage) -> None:
    with stage.installation.without_operator():
        stage.apply()
        assert {kind: kstatus(obj) for kind, obj in stage.read().items()} == dict.fromkeys(OURS, "InProgress")
    seen = stage.wait_for_the_operator()
    assert all(obj["status"]["conditions"] for obj in seen.values())


def test_another_base_model_in_git_is_refused_before_anything_is_changed(stage: Stage) -> None:
    stage.apply()
    stage.wait_for_the_operator()
    changed = stage.text.replace("Qwen2.5-Coder-1.5B", "Qwen2.5-Coder-3B")
    said = stage.kubectl("apply", *SERVER_SIDE, "--dry-run=server", "-f", "-", text=changed, check=False)
    assert said.count("baseModel can't be changed once set: make a new resource for another base model") == 2
