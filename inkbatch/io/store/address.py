"""Addresses that users give: local paths, ``file:`` and other URIs; refused where they would leak or mislead."""

from __future__ import annotations

import os
from urllib.parse import unquote

from inkbatch.errors import ConfigError
from inkbatch.redaction import shown


def checked_uri(uri: str) -> str:
    """Return the address in one form: a local path is absolute, an URI has no slash at its end.

    Raises:
        ConfigError: Empty text, control characters, credentials or a query inside the URI (they would end up in logs
            and manifests), or a ``file:`` URI that names no absolute path of this machine.
    """
    if not uri.strip():
        raise ConfigError("storage: the location is empty; give a folder or a URI such as s3://bucket/prefix")
    if uri != uri.strip() or any(ord(letter) < 32 or ord(letter) == 127 for letter in uri):
        raise ConfigError(
            f"storage: {shown(uri)}: expected a location without blanks at its ends and without tabs, line ends or "
            "other control characters; correct it, or rename the folder"
        )
    if uri.lower().startswith("file:/"):
        return _path_of(uri)
    if "://" not in uri:
        return os.path.abspath(os.path.expanduser(uri))
    protocol, rest = uri.split("://", 1)
    protocol = protocol.lower()
    if "@" in rest.split("/", 1)[0] and protocol != "hf":
        raise ConfigError(f"storage: {protocol}://… holds credentials; put them into the environment or the AWS config")
    if protocol in ("http", "https") and ("?" in rest or "#" in rest):
        raise ConfigError(
            f"storage: {protocol}://{rest.split('/', 1)[0]}/… carries a query or fragment; signed links would end "
            "up in logs and manifests, and nothing below them can be named; give the plain address"
        )
    return f"{protocol}://{rest.rstrip('/')}"


def _path_of(uri: str) -> str:
    """Return the absolute path that a ``file:`` URI names; a space is written ``%20`` there, a percent sign ``%25``.

    Raises:
        ConfigError: It names a file of another machine, or no absolute path.
    """
    rest = uri.partition(":")[2]
    host, slash, path = rest.removeprefix("//").partition("/") if rest.startswith("//") else ("", "/", rest)
    if host not in ("", "localhost") or not slash:
        raise ConfigError(f"storage: {uri}: a file URI names an absolute path of this machine, as file:///data/layers")
    return os.path.abspath("/" + unquote(path).lstrip("/"))
