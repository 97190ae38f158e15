"""Where the operator answers its kubelet's probes and Prometheus' scrapes."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from codetune_operator.main import ENV_POD_IP, _configure_logging, liveness_url, metrics_url
from codetune_operator.settings import Settings

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


@contextmanager
def _kept_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:], root.level = before


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_probes_leave_no_line_in_the_log(log_format: str) -> None:
    with _kept_logging():
        _configure_logging(Settings.model_validate({"logFormat": log_format}))
        assert logging.getLogger("codetune_operator.main").isEnabledFor(logging.INFO)
        assert not logging.getLogger("aiohttp.access").isEnabledFor(logging.INFO)
