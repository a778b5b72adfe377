# SPDX-License-Identifier: MIT
"""Masks drawn over frames, as pictures, a video and a contact sheet. Colours are BGR throughout."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_tracker.shapes import Bitmap

Picture = NDArray[np.uint8]
"""uint8 (height, width, 3), BGR as OpenCV has it."""

OPACITY = 0.45
CELL_WIDTH = 400


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
    """Writes into the picture itself; `at` is the lower left corner of the text."""
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(
            picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.55, colour, thickness, cv2.LINE_AA
        )


def contact_sheet(pictures: Sequence[Picture], captions: Sequence[str], *, columns: int) -> Picture:
    """Pictures side by side, each 400 px wide; raises ValueError if there are none."""
    if not pictures:
        raise ValueError("A contact sheet needs at least one picture.")
    cells = []
    for picture, caption in zip(pictures, captions, strict=True):
        height = round(picture.shape[0] * CELL_WIDTH / picture.shape[1])
        cell = cv2.resize(picture, (CELL_WIDTH, height), interpolation=cv2.INTER_AREA)
        cell = cell.astype(np.uint8, copy=False)
        write_caption(cell, caption)
        cells.append(cell)
    height = max(cell.shape[0] for cell in cells)
    columns = min(columns, len(cells))
    rows = math.ceil(len(cells) / columns)
    sheet = np.full((rows * height, columns * CELL_WIDTH, 3), 255, np.uint8)
    for index, cell in enumerate(cells):
        top, left = index // columns * height, index % columns * CELL_WIDTH
        sheet[top : top + cell.shape[0], left : left + CELL_WIDTH] = cell
    return sheet


class VideoWriter:
    """An MP4 that pictures are written to, all of the first one's size. Raises OSError."""

    def __init__(self, path: Path, frames_per_second: float) -> None:
        self._path = path
        self._rate = frames_per_second
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def write(self, picture: Picture) -> None:
        if self._writer is None:
            # The codec wants even sides.
            self._size = (picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2)
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._path), code, self._rate, self._size)
            if not self._writer.isOpened():
                raise OSError(f"The video {self._path} cannot be written.")
        self._writer.write(cv2.resize(picture, self._size))

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.release()
