"""S3 as a file system: s3fs, whose answers must be those of a store.

A captive portal, a proxy's page or a load balancer may answer any request with status 200 and a page of its own. s3fs
takes that for a stored object, an empty listing or a finished deletion. Here an answer that lacks what every S3 store
states is a passing fault; bodies are compared with the digest that the store states, both ways.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError
from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem
from s3fs.core import _error_wrapper, version_id_kw

from inkbatch.io.store.faults import ForeignAnswerError, OtherBytesError

DIGESTED_BYTES = 8 << 20  # larger objects are zarr shards and checkpoints, which carry checksums of their own

_STATED: Mapping[str, tuple[str, ...]] = {  # in every answer of an S3 store; one of these suffices
    "put_object": ("ETag",),
    "upload_part": ("ETag",),
    "create_multipart_upload": ("UploadId",),
    "complete_multipart_upload": ("ETag", "Location"),
    "get_object": ("ETag", "LastModified"),
    "head_object": ("ETag", "LastModified"),
    "list_objects": ("Name", "IsTruncated"),
    "list_objects_v2": ("Name", "IsTruncated"),
    "list_buckets": ("Buckets", "Owner"),
}
_DELETED_STATUS = (200, 204)
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
_PAGES = (".html", ".htm")


class CheckedS3(S3FileSystem):  # type: ignore[misc]  # s3fs has no types
    """s3fs with checked answers and bodies."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.buckets_with_digests: set[str] = set()  # buckets in which an entity tag was the MD5 of the object

    def states_digests(self, path: str) -> bool:
        """Tell whether entity tags of this bucket are known to be MD5s; those of some stores are something else."""
        return self.split_path(path)[0] in self.buckets_with_digests

    async def _call_s3(self, method: str, *documents: Any, **words: Any) -> Any:
        answer = await super()._call_s3(method, *documents, **words)
        _require_store(method, answer, str(words.get("Key", "")))
        return answer

    async def _pipe_file(self, path: str, data: bytes, **options: Any) -> Any:
        digest = hashlib.md5(data, usedforsecurity=False) if len(data) <= DIGESTED_BYTES else None
        if digest is not None:  # S3 stores nothing whose bytes have another digest; not every look-alike compares
            options["ContentMD5"] = base64.b64encode(digest.digest()).decode()
        answer = await super()._pipe_file(path, data, **options)
        stated = stated_md5(answer or {})
        if answer is None:  # in parts
            await self._require_size(path, len(data))
        elif digest is not None and stated and digest.hexdigest() != stated:
            if not await self._holds(path, data):
                raise OtherBytesError(f"PutObject stored other bytes than the {len(data)} that were sent")
        elif digest is not None and stated:
            self.buckets_with_digests.add(self.split_path(path)[0])
        return answer

    async def _holds(self, path: str, data: bytes) -> bool:
        """Read an object twice and compare: a single reading, damaged like the put, might look like what was sent."""
        readings = [(await self._cat_compared(path))[0] for _ in range(2)]
        return all(reading == data for reading in readings)

    async def _put_file(self, lpath: str, rpath: str, *arguments: Any, **options: Any) -> None:
        await super()._put_file(lpath, rpath, *arguments, **options)
        await self._require_size(rpath, os.path.getsize(lpath))

    async def _require_size(self, path: str, size: int) -> None:
        found = (await self._info(path))["size"]
        if found != size:
            raise ForeignAnswerError(f"an upload of {size} bytes left an object of {found} bytes")

    async def _cat_compared(self, path: str) -> tuple[bytes, bool | None]:
        """Read a whole object; also tell whether its MD5 is the one that the store states, None if it states none."""
        bucket, key, version = self.split_path(path)

        async def read() -> tuple[bytes, bool | None] | None:
            answer = await self._call_s3("get_object", Bucket=bucket, Key=key, **version_id_kw(version))
            try:
                if answer.get("ContentLength", 0) > self.default_block_size:
                    return None
                data, stated = await answer["Body"].read(), stated_md5(answer)
            finally:
                answer["Body"].close()
            return data, hashlib.md5(data, usedforsecurity=False).hexdigest() == stated if stated else None

        found: tuple[bytes, bool | None] | None = await _error_wrapper(read, retries=self.retries)
        if found and found[1]:
            self.buckets_with_digests.add(bucket)
        return found or (await self._cat_file(path), None)  # a large one: several ranges at once

    cat_compared = sync_wrapper(_cat_compared)


def _require_store(method: str, answer: Any, key: str) -> None:
    """Refuse an answer that no S3 store gives.

    Raises:
        ForeignAnswerError: It is a page, or lacks what stores state.
        ClientError: Some of several objects were not deleted; s3fs would leave them in silence.
    """
    facts = answer.get("ResponseMetadata", {})
    kind = str(facts.get("HTTPHeaders", {}).get("content-type", ""))
    needed = _STATED.get(method, ())
    status = facts.get("HTTPStatusCode", 204)
    if "html" in kind and not key.endswith(_PAGES):
        raise ForeignAnswerError(f"{method} was answered with a page ({kind}) by something that is no S3 store")
    if (needed and not any(name in answer for name in needed)) or (
        method == "delete_object" and status not in _DELETED_STATUS
    ):
        wanted = f"{' or '.join(needed)} in the answer" if needed else "status 204"
        raise ForeignAnswerError(f"{method}: expected {wanted}, got none; something that is no S3 store answers")
    failed = answer.get("Errors") if method == "delete_objects" else None
    if failed:
        status = 403 if failed[0].get("Code") == "AccessDenied" else 503
        raise ClientError({"Error": failed[0], "ResponseMetadata": {"HTTPStatusCode": status}}, "DeleteObjects")


def stated_md5(answer: Mapping[str, Any]) -> str | None:
    """Return the content's MD5 that an answer states: the entity tag of an object that was put in one piece."""
    found = _MD5.fullmatch(str(answer.get("ETag", "")))
    otherwise = str(answer.get("ServerSideEncryption", "")).startswith("aws:kms") or "SSECustomerAlgorithm" in answer
    return found[1] if found and not otherwise else None
