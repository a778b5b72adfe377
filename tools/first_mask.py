# SPDX-License-Identifier: MIT
"""Draws the pictures of README's table of first masks: what a person gives, and what comes of it.

    python -m tools.first_mask                                         into docs/images
    python -m tools.first_mask --model sam2.1_hiera_tiny --out out     another model, another folder

The picture is the first one of `make demo`, with its true masks. Nothing but the model decides what
is found.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from cvat_action.overlay import Picture, draw_masks
from interactor import Interactor
from sam2_tracker.click_protocol import ClickRequest, Found
from sam2_tracker.everything import Everything, words_to_everything
from sam2_tracker.protocol import Seed, TrackRequest
from sam2_tracker.settings import settings_from_environment, with_model
from sam2_tracker.shapes import Bitmap, bitmap_to_polygon, bitmap_to_rectangle, mask_to_bitmap
from tools.demo import drawn_clip
from tracker import Tracker, build_tracker

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 360
"""of a picture in README's table"""
CLICKS = 3
MODEL = "sam2.1_hiera_micro"
WORDS = "points_per_side=16 pred_iou_thresh=0.6 stability_score_thresh=0.6"
WHITE, BLACK, GREEN, RED = (255, 255, 255), (0, 0, 0), (60, 220, 60), (60, 60, 255)  # BGR

Point = tuple[float, float]


def drawn(picture: Picture, truth: Sequence[Bitmap]) -> Picture:
    """A polygon around the first object, with its corners."""
    shown = draw_masks(picture, [truth[0]])
    ring = np.array(bitmap_to_polygon(truth[0], tolerance=0.05)).reshape(-1, 2)
    for x, y in ring:
        _dot(shown, (x, y), WHITE)
    return shown


def clicked(picture: Picture, truth: Sequence[Bitmap], interactor: Interactor) -> Picture:
    """Clicks on the first object, each in the middle of what is wrong then."""
    found = np.zeros_like(truth[0])
    clicks: dict[bool, list[Point]] = {True: [], False: []}
    for _ in range(CLICKS):
        missed, beside = truth[0] & ~found, found & ~truth[0]
        on = bool(missed.sum() >= beside.sum())
        clicks[on].append(_middle(missed if on else beside))
        request = ClickRequest(
            image=_encoded(picture),
            positive=[list(point) for point in clicks[True]],
            negative=[list(point) for point in clicks[False]],
        )
        found = _bitmap(interactor.click(request)[0], picture)
    shown = draw_masks(picture, [found])
    for on, points in clicks.items():
        for point in points:
            _dot(shown, point, GREEN if on else RED, radius=7)
    return shown


def detected(picture: Picture, truth: Sequence[Bitmap], tracker: Tracker) -> Picture:
    """The boxes of all objects, as a detector finds them, and the masks that they become."""
    boxes = [bitmap_to_rectangle(mask) for mask in truth]
    seeds = tuple(Seed(type="rectangle", points=box, answer="mask") for box in boxes)
    answers = tracker.track(TrackRequest(image=_encoded(picture), entries=seeds))
    height, width = picture.shape[:2]
    shown = draw_masks(
        picture,
        [
            mask_to_bitmap(a.shape.points, width=width, height=height) if a.shape else None
            for a in answers
        ],
    )
    for left, top, right, bottom in boxes:
        corners = (round(left), round(top)), (round(right), round(bottom))
        cv2.rectangle(shown, *corners, BLACK, 5)
        cv2.rectangle(shown, *corners, WHITE, 3)
    return shown


def everything(picture: Picture, wanted: Everything, interactor: Interactor) -> Picture:
    """A grid of clicks, and all masks that are sure and stable."""
    found, message = interactor.find_all(_encoded(picture), wanted)
    if message:
        raise SystemExit(f"{message} Say so with --everything.")
    shown = draw_masks(picture, [_bitmap(each, picture) for each in found])
    for point in wanted.points(picture.shape[1], picture.shape[0]):
        _dot(shown, point, WHITE, radius=2)
    return shown


def _bitmap(found: Found, picture: Picture) -> Bitmap:
    height, width = picture.shape[:2]
    return mask_to_bitmap(found.mask, width=width, height=height)


def _middle(mask: Bitmap) -> Point:
    """The point of a mask that is farthest from its edge: the middle of that pixel."""
    padded = np.pad(mask.astype(np.uint8), 1)
    y, x = np.unravel_index(cv2.distanceTransform(padded, cv2.DIST_L2, 3).argmax(), padded.shape)
    return float(x) - 0.5, float(y) - 0.5


def _dot(picture: Picture, point: Point, colour: tuple[int, int, int], *, radius: int = 4) -> None:
    at = round(point[0]), round(point[1])
    cv2.circle(picture, at, radius + 2, BLACK, -1, cv2.LINE_AA)
    cv2.circle(picture, at, radius, colour, -1, cv2.LINE_AA)


def _encoded(picture: Picture) -> bytes:
    return cv2.imencode(".png", picture)[1].tobytes()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.first_mask", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--model", default=MODEL, help="default: the bundled model")
    parser.add_argument("--everything", default=WORDS, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="the folder")
    options = parser.parse_args(arguments)
    clip = drawn_clip()
    if clip.truth is None:
        raise SystemExit("The clip has no true masks.")
    picture, truth = clip.frames[0], sorted(clip.truth[0], key=np.sum, reverse=True)
    # A slow machine draws them, too.
    environment = with_model(os.environ, options.model) | {"SAM2_TIME_BUDGET_SECONDS": "3600"}
    tracker = build_tracker(settings_from_environment(environment))
    interactor = Interactor(tracker.model, tracker.settings)
    wanted = words_to_everything([f"everything {options.everything}"])
    ways: dict[str, Callable[[], Picture]] = {
        "drawn": lambda: drawn(picture, truth),
        "clicked": lambda: clicked(picture, truth, interactor),
        "detected": lambda: detected(picture, truth, tracker),
        "everything": lambda: everything(picture, wanted, interactor),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for name, draw in ways.items():
        shown = draw()
        height = round(shown.shape[0] * WIDTH / shown.shape[1])
        small = cv2.resize(shown, (WIDTH, height), interpolation=cv2.INTER_AREA)
        path = options.out / f"first_mask_{name}.jpg"
        if not cv2.imwrite(str(path), small, [cv2.IMWRITE_JPEG_QUALITY, 88]):
            raise SystemExit(f"{path} cannot be written.")
        print(os.path.relpath(path))
    tracker.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
