# SPDX-License-Identifier: MIT
"""The tracked objects drawn over their frames: a video and a contact sheet."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from cvat_action.errors import ActionError
from cvat_action.geometry import points_to_bitmap
from cvat_action.overlay import Picture, VideoFile, contact_sheet, draw_masks
from cvat_action.tracking import TrackedObject

Frames = Callable[[int], Picture]

SHEET_COLUMNS = 4
SHEET_CELLS = 12


def decode_picture(data: bytes, frame: int, size: tuple[int, int]) -> Picture:
    """The picture in the frame's own size (width, height), which the shapes belong to.

    CVAT halves the pictures of some tasks for its page. Raises ActionError where the bytes are not
    a picture.
    """
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ActionError(f"Frame {frame} could not be decoded as a picture.")
    if picture.shape[1::-1] != size:
        picture = cv2.resize(picture, size)
    return np.asarray(picture, dtype=np.uint8)


def write_video(
    path: Path, frames: Frames, objects: Sequence[TrackedObject], fps: float = 10.0
) -> None:
    """An MP4 of the seeds' frames and all tracked ones, in frame order."""
    try:
        with VideoFile(path, fps) as video:
            for _, picture in _drawn(frames, objects, _frames_of(objects)):
                video.write(picture)
    except OSError as error:
        raise ActionError(str(error)) from None


def write_contact_sheet(path: Path, frames: Frames, objects: Sequence[TrackedObject]) -> None:
    """A PNG of up to 12 frames: the first, the last, each object's least certain one, and some."""
    drawn = list(_drawn(frames, objects, _frames_worth_seeing(objects)))
    captions = [f"frame {frame}" for frame, _ in drawn]
    sheet = contact_sheet([picture for _, picture in drawn], captions, columns=SHEET_COLUMNS)
    if not cv2.imwrite(str(path), sheet):
        raise ActionError(f"The contact sheet {path} cannot be written.")


def check_suffix(path: Path, suffix: str) -> None:
    if path.suffix.lower() != suffix or not path.parent.is_dir():
        raise ActionError(f"{path} must end in {suffix} and lie in a folder that exists.")


def draw(picture: Picture, frame: int, objects: Sequence[TrackedObject]) -> Picture:
    """A copy of the picture with the results of `frame`, or the seeds that were drawn on it."""
    height, width = picture.shape[:2]
    bitmaps = []
    for o in objects:
        points = o.seed.points if frame == o.seed.frame else None
        if frame in o.frames:
            points = o.frames[frame].points
        bitmaps.append(
            None if points is None else points_to_bitmap(o.seed.type, points, width, height)
        )
    bitmaps = [b if b is not None and b.any() else None for b in bitmaps]
    return draw_masks(picture, bitmaps, [o.seed.ref for o in objects])


def _drawn(
    frames: Frames, objects: Sequence[TrackedObject], wanted: Sequence[int]
) -> Iterator[tuple[int, Picture]]:
    for frame in tqdm(wanted, desc="drawing", unit="frame", disable=None):
        yield frame, draw(frames(frame), frame, objects)


def _frames_of(objects: Sequence[TrackedObject]) -> list[int]:
    return sorted({f for o in objects for f in (o.seed.frame, *o.frames)})


def _frames_worth_seeing(objects: Sequence[TrackedObject]) -> list[int]:
    every = _frames_of(objects)
    if len(every) <= SHEET_CELLS:
        return every
    worst = {
        min((t.score, f) for f, t in o.frames.items() if t.score is not None)[1]
        for o in objects
        if any(t.score is not None for t in o.frames.values())
    }
    chosen = {every[0], every[-1], *sorted(worst)[: SHEET_CELLS // 2]}
    for step in range(SHEET_CELLS):
        if len(chosen) >= SHEET_CELLS:
            break
        chosen.add(every[round(step * (len(every) - 1) / (SHEET_CELLS - 1))])
    return sorted(chosen)
