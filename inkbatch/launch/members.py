"""The order of jobs in a chain, and the predictions that several bundles make."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from inkbatch.config import named_place
from inkbatch.errors import ConfigError

# Jobs that can follow each other; each waits for all that stand before it in the same chain.
ORDERS = (
    ("prepare", "labels", "preflight", "probe", "sweep", "infer", "ensemble", "evaluate", "report"),
    ("build-dataset", "train"),
)
BUNDLE_FOLDER = "bundle"  # ROOT/runs/{run}/bundle: the run's name says more


@dataclass(frozen=True)
class Member:
    """One bundle of a request.

    Attributes:
        bundle: Its folder or URI; None where the job file states it.
        name: Name of the prediction that infer makes with it; None leaves it to infer.
    """

    bundle: str | None = None
    name: str | None = None


def require_order(jobs: Sequence[str]) -> None:
    """Refuse a chain whose jobs cannot follow each other in this order.

    Raises:
        ConfigError: Says in which order they can.
    """
    if len(jobs) < 2:
        return
    text = ",".join(jobs)
    twice = next((job for job in jobs if list(jobs).count(job) > 1), None)
    if twice is not None:
        raise ConfigError(f"chain {text}: {twice} stands there twice; name each job once")
    order = next((order for order in ORDERS if set(jobs) <= set(order)), None)
    if order is None:
        kinds = " or of ".join(", ".join(order) for order in ORDERS)
        raise ConfigError(f"chain {text}: these jobs do not belong together; a chain is made of {kinds}")
    sorted_jobs = sorted(jobs, key=order.index)
    if list(jobs) != sorted_jobs:
        raise ConfigError(f"chain {text}: in this order no job finds what it needs; write {','.join(sorted_jobs)}")


def members_of(bundles: Sequence[str], name: str | None, jobs: Sequence[str]) -> tuple[Member, ...]:
    """List the bundles of a request, each with the name of its prediction if a later job or the user needs it.

    Args:
        bundles: ``PLACE`` or ``NAME=PLACE``.
        name: Name of the chain's result, from the user.
        jobs: Jobs of the chain.

    Raises:
        ConfigError: Two of them would make one prediction, or one name is given for several.
    """
    if "infer" not in jobs:
        return tuple(Member(bundle) for bundle in bundles) or (Member(),)
    followed = bool({"ensemble", "evaluate"} & set(jobs))
    own_name = name if "ensemble" not in jobs else None  # with an ensemble the name is the ensemble's
    if own_name and len(bundles) > 1:
        raise ConfigError(
            f"--name {own_name}: {len(bundles)} bundles make {len(bundles)} predictions; name each one as "
            "--bundle NAME=PLACE, or end the chain with ensemble, whose result is then named so"
        )
    members = []
    for bundle in bundles:
        stated, place = named_place(bundle)
        label = stated or (_label(place) if followed or len(bundles) > 1 else None)
        members.append(Member(place, own_name or label))
    if not members:
        return (Member(None, own_name or ("map" if followed else None)),)
    names = [member.name for member in members]
    twin = next((label for label in names if label is not None and names.count(label) > 1), None)
    if twin is not None:
        raise ConfigError(f"two bundles would make one prediction, {twin}; name them: --bundle NAME=PLACE")
    return tuple(members)


def _label(place: str) -> str:
    """Name a bundle's prediction by its address: ``letters`` for ``…/runs/letters/bundle``."""
    parts = [part for part in place.rstrip("/").split("/") if part and part != BUNDLE_FOLDER]
    label = re.sub(r"[^A-Za-z0-9._-]", "-", parts[-1] if parts else "").lstrip("._-")[:128]
    return label or "map"
