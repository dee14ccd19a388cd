"""Import of annotations that CVAT exported, as COCO or as segmentation masks, from a zip file or an unpacked folder.

Both become pictures of the annotated size, 255 where a pixel is ink, which `inkbatch labels` takes as its image.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from inkbatch.data.datasets.coco import CATEGORY, CocoImage, parse_coco
from inkbatch.data.datasets.polygons import filled_polygon, filled_runs
from inkbatch.data.labels.components import Bools
from inkbatch.data.labels.ink import LABEL_MAX
from inkbatch.documents import parse_json
from inkbatch.errors import ConfigError, CorruptDataError, DataError
from inkbatch.io.pictures.decoding import decode_image
from inkbatch.io.pictures.png import png_bytes
from inkbatch.io.store.location import Location
from inkbatch.redaction import shown
from inkbatch.text import bytes_text, near_matches

COLOUR_TABLE = "labelmap.txt"
CLASS_FOLDER = "SegmentationClass"
_COCO_NAME = re.compile(r"(^|.*/)(instances|person_keypoints)?[^/]*\.json$")
MOST_MEMBER_BYTES = 1 << 30
_DEEPEST = 4  # folders below the export's own


@dataclass(frozen=True)
class Annotated:
    """One annotated picture.

    Attributes:
        name: File name of the picture without its ending, folders kept.
        ink: (height, width): True where one of the ink labels was drawn.
        ignored: (height, width): True where one of the ignore labels was drawn.
    """

    name: str
    ink: Bools
    ignored: Bools


def read_cvat(export: Location, ink: Sequence[str] = (CATEGORY,), ignore: Sequence[str] = ()) -> Iterator[Annotated]:
    """Read an export, one picture at a time.

    Args:
        export: A zip file or a folder, in the format ``COCO 1.0`` or ``Segmentation mask 1.1``.
        ink: Names of the labels that mean ink.
        ignore: Names of the labels that mean "not to be counted".

    Raises:
        ConfigError: A label name that the export does not know; near matches are named.
        DataError: The export has neither format, has both, or is damaged.
    """
    for drawing in _drawings(export, ink, ignore):
        yield drawing.draw()


@dataclass(frozen=True)
class _Drawing:
    """An annotated picture that is not drawn yet."""

    name: str
    draw: Callable[[], Annotated]


def _drawings(export: Location, ink: Sequence[str], ignore: Sequence[str]) -> list[_Drawing]:
    files = _open_export(export)
    names = files.names()
    tables = [name for name in names if name == COLOUR_TABLE or name.endswith(f"/{COLOUR_TABLE}")]
    documents = [name for name in names if _COCO_NAME.match(name)]
    if len(tables) + len(documents) != 1:
        raise DataError(
            f"{export}: expected one {COLOUR_TABLE} (Segmentation mask 1.1) or one .json (COCO 1.0), got "
            f"{', '.join([*tables, *documents]) or 'neither'}; export one task from CVAT in one of these formats"
        )
    if tables:
        return list(_read_masks(files, tables[0], names, ink, ignore))
    return list(_read_coco(files, documents[0], ink, ignore))


def import_cvat(
    export: Location, target: Location, ink: Sequence[str] = (CATEGORY,), ignore: Sequence[str] = ()
) -> list[str]:
    """Write each annotated picture as ``{name}.png`` (255 is ink) and, with ignore labels, ``{name}-ignore.png``.

    Returns:
        Names of the pictures, in order.

    Raises:
        InkbatchError: See `read_cvat`; two pictures whose files would have one name. Nothing is written then.
    """
    drawings = _drawings(export, ink, ignore)
    if not drawings:
        raise DataError(f"{export}: holds no annotated picture; export a task that has some")
    _require_own_files([drawing.name for drawing in drawings], bool(ignore), export)
    for drawing in drawings:
        picture = drawing.draw()
        _write_mask(target / f"{picture.name}.png", picture.ink)
        if ignore:
            _write_mask(target / f"{picture.name}-ignore.png", picture.ignored)
    return [drawing.name for drawing in drawings]


def _require_own_files(names: Sequence[str], with_ignored: bool, export: Location) -> None:
    """Refuse pictures that would write one file: two of one name, or ``a-ignore`` beside ``a``."""
    owner: dict[str, str] = {}
    for name in names:
        for file in (f"{name}.png", f"{name}-ignore.png")[: 1 + with_ignored]:
            if file in owner:
                raise DataError(
                    f"{export}: holds two pictures named {name}, or {owner[file]} and {name} would both write {file}; "
                    "rename one in CVAT"
                )
            owner[file] = name


class _Export:
    """Files of an export by their names inside it."""

    def __init__(self, place: str) -> None:
        self.place = place

    def names(self) -> list[str]:
        """List all files, sorted."""
        raise NotImplementedError

    def read(self, name: str) -> bytes:
        """Read one file."""
        raise NotImplementedError

    def where(self, name: str) -> str:
        """Name a file in messages."""
        return f"{self.place}, {name}"


class _Folder(_Export):
    def __init__(self, folder: Location) -> None:
        super().__init__(str(folder))
        self._folder = folder

    def names(self) -> list[str]:
        return sorted(self._below(self._folder, "", 0))

    def _below(self, folder: Location, prefix: str, depth: int) -> Iterator[str]:
        files = folder.sizes()
        yield from (f"{prefix}{name}" for name in files)
        if depth < _DEEPEST:
            for name in folder.names():
                if name not in files:
                    yield from self._below(folder / name, f"{prefix}{name}/", depth + 1)

    def read(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()


class _Zip(_Export):
    def __init__(self, file: Location) -> None:
        super().__init__(str(file))
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(file.read_bytes()))
        except MemoryError:
            raise
        except Exception as error:  # zipfile raises whatever a damaged directory leads it to
            raise CorruptDataError(f"{file}: not a zip file, or a damaged one; export it again") from error

    def names(self) -> list[str]:
        return sorted(name for name in self._zip.namelist() if not name.endswith("/"))

    def read(self, name: str) -> bytes:
        size = self._zip.getinfo(name).file_size
        if size > MOST_MEMBER_BYTES:
            raise DataError(
                f"{self.where(name)}: expected at most {bytes_text(MOST_MEMBER_BYTES)} once it is unpacked, got "
                f"{bytes_text(size)}; export fewer pictures at once"
            )
        try:
            return self._zip.read(name)
        except MemoryError:
            raise
        except Exception as error:  # other methods of compression, passwords, damaged streams
            raise CorruptDataError(
                f"{self.where(name)}: cannot be unpacked ({type(error).__name__}); export it again"
            ) from error


def _open_export(export: Location) -> _Export:
    if export.is_folder():
        return _Folder(export)
    return _Zip(export)


def _read_coco(files: _Export, name: str, ink: Sequence[str], ignore: Sequence[str]) -> Iterator[_Drawing]:
    place = files.where(name)
    document = parse_json(files.read(name), place, CorruptDataError)
    if not isinstance(document, dict):
        raise CorruptDataError(f"{place}: expected a mapping, got a {type(document).__name__}; export it again")
    images = parse_coco(document, place)
    _require_known([*ink, *ignore], [str(entry.get("name")) for entry in document["categories"]], place)
    for image in images:
        yield _Drawing(_stem(image.file_name), partial(_draw_coco, image, ink, ignore, place))


def _draw_coco(image: CocoImage, ink: Sequence[str], ignore: Sequence[str], place: str) -> Annotated:
    return Annotated(_stem(image.file_name), _drawn(image, ink, place), _drawn(image, ignore, place))


def _drawn(image: CocoImage, categories: Sequence[str], place: str) -> Bools:
    canvas = np.zeros(image.shape_yx, bool)
    for annotation in image.annotations:
        if annotation.category not in categories:
            continue
        shape = annotation.segmentation
        where = f"{place}, annotation {annotation.id}"
        if isinstance(shape, dict):
            canvas |= filled_runs(shape, image.shape_yx, where)
        elif isinstance(shape, list) and shape:
            for polygon in shape:
                filled_polygon(canvas, polygon, where)
        else:
            raise DataError(
                f"{where}: expected an outline or a mask, got a box alone; draw {annotation.category} as a polygon "
                "or a mask in CVAT"
            )
    return canvas


def _read_masks(
    files: _Export, table: str, names: Sequence[str], ink: Sequence[str], ignore: Sequence[str]
) -> Iterator[_Drawing]:
    colours = _colours(files.read(table).decode("utf-8", "replace"), files.where(table))
    _require_known([*ink, *ignore], list(colours), files.where(table))
    folder = f"{table.removesuffix(COLOUR_TABLE)}{CLASS_FOLDER}/"
    found = [name for name in names if name.startswith(folder) and name.lower().endswith(".png")]
    for name in found:
        stem = _stem(name.removeprefix(folder))

        def draw(name: str = name, stem: str = stem) -> Annotated:
            picture = decode_image(files.read(name), cv2.IMREAD_COLOR, files.where(name))
            rgb = np.asarray(picture, np.uint8)[..., ::-1]
            _require_listed(rgb, colours, files.where(name))
            return Annotated(stem, _painted(rgb, colours, ink), _painted(rgb, colours, ignore))

        yield _Drawing(stem, draw)


def _colours(text: str, place: str) -> dict[str, tuple[int, int, int]]:
    """Parse colours by label name, from lines ``name:red,green,blue:parts:actions``."""
    found = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = re.match(r"^(.+?):(\d{1,9}),(\d{1,9}),(\d{1,9})(:|$)", line)
        if match is None:
            raise DataError(f"{place}: expected lines name:red,green,blue:…, got {shown(line)}; export it again")
        colour = (int(match[2]), int(match[3]), int(match[4]))
        if max(colour) > 255:
            raise DataError(f"{place}: expected colours of 0 to 255, got {shown(line)}; export it again")
        if match[1] in found:
            raise DataError(f"{place}: label {shown(match[1])} stands twice; export it again")
        found[match[1]] = colour
    return found


def _require_listed(rgb: NDArray[np.uint8], colours: Mapping[str, tuple[int, int, int]], place: str) -> None:
    """Refuse colours that no label has: the picture was scaled or saved with losses."""
    packed = _packed(rgb)
    known = [_packed(np.array(colour, np.uint8)) for colour in colours.values()]
    unknown = ~np.isin(packed, np.array(known, np.uint32))
    if unknown.any():
        y, x = (int(value) for value in np.argwhere(unknown)[0])
        raise DataError(
            f"{place}: expected only the colours of {COLOUR_TABLE}, got {tuple(int(v) for v in rgb[y, x])} at "
            f"y {y}, x {x}; it was scaled or saved with losses, export it again"
        )


def _painted(rgb: NDArray[np.uint8], colours: Mapping[str, tuple[int, int, int]], labels: Sequence[str]) -> Bools:
    wanted = [_packed(np.array(colours[label], np.uint8)) for label in labels]
    painted: Bools = np.isin(_packed(rgb), np.array(wanted, np.uint32))
    return painted


def _packed(rgb: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Pack each colour into one number."""
    wide = rgb.astype(np.uint32)
    return (wide[..., 0] * 65_536 + wide[..., 1] * 256 + wide[..., 2]).astype(np.uint32)


def _require_known(wanted: Sequence[str], known: Sequence[str], place: str) -> None:
    for label in wanted:
        if label not in known:
            hint = near_matches(label, list(known)) or f"; it knows {', '.join(known) or 'none'}"
            raise ConfigError(f"{place}: no label {label!r} in this export{hint}")


def _stem(file_name: str) -> str:
    stem = file_name.rsplit(".", 1)[0] if "." in file_name.rsplit("/", 1)[-1] else file_name
    return stem.lstrip("/")


def _write_mask(place: Location, mask: Bools) -> None:
    place.write_bytes(png_bytes(mask.astype(np.uint8) * np.uint8(LABEL_MAX)))
