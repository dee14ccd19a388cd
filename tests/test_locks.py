"""Locks: every package by version and hash, no index, and one version of a package in all of them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = REPOSITORY / "requirements"
LOCKS = sorted(path.name for path in FOLDER.glob("*.lock"))
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


def entries(name: str) -> list[str]:
    """Return the lock's requirements, each with its continued lines."""
    text = (FOLDER / name).read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pins(name: str) -> set[str]:
    """Return ``package==version ; marker`` of every requirement."""
    return {re.sub(r"\s+--hash=\S+", "", entry).strip() for entry in entries(name)}


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[A-Za-z0-9._-]+", text).group().lower().replace("_", "-") for text in requirements}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_every_package_by_hash_and_names_no_index(name):
    assert [
        entry for entry in entries(name) if not re.match(r"[a-z0-9._-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", entry)
    ] == []


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("runtime.lock", PROJECT["project"]["dependencies"]),
        ("dev.lock", PROJECT["dependency-groups"]["dev"]),
        ("build.lock", PROJECT["build-system"]["requires"]),
    ],
)
def test_every_dependency_that_the_project_names_is_locked(name, wanted):
    assert names(wanted) <= names(entries(name))


ENVIRONMENTS = [
    {
        "python_version": python,
        "python_full_version": f"{python}.2",
        "sys_platform": system,
        "platform_machine": machine,
    }
    for python in ("3.11", "3.12", "3.13", "3.14")
    for system, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("win32", "AMD64"))
]


def installed(name: str, environment: dict[str, str]) -> set[str]:
    """Return ``package==version`` of what a lock installs there."""
    wanted = map(Requirement, pins(name))
    return {f"{one.name}{one.specifier}" for one in wanted if one.marker is None or one.marker.evaluate(environment)}


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda one: "-".join(list(one.values())[::2]))
def test_the_development_lock_has_the_versions_that_ship(environment):
    assert installed("runtime.lock", environment) <= installed("dev.lock", environment)
