"""The network that refines objects, as the plan of `inkbatch instances` knows it: opened, without its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from inkbatch.errors import DataError
from inkbatch.io.store.location import Location
from inkbatch.steps.instances.settings import InstancesConfig
from inkbatch.steps.instances.sources import Source

if TYPE_CHECKING:
    from inkbatch.models.prompting import PromptableBundle


def open_network(config: InstancesConfig) -> PromptableBundle | None:
    """Open the network that refines, without its weights; None where none does.

    Raises:
        DataError: It is no promptable network.
    """
    if config.refine == "none":
        return None
    from inkbatch.models.prompting import PromptableBundle

    return PromptableBundle.open(Location.parse(config.refine))


def identity(network: PromptableBundle) -> dict[str, Any]:
    """Describe a network for the manifest."""
    document = network.document
    keys = ("name", "kind", "weights_sha256", "licence")
    return {**{key: getattr(document, key) for key in keys}, "source": dict(document.source)}


def require_pictures(sources: Sequence[Source]) -> None:
    """Refuse maps that have no picture: a network outlines what it sees.

    Raises:
        DataError: There is one.
    """
    bare = [one.name for one in sources if not one.has_picture]
    if bare:
        raise DataError(
            f"refine: expected a picture, or the layers of a segment, for every map, got none for {bare[0]}; give "
            "--pictures, run inkbatch prepare, or leave --refine out"
        )
