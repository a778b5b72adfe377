# SPDX-License-Identifier: MIT
"""The tracked objects drawn over their frames: a video and a contact sheet."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cvat_action.errors import ActionError
from cvat_action.geometry import points_to_bitmap
from cvat_action.tracking import Tracked, TrackedObject

Picture = NDArray[np.uint8]
"""(height, width, 3), BGR"""
Frames = Callable[[int], Picture]

SHEET_COLUMNS = 4
SHEET_CELL_WIDTH = 400
SHEET_CELLS = 12


def decode_picture(data: bytes, frame: int) -> Picture:
    """Raises ActionError where the bytes are not a picture."""
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ActionError(f"Frame {frame} could not be decoded as a picture.")
    return np.asarray(picture, dtype=np.uint8)


def write_video(
    path: Path, frames: Frames, objects: Sequence[TrackedObject], fps: float = 10.0
) -> None:
    """An MP4 of the seeds' frames and all tracked ones, in frame order."""
    check_suffix(path, ".mp4")
    writer: cv2.VideoWriter | None = None
    size = (0, 0)
    for _, picture in _drawn(frames, objects, _frames_of(objects)):
        if writer is None:
            size = (picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2)
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
            if not writer.isOpened():
                raise ActionError(f"The video {path} cannot be written.")
        writer.write(cv2.resize(picture, size))
    if writer is not None:
        writer.release()


def write_contact_sheet(path: Path, frames: Frames, objects: Sequence[TrackedObject]) -> None:
    """A PNG of up to 12 frames: the first, the last, each object's least certain one, and some."""
    check_suffix(path, ".png")
    cells = []
    for frame, picture in _drawn(frames, objects, _frames_worth_seeing(objects)):
        height = round(picture.shape[0] * SHEET_CELL_WIDTH / picture.shape[1])
        cell = cv2.resize(picture, (SHEET_CELL_WIDTH, height), interpolation=cv2.INTER_AREA)
        for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(
                cell, f"{frame}", (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour, thickness,
                cv2.LINE_AA,
            )  # fmt: skip
        cells.append(cell)
    if not cells:
        return
    height = max(c.shape[0] for c in cells)
    rows = math.ceil(len(cells) / SHEET_COLUMNS)
    columns = min(len(cells), SHEET_COLUMNS)
    sheet = np.full((rows * height, columns * SHEET_CELL_WIDTH, 3), 255, np.uint8)
    for i, cell in enumerate(cells):
        top, left = i // SHEET_COLUMNS * height, i % SHEET_COLUMNS * SHEET_CELL_WIDTH
        sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    if not cv2.imwrite(str(path), sheet):
        raise ActionError(f"The contact sheet {path} cannot be written.")


def check_suffix(path: Path, suffix: str) -> None:
    if path.suffix.lower() != suffix or not path.parent.is_dir():
        raise ActionError(f"{path} must end in {suffix} and lie in a folder that exists.")


def draw(picture: Picture, shown: Sequence[tuple[int, TrackedObject, Tracked]]) -> Picture:
    """Masks and outlines over a copy of `picture`; entries are (number, object, its result)."""
    out = picture.copy()
    height, width = picture.shape[:2]
    for number, o, t in shown:
        if t.points is None:
            continue
        bitmap = points_to_bitmap(o.seed.type, t.points, width, height)
        colour = _colour(number)
        out[bitmap] = (0.55 * out[bitmap] + 0.45 * np.array(colour)).astype(np.uint8)
        outline, _ = cv2.findContours(
            bitmap.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(out, outline, -1, colour, max(1, width // 500))
    return out


def shown_on(
    frame: int, objects: Sequence[TrackedObject]
) -> list[tuple[int, TrackedObject, Tracked]]:
    """What to draw on a frame: results, and seeds on their own frames."""
    shown = []
    for number, o in enumerate(objects):
        if frame == o.seed.frame:
            shown.append((number, o, Tracked(o.seed.points)))
        elif frame in o.frames:
            shown.append((number, o, o.frames[frame]))
    return shown


def _drawn(
    frames: Frames, objects: Sequence[TrackedObject], wanted: Sequence[int]
) -> Iterator[tuple[int, Picture]]:
    for frame in tqdm(wanted, desc="drawing", unit="frame", disable=None):
        yield frame, draw(frames(frame), shown_on(frame, objects))


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


def _colour(number: int) -> tuple[int, int, int]:
    """BGR; neighbours in number are far apart in hue."""
    hue = np.array([[[number * 67 % 180, 220, 255]]], np.uint8)
    blue, green, red = cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0]
    return int(blue), int(green), int(red)
