# SPDX-License-Identifier: MIT
"""The function's yamls, the Dockerfile, the release's images and the pins: each says the same."""

import re
import sys

import pytest
import yaml
from dockerfile import build_arguments, read_dockerfile
from imported_names import imports
from machine import FILES, Machine, all_directives, in_shell, original, steps, trigger_of, yaml_of
from names import IMAGE, INTERACTOR, NAME, ROOT, TINY
from nuclio_schema import Invalid, check_config

from sam2_tracker.models import MODELS

BODY_LIMIT = 192 << 20


# --- the yamls


@pytest.mark.parametrize("name", ["function.yaml", "function-gpu.yaml"])
def test_nuclio_accepts_every_field(name: str) -> None:
    config = original(name)
    check_config(config)
    spec = config["spec"]
    assert config["metadata"] == {
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
    assert trigger_of(spec) == {
        "numWorkers": 1,
        "kind": "http",
        "workerAvailabilityTimeoutMilliseconds": 35_000,
        "workerTerminationTimeout": "60s",
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
    tracker, interactor = (original(f"function{kind}{device}.yaml") for kind in ("", "-interactor"))
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
    assert interactor["metadata"].pop("name") == INTERACTOR
    assert interactor["spec"].pop("env") == [{"name": "SAM2_FUNCTION", "value": "interactor"}]
    both = (tracker, interactor)
    ports = [trigger_of(each["spec"])["attributes"].pop("port") for each in both]
    assert ports == [32100, 32101]
    for each in both:
        each["metadata"] = {k: each["metadata"][k] for k in ("namespace", "labels")}
        del each["spec"]["description"]
    assert interactor == tracker


def test_cpu_and_gpu_yaml_differ_only_in_the_device() -> None:
    cpu, gpu = (original(yaml_of(device))["spec"] for device in ("cpu", "gpu"))
    different = set(steps(all_directives(cpu["build"]))) ^ set(steps(all_directives(gpu["build"])))
    assert different == {
        "ENV NVIDIA_VISIBLE_DEVICES=all",
        "ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        "ENV SAM2_DEVICE=cuda",
        "RUN pip install -r requirements-torch.txt",
        "RUN pip install -r requirements-torch.txt --index-url https://download.pytorch.org/whl/cpu",
    }
    assert cpu["build"].pop("image") == IMAGE
    assert gpu["build"].pop("image") == f"{IMAGE}:latest-gpu"
    gpu.pop("resources")
    del cpu["build"]["directives"], gpu["build"]["directives"]
    assert cpu == gpu


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
def test_the_check_of_the_configuration_refuses_wrong_values(
    place: str, value: object, sentence: str
) -> None:
    config = original()
    *path, last = place.split(".")
    target = config
    for key in path:
        target = target[key]
    target[last] = value
    with pytest.raises(Invalid, match=sentence):
        check_config(config)


# --- the Dockerfile and the release


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
    given = build_arguments(machine.stage(options, device, SAM2_WEIGHTS_URL=url))
    build = machine.spec(yaml_of(device))["build"]
    wanted, found = all_directives(build), read_dockerfile(ROOT / "Dockerfile", **given)

    def of(kind: str, directives: list[dict[str, str]]) -> list[str]:
        own = [d for d in directives if "--find-links /opt/nuclio/whl" not in d["value"]]
        return steps([d for d in own if d["kind"] == kind])

    def variables(kind: str, directives: list[dict[str, str]]) -> dict[str, str]:
        pairs = [p for step in of(kind, directives) for p in step.split()[1:]]
        values = {n: v for n, v in (p.split("=", 1) for p in pairs) if v}
        if "SAM2_CONFIG" in values:
            values.pop("SAM2_MODEL", None)  # which counts no more
        return values

    for kind in ("RUN", "WORKDIR"):
        assert of(kind, found) == of(kind, wanted)
    assert variables("ENV", found) == variables("ENV", wanted)
    arguments = variables("ARG", wanted)
    assert arguments.get("SAM2_WEIGHTS_URL", "") == url
    assert arguments.items() <= given.items()
    text = (ROOT / "Dockerfile").read_text()
    declared = set(re.findall(r"^ARG (\w+)", text, re.MULTILINE))
    assert given.keys() <= declared, "docker would only warn of others"
    # What Nuclio's own Dockerfile has: the two suppliers, the health check, the command.
    assert f"FROM {build['baseImage']} AS pins" in text
    sources = [value.split()[1] for value in of("COPY", found) if "--from" in value]
    assert sources == ["--from=processor"] * 3 + ["--from=uhttpc"]
    assert of("CMD", found) == ['CMD [ "processor" ]']
    assert "http://127.0.0.1:8082/ready" in of("HEALTHCHECK", found)[0]


def test_the_release_names_images_as_the_scripts_do() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    job = workflow["jobs"]["image"]
    matrix = job["strategy"]["matrix"]
    assert matrix["device"] == ["cpu", "gpu"]
    assert matrix["model"] == [m.name for m in MODELS if m.url and m.sha256]
    used = {step.get("uses", "").partition("@")[0]: step.get("with", {}) for step in job["steps"]}
    assert used["docker/build-push-action"]["sbom"] is True
    assert used["docker/build-push-action"]["provenance"] == "mode=max"
    for step in job["steps"]:
        assert re.search("@[0-9a-f]{40}$", step.get("uses", "@" + "0" * 40)), "pinned by digest"
    tag = used["docker/metadata-action"]["tags"]
    assert tag.startswith("type=match,pattern=v(.*),group=1,suffix=-${{ matrix.model }}")
    for device, suffix in (("cpu", ""), ("gpu", "-gpu")):
        named = in_shell(f"MODEL=sam2.1_hiera_tiny CHECKPOINT= image_tag {yaml_of(device)}")
        assert named == f"{IMAGE}:{TINY}{suffix}"


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


DISTRIBUTIONS = {
    **{"cv2": "opencv-python-headless", "PIL": "Pillow"},
    **{"hydra": "hydra-core", "yaml": "PyYAML"},
}


def test_what_the_function_imports_is_shipped_or_required() -> None:
    """So no test, benchmark or training code is imported."""
    listed = [ROOT / name for name in FILES]
    files = [file for path in listed for file in (path.rglob("*.py") if path.is_dir() else [path])]
    shipped = [file for file in files if file.suffix == ".py"]
    ours = {path.stem for path in shipped} | {"sam2_tracker"}
    foreign = set().union(*(imports(path) for path in shipped))
    foreign -= ours | set(sys.stdlib_module_names)
    required = {pin for kind in ("", "-torch", "-sam2") for pin in pins(f"requirements{kind}.txt")}
    assert {DISTRIBUTIONS.get(name, name) for name in foreign} <= required
