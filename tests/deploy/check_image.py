# SPDX-License-Identifier: MIT
"""Carries out the build directives of a function yaml for real, then runs the function.

    python tests/deploy/check_image.py                  # function.yaml, in a fresh venv
    python tests/deploy/check_image.py --gpu            # function-gpu.yaml (6 GB of downloads)
    python tests/deploy/check_image.py --dockerfile     # the Dockerfile instead of function.yaml
    python tests/deploy/check_image.py --debian DIR     # as root: in a fresh Debian of debootstrap

It does what `docker build` does with the Dockerfile that Nuclio writes, with what is at hand
without Docker: the directives in their order, Nuclio's own step between them (the function's folder
to /opt/nuclio, then nuclio-sdk), and at the end the function's init_context and handler in what was
built. A pin that does not exist, a package that needs a compiler, a system library that is missing,
a module that is not in the clean copy: each ends it with the command that failed. With --debian the
base is a Debian bookworm with Python 3.11 and nothing else, as in the base image.

The model is the bundled one, given as one's own checkpoint, so that nothing but package registries
is needed; tests of their own cover the download. Of what Nuclio's images bring, only the two Python
packages are put in their place; its processor is not run.
"""

import argparse
import atexit
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from dockerfile import build_arguments, read_dockerfile

ROOT = Path(__file__).resolve().parents[2]
NUCLIO_HOME = "/opt/nuclio"
NUCLIO_PACKAGES = "nuclio-sdk==0.6.3 msgpack"
DEBIAN = "bookworm"
DEBIAN_PACKAGES = "python3,python3-venv,ca-certificates"


@dataclass
class Image:
    """A folder that takes the place of the image's root."""

    root: Path
    chroot: bool
    environment: dict[str, str] = field(default_factory=dict)
    directory: str = "/"

    def path(self, inside: str) -> Path:
        return self.root / os.path.join(self.directory, inside).lstrip("/")

    def run(self, command: str) -> None:
        print(f"\n$ {command}", flush=True)
        if self.chroot:
            inner = f"cd {shlex.quote(self.directory)} && {command}"
            words = ["chroot", str(self.root), "sh", "-c", inner]
        else:
            words = ["sh", "-c", command.replace(f" {NUCLIO_HOME}", f" {self.root}{NUCLIO_HOME}")]
        # S603: the commands are those of our own yaml; running them is what this file is for.
        done = subprocess.run(  # noqa: S603
            words, env=self.environment, cwd=None if self.chroot else self.path(".")
        )
        if done.returncode:
            sys.exit(f"check_image.py: this fails in the image build: {command}")

    def apply(self, directive: Mapping[str, str], context: Path) -> None:
        kind, value = directive["kind"], directive["value"]
        if kind in ("HEALTHCHECK", "CMD") or value.startswith("--from="):
            return  # Nuclio's
        if kind in ("ENV", "ARG"):
            for pair in shlex.split(value):
                name, _, text = pair.partition("=")
                if not self.chroot and text.startswith(NUCLIO_HOME):
                    text = f"{self.root}{text}"
                self.environment[name] = text
        elif kind == "WORKDIR":
            self.directory = value
            self.path(".").mkdir(parents=True, exist_ok=True)
        elif kind == "COPY":
            *sources, target = shlex.split(value)
            for source in sources:
                if (context / source).is_dir():
                    shutil.copytree(context / source, self.path(target), dirs_exist_ok=True)
                else:
                    shutil.copy2(context / source, self.path(target))
        elif kind == "RUN":
            self.run(value)
        else:
            sys.exit(f"check_image.py: no one has told me what {kind} does.")


def fresh_venv(folder: Path) -> Image:
    venv.create(folder / "venv", with_pip=True, symlinks=True)
    names = [n for n in os.environ if n in ("HOME", "LANG") or n.startswith(("PIP_", "SSL_"))]
    path = f"{folder}/venv/bin:/usr/bin:/bin"
    environment = {name: os.environ[name] for name in names} | {"PATH": path}
    return Image(root=folder, chroot=False, environment=environment)


def fresh_debian(folder: Path) -> Image:
    """Debian's own Python, in a venv because Debian closes the system's one to pip."""
    if not (folder / "usr/bin/python3").exists():
        words = ["debootstrap", "--variant=minbase", f"--include={DEBIAN_PACKAGES}"]
        subprocess.run([*words, DEBIAN, str(folder)], check=True)  # noqa: S603
    for name in ("resolv.conf", "hosts", "ssl/certs/ca-certificates.crt", "pip.conf"):
        if Path("/etc", name).exists():
            shutil.copy(Path("/etc", name), folder / "etc" / name)
    for name in ("usr/local/python", NUCLIO_HOME[1:]):
        shutil.rmtree(folder / name, ignore_errors=True)
    path = "/usr/local/python/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    image = Image(root=folder, chroot=True, environment={"PATH": path, "HOME": "/root"})
    mount_proc(folder)
    image.run("python3 -m venv /usr/local/python")
    return image


def mount_proc(folder: Path) -> None:
    """Until this program ends: whoever removes the folder must not meet a live /proc in it."""
    proc = str(folder / "proc")
    if subprocess.run(["mount", "-t", "proc", "proc", proc]).returncode == 0:  # noqa: S603
        atexit.register(subprocess.run, ["umount", proc])


def stage(folder: Path, options: argparse.Namespace) -> dict[str, str]:
    """Returns the arguments that the Dockerfile takes for this copy."""
    words = [f"./deploy_{'gpu' if options.gpu else 'cpu'}.sh", "--stage", str(folder)]
    words += ["--config", str(options.config), "--checkpoint", str(options.checkpoint)]
    words += ["--torch-index", options.torch_index] if options.torch_index else []
    done = subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    print(done.stdout)
    return build_arguments(done.stdout)


def carry_out_yaml(image: Image, context: Path, options: argparse.Namespace) -> None:
    handler = context / "handler"
    name = "function-gpu.yaml" if options.gpu else "function.yaml"
    directives = yaml.safe_load((handler / name).read_text())["spec"]["build"]["directives"]
    for directive in directives["preCopy"]:
        image.apply(directive, context)
    shutil.copytree(handler, image.path(NUCLIO_HOME), dirs_exist_ok=True)
    image.run(f"pip install {NUCLIO_PACKAGES}")  # Nuclio brings these as wheels
    for directive in directives["postCopy"]:
        image.apply(directive, context)


def carry_out_dockerfile(image: Image, context: Path, arguments: dict[str, str]) -> None:
    for directive in read_dockerfile(ROOT / "Dockerfile", **arguments):
        if "--no-index" in directive["value"]:
            image.run(f"pip download --dest {NUCLIO_HOME}/whl {NUCLIO_PACKAGES}")
        image.apply(directive, context)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--gpu", action="store_true", help="function-gpu.yaml")
    parser.add_argument("--dockerfile", action="store_true", help="the steps of the Dockerfile")
    parser.add_argument("--debian", type=Path, metavar="DIR", help="needs root and debootstrap")
    parser.add_argument("--torch-index", metavar="URL", help="as in deploy_cpu.sh")
    micro = ROOT / "models" / "sam2.1_hiera_micro.yaml"
    parser.add_argument("--config", type=Path, default=micro)
    parser.add_argument("--checkpoint", type=Path, default=micro.with_suffix(".safetensors"))
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        context = Path(temporary) / "context"
        handler = context / "handler"
        arguments = stage(handler, options)
        image = (
            fresh_debian(options.debian) if options.debian else fresh_venv(Path(temporary) / "root")
        )
        if options.dockerfile:
            carry_out_dockerfile(image, handler, arguments)
        else:
            carry_out_yaml(image, context, options)

        shutil.copy(Path(__file__).with_name("probe_function.py"), image.path(NUCLIO_HOME))
        image.run("python probe_function.py")
        image.run("du -shx $(dirname $(dirname $(command -v python)))")
    print("\ncheck_image.py: the build works, and the function that was built tracks.")


if __name__ == "__main__":
    main()
