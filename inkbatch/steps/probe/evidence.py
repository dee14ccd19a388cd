"""Evidence of a probe: answers of all windows, and the answers that each reading, as a hypothesis, predicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.synthetic.strokes import INK_SHARE
from inkbatch.io.surface import DepthOrder

Reading = tuple[DepthOrder, int]
Curve = NDArray[np.float64]  # one value per layer of the window that the network takes

MIN_LIFT = 0.3  # planted ink that lifts the map by less is not seen
MIN_AMOUNT = 0.4  # least ink of its own, as a multiple of the planted amount (`INK_SHARE` of a window)
MIN_FIT = 0.8  # least cosine between predicted and found answers
NULL_SHARE = 0.5  # of the best reading's answer: a null input that answers as loudly passes for papyrus with ink
SILENT = 0.05  # share of the loudest prediction below which a reading cannot see the ink
RIVAL_FIT = 0.06  # a hypothesis that fits nearly as well is a rival ...
RIVAL_ANSWER = 2.0  # ... unless the best one answers louder by this factor
USUAL_FIT = 0.02  # the usual layers stay, if they fit nearly as well as the neighbouring ones
LEAST_DOUBT = 0.02  # what a map that is sure may always leave to 1
SAME_LAYERS = 1  # readings so near are one and the same
DRAWS = 400


@dataclass(frozen=True)
class Scene:
    """Setting of a probe.

    Attributes:
        depth: Layers that the network takes.
        usual: The reading that `infer` takes by itself.
        amplitude: Grey values of 255 of the planted ink.
        width_layers: Standard deviation of the planted ink along depth.
    """

    depth: int
    usual: Reading
    amplitude: float = 50.0
    width_layers: float = 1.5

    def place(self, depth: float, reading: Reading) -> float:
        """Return the place of a surface layer among the layers that the network is given."""
        order, start = reading
        return depth - start if order == "forward" else start + self.depth - 1 - depth

    def depth_of(self, place: float, reading: Reading) -> float:
        """Return the surface layer at a place among the layers that the network is given."""
        order, start = reading
        return start + place if order == "forward" else start + self.depth - 1 - place


class Evidence:
    """Answers of all readings, and the answers that each hypothesis predicts."""

    def __init__(self, measures: Sequence[Mapping[str, Any]], scene: Scene) -> None:
        self.scene, self.measures = scene, measures
        first = measures[0]["answers"]
        self.readings: list[Reading] = [(order, int(start)) for order in first for start in first[order]]
        self.blocks = np.concatenate([self._blocks(measure) for measure in measures], axis=1)
        self.answers: Curve = np.nanmean(self.blocks, axis=1)
        self.lift = {order: self._curve(order, "lift") for order in first}
        self.gain = {order: np.maximum(self._curve(order, "gain"), 0) for order in first}
        self.peak_lift = {order: float(curve.max()) for order, curve in self.lift.items()}
        self.peak = {order: _peak_place(curve) for order, curve in self.lift.items()}
        self.predictions = np.stack([self._prediction(reading) for reading in self.readings])
        norm = np.linalg.norm(self.predictions, axis=1, keepdims=True)
        self.directions = np.divide(self.predictions, norm, out=np.zeros_like(self.predictions), where=norm > 0)
        self.nulls: dict[str, dict[str, float]] = {
            name: {key: _mean_of([m["nulls"][name][key] for m in measures]) for key in ("answer", "lift")}
            for name in measures[0]["nulls"]
        }

    def _blocks(self, measure: Mapping[str, Any]) -> NDArray[np.float64]:
        rows = [measure["answers"][order][str(start)] for order, start in self.readings]
        values = np.array([[np.nan if value is None else value for value in row] for row in rows], np.float64)
        return values[:, ~np.isnan(values[0])]

    def _curve(self, order: DepthOrder, key: str) -> Curve:
        """Average over windows, by place among the layers that the network is given; linear between planted ones."""
        found: dict[float, list[float]] = {}
        for measure in self.measures:
            for depth, values in measure["planted"][order].items():
                place = self.scene.place(int(depth), (order, self.scene.usual[1]))
                found.setdefault(place, []).append(values[key])
        places = sorted(place for place in found if len(found[place]) == len(self.measures))
        curve: Curve = np.interp(np.arange(self.scene.depth), places, [_mean_of(found[place]) for place in places])
        return curve

    def _prediction(self, reading: Reading) -> Curve:
        """Predict the answers of all readings if ink is where this one sees it best; zeros if it sees none."""
        order, _ = reading
        if self.peak_lift[order] < MIN_LIFT:
            return np.zeros(len(self.readings))
        depth = self.scene.depth_of(self.peak[order], reading)
        places = np.arange(self.scene.depth)
        heard = [
            np.interp(self.scene.place(depth, other), places, self.gain[other[0]], left=0, right=0)
            for other in self.readings
        ]
        return np.array(heard)

    def fits(self, answers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute the cosine between answers (…, readings) and every prediction, (…, readings)."""
        norm = np.maximum(np.linalg.norm(answers, axis=-1, keepdims=True), 1e-12)
        found: NDArray[np.float64] = (answers / norm) @ self.directions.T
        return found

    def best(self, answers: Curve) -> int | None:
        """Return the reading that fits best; the usual one, if it is a neighbour and fits nearly as well."""
        if not self.directions.any():
            return None
        fits = self.fits(answers)
        best = int(np.argmax(fits))
        if self.scene.usual in self.readings:
            usual = self.readings.index(self.scene.usual)
            if self._same(best, usual) and fits[usual] >= fits[best] - USUAL_FIT:
                return usual
        return best

    def amount(self, best: int) -> float:
        """Estimate the segment's own ink, as a multiple of the planted amount."""
        predicted = self.predictions[best]
        return float(self.answers @ predicted / (predicted @ predicted))

    def loud_bystander(self, best: int) -> int | None:
        """Find a reading that is predicted to be silent and is not."""
        predicted = self.predictions[best]
        silent = np.flatnonzero(predicted < SILENT * predicted.max())
        if not silent.size:
            return None
        loudest = int(silent[np.argmax(self.answers[silent])])
        return loudest if self.answers[loudest] >= NULL_SHARE * self.answers[best] else None

    def ridge(self, best: int) -> float:
        """Measure how far the bundle's best layer stands out on found ink, in amplitudes of planted ink.

        Ink is a thin layer: it is brighter (or darker, as the planted ink) than the layers two of its widths above
        and below. Marks that a network invents in layers that it was never trained for need not be.
        """
        order, start = self.readings[best]
        rows = [measure["contrasts"][order][str(start)] for measure in self.measures]
        lit = np.array([row["lit"] for row in rows], np.float64)
        if not lit.sum():
            return 0.0
        contrast = (lit @ np.array([row["layers"] for row in rows], np.float64)) / lit.sum()
        centre, last = round(self.peak[order]), self.scene.depth - 1
        places = range(max(0, centre - SAME_LAYERS), min(last, centre + SAME_LAYERS) + 1)
        return max(_ridge_at(contrast / self.scene.amplitude, place, self.scene.width_layers) for place in places)

    def doubt(self, best: int) -> float:
        """Measure how unsure the map is where it says ink, as a multiple of its doubt about undisturbed ink.

        Doubt is 1 minus the mean of the map where it reaches one half. Undisturbed ink is planted into one layer
        repeated, or into the papyrus if a bundle sees none there. On ink a map is as sure as it gets, except at the
        borders of strokes; texture that looks like ink is marked in shreds.
        """
        order, start = self.readings[best]
        rows = [measure["contrasts"][order][str(start)] for measure in self.measures]
        lit = np.array([row["lit"] for row in rows], np.float64)
        if not lit.sum():
            return math.inf
        sure = float((lit @ np.array([row["certainty"] for row in rows], np.float64)) / lit.sum())
        undisturbed = [measure["nulls"]["one layer repeated"]["certainty"] for measure in self.measures]
        seen = [value for value in undisturbed if value]
        surest = _mean_of(seen) if seen else float(self._curve(order, "certainty").max())
        return (1 - sure) / max(1 - surest, LEAST_DOUBT)

    def rival(self, best: int) -> int | None:
        """Find another reading that explains the answers as well and answers nearly as loud."""
        fits = self.fits(self.answers)
        for other in np.argsort(-fits):
            if fits[other] < fits[best] - RIVAL_FIT:
                return None
            if not self._same(best, int(other)) and self.answers[other] * RIVAL_ANSWER > self.answers[best]:
                return int(other)
        return None

    def confidence(self, best: int, seed: int) -> float:
        """Compute the share of resampled probes whose best reading is this one, with enough ink and a good fit."""
        rng = np.random.default_rng(seed)
        count = self.blocks.shape[1]
        picks = rng.integers(count, size=(DRAWS, count))
        answers = self.blocks[:, picks].mean(axis=2).T
        fits = self.fits(answers)
        winners = np.argmax(fits, axis=1)
        predicted = self.predictions[winners]
        amounts = (answers * predicted).sum(axis=1) / np.maximum((predicted**2).sum(axis=1), 1e-12)
        same = np.array([self._same(best, int(winner)) for winner in winners])
        return float(np.mean(same & (amounts >= MIN_AMOUNT) & (fits.max(axis=1) >= MIN_FIT)))

    def _same(self, one: int, other: int) -> bool:
        (order, start), (other_order, other_start) = self.readings[one], self.readings[other]
        return order == other_order and abs(start - other_start) <= SAME_LAYERS

    def words(self, reading: int) -> str:
        """Describe a reading and its answer, for a message."""
        order, start = self.readings[reading]
        return f"{order} from layer {start} answers {self.answers[reading]:.2f}"

    def numbers(self, best: int | None) -> dict[str, Any]:
        """Return all measures behind the verdict, as JSON values."""
        return {
            "answers": {
                order: {str(start): round(float(value), 4) for (o, start), value in self._answered() if o == order}
                for order in self.lift
            },
            "fit": None if best is None else round(float(self.fits(self.answers)[best]), 4),
            "ink_share": None if best is None else round(self.amount(best) * INK_SHARE, 4),
            "lift": {order: [round(float(value), 4) for value in curve] for order, curve in self.lift.items()},
            "seen_best_at": {order: round(place, 2) for order, place in self.peak.items()},
            "ridge": None if best is None else round(self.ridge(best), 4),
            "doubt": None if best is None or math.isinf(self.doubt(best)) else round(self.doubt(best), 4),
            "faces": self._faces(),
            "nulls": {name: {key: round(value, 4) for key, value in null.items()} for name, null in self.nulls.items()},
            "windows": [measure["box"] for measure in self.measures],
            "blocks": int(self.blocks.shape[1]),
        }

    def _answered(self) -> list[tuple[Reading, float]]:
        return list(zip(self.readings, self.answers.tolist(), strict=True))

    def _faces(self) -> dict[str, Any]:
        """Read the lift of ink on either face of the sheet from the usual layers, in both orders."""
        found = {}
        for number, name in enumerate(("front", "back")):
            layers = [measure["faces"][number] for measure in self.measures]
            lifts = {
                order: _mean_of([m["planted"][order][str(m["faces"][number])]["lift"] for m in self.measures])
                for order in self.lift
            }
            found[name] = {
                "layer": float(np.median(layers)),
                **{order: round(value, 4) for order, value in lifts.items()},
            }
        return found


def _peak_place(curve: Curve) -> float:
    """Find the centre of gravity of the peak: the neighbourhood of the highest value that stays above half of it."""
    top = int(np.argmax(curve))
    if curve[top] <= 0:
        return float(top)
    first = last = top
    while first > 0 and curve[first - 1] >= curve[top] / 2:
        first -= 1
    while last < len(curve) - 1 and curve[last + 1] >= curve[top] / 2:
        last += 1
    part = curve[first : last + 1]
    return float((part * np.arange(first, last + 1)).sum() / part.sum())


def _ridge_at(contrast: Curve, place: int, width: float) -> float:
    """Measure how far a thin layer stands out on its weaker side, as a multiple of the planted profile.

    `contrast` is in amplitudes of planted ink. The flanks are two widths away, or at the border; a drop is a share of
    the planted profile's drop over that distance.
    """
    drops = []
    for room, step in ((place, -1), (len(contrast) - 1 - place, 1)):
        apart = min(room, max(1, round(2 * width)))
        if apart:
            planted = 1 - math.exp(-0.5 * (apart / width) ** 2)
            drops.append(float(contrast[place] - contrast[place + step * apart]) / planted)
    return min(drops, default=0.0)


def _mean_of(values: Sequence[float]) -> float:
    return float(np.mean(values))
