# SPDX-License-Identifier: MIT
"""What the tests of the deploy scripts share."""

import shutil
from pathlib import Path

import pytest
from machine import CONFIGS, FILES, Machine
from names import ROOT


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.repository.mkdir()
    scripts = ("deploy_cpu.sh", "deploy_gpu.sh", "deploy_common.sh", "Dockerfile")
    for name in (*FILES, *CONFIGS, *scripts, "kubernetes"):
        if (ROOT / name).is_dir():
            compiled = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, machine.repository / name, ignore=compiled)
        else:
            shutil.copy(ROOT / name, machine.repository / name)
    # A file per port stands in for what listens on this machine.
    common, listeners = machine.repository / "deploy_common.sh", machine.folder / "listeners"
    listeners.mkdir()
    common.write_text(common.read_text().replace("/dev/tcp/127.0.0.1", str(listeners)))
    # What must never reach an image.
    for name in (
        *(".venv/lib.py", "tests/test_x.py", "training/train.py", ".git/config", "serve.py"),
        "sam2_tracker/__pycache__/old.pyc",
    ):
        (machine.repository / name).parent.mkdir(exist_ok=True)
        (machine.repository / name).write_text("")
    return machine
