# SPDX-License-Identifier: MIT
"""The Dockerfile as the directives that Docker would carry out, in the form of a function yaml."""

import re
import shlex
from pathlib import Path


def build_arguments(output: str) -> dict[str, str]:
    """The --build-arg of the `docker build` line that `deploy_cpu.sh --stage` prints."""
    line = next(line for line in output.splitlines() if line.startswith("docker build "))
    words = shlex.split(line)
    pairs = [words[i + 1] for i, word in enumerate(words) if word == "--build-arg"]
    return dict(pair.split("=", 1) for pair in pairs)


def read_dockerfile(path: Path, **arguments: str) -> list[dict[str, str]]:
    """The directives of the last stage, from its base on: [{"kind": "RUN", "value": ...}, ...].

    arguments: build arguments instead of the defaults of the file. ARG itself, and stages of
    other images, are left out.
    """

    def expand(found: re.Match[str]) -> str:
        value = values[found[1]]
        if found[2] is None:
            return value
        return found[2].replace(f"${found[1]}", value) if value else ""

    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    stages: dict[str, list[dict[str, str]]] = {}
    current: list[dict[str, str]] = []
    values: dict[str, str] = {}
    for line in lines:
        kind, _, value = line.partition(" ")
        if kind == "ARG":
            name, _, default = value.partition("=")
            values[name] = arguments.get(name, default)
            continue
        value = re.sub(r"\$\{(\w+)(?::\+([^}]*))?\}", expand, value).strip()
        if kind == "FROM":
            base, _, name = value.partition(" AS ")
            current = list(stages.get(base, []))
            stages[name] = current
        else:
            current.append({"kind": kind, "value": value})
    return current
