"""Options of the whole test run."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--kubeconfig FILE`: what tests/conformance runs against."""
    parser.addoption("--kubeconfig", default=None, metavar="FILE", help="run tests/conformance against this cluster")
