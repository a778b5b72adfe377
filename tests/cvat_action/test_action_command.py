# SPDX-License-Identifier: MIT
"""The command itself: what it tells, and how it is installed."""

import os
import re
import shutil
import subprocess
import sys
from io import BytesIO, TextIOWrapper

import pytest
from conftest import LABELS
from processes import ROOT

from cvat_action.server import OUR_DESCRIPTION


def test_the_summary_names_the_frame_to_look_at_first_and_ends_with_a_link(
    cvat, track_to, masks, function
):
    function.lost = {(30, 12), (30, 13)}
    function.scores = {(20, 13): 0.31, (30, 12): 0.05}
    told = track_to(14).out
    rows = {line.split()[0]: line for line in told.splitlines() if line}
    assert "0.31 on frame 13" in rows["20"]
    assert rows["30"].split()[3:5] == ["4", "2"]
    assert "written: 10 shapes created\n" in told
    assert f"{cvat.url}/tasks/7/jobs/42?frame=10\nReload the page" in told


def test_quiet_silences_the_log_and_debug_adds_requests_to_it(act, track_to, one_mask, monkeypatch):
    monkeypatch.setattr("cvat_action.run.LOG_SECONDS", 0.0)
    lines = track_to(14).log
    assert all(f"Frame {11 + n}: {n + 1} of 4 frames, 1 object." in lines for n in range(4))
    assert track_to(14, "--replace", "--quiet").log == ""
    debug = track_to(14, "--replace", "--debug").log
    assert "POST" in debug
    assert "200" in debug
    assert act("--version").out.startswith("cvat-sam2 ")


def test_a_label_that_the_terminal_cannot_show_ends_no_run(
    cvat, act, track_to, one_mask, monkeypatch
):
    cvat.jobs[42].labels = [{**LABELS[0], "name": "車"}, LABELS[1]]
    shown = BytesIO()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", TextIOWrapper(shown, encoding="iso-8859-1"))
        track_to(13)
        assert rb"\u8eca" in shown.getvalue()
    assert act("runs", "--json").json["waiting"] == []


@pytest.mark.parametrize("library", ["cvat_sdk", "torch"])
def test_ctrl_c_while_libraries_are_loaded_is_one_line(tmp_path, library):
    """torch tells of its caches when the process ends."""
    (tmp_path / f"{library}.py").write_text(
        "import atexit, logging, os, signal, time\n"
        "atexit.register(logging.getLogger('torch.caches').info, 'FakeTensor cache stats:')\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-m", "cvat_action", "local", "--video", "v", "--annotations", "a"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    how = {"capture_output": True, "text": True, "env": environment, "cwd": tmp_path}
    ended = subprocess.run([*command, "--out", "o.json"], **how, check=False)
    assert ended.returncode == 130
    assert ended.stderr.endswith("Stopped by Ctrl+C.\n")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["function.yaml", "function-gpu.yaml"])
def test_the_description_is_that_of_the_function(name):
    said = re.findall("(?m)^  description: (.*)$", (ROOT / name).read_text())
    assert said == [OUR_DESCRIPTION]


@pytest.mark.slow
def test_pip_installs_the_command_cvat_sam2(tmp_path):
    source, target = tmp_path / "source", tmp_path / "site"
    unwanted = shutil.ignore_patterns(".*", "node_modules", "out", "build", "tests", "docs")
    shutil.copytree(ROOT, source, ignore=unwanted)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", target, source], check=True)
    environment = {**os.environ, "PYTHONPATH": str(target)}
    import_local = "import cvat_action.local; print(cvat_action.local.__file__)"
    for command, said in (
        ([target / "bin" / "cvat-sam2", "--version"], "cvat-sam2 0.1.0\n"),
        ([target / "bin" / "cvat-sam2", "local", "--help"], "--annotations"),
        ([sys.executable, "-c", import_local], f"{target}{os.sep}"),
    ):
        how = {"cwd": tmp_path, "env": environment, "text": True, "check": True}
        assert said in subprocess.run(command, capture_output=True, **how).stdout
