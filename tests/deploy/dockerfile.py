# SPDX-License-Identifier: MIT
"""The Dockerfile as the directives that Docker would carry out, in the form of a function yaml."""

import re
from pathlib import Path


def read_dockerfile(path: Path, **arguments: str) -> list[dict[str, str]]:
    """The directives of the last stage, from its base on: [{"kind": "RUN", "value": ...}, ...].

    arguments: build arguments instead of the defaults of the file. ARG itself, and stages of
    other images, are left out.
    """
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
        value = re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], value)
        if kind == "FROM":
            base, _, name = value.partition(" AS ")
            current = list(stages.get(base, []))
            stages[name] = current
        else:
            current.append({"kind": kind, "value": value})
    return current
