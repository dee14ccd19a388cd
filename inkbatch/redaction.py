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
_ASSIGNED = re.compile(
    r"(?<![\w-])(?P<name>[A-Za-z][\w-]{0,99}+)(?P<mark>['\"]?[ \t]{0,3}[=:][ \t]{0,3}['\"]?)"
    r"(?P<value>(?:(?i:bearer|basic|token)[ \t]{1,3})?[^\s'\",;<>]+)"
)
_KNOWN = re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\b(?:hf|ghp|gho|github_pat|sk|xox[bp])[_-][\w-]{16,200}")


def holds_secret(name: str) -> bool:
    """Tell whether a variable's or setting's name says that its value is a secret.

    ``WANDB_API_KEY``, ``DB_PASS`` and ``authorization`` do; ``TOKENIZER`` and ``tokens_per_s`` do not.
    """
    return bool(_SECRET.search(_CAMEL.sub("_", name).replace("-", "_").upper()))


def redact(text: str) -> str:
    """Hide what looks like a secret: users, passwords and queries of addresses, values of telling names, known keys.

    Linear in the length of the text.
    """
    if "://" in text:
        text = _TOKEN.sub(lambda found: _address(found.group()), text)
    if "=" in text or ":" in text:
        text = _ASSIGNED.sub(_assigned, text)
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


def _assigned(found: re.Match[str]) -> str:
    if found["value"].startswith(("//", HIDDEN)) or not holds_secret(found["name"]):
        return found.group()
    return f"{found['name']}{found['mark']}{HIDDEN}"
