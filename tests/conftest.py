"""Options of the whole test run."""

import os

import pytest
from hypothesis import settings

# The same examples in each run, so that a change and not chance turns a test red. To look for more:
# HYPOTHESIS_PROFILE=searching pytest …
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("searching", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--kubeconfig FILE`: what tests/conformance runs against."""
    parser.addoption("--kubeconfig", default=None, metavar="FILE", help="run tests/conformance against this cluster")
