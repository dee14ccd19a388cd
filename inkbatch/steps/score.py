"""How good a finished prediction is, where the catalog knows the segment's ink labels."""

from __future__ import annotations

from inkbatch.data.catalog import Catalog
from inkbatch.data.scoring import ScoreHistogram
from inkbatch.errors import DataError
from inkbatch.geometry import cut
from inkbatch.io.layers import open_layer_source
from inkbatch.io.prediction import Prediction
from inkbatch.io.surface import SurfaceVolume
from inkbatch.models.bundle import Bundle, bundle_location
from inkbatch.run.job import JobReport
from inkbatch.steps.infer import InferConfig
from inkbatch.steps.prepare import segment_folder

WINDOW_PX = 2048
DEFAULT_THRESHOLD = 0.5


def score_if_labelled(config: InferConfig, report: JobReport, catalog: str | None = None) -> list[str]:
    """Lines that say where the picture is and, where labels are known, how good the map is.

    Args:
        config: The job that ran.
        report: What it did; an incomplete prediction is not scored.
        catalog: The user's catalog file.

    Raises:
        DataError: The labels are of another size than the prediction.
    """
    if not report.complete:
        return []
    lines = [f"picture: {report.location / 'preview.png'}"]
    entry = Catalog.load(catalog).entries.get(config.segment)
    if entry is None or entry.ink_labels is None:
        return lines
    histogram = score(config, report, entry.ink_labels)
    threshold = Bundle.open(bundle_location(config.bundle)).document.contract.threshold or DEFAULT_THRESHOLD
    best, at = histogram.best_f_beta()
    lines.append(
        f"against {entry.ink_labels}: F0.5 {histogram.f_beta(threshold):.3f} at the bundle's threshold {threshold:.2f} "
        f"(best {best:.3f} at {at:.2f}), AUC {histogram.auc():.3f}"
    )
    return lines


def score(config: InferConfig, report: JobReport, labels_uri: str) -> ScoreHistogram:
    """Compare a prediction with labels, window by window, inside the mask."""
    prediction = Prediction.open(report.location)
    surface = SurfaceVolume.open(segment_folder(config.root, config.segment))
    histogram = ScoreHistogram()
    with open_layer_source(labels_uri) as labels:
        if labels.shape_zyx[1:] != prediction.shape_yx:
            raise DataError(
                f"labels {labels_uri}: are {labels.shape_zyx[1:]}, the prediction is {prediction.shape_yx} "
                "(height, width); give the labels of this very segment"
            )
        for box in cut(prediction.shape_yx, WINDOW_PX, WINDOW_PX):
            ink = labels.read(range(labels.first_layer, labels.first_layer + 1), box)[0] > 0
            histogram.add(prediction.read(box), ink, surface.read_mask(box))
    return histogram
