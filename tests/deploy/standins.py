# SPDX-License-Identifier: MIT
"""Stands in for docker, nuctl, kubectl and more.

Refuses what the real program would refuse (unknown commands and flags, missing values, files that
are not there, a configuration that Nuclio does not accept), and keeps the machine's images and
containers in the state of the test: `nuctl deploy` starts a container, and a port that nobody names
is another one after each start, as Docker does it. Nuclio's record of a function has a state, and
an interrupted `nuctl deploy` leaves it at `building`. Of the commands and flags of nuctl 1.13 (its
cobra commands), docker 28 and kubectl 1.32, those are known that scripts and documents use.
"""

import contextlib
import io
import json
import re
import subprocess
import sys
import traceback
from pathlib import Path

import yaml
from names import ROOT
from nuclio_schema import Invalid, check_config

BOOL, VALUE = False, True

NUCTL_GLOBAL = {"--platform": VALUE, "--namespace": VALUE}
NUCTL_DEPLOY = {
    "--path --file --env --project-name --run-image --platform-config": VALUE,
    "--min-replicas --max-replicas --readiness-timeout --resource-limit --resource-request": VALUE,
}
NUCTL = {  # command: flags, least and most positional arguments
    "version": ({}, 0, 0),
    "deploy": (NUCTL_DEPLOY, 0, 1),
    "build": (NUCTL_DEPLOY, 0, 1),
    "create project": ({}, 1, 1),
    "get project": ({}, 0, 1),
    "get function": ({"--output": VALUE}, 0, 1),
    "delete function": ({"--force": BOOL}, 1, 1),
}
DOCKER = {
    "info": ({"--format": VALUE}, 0, 0),
    "ps": ({"--format": VALUE}, 0, 0),
    "network inspect": ({}, 1, 99),
    "image inspect": ({"--format": VALUE}, 1, 99),
    "image rm": ({}, 1, 99),
    "inspect": ({"--format": VALUE}, 1, 99),
    "port": ({}, 1, 2),
    "stop": ({"-t": VALUE}, 1, 99),
    "build": ({"--file --tag --build-arg": VALUE}, 1, 1),
    "image ls": ({"--format": VALUE}, 0, 1),
    "exec": ({}, 2, 99),
    "logs": ({"--tail": VALUE}, 1, 1),
    "pull": ({}, 1, 1),
    "tag": ({}, 2, 2),
    "push": ({}, 1, 1),
    "save": ({"--output": VALUE}, 1, 99),
    "load": ({"--input": VALUE}, 0, 0),
    "compose": ({"-f": VALUE}, 1, 99),
    "restart": ({"-t": VALUE}, 1, 99),
    "run": ({"--rm": BOOL, "--env": VALUE}, 1, 99),
}
KUBECTL_GLOBAL = {"--namespace": VALUE}
KUBECTL = {
    "apply": ({"-f": VALUE}, 0, 0),
    "create secret generic": ({"--from-literal": VALUE}, 1, 1),
    "create secret docker-registry": (
        {"--docker-server --docker-username --docker-password": VALUE},
        1,
        1,
    ),
    "create rolebinding": ({"--role --user": VALUE}, 1, 1),
    "get": ({"--selector": VALUE}, 1, 99),
    "delete": ({"-f": VALUE, "--ignore-not-found": BOOL}, 0, 99),
    "logs": ({"--selector --tail": VALUE}, 0, 1),
    "exec": ({}, 1, 99),
}


def refuse(sentence: str) -> None:
    print(f"Error: {sentence}", file=sys.stderr)
    sys.exit(1)


def parse(words: list[str], commands: dict, common: dict) -> tuple[str, dict, list[str]]:
    """Splits a command line as cobra does; refuses what the command does not know."""
    flags = dict(common)
    before: list[tuple[str, str | None]] = []
    rest = list(words)
    while rest and rest[0].startswith("-"):
        name, value = take_flag(rest, flags)
        before.append((name, value))
    for length in (3, 2, 1):
        command = " ".join(rest[:length])
        if command in commands and len(rest) >= length:
            rest = rest[length:]
            break
    else:
        refuse(f'unknown command "{" ".join(rest[:2])}"')
    own, least, most = commands[command]
    for names, kind in own.items():
        flags.update(dict.fromkeys(names.split(), kind))
    options: dict[str, list[str | None]] = {}
    for name, value in before:
        options.setdefault(name, []).append(value)
    positional: list[str] = []
    while rest:
        if rest[0] == "--":
            positional += rest[1:]
            break
        if rest[0].startswith("-") and len(rest[0]) > 1:
            if positional and command in ("exec", "run", "compose"):
                positional += rest  # from here on it is the other program's
                break
            name, value = take_flag(rest, flags)
            options.setdefault(name, []).append(value)
        else:
            positional.append(rest.pop(0))
    if not least <= len(positional) <= most:
        refuse(f"{command} takes {least} to {most} arguments, not {positional}")
    return command, options, positional


def take_flag(rest: list[str], flags: dict[str, bool]) -> tuple[str, str | None]:
    name, equals, value = rest.pop(0).partition("=")
    if name not in flags:
        refuse(f"unknown flag: {name}")
    if flags[name] is BOOL:
        return name, None
    if not equals:
        if not rest:
            refuse(f"flag needs an argument: {name}")
        value = rest.pop(0)
    return name, value


def one(options: dict, name: str) -> str | None:
    return options.get(name, [None])[-1]


def nuctl(words: list[str], state: dict) -> None:
    command, options, positional = parse(words, NUCTL, NUCTL_GLOBAL)
    if one(options, "--platform") not in (None, "local", "kube", "auto"):
        refuse("Can't create platform")
    if command == "version":
        if not state["nuctl"]:  # built for another processor
            sys.exit(126)
        details = "Git commit: 0, OS: linux, Arch: amd64, Go version: go1.23.4"
        print(f'Client version:\n"Label: {state["nuctl"]}, {details}"')
    elif command == "get project":
        if positional and positional[0] not in state["projects"]:
            refuse("No projects found")
    elif command == "create project" and state.get("create_fails"):
        refuse("Failed to create project")
    elif command in ("get function", "delete function"):
        nuctl_function(command, options, positional, state)
    elif command == "build":
        nuctl_build(options, state)
    elif command == "deploy":
        nuctl_deploy(options, positional, state)


def nuctl_function(command: str, options: dict, positional: list[str], state: dict) -> None:
    functions, name = state["functions"], "".join(positional)
    if command == "get function" and name in functions:
        record = {"metadata": {"name": name}, "status": {"state": functions[name]}}
        print(json.dumps(record, indent="\t"))
    elif command == "get function" and name:
        refuse("No functions found")
    elif command == "delete function" and name in functions:
        if functions[name] not in PROVISIONED and "--force" not in options:
            refuse("Function is being provisioned and cannot be deleted")
        del functions[name]
        state["containers"].pop(f"nuclio-nuclio-{name}", None)


def read_config(options: dict, positional: list[str]) -> dict:
    path, file = one(options, "--path"), one(options, "--file")
    file = file or (path and str(Path(path) / "function.yaml"))
    if not file or not Path(file).is_file():
        refuse(f"Failed opening function config file {file}")
    config = yaml.safe_load(Path(file).read_text())
    try:
        check_config(config)
    except Invalid as error:
        refuse(str(error))
    if positional and positional[0] != config["metadata"]["name"]:
        refuse("the name on the command line and the one in the file differ")
    return config


def nuctl_build(options: dict, state: dict) -> str:
    config = read_config(options, [])
    build_context(Path(one(options, "--path") or ""), config)
    if state.get("build_fails"):
        refuse("Failed to build processor image")
    image = config["spec"]["build"]["image"]
    image = image if ":" in image else f"{image}:latest"
    state["builds"] = state.get("builds", 0) + 1
    state["images"][image] = f"sha256:built{state['builds']}"
    directives = [d for each in config["spec"]["build"]["directives"].values() for d in each]
    state["env"][state["images"][image]] = [d["value"] for d in directives if d["kind"] == "ENV"]
    return image


def nuctl_deploy(options: dict, positional: list[str], state: dict) -> None:
    config = read_config(options, positional)
    image = one(options, "--run-image")
    local = one(options, "--platform") == "local"
    if image:
        if one(options, "--path") or "build" in config["spec"]:
            refuse("Nuclio would build: --run-image needs a file without build section, no --path")
        if local and image not in state["images"]:
            refuse("Output from docker command includes more than just ID")  # it pulls meanwhile
    else:
        image = nuctl_build(options, state)
    for pair in options.get("--env", []):
        if not re.match(r"[A-Za-z_]\w*=", pair):
            refuse(f"Environment variable must be in the form of name=value: {pair}")
    for pair in options.get("--resource-limit", []) + options.get("--resource-request", []):
        if not re.fullmatch(r"[a-z.]+(/[a-z]+)?=\d+(\.\d+)?(m|Mi|Gi)?", pair):
            refuse(f"Resource allocation {pair} not in the format of resource-name=quantity")
    json.loads(one(options, "--platform-config") or "{}")
    if local:
        run_function(config, image, state)


PROVISIONED = ("ready", "error", "unhealthy", "imported", "scaledToZero")


def run_function(config: dict, image: str, state: dict) -> None:
    """The steps of Nuclio on Docker; `deploy_fails` says where they end."""
    name, fails = config["metadata"]["name"], state.get("deploy_fails")
    functions, container_name = state["functions"], f"nuclio-nuclio-{name}"
    if functions.get(name, "ready") not in PROVISIONED:
        refuse("Function cannot be updated when existing function is being provisioned")
    if fails == "before the removal":
        refuse("Failed to prepare the function")
    functions[name] = "building"
    if fails == "interrupted before the removal":
        sys.exit(130)
    state["containers"].pop(container_name, None)  # as `docker rm -f`
    if fails == "after the removal":
        functions[name] = "error"
        refuse("Failed to run a Docker container")
    trigger = config["spec"]["triggers"]["myHttpTrigger"]
    state["runs"] = state.get("runs", 0) + 1
    container = {"image": state["images"][image], "env": [], "id": f"{state['runs']:064x}"}
    container["fixed_port"] = trigger["attributes"].get("port")
    state["containers"][container_name] = container
    start_container(container, state)
    if fails == "interrupted while it waits":
        sys.exit(130)
    if fails == "not ready":  # Nuclio keeps the container
        functions[name] = "error"
        refuse("Function wasn't ready in time")
    functions[name] = "ready"


def start_container(container: dict, state: dict) -> None:
    container["running"] = True
    state["next_port"] = state.get("next_port", 32767) + 1
    container["port"] = container.get("fixed_port") or state["next_port"]


def build_context(path: Path, config: dict) -> None:
    """What Docker would refuse: sources of COPY that are not there, a handler that is not."""
    if not path.is_dir():
        refuse(f"Function path doesn't exist: {path}")
    module = config["spec"]["handler"].partition(":")[0]
    if not (path / f"{module}.py").is_file():
        refuse(f"there is no {module}.py in {path}")
    directives = config["spec"]["build"]["directives"]
    for directive in directives.get("preCopy", []) + directives.get("postCopy", []):
        if directive["kind"] == "COPY":
            for source in directive["value"].split()[:-1]:
                if not (path / source.removeprefix("handler/")).exists():
                    refuse(f'COPY failed: "/{source}": not found')


def docker(words: list[str], state: dict) -> None:
    command, options, positional = parse(words, DOCKER, {})
    template = one(options, "--format")
    containers, images = state["containers"], state["images"]
    if not state["docker"]:
        refuse("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.")
    if command == "info" and template:
        print(
            {
                "{{.DockerRootDir}}": state["docker_root"],
                "{{json .Runtimes}}": json.dumps(dict.fromkeys(state["runtimes"], {})),
            }[template]
        )
    elif command == "ps" and template == "{{.Image}}":
        print("\n".join(state["images_running"]))
    elif command == "ps" and template == "{{.Ports}}":
        ports = [c["port"] for c in containers.values() if c["running"] and c.get("port")]
        for port in ports + state["ports_taken"]:
            print(f"0.0.0.0:{port}->8080/tcp, [::]:{port}->8080/tcp")
    elif command == "network inspect" and positional[0] not in state["networks"]:
        refuse(f"network {positional[0]} not found")
    elif command in ("image inspect", "image rm", "image ls", "tag", "pull", "build"):
        docker_image(command, options, positional, state)
    elif command in ("inspect", "port", "stop", "restart", "exec", "logs"):
        docker_container(command, template, positional, state)
    elif command == "run":
        if positional[0] not in images:
            refuse(f"Unable to find image '{positional[0]}' locally")
        if positional[1:] == ["python", "-m", "sam2_tracker.check_settings"]:
            check_settings(options)
    elif command == "compose":
        for name in options["-f"]:
            if name not in ("docker-compose.yml", COMPOSE_SERVERLESS):
                refuse(f"no such file: {name}")
    elif command == "load" and not Path(one(options, "--input") or "").is_file():
        refuse("open: no such file or directory")
    elif command == "save":
        if positional[0] not in images:
            refuse(f"No such image: {positional[0]}")
        Path(one(options, "--output") or "/dev/null").write_bytes(b"image")


def docker_image(command: str, options: dict, positional: list[str], state: dict) -> None:
    template = one(options, "--format")
    containers, images = state["containers"], state["images"]
    if command == "image inspect":
        if positional[0] not in images:
            refuse(f"No such image: {positional[0]}")
        id_ = images[positional[0]]
        env = " ".join(state["env"].get(id_, []))
        print({"{{.Id}}": id_, "{{.Config.Env}}": f"[{env}]", None: "[]"}[template])
    elif command == "image rm":
        for name in positional:
            if images.pop(name, None) is None:
                refuse(f"No such image: {name}")
    elif command == "image ls":
        print("\n".join(name for name in images if name.split(":")[0] == positional[0]))
    elif command == "tag":
        source = positional[0]
        known = [*images.values(), *(c.get("image") for c in containers.values())]
        if source not in images and source not in known:
            refuse(f"No such image: {source}")
        images[positional[1]] = images.get(source, source)
    elif command == "pull":
        if positional[0] not in state["registry"]:
            refuse("pull access denied, repository does not exist or may require 'docker login'")
        images[positional[0]] = f"sha256:pulled{len(images)}"
    elif command == "build":
        if not Path(positional[0]).is_dir() or not Path(one(options, "--file")).is_file():
            refuse("unable to prepare context")
        images[one(options, "--tag")] = f"sha256:built{len(images)}"


RULE = '{{index .Config.Labels "traefik.http.routers.cvat.rule"}}'


def docker_container(
    command: str, template: str | None, positional: list[str], state: dict
) -> None:
    named = (c for n, c in state["containers"].items() if positional[0] in (n, c.get("id")))
    container = next(named, None)
    if container is None:
        refuse(f"No such container: {positional[0]}")
    if command == "inspect":
        fixed = container.get("fixed_port")
        bindings = {"8080/tcp": [{"HostIp": "", "HostPort": str(fixed or "")}]}
        known = {
            "{{.Config.Env}}": "[" + " ".join(container["env"]) + "]",
            RULE: container.get("rule", ""),
            "{{.State.Running}}": str(container["running"]).lower(),
            "{{.Id}}": container.get("id", positional[0]),
            "{{.Image}}": container.get("image", "sha256:0"),
            "{{json .HostConfig.PortBindings}}": json.dumps(bindings, separators=(",", ":")),
            None: "[]",
        }
        print(known[template])
    elif command == "port":
        print(f"0.0.0.0:{container['port']}\n[::]:{container['port']}")
    elif command == "stop":
        container["running"] = False
    elif command == "restart":
        start_container(container, state)
    elif command == "exec":
        if not container["running"]:
            refuse("container is not running")
        if not state["function_answers"]:
            refuse("Container is restarting, wait until the container is running")
        print(state["function_answers"])
    elif command == "logs":
        print(state["function_log"], file=sys.stderr)


def check_settings(options: dict) -> None:
    """The function's own code, as `docker run` starts it in the image."""
    words = [sys.executable, "-m", "sam2_tracker.check_settings"]
    settings = dict(pair.split("=", 1) for pair in options.get("--env", []))
    done = subprocess.run(words, cwd=ROOT, env=settings, capture_output=True, text=True)
    print(done.stdout, end="")
    print(done.stderr, end="", file=sys.stderr)
    sys.exit(done.returncode)


COMPOSE_SERVERLESS = "components/serverless/docker-compose.serverless.yml"


def kubectl(words: list[str], state: dict) -> None:
    command, options, positional = parse(words, KUBECTL, KUBECTL_GLOBAL)
    for name in options.get("-f", []):
        if command in ("apply", "delete"):
            for document in yaml.safe_load_all(Path(name or "").read_text()):
                if not {"apiVersion", "kind", "metadata"} <= document.keys():
                    refuse(f"error validating {name}: apiVersion, kind or metadata not set")
    if command == "exec":
        print(state["function_answers"])


def make(words: list[str], state: dict) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for word in words:
        if not re.match(r"[A-Z_]+=", word) and word not in targets:
            refuse(f"No rule to make target '{word}'.")


def curl(words: list[str], state: dict) -> None:
    address = re.fullmatch(r"http://localhost:(\d+)/(ready|metrics)?", words[-1])
    if address is None or not set(words[:-1]) <= {"-s", "-i"}:
        refuse(f"(3) URL rejected: {words}")
    print(state["function_answers"])


def git(words: list[str], state: dict) -> None:
    if words != ["pull"]:
        refuse(f"git does not do {words} here")


def nvidia_smi(words: list[str], state: dict) -> None:
    if words != ["--query-gpu=driver_version", "--format=csv,noheader"]:
        refuse(f"Option {words} is not recognized.")
    print(state["driver"])
    if not state["driver"][0].isdigit():
        sys.exit(6)


PROGRAMS = {
    "docker": docker,
    "nuctl": nuctl,
    "kubectl": kubectl,
    "nvidia-smi": nvidia_smi,
    "make": make,
    "git": git,
    "curl": curl,
}


def call(program: str, words: list[str], folder: str, state: dict) -> tuple[int, str, str]:
    """The exit status, the output and the errors of a program that is started in this folder."""
    output, errors, status = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            PROGRAMS[program](words, state)
        except SystemExit as end:
            status = int(end.code or 0)
        except Exception:  # a fault of the stand-in itself
            traceback.print_exc()
            status = 1
    return status, output.getvalue(), errors.getvalue()
