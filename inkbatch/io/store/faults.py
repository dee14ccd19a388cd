"""Faults of storage, told apart: gone, forbidden, refused (no retry helps), or passing (a retry may help).

Every back-end has its own exceptions (OSError, botocore, aiohttp, fsspec). `judge` turns one into ours, whose message
names the place and the cure and never holds a credential, a signature or a query string.
"""

from __future__ import annotations

import errno
from typing import Any

from inkbatch.errors import ConfigError, CorruptDataError, DataError, InkbatchError, StorageError
from inkbatch.io.store.credentials import asked_to_be_anonymous, reads_anonymously
from inkbatch.redaction import redact


class MissingObjectError(DataError, FileNotFoundError):
    """The object or folder is not there; a `FileNotFoundError` too, for code that asks for that."""


class WrongKindError(DataError, NotADirectoryError, IsADirectoryError):
    """A file in place of a folder, or a folder in place of a file."""


class ForbiddenError(ConfigError, PermissionError):
    """The store does not know us, or does not allow it; a `PermissionError` too."""


class RangeUnsupportedError(DataError):
    """A web server that sends whole files only, whatever range is asked for."""


class ForeignAnswerError(OSError):
    """An answer that no store gives, from a portal or a proxy on the way; it may pass."""


class OtherBytesError(ForeignAnswerError):
    """A put that arrived with other bytes than were sent, and is stored."""


# 408 timeout, 409 conflict with another writer, 423 and 425 not yet, 429 too many requests: these pass. 302 and 303 no
# store answers; a portal on the way does.
PASSING_STATUS = frozenset({302, 303, 408, 409, 423, 425, 429})
FINAL_STATUS_FROM_500 = frozenset({501, 505, 511})

CREDENTIAL_CURE = (
    "set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), give the job a role, "
    "or set AWS_NO_SIGN_REQUEST=yes for a public bucket"
)
# botocore raises these before any request is sent; none of them passes by itself.
BOTOCORE_CREDENTIAL_FAULTS = frozenset(
    {
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "ProfileNotFound",
        "NoAuthTokenError",
        "TokenRetrievalError",
        "SSOError",
        "SSOTokenLoadError",
        "UnauthorizedSSOTokenError",
        "RefreshWithMFAUnsupportedError",
        "UnknownCredentialError",
    }
)
BOTOCORE_CONFIG_FAULTS = frozenset(
    {
        "NoRegionError",
        "ParamValidationError",
        "InvalidRegionError",
        "InvalidConfigError",
        "InvalidEndpointDiscoveryConfigurationError",
        "InvalidEndpointConfigurationError",
        "InvalidMaxRetryAttemptsError",
        "InvalidRetryConfigurationError",
        "InvalidRetryModeError",
        "InvalidProxiesConfigError",
        "InvalidS3AddressingStyleError",
        "InvalidDefaultsMode",
        "ConfigParseError",
        "ConfigNotFound",
        "UnknownRegionError",
        "EndpointProviderError",
        "EndpointResolutionError",
        "UnsupportedS3ConfigurationError",
    }
)
# S3 names for "come back later" that do not all carry a telling status.
PASSING_S3_CODES = frozenset(
    {
        "SlowDown",
        "InternalError",
        "ServiceUnavailable",
        "RequestTimeout",
        "OperationAborted",
        "BadDigest",
        "IncompleteBody",
        "XAmzContentSHA256Mismatch",
        "RequestTimeTooSkewed",
        "Throttling",
    }
)


def from_status(place: str, status: int, words: str = "") -> InkbatchError:
    """Make the error for an HTTP status of a web server or an object store that is no success."""
    said = f"{status} {words}".strip()
    if status in (404, 410):
        return MissingObjectError(
            f"{place}: not there (the server answered {said}); check the spelling of the location"
        )
    if status in (401, 403, 407):
        return ForbiddenError(
            f"{place}: access refused (the server answered {said}); check the rights of your credentials and the "
            "spelling: a store that may not be listed refuses names that do not exist, too"
        )
    if status == 416:
        return CorruptDataError(f"{place}: the object is shorter than its header or its listing says; copy it again")
    if status in PASSING_STATUS or (status >= 500 and status not in FINAL_STATUS_FROM_500):
        return StorageError(
            f"{place}: storage failed again after retries (the server answered {said}); run the same command again"
        )
    return ConfigError(
        f"{place}: the store does not support this (it answered {said}); check location, region and endpoint"
    )


def judge(place: str, error: BaseException) -> InkbatchError | None:
    """Translate an error that storage raised into ours; a `StorageError` marks a passing fault.

    Args:
        place: The location, for the message.
        error: Exception of the back-end.

    Returns:
        Our error; None where it is no fault of storage.
    """
    if isinstance(error, InkbatchError):
        return error
    module = type(error).__module__.split(".", 1)[0]
    client_error = _client_error(error)
    if client_error is not None:
        return _judge_s3_answer(place, client_error)
    if module in ("botocore", "aiobotocore"):
        return _judge_botocore(place, error)
    if module == "aiohttp":
        status = getattr(error, "status", None)
        if isinstance(status, int) and status >= 400:
            return from_status(place, status, str(getattr(error, "message", "")))
        if isinstance(error, ValueError):  # aiohttp.InvalidURL
            return ConfigError(f"{place}: this is not a URL that can be asked for; check its spelling")
        return _passing(place, error)
    if isinstance(error, OSError):
        return _judge_os_error(place, error)
    if isinstance(error, (TimeoutError, EOFError)):
        return _passing(place, error)
    return None


def s3_code(error: BaseException) -> str:
    """Return the code of an S3 store's refusal (``PreconditionFailed``), or an empty text."""
    found = _client_error(error)
    return "" if found is None else str(found.response.get("Error", {}).get("Code", ""))


def _client_error(error: BaseException) -> Any | None:
    """Find the botocore ClientError that `error` is or was translated from."""
    for candidate in (error, error.__cause__):
        if candidate is not None and isinstance(getattr(candidate, "response", None), dict):
            return candidate
    return None


def _judge_s3_answer(place: str, error: Any) -> InkbatchError:
    answer = error.response.get("Error", {})
    code, words = str(answer.get("Code", "")), redact(str(answer.get("Message", "")))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    if code in PASSING_S3_CODES:
        status = 503
    elif code.startswith("NoSuch"):
        status = 404
    elif not status:
        status = int(code) if code.isdigit() else 400
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"):
        return ForbiddenError(f"{place}: the store refused your credentials ({code}); {CREDENTIAL_CURE}")
    if status in (301, 307) or code in ("PermanentRedirect", "AuthorizationHeaderMalformed"):
        return ConfigError(
            f"{place}: the bucket lives elsewhere ({code or status}); set AWS_REGION or AWS_ENDPOINT_URL"
        )
    if status in (400, 401, 403) and reads_anonymously() and not asked_to_be_anonymous():
        return ForbiddenError(
            f"{place}: no usable credentials, and it is not public ({code or status}); {CREDENTIAL_CURE}"
        )
    status = status if status in PASSING_STATUS else max(status, 400)
    return from_status(place, status, f"{code} {words}".strip() if code != str(status) else words)


def _judge_botocore(place: str, error: BaseException) -> InkbatchError:
    names = {base.__name__ for base in type(error).__mro__}
    if names & BOTOCORE_CREDENTIAL_FAULTS:
        return ForbiddenError(f"{place}: no usable credentials ({type(error).__name__}); {CREDENTIAL_CURE}")
    if names & BOTOCORE_CONFIG_FAULTS:
        return ConfigError(
            f"{place}: the S3 client refuses its configuration: {redact(str(error))[:200]}; check AWS_* and names"
        )
    return _passing(place, error)


def _judge_os_error(place: str, error: OSError) -> InkbatchError:
    if isinstance(error, FileNotFoundError):
        return MissingObjectError(f"{place}: not there; check the spelling of the location")
    if isinstance(error, PermissionError):
        return ForbiddenError(f"{place}: access refused ({redact(str(error))}); check the rights of this user or role")
    if isinstance(error, (IsADirectoryError, NotADirectoryError, FileExistsError)):
        return WrongKindError(
            f"{place}: found a folder where a file was expected, or a file in place of a folder; rename one"
        )
    if error.errno in (errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP):
        return ConfigError(f"{place}: cannot be used: {redact(str(error))}; choose another location")
    return _passing(place, error)


def _passing(place: str, error: BaseException) -> StorageError:
    return StorageError(
        f"{place}: storage failed again after retries: {type(error).__name__}: {redact(str(error))}; "
        "check the connection and free space, then run the same command again"
    )
