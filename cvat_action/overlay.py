# SPDX-License-Identifier: MIT
"""Masks drawn over frames, as pictures, a video and a contact sheet. Colours are BGR throughout."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cvat_action.put_in_place import put_in_place
from sam2_tracker.shapes import Bitmap

Picture = NDArray[np.uint8]
"""uint8 (height, width, 3), BGR as OpenCV has it."""
Frames = Callable[[int], Picture]
"""Gives a frame; raises ActionError where it cannot be read."""

OPACITY = 0.45
CELL_WIDTH = 400
SHEET_COLUMNS = 4


def object_colour(number: int) -> tuple[int, int, int]:
    """A colour for the object of this number; neighbours in number are far apart in hue."""
    hue = np.array([[[number * 67 % 180, 220, 255]]], np.uint8)
    blue, green, red = cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0].tolist()
    return blue, green, red


def draw_masks(
    picture: Picture, bitmaps: Iterable[Bitmap | None], names: Sequence[str] = ()
) -> Picture:
    """A copy of the picture with tinted, outlined masks and the names of the objects beside them.

    bitmaps: one per object, bool (height, width); None: the object is not visible here. They are
    taken one at a time, so a generator of many takes little memory.
    """
    drawn = picture.copy()
    line = max(1, picture.shape[1] // 400)
    topmost: dict[int, tuple[int, int]] = {}
    for number, bitmap in enumerate(bitmaps):
        if bitmap is None:
            continue
        colour = object_colour(number)
        tinted = (1 - OPACITY) * drawn[bitmap] + OPACITY * np.array(colour)
        drawn[bitmap] = tinted.astype(np.uint8)
        outlines, _ = cv2.findContours(
            bitmap.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(drawn, outlines, -1, (255, 255, 255), 3 * line)
        cv2.drawContours(drawn, outlines, -1, colour, line)
        y, x = divmod(int(bitmap.argmax()), bitmap.shape[1])
        topmost[number] = (x, max(14, y - 6))
    for number, at in topmost.items():
        if number < len(names):
            write_caption(drawn, names[number], at=at)
    return drawn


def write_caption(picture: NDArray[Any], text: str, at: tuple[int, int] = (8, 20)) -> None:
    """Writes into the picture itself, in white with a black edge.

    at: the lower left corner of the text, which begins further left where it would not fit.
    """
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.55
    (width, _), _ = cv2.getTextSize(text, font, size, 1)
    left = max(1, min(at[0], picture.shape[1] - width - 2))
    # The edge is the same text beside itself: a thicker one would be wider.
    beside = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if (x, y) != (0, 0)]
    for (x, y), colour in (*((b, (0, 0, 0)) for b in beside), ((0, 0), (255, 255, 255))):
        cv2.putText(picture, text, (left + x, at[1] + y), font, size, colour, 1, cv2.LINE_AA)


def contact_sheet(pictures: Sequence[Picture], captions: Sequence[str]) -> Picture:
    """Pictures, at least one, side by side; each is CELL_WIDTH px wide."""
    cells = []
    for picture, caption in zip(pictures, captions, strict=True):
        height = round(picture.shape[0] * CELL_WIDTH / picture.shape[1])
        cell = cv2.resize(picture, (CELL_WIDTH, height), interpolation=cv2.INTER_AREA)
        cell = cell.astype(np.uint8, copy=False)
        write_caption(cell, caption)
        cells.append(cell)
    height = max(cell.shape[0] for cell in cells)
    columns = min(SHEET_COLUMNS, len(cells))
    rows = math.ceil(len(cells) / columns)
    sheet = np.full((rows * height, columns * CELL_WIDTH, 3), 255, np.uint8)
    for index, cell in enumerate(cells):
        top, left = index // columns * height, index % columns * CELL_WIDTH
        sheet[top : top + cell.shape[0], left : left + CELL_WIDTH] = cell
    return sheet


def write_picture(path: Path, picture: Picture, parameters: Sequence[int] = ()) -> None:
    """In the format of the path's suffix. Raises OSError."""
    _, data = cv2.imencode(path.suffix, picture, parameters)
    with put_in_place(path) as part:
        part.write_bytes(data.tobytes())


@contextmanager
def new_video(path: Path, frames_per_second: float) -> Iterator["VideoWriter"]:
    """An MP4, which is in its place when the `with` ends. Raises OSError."""
    with put_in_place(path) as part:
        video = VideoWriter(part, frames_per_second)
        try:
            yield video
        finally:
            video.release()
        video.check_whole()


class VideoWriter:
    """An MP4 that pictures are written to, all of the first one's size. Raises OSError."""

    def __init__(self, path: Path, frames_per_second: float) -> None:
        self._path = path
        # The codec knows no others, and a film may say anything.
        self._rate = min(max(frames_per_second, 0.1), 1000.0)
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._count = 0

    def write(self, picture: Picture) -> None:
        if self._writer is None:
            # The codec wants even sides.
            self._size = (picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2)
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._path), code, self._rate, self._size)
            if not self._writer.isOpened():
                raise OSError("OpenCV cannot begin it")
        self._writer.write(cv2.resize(picture, self._size))
        self._count += 1

    def release(self) -> None:
        if self._writer is not None:
            self._writer.release()

    def check_whole(self) -> None:
        """OpenCV does not say that it could not write, so the frames are counted."""
        capture, found = cv2.VideoCapture(str(self._path)), 0
        while capture.grab():
            found += 1
        capture.release()
        if found != self._count:
            raise OSError(
                f"{found} of {self._count} frames are in it at the end, as on a disk that is full"
            )
