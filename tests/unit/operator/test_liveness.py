"""Where the operator answers its kubelet's probes and Prometheus' scrapes."""

import pytest
from codetune_operator.main import ENV_POD_IP, liveness_url, metrics_url

PLACES = [
    pytest.param("http://10.0.0.7", {ENV_POD_IP: "10.0.0.7"}, id="IPv4"),
    pytest.param("http://[fd00:10::7]", {ENV_POD_IP: "fd00:10::7"}, id="IPv6"),
    pytest.param(None, {ENV_POD_IP: ""}, id="no address"),
    pytest.param(None, {}, id="not in a pod"),
]


@pytest.mark.parametrize(("expected", "environment"), PLACES)
def test_probes_and_scrapes_are_answered_at_the_pods_own_address(
    expected: str | None, environment: dict[str, str]
) -> None:
    assert liveness_url(environment) == (expected and f"{expected}:8080/healthz")
    assert metrics_url(environment) == (expected and f"{expected}:8081/metrics")
