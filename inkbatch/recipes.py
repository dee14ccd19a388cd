"""Recipes: published ways of working as YAML, one section per job, shipped as presets and usable by name.

A recipe is a YAML file in ``jobs/presets/`` (inside an installed package: ``inkbatch/presets/``), named by its file
name; a user's own may lie anywhere. ``inkbatch JOB --preset NAME`` and ``inkbatch JOB --config FILE`` both take the
job's section of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from inkbatch.config import JobConfig, near_matches, read_yaml, section_of
from inkbatch.errors import ConfigError

PACKAGE = Path(__file__).resolve().parent
FOLDERS = (PACKAGE / "jobs" / "presets", PACKAGE.parent / "jobs" / "presets")
"""Where the shipped recipes lie: in an installed package, and in a checkout."""

Settings = dict[str, Any]


class Recipe(JobConfig):
    """One recipe. Texts are for people; sections are settings of the job of that name.

    Attributes:
        recipe: What it is, in a line.
        reproduces: Whose way of working it follows.
        kept: What of it was taken over.
        differs: What is done in another way here, or is assumed because nobody has published it.
        data: What must lie where before it can run.
        steps: Commands, one after the other; words in capitals are to be filled in.
        prepare: Settings of ``inkbatch prepare``.
        labels: Settings of ``inkbatch labels``.
        vessels: Settings of ``inkbatch vessels``.
        build_dataset: Settings of ``inkbatch build-dataset``.
        train: Settings of ``inkbatch train``.
        infer: Settings of ``inkbatch infer``.
        infer_pictures: Settings of ``inkbatch infer-pictures``.
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


def recipe_names() -> list[str]:
    """Names of the shipped recipes, sorted."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """The file of a recipe.

    Args:
        name: Name of a shipped recipe, or path of a YAML file.

    Raises:
        ConfigError: There is no such recipe; near matches are named.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return Path(name).expanduser()
    known = recipe_names()
    if name not in known:
        hint = near_matches(name, known) or f"; known are {', '.join(known)}"
        raise ConfigError(f"preset {name!r}: there is none of that name{hint} (or give the path of a YAML file)")
    return _folder() / f"{name}.yaml"


def load_recipe(name: str) -> Recipe:
    """Read a recipe.

    Raises:
        ConfigError: There is none, or it does not validate.
    """
    place = str(recipe_path(name))
    return Recipe.checked(read_yaml(place), f"preset {place}")


def preset_settings(name: str | None, job: str) -> Settings | None:
    """A recipe's settings for one job; None without a name.

    Raises:
        ConfigError: There is no such recipe, or it says nothing on this job.
    """
    if name is None:
        return None
    load_recipe(name)
    return section_of(read_yaml(str(recipe_path(name))), job, f"preset {name}")


def describe_recipe(name: str) -> list[str]:
    """A recipe in words: what it follows, where it differs, which commands run it."""
    recipe = load_recipe(name)
    lines = [f"{name}: {recipe.recipe}"]
    if recipe.reproduces:
        lines.append(f"  follows: {recipe.reproduces}")
    for title, rows in (("kept", recipe.kept), ("differs", recipe.differs)):
        lines += [f"  {title}: {row}" for row in rows]
    if recipe.data:
        lines.append(f"  data: {recipe.data}")
    lines += [f"  $ {step}" for step in recipe.steps]
    return [*lines, f"  file: {recipe_path(name)}"]


def _folder() -> Path:
    for folder in FOLDERS:
        if folder.is_dir():
            return folder
    raise ConfigError(
        f"presets: none are installed (looked in {' and '.join(map(str, FOLDERS))}); install inkbatch again"
    )
