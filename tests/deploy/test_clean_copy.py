# SPDX-License-Identifier: MIT
"""The clean copy that Nuclio builds from: what it holds, its weights, what it is written over."""

import functools
import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from check_image import Image
from machine import CONFIGS, EVERYTHING, Machine, settings, trigger_of
from names import BUILT, IMAGE, ROOT, SHA256, VERSION
from test_configuration import BODY_LIMIT

from sam2_tracker.models import MODELS


def test_the_clean_copy_holds_what_ships_and_nothing_else(machine: Machine) -> None:
    machine.stage()
    assert {p.name for p in machine.copy.iterdir()} == EVERYTHING
    assert {p.name for p in machine.copy.iterdir() if p.is_dir()} == {"sam2_tracker", "weights"}
    assert list((machine.copy / "weights").iterdir()) == []
    assert list(machine.copy.rglob("__pycache__")) == []
    assert "ENV SAM2_MODEL=sam2.1_hiera_tiny" in machine.directives()
    assert machine.directives()[-1] == "RUN python -m sam2_tracker.download"
    assert machine.calls() == [], "nothing is deployed"


def test_the_clean_copy_runs_by_itself(machine: Machine) -> None:
    """In an interpreter that sees nothing else of the repository."""
    machine.stage()
    code = (
        f"import sys; sys.path.insert(0, {str(machine.copy)!r}); import main, sam2_tracker.models"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"{code}; print(main.__file__, sam2_tracker.models.__file__)"],
        cwd="/",
        env={"OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]},
        check=True,
        capture_output=True,
        text=True,
    )
    files = ("main.py", "sam2_tracker/models.py")
    assert done.stdout.split() == [str(machine.copy / file) for file in files]


def test_cvats_own_scripts_find_one_function_each(machine: Machine) -> None:
    """They deploy every **/function.yaml or **/function-gpu.yaml, and build each Dockerfile."""
    machine.stage(device="gpu")
    for name in ("function.yaml", "function-gpu.yaml"):
        assert list(machine.copy.rglob(name)) == [machine.copy / name]
        machine.run(
            f"nuctl deploy --project-name cvat --path {machine.copy} --file {machine.copy / name} "
            "--platform local --env CVAT_FUNCTIONS_REDIS_HOST=cvat_redis_ondisk "
            "--env CVAT_FUNCTIONS_REDIS_PORT=6666 "
            """--platform-config '{"attributes": {"network": "cvat_cvat"}}'"""
        )
    assert list(machine.copy.rglob("Dockerfile*")) == []


def test_every_user_can_read_the_clean_copy(machine: Machine) -> None:
    """On Kubernetes the function runs as user 65534; the image has the modes of the copy."""
    (machine.repository / "tracker.py").chmod(0o600)
    machine.run("umask 077; ./deploy_cpu.sh --stage out/function")
    for path in (machine.copy, *machine.copy.rglob("*")):
        wanted = 0o555 if path.is_dir() else 0o444
        assert path.stat().st_mode & wanted == wanted, path


# --- the options in it


def test_a_staged_copy_holds_every_option(machine: Machine) -> None:
    """Nothing that is said with --stage is lost on the way to CVAT's own script or Kubernetes."""
    options = "--env SAM2_THREADS=4 --env 'MINE_X=it: #1' --network other --workers 2 --memory 6Gi"
    redis = {"CVAT_FUNCTIONS_REDIS_HOST": "kvrocks", "CVAT_FUNCTIONS_REDIS_PORT": "6666"}
    machine.stage(f"{options} --redis-secret store", "gpu", **redis)
    for name in ("function.yaml", "function-gpu.yaml"):
        spec = machine.spec(name)
        assert settings(spec) == {
            "SAM2_THREADS": "4",
            "MINE_X": "it: #1",
            "SAM2_WORKERS": "2",
            **redis,
            "CVAT_FUNCTIONS_REDIS_PASSWORD": "store/password",
        }
        assert spec["platform"]["attributes"]["network"] == "other"
        assert trigger_of(spec)["numWorkers"] == 2
        assert trigger_of(spec)["attributes"] == {"port": 32100, "maxRequestBodySize": BODY_LIMIT}
        gpu = {"nvidia.com/gpu": 1} if "gpu" in name else {}
        assert spec["resources"] == {"limits": {"memory": "6Gi", **gpu}}
    machine.stage("--port 9000")
    assert machine.port() == 9000
    spec = machine.spec()
    assert settings(spec) == {}, "nothing is assumed"
    assert "network" not in spec["platform"]["attributes"]
    assert "resources" not in spec


def test_a_configuration_for_an_image_that_is_built(machine: Machine) -> None:
    machine.stage(f"--image {BUILT}")
    assert {path.name for path in machine.copy.iterdir()} == set(CONFIGS)
    assert "build" not in machine.spec()
    assert machine.calls() == []


# --- the weights


@pytest.mark.parametrize("model", [m for m in MODELS if m.url], ids=lambda m: m.name)
def test_every_model_under_both_names(machine: Machine, model: Any) -> None:
    checksum = "" if model.sha256 else f"--sha256 {SHA256.upper()}"
    for name in filter(None, (model.name, model.hugging_face_id)):
        machine.stage(f"--model {name} {checksum}")
        for config in ("function.yaml", "function-gpu.yaml"):
            assert f"ENV SAM2_MODEL={model.name}" in machine.directives(config)
        record = machine.copy / "weights" / f"{model.file_name}.sha256"
        assert record.exists() == (model.sha256 is None)
        if checksum:
            assert record.read_text() == f"{SHA256}  {model.file_name}\n"


def test_weights_that_are_here_go_along(machine: Machine) -> None:
    (machine.repository / "weights").mkdir()
    for model in ("tiny", "large"):
        (machine.repository / f"weights/sam2.1_hiera_{model}.pt").write_bytes(b"weights")
    machine.stage()
    assert [p.name for p in (machine.copy / "weights").iterdir()] == ["sam2.1_hiera_tiny.pt"]


@pytest.mark.parametrize("form", ["{0}", "{0}/sam2_hiera_small.pt", "file://{0}"])
def test_weights_from_a_folder_or_file(machine: Machine, tmp_path: Path, form: str) -> None:
    source = tmp_path / "mirror"
    source.mkdir()
    (source / "sam2_hiera_small.pt").write_bytes(b"small")
    options = f"--model sam2_hiera_small --sha256 {SHA256}"
    machine.stage(options, SAM2_WEIGHTS_URL=form.format(source))
    assert (machine.copy / "weights/sam2_hiera_small.pt").read_bytes() == b"small"
    assert not any(d.startswith("ARG") for d in machine.directives())


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("name", ["function.yaml", "function-gpu.yaml"])
def test_the_directives_around_pip(machine: Machine, tmp_path: Path, name: str) -> None:
    """What check_image.py does with the pip lines too, which take minutes: all others, for real.

    The checkpoint comes from a mirror, as in a build without access to Meta's server.
    """
    checkpoint = bytes(range(256)) * 999
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "sam2_hiera_small.pt").write_bytes(checkpoint)
    sha256 = hashlib.sha256(checkpoint).hexdigest()
    handler = functools.partial(QuietFiles, directory=tmp_path / "mirror")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as mirror:
        thread = threading.Thread(target=mirror.serve_forever, args=(0.02,))
        thread.start()
        url = f"http://127.0.0.1:{mirror.server_port}"
        machine.stage(f"--model sam2_hiera_small --sha256 {sha256}", SAM2_WEIGHTS_URL=url)
        path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        image = Image(root=tmp_path / "root", chroot=False, environment={"PATH": path})
        (tmp_path / "context").mkdir()
        context = tmp_path / "context"
        (context / "handler").symlink_to(machine.copy)
        directives = machine.spec(name)["build"]["directives"]
        for directive in directives["preCopy"]:
            if "pip install" not in directive["value"]:
                image.apply(directive, context)
        copied = {p.name for p in image.path("/opt/nuclio").iterdir()}
        assert copied == {f"requirements{kind}.txt" for kind in ("", "-torch", "-sam2")}
        shutil.copytree(machine.copy, image.path("/opt/nuclio"), dirs_exist_ok=True)
        for directive in directives["postCopy"]:
            image.apply(directive, context)
        mirror.shutdown()
        thread.join()
    assert image.path("/opt/nuclio/weights/sam2_hiera_small.pt").read_bytes() == checkpoint


def test_ones_own_checkpoint(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "mine_b+.yaml").write_text("model: {}")
    (tmp_path / "mine.pt").write_bytes(b"mine")
    options = f"--config {tmp_path}/mine_b+.yaml --checkpoint {tmp_path}/mine.pt"
    machine.run(f"./deploy_cpu.sh {options}")
    assert machine.calls("nuctl", "deploy")[0][-1] == f"{IMAGE}:{VERSION}-mine"
    machine.stage(options)
    home = "/opt/nuclio/weights"
    step = f"ENV SAM2_CONFIG={home}/mine_b+.yaml SAM2_CHECKPOINT={home}/mine.pt"
    assert step in machine.directives()
    names = sorted(p.name for p in (machine.copy / "weights").iterdir())
    assert names == ["mine.pt", "mine_b+.yaml"]


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ("--config main.py --checkpoint out/function/weights/mine.pt", ""),
        ("--config main.py --checkpoint ./out/../out/function/weights/mine.pt", ""),
        ("--stage out/function/ --config main.py --checkpoint out/function/weights/mine.pt", ""),
        ("", "out/function/weights"),
        ("", "file://{copy}/weights/mine.pt"),
    ],
)
def test_a_checkpoint_in_the_folder_that_is_emptied_is_kept(
    machine: Machine, options: str, url: str
) -> None:
    checkpoint = machine.copy / "weights" / "mine.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"weights")
    url = url.format(copy=machine.copy)
    done = machine.run(f"./deploy_cpu.sh {options}", SAM2_WEIGHTS_URL=url, status=1)
    assert "which is emptied first; move it elsewhere" in done.stderr
    assert checkpoint.read_bytes() == b"weights"


# --- what it is written over


def test_the_clean_copy_is_made_anew_in_any_folder(machine: Machine) -> None:
    other = machine.folder / "R&D $x"
    machine.repository.rename(other)
    machine.name = other.name
    machine.run("./deploy_cpu.sh")
    folder = machine.folder / "with spaces"
    machine.run("./deploy_cpu.sh --stage '../with spaces'")
    (folder / "weights" / "old.pt").write_text("")
    machine.run("./deploy_cpu.sh --stage '../with spaces'")
    assert {p.name for p in folder.iterdir()} == EVERYTHING
    assert not (folder / "weights" / "old.pt").exists()


@pytest.mark.parametrize("options", ["", f"--image {BUILT}"], ids=["copy", "configuration alone"])
def test_nothing_is_written_over_files_that_are_not_ours(machine: Machine, options: str) -> None:
    folder = machine.folder / "another function"
    folder.mkdir()
    for name in ("func.py", ".hidden"):
        for file in ("function.yaml", name):
            (folder / file).write_text("precious")
        error = machine.refuses(f"--stage '{folder}' {options}")
        assert f"holds '{name}', which is not ours" in error
        assert [file.read_text() for file in folder.iterdir()] == ["precious"] * 2
        (folder / name).unlink()
    error = machine.refuses(f"--stage . {options}")
    assert "is the repository itself; name another folder" in error
    assert (machine.repository / "function.yaml").read_text() == (
        ROOT / "function.yaml"
    ).read_text()


@pytest.mark.parametrize("options", ["", f"--image {BUILT}"], ids=["copy", "configuration alone"])
def test_a_stage_that_cannot_be_made(machine: Machine, options: str) -> None:
    (machine.repository / "file").write_text("")
    error = machine.refuses(f"--stage file/copy {options}")
    folder = machine.repository / "file" / "copy"
    assert f"deploy_cpu.sh: the folder '{folder}' cannot be made; name another" in error
