"""A folder like a fresh checkout, in which the commands of a page are run word by word, and what lies in it before."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from inkbatch.run.job import RunContext
from inkbatch.steps import chains
from inkbatch.steps.dataset.job import BuildDatasetConfig
from inkbatch.steps.prepare.job import run as run_prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.testing.golden import Golden, fill_state_dict
from inkbatch.testing.label_volumes import on_plane, write_label_volume
from inkbatch.testing.maps import store_map, store_picture
from inkbatch.testing.pages import Block, blocks_of
from inkbatch.testing.patch_packs import write_patch_pack
from inkbatch.testing.scrolls import flat_mesh, write_mesh, write_open_data, write_volume
from inkbatch.testing.segments import identity_bundle, random_papyrus, write_layers
from inkbatch.testing.troubles import Desk

REPOSITORY = Path(__file__).resolve().parents[2]
CHECKOUT = (
    *("Makefile", "pyproject.toml", "Dockerfile", "requirements"),
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
    labels[20 : shape[0] // 2 + 20, 20 : shape[1] // 2] = 255
    cv2.imwrite(str(place / "inklabels.png"), labels)


def catalog(folder: Path, *segments: str, voxel_size_um: float = DEMO_UM) -> None:
    """A ``segments.yaml`` for scans of this folder."""
    lines = ["defaults:", "  depth_order: forward", f"  voxel_size_um: {voxel_size_um}", "segments:"]
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
    """Two scans, as the page's catalog names them, and a mesh in a volume."""
    noise = np.random.default_rng(0).integers(1, 255, (40, 150, 180), dtype=np.uint8)
    write_volume(folder / "scrolls" / "PHerc0172.zarr", [noise])
    write_volume(folder / "scrolls" / "9um.zarr", [noise[:13]], um=8.64)
    write_mesh(folder / "scrolls" / "20240618142020", flat_mesh(15, 17, z=15, tilt=0.05))
    write_open_data(folder / "open-data", DEMO_UM)
    scan(folder, "20231005123336", 20, (150, 200), "uint16")
    scan(folder, "20230827161847", 13, (150, 200))


def views(folder: Path, demo_root: Path) -> None:
    """A scan of 65 layers, prepared, and a bundle of 26 that may turn its tiles."""
    scan(folder, "20231005123336", 65)
    catalog(folder, "20231005123336")
    turns = ["flip-y", "flip-x", "turn-90", "turn-180", "turn-270"]
    identity_bundle(folder / "mine", layers=26, voxel_size_um=DEMO_UM, tta_axes=turns, tile_px=64, stride_px=32)


def search(folder: Path, demo_root: Path) -> None:
    """A scan of 65 layers and two bundles of 26 and 20."""
    scan(folder, "20231005123336", 65)
    catalog(folder, "20231005123336")
    for name, layers in (("first", 26), ("second", 20)):
        bundle = identity_bundle(folder / name, layers=layers, voxel_size_um=DEMO_UM, tile_px=64, stride_px=32)
        place = folder / name / "bundle.json"
        place.write_text(json.dumps({**json.loads(place.read_text()), "name": name}))
        assert bundle.document.name != name  # bundles of one name would share their maps


def maps(folder: Path, demo_root: Path) -> None:
    """The demo's map under more names, and two segments that have only maps."""
    with_demo(folder, demo_root)
    rng = np.random.default_rng(0)
    truth = cv2.imread(str(REPOSITORY / "inkbatch/demo/truth.png"), cv2.IMREAD_GRAYSCALE)
    for name in ("a", "b", "c", "window05", "window06", "ensemble-mean", "fitted"):
        seen = np.clip(truth / 255 * 0.6 + rng.random(truth.shape) * 0.4, 0, 1)
        store_map(folder / "root", "demo", name, seen, unit_px=512, voxel_size_um=DEMO_UM)
    for segment in ("20231005123336", "20231012184423"):
        for name in ("timesformer", "i3d", "resnet", "fitted-clean"):
            store_map(folder / "root", segment, name, rng.random((96, 128)))


def ensembles(folder: Path, demo_root: Path) -> None:
    """Make `maps` without those that the page makes itself."""
    maps(folder, demo_root)
    shutil.rmtree(folder / "root/predictions/demo/fitted")


def cloud(folder: Path, demo_root: Path) -> None:
    """The demo, and a copy of public scans."""
    with_demo(folder, demo_root)
    write_open_data(folder / "open-data", DEMO_UM)


def runs(folder: Path, demo_root: Path) -> None:
    """Two maps of the demo."""
    with_demo(folder, demo_root)
    shape = cv2.imread(str(REPOSITORY / "inkbatch/demo/truth.png"), cv2.IMREAD_GRAYSCALE).shape
    store_map(folder / "root", "demo", "turned", np.full(shape, 0.5), unit_px=512, voxel_size_um=DEMO_UM)


def field_labels(place: Path, segment: str) -> None:
    """A label volume with its two masks, as the field names them: the right third is held out."""
    ink = cv2.imread(str(place / "inklabels.png"), cv2.IMREAD_GRAYSCALE)
    edge = ink.shape[1] * 2 // 3
    left, right = np.zeros_like(ink), np.zeros_like(ink)
    left[:, :edge], right[:, edge:] = 255, 255
    for name, picture in (("inklabels", ink), ("supervision_mask", left), ("validation_mask", right)):
        write_label_volume(place / f"{segment}_{name}.zarr", on_plane(picture, 21, 10))


def labelled(folder: Path, demo_root: Path) -> None:
    """Two scans with labels, a third one with a map and an export of CVAT, and a patch pack."""
    write_patch_pack(folder / "ink-8um-patchpack")
    write_open_data(folder / "open-data")
    for segment in ("20230827161847", "20231005123336"):
        scan(folder, segment, 52, (600, 1200))
        (folder / "labels").mkdir(exist_ok=True)
        shutil.copy(folder / "scans" / segment / "inklabels.png", folder / "labels" / f"{segment}.png")
    scan(folder, "20231210121321", 3, (200, 300))
    catalog(folder, "20230827161847", "20231005123336", "20231210121321")
    (folder / "drawn").mkdir()
    shutil.copy(folder / "scans/20231210121321/inklabels.png", folder / "drawn/20231210121321.png")
    field_labels(folder / "scans/20231210121321", "20231210121321")
    prepare(folder, "20231210121321")
    seen = cv2.imread(str(folder / "drawn/20231210121321.png"), cv2.IMREAD_GRAYSCALE) / 255
    store_map(folder / "root", "20231210121321", "first-net", seen, voxel_size_um=DEMO_UM)
    finer = seen.repeat(2, 0).repeat(2, 1)
    store_map(folder / "root", "20231210121321-fine", "teacher", finer, voxel_size_um=DEMO_UM / 2)
    store_picture(folder / "root", "20231210121321-fine", "mask", np.ones(finer.shape))
    outline = [20, 20, 120, 20, 120, 120, 20, 120]
    rows = [{"id": 1, "name": "ink"}, {"id": 2, "name": "unsure"}]
    drawn = [
        {"id": n, "image_id": 1, "category_id": n, "bbox": [20, 20, 100, 100], "segmentation": [outline], "iscrowd": 0}
        for n in (1, 2)
    ]
    picture = {"id": 1, "file_name": "20231210121321.png", "width": 300, "height": 200}
    with zipfile.ZipFile(folder / "task-17.zip", "w") as export:
        document = {"images": [picture], "categories": rows, "annotations": drawn}
        export.writestr("annotations/instances_default.json", json.dumps(document))


def dataset(folder: Path, demo_root: Path) -> None:
    """A dataset of two segments, and a third one to read with what is trained on it."""
    sizes = {"20230827161847": (512, 768), "20231005123336": (512, 512), "20231210121321": (300, 400)}
    for segment, shape in sizes.items():
        scan(folder, segment, 5, shape)
    catalog(folder, *sizes)
    for segment in sizes:
        prepare(folder, segment)
    train, validation, _ = sizes
    labels = {"image": f"{folder}/scans/{{segment}}/inklabels.png"}
    splits = {"kind": "lists", "train": [train], "validation": [validation]}
    values = {"name": "letters", "root": str(folder / "root"), "segments": [train, validation], "labels": labels}
    settings = {**values, "sample_px": 256, "sampling": {"kind": "grid", "stride_px": 128}, "splits": splits}
    chains.build_dataset(BuildDatasetConfig.checked(settings, "stage"), RunContext())


def published(folder: Path, demo_root: Path) -> None:
    """A checkpoint as it was published, with weights by rule, and a prepared scan."""
    golden = Golden.read(REPOSITORY / "tests/models/golden", "timesformer-26")
    weights = fill_state_dict(golden.manifest)
    torch.save({"state_dict": weights, "hyper_parameters": {}}, folder / "timesformer_weights.ckpt")
    scan(folder, "20231005123336", 65, (66, 88))
    catalog(folder, "20231005123336")
    prepare(folder, "20231005123336")


def prepare(folder: Path, segment: str) -> None:
    """Prepare a segment of the folder's catalog."""
    place = f"{folder}/segments.yaml"
    config = PrepareConfig(segment=segment, root=str(folder / "root"), catalog=place, shard_px=64)
    run_prepare(config, RunContext())


def empty(folder: Path, demo_root: Path) -> None:
    """Nothing: a newcomer's folder."""


STAGES = {
    "docs/quick-start.md": empty,
    "docs/own-segment.md": own_segment,
    "docs/infer.md": views,
    "docs/search.md": search,
    "docs/ensembles.md": ensembles,
    "docs/evaluate.md": maps,
    "docs/provenance.md": runs,
    "docs/datasets.md": labelled,
    "docs/cloud.md": cloud,
    "docs/training.md": dataset,
    "docs/models.md": published,
}


@pytest.fixture
def set_stage(workshop: Workshop, demo_root: Path):
    """Put into the workshop what a page's commands find there; without a word of its own, the prepared demo."""
    return lambda page: STAGES.get(page, with_demo)(workshop.folder, demo_root)


@pytest.fixture
def desk(tmp_path, monkeypatch, capsys) -> Desk:
    """A folder with layers, a bundle and the command line."""
    return Desk(tmp_path, monkeypatch, capsys)
