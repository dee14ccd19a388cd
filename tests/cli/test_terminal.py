"""The long jobs on a real terminal: what they show, and what Ctrl-C does to them."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from inkbatch.testing.maps import store_map
from inkbatch.testing.segments import identity_bundle, random_papyrus, write_layers
from inkbatch.testing.training import tiny_dataset, tiny_run

PNG = b"\x89PNG"
SHAPE = (3, 1200, 1400)


class Terminal:
    """An `inkbatch` command with a terminal of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.parent, child = pty.openpty()
        self.seen = ""
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "inkbatch", *arguments],
            stdin=child,
            stdout=child,
            stderr=child,
            cwd=folder,
            env={**os.environ, "TERM": "xterm-256color", "INKBATCH_USD_PER_HOUR": "3600"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(child)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        try:
            while data := os.read(self.parent, 65536):
                self.seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode(errors="replace"))
        except OSError:
            pass  # the terminal is gone

    def wait_for(self, pattern: str, seconds: float = 120) -> str:
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < end, self.seen[-2000:]
            time.sleep(0.01)
        return found[0]

    def press_ctrl_c(self) -> None:
        os.write(self.parent, b"\x03")

    def end(self, seconds: float = 120) -> int:
        code = self.process.wait(seconds)
        self.reader.join(5)
        os.close(self.parent)
        return code


def prepare(folder: Path) -> tuple[list[str], str]:
    write_layers(folder / "layers", random_papyrus(SHAPE))
    stated = ["--source", "layers", "--depth-order", "forward", "--voxel-size-um", "8"]
    return ["prepare", "tiny", *stated, "--set", "shard_px=32"], "root/segments/tiny/prepare/so-far.png"


def infer(folder: Path) -> tuple[list[str], str]:
    arguments, _ = prepare(folder)
    command = [sys.executable, "-m", "inkbatch", *arguments[:-1], "shard_px=512"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    identity_bundle(folder / "bundle", tile_px=64, stride_px=16)
    arguments = ["infer", "tiny", "--bundle", "bundle", "--name", "a", "--set", "unit_px=32"]
    return arguments, "root/predictions/tiny/a/so-far.png"


def ensemble(folder: Path) -> tuple[list[str], str]:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        store_map(folder / "root", "tiny", name, rng.random(SHAPE[1:]), unit_px=512)
    members = ["--prediction", "a", "--prediction", "b", "--name", "both"]
    return ["ensemble", "tiny", *members, "--set", "unit_px=32"], "root/predictions/tiny/both/so-far.png"


def train(folder: Path) -> tuple[list[str], str]:
    tiny_dataset(folder / "root")
    (folder / "run.yaml").write_text(json.dumps(tiny_run(Path("root"), epochs=12)))
    return ["train", "--config", "run.yaml"], "root/runs/first/curves.png"


RATES = {"prepare": "MB/s written", "infer": "tiles/s", "ensemble": "MB/s written", "train": "tiles/s"}


@pytest.mark.slow
@pytest.mark.parametrize("job", [prepare, infer, ensemble, train])
def test_a_long_job_shows_its_pace_and_a_picture_and_ctrl_c_stops_it_cleanly(job, tmp_path):
    arguments, picture = job(tmp_path)
    terminal = Terminal(tmp_path, *arguments)
    said = terminal.wait_for(r"(picture|curves) so far: \S+png").rsplit(" ", 1)[1]
    assert said == str(tmp_path / picture)
    terminal.wait_for(r"[2-9]\d*/\d+ (units|epochs)")
    terminal.press_ctrl_c()
    assert terminal.end() == 75, terminal.seen[-2000:]
    device = r" · device \d+ %" if job in (infer, train) else ""  # the others need none
    pace = rf"[\d.,]+ {RATES[job.__name__]}{device} · \d+\.\d\d USD"
    assert re.search(rf"\d+/\d+ (units|epochs) {pace} \d:\d\d:\d\d \S+ left", terminal.seen)
    assert "Ctrl-C again stops at once" in terminal.seen
    assert "run the same command again to go on" in " ".join(terminal.seen.split())
    assert (tmp_path / picture).read_bytes().startswith(PNG)
    again = Terminal(tmp_path, *arguments)
    assert again.end(240) == 0, again.seen[-2000:]
    assert (tmp_path / picture).exists() == (job is train)


@pytest.mark.slow
def test_ctrl_c_twice_ends_a_job_at_once_and_the_next_one_goes_on(tmp_path):
    arguments, _ = ensemble(tmp_path)
    terminal = Terminal(tmp_path, *arguments)
    terminal.wait_for(r"[1-9]\d*/\d+ units")
    terminal.press_ctrl_c()
    terminal.press_ctrl_c()
    assert terminal.end() in (75, 130)  # 75 where it had ended cleanly before the second one was seen
    again = Terminal(tmp_path, *arguments)
    assert again.end() == 0, again.seen[-2000:]
    assert not re.search(r"ensemble: complete · \d+ units? stored, 0 already done", again.seen)


@pytest.mark.slow
@pytest.mark.parametrize("job", [prepare, ensemble])
def test_without_a_terminal_a_job_writes_one_line_per_unit(job, tmp_path):
    arguments, _ = job(tmp_path)
    command = [sys.executable, "-m", "inkbatch", *arguments[:-1], arguments[-1].replace("=32", "=512")]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = [line for line in ended.stderr.splitlines() if re.match(rf"{job.__name__}: unit \S+ stored", line)]
    units = int(re.search(r": (\d+) units, 0 already done", ended.stderr)[1])
    assert len(lines) == units > 2
    assert "\x1b" not in ended.stderr
