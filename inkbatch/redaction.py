"""One rule for secrets in messages, logs, pages and rendered jobs: telling names, and addresses that carry one."""

from __future__ import annotations

import re

HIDDEN = "…"
_ANYWHERE = ("SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL")
_WORDS = ("TOKEN", "PASS", "PWD", "APIKEY", "AUTH", "AUTHORIZATION", "COOKIE", "SIGNATURE", "SIG", "DSN")
_PAIRS = ("API_KEY", "ACCESS_KEY", "PRIVATE_KEY", "SECRET_KEY", "ACCOUNT_KEY", "SIGNING_KEY", "ENCRYPTION_KEY")
_SECRET = re.compile(rf"{'|'.join(_ANYWHERE)}|(?:^|_)(?:{'|'.join((*_WORDS, *_PAIRS))})(?:_|\d*$)")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_TOKEN = re.compile(r"[^\s'\"<>]+")
# Bounded names: the time stays linear in the length of the text.
_NAME = re.compile(r"(?<![\w-])(?P<name>[A-Za-z][\w-]{0,99}+)['\"]?[ \t]{0,3}[=:][ \t]{0,3}['\"]?")
_VALUE = re.compile(r"(?:(?i:bearer|basic|token)[ \t]{1,3})?[^\s'\",;<>]+")
_KNOWN = re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\b(?:hf|ghp|gho|github_pat|sk|xox[bp])[_-][\w-]{16,200}")


def holds_secret(name: str) -> bool:
    """Tell whether a variable's or setting's name says that its value is a secret.

    ``WANDB_API_KEY``, ``DB_PASS`` and ``authorization`` do; ``TOKENIZER`` and ``tokens_per_s`` do not.
    """
    return bool(_SECRET.search(_CAMEL.sub("_", name).replace("-", "_").upper()))


def shown(value: object, name: str = "", most: int = 80) -> str:
    """Write a value that somebody gave for a message: short, and without what looks like a secret.

    Args:
        value: Any value.
        name: Setting that it was given for; a telling one hides the whole value.
        most: Characters at most.
    """
    if holds_secret(name):
        return HIDDEN
    if isinstance(value, dict):
        return "{…}" if value else "{}"
    if isinstance(value, (list, tuple, set)) and (len(value) > 4 or any(map(_is_nested, value))):
        return f"a {type(value).__name__} of {len(value)}"
    try:
        text = redact(repr(value[: 8 * most] if isinstance(value, (str, bytes)) else value))
    except ValueError:  # an integer of more digits than Python prints
        text = f"a number of {value.bit_length() if isinstance(value, int) else 0} bits"
    # Redacted before it is cut: the cut must not take away the end by which a secret is recognised.
    return text if len(text) <= most else f"{text[: most - 1]}{HIDDEN}"


def _is_nested(value: object) -> bool:
    return isinstance(value, (dict, list, tuple, set))


def redact(text: str) -> str:
    """Hide what looks like a secret: users, passwords and queries of addresses, values of telling names, known keys.

    Linear in the length of the text.
    """
    if "://" in text:
        text = _TOKEN.sub(lambda found: _address(found.group()), text)
    if "=" in text or ":" in text:
        text = _assignments(text)
    return _KNOWN.sub(HIDDEN, text)


def _address(token: str) -> str:
    """Hide user info and query of every address in a token without blanks."""
    first, *rest = token.split("://")
    if not rest:
        return token
    parts = [first]
    for piece in rest:
        end = min((at for at in map(piece.find, "/?#,") if at >= 0), default=len(piece))
        authority, path = piece[:end], piece[end:]
        if "@" in authority:
            authority = f"{HIDDEN}@{authority.rsplit('@', 1)[1]}"
        before, mark, query = path.partition("?")
        if mark and query:
            parts.append(f"{authority}{before}?{HIDDEN}")
            break  # what follows belongs to the query
        parts.append(authority + path)
    return "://".join(parts)


def _assignments(text: str) -> str:
    """Hide the values of telling names, also behind other names: ``env=DB_PASS=…``."""
    parts, at = [], 0
    for found in _NAME.finditer(text):
        if found.start() < at or not holds_secret(found["name"]):
            continue
        value = _VALUE.match(text, found.end())
        if value and not value.group().startswith(("//", HIDDEN)):
            parts += [text[at : found.end()], HIDDEN]
            at = value.end()
    return "".join([*parts, text[at:]])
