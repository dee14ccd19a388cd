"""`inkbatch round`: labels, dataset, a network per fold, maps out of fold, scores on the yardstick, proposals, a page.

Each stage is a job of its own, whole or to be gone on with: a killed round goes on with the first that is not whole.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inkbatch.data.labels.painting_version import labels_folder
from inkbatch.data.labels.round_labels import store_labels
from inkbatch.data.maps.yardstick import stopped_because, verdict_of
from inkbatch.errors import InkbatchError
from inkbatch.io.store.ledger import below, make_durable, recording
from inkbatch.io.store.local_files import remove_leftovers
from inkbatch.io.store.location import Location
from inkbatch.reports.leave import leave_report
from inkbatch.run.identity import ShardSpec
from inkbatch.run.job import JobReport, RunContext, begin
from inkbatch.run.objects import metadata_of, reopened, sealed_files
from inkbatch.run.pipeline import StageSeconds
from inkbatch.run.record import RunFolder, report_place
from inkbatch.run.run_file import Usage, write_run_file
from inkbatch.steps.dataset.job import BuildDatasetConfig
from inkbatch.steps.dataset.job import run as build_dataset
from inkbatch.steps.round.maps import bundles_of, infer_folds, require_unseen_start, store_maps
from inkbatch.steps.round.names import BLOCKS, DOCUMENT, round_name
from inkbatch.steps.round.page import page as report_page
from inkbatch.steps.round.plan import RoundPlan, make_plan, verdicts_before
from inkbatch.steps.round.propose import propose, store_versions
from inkbatch.steps.round.scores import RoundScores, as_document, score_round
from inkbatch.steps.round.settings import RoundConfig
from inkbatch.steps.train.job import run as train
from inkbatch.text import count_text


def run(config: RoundConfig, context: RunContext) -> JobReport:
    """Do one round, or go on with it.

    Raises:
        InkbatchError: See `make_plan` and the jobs of its stages; a pixel that would leak; a stop signal.
    """
    started = time.perf_counter()
    plan = make_plan(config)
    record, whole = plan.record, replace(context, shard=ShardSpec())
    if not record.is_begun():
        require_unseen_start(plan)  # what would leak, or cannot be dealt, is refused before anything is written
    begin(record, whole)
    for line in plan.label_notes:
        context.reporter.note(f"round: {line}")
    done = record.is_complete() and not reopened(record, "round", context.reporter.note)
    if done:
        context.reporter.note(f"round: already complete at {plan.folder}, nothing to do")
        for line in _waiting(plan) if config.round is None else ():
            context.reporter.note(line)
        _remove_leftovers(plan)
    else:
        _do(plan, record, whole)
    if not done or not report_place(plan.folder, "round").exists():
        leave_report(plan.folder, context.reporter.note, report_page, plan.out)
    seconds = time.perf_counter() - started
    return JobReport("round", plan.folder, 1, int(not done), int(done), 0, seconds, {}, noun="round")


def _do(plan: RoundPlan, record: RunFolder, context: RunContext) -> None:
    usage, ended, seconds = Usage(), "failed", StageSeconds()
    note = context.reporter.note
    try:
        usage.loop_begins()
        with recording() as labels_ledger, seconds.timed("load"):
            _keep_labels(plan)
        note(f"round {plan.number} of {plan.config.name}: dataset, then {plan.config.folds.count} trainings")
        build_dataset(dataset_config(plan), context)
        with seconds.timed("compute"):
            train(plan.train, context)
            folds = infer_folds(plan, context)
        maps = store_maps(plan, folds, context)
        record.require_inputs()
        scores = score_round(plan, folds, maps)
        with recording() as ledger, seconds.timed("store"):
            proposals, first = propose(plan, folds)
            document = _document(plan, scores, len(proposals))
            (plan.folder / DOCUMENT).write_json(document)
        if plan.config.proposals.as_version:
            store_versions(plan, first, note)
        usage.loop_ends()
        ledger.update(labels_ledger)
        make_durable(ledger)
        arrays = metadata_of(below(ledger, plan.folder.uri))
        record.complete({"verdict": document["verdict"], **sealed_files(plan.folder, ledger, arrays)})
        for line in summary(plan.folder):
            note(line)
        ended = "done"
    except InkbatchError as error:
        ended = str(error)
        raise
    finally:
        facts = {"units_stored": int(ended == "done"), "device": plan.train.device, **usage.stage_facts(seconds)}
        write_run_file(record, ShardSpec(), context.attempt, usage, ended, facts)


def _remove_leftovers(plan: RoundPlan) -> None:
    """Remove temporary files that killed stages of a complete round left: on a local disk; they do not begin again."""
    out, name = plan.out, plan.name
    if not out.is_local:
        return
    folds = [f"{name}-fold-{fold}" for fold in range(plan.config.folds.count)]
    maps = [out / "predictions" / segment / one for segment in plan.surfaces for one in (name, *folds)]
    versions = [labels_folder(out, segment) for segment in plan.surfaces]
    for folder in (out / "datasets" / name, out / "runs" / name, *maps, *versions):
        remove_leftovers(folder.path)


def _keep_labels(plan: RoundPlan) -> None:
    """Copy the labels of all segments into the round, and fix the homes of blocks."""
    for segment, labels in plan.labels.items():
        surface = plan.surfaces[segment]
        facts = {"segment": segment, "digest": plan.manifest.digest}
        um = surface.provenance.voxel_size_um
        store_labels(plan.labels_folder(segment), labels, surface.shape_yx, um, facts)
    homes = {segment: [list(row) for row in rows] for segment, rows in plan.homes.items()}
    (plan.folder / BLOCKS).write_json({"block_px": plan.config.block_px, "homes": homes})


def dataset_config(plan: RoundPlan) -> BuildDatasetConfig:
    """Make the settings of the round's dataset: a pack, which holds its samples whatever becomes of the labels."""
    config = plan.config
    segments = [
        {"id": one.id, "scroll": one.scroll, "layers": one.layers, "labels_in": plan.labels_folder(one.id).uri}
        for one in config.segments
    ]
    listed = {segment: rows for segment, rows in plan.homes.items() if segment in plan.surfaces}
    values: dict[str, Any] = {
        "name": plan.name,
        "root": config.root,
        "output_root": config.output_root,
        "segments": segments,
        "form": "pack",
        "sample_px": config.sample_px,
        "context_px": config.context_px,
        "seed": config.seed,
        "sampling": config.sampling.model_dump(mode="json"),
        "splits": {"kind": "listed-blocks", "block_px": config.block_px, "blocks": listed},
        "newer_than": None if plan.number == 1 else round_name(config.name, plan.number - 1),
    }
    return BuildDatasetConfig.checked(values, f"round {config.name}, dataset")


def _document(plan: RoundPlan, scores: RoundScores, proposals: int) -> dict[str, Any]:
    """Make the content of ``round.json``."""
    rules = plan.config.yardstick
    verdict = verdict_of(scores.against.get(rules.score))
    earlier = verdicts_before(Location.parse(plan.config.root), plan.config.name, plan.number)
    bundles = {f"fold-{fold}": _weights(bundle) for fold, bundle in enumerate(bundles_of(plan))}
    return {
        "series": plan.config.name,
        "round": plan.number,
        "dataset": plan.name,
        "training": plan.name,
        "maps": dict.fromkeys(plan.surfaces, plan.name),
        "labels": {segment: dict(labels.identity) for segment, labels in plan.labels.items()},
        "weights_sha256": bundles,
        **({"started_from": plan.starts} if plan.starts else {}),
        "seeds": {"round": plan.config.seed, "training": plan.train.seed},
        "threshold": scores.threshold,
        "labelled_cm2": round(sum(one.labelled for one in scores.labelled.values()), 6),
        "labelled": {
            segment: {"cm2": round(one.labelled, 6), "ink_cm2": round(one.ink, 6)}
            for segment, one in scores.labelled.items()
        },
        "out_of_fold": as_document(scores.out_of_fold),
        "yardstick": {**as_document(scores.yardstick), "blocks": scores.blocks},
        "score": rules.score,
        "against": {name: as_document(found.document) for name, found in scores.against.items()},
        "verdict": verdict,
        "stop": stopped_because([*earlier, verdict], rules.patience),
        "proposals": proposals,
    }


def _weights(bundle: Location) -> str:
    return str((bundle / "bundle.json").read_mapping()["weights_sha256"])


def summary(folder: Location) -> list[str]:
    """Sum up a finished round in lines of text."""
    found = (folder / DOCUMENT).read_mapping()
    yardstick = found["yardstick"]
    lines = [
        f"round {found['round']} of {found['series']}, yardstick: F0.5 {_shown(yardstick['f05'])}, average precision "
        f"{_shown(yardstick['average_precision'])}, AUC {_shown(yardstick['auc'])}",
    ]
    if found["against"]:
        one: Mapping[str, Any] = found["against"][found["score"]]
        interval = f"{one['low']:+.4f} to {one['high']:+.4f}" if one["low"] is not None else "unknown"
        lines.append(f"against the round before, by {found['score']}: {found['verdict']} (interval {interval})")
    if found["stop"]:
        lines.append(f"stop here: {found['stop']}")
    lines.append(f"{count_text(found['proposals'], 'region')} to label next: {folder / 'proposals.json'}")
    return lines


def _waiting(plan: RoundPlan) -> list[str]:
    """Sum up a complete round since which nothing changed, and say how the next one begins."""
    return [
        *summary(plan.folder),
        f"no label and no setting changed since round {plan.number}: correct its first labels (inkbatch view SEGMENT "
        f"--edit) and call it again, or give --round {plan.number + 1}, which takes them as they are",
    ]


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _starts(plan: RoundPlan) -> str:
    if plan.starts:
        return f"each fold goes on from its network of round {plan.number - 1}"
    return plan.train.model.start_from or "from fresh weights"


def describe(config: RoundConfig) -> str:
    """Describe the plan; nothing is computed.

    Raises:
        InkbatchError: See `run`: networks that the round must not start from are refused here, too.
    """
    plan = make_plan(config)
    if not plan.record.is_begun():
        require_unseen_start(plan)
    waits = config.round is None and plan.record.is_complete()
    versions = ", ".join(f"{one.id} {one.version}" for one in plan.config.segments)
    folds = plan.config.folds
    return "\n".join(
        [
            f"round {plan.number} of {plan.config.name}: {plan.folder}",
            f"  labels        {versions}",
            f"  folds         {folds.count} by {folds.by}; networks may speak {plan.reach_px} px away from training",
            f"  yardstick     {'as the first round fixed it' if plan.before else 'is fixed in this round'}",
            f"  trains        {plan.train.model.architecture}, {count_text(plan.train.epochs, 'epoch')} per fold",
            f"  starts        {_starts(plan)}",
            f"  reads         {count_text(len(plan.surfaces) * folds.count, 'map')}",
            f"  proposes      {count_text(plan.config.proposals.most, 'region')} at most",
            f"  done          {plan.record.state}",
            *(f"  look at       {line}" for line in plan.label_notes),
            *([f"  next          --round {plan.number + 1}, or label first: nothing changed since"] if waits else []),
        ]
    )


__all__ = ["RoundConfig", "RoundPlan", "describe", "make_plan", "run", "summary"]
