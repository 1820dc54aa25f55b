"""A real S3 server, moto's, which keeps its buckets in memory, and the real aws command."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from distill_local.trainer_process import free_port
from testcluster.artifacts import pythontools

TOOLS = pythontools.environment("s3", Path(__file__).with_name("pins.txt"))


@dataclass(frozen=True)
class S3:
    """The server's buckets."""

    address: str

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which `aws` finds itself and the server, and nothing of this machine's settings."""
        return {
            "PATH": f"{TOOLS.location / 'bin'}:{os.environ['PATH']}",
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
        }

    def aws(self, *arguments: str | Path) -> str:
        """Run `aws`, and return what it prints."""
        ended = subprocess.run(
            ["aws", *map(str, arguments)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout


@contextmanager
def s3_server(log: Path) -> Iterator[S3]:
    """A server without buckets, for the block; `log` gets its requests."""
    TOOLS.ensure()
    port = free_port()
    command = [TOOLS.location / "bin/python", "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while not _listens(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the S3 server does not listen"
            time.sleep(0.1)
        yield S3(f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
