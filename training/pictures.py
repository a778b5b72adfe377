# SPDX-License-Identifier: MIT
"""Cut-outs and photographs for the composited clips: `python -m training.pictures` fetches them.

They come from Debian packages, are unpacked below out/ and are never committed. Some of them are
held out: the semi-real evaluation set is made of those, and no training clip is.
No torch here.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from training.textures import PICTURES, packaged_picture

Side = Literal["training", "held_out"]

FOLDER = Path("out/pictures")
PACKAGES = (
    "tuxpaint-stamps-default",
    "lomiri-wallpapers-16.04",
    "lomiri-wallpapers-20.04",
    "mate-backgrounds",
    "plasma-workspace-wallpapers",
    "gnome-backgrounds",
    "opencv-doc",
)
STAMPS = "usr/share/tuxpaint/stamps"
LONGEST_CUT_OUT = 384  # pixels of the longer side, in memory
LONGEST_PHOTOGRAPH = 1400
LEAST_CUT_OUT = 60  # a smaller stamp would be all blur

# Stamps that are drawn, that are light without an outline, or that are one picture twice.
_DRAWN = (
    "symbols/", "clothes/hats/", "clothes/t_", "clothes/button", "town/roadsigns/", "town/flags/",
    "town/houses/", "town/monuments/inukshuk-outline", "seasonal/easter/", "seasonal/newyears/",
    "seasonal/hanukkah/", "seasonal/candle", "seasonal/halloween/bat", "seasonal/halloween/black",
    "seasonal/halloween/ghost", "seasonal/halloween/grave-c", "seasonal/halloween/jack",
    "seasonal/halloween/skull", "seasonal/halloween/spider", "seasonal/christmas/Santa",
    "seasonal/christmas/bow", "seasonal/christmas/candy_cane", "seasonal/christmas/hard_candy",
    "seasonal/christmas/lamp", "seasonal/christmas/santahat", "seasonal/christmas/star",
    "seasonal/christmas/stocking", "seasonal/christmas/tree", "seasonal/christmas/xmas_tp",
    "animals/mammals/hedgehog", "animals/mammals/echidna", "food/pizza",
    "food/nuts/walnut_shelled", "medical/tooth", "people/body_parts/", "people/fireman",
    "naturalforces/", "space/planets/0_sun",
    "sports/rugby_goal_posts", "household/dishes/glass", "plants/thyme", "plants/lavender",
    "plants/flowers/appooppanthady", "military/ammunition/",
)  # fmt: skip
# Whole kinds of things, so that the held-out side shows kinds that were never trained on.
_HELD_OUT_STAMPS = (
    "animals/mammals/dogs/", "animals/mammals/cats/", "animals/mammals/equines/",
    "animals/mammals/elephant", "animals/birds/chicken", "animals/birds/hen",
    "animals/birds/rooster",
    "animals/birds/turkey", "animals/birds/penguin", "animals/birds/little-penguin",
    "animals/birds/magellanic_penguin", "animals/lizards/", "household/dishes/",
    "household/kettle", "hobbies/music/percussion/", "vehicles/auto/", "sports/",
    "food/fruit/apple_", "food/vegetables/pepper", "food/vegetables/yellowpepper",
    "food/vegetables/chilepepper", "plants/mushrooms/", "food/vegetables/mushroom",
)  # fmt: skip

_WALLPAPERS, _OPENCV = "usr/share/backgrounds", "usr/share/doc/opencv-doc/examples/data"
_PLASMA = "usr/share/wallpapers/{}/contents/images/{}.jpg"
_PHOTOGRAPHS: dict[Side, tuple[str, ...]] = {
    "training": (
        *(f"{_WALLPAPERS}/{name}.jpg" for name in (
            "Dragonfly_by_Bolly", "Kleiber_by_Lukas_Baubkus", "Painting-Colors_by__herobrine7gamer",
            "Wine_by_Jakkub_Mede", "aitzgorri_by_Aitzol_Berasategi",
            "analogpattern_by_Peter_Nerlich", "free_by_Peter_Nerlich",
            "greentock_by_Peter_Nerlich", "picosdeeuropa_by_Aitzol_Berasategi",
            "seeding_by_Clements_Engelhardt", "sunset_by_Aitzol_Berasategi",
            "umang_by_Abhishek_Mudgal", "mate/abstract/Elephants", "mate/nature/Aqua",
            "mate/nature/Blinds", "mate/nature/Dune", "mate/nature/FreshFlower",
            "mate/nature/Garden", "mate/nature/LadyBird", "mate/nature/RainDrops",
            "mate/nature/Wood", "mate/nature/YellowFlower",
        )),
        *(f"{_WALLPAPERS}/gnome/{name}.webp" for name in ("pixels-l", "wood-d", "wood-l")),
        *(_PLASMA.format(name, "2560x1600") for name in (
            "Autumn", "BytheWater", "ColorfulCups", "EveningGlow", "Kite", "OneStandsOut",
            "summer_1am",
        )),
        _PLASMA.format("Volna", "5120x2880"),
        *(f"{_OPENCV}/{name}" for name in (
            "aero1.jpg", "aloeL.jpg", "apple.jpg", "baboon.jpg", "basketball1.png", "board.jpg",
            "box_in_scene.png", "butterfly.jpg", "chicky_512.png", "ela_original.jpg", "graf1.png",
            "left.jpg", "licenseplate_motion.jpg", "orange.jpg", "rubberwhale1.png",
            "starry_night.jpg", "stuff.jpg",
        )),
    ),
    "held_out": (
        *(f"{_WALLPAPERS}/{name}.jpg" for name in (
            "Bridge_by_Sander_Klootwijk", "friends_by_Aitzol_Berasategi",
            "life_by_Aitzol_Berasategi", "mate/nature/GreenMeadow", "mate/nature/Storm",
            "mate/nature/TwoWings",
        )),
        *(_PLASMA.format(name, "2560x1600") for name in ("ColdRipple", "FallenLeaf", "Path")),
        *(f"{_OPENCV}/{name}" for name in (
            "building.jpg", "fruits.jpg", "home.jpg", "leuvenA.jpg", "messi5.jpg",
            "squirrel_cls.jpg",
        )),
    ),
}  # fmt: skip
# Filmed backgrounds, for the held-out side only.
FILMED = (f"{_OPENCV}/vtest.avi", f"{_OPENCV}/tree.avi")


class NoPicturesError(Exception):
    """The packages are not unpacked, or cannot be fetched on this machine."""


def fetch(folder: Path = FOLDER, packages: Sequence[str] = PACKAGES) -> None:
    """Download and unpack the packages that are missing. Raises NoPicturesError with the reason."""
    missing = [name for name in packages if not (folder / f"{name}.done").exists()]
    if not missing:
        return
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise NoPicturesError(
            "The photographs come from Debian packages, and this machine has no apt-get and "
            "dpkg-deb. Unpack these packages below "
            f"{folder} yourself and create an empty file NAME.done for each: {', '.join(missing)}"
        )
    for name in missing:
        work = folder / "download"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        _run(["apt-get", "download", name], work)
        _run(["dpkg-deb", "-x", next(work.glob("*.deb")).name, ".."], work)
        shutil.rmtree(work)
        (folder / f"{name}.done").touch()


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(  # noqa: S603 (names of packages and files of ours)
        command, cwd=folder, capture_output=True, text=True, timeout=900
    )
    if done.returncode:
        raise NoPicturesError(
            f"`{' '.join(command)}` failed: {done.stderr.strip()[-300:]} "
            "(is the list of packages there? `apt-get update`)."
        )


@lru_cache(maxsize=4)
def cut_out_paths(side: Side, folder: Path = FOLDER) -> tuple[Path, ...]:
    """The stamps of one side, sorted by their names."""
    root = folder / STAMPS
    chosen = []
    for path in sorted(root.rglob("*.png")):
        name = path.relative_to(root).as_posix()
        if "cartoon" in name or "_mirror" in name or name.startswith(_DRAWN):
            continue
        if name.startswith(_HELD_OUT_STAMPS) == (side == "held_out"):
            chosen.append(path)
    if not chosen:
        raise NoPicturesError(f"{root} has no stamps: run `python -m training.pictures`")
    return tuple(chosen)


def photograph_paths(side: Side, folder: Path = FOLDER) -> tuple[Path, ...]:
    return tuple(folder / name for name in _PHOTOGRAPHS[side])


def digest(side: Side, folder: Path = FOLDER) -> str:
    """SHA-256 over the contents of one side's files, so that another release is noticed.

    Raises NoPicturesError where a file is missing.
    """
    total = hashlib.sha256()
    paths = [*cut_out_paths(side, folder), *photograph_paths(side, folder)]
    if side == "held_out":
        paths += [folder / name for name in FILMED]
    for path in paths:
        try:
            total.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError as error:
            raise _unreadable(path) from error
    return total.hexdigest()


def _unreadable(path: Path) -> NoPicturesError:
    return NoPicturesError(f"{path} cannot be read: run `python -m training.pictures`")


def _read(path: Path, flags: int) -> np.ndarray:
    picture = cv2.imread(str(path), flags)
    if picture is None:
        raise _unreadable(path)
    return picture


def _at_most(picture: np.ndarray, longest: int) -> np.ndarray:
    height, width = picture.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return picture
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


@lru_cache(maxsize=512)
def cut_out(path: Path) -> np.ndarray | None:
    """uint8 (H, W, 4), RGB and alpha, cropped to what shows; None for one without an outline.

    The colours go on beyond the outline, so that a soft edge is not mixed with the matte.
    """
    picture = _read(path, cv2.IMREAD_UNCHANGED)
    if picture.ndim != 3 or picture.shape[2] != 4:
        return None
    solid = picture[..., 3] >= 128
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    if not len(rows) or solid.all() or min(len(rows), len(columns)) < 8:
        return None
    picture = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if max(picture.shape[:2]) < LEAST_CUT_OUT:
        return None
    colour = picture[..., 2::-1].astype(np.float32)
    alpha = picture[..., 3].astype(np.float32) / 255
    if (alpha >= 0.5).mean() < 0.05:  # hair and branches: no outline that one could learn
        return None
    weighted = np.concatenate([colour * (alpha >= 0.95)[..., None], (alpha >= 0.95)[..., None]], 2)
    size = (alpha.shape[1], alpha.shape[0])
    weighted = np.asarray(_at_most(weighted.astype(np.float32), LONGEST_CUT_OUT))
    colour, alpha = _at_most(colour, LONGEST_CUT_OUT), _at_most(alpha, LONGEST_CUT_OUT)
    spread = np.zeros_like(colour)
    known = np.zeros(alpha.shape, np.float32)
    for sigma in (2.0, 8.0, 32.0, 128.0):
        blurred = np.asarray(cv2.GaussianBlur(weighted, (0, 0), min(sigma, max(size))))
        weight = blurred[..., 3]
        fresh = (known == 0) & (weight > 1e-3)
        spread[fresh] = blurred[fresh, :3] / weight[fresh][..., None]
        known[fresh] = 1
    firm = np.clip(weighted[..., 3:], 0, 1)
    colour = firm * colour + (1 - firm) * spread
    merged = np.concatenate([colour, alpha[..., None] * 255], 2)
    return np.clip(np.round(merged), 0, 255).astype(np.uint8)


@lru_cache(maxsize=128)
def photograph(path: Path) -> np.ndarray:
    """uint8 (H, W, 3), RGB."""
    return np.ascontiguousarray(
        _at_most(_read(path, cv2.IMREAD_COLOR), LONGEST_PHOTOGRAPH)[..., ::-1]
    )


@lru_cache(maxsize=2)
def filmed(path: Path) -> np.ndarray:
    """uint8 (T, H, W, 3), RGB: at most the first 300 frames of a video."""
    video = cv2.VideoCapture(str(path))
    frames: list[np.ndarray] = []
    while len(frames) < 300:
        read, frame = video.read()
        if not read:
            break
        frames.append(frame[..., ::-1])
    if not frames:
        raise _unreadable(path)
    return np.stack(frames)


def any_photograph(rng: np.random.Generator, side: Side, folder: Path = FOLDER) -> np.ndarray:
    """One of the side's photographs, those of scikit-image among them."""
    paths, own = photograph_paths(side, folder), PICTURES[side]
    choice = int(rng.integers(len(paths) + len(own)))
    if choice < len(paths):
        return photograph(paths[choice])
    return packaged_picture(own[choice - len(paths)])


def any_cut_out(rng: np.random.Generator, side: Side, folder: Path = FOLDER) -> np.ndarray:
    """One of the side's stamps that have an outline."""
    paths = cut_out_paths(side, folder)
    while True:
        found = cut_out(paths[int(rng.integers(len(paths)))])
        if found is not None:
            return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    try:
        fetch(arguments.folder)
    except NoPicturesError as error:
        raise SystemExit(str(error)) from error
    for side in ("training", "held_out"):
        paths = cut_out_paths(side, arguments.folder)
        usable = sum(cut_out(path) is not None for path in paths)
        photographs = photograph_paths(side, arguments.folder)
        for path in photographs:
            photograph(path)
        print(f"{side}: {usable} cut-outs, {len(photographs)} photographs, "
              f"contents {digest(side, arguments.folder)[:16]}")  # fmt: skip


if __name__ == "__main__":
    main()
