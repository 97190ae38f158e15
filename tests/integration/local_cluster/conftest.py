"""The local cluster as its users meet it: kubectl against a real daemon, pods as real processes.

One cluster serves all tests of a file, each in a namespace of its own.
"""

import itertools
from collections.abc import Iterator

import pytest
from codetune_local.daemon.trial import TrialCluster, cluster
from integration.local_cluster.workloads import Namespace

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrialCluster]:
    deep = tmp_path_factory.mktemp("cluster") / ("deep" * 20)  # sockets must fit all the same
    with cluster(deep, "--job-backoff", "0.3", "--restart-backoff", "0.5") as running:
        yield running


@pytest.fixture
def here(shared: TrialCluster) -> Iterator["Namespace"]:
    namespace = Namespace(shared, f"test-{next(_numbers)}")
    shared.kubectl("create", "namespace", namespace.name)
    yield namespace
    shared.kubectl("delete", "namespace", namespace.name, "--wait=false", check=False)
