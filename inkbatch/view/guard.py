"""Guard against other origins: requests that another origin's page could have sent are refused.

A page anywhere on the web can make a browser send requests to localhost. It cannot forge the ``Host`` and ``Origin``
headers or ``Sec-Fetch-Site``: a name that was rebound to 127.0.0.1 shows in ``Host``.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping

OPENSEADRAGON_STYLE = "sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE="  # the one style element that it inserts

HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src 'self'; style-src 'self' '{OPENSEADRAGON_STYLE}'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?", re.IGNORECASE)


def allowed_names(bound: str, extra: tuple[str, ...] = ()) -> frozenset[str]:
    """Return the host names that requests may use.

    Args:
        bound: Address that the server listens on.
        extra: Further names that the user allows.
    """
    names = {"localhost", bound.lower(), *(name.lower() for name in extra)}
    if not is_loopback(bound):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return frozenset(names)


def is_loopback(host: str) -> bool:
    """Return True if an address can be reached from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def refusal(path: str, headers: Mapping[str, str], names: frozenset[str], *, local_only: bool) -> str | None:
    """Return the reason to refuse a request, or None.

    Args:
        path: Path of the request, without query.
        headers: Its headers, by any case that `headers` knows.
        names: See `allowed_names`.
        local_only: The server listens on this machine alone; then addresses other than loopback are strangers, too.
    """
    host = headers.get("Host") or ""
    match = _HOST.fullmatch(host)
    if match is None or not _is_ours(match.group(1).strip("[]").lower(), names, local_only):
        return "unknown host name; use the address that inkbatch view printed, or allow the name with --allow-host"
    origin = headers.get("Origin")
    if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
        return "requests from pages of another origin are refused"
    site = headers.get("Sec-Fetch-Site", "none")
    followed_link = path == "/" and headers.get("Sec-Fetch-Mode") == "navigate"
    if site not in ("same-origin", "none") and not followed_link:
        return "requests from pages of another origin are refused"
    return None


def _is_ours(name: str, names: frozenset[str], local_only: bool) -> bool:
    if name in names or is_loopback(name):
        return True
    try:  # a name can be rebound, a bare address cannot
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return not local_only
