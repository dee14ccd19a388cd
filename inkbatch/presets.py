"""Presets: published ways of working as YAML, one section per job, shipped and usable by name.

A preset is a YAML file in ``jobs/presets/`` (inside an installed package: ``inkbatch/jobs/presets/``), named by its
file name; a user's own may be anywhere. Its key ``recipe``, a title, tells it from plain settings. ``inkbatch JOB
--preset NAME`` and ``inkbatch JOB --config FILE`` both take the job's section of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from inkbatch.config import JobConfig, located, read_yaml, section_of
from inkbatch.errors import ConfigError
from inkbatch.text import near_matches

PACKAGE = Path(__file__).resolve().parent
FOLDERS = (PACKAGE / "jobs" / "presets", PACKAGE.parent / "jobs" / "presets")
"""Folders of the shipped presets: in an installed package, and in a checkout."""

Settings = dict[str, Any]


class Preset(JobConfig):
    """One preset. Texts are for people; sections are settings of the job of that name.

    Attributes:
        recipe: Title, one line.
        reproduces: The published work that it follows.
        kept: Parts of it that were taken over.
        differs: Parts that are done in another way here, or assumed because they were not published.
        data: Data that must be in place before it can run.
        steps: Commands, one after the other; words in capitals are to be filled in.
        prepare: Settings of ``inkbatch prepare``.
        labels: Settings of ``inkbatch labels``.
        vessels: Settings of ``inkbatch vessels``.
        build_dataset: Settings of ``inkbatch build-dataset``.
        train: Settings of ``inkbatch train``.
        infer: Settings of ``inkbatch infer``.
        infer_pictures: Settings of ``inkbatch infer-pictures``.
        instances: Settings of ``inkbatch instances``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    recipe: str
    reproduces: str = ""
    kept: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()
    data: str = ""
    steps: tuple[str, ...] = ()
    prepare: Settings | None = None
    labels: Settings | None = None
    vessels: Settings | None = None
    build_dataset: Settings | None = Field(None, alias="build-dataset")
    train: Settings | None = None
    infer: Settings | None = None
    infer_pictures: Settings | None = Field(None, alias="infer-pictures")
    instances: Settings | None = None


def shipped_folder(folders: Sequence[Path] = FOLDERS) -> Path:
    """Find the folder of shipped presets, of jobs or of checkpoints.

    Raises:
        ConfigError: None of `folders` is there.
    """
    for folder in folders:
        if folder.is_dir():
            return folder
    raise ConfigError(
        f"presets: none are installed (looked in {' and '.join(map(str, folders))}); install inkbatch again"
    )


def preset_names(folders: Sequence[Path] = FOLDERS) -> list[str]:
    """List the names of the shipped presets, sorted."""
    return sorted(path.stem for path in shipped_folder(folders).glob("*.yaml"))


def preset_path(name: str, beside: Path = Path(), folders: Sequence[Path] = FOLDERS) -> Path:
    """Find the file of a preset.

    Args:
        name: Name of a shipped preset, or path of a YAML file.
        beside: Folder that a relative path counts from.
        folders: Folders of the shipped presets, of which the first that is there counts.

    Raises:
        ConfigError: There is no such preset; near matches are named.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return beside / Path(name).expanduser()
    known = preset_names(folders)
    if name not in known:
        hint = near_matches(name, known) or f"; known are {', '.join(known)}"
        raise ConfigError(f"preset {name!r}: there is none of that name{hint} (or give the path of a YAML file)")
    return shipped_folder(folders) / f"{name}.yaml"


def load_preset(name: str) -> Preset:
    """Read a preset.

    Raises:
        ConfigError: There is none, or it does not validate.
    """
    place = str(preset_path(name))
    return Preset.checked(read_yaml(place), f"preset {place}")


def preset_settings(name: str | None, job: str) -> Settings | None:
    """Read a preset's settings for one job; None without a name.

    Raises:
        ConfigError: There is no such preset, or it has no section for this job.
    """
    if name is None:
        return None
    load_preset(name)
    path = preset_path(name)
    section = section_of(read_yaml(str(path)), job, f"preset {name}")
    return section if path.parent == shipped_folder() else located(section, path.parent)


def describe_preset(name: str) -> list[str]:
    """Describe a preset: what it follows, where it differs, which commands run it."""
    preset = load_preset(name)
    lines = [f"{name}: {preset.recipe}"]
    if preset.reproduces:
        lines.append(f"  follows: {preset.reproduces}")
    for title, rows in (("kept", preset.kept), ("differs", preset.differs)):
        lines += [f"  {title}: {row}" for row in rows]
    if preset.data:
        lines.append(f"  data: {preset.data}")
    lines += [f"  $ {step}" for step in preset.steps]
    return [*lines, f"  file: {preset_path(name)}"]
