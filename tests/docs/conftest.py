"""A folder like a fresh checkout, in which the commands of a page are run word by word, and what lies in it before."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from inkbatch.testing.maps import store_map
from inkbatch.testing.pages import Block, blocks_of
from inkbatch.testing.segments import identity_bundle, random_papyrus, write_layers

REPOSITORY = Path(__file__).resolve().parents[2]
CHECKOUT = (
    *("Makefile", "requirements.lock", "requirements-dev.lock", "pyproject.toml", "Dockerfile"),
    *("docker", "infra", "scripts", "jobs", "benchmarks", "docs", "tests"),
)


class Workshop:
    """Runs shell text in `folder`, with this tree's ``inkbatch``, ``python`` and ``make``.

    Attributes:
        folder: Where commands run: links to the checkout's files, and what a page makes.
        environment: Variables of the commands.
        said: Output of all commands so far.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = ""
        tools = folder / ".venv" / "bin"
        tools.mkdir(parents=True)
        for name, command in (("inkbatch", f"'{sys.executable}' -m inkbatch"), ("python", f"'{sys.executable}'")):
            (tools / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
            (tools / name).chmod(0o755)
        for made in (tools / "uv", tools.parent / ".runtime", tools.parent / ".dev"):  # make finds its set-up done
            made.touch()
        for name in CHECKOUT:
            (folder / name).symlink_to(REPOSITORY / name)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("INKBATCH_", "AWS_", "MAKE"))}
        paths = {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
        self.environment = {**kept, **paths, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "200"}

    def __call__(self, text: str, program: str = "bash") -> subprocess.CompletedProcess[str]:
        options = ["-euo", "pipefail", "-c"] if program == "bash" else ["-c"]
        ended = subprocess.run(
            [program, *options, text],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=900,
            stdin=subprocess.DEVNULL,
        )
        self.said += ended.stdout + ended.stderr
        return ended

    def must(self, text: str, code: int = 0, program: str = "bash", place: str = "") -> str:
        """Run, insist on the exit code, and return what was printed."""
        ended = self(text, program)
        assert ended.returncode == code, f"{place}\n{text}\n{ended.stdout[-2000:]}\n{ended.stderr[-3000:]}"
        return ended.stdout + ended.stderr

    def run_page(self, page: str) -> list[Block]:
        """Write the files that a page shows, run its blocks in order, and return those that were run."""
        blocks = blocks_of(page, (REPOSITORY / page).read_text(encoding="utf-8"))
        for block in blocks:
            if block.file and block.language == "yaml" and "/" not in block.file:
                (self.folder / block.file).write_text(block.text)
        ran = [block for block in blocks if block.is_run]
        for block in ran:
            self.must(block.text, block.code, block.language, block.place)
        return ran


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    folder = tmp_path / "work"
    folder.mkdir()
    return Workshop(folder)


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ROOT after `inkbatch prepare demo` and `inkbatch infer demo`."""
    folder = tmp_path_factory.mktemp("demo")
    Workshop(folder).must("inkbatch prepare demo && inkbatch infer demo --bundle demo")
    return folder / "root"


DEMO_UM = 7.91


def scan(folder: Path, segment: str, layers: int, shape: tuple[int, int] = (96, 128), dtype: str = "uint8") -> None:
    """Layers of noise at ``scans/{segment}/layers``, and labels with a square of ink beside them."""
    place = folder / "scans" / segment
    write_layers(place / "layers", random_papyrus((layers, *shape), dtype, seed=len(list(folder.glob("scans/*")))))
    labels = np.zeros(shape, np.uint8)
    labels[20:60, 20:60] = 255
    cv2.imwrite(str(place / "inklabels.png"), labels)


def catalog(folder: Path, *segments: str, **values: object) -> None:
    """A ``segments.yaml`` for scans of this folder."""
    lines = ["defaults:", "  depth_order: forward", f"  voxel_size_um: {DEMO_UM}", "segments:"]
    for segment in segments:
        lines += [
            f'  "{segment}":',
            f"    source: scans/{segment}/layers",
            f"    ink_labels: scans/{segment}/inklabels.png",
        ]
    (folder / "segments.yaml").write_text("\n".join(lines) + "\n")


def with_demo(folder: Path, demo_root: Path) -> None:
    """The prepared demo and its map."""
    shutil.copytree(demo_root, folder / "root")


def own_segment(folder: Path, demo_root: Path) -> None:
    """Two scans, as the page's catalog names them."""
    scan(folder, "20231005123336", 20, (150, 200), "uint16")
    scan(folder, "20230827161847", 13, (150, 200))


def views(folder: Path, demo_root: Path) -> None:
    """A scan of 65 layers, prepared, and a bundle of 26 that may turn its tiles."""
    scan(folder, "20231005123336", 65)
    catalog(folder, "20231005123336")
    turns = ["flip-y", "flip-x", "turn-90", "turn-180", "turn-270"]
    identity_bundle(folder / "mine", layers=26, voxel_size_um=DEMO_UM, tta_axes=turns, tile_px=64, stride_px=32)


def maps(folder: Path, demo_root: Path) -> None:
    """The demo's map under the names of several networks, and a segment that has only maps."""
    with_demo(folder, demo_root)
    rng = np.random.default_rng(0)
    for segment in ("20231005123336", "20231012184423"):
        for name in ("timesformer", "i3d", "resnet", "fitted-clean"):
            store_map(folder / "root", segment, name, rng.random((96, 128)))


def empty(folder: Path, demo_root: Path) -> None:
    """Nothing: a newcomer's folder."""


STAGES = {
    "docs/quick-start.md": empty,
    "README.md": with_demo,
    "docs/own-segment.md": own_segment,
    "docs/infer.md": views,
    "docs/cloud.md": with_demo,
}


@pytest.fixture
def set_stage(workshop: Workshop, demo_root: Path):
    """Put into the workshop what a page's commands find there; without a word of its own, the prepared demo."""
    return lambda page: STAGES.get(page, with_demo)(workshop.folder, demo_root)
