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
    golden = Golden.read(GOLDEN, "i3d")
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


@pytest.mark.timeout(120)
@pytest.mark.parametrize("heading", TROUBLES.headings())
def test_the_message_says_the_words_of_the_page_and_ends_with_its_code(heading, desk, request):
    TROUBLES.check(heading, desk, request.getfixturevalue)
