"""`inkbatch phantoms`: a series of phantoms and the catalog that lists them, ready for prepare and build-dataset."""

from __future__ import annotations

from typing import Any

import yaml

from inkbatch.data.synthetic.phantom_series import PhantomSeriesConfig
from inkbatch.documents import parse_yaml
from inkbatch.errors import ConfigError
from inkbatch.io.layers import open_layer_source
from inkbatch.io.store.location import Location
from inkbatch.redaction import shown
from inkbatch.steps.synthetic import phantom

CATALOG_NAME = "segments.yaml"

__all__ = ["PhantomSeriesConfig", "run"]


def run(config: PhantomSeriesConfig, *, replace: bool = False) -> list[str]:
    """Write the phantoms that are not there yet, then the catalog.

    The catalog keeps what other series in the same folder put into it.

    Args:
        config: The settings.
        replace: Remove phantoms of other settings under the same ids.

    Returns:
        Lines for the user.

    Raises:
        ConfigError: A box leaves its picture, letters that are too small, or another phantom under the same id.
        DataError: No ink falls on papyrus, an unsupported dtype, or a picture that cannot be read.
        LayerRangeError: The ink's centre is outside the stack.
    """
    with open_layer_source(config.source) as source:
        papyrus_yx = source.shape_zyx[1], source.shape_zyx[2]
    letters = phantom.read_picture(config.labels)
    letters_yx = letters.shape[0], letters.shape[1]
    lines: list[str] = []
    for number in range(config.count):
        one = phantom.run(config.phantom(number, papyrus_yx, letters_yx), replace=replace)
        lines += [line for line in one if not line.startswith("truth: ")]
    place = Location.parse(config.output) / CATALOG_NAME
    _write_catalog(place, config)
    return [*lines, f"catalog: {place}"]


def _segments(place: Location) -> dict[str, Any]:
    document = parse_yaml(place.read_bytes(), str(place))
    found = document.get("segments") if isinstance(document, dict) else None
    if not isinstance(found, dict):
        raise ConfigError(
            f"{place}: expected a catalog with segments, got {shown(found)} for them; choose another output"
        )
    return found


def _write_catalog(place: Location, config: PhantomSeriesConfig) -> None:
    try:
        known = _segments(place)
    except FileNotFoundError:
        known = {}
    mine = {
        config.segment_id(number): config.entry(number).model_dump(mode="json", exclude_none=True)
        for number in range(config.count)
    }
    document = {"segments": dict(sorted({**known, **mine}.items()))}
    place.write_bytes(yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode())
