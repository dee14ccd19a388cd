"""Repeating each kind of job: its configuration, its plan, the place of its inputs, and its files with a clock."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from inkbatch.config import JobConfig
from inkbatch.errors import ConfigError
from inkbatch.io.store.location import Location
from inkbatch.run.job import JobReport, RunContext
from inkbatch.run.record import REPORT_NAME, SCORE_NAME, RunFolder

Plan = Callable[[Any], Sequence[RunFolder]]

_RUN_FILE = re.compile(r"(.*/)?run(-\d+-of-\d+)?\.json")
_MANIFEST = re.compile(r"(.*/)?manifest\.json")
_REPORT = re.compile(rf"(.*/)?{re.escape(REPORT_NAME)}")  # shows times and money
_SCORE = re.compile(rf"(.*/)?{re.escape(SCORE_NAME)}")  # labels come and go
_LOGS = re.compile(r"(tensorboard|wandb)/.*")  # of training: every entry holds a time of day


@dataclass(frozen=True)
class Repeatable:
    """A kind of job.

    Attributes:
        config: Its settings.
        plan: Settles it without computing: the runs that the job makes; one, or one per stored window.
        run: Carries it out.
        inputs_up: How many folders above the run's own the ROOT of its inputs is, for a folder in its usual place; None
            for a job whose request names all inputs.
    """

    config: type[JobConfig]
    plan: Plan
    run: Callable[[Any, RunContext], JobReport]
    inputs_up: int | None = None

    def roots(self, folder: Location, root: str, inputs_root: str | None, fold: int | None) -> dict[str, str]:
        """Return the settings for the place of the inputs and of the repeated run.

        Args:
            folder: The first run's folder.
            root: ROOT of the repeated run.
            inputs_root: ROOT of the inputs, where it is stated.
            fold: Of a run that is one of several: its folder is one level deeper.
        """
        target = Location.parse(root).uri
        if self.inputs_up is None:
            return {"root": target}
        found = Location.parse(inputs_root) if inputs_root else folder
        if inputs_root is None:
            for _ in range(self.inputs_up + int(fold is not None and folder.name == f"fold-{fold}")):
                found = found.parent
        return {"root": found.uri, "output_root": target}


def holds_no_clock(path: str) -> bool:
    """Tell if an object of a run (path in its folder) must be equal in an equal run; manifests are compared apart."""
    return not any(pattern.fullmatch(path) for pattern in (_RUN_FILE, _MANIFEST, _REPORT, _SCORE, _LOGS))


def is_record(path: str) -> bool:
    """Tell if an object of a run (path in its folder) is a marker or ``complete.json``, not a part of the result."""
    folder, _, name = path.rpartition("/")
    return name == "complete.json" or folder.rpartition("/")[2] == "done"


def repeatable(name: str) -> Repeatable:
    """Return the job of this name.

    Raises:
        ConfigError: It cannot be repeated.
    """
    if name not in _JOBS:
        raise ConfigError(
            f"rerun: this run is a {name}, which cannot be repeated by itself; {', '.join(_JOBS)} can. Manifests of "
            "stages (clean-components, labels-components, instances-maps, sweep-maps, …) belong to the job in whose "
            "folder they are"
        )
    return _JOBS[name]()


def _of_one_run(plan: Callable[[Any], Any]) -> Plan:
    """Adapt the plan of a job that has a folder and a manifest and holds nothing open."""

    def planned(config: Any) -> Sequence[RunFolder]:
        found = plan(config)
        return [RunFolder(found.folder, found.manifest)]

    return planned


def _prepare() -> Repeatable:
    from inkbatch.steps.prepare import job as prepare
    from inkbatch.steps.prepare.settings import PrepareConfig

    def planned(config: PrepareConfig) -> Sequence[RunFolder]:
        found = prepare.make_plan(config)
        found.source.close()
        return [RunFolder(found.folder / "prepare", found.manifest)]

    return Repeatable(PrepareConfig, planned, prepare.run)


def _labels() -> Repeatable:
    from inkbatch.steps.labels import job as labels

    def planned(config: labels.LabelsConfig) -> Sequence[RunFolder]:
        found = labels.make_plan(config)
        found.inputs.close()
        return [found.record]

    return Repeatable(labels.LabelsConfig, planned, labels.run, 3)


def _build_dataset() -> Repeatable:
    from inkbatch.steps import chains
    from inkbatch.steps.dataset.job import BuildDatasetConfig, make_plan

    return Repeatable(BuildDatasetConfig, _of_one_run(make_plan), chains.build_dataset, 2)


def _train() -> Repeatable:
    from inkbatch.steps.train import job as train

    def planned(config: train.TrainConfig) -> Sequence[RunFolder]:
        return [RunFolder(found.folder, found.manifest) for found in train.make_plan(config)]

    return Repeatable(train.TrainConfig, planned, train.run, 2)


def _soup() -> Repeatable:
    from inkbatch.steps.train import soup

    return Repeatable(soup.SoupConfig, _of_one_run(soup.make_plan_of_soup), soup.run)


def _infer() -> Repeatable:
    from inkbatch.steps import chains
    from inkbatch.steps.infer.plan import make_plan
    from inkbatch.steps.infer.settings import InferConfig

    return Repeatable(InferConfig, lambda config: make_plan(config).outputs, chains.infer, 3)


def _infer_pictures() -> Repeatable:
    from inkbatch.steps import infer_pictures

    return Repeatable(infer_pictures.InferPicturesConfig, _of_one_run(infer_pictures.make_plan), infer_pictures.run)


def _ensemble() -> Repeatable:
    from inkbatch.steps.ensemble import job as ensemble

    return Repeatable(ensemble.EnsembleConfig, _of_one_run(ensemble.make_plan), ensemble.run, 3)


def _clean() -> Repeatable:
    from inkbatch.steps.labels import clean

    return Repeatable(clean.CleanConfig, _of_one_run(clean.make_plan), clean.run, 3)


def _instances() -> Repeatable:
    from inkbatch.steps.instances import job as instances
    from inkbatch.steps.instances.plan import make_plan
    from inkbatch.steps.instances.settings import InstancesConfig

    return Repeatable(InstancesConfig, _of_one_run(make_plan), instances.run, 3)


def _letters() -> Repeatable:
    from inkbatch.steps.letters import job as letters

    return Repeatable(letters.LettersConfig, _of_one_run(letters.make_plan), letters.run, 3)


def _evaluate() -> Repeatable:
    from inkbatch.steps.evaluate import job as evaluate

    def planned(config: evaluate.EvaluateConfig) -> Sequence[RunFolder]:
        found = evaluate.make_plan(config)
        found.comparison.close()
        return [found.record]

    return Repeatable(evaluate.EvaluateConfig, planned, evaluate.run, 4)


def _probe() -> Repeatable:
    from inkbatch.steps.probe import job as probe

    return Repeatable(probe.ProbeConfig, _of_one_run(probe.make_plan), probe.run, 3)


def _preflight() -> Repeatable:
    from inkbatch.steps.preflight import job as preflight

    return Repeatable(preflight.PreflightConfig, _of_one_run(preflight.make_plan), preflight.run, 3)


def _sweep() -> Repeatable:
    from inkbatch.steps.sweep.job import run
    from inkbatch.steps.sweep.plan import make_plan
    from inkbatch.steps.sweep.settings import SweepConfig

    return Repeatable(SweepConfig, _of_one_run(make_plan), run, 3)


def _round() -> Repeatable:
    from inkbatch.steps.round import job as rounds

    return Repeatable(rounds.RoundConfig, lambda config: [rounds.make_plan(config).record], rounds.run, 3)


_JOBS: dict[str, Callable[[], Repeatable]] = {
    "prepare": _prepare,
    "labels": _labels,
    "build-dataset": _build_dataset,
    "train": _train,
    "soup": _soup,
    "infer": _infer,
    "infer-pictures": _infer_pictures,
    "ensemble": _ensemble,
    "clean": _clean,
    "instances": _instances,
    "letters": _letters,
    "evaluate": _evaluate,
    "probe": _probe,
    "preflight": _preflight,
    "sweep": _sweep,
    "round": _round,
}
