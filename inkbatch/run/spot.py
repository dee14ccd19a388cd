"""The reclaim notice of a spot machine, two minutes ahead: a thread asks the instance metadata service (IMDSv2).

A container service does not pass the notice on to a batch job; at best a signal arrives in the last second. So the job
asks for itself: a token by ``PUT /latest/api/token``, then ``GET /latest/meta-data/spot/instance-action`` every few
seconds. 404 means that nothing is planned; a JSON object with ``action`` and ``time`` is the notice.

``INKBATCH_SPOT_WATCH`` is ``auto`` (the default: watch inside AWS Batch, on EC2, or where
``AWS_EC2_METADATA_SERVICE_ENDPOINT`` is set) or ``off``; ``AWS_EC2_METADATA_DISABLED=true`` switches it off, too.
"""

from __future__ import annotations

import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path

from inkbatch.errors import ConfigError
from inkbatch.run.signals import StopFlag

ENDPOINT = "http://169.254.169.254"
POLL_S = 5.0
TIMEOUT_S = 1.0
FAILURES_UNTIL_OFF = 3
_TOKEN_TTL_S = 21600
_VENDOR_FILE = Path("/sys/devices/virtual/dmi/id/sys_vendor")

Note = Callable[[str], None]


class SpotMetadata:
    """The two requests, with a token that is renewed when it is refused."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._token = ""
        # Link-local addresses are never asked for through a proxy.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def notice(self) -> str | None:
        """Return the reclaim notice in words; None if there is none.

        Raises:
            OSError, HTTPException: The service does not answer, or refuses.
            ValueError: It answers something else than a notice.
        """
        if not self._token:
            self._renew()
        try:
            text = self._get()
        except urllib.error.HTTPError as refused:
            if refused.code != HTTPStatus.UNAUTHORIZED:
                raise
            self._renew()
            text = self._get()
        return None if text is None else _in_words(text)

    def _renew(self) -> None:
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_TTL_S)}
        self._token = self._ask("/latest/api/token", "PUT", headers)

    def _get(self) -> str | None:
        try:
            headers = {"X-aws-ec2-metadata-token": self._token}
            return self._ask("/latest/meta-data/spot/instance-action", "GET", headers)
        except urllib.error.HTTPError as answer:
            if answer.code == HTTPStatus.NOT_FOUND:
                return None
            raise

    def _ask(self, path: str, method: str, headers: Mapping[str, str]) -> str:
        request = urllib.request.Request(self._endpoint + path, method=method, headers=dict(headers))
        with self._opener.open(request, timeout=TIMEOUT_S) as answer:
            return str(answer.read(4096).decode())


def _in_words(text: str) -> str:
    notice = json.loads(text)
    if not isinstance(notice, dict) or "action" not in notice:
        raise ValueError(f"metadata service: not a spot notice: {text[:100]!r}")
    return f"spot reclaim notice: {notice['action']} at {notice.get('time', 'an unstated time')}"


class SpotWatch:
    """Sets a stop flag when the reclaim notice comes; a daemon thread that never stands in the way of a job.

    Args:
        flag: Set with the notice as its reason.
        note: Told the notice, or that the watch gave up.
        endpoint: Of the metadata service.
        poll_s: Seconds between two questions.
    """

    def __init__(self, flag: StopFlag, note: Note, endpoint: str = ENDPOINT, poll_s: float = POLL_S) -> None:
        self._flag, self._note, self._poll_s = flag, note, poll_s
        self._metadata = SpotMetadata(endpoint)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="spot-watch", daemon=True)

    def start(self) -> SpotWatch:
        """Begin to watch."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the watch, and wait for its thread."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        failures = 0
        while not (self._flag.is_set or self._ended.is_set()):
            try:
                notice = self._metadata.notice()
            except (OSError, HTTPException, ValueError) as error:
                failures += 1
                if failures == FAILURES_UNTIL_OFF:
                    self._note(
                        f"spot watch: off after {failures} failures in a row ({error}); SIGTERM still stops the job"
                    )
                    return
            else:
                failures = 0
                if notice is not None:
                    self._note(f"{notice}: stopping at the next safe point")
                    self._flag.set(notice)
                    return
            self._ended.wait(self._poll_s)


def watched_endpoint(environment: Mapping[str, str] | None = None, vendor_file: Path = _VENDOR_FILE) -> str | None:
    """Return the address to ask for the notice; None if there is nothing to ask.

    Raises:
        ConfigError: ``INKBATCH_SPOT_WATCH`` is neither ``auto`` nor ``off``.
    """
    env = os.environ if environment is None else environment
    mode = env.get("INKBATCH_SPOT_WATCH", "auto")
    if mode not in ("auto", "off"):
        raise ConfigError(f"INKBATCH_SPOT_WATCH={mode!r}: expected auto or off")
    if mode == "off" or env.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return None
    named = env.get("AWS_EC2_METADATA_SERVICE_ENDPOINT")
    if named:
        return named
    return ENDPOINT if "AWS_BATCH_JOB_ID" in env or _on_ec2(vendor_file) else None


def _on_ec2(vendor_file: Path) -> bool:
    try:
        return "Amazon EC2" in vendor_file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def start_watch(flag: StopFlag, note: Note) -> SpotWatch | None:
    """Watch for the notice where this machine can give one."""
    endpoint = watched_endpoint()
    return SpotWatch(flag, note, endpoint).start() if endpoint else None
