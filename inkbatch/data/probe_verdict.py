"""From what a bundle answered in some windows to a verdict: which order, which layers, how sure.

Planted ink says at which depth of its window the bundle sees ink, for each order: the *sensitivity*. Each reading
(order, first layer) is a hypothesis: "my ink lies where planted ink is seen best". It predicts, through the
sensitivity, how loud every reading of the sweep answers; the prediction is compared with the answers by the cosine of
the angle between the two. The loudest reading need not be the right one: a bundle may answer loudly, and wrongly, where
it was never trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from inkbatch.data.probe_inputs import INK_SHARE
from inkbatch.io.surface import DepthOrder

Word = Literal["clear", "displaced", "blind", "false positives"]
Reading = tuple[DepthOrder, int]
Curve = NDArray[np.float64]  # one value per layer of the window that the network takes

MIN_LIFT = 0.3  # planted ink that lifts the map by less is not seen
MIN_AMOUNT = 0.4  # least ink of its own, as a multiple of the planted amount (`INK_SHARE` of a window)
MIN_FIT = 0.8  # least cosine between predicted and found answers
NULL_SHARE = 0.5  # of the best reading's answer: a null input that answers as loudly passes for papyrus with ink
SILENT = 0.05  # share of the loudest prediction below which a reading cannot see the ink
LOUD = 0.1  # answer of a null input that is loud by itself
RIVAL_FIT = 0.06  # a hypothesis that fits nearly as well is a rival ...
RIVAL_ANSWER = 2.0  # ... unless the best one answers louder by this factor
USUAL_FIT = 0.02  # the usual layers stay, if they fit nearly as well as the neighbouring ones
SAME_LAYERS = 1  # readings so near are one and the same
MIN_CONFIDENCE = 0.95
DRAWS = 400


@dataclass(frozen=True)
class Scene:
    """What the verdict is about.

    Attributes:
        depth: Layers that the network takes.
        usual: The reading that `infer` takes by itself.
    """

    depth: int
    usual: Reading

    def place(self, depth: float, reading: Reading) -> float:
        """Where a layer of the surface lies among the layers that the network is given."""
        order, start = reading
        return depth - start if order == "forward" else start + self.depth - 1 - depth

    def depth_of(self, place: float, reading: Reading) -> float:
        """The layer of the surface at a place among the layers that the network is given."""
        order, start = reading
        return start + place if order == "forward" else start + self.depth - 1 - place


@dataclass(frozen=True)
class Verdict:
    """What a probe found; see `judge`.

    Attributes:
        word: ``clear`` and ``displaced`` may be used; ``blind`` and ``false positives`` may not.
        reason: In words, with the numbers that decided.
        order: Depth order of the best reading.
        start: Its first layer, as an index of the surface.
        displaced_by: Layers between it and the usual reading.
        confidence: Share of resampled probes that come to this reading and find it good enough.
        numbers: Everything that was weighed.
    """

    word: Word
    reason: str
    order: DepthOrder
    start: int
    displaced_by: int
    confidence: float
    numbers: Mapping[str, Any]

    @property
    def usable(self) -> bool:
        """Whether `infer --layers auto` may use it."""
        return self.word in ("clear", "displaced")

    @property
    def words(self) -> str:
        """The verdict as people say it."""
        if self.word != "displaced":
            return self.word
        count = abs(self.displaced_by)
        return f"displaced by {count} layer{'s' if count > 1 else ''} ({'down' if self.displaced_by > 0 else 'up'})"


def judge(measures: Sequence[Mapping[str, Any]], scene: Scene, seed: int = 0) -> Verdict:
    """Weigh what all windows answered.

    Args:
        measures: What `inkbatch.predict.probing.measure` returned for each window.
        scene: The network's depth and the usual reading.
        seed: Of the resampling.
    """
    evidence = _Evidence(measures, scene)
    best = evidence.best(evidence.answers)
    numbers = evidence.numbers(best)
    confidence = 0.0 if best is None else evidence.confidence(best, seed)
    order, start = scene.usual if best is None else evidence.readings[best]
    word, reason = _weigh(evidence, best, confidence)
    displaced = start - scene.usual[1]
    if word == "clear" and displaced:
        word = "displaced"
    return Verdict(word, reason, order, start, displaced, round(confidence, 3), numbers)


def _weigh(evidence: _Evidence, best: int | None, confidence: float) -> tuple[Word, str]:
    nulls, lift = evidence.nulls, max(evidence.peak_lift.values())
    loudest = max(nulls, key=lambda name: nulls[name]["answer"])
    if best is None:
        if nulls[loudest]["answer"] >= LOUD:
            return "false positives", (
                f"planted ink changes nothing (lift {lift:.2f}), yet null inputs are answered ({loudest}: "
                f"{nulls[loudest]['answer']:.2f}): whatever the map shows does not come from ink like this"
            )
        return "blind", (
            f"planted ink lifts the map by {lift:.2f} at most, {MIN_LIFT} is wanted: this bundle does not see ink like "
            "this on this papyrus; check divisor, clip and voxel size, or plant other ink (amplitude, width_layers)"
        )
    answer, fit, amount = evidence.answers[best], evidence.fits(evidence.answers)[best], evidence.amount(best)
    if amount < MIN_AMOUNT:
        return "blind", (
            f"planted ink is seen (lift {lift:.2f}), but the windows hold too little of their own: ink on about "
            f"{amount * INK_SHARE:.0%}, {MIN_AMOUNT * INK_SHARE:.0%} is wanted; give windows on writing: at=[[y, x], …]"
        )
    for name, null in nulls.items():
        readable = name != "layers shuffled" or null["lift"] >= NULL_SHARE * lift
        if readable and null["answer"] >= NULL_SHARE * answer:
            return "false positives", (
                f"a null input ({name}) is answered with {null['answer']:.2f}, the best reading with {answer:.2f}"
            )
    if (loud := evidence.loud_bystander(best)) is not None:
        order, start = evidence.readings[loud]
        return "false positives", (
            f"a reading that cannot see the ink ({order} from layer {start}) answers with "
            f"{evidence.answers[loud]:.2f}, the best one with {answer:.2f}"
        )
    if fit < MIN_FIT:
        return "false positives", (
            f"the answers of all readings follow what planted ink predicts only by {fit:.2f}, {MIN_FIT} is wanted"
        )
    if (rival := evidence.rival(best)) is not None:
        order, start = evidence.readings[rival]
        return "blind", (
            f"two readings show the same ink: {evidence.words(best)}, and {order} from layer {start} "
            f"({evidence.answers[rival]:.2f}); the answers cannot tell which way the layers lie"
        )
    if confidence < MIN_CONFIDENCE:
        return "blind", (
            f"the windows do not agree: only {confidence:.0%} of resampled probes come to this reading, "
            f"{MIN_CONFIDENCE:.0%} is wanted; probe more windows"
        )
    return "clear", f"{evidence.words(best)}, fits the planted ink's by {fit:.2f}"


class _Evidence:
    """The answers of all readings, and what each hypothesis predicts for them."""

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
        """Mean over the windows, by place among the layers that the network is given; linear between planted layers."""
        found: dict[float, list[float]] = {}
        for measure in self.measures:
            for depth, values in measure["planted"][order].items():
                place = self.scene.place(int(depth), (order, self.scene.usual[1]))
                found.setdefault(place, []).append(values[key])
        places = sorted(place for place in found if len(found[place]) == len(self.measures))
        curve: Curve = np.interp(np.arange(self.scene.depth), places, [_mean_of(found[place]) for place in places])
        return curve

    def _prediction(self, reading: Reading) -> Curve:
        """How loud all readings answer if ink lies where this one sees it best; zeros where it sees none."""
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
        """Cosine between answers (…, readings) and every prediction, (…, readings)."""
        norm = np.maximum(np.linalg.norm(answers, axis=-1, keepdims=True), 1e-12)
        found: NDArray[np.float64] = (answers / norm) @ self.directions.T
        return found

    def best(self, answers: Curve) -> int | None:
        """The reading that fits best; the usual one, if it is a neighbour and fits nearly as well."""
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
        """Ink of its own, as a multiple of the planted amount."""
        predicted = self.predictions[best]
        return float(self.answers @ predicted / (predicted @ predicted))

    def loud_bystander(self, best: int) -> int | None:
        """A reading that ought to be silent and is not."""
        predicted = self.predictions[best]
        silent = np.flatnonzero(predicted < SILENT * predicted.max())
        if not silent.size:
            return None
        loudest = int(silent[np.argmax(self.answers[silent])])
        return loudest if self.answers[loudest] >= NULL_SHARE * self.answers[best] else None

    def rival(self, best: int) -> int | None:
        """Another reading that explains the answers as well and answers nearly as loud."""
        fits = self.fits(self.answers)
        for other in np.argsort(-fits):
            if fits[other] < fits[best] - RIVAL_FIT:
                return None
            if not self._same(best, int(other)) and self.answers[other] * RIVAL_ANSWER > self.answers[best]:
                return int(other)
        return None

    def confidence(self, best: int, seed: int) -> float:
        """Share of resampled probes whose best reading is this one, with enough ink and a good fit."""
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
        order, start = self.readings[reading]
        return f"{order} from layer {start} answers {self.answers[reading]:.2f}"

    def numbers(self, best: int | None) -> dict[str, Any]:
        """Everything that was weighed, as JSON values."""
        return {
            "answers": {
                order: {str(start): round(float(value), 4) for (o, start), value in self._answered() if o == order}
                for order in self.lift
            },
            "fit": None if best is None else round(float(self.fits(self.answers)[best]), 4),
            "ink_share": None if best is None else round(self.amount(best) * INK_SHARE, 4),
            "lift": {order: [round(float(value), 4) for value in curve] for order, curve in self.lift.items()},
            "seen_best_at": {order: round(place, 2) for order, place in self.peak.items()},
            "faces": self._faces(),
            "nulls": {name: {key: round(value, 4) for key, value in null.items()} for name, null in self.nulls.items()},
            "windows": [measure["box"] for measure in self.measures],
            "blocks": int(self.blocks.shape[1]),
        }

    def _answered(self) -> list[tuple[Reading, float]]:
        return list(zip(self.readings, self.answers.tolist(), strict=True))

    def _faces(self) -> dict[str, Any]:
        """Lift of ink on either face of the sheet, read from the usual layers in both orders."""
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
    """Centre of gravity of the neighbourhood of the highest value that stays above half of it."""
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


def _mean_of(values: Sequence[float]) -> float:
    return float(np.mean(values))
