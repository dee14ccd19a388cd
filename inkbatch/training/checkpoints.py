"""Checkpoints on any store: a new object, then the pointer; the last two, the best and the asked-for epochs are kept.

``checkpoints/pointer.json`` names the objects that count, newest first, with their digests. A process killed while it
writes leaves an object that nothing points to, or nothing at all; it can never leave half a checkpoint that would be
picked up. An object that does not have its digest is passed over for the one before it.
"""

from __future__ import annotations

import hashlib
import io
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from inkbatch.errors import CorruptDataError
from inkbatch.io.store.location import Location

KEPT = 2
PREFIX, SUFFIX = "step-", ".ckpt"


class Entry(BaseModel):
    """One checkpoint.

    Attributes:
        file: Name of the object.
        sha256: Digest of its bytes.
        step: Optimiser steps of the run so far.
        epoch: Epochs of the run so far.
    """

    model_config = ConfigDict(frozen=True)

    file: str
    sha256: str
    step: int
    epoch: int


class Pointer(BaseModel):
    """Current checkpoints.

    Attributes:
        last: The newest ones, newest first.
        best: The best one, or None.
        epochs: Those of the last epochs' ends, newest first; as many as the run keeps.
    """

    model_config = ConfigDict(frozen=True)

    last: tuple[Entry, ...] = ()
    best: Entry | None = None
    epochs: tuple[Entry, ...] = ()

    @property
    def files(self) -> set[str]:
        """All objects that are named."""
        return {entry.file for entry in (*self.last, *self.epochs, self.best) if entry is not None}


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        location: Their folder.
        note: Receives notes for the user.
        keep_epochs: Checkpoints of epochs' ends that are kept.
    """

    def __init__(
        self, location: Location, note: Callable[[str], None] = lambda text: None, keep_epochs: int = 0
    ) -> None:
        self.location, self.note, self.keep_epochs = location, note, keep_epochs

    def pointer(self) -> Pointer:
        """Read the current pointer; empty if nothing was saved yet.

        Raises:
            CorruptDataError: The pointer was edited or damaged.
        """
        place = self.location / "pointer.json"
        try:
            return Pointer.model_validate(place.read_json())
        except FileNotFoundError:
            return Pointer()
        except (ValidationError, CorruptDataError) as error:
            raise CorruptDataError(
                f"{place}: not a pointer to checkpoints; remove {self.location} to start over"
            ) from error

    def save(
        self, state: Mapping[str, Any], step: int, epoch: int, best: bool = False, *, ends_epoch: bool = False
    ) -> Entry:
        """Store a state: the object first, then the pointer; then what nothing points to is deleted.

        Args:
            state: Tensors, numbers, texts, lists and dicts.
            step: Optimiser steps so far.
            epoch: Epochs so far.
            best: This is the best one so far.
            ends_epoch: An epoch has just ended.
        """
        buffer = io.BytesIO()
        torch.save(_with_each_text_once(dict(state)), buffer)
        data = buffer.getvalue()
        sha256 = hashlib.sha256(data).hexdigest()
        entry = Entry(file=f"{PREFIX}{step:09d}-{sha256[:16]}{SUFFIX}", sha256=sha256, step=step, epoch=epoch)
        old = self.pointer()
        (self.location / entry.file).write_bytes(data)
        others = tuple(one for one in old.last if one.file != entry.file)
        epochs = tuple(one for one in old.epochs if one.epoch != entry.epoch)
        epochs = (entry, *epochs) if ends_epoch else old.epochs
        best_entry = entry if best else old.best
        new = Pointer(last=(entry, *others)[:KEPT], best=best_entry, epochs=epochs[: self.keep_epochs])
        (self.location / "pointer.json").write_json(new.model_dump(mode="json"))
        self._remove_orphans(new)
        return entry

    def _remove_orphans(self, pointer: Pointer) -> None:
        """Delete checkpoints that the pointer does not name: older ones, and those of a process that was killed."""
        for name in self.location.names():
            if name.startswith(PREFIX) and name.endswith(SUFFIX) and name not in pointer.files:
                (self.location / name).delete()

    def newest(self) -> dict[str, Any] | None:
        """Load the newest whole checkpoint; None if nothing was saved yet.

        Raises:
            CorruptDataError: There are checkpoints, and none of them is whole.
        """
        pointer = self.pointer()
        self._remove_orphans(pointer)
        entries = pointer.last
        for entry in entries:
            try:
                return self.load(entry)
            except (FileNotFoundError, CorruptDataError) as error:
                self.note(f"{error}; using the checkpoint before it")
        if entries:
            raise CorruptDataError(
                f"{self.location}: none of {len(entries)} checkpoints is whole; remove it to start over"
            )
        return None

    def best(self) -> dict[str, Any]:
        """Load the best checkpoint.

        Raises:
            CorruptDataError: There is none, or it is damaged.
        """
        entry = self.pointer().best
        if entry is None:
            raise CorruptDataError(f"{self.location}: no best checkpoint is named; remove it to start over")
        try:
            return self.load(entry)
        except FileNotFoundError as error:
            raise CorruptDataError(f"{self.location / entry.file}: the best checkpoint is gone; train again") from error

    def load(self, entry: Entry) -> dict[str, Any]:
        """Load one checkpoint.

        Raises:
            FileNotFoundError: It is gone.
            CorruptDataError: It was damaged.
        """
        place = self.location / entry.file
        data = place.read_bytes()
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise CorruptDataError(f"{place}: expected the digest that the pointer states, got another; it was damaged")
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return state


def _with_each_text_once(value: Any) -> Any:
    """Copy dicts, lists and tuples, with one object for equal texts.

    Pickle writes an object that it has met as a reference, so that a state whose texts were partly loaded from a file
    would otherwise take other bytes than one that never left the process.
    """
    if type(value) is str:
        return sys.intern(value)
    if type(value) in (list, tuple):
        return type(value)(_with_each_text_once(one) for one in value)
    if isinstance(value, dict):
        copy = type(value)((_with_each_text_once(key), _with_each_text_once(one)) for key, one in value.items())
        if isinstance(value, OrderedDict):  # PyTorch notes versions of modules beside the keys
            copy.__dict__.update(_with_each_text_once(value.__dict__))
        return copy
    return value
