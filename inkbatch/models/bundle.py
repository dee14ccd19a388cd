"""The bundle: weights together with the contract on what they must be fed.

A folder with ``weights.safetensors`` and ``bundle.json``. `Bundle.require_matches` compares the contract with a
surface volume's provenance before any model is built, and refuses a mismatch naming both sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import safetensors.torch
import torch
from pydantic import Field, ValidationError
from torch.overrides import TorchFunctionMode

from inkbatch.data.maps.calibration import Calibration, read_calibration
from inkbatch.errors import CorruptDataError, DataError, MismatchError
from inkbatch.io.store.location import Location
from inkbatch.io.surface import SurfaceVolume
from inkbatch.models.base import InkModel, build_model
from inkbatch.models.contract import Contract as Contract
from inkbatch.models.contract import LayerRule as LayerRule
from inkbatch.models.keys import first_of, key_faults
from inkbatch.models.rules import Grown
from inkbatch.models.seal import broken_seals, seal_of
from inkbatch.validation import in_words

SHIPPED_BUNDLE = "demo"
WEIGHTS_FILE = "weights.safetensors"
DRAWS = frozenset({"normal_", "uniform_", "kaiming_normal_", "kaiming_uniform_", "erfinv_"})  # how weights begin
TTA_AXES = ("flip-y", "flip-x", "turn-90", "turn-180", "turn-270")


class BundleDocument(Grown):
    """The content of ``bundle.json``.

    Attributes:
        format: Version of this layout.
        name: Short name, part of the names of predictions.
        architecture: Registered name.
        model: The architecture's config.
        contract: What it must be fed.
        weights_sha256: Digest of ``weights.safetensors``.
        flops_per_tile: Floating-point operations of one forward pass of one tile, or None if unknown.
        training: What it was trained on, in words and figures.
        metrics: Scores and where they were measured.
        source: Where imported weights came from.
        warnings: What speaks against trusting its maps, found when it was imported.
        reference: The tile in ``reference.safetensors`` whose answer is known; empty where there is none.
        seal: Digests of the contract's values and the network's, made on saving; an edited value is refused by name.
    """

    younger: ClassVar[frozenset[str]] = frozenset({"warnings", "reference"})

    format: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    architecture: str
    model: dict[str, Any]
    contract: Contract
    weights_sha256: str = ""
    flops_per_tile: float | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
    source: dict[str, Any] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    reference: dict[str, Any] = Field(default_factory=dict)
    seal: dict[str, str] = Field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """Lines that a job says before it uses the network: its warnings."""
        return [f"warning: bundle {self.name}: {text}" for text in self.warnings]

    @property
    def noted(self) -> dict[str, Any]:
        """Entry of a manifest's inputs, for the run's page to repeat; empty where there is no warning."""
        return {"warnings": list(self.warnings)} if self.warnings else {}

    def sealed(self) -> dict[str, str]:
        """Compute the seal that fits the document as it is now."""
        return seal_of(self.contract.model_dump(mode="json"), self.architecture, self.model)

    def edited(self) -> list[str]:
        """Name the values that were changed since the bundle was saved."""
        optional = Contract(layers=LayerRule(count=1), voxel_size_um=1, tile_px=1, stride_px=1)
        return broken_seals(self.seal, self.sealed(), optional.model_dump(mode="json"))


def bundle_location(text: str) -> Location:
    """Locate a bundle: ``demo`` is the shipped one, anything else a folder or URI."""
    if text == SHIPPED_BUNDLE:
        return Location.parse(Path(__file__).parent.parent / "demo" / "bundle")
    return Location.parse(text)


def bundle_address(text: str) -> str:
    """Spell a bundle's address so that it holds from any folder: ``demo``, or an absolute path or URI."""
    return text if text == SHIPPED_BUNDLE else Location.parse(text).uri


def weights_of(model: InkModel) -> bytes:
    """Return the content of ``weights.safetensors`` for a network; equal weights give equal bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return safetensors.torch.save(tensors)


def holds_files(location: Location, digests: Mapping[str, str]) -> bool:
    """Tell if files lie in a folder with the SHA-256 digests that its document states, by name; none states nothing."""
    try:
        found = {name: hashlib.sha256((location / name).read_bytes()).hexdigest() for name in digests}
    except FileNotFoundError:
        return False
    return all(found[name] == stated for name, stated in digests.items() if stated)


@dataclass(frozen=True)
class Bundle:
    """An opened bundle; weights are read by `build`."""

    location: Location
    document: BundleDocument
    overrides: Mapping[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None

    @property
    def contract(self) -> Contract:
        """The contract with the threshold of a calibration, where there is one, and the user's overrides."""
        stated, found = self.document.contract, self.calibration
        if found is not None:
            stated = stated.model_copy(update={"threshold": found.threshold, "threshold_fitted_on": found.fitted_on})
        return stated.overridden(self.overrides)

    @property
    def notes(self) -> list[str]:
        """Lines that a job says before it uses the network: its warnings, and where a calibrated threshold is from."""
        found = self.calibration
        if found is None or "threshold" in self.overrides:
            return self.document.notes
        said = f"bundle {self.document.name}: threshold {found.threshold:.4f}, {found.fitted_on}"
        return [*self.document.notes, said]

    @staticmethod
    def open(location: Location, overrides: Mapping[str, Any] | None = None) -> Bundle:
        """Read and validate ``bundle.json``.

        Raises:
            DataError: No bundle there, or its document does not validate, or its calibration is of other weights.
            ConfigError: An override that the contract does not know.
        """
        place = location / "bundle.json"
        try:
            values = place.read_json()
        except FileNotFoundError as error:
            raise DataError(
                f"{location}: no bundle here (bundle.json is missing); give a bundle's folder, or import a checkpoint"
            ) from error
        try:
            document = BundleDocument.model_validate(values)
        except ValidationError as error:
            raise DataError(f"{place}: not a valid bundle: {in_words(error, values, model=BundleDocument)}") from error
        calibration = read_calibration(location, document.weights_sha256)
        bundle = Bundle(location, document, dict(overrides or {}), calibration)
        _ = bundle.contract
        return bundle

    @staticmethod
    def save(location: Location, model: InkModel, document: BundleDocument) -> Bundle:
        """Store a model as a bundle: weights first, the document last.

        Args:
            location: The bundle's folder.
            model: The network; its state dict is stored, in the dtypes that it has.
            document: The document; `weights_sha256` and `seal` are filled in.
        """
        data = weights_of(model)
        (location / WEIGHTS_FILE).write_bytes(data)
        digests = {"weights_sha256": hashlib.sha256(data).hexdigest(), "seal": document.sealed()}
        final = document.model_copy(update=digests)
        (location / "bundle.json").write_json(final.model_dump(mode="json", exclude_none=True))
        return Bundle(location, final)

    def require_matches(self, volume: SurfaceVolume) -> None:
        """Compare the contract with a volume, before any model is built.

        Raises:
            MismatchError: They differ, or ``bundle.json`` was edited; every difference is listed with both sides and
                the way to override it.
        """
        self.require_unedited()
        if self.contract.reads == "pictures":
            raise MismatchError(
                f"segment {volume.provenance.segment}: bundle {self.document.name} reads pictures, expected one that "
                f"reads prepared segments; for pictures run inkbatch infer-pictures --bundle {self.location} "
                "--images FOLDER"
            )
        found = self.contract.mismatches(volume.provenance, volume.dtype.name)
        if found:
            keys = sorted({row.split(":", 1)[0] for row in found})
            raise MismatchError(
                f"segment {volume.provenance.segment} does not match bundle {self.document.name}: "
                + "; ".join(found)
                + f"; prepare the segment as the bundle expects, or state --override {keys[0]}=… (it is recorded)"
            )

    def require_unedited(self) -> None:
        """Refuse values of ``bundle.json`` that were edited since the weights were stored, unless they are overridden.

        Raises:
            MismatchError: Some were; they are named.
        """
        edited = [key for key in self.document.edited() if key not in self.overrides]
        if edited:
            values = {**self.document.model_dump(mode="json"), **self.document.contract.model_dump(mode="json")}
            rows = ", ".join(f"{key} (now {values.get(key, 'its default')!r})" for key in edited)
            known = [key for key in edited if key in Contract.model_fields]
            cure = f", or state --override {known[0]}=… (it is recorded)" if known == edited else ""
            raise MismatchError(
                f"bundle {self.document.name}: bundle.json was edited since its weights were stored: {rows}; copy the "
                f"bundle again{cure}"
            )

    def build(self, device: torch.device | str = "cpu") -> InkModel:
        """Build the network and load its weights, strictly.

        Raises:
            CorruptDataError: The weights do not have the digest that the document states.
            MismatchError: Missing, unexpected or misshapen keys; all are listed.
        """
        place = self.location / WEIGHTS_FILE
        try:
            data = place.read_bytes()
        except FileNotFoundError as error:
            raise DataError(f"{place}: the bundle has no weights; copy the whole folder again") from error
        found = hashlib.sha256(data).hexdigest()
        if self.document.weights_sha256 and found != self.document.weights_sha256:
            raise CorruptDataError(
                f"{place}: sha256 is {found[:12]}…, bundle.json says {self.document.weights_sha256[:12]}…; "
                "the weights were damaged or exchanged; copy the bundle again"
            )
        with WithoutInitialWeights():
            model = build_model(self.document.architecture, self.document.model)
        if model.config.depth_layers != self.contract.layers.count:
            raise MismatchError(
                f"{self.location}: the network takes {model.config.depth_layers} layers, "
                f"its contract states {self.contract.layers.count}; leave out --override layers, or import it again"
            )
        self._require_normaliser(model)
        load_strictly(model, safetensors.torch.load(data), str(place))
        return model.eval().to(device)

    def _require_normaliser(self, model: InkModel) -> None:
        kind = self.contract.normaliser.kind
        if model.normalises_input != (kind == "network"):
            does = "takes" if model.normalises_input else "does not take"
            raise MismatchError(
                f"{self.location}: the first layer of {model.name} {does} the tile's own statistics, the contract's "
                f"normaliser is {kind!r}; leave out --override normaliser, or import it again"
            )


class WithoutInitialWeights(TorchFunctionMode):
    """Context in which parameters are not drawn at random: for networks whose weights are all loaded next.

    Drawing them takes longer than reading them.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Leave a parameter as memory holds it instead of drawing it; all else is done as ever."""
        named = kwargs or {}
        drawn = args[0] if args else named.get("tensor")
        if getattr(func, "__name__", "") in DRAWS and isinstance(drawn, torch.nn.Parameter):
            return drawn
        return func(*args, **named)


LEAST_TAKEN = 0.5  # share of a network's weights; a bundle that gives fewer is another network


def load_matching(model: InkModel, tensors: Mapping[str, torch.Tensor], place: str) -> list[str]:
    """Load the tensors of another network that fit by name and shape; the others keep their first values.

    Returns:
        Tensors that were left out, in words, in the model's order: those that the file lacks or holds in another shape,
        then those that the model does not have.

    Raises:
        MismatchError: Less than half of the model's weights are in the file.
    """
    own = model.state_dict()
    taken = {name: tensors[name] for name in own if name in tensors and own[name].shape == tensors[name].shape}
    share = sum(tensor.numel() for tensor in taken.values()) / max(1, sum(tensor.numel() for tensor in own.values()))
    left = [
        f"{name}: not in the file"
        if name not in tensors
        else f"{name}: model {tuple(own[name].shape)}, file {tuple(tensors[name].shape)}"
        for name in own
        if name not in taken
    ]
    left += [f"{name}: not in the model" for name in tensors if name not in own]
    if share < LEAST_TAKEN:
        raise MismatchError(
            f"{place}: expected at least {LEAST_TAKEN:.0%} of the weights of {model.name} by name and shape, got "
            f"{share:.0%}; left out: {first_of(left)}; start from a bundle of a network that is more alike"
        )
    model.load_state_dict({**own, **taken}, strict=True)
    return left


def load_strictly(model: InkModel, tensors: Mapping[str, torch.Tensor], place: str) -> None:
    """Load a state dict; every key must be there with its shape, and no other.

    Raises:
        MismatchError: They are not; missing, unexpected and misshapen keys are listed, nothing was loaded.
    """
    rows = key_faults(model.state_dict(), tensors)
    if rows:
        raise MismatchError(f"{place}: keys do not match {model.name}: {first_of(rows)}")
    model.load_state_dict(dict(tensors), strict=True)
