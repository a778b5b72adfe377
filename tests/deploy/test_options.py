# SPDX-License-Identifier: MIT
"""The deploy scripts' options and settings, and what is found missing before anything changes."""

import re

import pytest
from machine import Machine, settings
from names import BUILT, NAME

WRONG_OPTIONS = [
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
    ("--env SAM2_DEVICE=cuda:1", "this function gets no GPU; deploy it with ./deploy_gpu.sh"),
    ("--env CVAT_FUNCTIONS_REDIS_HOST=r", "set CVAT_FUNCTIONS_REDIS_HOST in the environment"),
    ("--env SAM2_THREADS=2 --env SAM2_THREADS=4", "--env SAM2_THREADS is given twice"),
    ("--redis-secret s", "--redis-secret is for Kubernetes, with --stage"),
    ("--stage x --redis-secret s", "needs the store's address in CVAT_FUNCTIONS_REDIS_HOST"),
    ("--interactor --stage x --redis-secret s", "the interactor keeps nothing in a store"),
    ("--interactor --env SAM2_FUNCTION=tracker", "choose the interactor with --interactor"),
    ("--cpu", "unknown option '--cpu'"),
    ("serverless/dir", "unknown option 'serverless/dir'"),
]
STORE = {"CVAT_FUNCTIONS_REDIS_HOST": "r", "CVAT_FUNCTIONS_REDIS_PASSWORD": "secret"}
WRONG_ENVIRONMENT = [
    ("", {"CVAT_FUNCTIONS_REDIS_HOST": "it's"}, "a value with a single quote"),
    ("--stage x", STORE, "writes no password into a file: use --redis-secret on Kubernetes"),
    ("--stage x", {"SAM2_WEIGHTS_URL": "/no"}, "leads to '/no', but there is no such file"),
]


@pytest.mark.parametrize(
    ("options", "environment", "sentence"),
    [*((options, {}, sentence) for options, sentence in WRONG_OPTIONS), *WRONG_ENVIRONMENT],
)
def test_wrong_options(
    machine: Machine, options: str, environment: dict[str, str], sentence: str
) -> None:
    error = machine.refuses(options, **environment)
    assert sentence in error
    assert error.startswith("deploy_cpu.sh: ")
    assert error.count("\n") == 1
    assert not any((machine.repository / "x").glob("*.yaml"))


def test_help(machine: Machine) -> None:
    done = machine.run("./deploy_gpu.sh --help")
    assert done.stdout.startswith("Usage: ./deploy_gpu.sh [options]")


def test_a_cpu_without_a_choice_of_model_hears_of_the_faster_one(machine: Machine) -> None:
    told = "--model efficienttam_ti_512 takes a twelfth of its operations"
    assert machine.run("./deploy_cpu.sh").stdout.count(told) == 1
    assert told not in machine.run("./deploy_cpu.sh --model sam2.1_hiera_tiny").stdout
    assert told not in machine.run("./deploy_gpu.sh").stdout


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
        ("", {"CVAT_FUNCTIONS_REDIS_PORT": "redis"}, "CVAT_FUNCTIONS_REDIS_PORT is 'redis'"),
    ],
)
def test_what_the_function_would_refuse_is_refused_at_once(
    machine: Machine, options: str, environment: dict[str, str], sentence: str, python: bool
) -> None:
    machine.python = python
    machine.state["registry"] = [BUILT]
    options += "" if python else f" --image {BUILT}"
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


# --- the preflight


def only_server(setting: str) -> dict[str, object]:
    return {"containers": {"cvat_server": {"running": True, "env": [setting]}}}


# What the machine has, or the program that it lacks, and what is said of it.
FINDINGS = {
    "docker": ({"docker": False}, "docker does not answer; start it"),
    "no docker": ("docker", "docker is not installed; see https://"),
    "no nuctl": ("nuctl", r"nuctl is not installed; get version 1\.16\.3 from https://"),
    "old nuctl": ({"nuctl": "1.13.0"}, r"nuctl is version 1\.13\.0, .* is 1\.16\.3; get nuctl"),
    "foreign nuctl": ({"nuctl": ""}, r"nuctl is version unknown, .* is 1\.16\.3; get nuctl"),
    "no network": ({"networks": ["bridge"]}, "no Docker network cvat_cvat; start CVAT"),
    "no dashboard": (
        {"images_running": ["cvat/server:v2.73.0"]},
        r"without Nuclio's dashboard; .*-f components/serverless/docker-compose\.server.*l up",
    ),
    "no serverless": (only_server("A=1"), "cvat_server runs without the serverless compose file"),
    "no redis": (
        only_server("CVAT_SERVERLESS=1"),
        "cvat_redis_ondisk does not run; start CVAT, or name another Redis",
    ),
}
GPU_FINDINGS = {
    "no runtime": ({"runtimes": ["runc"]}, "no NVIDIA runtime; install the NVIDIA Container"),
    "no driver": ("nvidia-smi", "nvidia-smi is not here: install the NVIDIA driver"),
    "old driver": ({"driver": "535.54.03"}, r"driver is 535\.54\.03, torch needs 580"),
    "no gpu": ({"driver": "No devices were found"}, "nvidia-smi shows no GPU"),
}


def break_machine(machine: Machine, fault: dict[str, object] | str) -> None:
    if isinstance(fault, str):
        machine.programs = tuple(p for p in machine.programs if p != fault)
    else:
        machine.state |= fault


@pytest.mark.parametrize(
    ("device", "case"),
    [("cpu", case) for case in FINDINGS] + [("gpu", case) for case in GPU_FINDINGS],
)
def test_preflight_says_what_is_missing(machine: Machine, device: str, case: str) -> None:
    fault, sentence = {**FINDINGS, **GPU_FINDINGS}[case]
    break_machine(machine, fault)
    error = machine.refuses(device=device)
    assert re.search(f"^error: .*{sentence}", error, re.MULTILINE), error
    assert machine.calls("nuctl", "create") == []
    assert not machine.copy.exists()
    done = machine.run(f"./deploy_{device}.sh --dry-run")
    assert re.search(f"warning: .*{sentence}", done.stderr)
    assert f"\nnuctl deploy {NAME} " in done.stdout


def test_preflight_reports_all_findings_at_once(machine: Machine) -> None:
    break_machine(machine, {"networks": []})
    break_machine(machine, "nuctl")
    assert machine.refuses().count("error: ") == 2


def test_the_command_that_starts_cvat_keeps_it_at_its_host(machine: Machine) -> None:
    """Compose makes all anew: without CVAT_HOST the running CVAT would be at localhost alone."""
    for host, named in (("cvat.example.org", "CVAT_HOST=cvat.example.org "), ("localhost", "")):
        rule = f"Host(`{host}`) && PathPrefix(`/api/`, `/static/`)"
        machine.state["containers"]["cvat_server"] |= {"env": [], "rule": rule}
        error = machine.refuses()
        assert "with the CVAT_HOST, CVAT_VERSION and -f files that CVAT was started with" in error
        assert f"used): {named}docker compose -f docker-compose.yml -f components" in error


def test_preflight_measures_the_disk(machine: Machine) -> None:
    machine.set_in_script("CPU_DISK_GIB", 9999999)
    sentence = r"error: / has \d+ GiB left, the build needs 9999999; 'docker sy"
    assert re.search(sentence, machine.refuses())


def test_force_goes_on(machine: Machine) -> None:
    machine.state["nuctl"] = "1.15.9"
    done = machine.run("./deploy_cpu.sh --force")
    assert "warning: nuctl is version 1.15.9" in done.stderr
    assert len(machine.calls("nuctl", "deploy")) == 1


def test_an_old_driver_is_fine_with_an_older_cuda(machine: Machine) -> None:
    machine.state["driver"] = "535.54.03"
    index = "https://download.pytorch.org/whl/cu126"
    machine.run(f"./deploy_gpu.sh --torch-index {index}")
    machine.stage(f"--torch-index {index}", "gpu")
    step = f"RUN pip install -r requirements-torch.txt --index-url {index}"
    assert step in machine.directives("function-gpu.yaml")


def test_dry_run_prints_and_touches_nothing(machine: Machine) -> None:
    before = sorted(machine.repository.rglob("*"))
    done = machine.run("./deploy_gpu.sh --dry-run --model facebook/sam2.1-hiera-large")
    assert sorted(machine.repository.rglob("*")) == before
    assert "Next:" not in done.stdout
    for command in ("nuctl create", "nuctl build", "nuctl deploy", "docker stop", "docker exec"):
        assert machine.calls(*command.split()) == []
        assert re.search(f"^{command} ", done.stdout, re.MULTILINE)
    assert "SAM2_MODEL=sam2.1_hiera_large" in done.stdout
    # What it prints can be pasted: the shell reads the same words that a real run would give.
    printed = next(line for line in done.stdout.splitlines() if line.startswith("nuctl deploy"))
    machine.run("./deploy_gpu.sh --model facebook/sam2.1-hiera-large")
    real = machine.calls("nuctl", "deploy")[0]
    machine.run(printed)
    assert machine.calls("nuctl", "deploy") == [real]


# --- the store


def test_another_redis_and_its_password(machine: Machine) -> None:
    password = '"se$cret", with=all'
    machine.state["containers"].pop("cvat_redis_ondisk")
    done = machine.run(
        "./deploy_cpu.sh --env SAM2_THREADS=4 --env 'MINE_X=a: \\b #c'",
        CVAT_FUNCTIONS_REDIS_HOST="redis.example.org",
        CVAT_FUNCTIONS_REDIS_PASSWORD=password,
    )
    assert settings(machine.spec()) == {
        "SAM2_THREADS": "4",
        "MINE_X": "a: \\b #c",
        "CVAT_FUNCTIONS_REDIS_HOST": "redis.example.org",
        "CVAT_FUNCTIONS_REDIS_PORT": "6379",
    }
    call = machine.calls("nuctl", "deploy")[0]
    assert call[-2:] == ["--env", f"CVAT_FUNCTIONS_REDIS_PASSWORD={password}"]
    assert "se$cret" not in done.stdout + done.stderr
    assert not any("se$cret" in file.read_text() for file in machine.copy.glob("*.yaml"))
    machine.run("./deploy_cpu.sh", CVAT_FUNCTIONS_REDIS_HOST="r", CVAT_FUNCTIONS_REDIS_PORT="7000")
    assert settings(machine.spec())["CVAT_FUNCTIONS_REDIS_PORT"] == "7000"


def test_no_redis_at_all(machine: Machine) -> None:
    machine.run("./deploy_cpu.sh", CVAT_FUNCTIONS_REDIS_HOST="")
    assert settings(machine.spec()) == {}
