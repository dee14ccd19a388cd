"""Settings of engines: an ``engines.yaml`` beside the work, the environment, and ``--option key=value``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from inkbatch.config import read_yaml
from inkbatch.errors import ConfigError
from inkbatch.launch.base import EngineSettings, launcher_class, launcher_names
from inkbatch.workspace import find_workspace

FILE_VARIABLE = "INKBATCH_ENGINES"
FILE_NAME = "engines.yaml"
IMAGE_VARIABLE = "INKBATCH_IMAGE"


def _beside_the_work() -> str | None:
    """Find ``engines.yaml`` in the current folder, else in the workspace."""
    if Path(FILE_NAME).is_file():
        return FILE_NAME
    workspace = find_workspace()
    place = workspace.folder / FILE_NAME if workspace else None
    return str(place) if place is not None and place.is_file() else None


def engine_settings(engine: str, options: Sequence[str] = (), file: str | None = None) -> EngineSettings:
    """Read the settings of one engine; later ones win: the file's, ``INKBATCH_IMAGE``, `options`.

    Args:
        engine: Name of the engine.
        options: ``key=value``.
        file: A YAML file with one mapping per engine; None looks at ``INKBATCH_ENGINES``, then for ``engines.yaml``.

    Raises:
        ConfigError: An unknown engine, key or file.
    """
    settings_class = launcher_class(engine).settings_class
    named = file or os.environ.get(FILE_VARIABLE) or _beside_the_work()
    values = {}
    if named:
        document = read_yaml(named)
        unknown = sorted(set(document) - set(launcher_names()))
        if unknown:
            raise ConfigError(f"{named}: {unknown[0]!r} is no engine (engines: {', '.join(launcher_names())})")
        values = dict(document.get(engine) or {})
    if "image" in settings_class.model_fields and os.environ.get(IMAGE_VARIABLE):
        values["image"] = os.environ[IMAGE_VARIABLE]
    base = settings_class.checked(values, f"{named or 'environment'}: {engine}")
    given = settings_class.load(None, list(options))
    return base.model_copy(update={key: getattr(given, key) for key in given.model_fields_set})
