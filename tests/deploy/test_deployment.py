# SPDX-License-Identifier: MIT
"""A deployment into CVAT: its calls, its port, an upgrade, what a failure leaves, the way back."""

import re
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from machine import Machine, original, settings, trigger_of, yaml_of
from names import CONTAINER, IMAGE, INFO, INTERACTOR, NAME, ROOT, TINY, VERSION

from sam2_tracker.settings import Settings


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_deploys_into_cvat(machine: Machine, device: str) -> None:
    done = machine.run(f"./deploy_{device}.sh")
    file = machine.copy / yaml_of(device)
    image = f"{IMAGE}:{TINY}" + ("-gpu" if device == "gpu" else "")
    local = ("--platform", "local")
    build = ["nuctl", "build", NAME, *local, "--path", str(machine.copy), "--file", str(file)]
    assert machine.calls("nuctl", "build") == [build]
    create = ["nuctl", "create", "project", "cvat", *local]
    assert machine.calls("nuctl", "create") == [create]
    deploy = ["nuctl", "deploy", NAME, "--project-name", "cvat", *local]
    deploy += ["--file", str(file), "--run-image", image]
    assert machine.calls("nuctl", "deploy") == [deploy]
    spec = machine.spec(file.name)
    assert settings(spec) == {
        "CVAT_FUNCTIONS_REDIS_HOST": "cvat_redis_ondisk",
        "CVAT_FUNCTIONS_REDIS_PORT": "6666",
    }
    assert spec["platform"]["attributes"]["network"] == "cvat_cvat"
    asked = machine.calls("docker", "exec", CONTAINER, "python", "-c")
    assert "http://127.0.0.1:8080/" in asked[0][-1]
    assert f"It runs on port 32100: {INFO}" in done.stdout
    assert "Next: CVAT lists" in done.stdout
    assert "http://localhost:32100/ready" in done.stdout
    machine.state["projects"] = ["cvat"]
    machine.run(f"./deploy_{device}.sh")
    assert machine.calls("nuctl", "create") == [], "the project is there"


def test_the_interactor_is_deployed_beside_the_tracker_and_without_a_store(
    machine: Machine,
) -> None:
    machine.run("./deploy_cpu.sh")
    done = machine.run("./deploy_cpu.sh --interactor --env SAM2_THREADS=2")
    assert "Interactors" in done.stdout
    assert [call[2] for call in machine.calls("nuctl", "deploy")] == [INTERACTOR]
    assert machine.spec("function-interactor.yaml")["env"] == [
        {"name": "SAM2_FUNCTION", "value": "interactor"},
        {"name": "SAM2_THREADS", "value": "2"},
    ]
    assert all(CONTAINER not in call for call in machine.calls("docker", "stop"))


def test_an_image_that_is_built_already(machine: Machine) -> None:
    image = f"registry.example.org/cvat/sam2:{TINY}-gpu"
    done = machine.run(f"./deploy_gpu.sh --image {image}", status=1)
    assert "is not on this machine and cannot be pulled; 'docker login'" in done.stderr
    assert machine.calls("nuctl", "deploy") == []
    machine.state["registry"] = [image]
    machine.run(f"./deploy_gpu.sh --image {image}")
    assert machine.calls("docker", "pull") == [["docker", "pull", image]]
    assert machine.calls("nuctl", "build") == []
    call = machine.calls("nuctl", "deploy")[0]
    assert "--path" not in call
    assert call[call.index("--run-image") + 1] == image
    spec, ours = machine.spec("function-gpu.yaml"), original("function-gpu.yaml")["spec"]
    assert spec.keys() - ours.keys() == {"env"}
    assert ours.keys() - spec.keys() == {"build"}
    assert spec["triggers"] == ours["triggers"]
    machine.run(f"./deploy_gpu.sh --image {image}")
    assert machine.calls("docker", "pull") == [], "it is here now"


def test_an_upgrade_lets_a_request_end(machine: Machine) -> None:
    """nuctl removes the container by force; it is stopped before, with time for a request."""
    machine.run("./deploy_cpu.sh")
    assert machine.calls("docker", "stop") == [], "nothing ran"
    machine.run("./deploy_cpu.sh")
    calls = [call[:2] for call in machine.calls() if call[1] in ("build", "stop", "deploy")]
    assert calls == [["nuctl", "build"], ["docker", "stop"], ["nuctl", "deploy"]]
    seconds = int(machine.calls("docker", "stop")[0][3])
    budget = Settings().time_budget_seconds + 2 * Settings().redis_timeout_seconds
    wait = int(trigger_of(machine.spec())["workerTerminationTimeout"].removesuffix("s"))
    assert budget < wait < seconds
    assert f"{wait}s" == machine.spec()["eventTimeout"], "Nuclio ends what takes longer"


class Info(BaseHTTPRequestHandler):
    """What runs, as a GET of the function says it."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(INFO.encode())


def test_the_function_is_asked_behind_no_proxy() -> None:
    """Docker's configuration may name one for all containers, and none answers for this address."""
    ask = re.findall(r"^ASK='(.+)'$", (ROOT / "deploy_common.sh").read_text(), re.MULTILINE)[0]
    with HTTPServer(("127.0.0.1", 0), Info) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        code = ask.replace(":8080/", f":{server.server_port}/")
        proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY"), "http://127.0.0.1:9")
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=proxies, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == INFO, done.stderr


def test_a_store_that_does_not_answer_is_said(machine: Machine) -> None:
    machine.state["function_answers"] = '{"store": {"kind": "redis", "answers": false}}'
    done = machine.run("./deploy_cpu.sh")
    assert "warning: its store does not answer; until it does, requests get 503" in done.stderr


# --- the port


def test_the_port_is_the_same_after_a_restart(machine: Machine) -> None:
    """CVAT asks at the port that Nuclio told it once; else it answers 503 until the next deploy."""
    # Docker gives those from 32768 on to whichever container starts first: such a one is not kept.
    machine.state["containers"][CONTAINER] = {"running": True, "env": [], "port": 32768}
    machine.run("./deploy_cpu.sh")
    assert machine.state["containers"][CONTAINER]["fixed_port"] == 32100
    port = machine.run(f"docker port {CONTAINER} 8080/tcp").stdout
    for _ in range(2):
        machine.run(f"docker restart {CONTAINER}")
        assert machine.run(f"docker port {CONTAINER} 8080/tcp").stdout == port


def test_a_deployment_takes_the_first_free_port_and_keeps_it(machine: Machine) -> None:
    def deployed(options: str = "") -> int:
        done = machine.run(f"./deploy_cpu.sh {options}")
        assert f"It runs on port {machine.port()}:" in done.stdout
        return machine.port()

    machine.state["ports_taken"] = [32100]
    (machine.folder / "listeners" / "32101").touch()
    assert deployed() == 32102, "the first free one"
    machine.state["ports_taken"] = []
    assert deployed() == 32102, "the one that it has"
    assert deployed("--port 8096") == 8096
    assert deployed() == 8096
    assert deployed("--port 8096") == 8096, "its own port is not taken"


def test_a_port_that_is_taken(machine: Machine) -> None:
    machine.state["ports_taken"] = [8096]
    error = machine.refuses("--port 8096")
    assert "port 8096 of this machine is taken; name another one with --port" in error
    shutil.copy(ROOT / "deploy_common.sh", machine.repository)  # that looks at the real ports
    with socket.create_server(("127.0.0.1", 0)) as listener:  # by no container
        port = listener.getsockname()[1]
        assert f"port {port} of this machine is taken" in machine.refuses(f"--port {port}")
    machine.state["ports_taken"] = list(range(32100, 32200))
    told = "the ports 32100 to 32199 are all taken; name a free one with --port"
    assert told in machine.refuses()


# --- what a failure leaves


def test_a_project_that_cannot_be_made(machine: Machine) -> None:
    machine.state["create_fails"] = True
    done = machine.run("./deploy_cpu.sh", status=1)
    assert "deploy_cpu.sh: nuctl could not create the project cvat;" in done.stderr
    assert machine.calls("nuctl", "build") == []


def test_a_build_that_fails_leaves_what_runs(machine: Machine) -> None:
    machine.run("./deploy_cpu.sh")
    machine.state["build_fails"] = True
    done = machine.run("./deploy_cpu.sh", status=1)
    assert "Failed to build processor image" in done.stderr
    assert "nuctl could not build the image; what runs was not touched" in done.stderr
    assert machine.calls("docker", "exec") + machine.calls("docker", "stop") == []
    assert machine.state["containers"][CONTAINER]["running"]


BACK = "Back to the last image that answered: ./deploy_cpu.sh --rollback"


@pytest.mark.parametrize("fails", ["before the removal", "after the removal", "not ready"])
def test_a_deployment_that_fails_says_what_runs(machine: Machine, fails: str) -> None:
    machine.state["deploy_fails"] = fails
    done = machine.run("./deploy_cpu.sh", status=1)
    assert "deploy_cpu.sh: nuctl could not deploy the function; docs/deploy.md has" in done.stderr
    assert machine.calls("docker", "exec") == []
    assert "What ran before" not in done.stderr
    machine.state["deploy_fails"] = ""
    first = machine.deploy()
    machine.state["deploy_fails"] = fails
    done = machine.run("./deploy_cpu.sh", status=1)
    if fails == "before the removal":
        assert "What ran before runs again." in done.stderr
        assert machine.runs() == first
    else:
        assert "What ran before is gone, so CVAT's users get errors now. " + BACK in done.stderr
    machine.state["deploy_fails"] = ""
    assert machine.deploy("--rollback") == first


def interrupted(machine: Machine, during: str, signal: str) -> str:
    """What the script says where it gets the signal in this command."""
    program, word = during.split()
    wrapper = machine.repository / program
    wrapper.write_text(
        f'#!/bin/sh\n"$TOOLS/{program}" "$@"\nstatus=$?\n'
        f'[ "$1" != {word} ] || kill -{signal} $PPID\nexit $status\n'
    )
    wrapper.chmod(0o755)
    # What runs these tests may ignore some of the signals, as nohup does.
    command = "TOOLS=$PATH PATH=.:$PATH exec env --default-signal ./deploy_cpu.sh"
    return machine.run(command, status=1).stderr


def test_a_program_that_is_killed_on_the_way_does_not_stop_the_others(machine: Machine) -> None:
    half = r"printf 'folder\0docker\0' > /dev/tcp/127.0.0.1/$STANDIN_PORT"
    machine.run(f"{half}; docker info")
    assert machine.log == [["docker", "info"]]


def test_a_deployment_that_is_interrupted_lets_run_what_ran(machine: Machine) -> None:
    """Docker's daemon ends the stop also where the session is lost."""
    first = machine.deploy()
    for signal in ("INT", "TERM", "HUP", "PIPE"):
        error = interrupted(machine, "docker stop", signal)
        assert "the deployment was interrupted. What ran before runs again." in error
        assert machine.runs() == first
        assert machine.calls("nuctl", "deploy") == []


@pytest.mark.parametrize(
    ("when", "signal"), [("before the removal", "INT"), ("while it waits", "HUP")]
)
def test_after_nuctl_was_interrupted_the_way_back_and_the_removal_work(
    machine: Machine, when: str, signal: str
) -> None:
    """nuctl refuses both as long as Nuclio's record says that the function is being built."""
    first = machine.deploy()
    machine.state["deploy_fails"] = f"interrupted {when}"
    error = interrupted(machine, "nuctl deploy", signal)
    gone = "What ran before is gone, so CVAT's users get errors now. "
    assert "the deployment was interrupted. " + gone + BACK in error
    machine.run(f"nuctl delete function {NAME} --platform local")
    assert machine.runs() == ""
    machine.state["deploy_fails"] = ""
    assert machine.deploy("--rollback") == first


@pytest.mark.parametrize("options", ["", "--rollback"])
def test_a_deployment_goes_on_where_an_earlier_one_was_killed(
    machine: Machine, options: str
) -> None:
    """No trap runs there, nor in CVAT's own script."""
    machine.run("./deploy_cpu.sh")
    before = machine.deploy()
    machine.state["functions"][NAME] = "building"
    done = machine.run(f"./deploy_cpu.sh {options}")
    assert "an earlier deployment of the function was interrupted; what it left is" in done.stderr
    assert "It runs on port 32100" in done.stdout
    assert machine.runs() not in ("", before)


def test_a_function_that_never_answers(machine: Machine) -> None:
    machine.state |= {"function_answers": "", "function_log": "The weights are damaged."}
    machine.set_in_script("READY_SECONDS", 1)
    done = machine.run("./deploy_cpu.sh", status=1)
    assert "The weights are damaged." in done.stderr
    assert "does not answer after 1 s" in done.stderr
    assert "--rollback" not in done.stderr, "nothing ever answered"
    assert len(machine.calls("docker", "exec")) > 1


# --- the way back


def test_rollback(machine: Machine) -> None:
    done = machine.run("./deploy_cpu.sh --rollback", status=1)
    assert "no image from before the last upgrade is on this machine" in done.stderr
    first, second = machine.deploy(), machine.deploy()  # the same version and model, built again
    assert first != second
    assert machine.deploy("--rollback") == first
    assert machine.deploy("--rollback") == second, "and back"
    large = machine.deploy("--model sam2.1_hiera_large")
    found = machine.run(f"docker image ls --format '{{{{.Tag}}}}' {IMAGE}").stdout.split()
    models = [f"{VERSION}-sam2.1_hiera_{size}" for size in ("tiny", "large")]
    assert set(found) == {f"{IMAGE}:{tag}" for tag in (*models, "answered", "previous", "rollback")}
    assert machine.deploy(f"--image {IMAGE}:{models[0]}") == second
    assert machine.deploy("--rollback") == large


def test_a_rollback_has_the_device_of_its_image(machine: Machine) -> None:
    """An image for a GPU does not start without one, and an image for a CPU would not use it."""
    first = machine.deploy()
    machine.state["function_answers"] = ""
    machine.set_in_script("READY_SECONDS", 0)
    assert BACK in machine.run("./deploy_gpu.sh", status=1).stderr
    done = machine.run("./deploy_gpu.sh --rollback", status=1)
    assert "is for another device: ./deploy_cpu.sh --rollback" in done.stderr
    assert machine.calls("docker", "stop") + machine.calls("nuctl", "deploy") == []
    machine.state["function_answers"] = INFO
    assert machine.deploy("--rollback") == first


def test_a_rollback_that_fails_is_repeated(machine: Machine) -> None:
    first = machine.deploy()
    second = machine.deploy()
    machine.state["deploy_fails"] = "after the removal"
    machine.run("./deploy_cpu.sh --rollback", status=1)
    machine.state["deploy_fails"] = ""
    assert machine.deploy("--rollback") == first
    assert machine.deploy("--rollback") == second, "and back"


@pytest.mark.parametrize("ours", [True, False], ids=["our script", "another one"])
def test_two_upgrades_fail_and_what_answered_comes_back(machine: Machine, ours: bool) -> None:
    first = machine.deploy()
    if not ours:
        machine.state["images"] = {}
    machine.set_in_script("READY_SECONDS", 0)
    machine.state["deploy_fails"] = "not ready"
    machine.run("./deploy_cpu.sh", status=1)
    machine.state |= {"deploy_fails": "", "function_answers": ""}
    assert BACK in machine.run("./deploy_cpu.sh", status=1).stderr
    machine.state["function_answers"] = INFO
    assert machine.deploy("--rollback") == first
