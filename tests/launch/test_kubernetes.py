"""Manifests of Indexed Jobs."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from inkbatch.errors import ConfigError
from inkbatch.launch.kubernetes import KubernetesLauncher, KubernetesSettings
from inkbatch.testing.launchers import LauncherContract, one_job

IMAGE = "registry.example/inkbatch@sha256:" + "0" * 64


class TestKubernetes(LauncherContract):
    launcher_class = KubernetesLauncher
    golden = Path(__file__).parent / "golden"
    options: ClassVar = {"image": IMAGE, "service_account": "inkbatch"}


@pytest.fixture
def manifest() -> dict:
    return yaml.safe_load(KubernetesLauncher(KubernetesSettings(image=IMAGE)).render(one_job())["infer.k8s.yaml"])


def test_the_manifest_passes_kubernetes_own_schema(manifest):
    validator = pytest.importorskip("kubernetes_validate")
    validator.validate(manifest, "1.33", strict=True)
    manifest["spec"]["backofLimitPerIndex"] = 4
    with pytest.raises(validator.ValidationError):
        validator.validate(manifest, "1.33", strict=True)


def test_codes_that_no_retry_cures_fail_their_index_only(manifest):
    ignore, fail = manifest["spec"]["podFailurePolicy"]["rules"]
    assert ignore["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert fail["action"] == "FailIndex"
    assert {1, 64, 65} <= set(fail["onExitCodes"]["values"])
    assert 75 not in fail["onExitCodes"]["values"]
    assert manifest["spec"]["backoffLimitPerIndex"] == 4  # five attempts


def test_pods_are_locked_down(manifest):
    pod = manifest["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["automountServiceAccountToken"]


def test_submission_writes_the_manifest_and_says_the_command(tmp_path):
    launcher = KubernetesLauncher(KubernetesSettings(image=IMAGE))
    submitted = launcher.submit(one_job(), tmp_path)
    assert submitted.said == [f"kubectl apply -f {tmp_path / 'infer.k8s.yaml'}"]
    with pytest.raises(ConfigError, match="kubernetes"):
        launcher.status(submitted)
