"""Names of pods under headless Services: a file in place of cluster DNS."""

from pathlib import Path
from typing import Any

import pytest
from codetune_local.images.catalog import Image
from codetune_local.kubelet.hostnames import HostNames
from codetune_local.kubelet.launching import Placement, build_launch
from codetune_local.kubelet.podfolders import PodFolder

Obj = dict[str, Any]


def make_pod(**spec: Any) -> Obj:
    return {"metadata": {"name": "p", "namespace": "team"}, "spec": spec}


FIRST = make_pod(hostname="run-0", subdomain="nodes")
FIRST_NAMES = "run-0.nodes.team.svc.cluster.local run-0.nodes.team.svc run-0.nodes.team"


@pytest.fixture
def names(tmp_path: Path) -> HostNames:
    return HostNames(tmp_path / "hosts")


def test_a_pod_has_the_names_that_dns_would_give_it(names: HostNames) -> None:
    names.add(FIRST, "127.130.0.1")
    assert names.path.read_text() == f"127.130.0.1 {FIRST_NAMES}\n"


def test_the_pod_that_came_last_has_the_name_whoever_leaves_later(names: HostNames) -> None:
    names.add(FIRST, "127.130.0.1")
    names.add(FIRST, "127.130.0.2")
    names.remove(FIRST, "127.130.0.1")
    assert names.path.read_text() == f"127.130.0.2 {FIRST_NAMES}\n"
    names.remove(FIRST, "127.130.0.2")
    assert names.path.read_text() == ""


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(make_pod(), id="neither"),
        pytest.param(make_pod(hostname="run-0"), id="no subdomain"),
        pytest.param(make_pod(subdomain="nodes"), id="no hostname"),
    ],
)
def test_a_pod_without_hostname_and_subdomain_has_none(names: HostNames, pod: Obj) -> None:
    names.add(pod, "127.130.0.1")
    assert not names.path.exists()


@pytest.mark.parametrize("hosts", [Path("/state/hosts"), None])
def test_only_a_pod_with_a_name_is_told_of_the_file(hosts: Path | None) -> None:
    placement = Placement(PodFolder(Path("/state/pods/u")), {}, "127.130.0.1", (), (), hosts)
    found = build_launch(FIRST, {"name": "main", "command": ["true"]}, Image(), {}, 0, placement)
    assert found.env.get("CODETUNE_HOSTS") == (str(hosts) if hosts else None)
