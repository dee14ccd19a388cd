"""Settings, layers, bundles and segments: every message of docs/troubleshooting.md is provoked."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import zarr

from inkbatch.models.base import build_model
from inkbatch.models.bundle import Bundle
from inkbatch.models.stem3d_unet import Stem3dUnet, Stem3dUnetConfig
from inkbatch.predict.reference import keep_reference
from inkbatch.testing.golden import Golden, fill_state_dict
from inkbatch.testing.segments import identity_bundle, network_bundle, random_papyrus, write_layers
from inkbatch.testing.troubles import SHAPE, Troubles

GOLDEN = Path(__file__).resolve().parents[1] / "models" / "golden"
TROUBLES = Troubles()
provokes = TROUBLES.provokes


# ---- settings and catalog --------------------------------------------------------------------------------------------


@provokes("not in the catalog")
def _(desk):
    return desk.says("prepare", "demmo")


@provokes("segment ids are text; put quotes around")
def _(desk):
    (desk.folder / "segments.yaml").write_text("segments:\n  20231005123336: {source: layers}\n")
    return desk.says("segments")


@provokes("there is one already, and it is never overwritten by itself")
def _(desk):
    (desk.folder / "segments.yaml").write_text("segments: {}")
    return desk.says("segments", "--from", desk.folder)


@provokes("expected segments")
def _(desk):
    return desk.says("segments", "--from", desk.bundle)


@provokes("unknown key")
def _(desk):
    return desk.prepare("--set", "layer=3")


@provokes("holds a run with other settings or inputs")
def _(desk):
    return desk.prepared().prepare("--set", "codec=zstd")


@provokes("expected one prediction, got …")
def _(desk):
    desk.inferred().infer("--name", "b")
    return desk.says("export", "tiny", "--to", "map.png")


# ---- layers ----------------------------------------------------------------------------------------------------------


@provokes("expected layers (a folder of 00.tif, 01.tif, …, a picture, or zarr), got nothing")
def _(desk):
    return desk.prepare(source=desk.folder / "nowhere")


@provokes("expected layers in files named by their number")
def _(desk):
    return desk.prepare(source=desk.bundle)


@provokes("expected every layer from … to …, … missing")
def _(desk):
    (desk.layers / "02.tif").unlink()
    return desk.prepare()


@provokes("expected layers of one …, but … has … and … has …")
def _(desk):
    write_layers(desk.folder / "other", random_papyrus((1, 90, 121)))
    (desk.folder / "other" / "00.tif").rename(desk.layers / "05.tif")
    return desk.prepare()


@provokes("the file is truncated")
def _(desk):
    place = desk.layers / "03.tif"
    place.write_bytes(place.read_bytes()[:5000])
    return desk.prepare()


@provokes("expected a TIFF, PNG or JPG, but")
def _(desk):
    (desk.layers / "03.tif").write_text("<html>404</html>")
    return desk.prepare()


@provokes("depth order is unknown and is never guessed")
def _(desk):
    return desk.prepare("--voxel-size-um", "8", stated=False)


@provokes("voxel size is unknown")
def _(desk):
    return desk.prepare("--depth-order", "forward", stated=False)


@provokes("got voxel_size_um …, but … states …")
def _(desk):
    return desk.prepared().says(
        *("prepare", "again", "--source", desk.folder / "root/segments/tiny/surface.zarr"),
        *("--depth-order", "forward", "--voxel-size-um", "7"),
    )


@provokes("expected 0.1 to 200 µm")
def _(desk):
    return desk.prepare("--depth-order", "forward", "--voxel-size-um", "7910", stated=False)


def scaled(desk, *scale: float):
    """The tiny segment as an OME-Zarr with this scale along z, y and x, in micrometres."""
    group = zarr.create_group(desk.folder / "scaled.zarr", zarr_format=2)
    group.create_array("0", data=random_papyrus(SHAPE))
    transforms = [{"type": "scale", "scale": list(scale)}]
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": transforms}]}]
    return desk.folder / "scaled.zarr"


@provokes("expected one voxel size, got")
def _(desk):
    source = scaled(desk, 8, 8, 8)
    (source / "meta.json").write_text('{"voxelsize": 2.4}')
    return desk.prepare("--depth-order", "forward", source=source, stated=False)


@provokes("expected pixels as high as they are wide")
def _(desk):
    return desk.prepare("--depth-order", "forward", source=scaled(desk, 8, 8, 3.24), stated=False)


@provokes("µm between layers within")
def _(desk):
    desk.prepare("--depth-order", "forward", source=scaled(desk, 2, 8, 8), stated=False)
    return desk.infer()


@provokes("resample: expected at least the source's")
def _(desk):
    return desk.prepare("--resample", "4")


@provokes("expects pixels 4 times as far apart as layers")
def _(desk):
    return desk.prepare("--resample", "level2-zmean4-21slice-v1")


@provokes("the order of its axes is unknown and is never guessed")
def _(desk):
    zarr.create_array(desk.folder / "stack.zarr", data=random_papyrus(SHAPE))
    return desk.prepare(source=desk.folder / "stack.zarr")


@provokes("the mask is empty, so there is no papyrus to read")
def _(desk):
    cv2.imwrite(str(desk.folder / "mask.png"), np.zeros(SHAPE[1:], np.uint8))
    return desk.prepare("--set", f"mask={desk.folder / 'mask.png'}")


@provokes("expected layers inside … (all of …), got …")
def _(desk):
    return desk.prepare("--layers", "3:9")


# ---- bundle and segment ----------------------------------------------------------------------------------------------


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


@provokes("bundle expects … layers, surface has …")
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
    golden = Golden.read(GOLDEN, "i3d")
    weights = fill_state_dict(golden.manifest)
    weights.pop(next(reversed(weights)))
    torch.save({"state_dict": weights}, "net.ckpt")
    return desk.says("import-checkpoint", "net.ckpt", "there", "--as", "i3d-first-letters")


@provokes("its reference tile gives other logits here than at import")
def _(desk):
    bundle = network_bundle(desk.folder / "network")
    other = build_model(bundle.document.architecture, bundle.document.model).eval()
    facts = {"reference": keep_reference(bundle.location, other, bundle.contract)}
    Bundle.save(bundle.location, bundle.build(), bundle.document.model_copy(update=facts))
    return desk.prepared().infer(bundle=desk.folder / "network")


@provokes("also holds ema_model")
def _(desk):
    weights = {"w": torch.ones(1)}
    torch.save({"model": weights, "ema_model": weights}, "net.pth")
    return desk.says("import-checkpoint", "net.pth", "there", "--as", "ink-9um")


@provokes("stored under two names in the file, with values that differ")
def _(desk):
    weights = Stem3dUnet(Stem3dUnetConfig(depth_layers=3, stem_channels=1, widths=(2, 2), blocks=(1, 1))).state_dict()
    key = "network.shared_encoder.stem.convs.0.{}.bias"
    torch.save(weights | {key.format("all_modules.0"): weights[key.format("conv")] + 1}, "net.pth")
    contract = {"layers": {"count": 3}, "tile_px": 32, "stride_px": 16}
    own = {"extends": "ink-9um", "model": {"depth_layers": 3}, "contract": contract}
    Path("own.yaml").write_text(json.dumps(own), encoding="utf-8")
    return desk.says("import-checkpoint", "net.pth", "there", "--as", "own.yaml")


@provokes("presets fit these weights")
def _(desk):
    shapes = Golden.read(GOLDEN, "ink-9um").shapes
    torch.save({key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}, "net.pth")
    return desk.says("import-checkpoint", "net.pth", "there")


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


@pytest.mark.timeout(120)
@pytest.mark.parametrize("heading", TROUBLES.headings())
def test_the_message_says_the_words_of_the_page_and_ends_with_its_code(heading, desk, request):
    TROUBLES.check(heading, desk, request.getfixturevalue)
