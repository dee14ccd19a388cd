"""Segments that published tools are known to read in reversed depth order: catalog data, with its sources.

A tool that flips a segment's layers claims that its stack was stored against depth order. A claim is no proof;
`inkbatch probe` tests it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from inkbatch.data.segments.catalog import check_segment_id
from inkbatch.documents import read_yaml_file
from inkbatch.errors import ConfigError
from inkbatch.validation import reason

FILE = Path(__file__).with_suffix(".yaml")


@dataclass(frozen=True)
class ReversedSegment:
    """One segment that is stored in reversed depth order.

    Attributes:
        segment: Segment id.
        said_by: The tools that flip it, in words.
    """

    segment: str
    said_by: tuple[str, ...]


class ReversedDocument(BaseModel):
    """The content of ``reversed_segments.yaml``.

    Attributes:
        sources: Name of each source, by a short key.
        segments: Keys of `sources` by segment id.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: dict[str, str]
    segments: dict[str, tuple[str, ...]]

    @model_validator(mode="after")
    def _everybody_is_known(self) -> ReversedDocument:
        for segment, said_by in self.segments.items():
            unknown = [key for key in said_by if key not in self.sources]
            if unknown or not said_by:
                raise ValueError(
                    f"segment {segment}: expected sources among {sorted(self.sources)}, got {unknown or 'none'}"
                )
        return self


@cache
def reversed_segments() -> Mapping[str, ReversedSegment]:
    """Return the shipped list, by segment id.

    Raises:
        ConfigError: The file is damaged.
    """
    return read_reversed(FILE)


def known_reversed(segment: str, sample: str | None) -> ReversedSegment | None:
    """Find a segment in the list, by its id or by ``<sample>-<id>``."""
    found = reversed_segments()
    return found.get(segment) or (found.get(f"{sample}-{segment}") if sample else None)


def read_reversed(file: Path) -> Mapping[str, ReversedSegment]:
    """Read a list of reversed segments.

    Raises:
        ConfigError: It cannot be read or does not validate.
    """
    try:
        document = ReversedDocument.model_validate(read_yaml_file(file))
    except (ConfigError, ValidationError) as error:
        raise ConfigError(
            f"reversed segments {file}: cannot be read: {reason(error)}; install inkbatch again"
        ) from error
    return {
        check_segment_id(segment): ReversedSegment(segment, tuple(document.sources[key] for key in said_by))
        for segment, said_by in document.segments.items()
    }
