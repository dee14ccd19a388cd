"""A whole catalog, segment by segment: prepared and inferred; what is complete is passed over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from inkbatch.config import JobConfig
from inkbatch.data.segments.catalog import CatalogDocument
from inkbatch.errors import ConfigError, DataError, InkbatchError
from inkbatch.run.job import RunContext
from inkbatch.steps import chains
from inkbatch.steps.infer.settings import InferConfig
from inkbatch.steps.prepare import job as prepare
from inkbatch.steps.prepare.settings import PrepareConfig
from inkbatch.text import count_text


class CatalogConfig(JobConfig):
    """Settings of a catalog run.

    Attributes:
        root: ROOT.
        catalog: Local file; all segments that it lists are read.
        bundle: Folder or URI of the bundle.
    """

    root: str = "root"
    catalog: str
    bundle: str


def run(config: CatalogConfig, context: RunContext) -> Iterator[str]:
    """Prepare and infer every segment; a segment that cannot be done does not stop the others.

    Yields:
        One line per segment.

    Raises:
        DataError: Some segments could not be done; they were named.
        Preempted: A stop was asked for; markers tell what is done.
    """
    document = CatalogDocument.model_validate(yaml.safe_load(Path(config.catalog).read_text(encoding="utf-8")) or {})
    failed = []
    for segment in sorted(document.segments):
        context.stop.check()
        try:
            yield f"{segment}: {_read(segment, config, context)}"
        except (ConfigError, DataError) as error:
            failed.append(segment)
            yield f"{segment}: FAILED, {error}"
    if failed:
        raise DataError(f"catalog: {len(failed)} of {len(document.segments)} segments failed: {', '.join(failed)}")


def _read(segment: str, config: CatalogConfig, context: RunContext) -> str:
    options = {"segment": segment, "root": config.root, "catalog": config.catalog}
    prepare.run(PrepareConfig.load(None, (), options), context)
    asked = {"segment": segment, "root": config.root, "bundle": config.bundle}
    report = chains.infer(InferConfig.load(None, (), asked), context)
    if not report.complete:
        raise InkbatchError(f"{report.location}: {report.left} of {count_text(report.units, 'unit')} still missing")
    return f"complete at {report.location} ({report.counts})"
