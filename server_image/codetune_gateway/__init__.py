"""The gateway of one Team: takes OpenAI's requests with its own keys and passes each to the model that it is for.

It holds no API credentials of the cluster and keeps nothing: what it admits and where it sends it is one configuration
that the operator renders. It imports neither vLLM nor torch, and runs from the operator's image.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("codetune-server")
except PackageNotFoundError:  # run from a checkout that was not installed
    __version__ = "0"
