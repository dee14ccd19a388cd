"""Workspaces: a folder with a catalog and a ROOT, which commands find from any folder inside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from inkbatch.config import read_yaml
from inkbatch.errors import ConfigError
from inkbatch.validation import in_words

WORKSPACE_NAME = "inkbatch.yaml"
FILES: Mapping[str, str] = {
    WORKSPACE_NAME: """\
# This folder is a workspace of inkbatch: commands that run in it, or in a folder below it, use what stands here.
# Paths count from this file.
root: root                  # folder or s3://bucket/prefix that holds everything that inkbatch makes
catalogs: [segments.yaml]   # your segments; later files win
""",
    "segments.yaml": """\
# Your segments. Paths count from this file, {segment} is replaced by the id. `inkbatch segments` lists them.
segments: {}
#  "20231210121321":
#    source: layers/{segment}     # folder of 00.tif, 01.tif, …; or zarr, OME-Zarr, s3://, https://
#    depth_order: forward         # forward or reversed: never guessed
#    voxel_size_um: 7.91
#    ink_labels: labels/{segment}.png
""",
    ".gitignore": "/root/\n/.inkbatch/\n/pulled/\n",
}


class _Document(BaseModel):
    """Content of ``inkbatch.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: str = "root"
    catalogs: tuple[str, ...] = ("segments.yaml",)


@dataclass(frozen=True)
class Workspace:
    """A workspace.

    Attributes:
        folder: Its folder.
        root: ROOT, an absolute path or URI.
        catalogs: Catalog files that exist, absolute paths.
    """

    folder: Path
    root: str
    catalogs: tuple[Path, ...]


def find_workspace(start: Path | None = None) -> Workspace | None:
    """Find the workspace that holds a folder, its own or the nearest one above; None outside of all.

    Args:
        start: The folder; None is the current one.

    Raises:
        ConfigError: Its ``inkbatch.yaml`` cannot be read or does not validate.
    """
    try:
        here = (start or Path.cwd()).resolve()
    except FileNotFoundError:  # the current folder is gone
        return None
    for folder in (here, *here.parents):
        file = folder / WORKSPACE_NAME
        if file.is_file():
            return _read(file)
    return None


def make_workspace(folder: Path) -> list[str]:
    """Write the files of a workspace that are not there yet; returns a line per file.

    Raises:
        ConfigError: The folder cannot be written.
    """
    lines = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in FILES.items():
            place = folder / name
            if place.exists():
                lines.append(f"kept     {place}")
                continue
            place.write_text(text, encoding="utf-8")
            lines.append(f"written  {place}")
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot make a workspace here: {error.strerror or error}; choose another"
        ) from error
    return lines


def _read(file: Path) -> Workspace:
    values = read_yaml(str(file))
    try:
        found = _Document.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"workspace {file}: {in_words(error, values, model=_Document)}") from error
    root = found.root if "://" in found.root else str((file.parent / found.root).absolute())
    named = tuple(file.parent / name for name in found.catalogs)
    return Workspace(file.parent, root, tuple(place for place in named if place.is_file()))
