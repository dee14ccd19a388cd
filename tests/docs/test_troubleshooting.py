"""docs/troubleshooting.md: every message of the page is provoked, and says the words under which it is explained."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import zarr

from inkbatch import cli
from inkbatch.errors import EXIT_CONFIG, EXIT_DATA, EXIT_TRY_AGAIN
from inkbatch.io.storage import Location
from inkbatch.steps.prepare import PrepareConfig
from inkbatch.steps.prepare import run as run_prepare
from inkbatch.testing.faults import preempted_context
from inkbatch.testing.golden import Golden, fill_state_dict
from inkbatch.testing.maps import store_map
from inkbatch.testing.segments import identity_bundle, network_bundle, random_papyrus, write_layers
from inkbatch.testing.training import tiny_dataset, tiny_run, write_labels

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ENTRIES = dict(re.findall(r"^### `(.+)`\n(\d+)", PAGE, re.MULTILINE))
SHAPE = (5, 90, 120)
PROVOKED = {}
SLOW = {"cannot be shared evenly by … devices"}  # starts processes


def pattern(heading: str) -> str:
    """A heading as a regular expression: ``…`` stands for anything."""
    return ".*?".join(map(re.escape, heading.split("…")))


class Desk:
    """A folder with layers, a bundle and the command line.

    Attributes:
        folder: Where everything lies.
        layers: Five layers.
        bundle: An identity bundle of three layers.
    """

    def __init__(self, folder: Path, monkeypatch, capsys) -> None:
        self.folder, self.monkeypatch, self._capsys = folder, monkeypatch, capsys
        self.layers = write_layers(folder / "layers", random_papyrus(SHAPE))
        self.bundle = folder / "bundle"
        identity_bundle(self.bundle)
        monkeypatch.setattr("inkbatch.run.signals.install_handlers", lambda stop: None)
        monkeypatch.chdir(folder)

    def says(self, *arguments: object) -> tuple[int, str]:
        """Exit code and message of a command."""
        words = [str(argument) for argument in arguments]
        code = cli.run_command(lambda: cli.app(args=words, standalone_mode=False))
        return code, self._capsys.readouterr().err

    def prepare(self, *arguments: object, source: object = None, stated: bool = True) -> tuple[int, str]:
        facts = ["--depth-order", "forward", "--voxel-size-um", "8"] if stated else []
        return self.says("prepare", "tiny", "--source", source or self.layers, *facts, *arguments)

    def infer(self, *arguments: object, bundle: object = None) -> tuple[int, str]:
        return self.says("infer", "tiny", "--bundle", bundle or self.bundle, *arguments)

    def prepared(self) -> Desk:
        assert self.prepare()[0] == 0
        return self

    def inferred(self) -> Desk:
        assert self.prepared().infer("--name", "a")[0] == 0
        return self


@pytest.fixture
def desk(tmp_path, monkeypatch, capsys) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


def provokes(heading: str):
    """Register what brings a message about; it returns exit code and message."""

    def register(function):
        PROVOKED[heading] = function
        return function

    return register


# ---- settings and catalog -------------------------------------------------------------------------------------------


@provokes("not in the catalog")
def _(desk):
    return desk.says("prepare", "demmo")


@provokes("segment ids are text; put quotes around")
def _(desk):
    (desk.folder / "segments.yaml").write_text("segments:\n  20231005123336: {source: layers}\n")
    return desk.says("segments")


@provokes("unknown key")
def _(desk):
    return desk.prepare("--set", "layer=3")


@provokes("holds a run with other settings or inputs")
def _(desk):
    return desk.prepared().prepare("--set", "codec=zstd")


@provokes("one of its … predictions is wanted")
def _(desk):
    desk.inferred().infer("--name", "b")
    return desk.says("export", "tiny", "--to", "map.png")


# ---- layers ---------------------------------------------------------------------------------------------------------


@provokes("layers are wanted (a folder of 00.tif, 01.tif, …, a picture, zarr), nothing is there")
def _(desk):
    return desk.prepare(source=desk.folder / "nowhere")


@provokes("layers are wanted as files named by their number")
def _(desk):
    return desk.prepare(source=desk.bundle)


@provokes("every layer from … to … is wanted, … missing")
def _(desk):
    (desk.layers / "02.tif").unlink()
    return desk.prepare()


@provokes("layers of one … are wanted, … has … and … has …")
def _(desk):
    write_layers(desk.folder / "other", random_papyrus((1, 90, 121)))
    (desk.folder / "other" / "00.tif").rename(desk.layers / "05.tif")
    return desk.prepare()


@provokes("the file is truncated")
def _(desk):
    place = desk.layers / "03.tif"
    place.write_bytes(place.read_bytes()[:5000])
    return desk.prepare()


@provokes("a TIFF, PNG or JPG is wanted")
def _(desk):
    (desk.layers / "03.tif").write_text("<html>404</html>")
    return desk.prepare()


@provokes("nobody states its depth order, and it is never guessed")
def _(desk):
    return desk.prepare("--voxel-size-um", "8", stated=False)


@provokes("nobody states its voxel size")
def _(desk):
    return desk.prepare("--depth-order", "forward", stated=False)


@provokes("voxel_size_um … is stated, … says …")
def _(desk):
    return desk.prepared().says(
        *("prepare", "again", "--source", desk.folder / "root/segments/tiny/surface.zarr"),
        *("--depth-order", "forward", "--voxel-size-um", "7"),
    )


@provokes("which dimension is depth is never guessed")
def _(desk):
    zarr.create_array(desk.folder / "stack.zarr", data=random_papyrus(SHAPE))
    return desk.prepare(source=desk.folder / "stack.zarr")


@provokes("the mask is empty, so there is no papyrus to read")
def _(desk):
    cv2.imwrite(str(desk.folder / "mask.png"), np.zeros(SHAPE[1:], np.uint8))
    return desk.prepare("--set", f"mask={desk.folder / 'mask.png'}")


@provokes("layers … are wanted, … holds …")
def _(desk):
    return desk.prepare("--layers", "3:9")


# ---- bundle and segment ---------------------------------------------------------------------------------------------


@provokes("no bundle here (bundle.json is missing)")
def _(desk):
    return desk.prepared().infer(bundle=desk.folder / "nothing")


@provokes("nothing at …; run inkbatch prepare … first")
def _(desk):
    return desk.infer()


@provokes("does not match bundle")
def _(desk):
    identity_bundle(desk.folder / "finer", voxel_size_um=3.24)
    return desk.prepared().infer(bundle=desk.folder / "finer")


@provokes("bundle wants … layers, surface has …")
def _(desk):
    identity_bundle(desk.folder / "deep", layers=9)
    return desk.prepared().infer(bundle=desk.folder / "deep")


@provokes("bundle.json was edited since its weights were stored")
def _(desk):
    network_bundle(desk.folder / "network")
    place = desk.folder / "network" / "bundle.json"
    document = json.loads(place.read_text())
    document["contract"]["divisor"] = 200
    place.write_text(json.dumps(document))
    return desk.prepared().infer(bundle=place.parent)


@provokes("the weights were damaged or exchanged; copy the bundle again")
def _(desk):
    network_bundle(desk.folder / "network")
    place = desk.folder / "network" / "weights.safetensors"
    content = bytearray(place.read_bytes())
    content[-1] ^= 1
    place.write_bytes(content)
    return desk.prepared().infer(bundle=place.parent)


@provokes("does not fit model")
def _(desk):
    golden = Golden.read(REPOSITORY / "tests/models/golden", "i3d")
    weights = fill_state_dict(golden.manifest)
    weights.pop(next(reversed(weights)))
    torch.save({"state_dict": weights}, "net.ckpt")
    return desk.says("import-checkpoint", "net.ckpt", "there", "--as", "i3d-first-letters")


@provokes("cannot be read as plain weights")
def _(desk):
    torch.save(subprocess.Popen, "net.ckpt")
    return desk.says("import-checkpoint", "net.ckpt", "there", "--as", "timesformer-gp")


@provokes("does not allow")
def _(desk):
    return desk.prepared().infer("--tta", "turn-90")


@provokes("edited since it was prepared")
def _(desk):
    place = desk.prepared().folder / "root/segments/tiny/surface.zarr/zarr.json"
    place.write_text(place.read_text().replace('"forward"', '"reversed"'))
    return desk.infer()


@provokes("the probe's verdict is …")
def _(desk):
    network_bundle(desk.folder / "network", layers=3)
    return desk.prepared().infer("--layers", "auto", bundle=desk.folder / "network")


@provokes("the model returned NaN or infinity")
def _(desk):
    network_bundle(desk.folder / "network")
    return desk.prepared().infer("--override", "std=1e-38", "--override", "mean=1e30", bundle=desk.folder / "network")


# ---- machine --------------------------------------------------------------------------------------------------------


@provokes("this machine has no usable cuda device")
def _(desk):
    desk.monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return desk.prepared().infer("--device", "cuda")


@provokes("out of memory")
def _(desk):
    """Nobody fills the memory of a test machine: the allocation itself says no, as NumPy's and torch's do."""

    def full(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 3.00 TiB for an array with shape (65, 30000, 30000)")

    desk.monkeypatch.setattr("inkbatch.predict.predictor.Predictor.blend_windows", full)
    return desk.prepared().infer()


@provokes("cannot hold one zarr shard")
def _(desk):
    return desk.prepare("--memory", "64MiB")


@provokes("No space left on device")
def _(desk):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    desk.monkeypatch.setattr("inkbatch.io.local_files.os.replace", full)
    desk.monkeypatch.setattr("inkbatch.io.storage.RETRY_DELAYS_S", (), raising=False)
    return desk.prepare()


# ---- storage --------------------------------------------------------------------------------------------------------


@provokes("not there (the server answered …)")
def _(desk, s3_root):
    return desk.prepare("--root", "s3://no-such-bucket/ink")


@provokes("no usable credentials")
def _(desk, s3_root):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        desk.monkeypatch.delenv(name)
    return desk.prepare("--root", "s3://bucket/none")


@provokes("the store refused your credentials")
def _(desk, s3_root):
    desk.monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong" * 8)
    return desk.says("export", "tiny", "--root", "s3://bucket/refused", "--to", "map.png")


@provokes("access refused")
def _(desk, web):
    (web.folder / "layers").mkdir()
    web.lists_folders = False
    return desk.prepare(source=f"{web.url}/layers")


@provokes("storage failed again after retries")
def _(desk, web):
    (web.folder / "00.tif").write_bytes((desk.layers / "00.tif").read_bytes())
    web.fail_next = [503] * 100
    return desk.prepare(source=f"{web.url}/00.tif")


@provokes("fails its checksum")
def _(desk):
    desk.inferred()
    shard = next((desk.folder / "root/predictions/tiny/a/prediction.zarr/0").rglob("c/0/0"))
    content = bytearray(shard.read_bytes())
    content[8] ^= 255
    shard.write_bytes(content)
    return desk.says("export", "tiny", "--to", "map.png")


@provokes("this zarr shard is missing although its array is there")
def _(desk):
    desk.inferred()
    next((desk.folder / "root/predictions/tiny/a/prediction.zarr/0").rglob("c/0/0")).unlink()
    return desk.says("export", "tiny", "--to", "map.png")


# ---- stops ----------------------------------------------------------------------------------------------------------


@provokes("stopped by SIGTERM; … units were stored by this process")
def _(desk):
    from inkbatch.run.signals import StopFlag

    flag = StopFlag()
    flag.set("SIGTERM")
    desk.monkeypatch.setattr("inkbatch.run.signals.StopFlag", lambda: flag)
    return desk.prepare()


@provokes("before the work began; run the same command again")
def _(desk):
    script = "import os, signal, runpy, sys; sys.argv = ['inkbatch', 'segments']\n"
    script += "import inkbatch.__main__ as start\n"
    script += "signal.signal(signal.SIGTERM, start._stopped); os.kill(os.getpid(), signal.SIGTERM)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    return ended.returncode, ended.stderr


@provokes("incomplete, … of … units are stored")
def _(desk):
    config = PrepareConfig(segment="tiny", source=str(desk.layers), depth_order="forward", voxel_size_um=8, shard_px=32)
    with pytest.raises(Exception, match="stopped"):
        run_prepare(config, preempted_context(1))
    return desk.infer()


# ---- labels, datasets, training -------------------------------------------------------------------------------------


@provokes("nobody says where its ink labels are")
def _(desk):
    return desk.inferred().says("evaluate", "tiny")


@provokes("its labels are …, the surface is …")
def _(desk):
    cv2.imwrite("labels.png", np.zeros((80, 120), np.uint8))
    return desk.prepared().says("labels", "tiny", "--image", "labels.png")


def _dataset(desk, **changes: object) -> tuple[int, str]:
    """Build a dataset of the tiny segment, which has ink at its left."""
    labels = np.zeros(SHAPE[1:], np.uint8)
    labels[:, :40] = 255
    write_labels(desk.prepared().folder / "root", "tiny", labels)
    values = {"name": "d", "segments": ["tiny"], "sample_px": 32, "sampling": {"kind": "grid", "stride_px": 16}}
    Path("d.yaml").write_text(json.dumps({**values, "splits": {"kind": "kfold", "folds": 2}, **changes}))
    return desk.says("build-dataset", "--config", "d.yaml")


@provokes("samples see pixels… of held-out ones")
def _(desk):
    return _dataset(desk)


def _train(desk, **changes: object) -> tuple[int, str]:
    tiny_dataset(desk.folder / "root")
    Path("run.yaml").write_text(json.dumps(tiny_run(desk.folder / "root", **changes)))
    return desk.says("train", "--config", "run.yaml")


def _train_on(desk, **sample: object) -> tuple[int, str]:
    """Train on a dataset of which every sample was changed."""
    index = tiny_dataset(desk.folder / "root")
    place = desk.folder / "root/datasets/tiny"
    (place / "index.json").unlink()
    samples = tuple(one.model_copy(update=sample) for one in index.samples)
    index.model_copy(update={"samples": samples, "digest": ""}).save(Location.parse(place))
    Path("run.yaml").write_text(json.dumps(tiny_run(desk.folder / "root")))
    return desk.says("train", "--config", "run.yaml")


@provokes("split … holds no sample")
def _(desk):
    return _train_on(desk, split="train")


@provokes("samples of split … holds ink")
def _(desk):
    return _train_on(desk, ink_share=0.0)


def _model(**changes: object) -> dict[str, object]:
    run = tiny_run(Path("root"))
    return {**run["model"], "config": {**run["model"]["config"], **changes}}


@provokes("samples hold … layers, the network wants …")
def _(desk):
    return _train(desk, model=_model(depth_layers=9))


@provokes("is not a multiple of … px, the coarsest stride inside the network")
def _(desk):
    return _train(desk, tile_px=24, model=_model(family="FPN", decoder={}))


@provokes("the loss of epoch … is …; its batch holds the samples")
def _(desk):
    return _train(desk, optimiser={"rate": 1e30}, clip_gradient=None)


@provokes("cannot be shared evenly by … devices")
def _(desk):
    tiny_dataset(desk.folder / "root")
    Path("run.yaml").write_text(json.dumps(tiny_run(desk.folder / "root", batch=5, devices=2)))
    ended = subprocess.run(
        [sys.executable, "-m", "inkbatch", "train", "--config", "run.yaml"], capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stderr  # in processes of its own: training on several devices starts some


# ---- engines --------------------------------------------------------------------------------------------------------


@provokes("is a folder of this machine, which its jobs cannot see")
def _(desk):
    return desk.says(
        "launch", "infer", "demo", "--bundle", "demo", "--engine", "kubernetes", "--root", "root", "--dry-run"
    )


@provokes("not found on this machine; run this where it is installed")
def _(desk):
    desk.monkeypatch.setenv("PATH", str(desk.folder))
    return desk.says(
        "launch", "infer", "demo", "--bundle", "demo", "--engine", "slurm", "--option", "program=[inkbatch]"
    )


@provokes("no launch of that name or of such a segment")
def _(desk):
    return desk.says("cancel", "demo")


# ---- viewer ---------------------------------------------------------------------------------------------------------


@provokes("nothing is prepared at … and there is no prediction of it")
def _(desk):
    return desk.says("view", "tiny")


@provokes("this name is not mine")
def _(desk):
    from inkbatch.view.guard import allowed_names, refusal

    return 403, str(refusal("/", {"Host": "evil.example"}, allowed_names("localhost"), local_only=True))


@provokes("cannot listen on … port …: Address already in use")
def _(desk):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        return desk.prepared().says("view", "tiny", "--port", taken.getsockname()[1])


@provokes("show them apart, or make the map anew from this surface")
def _(desk):
    store_map(desk.prepared().folder / "root", "tiny", "other", np.zeros((64, 64)))
    return desk.says("view", "tiny")


def test_every_message_of_the_page_is_provoked():
    assert set(ENTRIES) == set(PROVOKED)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "heading",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in sorted(PROVOKED)],
)
def test_the_message_says_the_words_of_the_page_and_ends_with_its_code(heading, desk, request):
    needed = PROVOKED[heading].__code__.co_varnames[1 : PROVOKED[heading].__code__.co_argcount]
    code, said = PROVOKED[heading](desk, *(request.getfixturevalue(name) for name in needed))
    assert re.search(pattern(heading), said, re.DOTALL), said
    assert code == int(ENTRIES[heading])
    assert "Traceback" not in said


def test_the_table_of_exit_codes_is_that_of_the_program():
    codes = set(map(int, re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)))
    assert {EXIT_CONFIG, EXIT_DATA, EXIT_TRY_AGAIN, 0, 1, 130} == codes
