# SPDX-License-Identifier: MIT
"""Points of polygons and keyframes of tracks: what a person has to drag.

    python -m benchmarks tracks
    python -m benchmarks tracks --clip DIR --clip DIR --picture docs/images/sparse_keyframes.png

Without --clip: drawn clips, some of rigid things and some of the evaluation set. A clip is a folder
in the form of DAVIS, with `Annotations/*.png` (the value of a pixel is the number of its object).
Prints three tables: points and IoU by tolerance; sparse keyframes of polygons; of rectangles.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cvat_action.interpolation import points_to_ring, polygon_between
from cvat_action.keyframes import Result, limit_for, sparse_keyframes
from cvat_action.limits import PolygonTruth, RectangleTruth
from sam2_tracker.shapes import (
    Bitmap,
    bitmap_to_polygon,
    bitmap_to_rectangle,
    polygon_to_bitmap,
)
from training.evaluation_set import SUBSETS
from training.metrics import jaccard
from training.real_clip import NoClipError

TOLERANCES = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05)
SPARSE_IOU = 0.97
SMALLEST = 30  # pixels of a mask that counts as visible
CLIPS_OF_EACH = 2
RIGID_FRAMES = 100
CAR = np.array(
    [[-70, 20], [-60, -6], [-34, -10], [-20, -34], [24, -34], [44, -10], [70, -6], [72, 20]]
)


@dataclass(frozen=True)
class Masks:
    """One object of a clip, by frame, where it is visible without a gap."""

    name: str
    frames: dict[int, Bitmap]

    @property
    def size(self) -> tuple[int, int]:
        height, width = next(iter(self.frames.values())).shape
        return width, height


@dataclass(frozen=True)
class Row:
    name: str
    frames: int
    keyframes: int
    points: int
    dense_points: int
    outside: int
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks tracks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--clip", type=Path, action="append", default=[], metavar="DIR")
    what = "draw the first object (of the drawn clips: the one that turns)"
    parser.add_argument("--picture", type=Path, metavar="PNG", help=what)
    options = parser.parse_args(arguments)
    masks = [m for clip in options.clip for m in folder_masks(clip)] or [*rigid(), *drawn()]
    print(polygon_table(masks))
    for kind in ("polygon", "rectangle"):
        print(f"\n{kind}s, sparse\n\n{sparse_table(masks, kind)}")
    if options.picture:
        draw(masks[0] if options.clip else masks[1], options.picture)
    return 0


# --- clips ---------------------------------------------------------------------------------------


def folder_masks(folder: Path) -> Iterator[Masks]:
    """Each object of `Annotations/*.png`, for each time that it is visible without a gap.

    The digits of a file's name are the number of its frame. Raises NoClipError where there are no
    masks, or where one has colours and not the numbers of objects.
    """
    files = sorted((folder / "Annotations").glob("*.png"))
    if not files:
        raise NoClipError(f"{folder} has no masks: there is no Annotations/*.png in it.")
    images: dict[int, NDArray[Any]] = {}
    for file in files:
        # OpenCV would give the colours of a palette, and DAVIS numbers its objects by a palette.
        try:
            image = np.asarray(Image.open(file))
        except OSError as error:
            raise NoClipError(f"{file} is not a picture.") from error
        if image.ndim != 2:
            raise NoClipError(f"{file} has colours, and not one number of an object per pixel.")
        images[int("".join(filter(str.isdigit, file.stem)))] = image
    for number in sorted({int(n) for image in images.values() for n in np.unique(image)} - {0}):
        found = {frame: image == number for frame, image in images.items()}
        yield from _runs(f"{folder.name} {number}", found)


def rigid() -> Iterator[Masks]:
    """The outline of a car that moves, turns slowly and grows, over 100 frames of 640 x 480."""
    moves: dict[str, Callable[[int], NDArray[np.float64]]] = {
        "translation": lambda n: CAR + (100 + 4.3 * n, 90 + 0.9 * n),
        "slow rotation": lambda n: _turned(CAR, n * np.pi / 180) + (320, 240),
        "growth": lambda n: CAR * (1 + 0.01 * n) + (320, 240),
    }
    for name, move in moves.items():
        frames = {
            n: polygon_to_bitmap(move(n).astype(float).ravel().tolist(), width=640, height=480)
            for n in range(RIGID_FRAMES)
        }
        yield Masks(name, frames)


def drawn() -> Iterator[Masks]:
    for subset in SUBSETS:
        for number in range(min(CLIPS_OF_EACH, subset.clips)):
            clip = subset.draw(number)
            for index in range(clip.masks.shape[1]):
                name = f"{subset.name} {number}.{index}"
                yield from _runs(name, dict(enumerate(clip.masks[:, index])))


def _runs(name: str, frames: dict[int, Bitmap]) -> Iterator[Masks]:
    run: dict[int, Bitmap] = {}
    for frame in (*sorted(frames), None):
        if frame is not None and np.count_nonzero(frames[frame]) >= SMALLEST:
            run[frame] = frames[frame]
        elif run:
            yield Masks(name, run)
            run = {}


def _turned(ring: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    return np.asarray(ring @ np.array([[c, s], [-s, c]]))


# --- tables --------------------------------------------------------------------------------------


def polygon_table(masks: Sequence[Masks]) -> str:
    """Points per polygon and IoU with the mask (its largest part, holes filled) by tolerance."""
    rows = []
    for tolerance in TOLERANCES:
        points, ious = [], []
        for each in masks:
            width, height = each.size
            for bitmap in each.frames.values():
                exact = bitmap_to_polygon(bitmap)
                mask = polygon_to_bitmap(exact, width=width, height=height)
                polygon = bitmap_to_polygon(bitmap, tolerance=tolerance)
                filled = polygon_to_bitmap(polygon, width=width, height=height)
                points.append(len(polygon) // 2)
                ious.append(jaccard(filled, mask))
        rows.append(
            f"| {tolerance:g} | {np.mean(points):.0f} | {max(points)} "
            f"| {np.mean(ious):.3f} | {min(ious):.3f} |"
        )
    head = "| tolerance | points, mean | points, most | IoU, mean | IoU, least |"
    return "\n".join((head, "|---|---|---|---|---|", *rows))


def sparse_table(masks: Sequence[Masks], kind: str) -> str:
    lines = [
        "| clip | frames | keyframes per 100 frames | points per keyframe "
        "| points per track, dense and exact | points per track, sparse "
        "| frames outside the limit | s per 100 frames |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in masks:
        row = sparse_row(each, kind)
        lines.append(
            f"| {row.name} | {row.frames} | {100 * row.keyframes / row.frames:.0f} "
            f"| {row.points / row.keyframes:.0f} | {row.dense_points} | {row.points} "
            f"| {row.outside} | {100 * row.seconds / row.frames:.1f} |"
        )
    return "\n".join(lines)


def sparse_row(masks: Masks, kind: str) -> Row:
    results = _results(masks, kind)
    width, height = masks.size
    began = time.process_time()
    keyframes = sparse_keyframes(kind, results, iou=SPARSE_IOU, width=width, height=height)
    seconds = time.process_time() - began
    limit = limit_for(kind, SPARSE_IOU, width, height)
    truth = PolygonTruth if kind == "polygon" else RectangleTruth
    outside = sum(
        not truth(points_to_ring(result.points)).within(
            points_to_ring(_shown(kind, keyframes, frame)), limit
        )
        for frame, result in results.items()
    )
    return Row(
        masks.name,
        len(results),
        len(keyframes),
        sum(len(points) // 2 for points in keyframes.values()),
        sum(len(result.points) // 2 for result in results.values()),
        outside,
        seconds,
    )


def _results(masks: Masks, kind: str) -> dict[int, Result]:
    to_points = bitmap_to_polygon if kind == "polygon" else bitmap_to_rectangle
    return {f: Result(tuple(map(float, to_points(b)))) for f, b in masks.frames.items()}


def _shown(kind: str, keyframes: dict[int, tuple[float, ...]], frame: int) -> Sequence[float]:
    """What CVAT shows on a frame."""
    if frame in keyframes:
        return keyframes[frame]
    left, right = max(f for f in keyframes if f < frame), min(f for f in keyframes if f > frame)
    share = (frame - left) / (right - left)
    a, b = keyframes[left], keyframes[right]
    if kind == "polygon":
        return polygon_between(a, b, share)
    return [p + (q - p) * share for p, q in zip(a, b, strict=True)]


# --- picture -------------------------------------------------------------------------------------


def draw(masks: Masks, path: Path) -> None:
    """Six frames: the exact outline on the left, what is left of it when it is sparse right.

    Corners are dots; where CVAT interpolates, there is no corner to drag.
    """
    results = _results(masks, "polygon")
    width, height = masks.size
    keyframes = sparse_keyframes("polygon", results, iou=SPARSE_IOU, width=width, height=height)
    frames = sorted(results)
    chosen = [frames[round(i * (len(frames) - 1) / 5)] for i in range(6)]
    rows = []
    for frame in chosen:
        shown = _shown("polygon", keyframes, frame)
        exact = _panel(masks.frames[frame], results[frame].points, True, f"frame {frame}: exact")
        kind = "keyframe" if frame in keyframes else "interpolated by CVAT"
        sparse = _panel(masks.frames[frame], shown, frame in keyframes, f"frame {frame}: {kind}")
        rows.append(np.hstack((exact, sparse)))
    grid = [np.hstack(rows[i : i + 2]) for i in range(0, 6, 2)]
    if not cv2.imwrite(str(path), np.vstack(grid)):
        raise ValueError(f"{path} cannot be written.")


def _panel(
    mask: Bitmap, points: Sequence[float], corners: bool, caption: str, side: int = 320
) -> NDArray[np.uint8]:
    y, x = np.nonzero(mask)
    middle = np.array([(x.min() + x.max() + 1) / 2, (y.min() + y.max() + 1) / 2])
    scale = 0.8 * side / max(np.ptp(x) + 1, np.ptp(y) + 1)
    ring = (points_to_ring(points) - middle) * scale + side / 2
    moved = np.array([[scale, 0, 0], [0, scale, 0]], np.float64)
    moved[:, 2] = side / 2 - scale * middle
    filled = cv2.warpAffine(mask.astype(np.uint8), moved, (side, side), flags=cv2.INTER_NEAREST)
    panel = np.full((side, side, 3), 255, np.uint8)
    panel[filled > 0] = (225, 225, 225)
    outline = [np.round(ring).astype(np.int32)[:, None]]
    colour = (40, 90, 220) if corners else (60, 150, 60)
    cv2.polylines(panel, outline, True, colour, 1, cv2.LINE_AA)
    if corners:
        for corner in np.round(ring).astype(int).tolist():
            cv2.circle(panel, corner, 3, colour, -1, cv2.LINE_AA)
    text = f"{caption}, {len(ring)} points"
    cv2.putText(panel, text, (8, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.rectangle(panel, (0, 0), (side - 1, side - 1), (200, 200, 200), 1)
    return panel


if __name__ == "__main__":
    main()
