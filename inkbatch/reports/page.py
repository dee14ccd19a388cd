"""Parts of a report page. Nothing here knows HTML, files or a job."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # (Y, X) grey, or (Y, X, 3) red, green, blue


@dataclass(frozen=True)
class Legend:
    """Legend of a picture's colours.

    Attributes:
        colours: Colours from `low` to `high`, as CSS has them (``#rrggbb``).
        low: Text at the first colour.
        high: Text at the last one.
    """

    colours: tuple[str, ...]
    low: str
    high: str


@dataclass(frozen=True)
class Link:
    """A link to a file of the run (a relative path), or to another page.

    Attributes:
        text: Text of the link.
        href: Path relative to the report's folder.
        note: Content of the file.
    """

    text: str
    href: str
    note: str = ""


@dataclass(frozen=True, eq=False)
class Picture:
    """Picture that the page carries; `render` chooses its bytes.

    Attributes:
        pixels: Pixels of the picture.
        alt: Description for people who cannot see it.
        caption: Text below it.
        width_um: Width of the picture in micrometres, for a scale bar; None draws none.
        legend: Meaning of its colours.
        crisp: Store without loss: plots and small pictures with hard edges.
        link: To where it can be seen closer, behind the caption; None: there is none.
    """

    kind: ClassVar[str] = "picture"

    pixels: Pixels
    alt: str
    caption: str
    width_um: float | None = None
    legend: Legend | None = None
    crisp: bool = False
    link: Link | None = None


@dataclass(frozen=True)
class Chart:
    """A drawing in lines (see `charts`); takes the colours of the page, light or dark.

    Attributes:
        svg: An ``<svg>`` element of our own making; is not escaped.
        alt: Description, with its main figures.
        caption: Text below it.
    """

    kind: ClassVar[str] = "chart"

    svg: str
    alt: str
    caption: str


Cell = str | Link


@dataclass(frozen=True)
class Table:
    """A table; what does not fit a phone scrolls by itself.

    Attributes:
        caption: Content of the table.
        columns: Headings.
        rows: Cells as text; those of `numbers` are aligned as numbers.
        numbers: Indices of columns that hold numbers.
        strong: Index of a row that stands out, or None.
        file: File with all rows, for tables that are cut off.
    """

    kind: ClassVar[str] = "table"

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numbers: frozenset[int] = frozenset()
    strong: int | None = None
    file: Link | None = None


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    kind: ClassVar[str] = "words"

    text: str


@dataclass(frozen=True)
class Code:
    """Lines to copy: a command, a configuration."""

    kind: ClassVar[str] = "code"

    text: str


@dataclass(frozen=True)
class Gallery:
    """Small pictures side by side, as many as the page is wide.

    Attributes:
        parts: The pictures.
        least_rem: Least width of each, in letters' heights.
    """

    kind: ClassVar[str] = "gallery"

    parts: tuple[Picture | Chart, ...]
    least_rem: int


Element = Picture | Chart | Table | Words | Code | Gallery


@dataclass(frozen=True)
class Section:
    """Heading with its content.

    Attributes:
        title: The heading.
        parts: Content below the heading.
        folded: Shown only when a reader opens it; printed open.
    """

    title: str
    parts: tuple[Element, ...]
    folded: bool = False


@dataclass(frozen=True)
class Figure:
    """A key figure.

    Attributes:
        value: The number with its unit.
        label: Name of the figure.
        note: Explanation, or a value to compare with.
    """

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Promise:
    """A row of the contract.

    Attributes:
        what: Subject: depth order, voxel size, …
        promised: Promised value; the table's caption names who promised it.
        found: Value that was found.
        where: Place where it was satisfied: on preparing, on reading, by the network's own input.
        kept: False where it was not, and the run went on all the same: an override.
    """

    what: str
    promised: str
    found: str
    where: str
    kept: bool = True


@dataclass(frozen=True)
class Stage:
    """A part of the wall clock.

    Attributes:
        name: Name of the stage.
        seconds: Summed over all processes of the run.
        usd: Its share of the money; None where no price was stated.
    """

    name: str
    seconds: float
    usd: float | None = None


@dataclass(frozen=True)
class Spent:
    """Time and money of a run; see `timing.spent`.

    Attributes:
        stages: Together the wall clock of all processes.
        sentence: Machine, price, and what ran beside each other.
        processes: One row per process, where there were several.
    """

    stages: tuple[Stage, ...]
    sentence: str
    processes: Table | None = None

    @property
    def seconds(self) -> float:
        """Seconds of all stages."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def usd(self) -> float | None:
        """Money of all stages, or None where no price was stated."""
        known = [stage.usd for stage in self.stages if stage.usd is not None]
        return sum(known) if known else None


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        job: Name of the job.
        title: Subject: segment, run, dataset.
        sentence: One plain sentence on what ran.
        hero: Main pictures; the first is the largest.
        figures: Key figures, the most important first.
        warnings: Caveats to read before trusting the result.
        contract: Promises, and the places where they were satisfied.
        contract_caption: Names of those who promised.
        spent: Time and money; None where no process left a run file.
        sections: Sections of this job alone.
        repeat: Command that makes the run once more.
        repeat_note: Conditions of the command.
        files: The run's files.
        foot: Version and digest, for the last line.
    """

    job: str
    title: str
    sentence: str
    hero: tuple[Picture | Chart, ...]
    figures: tuple[Figure, ...]
    warnings: tuple[str, ...] = ()
    contract: tuple[Promise, ...] = ()
    contract_caption: str = ""
    spent: Spent | None = None
    sections: tuple[Section, ...] = field(default_factory=tuple)
    repeat: str = ""
    repeat_note: str = ""
    files: tuple[Link, ...] = ()
    foot: str = ""
