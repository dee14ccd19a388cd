"""`inkbatch import-cvat`: annotations that CVAT exported become pictures for `inkbatch labels`."""

from __future__ import annotations

from dataclasses import dataclass

from inkbatch.config import JobConfig
from inkbatch.data.datasets.coco import CATEGORY
from inkbatch.data.datasets.cvat import import_cvat
from inkbatch.io.store.location import Location


class ImportCvatConfig(JobConfig):
    """Settings of `inkbatch import-cvat`.

    Attributes:
        export: The zip file that CVAT gave, or its unpacked folder; COCO 1.0 or Segmentation mask 1.1.
        output: Folder that gets ``{name}.png`` (255 is ink) and, with ignore labels, ``{name}-ignore.png``.
        ink: Names of the labels that mean ink.
        ignore: Names of the labels that mean "not to be counted".
    """

    export: str
    output: str
    ink: tuple[str, ...] = (CATEGORY,)
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImportCvatReport:
    """Report of what was written.

    Attributes:
        location: The folder.
        names: Names of the pictures.
    """

    location: Location
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"import-cvat: {', '.join(self.names)} · {self.location}"


def run(config: ImportCvatConfig) -> ImportCvatReport:
    """Write the pictures, one at a time.

    Raises:
        ConfigError: A label name that the export does not know.
        DataError: It is not an export, is damaged, or holds no picture.
    """
    target = Location.parse(config.output)
    names = import_cvat(Location.parse(config.export), target, config.ink, config.ignore)
    return ImportCvatReport(target, tuple(names))
