"""Manifests of Indexed Jobs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from inkbatch.errors import ConfigError
from inkbatch.launch.kubernetes import KubernetesLauncher, KubernetesSettings
from inkbatch.testing.launchers import LauncherContract, example_chain, one_job

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


def test_a_chain_is_submitted_job_by_job_by_a_script(tmp_path):
    """Run with a kubectl that notes its words: each job waits for all those before it, and a failed one ends it."""
    launcher = KubernetesLauncher(KubernetesSettings(image=IMAGE, namespace="ink"))
    (said,) = launcher.submit(example_chain(), tmp_path).said
    kubectl = tmp_path / "kubectl"
    kubectl.write_text('#!/bin/sh\necho "$@" >> calls\ncase "$*" in *=complete*$BROKEN) exit 1 ;; esac\n')
    kubectl.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "BROKEN": "nothing"}
    subprocess.run(["sh", "-c", said], env=environment, check=True)
    words = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    order = [row[-1] if row[0] == "apply" else f"wait {row[-1].split('-')[1]}" for row in words]
    assert order[:5] == [
        "prepare.k8s.yaml",
        "wait prepare",
        "infer.letters.k8s.yaml",
        "infer.i3d.k8s.yaml",
        "wait infer",
    ]
    assert order[5:] == ["wait infer", "ensemble.k8s.yaml", "wait ensemble", "report.k8s.yaml"]
    assert all(row[3:5] == ["-n", "ink"] for row in words if row[0] == "wait")
    (tmp_path / "calls").unlink()
    failed = subprocess.run(["sh", "-c", said], env={**environment, "BROKEN": "-1"}, check=False)
    assert failed.returncode == 1
    assert "infer" not in (tmp_path / "calls").read_text()


def test_submission_writes_the_manifest_and_says_the_command(tmp_path):
    launcher = KubernetesLauncher(KubernetesSettings(image=IMAGE))
    submitted = launcher.submit(one_job(), tmp_path)
    assert submitted.said == [f"kubectl apply -f {tmp_path / 'infer.k8s.yaml'}"]
    with pytest.raises(ConfigError, match="kubernetes"):
        launcher.status(submitted)


def test_a_secret_is_named_and_its_values_stay_in_the_cluster():
    settings = KubernetesSettings(image=IMAGE, secret="store-keys")
    rendered = KubernetesLauncher(settings).render(one_job())["infer.k8s.yaml"]
    (container,) = yaml.safe_load(rendered)["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "store-keys"}}]
    assert not {"AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"} & {row["name"] for row in container["env"]}
