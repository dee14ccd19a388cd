"""The contract: what a network must be fed, and how its answers become a map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from inkbatch.config import WindowName
from inkbatch.errors import ConfigError, LayerRangeError
from inkbatch.io.layers.spacing import VOXEL_TOLERANCE
from inkbatch.io.surface import ClaheSettings, DepthOrder, SurfaceProvenance, SurfaceVolume
from inkbatch.models.rules import Grown, Normaliser, Stitching
from inkbatch.text import near_matches
from inkbatch.validation import in_words

UNUSED_DIVISOR = 255.0  # the default; where statistics of the data take its place, none may be stated


class LayerRule(Grown):
    """Choice of the layers that a network takes.

    Attributes:
        count: Number of layers.
        source_range: Half-open range of source layer numbers; None takes the centred `count` of what is prepared.
        centre: First of the centred `count` of n layers: ``floor`` (n - count) // 2, ``halves`` n // 2 - count // 2,
            ``ceil`` the first rounded up.
        counted_in: Which order that first one is counted in: the prepared ``surface``'s (depth order), the
            ``source``'s, or the order in which the network is ``reading`` them (mirrored, then chosen). They differ
            where the layers left over are odd in number and an order is reversed.
    """

    younger: ClassVar[frozenset[str]] = frozenset({"centre", "counted_in"})

    count: int = Field(ge=1)
    source_range: tuple[int, int] | None = None
    centre: Literal["floor", "halves", "ceil"] = "floor"
    counted_in: Literal["surface", "source", "reading"] = "surface"

    @model_validator(mode="after")
    def _range_agrees(self) -> LayerRule:
        if self.source_range and self.source_range[1] - self.source_range[0] != self.count:
            raise ValueError(f"source_range {self.source_range} does not hold {self.count} layers")
        return self

    def first_of(self, total: int, *, mirrored: bool) -> int:
        """Return the first of the centred layers.

        Args:
            total: Layers to choose from, `count` at least.
            mirrored: The order that `centre` counts in runs against the order of the result.
        """
        spare = total - self.count
        first = {"floor": spare // 2, "halves": total // 2 - self.count // 2, "ceil": -(-spare // 2)}[self.centre]
        return spare - first if mirrored else first


class Contract(Grown):
    """Contract of a network: its input, and the stitching of its output.

    Intensities x become ``(min(max(x, clip[0]), clip[1]) / divisor - mean) / std`` in float32, unless `normaliser`
    says that statistics of the data take the place of these numbers.

    Attributes:
        layers: Which layers.
        depth_order: ``reversed`` if the network was trained on layers against depth order.
        dtype: Dtype of the surface volume.
        intensity: Accepted 16 -> 8 bit rules of the volume; ``window:*`` accepts any window.
        lut: Lookup table that the volume must have had applied, or None.
        clahe: CLAHE that the volume must have had applied, or None.
        clip: Smallest and largest intensity, or None.
        divisor: Divides after clipping.
        scaling: ``divide`` by the divisor, or ``multiply`` by its reciprocal in float32: they differ in the last bit.
        mean: Subtracted after division.
        std: Divides at last.
        normaliser: Statistics of a tile or a segment in place of these four numbers.
        reads: ``surface``: prepared segments; ``pictures``: photographs and drawings (infer-pictures).
        voxel_size_um: Edge of a pixel that the network was trained at; None alone for pictures of unknown scale.
        z_spacing_um: Spacing of layers that it was trained at; None: as that of pixels.
        voxel_tolerance: Accepted relative difference of both.
        tile_px: Tile edge.
        stride_px: Step between tile origins.
        window: Blending weights of a tile.
        window_sigma: Standard deviation of the ``gaussian`` window, as a share of the tile edge.
        stitching: How maps of tiles become one.
        activation: ``sigmoid`` for logits; ``none`` where the network hands out the map itself.
        display_range: Probabilities that pictures of the map show as black and as white; a network trained with label
            smoothing of 0.5 answers between 0.25 and 0.75. The stored map keeps its values.
        export_rounding: How an exported picture's values become whole numbers: to the ``nearest`` (halves to even), or
            ``truncate``.
        tta_axes: Views that may be averaged at inference.
        boundary_px: Width of the boundary that a network of three classes was taught to leave inside each object, by
            which `inkbatch instances` grows its objects; None: not known, or no such class.
        threshold: Probability from which a pixel counts as ink, or None.
        threshold_fitted_on: Where the threshold was fitted.
    """

    younger: ClassVar[frozenset[str]] = frozenset(
        {
            "scaling",
            "normaliser",
            "z_spacing_um",
            "stitching",
            "display_range",
            "export_rounding",
            "reads",
            "boundary_px",
        }
    )

    layers: LayerRule
    depth_order: DepthOrder = "forward"
    dtype: Literal["uint8", "uint16"] = "uint8"
    intensity: tuple[str, ...] = ("keep", "high-byte")
    lut: tuple[tuple[int, int], ...] | None = None
    clahe: ClaheSettings | None = None
    clip: tuple[float, float] | None = None
    divisor: float = Field(255.0, gt=0)
    scaling: Literal["divide", "multiply"] = "divide"
    mean: float = 0.0
    std: float = Field(1.0, gt=0)
    normaliser: Normaliser = Normaliser()
    reads: Literal["surface", "pictures"] = "surface"
    voxel_size_um: float | None = Field(None, gt=0)
    z_spacing_um: float | None = Field(None, gt=0)
    voxel_tolerance: float = Field(VOXEL_TOLERANCE, ge=0)
    tile_px: int = Field(ge=1)
    stride_px: int = Field(ge=1)
    window: WindowName = "hann"
    window_sigma: float = Field(0.25, gt=0)
    stitching: Stitching = Stitching()
    activation: Literal["sigmoid", "none"] = "sigmoid"
    display_range: tuple[float, float] = (0.0, 1.0)
    export_rounding: Literal["nearest", "truncate"] = "nearest"
    tta_axes: tuple[Literal["flip-y", "flip-x", "turn-90", "turn-180", "turn-270"], ...] = ()
    boundary_px: int | None = Field(None, ge=1)
    threshold: float | None = None
    threshold_fitted_on: str | None = None

    @model_validator(mode="after")
    def _surface_has_a_scale(self) -> Contract:
        if self.reads == "surface" and self.voxel_size_um is None:
            raise ValueError("voxel_size_um is missing; state the voxel edge that the network was trained at")
        return self

    @model_validator(mode="after")
    def _stride_fits(self) -> Contract:
        if self.stride_px > self.tile_px:
            raise ValueError(f"stride_px {self.stride_px} is larger than tile_px {self.tile_px}: pixels are left out")
        return self

    @model_validator(mode="after")
    def _normaliser_stands_alone(self) -> Contract:
        given = {"clip": self.clip is not None, "divisor": self.divisor != UNUSED_DIVISOR, "mean": self.mean != 0}
        given |= {"std": self.std != 1, "scaling": self.scaling != "divide"}
        if self.normaliser.by_statistics and any(given.values()):
            names = " and ".join(key for key, is_given in given.items() if is_given)
            raise ValueError(f"normaliser {self.normaliser.kind} takes no {names}; leave out {names}")
        return self

    @model_validator(mode="after")
    def _range_ascends(self) -> Contract:
        low, high = self.display_range
        if not 0 <= low < high <= 1:
            raise ValueError(f"display_range: expected 0 <= black < white <= 1, got {low:g} and {high:g}")
        return self

    def overridden(self, overrides: Mapping[str, Any]) -> Contract:
        """Replace some values of the contract, as ``--override key=value`` asks; they go into the manifest.

        ``normaliser.kind=robust-mad`` replaces one value of a group, ``normaliser={…}`` the group.

        Raises:
            ConfigError: An unknown key, or a value that does not validate.
        """
        values = self.model_dump()
        for key, value in overrides.items():
            name, _, part = key.partition(".")
            inner = getattr(self, name, None)
            if name not in Contract.model_fields or (part and not isinstance(inner, BaseModel)):
                known = sorted(Contract.model_fields)
                raise ConfigError(f"--override {key}: the contract has no such key{near_matches(key, known)}")
            if part and isinstance(inner, BaseModel):
                values[name] = {**inner.model_dump(), **values.get(name, {}), part: value}
            else:
                values[name] = value
        try:
            return Contract.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"--override: {in_words(error, values, model=Contract)}") from error

    def layer_indices(self, volume: SurfaceVolume, layers: tuple[int, int] | None = None) -> range:
        """Return the indices (depth order) of the layers that the network takes from this volume.

        Args:
            volume: The surface volume.
            layers: Half-open range of source layer numbers that the user asked for, or None.

        Raises:
            LayerRangeError: The volume has too few layers, or the range leaves it or has another count.
        """
        wanted = layers or self.layers.source_range
        if wanted is not None:
            first, last = wanted
            if last - first != self.layers.count:
                raise LayerRangeError(
                    f"segment {volume.provenance.segment}: --layers {first}:{last} are {last - first} layers, the "
                    f"bundle expects {self.layers.count}; give a range of that many, for example "
                    f"{first}:{first + self.layers.count}"
                )
            return volume.provenance.index_range(wanted)
        spare = volume.layer_count - self.layers.count
        if spare < 0:
            raise LayerRangeError(
                f"segment {volume.provenance.segment}: bundle expects {self.layers.count} layers, "
                f"surface has {volume.layer_count}; prepare more layers or take another bundle"
            )
        mirrored = {"source": volume.provenance.depth_order, "reading": self.depth_order}.get(self.layers.counted_in)
        first = self.layers.first_of(volume.layer_count, mirrored=mirrored == "reversed")
        return range(first, first + self.layers.count)

    def mismatches(self, provenance: SurfaceProvenance, dtype: str) -> list[str]:
        """List every way in which a volume differs from the network's training data, in words naming both sides."""
        found: list[str] = []
        if dtype != self.dtype:
            found.append(f"dtype: bundle expects {self.dtype}, surface is {dtype}")
        if not any(_rule_accepts(rule, provenance.intensity) for rule in self.intensity):
            wanted = " or ".join(self.intensity)
            found.append(f"intensity: bundle expects {wanted}, surface was made with {provenance.intensity}")
        if provenance.lut != self.lut:
            found.append(f"lut: bundle expects {self.lut}, surface was made with {provenance.lut}")
        if provenance.clahe != self.clahe:
            found.append(f"clahe: bundle expects {self.clahe}, surface was made with {provenance.clahe}")
        um = self.voxel_size_um
        if um is not None and abs(provenance.voxel_size_um - um) > self.voxel_tolerance * um:
            found.append(
                f"voxel_size_um: bundle expects {um} within {self.voxel_tolerance:.0%}, "
                f"surface has {provenance.voxel_size_um}"
            )
        layer_um = self.layer_um
        if layer_um is not None and abs(provenance.layer_um - layer_um) > self.voxel_tolerance * layer_um:
            found.append(
                f"z_spacing_um: bundle expects {layer_um:g} µm between layers within {self.voxel_tolerance:.0%}, "
                f"surface has {provenance.layer_um:g} (and {provenance.voxel_size_um:g} in the plane){self._pooling()}"
            )
        return found

    @property
    def layer_um(self) -> float | None:
        """Spacing of layers in micrometres; None for pictures of unknown scale."""
        return self.z_spacing_um or self.voxel_size_um

    def _pooling(self) -> str:
        """Say how to bring a surface to the wished spacing."""
        plane, layers = f"{self.voxel_size_um:g}", f"{self.layer_um:g}"
        target = plane if plane == layers else f"{layers},{plane},{plane}"
        return f"; pool its source: inkbatch prepare --resample {target}"


def _rule_accepts(rule: str, found: str) -> bool:
    return found.startswith(rule[:-1]) if rule.endswith("*") else found == rule
