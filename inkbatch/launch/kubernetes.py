"""Kubernetes: a manifest of an Indexed Job per array; ``kubectl`` submits it, one job of a chain after the other."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import Field

from inkbatch.errors import EXIT_BUG, EXIT_CONFIG, EXIT_DATA
from inkbatch.launch.base import EngineSettings, Feature, Launcher, Submitted, register_launcher
from inkbatch.launch.plan import ArraySpec, Chain

GRACE_S = 110  # inside the two minutes that a spot machine has
NEVER_RETRIED = (EXIT_BUG, EXIT_CONFIG, EXIT_DATA, 137)
SUBMIT_SCRIPT = """\
#!/bin/sh
# Submits this chain: each job when the ones before it are complete. Run it in the folder of these files.
set -eu
wait_for() {
  until kubectl wait --for=condition=complete --timeout=60s "$@"; do
    if kubectl wait --for=condition=failed --timeout=1s "$@"; then exit 1; fi
  done
}
"""


class KubernetesSettings(EngineSettings):
    """Settings of the Kubernetes engine.

    Attributes:
        namespace: Where the job runs; None is kubectl's own.
        image: The image, best with its digest.
        service_account: Whose identity reaches the bucket.
        secret: Name of a Secret whose keys become variables (``AWS_ACCESS_KEY_ID`` …) where no identity does.
        gpu_resource: What the cluster calls a GPU.
        node_selector: Labels of the nodes to use.
    """

    namespace: str | None = None
    image: str = "inkbatch:latest"
    service_account: str | None = None
    secret: str | None = None
    gpu_resource: str = "nvidia.com/gpu"
    node_selector: dict[str, str] = Field(default_factory=dict)


@register_launcher
class KubernetesLauncher(Launcher):
    """Manifest of an Indexed Job (Kubernetes 1.33 or later, which has limits per index)."""

    name: ClassVar[str] = "kubernetes"
    settings_class: ClassVar[type[EngineSettings]] = KubernetesSettings
    supports: ClassVar[frozenset[Feature]] = frozenset({Feature.ARRAY, Feature.CHAIN})
    settings: KubernetesSettings

    def render(self, chain: Chain) -> dict[str, str]:
        """Render one manifest per array and, for a chain, ``submit.sh``: Kubernetes has no jobs that wait for jobs."""
        self.check(chain)
        files, rows = {}, [SUBMIT_SCRIPT]
        names: dict[str, str] = {}  # of the jobs that were not waited for
        for number, spec in enumerate(chain.jobs, start=1):
            document = self._manifest(spec, chain, number if len(chain.jobs) > 1 else None)
            file, name = f"{spec.job}.k8s.yaml", document["metadata"]["name"]
            files[file] = f"# kubectl apply -f {file}\n{yaml.safe_dump(document, sort_keys=False, width=120)}"
            namespace = ["-n", self.settings.namespace] if self.settings.namespace else []
            waits = [names.pop(job) for job in spec.after if job in names]
            rows += [shlex.join(["wait_for", *namespace, f"job/{before}"]) + "\n" for before in waits]
            rows.append(f"kubectl apply -f {file}\n")
            names[spec.job] = name
        return {**files, "submit.sh": "".join(rows)} if len(files) > 1 else files

    def submit(self, chain: Chain, folder: Path) -> Submitted:
        """Write the manifests, and say how they are submitted."""
        names = list(self.write(chain, folder))
        one = f"kubectl apply -f {folder / names[0]}"
        said = [f"(cd {shlex.quote(str(folder))} && sh submit.sh)" if len(names) > 1 else one]
        shards = {spec.job: spec.shards for spec in chain.jobs}
        return Submitted(self.name, chain.launch, {}, shards, str(folder.resolve()), said=said)

    def _manifest(self, spec: ArraySpec, chain: Chain, number: int | None) -> dict[str, Any]:
        name = f"{spec.name.lower().replace('_', '-')[:51].rstrip('-')}-{chain.launch[-4:]}"
        name += f"-{number}" if number is not None else ""
        metadata: dict[str, Any] = {"name": name, "labels": {"app.kubernetes.io/name": "inkbatch"}}
        metadata["annotations"] = {"inkbatch/launch": chain.launch}
        if self.settings.namespace:
            metadata["namespace"] = self.settings.namespace
        rules = [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {
                "action": "FailIndex",
                "onExitCodes": {"containerName": "inkbatch", "operator": "In", "values": list(NEVER_RETRIED)},
            },
        ]
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": metadata,
            "spec": {
                "completionMode": "Indexed",
                "completions": spec.shards,
                "parallelism": min(spec.shards, spec.parallel or spec.shards),
                "backoffLimitPerIndex": spec.attempts - 1,
                "maxFailedIndexes": spec.shards,
                "podFailurePolicy": {"rules": rules},
                "ttlSecondsAfterFinished": 7 * 86400,
                "template": {"metadata": {"labels": dict(metadata["labels"])}, "spec": self._pod(spec, chain)},
            },
        }

    def _pod(self, spec: ArraySpec, chain: Chain) -> dict[str, Any]:
        settings, resources = self.settings, spec.resources
        limits = {"memory": f"{resources.memory >> 20}Mi", "ephemeral-storage": f"{resources.scratch >> 20}Mi"}
        if resources.gpus:
            limits[settings.gpu_resource] = str(resources.gpus)
        variables = {**self.variables(spec, chain), "INKBATCH_ARRAY_COUNT": str(spec.shards), "HOME": "/scratch"}
        container: dict[str, Any] = {
            "name": "inkbatch",
            "image": settings.image,
            "args": list(spec.command),
            "env": [{"name": key, "value": value} for key, value in sorted(variables.items())],
            "resources": {"requests": {"cpu": str(resources.cpus), **limits}, "limits": dict(limits)},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [
                {"name": "shm", "mountPath": "/dev/shm"},
                {"name": "scratch", "mountPath": "/scratch"},
                {"name": "tmp", "mountPath": "/tmp"},
            ],
        }
        if settings.secret:
            container["envFrom"] = [{"secretRef": {"name": settings.secret}}]
        shared = f"{resources.shared_memory >> 20}Mi"
        pod: dict[str, Any] = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": GRACE_S,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "runAsGroup": 1000,
                "fsGroup": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [
                {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": shared}},
                {"name": "scratch", "emptyDir": {"sizeLimit": f"{resources.scratch >> 20}Mi"}},
                {"name": "tmp", "emptyDir": {}},
            ],
        }
        if settings.service_account:
            pod["serviceAccountName"] = settings.service_account
        if settings.node_selector:
            pod["nodeSelector"] = dict(settings.node_selector)
        if resources.gpus:
            pod["tolerations"] = [{"key": settings.gpu_resource, "operator": "Exists", "effect": "NoSchedule"}]
        return pod
