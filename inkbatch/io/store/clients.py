"""The clients behind a `Location`: options of each protocol, one client per process and environment."""

from __future__ import annotations

import hashlib
import inspect
import os
from functools import lru_cache
from typing import Any

import fsspec
from fsspec.spec import AbstractFileSystem

from inkbatch.errors import ConfigError
from inkbatch.io.store.credentials import reads_anonymously
from inkbatch.redaction import redact, shown

S3_PROTOCOLS = ("s3", "s3a")

# Environment variables that shape a client. When one changes, a new client is made.
_CLIENT_VARIABLES = (
    "AWS_",
    "FSSPEC_",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)


def _s3_options() -> dict[str, Any]:
    """Return the options of the S3 client; credentials, region and endpoint come from the usual AWS environment.

    ``AWS_NO_SIGN_REQUEST=yes`` reads anonymously (public buckets), as GDAL and the AWS tools spell it; so does a
    machine that has no credentials at all, where signed requests could not be made.
    """
    return {
        "anon": reads_anonymously(),
        "default_fill_cache": False,
        "use_listings_cache": False,
        # The pool's default of 10 connections would throttle 48 parallel ranges; s3fs and `retried` retry as well.
        "config_kwargs": {"max_pool_connections": 64, "retries": {"mode": "standard", "max_attempts": 2}},
    }


def filesystem_options(protocol: str) -> dict[str, Any]:
    """Return fsspec's options for one protocol, as the environment is now."""
    if protocol in S3_PROTOCOLS:
        return _s3_options()
    if protocol in ("http", "https"):
        return {"use_listings_cache": False}
    return {}


@lru_cache(maxsize=32)
def _made(protocol: str, environment: str, process: int) -> AbstractFileSystem:
    """Make one client per protocol, environment and process: an async client does not survive a fork."""
    try:
        if protocol in ("http", "https"):
            from inkbatch.io.store.http_files import WebFileSystem  # aiohttp: only where it is used

            return WebFileSystem(skip_instance_cache=True, **filesystem_options(protocol))
        if protocol in S3_PROTOCOLS:
            from inkbatch.io.store.s3_files import CheckedS3  # botocore: only where it is used

            return CheckedS3(skip_instance_cache=True, **filesystem_options(protocol))
        if needed := _needed(fsspec.get_filesystem_class(protocol)):
            raise ValueError(f"it needs {', '.join(needed)}, which no address here states")
        return fsspec.filesystem(protocol, skip_instance_cache=True, **filesystem_options(protocol))
    except MemoryError:
        raise
    except Exception as error:  # each file system has its own ways to say that something is missing
        raise ConfigError(
            f"storage: no file system for protocol {shown(protocol)}: {redact(str(error))[:200]}; "
            "use a local folder, s3://, http(s):// or memory://"
        ) from error


def _needed(kind: type[AbstractFileSystem]) -> list[str]:
    """List what a file system cannot be made without; one that is half made complains on standard error."""
    words = list(inspect.signature(kind.__init__).parameters.values())[1:]
    return [one.name for one in words if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]


def _environment_digest() -> str:
    """Digest the environment variables that shape a client; some of them are secrets."""
    relevant = sorted(item for item in os.environ.items() if item[0].startswith(_CLIENT_VARIABLES))
    return hashlib.sha256(repr(relevant).encode()).hexdigest()


def filesystem(protocol: str) -> AbstractFileSystem:
    """Return the fsspec file system for a protocol; a new one after a fork or a change of the environment.

    Raises:
        ConfigError: There is no such protocol, or its package is not installed.
    """
    return _made(protocol, "" if protocol == "file" else _environment_digest(), os.getpid())
