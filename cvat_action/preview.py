# SPDX-License-Identifier: MIT
"""The tracked objects drawn over their frames: a video and a contact sheet."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from cvat_action import own_files
from cvat_action.errors import ActionError
from cvat_action.geometry import points_to_bitmap
from cvat_action.job import Job, Wire
from cvat_action.overlay import (
    Frames,
    Picture,
    contact_sheet,
    draw_masks,
    new_video,
    write_picture,
)
from cvat_action.positions import counting_keyframes, position_among
from cvat_action.put_in_place import check_can_put
from cvat_action.seeds import Seed
from cvat_action.tracked import Tracked
from sam2_tracker.shapes import Bitmap

Results = Mapping[int, Sequence[Tracked | None]]
"""the results of all objects, in the order of the seeds, by frame"""

SHEET_CELLS = 12


def decode_picture(data: bytes, frame: int, size: tuple[int, int]) -> Picture:
    """The picture in the frame's own size (width, height), which the shapes belong to.

    CVAT halves the pictures of some tasks for its page. Raises ActionError where the bytes are not
    a picture.
    """
    # OpenCV raises an error of its own where there is no byte at all
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if picture is None:
        raise ActionError(f"Frame {frame} could not be decoded as a picture.")
    if picture.shape[1::-1] != size:
        picture = cv2.resize(picture, size)
    return np.asarray(picture, dtype=np.uint8)


def as_cvat_shows(
    job: Job, seeds: Sequence[Seed], results: Results, tracks: Mapping[str, Wire]
) -> dict[int, list[Tracked | None]]:
    """The results with what CVAT makes of the tracks' keyframes in their place.

    tracks: by the name of the seed.
    """
    shown = {frame: list(here) for frame, here in results.items()}
    for index, seed in enumerate(seeds):
        if seed.ref not in tracks:
            continue
        keyframes = counting_keyframes(job, tracks[seed.ref]["shapes"])
        for frame, here in shown.items():
            result, position = here[index], position_among(keyframes, frame)
            if result is not None:
                there = position is not None and not position["outside"]
                points = tuple(position["points"]) if position and there else None
                here[index] = replace(result, points=points)
    return shown


def write_video(
    path: Path, frames: Frames, seeds: Sequence[Seed], results: Results, fps: float = 10.0
) -> None:
    """An MP4 of the seeds' frames and all tracked ones, in frame order."""
    with written(path), new_video(path, fps) as video:
        for _, picture in _drawn(frames, seeds, results, _frames_of(seeds, results)):
            video.write(picture)


def write_contact_sheet(
    path: Path, frames: Frames, seeds: Sequence[Seed], results: Results
) -> None:
    """A PNG of up to 12 frames: the first, the last, each object's least certain one, and some."""
    drawn = list(_drawn(frames, seeds, results, _frames_worth_seeing(seeds, results)))
    captions = [f"frame {frame}" for frame, _ in drawn]
    sheet = contact_sheet([picture for _, picture in drawn], captions)
    with written(path):
        write_picture(path, sheet)


@contextmanager
def written(path: Path) -> Iterator[None]:
    """What is written here may be written over the next time. Raises ActionError."""
    _check_ours(path)
    with named_errors(path):
        yield
    own_files.note(path)


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Makes an OSError a sentence for the person at the terminal."""
    try:
        yield
    except OSError as error:
        raise ActionError(f"{path} cannot be written: {error.strerror or error}.") from None


def check_path(path: Path, suffix: str, given: Mapping[str, Path]) -> None:
    """Before anything is tracked, so that no hour of work ends with a wrong path.

    given: by option, the files and folders that the run reads, and the file that it writes.
    """
    if path.suffix.lower() != suffix or not path.parent.is_dir():
        raise ActionError(f"{path} must end in {suffix} and lie in a folder that exists.")
    check_place(path, given)


def check_place(path: Path, given: Mapping[str, Path]) -> None:
    """Raises ActionError where a file at this path would harm another one, or cannot be."""
    check_apart(path, given)
    with named_errors(path):
        check_can_put(path)
    _check_ours(path)


def check_apart(path: Path, given: Mapping[str, Path]) -> None:
    """Raises ActionError where a file at this path would harm what is given."""
    place = _real(path)
    for option, other in given.items():
        if place == _real(other):
            raise ActionError(
                f"{path} would be written over, and it is the file of {option}. Choose another "
                "path to write to."
            )
        if other.is_dir() and place.parent == _real(other):
            raise ActionError(
                f"{path} lies in the folder of {option}, and would be one of its frames. Choose "
                "another folder to write to."
            )


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # `resolve` raises where a link leads to itself


def _check_ours(path: Path) -> None:
    if not own_files.may_replace(path):
        raise ActionError(
            f"{path} is there already, and this command did not write it, or somebody changed it "
            "since. It is not written over; move it away first, or give another path."
        )


def draw(
    picture: Picture, frame: int, seeds: Sequence[Seed], here: Sequence[Tracked | None]
) -> Picture:
    """A copy of the picture with the results of `frame`, or the seeds that were drawn on it."""
    height, width = picture.shape[:2]

    def bitmap_of(seed: Seed, t: Tracked | None) -> Bitmap | None:
        points = t.points if t else seed.points if frame == seed.frame else None
        bitmap = None if points is None else points_to_bitmap(seed.type, points, width, height)
        return bitmap if bitmap is not None and bitmap.any() else None

    bitmaps = (bitmap_of(seed, t) for seed, t in zip(seeds, here, strict=True))
    return draw_masks(picture, bitmaps, [seed.ref for seed in seeds])


def _drawn(
    frames: Frames, seeds: Sequence[Seed], results: Results, wanted: Sequence[int]
) -> Iterator[tuple[int, Picture]]:
    nothing: list[Tracked | None] = [None] * len(seeds)
    for frame in tqdm(wanted, desc="drawing", unit="frame", disable=None):
        yield frame, draw(frames(frame), frame, seeds, results.get(frame, nothing))


def _frames_of(seeds: Sequence[Seed], results: Results) -> list[int]:
    return sorted({*(s.frame for s in seeds), *results})


def _frames_worth_seeing(seeds: Sequence[Seed], results: Results) -> list[int]:
    every = _frames_of(seeds, results)
    if len(every) <= SHEET_CELLS:
        return every
    chosen = {every[0], every[-1]}
    worst = sorted(min(scored) for i in range(len(seeds)) if (scored := list(_scores(results, i))))
    for _, frame in worst:
        if len(chosen) < 2 + SHEET_CELLS // 2:
            chosen.add(frame)
    for step in range(SHEET_CELLS):
        if len(chosen) >= SHEET_CELLS:
            break
        chosen.add(every[round(step * (len(every) - 1) / (SHEET_CELLS - 1))])
    return sorted(chosen)


def _scores(results: Results, index: int) -> Iterator[tuple[float, int]]:
    for frame, here in results.items():
        t = here[index]
        if t is not None and t.score is not None and t.points is not None:
            yield t.score, frame
