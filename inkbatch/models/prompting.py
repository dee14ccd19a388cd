"""Promptable networks: a picture and a point (and a box) become masks of the object there.

`PromptedSegmenter` is the protocol that refinement asks; any class that keeps it will do, and
`inkbatch.testing.prompting.PromptedSegmenterContract` tests one. `TransformersSegmenter` keeps it for SAM 2 (also 2.1;
Ravi et al. 2024) and SAM (Kirillov et al. 2023) as transformers builds them, from a `PromptableBundle`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import cv2
import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor
from torch.nn import functional

from inkbatch.errors import ConfigError, CorruptDataError, DataError, MismatchError
from inkbatch.io.store.location import Location
from inkbatch.models.keys import first_of, key_faults
from inkbatch.validation import in_words

Kind = Literal["sam2", "sam"]
DOCUMENT, WEIGHTS = "promptable.json", "weights.safetensors"
AT_ONCE, AT_ONCE_ON_CPU = 32, 4
"""Prompts that one pass of a mask decoder answers. On a CPU a pass costs what its prompts cost, those that fill it up,
too; on a GPU hardly more than a pass of one."""
MASKS = 3
"""Answers per prompt: an object, its part, and what it is part of."""


@dataclass(frozen=True)
class Features:
    """Answer of an image encoder to one tile, for any number of prompts.

    Attributes:
        maps: Tensors on the network's device; their meaning is the network's own.
        shape_yx: (height, width) of the tile in pixels.
    """

    maps: tuple[Tensor, ...]
    shape_yx: tuple[int, int]


class PromptedSegmenter(Protocol):
    """A network that answers a prompt with masks."""

    def embed(self, tile: NDArray[np.uint8]) -> Features:
        """Encode a tile (Y, X, 3), RGB, once for all its prompts."""

    def masks(
        self, features: Features, points_yx: NDArray[np.floating[Any]], boxes: NDArray[np.floating[Any]] | None = None
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Answer n prompts.

        Args:
            features: Of the tile.
            points_yx: (n, 2): one point inside the object each; pixel (0, 0) has its centre at (0, 0).
            boxes: (n, 4): (y0, x0, y1, x1) of the object, half-open, in pixels; None gives points alone.

        Returns:
            Masks (n, 3, Y, X) and the IoU that the network predicts for each, (n, 3). They do not depend on how many
            prompts are asked at once.
        """


class PromptableDocument(BaseModel):
    """The content of ``promptable.json``.

    Attributes:
        format: Version of this layout.
        name: Short name.
        kind: Class of network.
        config: Its shape, as transformers writes it.
        image_px: Edge of the square that a tile is resized to.
        mean: Subtracted from R, G and B between 0 and 1.
        std: Divides what is left.
        weights_sha256: Digest of ``weights.safetensors``.
        source: ``uri``, ``revision`` where there is one, and ``sha256`` of the file that was imported; or how the
            weights were made.
        licence: Licence of the weights, as their publisher states it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    kind: Kind
    config: dict[str, Any]
    image_px: int = Field(ge=16)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    weights_sha256: str = ""
    source: dict[str, Any] = Field(default_factory=dict)
    licence: str = Field(min_length=1)


@dataclass(frozen=True)
class PromptableBundle:
    """A promptable network in a folder: ``promptable.json`` and ``weights.safetensors``."""

    location: Location
    document: PromptableDocument

    @staticmethod
    def open(location: Location) -> PromptableBundle:
        """Read and validate ``promptable.json``.

        Raises:
            DataError: No such bundle there, or its document does not validate.
        """
        place = location / DOCUMENT
        try:
            values = place.read_json()
        except FileNotFoundError as error:
            cure = (
                "; these are the weights of its publisher: import them once with inkbatch import-promptable"
                if (location / "config.json").exists()
                else "; give the folder of one, as inkbatch import-promptable writes it"
            )
            raise DataError(f"{location}: expected a promptable network, got no {DOCUMENT}{cure}") from error
        try:
            return PromptableBundle(location, PromptableDocument.model_validate(values))
        except ValidationError as error:
            rows = in_words(error, values, model=PromptableDocument)
            raise DataError(f"{place}: not a promptable network: {rows}; import it again") from error

    @staticmethod
    def save(location: Location, document: PromptableDocument, tensors: Mapping[str, Tensor]) -> PromptableBundle:
        """Store weights, then the document with their digest."""
        data = safetensors.torch.save(_apart(tensors))
        (location / WEIGHTS).write_bytes(data)
        final = document.model_copy(update={"weights_sha256": hashlib.sha256(data).hexdigest()})
        (location / DOCUMENT).write_json(final.model_dump(mode="json"))
        return PromptableBundle(location, final)

    def build(self, device: torch.device | str = "cpu") -> TransformersSegmenter:
        """Build the network and load its weights, strictly.

        Raises:
            CorruptDataError: The weights do not have the digest that the document states.
            MismatchError: Missing, unexpected or misshapen keys; they are named.
            ConfigError: The installed transformers cannot build it.
        """
        tensors = self._tensors()  # memory: the file is gone before the network is built
        net = build_promptable(self.document.kind, self.document.config)
        load_promptable(net, tensors, str(self.location / WEIGHTS))
        return TransformersSegmenter(net.eval().to(device), self.document)

    def _tensors(self) -> dict[str, Tensor]:
        place = self.location / WEIGHTS
        try:
            data = place.read_bytes()
        except FileNotFoundError as error:
            raise DataError(f"{place}: the network has no weights; copy the whole folder again") from error
        found = hashlib.sha256(data).hexdigest()
        if self.document.weights_sha256 != found:
            raise CorruptDataError(
                f"{place}: sha256 is {found[:12]}…, {DOCUMENT} says {self.document.weights_sha256[:12]}…; "
                "the weights were damaged or exchanged; copy the folder again"
            )
        return safetensors.torch.load(data)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring weights to the CPU; of those that share memory, which safetensors refuses, all but the first are copied."""
    found: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        found[name] = plain.clone() if place in taken else plain
        taken.add(place)
    return found


def build_promptable(kind: Kind, config: Mapping[str, Any]) -> torch.nn.Module:
    """Build a network with fresh weights.

    Raises:
        ConfigError: transformers does not know the class, or refuses the config.
    """
    import transformers  # late: it takes seconds

    names = {"sam2": ("Sam2Config", "Sam2Model"), "sam": ("SamConfig", "SamModel")}[kind]
    try:
        config_class, model_class = (cast(Any, getattr(transformers, name)) for name in names)
        return cast(torch.nn.Module, model_class(config_class(**config)))
    except AttributeError as error:
        raise ConfigError(
            f"promptable network {kind}: transformers {transformers.__version__} has no {names[1]}; install 4.57 or "
            "newer"
        ) from error
    except Exception as error:  # its config classes have errors of their own
        raise ConfigError(f"promptable network {kind}: its config cannot be built: {error}; import it again") from error


def load_promptable(net: torch.nn.Module, tensors: Mapping[str, Tensor], place: str) -> None:
    """Load weights: every key must be there with its shape, and no other but those of SAM 2's video memory.

    Raises:
        MismatchError: They are not; what is missing, unexpected or misshapen is named, nothing was loaded.
    """
    own = net.state_dict()
    given = {name: tensor for name, tensor in tensors.items() if not _of_video(net, name)}
    for name, source in _twins(net).items():  # stored once by whoever saves tied weights
        if name in own and name not in given and source in given:
            given[name] = given[source]
    rows = key_faults(own, given)
    if rows:
        raise MismatchError(
            f"{place}: expected the weights of {type(net).__name__}, got others: {first_of(rows)}; "
            "give the weights that belong to this config.json"
        )
    net.load_state_dict({name: tensor.float() for name, tensor in given.items()}, strict=True)


def _of_video(net: torch.nn.Module, name: str) -> bool:
    """Tell the weights that SAM 2 tracks objects through a film with; pictures need none."""
    import re

    patterns = cast(Any, net)._keys_to_ignore_on_load_unexpected or ()
    return any(re.search(pattern, name) for pattern in patterns)


def _twins(net: torch.nn.Module) -> dict[str, str]:
    """Name the weights that the network holds under two names, each with the other name."""
    tied = dict(cast(Any, net)._tied_weights_keys or {})
    pairs = {**tied, **{source: name for name, source in tied.items()}}
    positional = ("prompt_encoder.shared_embedding.positional_embedding", "shared_image_embedding.positional_embedding")
    return {**pairs, positional[0]: positional[1], positional[1]: positional[0]}


def enlarged(logits: Tensor, shape_yx: tuple[int, int]) -> NDArray[np.bool_]:
    """Enlarge logits (n, m, y, x) to a tile by bilinear interpolation, and tell where they are positive.

    A CPU takes longer for the pixels of a tile than for those of an object. Where the tile is a whole multiple of the
    logits, it enlarges each mask only as far as its positive ones reach, by one around: no other pixel can be positive,
    and these are the same to the bit.
    """
    low = (logits.shape[2], logits.shape[3])
    if logits.device.type != "cpu" or any(full % edge for full, edge in zip(shape_yx, low, strict=True)):
        return _positive(logits, shape_yx)
    zoom_y, zoom_x = shape_yx[0] // low[0], shape_yx[1] // low[1]
    masks = np.zeros((*logits.shape[:2], *shape_yx), bool)
    for plane, mask in zip(logits.flatten(0, 1), masks.reshape(-1, *shape_yx), strict=True):
        x, y, width, height = cv2.boundingRect((plane > 0).numpy().view(np.uint8))
        if width:
            y0, x0, y1, x1 = max(y - 1, 0), max(x - 1, 0), min(y + height + 1, low[0]), min(x + width + 1, low[1])
            found = _positive(plane[None, None, y0:y1, x0:x1], ((y1 - y0) * zoom_y, (x1 - x0) * zoom_x))
            mask[y0 * zoom_y : y1 * zoom_y, x0 * zoom_x : x1 * zoom_x] = found[0, 0]
    return masks


def _positive(logits: Tensor, shape_yx: tuple[int, int]) -> NDArray[np.bool_]:
    full = functional.interpolate(logits, shape_yx, mode="bilinear", align_corners=False)
    found: NDArray[np.bool_] = (full > 0).cpu().numpy()
    return found


class TransformersSegmenter:
    """SAM 2 or SAM of transformers as a `PromptedSegmenter`; bfloat16 autocast on CUDA, float32 elsewhere.

    A tile is resized to the network's square edge; prompts are filled up to batches of one size (`at_once`), so that an
    answer does not depend on how many others are asked with it.
    """

    def __init__(self, net: torch.nn.Module, document: PromptableDocument) -> None:
        self.net, self.document = cast(Any, net), document
        self.device = next(net.parameters()).device
        self.at_once = AT_ONCE_ON_CPU if self.device.type == "cpu" else AT_ONCE
        self._mean = torch.tensor(document.mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(document.std, device=self.device).view(1, 3, 1, 1)

    @torch.inference_mode()
    def embed(self, tile: NDArray[np.uint8]) -> Features:
        """Encode a tile; see `PromptedSegmenter`.

        Raises:
            DataError: It is no 8-bit picture in colours.
        """
        if tile.ndim != 3 or tile.shape[2] != 3 or tile.dtype != np.uint8:
            raise DataError(f"tile: expected (Y, X, 3) of uint8, got {tile.shape} of {tile.dtype}; convert it to RGB")
        return self.encode(self.normalised(tile), (tile.shape[0], tile.shape[1]))

    @torch.inference_mode()
    def encode(self, normalised: Tensor, shape_yx: tuple[int, int]) -> Features:
        """Make the pass of the image encoder over a tile that `normalised` brought to its edge."""
        with self._autocast():
            found = self.net.get_image_embeddings(normalised)
        maps = tuple(found) if isinstance(found, list | tuple) else (found,)
        return Features(tuple(each.float() for each in maps), shape_yx)

    def normalised(self, tile: NDArray[np.uint8]) -> Tensor:
        """Bring a tile to the network's edge and range: (1, 3, image_px, image_px) float32."""
        edge = self.document.image_px
        pixels = torch.from_numpy(np.ascontiguousarray(tile)).to(self.device).permute(2, 0, 1)[None].float() / 255
        resized = functional.interpolate(pixels, (edge, edge), mode="bilinear", antialias=True, align_corners=False)
        return (resized - self._mean) / self._std

    @torch.inference_mode()
    def masks(
        self, features: Features, points_yx: NDArray[np.floating[Any]], boxes: NDArray[np.floating[Any]] | None = None
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Answer n prompts; see `PromptedSegmenter`."""
        count = len(points_yx)
        masks = np.zeros((count, MASKS, *features.shape_yx), bool)
        scores = np.zeros((count, MASKS), np.float32)
        for start in range(0, count, self.at_once):
            part = slice(start, min(start + self.at_once, count))
            points, corners = self.prompts(features.shape_yx, points_yx[part], None if boxes is None else boxes[part])
            logits, predicted = self.answer(features, points, corners)
            taken = part.stop - part.start
            masks[part] = enlarged(logits[:taken], features.shape_yx)
            scores[part] = predicted[:taken].cpu().numpy()
        return masks, scores

    def prompts(
        self,
        shape_yx: tuple[int, int],
        points_yx: NDArray[np.floating[Any]],
        boxes: NDArray[np.floating[Any]] | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Turn prompts into the network's coordinates, as many as it answers at once: the last one is repeated.

        Returns:
            Points (1, n, 1, 2) and corners (1, n, 4), (x, y) in pixels of the resized tile; n is `at_once`.
        """
        zoom = self.document.image_px / np.asarray(shape_yx, np.float64)
        points = (self._filled(points_yx) + 0.5) * zoom - 0.5
        placed = torch.from_numpy(points[:, ::-1].astype(np.float32).copy())[None, :, None].to(self.device)
        if boxes is None:
            return placed, None
        corners = self._filled(boxes).reshape(self.at_once, 2, 2) * zoom - 0.5
        flat = corners[..., ::-1].reshape(self.at_once, 4).astype(np.float32)
        return placed, torch.from_numpy(flat.copy())[None].to(self.device)

    @torch.inference_mode()
    def answer(self, features: Features, points: Tensor, corners: Tensor | None) -> tuple[Tensor, Tensor]:
        """Make one pass of the mask decoder: logits (n, 3, y, x) of its own resolution, predicted IoU (n, 3)."""
        maps: Any = list(features.maps) if self.document.kind == "sam2" else features.maps[0]
        labels = torch.ones(points.shape[:3], dtype=torch.int64, device=self.device)
        with self._autocast():
            found = self.net(
                image_embeddings=maps,
                input_points=points,
                input_labels=labels,
                input_boxes=corners,
                multimask_output=True,
            )
        return found.pred_masks[0].float(), found.iou_scores[0].float()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def _filled(self, prompts: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        missing = self.at_once - len(prompts)
        return np.concatenate([prompts, np.repeat(prompts[-1:], missing, axis=0)]).astype(np.float64)
