"""Secrets never reach a message, a log, a page or a render; plain words do."""

from __future__ import annotations

import pytest

from inkbatch.redaction import HIDDEN, holds_secret, redact

SECRET = "s3cr3t-value"


@pytest.mark.parametrize(
    "name",
    [
        "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "WANDB_API_KEY", "DB_PASS", "AUTHORIZATION",
        "authorization", "HF_TOKEN", "GITHUB_TOKEN", "password", "db-password", "apiKey", "secretKey", "PGPASSWORD_1",
        "X-Auth", "SENTRY_DSN", "CREDENTIALS", "PRIVATE_KEY",
    ],
)  # fmt: skip
def test_names_of_secrets_are_known(name):
    assert holds_secret(name)


@pytest.mark.parametrize(
    "name", ["TOKENIZER", "tokens_per_s", "PATH", "keyboard", "AUTHOR", "passes", "bypass", "COMPASS"]
)
def test_plain_names_are_left_alone(name):
    assert not holds_secret(name)


@pytest.mark.parametrize(
    "text",
    [
        f"https://user:{SECRET}@host/path",
        f"got 'postgres://u:{SECRET}@h:5432/db'",
        f"s3://{SECRET}@bucket/key, then more",
        f"https://host/a?X-Amz-Signature={SECRET}&b=1",
        f"a://b?c={SECRET}://d",
        f"WANDB_API_KEY={SECRET}",
        f"export DB_PASS = {SECRET}",
        f'{{"password": "{SECRET}"}}',
        f"Authorization: Bearer {SECRET}",
        f"--set secret_key={SECRET}",
        f"--set environment=DB_PASS={SECRET}",
    ],
)
def test_secrets_are_hidden(text):
    assert SECRET not in redact(text)
    assert HIDDEN in redact(text)


@pytest.mark.parametrize("key", ["AKIAABCDEFGHIJKLMNOP", "hf_abcdefghijklmnopqrst", "ghp_abcdefghijklmnopqrst"])
def test_known_keys_are_hidden_wherever_they_stand(key):
    assert key not in redact(f"found {key} there")


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/ink/segments/a: no surface here; run inkbatch prepare a first",
        "segment a: expected 26 layers, got 13",
        "https://host/path/to/layers",
        "layers: 17:43, tokens_per_s: 5",
    ],
)
def test_plain_messages_are_unchanged(text):
    assert redact(text) == text


@pytest.mark.parametrize("piece", ["a", "a://", "http://x/", "a=", "token:", "@", "?", "AKIA", "a://b?"])
def test_the_time_is_linear(piece):
    short, long = (piece * (size // len(piece)) for size in (4_000, 400_000))
    redact(short)
    assert (
        len(redact(long)) <= len(long) + 16
    )  # a quadratic rule needs minutes for this, and the test's time-out ends it
