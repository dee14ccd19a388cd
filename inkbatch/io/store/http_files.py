"""The web as a read-only file system: fsspec's, with honest answers.

With fsspec's own, a refused connection or a 403 becomes "file not found", a server that ignores ranges sends its whole
file for every strip, and a request of more than five minutes is cut off.
"""

from __future__ import annotations

from typing import Any

import aiohttp
from fsspec.implementations.http import HTTPFileSystem

from inkbatch.errors import StorageError
from inkbatch.io.store.faults import ForeignAnswerError, RangeUnsupportedError, from_status

CONNECT_TIMEOUT_S = 30
SILENCE_TIMEOUT_S = 60
_VERSIONS = (("ETag", "ETag"), ("LastModified", "Last-Modified"))  # headers that tell one version from another


class WebFileSystem(HTTPFileSystem):  # type: ignore[misc]  # fsspec has no types
    """http(s) with checked statuses and ranges; proxies are taken from the environment."""

    def __init__(self, **options: Any) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_TIMEOUT_S)
        super().__init__(client_kwargs={"timeout": timeout, "trust_env": True}, **options)

    async def _cat_file(self, url: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        if start is not None and start == end:
            return b""
        ranged = start is not None or end is not None
        headers = {"Accept-Encoding": "identity"}
        if ranged:
            headers["Range"] = await self._process_limits(url, start, end)
        session = await self.set_session()
        async with session.get(self.encode_url(url), headers=headers) as response:
            _require_ok(url, response)
            _require_file(url, response)
            if ranged and response.status != 206 and not _is_whole_range(response, start, end):
                raise RangeUnsupportedError(
                    f"{url}: expected a part of the file, but the server ignores ranges and sends all of it; "
                    "copy the data to a local folder or an object store first"
                )
            return bytes(await response.read())

    def _raise_not_found_for_status(self, response: aiohttp.ClientResponse, url: str) -> None:
        _require_ok(url, response)

    async def _info(self, url: str, **_: Any) -> dict[str, Any]:
        session = await self.set_session()
        headers = {"Accept-Encoding": "identity"}
        async with session.head(self.encode_url(url), headers=headers, allow_redirects=True) as response:
            if response.status not in (403, 405, 501):  # some servers know GET only, or sign for GET only
                _require_ok(url, response)
                if "Content-Length" in response.headers:
                    return _info_of(url, int(response.headers["Content-Length"]), response)
        async with session.get(self.encode_url(url), headers={**headers, "Range": "bytes=0-0"}) as response:
            if response.status == 416:  # an empty file has no first byte
                return _info_of(url, 0, response)
            _require_ok(url, response)
            total = response.headers.get("Content-Range", "").rpartition("/")[2]
            if response.status == 206 and total.isdigit():
                return _info_of(url, int(total), response)
            return _info_of(url, response.content_length if response.status == 200 else None, response)

    async def _exists(self, path: str, **_: Any) -> bool:
        try:
            await self._info(path)
        except FileNotFoundError:
            return False
        return True


def _info_of(url: str, size: int | None, response: aiohttp.ClientResponse) -> dict[str, Any]:
    found = {key: response.headers[name] for key, name in _VERSIONS if name in response.headers}
    return {"name": url, "size": size, "type": "file", **found}


def _require_ok(url: str, response: aiohttp.ClientResponse) -> None:
    """Raise our error for a final refusal; for one that may pass aiohttp's, which the callers retry and translate."""
    if response.status >= 400:
        ours = from_status(url, response.status, response.reason or "")
        if isinstance(ours, StorageError):
            response.raise_for_status()
        raise ours


def _require_file(url: str, response: aiohttp.ClientResponse) -> None:
    """Refuse a page in place of a file, as portals and error handlers send it with status 200; it may pass."""
    if response.content_type in ("text/html", "application/xhtml+xml") and not url.endswith((".html", ".htm")):
        raise ForeignAnswerError(f"the server sent a page ({response.content_type}) in place of the file")


def _is_whole_range(response: aiohttp.ClientResponse, start: int | None, end: int | None) -> bool:
    """Tell whether an answer with the whole file is what the range asked for anyway."""
    length = response.content_length
    return length is not None and (start or 0) == 0 and end is not None and length <= end
