"""Command line of the server image: `serve -- <vLLM arguments>`, and `drain` as the container's preStop hook."""

import argparse
import os
import sys
from collections.abc import Sequence

from codetune_server import __version__
from codetune_server.draining import drain
from codetune_server.serving import serve


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run; returns the exit code (`serve` does not return)."""
    parser = argparse.ArgumentParser(prog="codetune-server", description=__doc__)
    parser.add_argument("--version", action="version", version=f"codetune-server {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve", help="become vLLM's OpenAI-compatible server with the adapter middleware")
    serving.add_argument("arguments", nargs=argparse.REMAINDER, help="-- followed by vLLM's own arguments")
    draining = commands.add_parser("drain", help="have the server of this container take its leave, and wait for it")
    draining.add_argument("--port", type=int, default=8000, help="the server's port (default: 8000)")
    draining.add_argument("--seconds", type=float, default=60, help="longest time for requests under way (60)")
    draining.add_argument("--settle", type=float, default=5, help="shortest time, for late requests (5)")
    options = parser.parse_args(arguments)
    if options.command == "drain":
        return drain(os.environ, port=options.port, seconds=options.seconds, settle=options.settle)
    given = options.arguments
    serve(given[1:] if given[:1] == ["--"] else given)


if __name__ == "__main__":
    sys.exit(main())
