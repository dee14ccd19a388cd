"""Weights & Biases, for those who set its key: the same curves and pictures, under an id that survives restarts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from inkbatch.io.store.location import Location

KEY, PROJECT, MODE = "WANDB_API_KEY", "WANDB_PROJECT", "WANDB_MODE"
DEFAULT_PROJECT = "inkbatch"
PATIENCE_S = 60  # for the server to answer at the start


class WandbLog:
    """One run at W&B. Its working files lie in a scratch folder; those of an offline run are stored with ours.

    Args:
        folder: Folder for the files of an offline run, for `wandb sync`.
        run: Name of the run.
        identity: Its id; the same for all processes that go on with it.
        settings: The run's configuration.

    Raises:
        ImportError: wandb is not installed.
        Exception: Whatever wandb raises if its server does not answer.
    """

    name = "W&B"

    def __init__(self, folder: Location, run: str, identity: str, settings: Mapping[str, Any]) -> None:
        import wandb

        self._wandb: Any = wandb
        self.folder = folder
        self._scratch = tempfile.TemporaryDirectory(prefix="inkbatch-wandb-")
        try:
            self._run: Any = wandb.init(
                project=os.environ.get(PROJECT, DEFAULT_PROJECT),
                name=run,
                id=identity,
                resume="allow",
                config=dict(settings),
                dir=self._scratch.name,
                settings=wandb.Settings(init_timeout=PATIENCE_S, console="off", silent=True),
            )
        except BaseException:
            self._scratch.cleanup()
            raise

    def start(self, step: int) -> None:
        """Do nothing: W&B goes on at its own step and ignores what it has already."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Send values under their tags."""
        self._run.log(dict(values), step=step)

    def picture(self, step: int, tag: str, png: bytes) -> None:
        """Send a PNG."""
        pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR_RGB)
        self._run.log({tag: self._wandb.Image(pixels)}, step=step)

    def flush(self) -> None:
        """Do nothing: W&B sends by itself."""

    def close(self, ended: str) -> None:
        """End the run there; a run that stopped early counts as failed until it goes on."""
        try:
            self._run.finish(exit_code=0 if ended == "done" else 1)
            if os.environ.get(MODE) == "offline":
                self._keep()
        finally:
            self._scratch.cleanup()

    def _keep(self) -> None:
        base = Path(self._scratch.name)
        for file in sorted(base.rglob("*")):
            if file.is_file() and not file.is_symlink():
                (self.folder / file.relative_to(base).as_posix()).write_bytes(file.read_bytes())
