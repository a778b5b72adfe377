# SPDX-License-Identifier: MIT
"""What a COCO file names by ids, frames above all, and what is wrong with an entry."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from cvat_action.errors import ActionError
from cvat_action.job import Wire
from cvat_action.media import Media

MOST_DIGITS = 20


def frames_of_images(images: Sequence[Any], name: str, media: Media) -> dict[Any, int]:
    """Image id to frame. Raises TypeError where an id is no number."""
    frames: dict[Any, int] = {}
    name_of: dict[int, Any] = {}
    find = frame_finder(media)
    for image in images:
        frame = find(image["file_name"])
        if frame is None:
            raise ActionError(
                f"{name}: image {image['file_name']!r} is not a frame of {media.name}: it has "
                f"{len(media.frame_names)} frames, {media.frame_names[0]} to "
                f"{media.frame_names[-1]}."
            )
        if frame in name_of:
            raise ActionError(
                f"{name}: images {name_of[frame]!r} and {image['file_name']!r} are both frame "
                f"{frame} of {media.name}. Frames are known by their file names without folders; "
                "give each folder a file of its own."
            )
        name_of[frame] = image["file_name"]
        frames[id_of(image)] = frame
    return frames


def frame_finder(media: Media) -> Callable[[str], int | None]:
    """File name to frame: with suffix, without it, or by the number at its end (videos)."""
    by_name = {name: frame for frame, name in enumerate(media.frame_names) if name}
    by_stem = {PurePosixPath(name).stem: frame for name, frame in reversed(by_name.items())}

    def find(file_name: str) -> int | None:
        path = PurePosixPath(str(file_name).replace("\\", "/"))
        frame = by_name.get(path.name, by_stem.get(path.stem))
        digits = re.search(r"\d+$", path.stem)
        if frame is None and media.is_video and digits and len(digits[0]) < MOST_DIGITS:
            number = int(digits[0])
            return number if number < len(media.frame_names) else None
        return frame

    return find


def id_of(entry: Wire) -> int:
    if not isinstance(entry["id"], int):
        raise TypeError("an id that is no number")
    return entry["id"]


def why(error: Exception) -> str:
    """What is wrong with an annotation."""
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]}"
    return str(error.args[0] if error.args else type(error).__name__)


def named(annotation: Wire, key: str, among: Mapping[Any, Any], where: str) -> Any:
    """What an annotation names by an id. Raises ValueError where that is not there."""
    number = annotation[key]
    try:
        return among[number]
    except (KeyError, TypeError):  # TypeError: a list, say
        raise ValueError(f"its {key} {number} is not in {where}") from None
