# SPDX-License-Identifier: MIT
"""A machine whose docker, nuctl and other programs are stand-ins, with a copy of the repository."""

import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import standins
import yaml
from names import CONTAINER, INFO, ROOT
from nuclio_schema import check_config

STANDINS = ("docker", "nuctl", "kubectl", "nvidia-smi", "make", "git", "curl")
# What the scripts and recipes may use besides the stand-ins.
PROGRAMS = [
    *("awk", "bash", "cat", "chmod", "cp", "df", "dirname", "env", "find", "head", "mkdir", "mv"),
    *("printf", "rm", "sed", "seq", "sh", "sleep", "sort", "tail", "tee", "tr", "true"),
]
PYTHON = shlex.quote(sys.executable)
# The process of the tests answers for the stand-ins: to start a Python takes longer than all else.
STANDIN = r"""
exec 3<>"/dev/tcp/127.0.0.1/$STANDIN_PORT"
printf '%s\0' "$PWD" "${0##*/}" $# "$@" >&3
IFS= read -r -d '' status <&3
IFS= read -r -d '' output <&3
IFS= read -r -d '' errors <&3
printf '%s' "$output"
printf '%s' "$errors" >&2
exit "$status"
"""
STATE = {
    "docker": True,
    "docker_root": "/",
    "runtimes": ["runc", "nvidia"],
    "driver": "580.95.05",
    "networks": ["cvat_cvat"],
    "images": {},
    "env": {},
    "registry": [],
    "ports_taken": [],
    "images_running": ["cvat/server:v2.73.0", "quay.io/nuclio/dashboard:1.16.3-amd64"],
    "containers": {
        "cvat_server": {"running": True, "env": ["DJANGO=1", "CVAT_SERVERLESS=1"]},
        "cvat_redis_ondisk": {"running": True, "env": []},
    },
    "nuctl": "1.16.3",
    "projects": [],
    "functions": {},
    "function_answers": INFO,
    "function_log": "Init context...  0%",
}


def write_program(path: Path, command: str) -> None:
    path.write_text(f"#!/bin/bash\n{command}\n")
    path.chmod(0o755)


def read_word(stream: TextIO) -> str:
    """Up to the next NUL, which ends each word. Raises EOFError where none comes."""
    word = ""
    while (letter := stream.read(1)) != "\0":
        if not letter:
            raise EOFError
        word += letter
    return word


@dataclass
class Machine:
    folder: Path
    name: str = "repository"
    python: bool = True
    """Whether it has a python3 that is new enough."""
    state: dict[str, Any] = field(default_factory=lambda: json.loads(json.dumps(STATE)))
    programs: tuple[str, ...] = STANDINS
    log: list[list[str]] = field(default_factory=list)
    """The calls of the last command, each with the name of its program."""

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
        shutil.rmtree(tools, ignore_errors=True)
        tools.mkdir()
        for program in self.programs:
            write_program(tools / program, STANDIN)
        for program in PROGRAMS:  # and none of this machine's own docker or nvidia-smi
            (tools / program).symlink_to(shutil.which(program, path="/usr/bin:/bin") or "missing")
        write_program(tools / "python3", f'exec {PYTHON} "$@"' if self.python else "exit 1")
        self.log.clear()
        with self._answering() as port:
            done = subprocess.run(
                ["/bin/bash", "-c", command],
                cwd=self.repository,
                env={"PATH": str(tools), "STANDIN_PORT": str(port)} | environment,
                capture_output=True,
                text=True,
            )
        assert done.returncode == status, done.stderr
        return done

    @contextmanager
    def _answering(self) -> Iterator[int]:
        """Answers the calls of the stand-ins at this port."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=self._answer, args=(listener,))
            thread.start()
            try:
                yield listener.getsockname()[1]
            finally:
                listener.shutdown(socket.SHUT_RDWR)  # ends `accept`
                thread.join()

    def _answer(self, listener: socket.socket) -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            # a program that is killed on the way says half of its call, or takes no answer
            with suppress(EOFError, OSError), connection:
                self._answer_one(connection)

    def _answer_one(self, connection: socket.socket) -> None:
        with connection.makefile("rw", newline="") as stream:
            folder, program, count = (read_word(stream) for _ in range(3))
            words = [read_word(stream) for _ in range(int(count))]
            self.log.append([program, *words])
            for part in standins.call(program, words, folder, self.state):
                stream.write(f"{part}\0")

    def stage(self, options: str = "", device: str = "cpu", **environment: str) -> str:
        """Makes the clean copy; what the script says."""
        command = f"./deploy_{device}.sh --stage out/function {options}"
        return self.run(command, **environment).stdout

    def refuses(self, options: str = "", device: str = "cpu", **environment: str) -> str:
        """The script ends with an error, and nothing was built or deployed; what it says."""
        done = self.run(f"./deploy_{device}.sh {options}", status=1, **environment)
        assert self.calls("nuctl", "build") + self.calls("nuctl", "deploy") == []
        return done.stderr

    def runs(self) -> str:
        """The image whose container is running, or nothing."""
        container = self.state["containers"].get(CONTAINER)
        return str(container["image"]) if container and container["running"] else ""

    def deploy(self, options: str = "") -> str:
        """Deploys the function for a CPU; the image that runs then."""
        self.run(f"./deploy_cpu.sh {options}")
        return self.runs()

    def set_in_script(self, name: str, value: int) -> None:
        script = self.repository / "deploy_common.sh"
        script.write_text(re.sub(rf"{name}=\d+", f"{name}={value}", script.read_text()))

    def calls(self, *beginning: str) -> list[list[str]]:
        return [c for c in self.log if c[: len(beginning)] == list(beginning)]

    def config(self, name: str = "function.yaml") -> dict[str, Any]:
        config = yaml.safe_load((self.copy / name).read_text())
        check_config(config)
        return config  # type: ignore[no-any-return]

    def spec(self, name: str = "function.yaml") -> dict[str, Any]:
        return self.config(name)["spec"]  # type: ignore[no-any-return]

    def port(self) -> int:
        return int(trigger_of(self.spec())["attributes"]["port"])

    def directives(self, name: str = "function.yaml") -> list[str]:
        return steps(all_directives(self.spec(name)["build"]))


def yaml_of(device: str) -> str:
    return "function.yaml" if device == "cpu" else "function-gpu.yaml"


def original(name: str = "function.yaml") -> dict[str, Any]:
    """The repository's own configuration."""
    return yaml.safe_load((ROOT / name).read_text())  # type: ignore[no-any-return]


def trigger_of(spec: dict[str, Any]) -> dict[str, Any]:
    return spec["triggers"]["myHttpTrigger"]  # type: ignore[no-any-return]


def all_directives(build: dict[str, Any]) -> list[dict[str, str]]:
    return [*build["directives"]["preCopy"], *build["directives"]["postCopy"]]


def steps(directives: list[dict[str, str]]) -> list[str]:
    return [f"{d['kind']} {d['value']}" for d in directives]


def settings(spec: dict[str, Any]) -> dict[str, str]:
    """The function's environment in a configuration; a secret as <its name>/<its key>."""
    found = {}
    for item in spec.get("env", []):
        secret = item.get("valueFrom", {}).get("secretKeyRef")
        found[item["name"]] = f"{secret['name']}/{secret['key']}" if secret else item["value"]
    return found


def in_shell(command: str) -> str:
    """What a command says after deploy_common.sh was read."""
    words = ["bash", "-c", f"source ./deploy_common.sh; {command}"]
    return subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def scripts_list(name: str) -> list[str]:
    return in_shell(f'printf "%s\\n" "${{{name}[@]}}"').split()


FILES, CONFIGS = scripts_list("FILES"), scripts_list("CONFIGS")
EVERYTHING = {*FILES, *CONFIGS, "weights"}
"""What the clean copy holds."""
