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
        low: Words at the first colour.
        high: Words at the last one.
    """

    colours: tuple[str, ...]
    low: str
    high: str


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that the page carries; how many bytes it gets, the page decides.

    Attributes:
        pixels: What is shown.
        alt: What a person who cannot see it is told.
        caption: Stands below it.
        width_um: Width of the picture in micrometres, for a scale bar; None draws none.
        legend: What its colours mean.
        crisp: Store without loss: plots and small pictures with hard edges.
    """

    kind: ClassVar[str] = "picture"

    pixels: Pixels
    alt: str
    caption: str
    width_um: float | None = None
    legend: Legend | None = None
    crisp: bool = False


@dataclass(frozen=True)
class Chart:
    """A drawing in lines (see `charts`); takes the colours of the page, light or dark.

    Attributes:
        svg: An ``<svg>`` element of our own making; is not escaped.
        alt: What it shows, with its main figures.
        caption: Stands below it.
    """

    kind: ClassVar[str] = "chart"

    svg: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Link:
    """A link to a file of the run (a relative path), or to another page.

    Attributes:
        text: What is shown.
        href: Path relative to the report's folder.
        note: What the file is.
    """

    text: str
    href: str
    note: str = ""


Cell = str | Link


@dataclass(frozen=True)
class Table:
    """A table; what does not fit a phone scrolls by itself.

    Attributes:
        caption: What it lists.
        columns: Heads.
        rows: Cells as text; those of `numbers` are aligned as numbers.
        numbers: Indices of columns that hold numbers.
        strong: Index of a row that stands out, or None.
        file: Where all rows are, for tables that are cut off.
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


Part = Picture | Chart | Table | Words | Code | Gallery


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it.

    Attributes:
        title: The heading.
        parts: What stands below it.
        folded: Shown only when a reader opens it; printed open.
    """

    title: str
    parts: tuple[Part, ...]
    folded: bool = False


@dataclass(frozen=True)
class Figure:
    """A key figure.

    Attributes:
        value: The number with its unit.
        label: What it is.
        note: How it is meant, or what to compare it with.
    """

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Promise:
    """A row of the contract.

    Attributes:
        what: What it is about: depth order, voxel size, …
        promised: What was promised, and by whom the table's caption says.
        found: What was found.
        where: Where it was satisfied, in words: on preparing, on reading, by the network's own input.
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
        name: What was done.
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
        title: What it is about: segment, run, dataset.
        sentence: What ran, in one sentence that a person would say.
        hero: The pictures that a reader came for; the first is the largest.
        figures: Key figures, the most important first.
        warnings: What a reader has to know before trusting it.
        contract: What was promised and where it was satisfied.
        contract_caption: Who promised what to whom.
        spent: Time and money; None where no process left a run file.
        sections: What belongs to this job alone.
        repeat: Command that makes the run once more.
        repeat_note: What the command needs.
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
