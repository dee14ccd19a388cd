"""Machines, storage, stops, engines and the viewer: every message of docs/troubleshooting.md is provoked."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from inkbatch.data.labels.painting_journal import Journal
from inkbatch.data.labels.painting_session import PaintSession, Sent
from inkbatch.data.labels.painting_version import create_version
from inkbatch.errors import StorageError
from inkbatch.io.store.location import Location
from inkbatch.steps.prepare.job import run as run_prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.testing.faults import preempted_context
from inkbatch.testing.maps import store_map
from inkbatch.testing.troubles import Troubles
from inkbatch.view.edit import Editor
from inkbatch.view.scene import Scene
from inkbatch.view.viewer import Viewer

TROUBLES = Troubles()
provokes = TROUBLES.provokes


# ---- machine ---------------------------------------------------------------------------------------------------------


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

    desk.monkeypatch.setattr("inkbatch.io.store.local_files.NewFile.publish", full)
    desk.monkeypatch.setattr("inkbatch.io.store.retrying.RETRY_DELAYS_S", (), raising=False)
    return desk.prepare()


# ---- storage ---------------------------------------------------------------------------------------------------------


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


@provokes("which looks like a secret")
def _(desk):
    return desk.says("launch", "infer", "tiny", "--bundle", "WANDB_API_KEY=hidden", "--engine", "slurm", "--dry-run")


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


# ---- stops -----------------------------------------------------------------------------------------------------------


@provokes("stopped by SIGTERM; … stored by this process")
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
    script += "signal.signal(signal.SIGTERM, start.stop_before_work); os.kill(os.getpid(), signal.SIGTERM)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    return ended.returncode, ended.stderr


@provokes("incomplete, … of … units are stored")
def _(desk):
    config = PrepareConfig(segment="tiny", source=str(desk.layers), depth_order="forward", voxel_size_um=8, shard_px=32)
    with pytest.raises(Exception, match="stopped"):
        run_prepare(config, preempted_context(1))
    return desk.infer()


# ---- engines ---------------------------------------------------------------------------------------------------------


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


# ---- viewer ----------------------------------------------------------------------------------------------------------


@provokes("nothing is prepared at … and there is no prediction of it")
def _(desk):
    return desk.says("view", "tiny")


@provokes("unknown host name")
def _(desk):
    from inkbatch.view.guard import allowed_names, refusal

    return 403, str(refusal("/", {"Host": "evil.example"}, allowed_names("localhost"), local_only=True))


@provokes("cannot listen on … port …: Address already in use")
def _(desk):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        return desk.prepared().says("view", "tiny", "--port", taken.getsockname()[1])


@provokes("show them separately, or make the map again from this surface")
def _(desk):
    store_map(desk.prepared().folder / "root", "tiny", "other", np.zeros((64, 64)))
    return desk.says("view", "tiny")


@provokes("is open for painting in process …")
def _(desk):
    desk.prepared()
    editor = Editor(Viewer(Scene(["tiny"], "root")), "root", "ada")
    try:
        return desk.says("view", "tiny", "--edit")
    finally:
        editor.close()


@provokes("strokes cannot be stored, so no more are taken")
def _(desk):
    folder = create_version(
        Location.parse("memory://troubles/labels/tiny"), "tiny", (9, 9), 8.0, author="ada", started_from="nothing"
    )
    now = [0.0]
    session = PaintSession(folder, clock=lambda: now[0])
    with desk.monkeypatch.context() as patch:
        patch.setattr(Journal, "append", lambda *_: (_ for _ in ()).throw(StorageError("no answer")))
        session.undo(Sent("tab", 1, "", 0, "undo"))
        now[0] = 31.0
        with pytest.raises(StorageError) as refused:
            session.undo(Sent("tab", 2, "", 0, "undo"))
    session.close()
    return 503, str(refused.value)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("heading", TROUBLES.headings())
def test_the_message_says_the_words_of_the_page_and_ends_with_its_code(heading, desk, request):
    TROUBLES.check(heading, desk, request.getfixturevalue)
