"""Credentials of S3: asked of the environment, never held."""

from __future__ import annotations

import os

TRUE_WORDS = frozenset({"1", "true", "yes", "on"})


def asked_to_be_anonymous() -> bool:
    """Tell whether the environment wants unsigned requests."""
    return os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in TRUE_WORDS


def reads_anonymously() -> bool:
    """Tell whether S3 requests go unsigned: where that is asked for, or nothing could sign them.

    Credentials are looked for where AWS clients do: environment, files, the machine's role. A profile that does not
    exist, or a login that is over, counts as one: the client says what is wrong with it.
    """
    from botocore.session import Session

    if asked_to_be_anonymous():
        return True
    try:
        return Session().get_credentials() is None
    except Exception:  # botocore has its own ways to say that a profile is missing
        return False
