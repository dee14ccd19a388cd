"""Lightning Fabric, imported without torchmetrics.

Fabric asks torchmetrics for its version alone, when it is imported; where torchmetrics is installed, that takes longer
than all of inkbatch (it imports torchvision and transformers).
"""

from __future__ import annotations

import sys

_MODULE = "torchmetrics"
_is_hidden = _MODULE not in sys.modules
if _is_hidden:
    sys.modules[_MODULE] = None  # type: ignore[assignment]  # importing it fails, as if it were not there
try:
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.utilities.exceptions import MisconfigurationException
finally:
    if _is_hidden:
        del sys.modules[_MODULE]

__all__ = ["Fabric", "LightningEnvironment", "MisconfigurationException", "SLURMEnvironment"]
