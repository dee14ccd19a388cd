"""The docker engine of `inkbatch launch` with real containers: a chain of arrays gives the bytes of one container."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from inkbatch.errors import EXIT_DONE

IMAGE = os.environ.get("INKBATCH_TEST_IMAGE", "")
ENGINE = os.environ.get("INKBATCH_TEST_ENGINE", "")
CHAIN = ("launch", "prepare,infer", "demo", "--bundle", "demo", "--engine", "docker", "--gpus", "0")
# Podman without usable cgroups takes no limits; everything else is passed on as it is.
WITHOUT_LIMITS = f"""#!{sys.executable}
import os, sys
words = sys.argv[1:]
for name in ("--memory", "--cpus"):
    while name in words:
        at = words.index(name)
        del words[at : at + 2]
os.execvp("podman", ["podman", *words])
"""

pytestmark = [
    pytest.mark.image,
    pytest.mark.skipif(not (IMAGE and ENGINE), reason="no image was named: make image, then make image-test"),
]


@pytest.fixture
def engine(tmp_path):
    if ENGINE == "docker" or "CONTAINERS_CONF" not in os.environ:
        return ENGINE
    place = tmp_path / "podman"
    place.write_text(WITHOUT_LIMITS)
    place.chmod(0o755)
    return str(place)


def launched(folder: Path, engine: str, shards: str) -> dict[str, bytes]:
    """Stored shards of the map, by name."""
    folder.mkdir()
    words = [sys.executable, "-m", "inkbatch", *CHAIN, "--root", str(folder / "root"), "--shards", shards]
    words += ["--set", "infer:unit_px=128", "--option", f"engine={engine}", "--option", f"image={IMAGE}"]
    answer = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=280)
    assert answer.returncode == EXIT_DONE, answer.stdout + answer.stderr
    (place,) = folder.glob("root/predictions/demo/*/prediction.zarr")
    return {str(file.relative_to(place)): file.read_bytes() for file in place.rglob("*") if file.is_file()}


def test_an_array_of_containers_gives_the_bytes_of_one(tmp_path, engine):
    assert launched(tmp_path / "array", engine, "infer=3") == launched(tmp_path / "one", engine, "infer=1") != {}
