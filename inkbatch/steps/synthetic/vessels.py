"""`inkbatch vessels`: any number of generated vessel drawings with masks, in train, val and test folders."""

from __future__ import annotations

from typing import ClassVar

from inkbatch.data.synthetic.vessels import DOCUMENT, VesselConfig, numbers_of, paths_of, write_vessels
from inkbatch.io.store.ledger import make_durable, recording
from inkbatch.io.store.location import Location
from inkbatch.run.job import RunContext, begin
from inkbatch.run.objects import sealed_files
from inkbatch.run.record import RunFolder, RunManifest
from inkbatch.steps.synthetic.made import Made
from inkbatch.text import count_text


class VesselsConfig(VesselConfig):
    """Settings of `inkbatch vessels`.

    Attributes:
        output: Folder that gets ``train/``, ``train_annotations/``, … and, last, ``vessels.json``.
    """

    job: ClassVar[str] = "vessels"

    output: str


def run(config: VesselsConfig, *, replace: bool = False) -> list[str]:
    """Write the drawings; the same settings write the same bytes, and what is there already is left alone.

    Other pictures in the same folders, such as real drawings, stay.

    Args:
        config: The settings.
        replace: Remove drawings of other settings.

    Returns:
        Lines for the user.

    Raises:
        MismatchError: The output holds drawings of other settings.
        StorageError: Writing failed again after retries.
    """
    folder = Location.parse(config.output)
    looks = VesselConfig(**config.model_dump(exclude={"output"}))
    settings, notes = looks.model_dump(mode="json"), list[str]()
    record = RunFolder(folder, RunManifest("vessels", settings, {}, 1))
    made = Made(record, DOCUMENT, lambda found: found == {"job": "vessels", **settings})
    other = made.other()
    if other is None and made.is_whole(notes):
        return [f"vessels: already complete at {folder}, nothing to do"]
    if other is not None:
        if not replace:
            raise other
        notes.append(_removed(folder))
    begin(record, RunContext())
    with recording() as ledger:
        drawings = write_vessels(folder, looks)
    record.require_own()
    make_durable(ledger)
    record.complete(sealed_files(folder, ledger, ()))
    return [*notes, f"vessels: {', '.join(f'{count} {split}' for split, count in drawings.items())} · {folder}"]


def _removed(folder: Location) -> str:
    """Remove the drawings of other settings, no others; the manifest goes last, so that this can be finished."""
    manifest = (folder / "manifest.json").find_mapping()
    settings = manifest["config"] if manifest else (folder / DOCUMENT).find_mapping() or {}
    there = VesselConfig.checked({key: value for key, value in settings.items() if key != "job"}, f"{folder}: vessels")
    pictures = [
        path for split, numbers in numbers_of(there).items() for one in numbers for path in paths_of(split, one)
    ]
    for path in ("complete.json", DOCUMENT, *pictures, "manifest.json"):
        (folder / path).delete()
    return f"--replace: removed {count_text(len(pictures), 'picture')} of other settings at {folder}"
