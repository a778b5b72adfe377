# SPDX-License-Identifier: MIT
"""What must not stand in the code that runs: unpickling, weights that are code, a shell."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "jsonpickle"} | {
    *("shelve", "marshal")
}
SHELLS = {("os", "system"), ("os", "popen"), ("subprocess", "getoutput")}


def sources() -> list[Path]:
    """Every Python file that git knows, or would, but the tests."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\n")
    found = [ROOT / name for name in listed if name and not name.startswith("tests/")]
    return [path for path in found if path.exists()]


def complaints(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").split(".")[0]]
        else:
            names = []
        for name in sorted(UNPICKLERS.intersection(names)):
            yield f"line {getattr(node, 'lineno', 0)}: imports {name}"
        if isinstance(node, ast.Call):
            yield from _complaints_of_call(node)


def _complaints_of_call(node: ast.Call) -> Iterator[str]:
    options = {keyword.arg: keyword.value for keyword in node.keywords}
    if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
        owner, name = node.func.value.id, node.func.attr
        if (owner, name) == ("torch", "load") and not _is(options.get("weights_only"), True):
            yield f"line {node.lineno}: torch.load without weights_only=True"
        if owner in ("np", "numpy") and _is(options.get("allow_pickle"), True):
            yield f"line {node.lineno}: numpy reads pickles"
        if owner == "yaml" and name in ("load", "unsafe_load", "full_load"):
            yield f"line {node.lineno}: yaml.{name}"
        if (owner, name) in SHELLS:
            yield f"line {node.lineno}: {owner}.{name}"
    if isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
        yield f"line {node.lineno}: {node.func.id}"
    if "shell" in options and not _is(options["shell"], False):
        yield f"line {node.lineno}: a shell"


def _is(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_is_made_from_data(path: Path) -> None:
    assert list(complaints(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load('x')",
        "import torch\ntorch.load('x', weights_only=False)",
        "import subprocess\nsubprocess.run('x', shell=True)",
        "import os\nos.system('x')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import yaml\nyaml.load('x')",
        "eval('1')",
    ],
)
def test_the_rule_sees_what_it_is_there_for(code: str) -> None:
    assert list(complaints(ast.parse(code)))


def test_ruffs_security_rules_hold() -> None:
    """S301 pickle, S602 and its kin shells, S614 torch.load, as in pyproject.toml's "S"."""
    result = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--select", "S", "--quiet", *map(str, sources())],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout
