"""The store service of one namespace: takes uploads, and shows what scans and runs left in the artifact store.

It holds no API credentials and decides nothing: it is reached through the API server's service proxy, with a token
that the operator made, and knows only folders and files. It imports neither vLLM nor torch, and runs from the
operator's image.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("codetune-server")
except PackageNotFoundError:  # run from a checkout that was not installed
    __version__ = "0"
