# SPDX-License-Identifier: MIT
"""The frames of a video file or of a folder of images, for tracking without a server."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import cv2
from PIL import Image

from cvat_action.errors import ActionError
from cvat_action.overlay import Picture
from sam2_tracker.image_decoding import orientation_of

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
READ_BACK = 32
"""frames decoded at once when a video is read backwards"""


class Media(Protocol):
    name: str
    frame_names: tuple[str, ...]
    """file names, without folders; of a video as CVAT calls its frames in exports"""
    sizes: tuple[tuple[int, int], ...]
    """(width, height) of each frame, or of all"""
    fps: float
    is_video: bool
    step: int
    """from one frame to the next"""
    missing: frozenset[int]
    """frames without a picture: deleted in CVAT, or between those that its task takes"""

    def picture(self, frame: int) -> Picture: ...

    def encoded(self, frame: int) -> bytes:
        """An encoded image file with exactly the frame's pixels; like `picture` it raises
        ActionError where the frame cannot be read."""
        ...


def size_of(media: Media, frame: int) -> tuple[int, int]:
    """(width, height)"""
    return media.sizes[0 if len(media.sizes) == 1 else frame]


def on_frame(media: Media, frame: int, message: str) -> str:
    """What is wrong with a frame, with its number and file name in front."""
    return f"Frame {frame} ({media.frame_names[frame]}): {message}"


def open_media(path: Path) -> Media:
    """Raises ActionError where there is nothing that can be read."""
    if path.is_dir():
        return ImageFolder(path)
    if not path.is_file():
        raise ActionError(f"There is no video or folder {path}.")
    return VideoFile(path)


class ImageFolder:
    fps = 10.0
    is_video = False
    step = 1
    missing: frozenset[int] = frozenset()

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._files = sorted(
            f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.is_dir()
        )
        if not self._files:
            raise ActionError(f"There are no images ({', '.join(IMAGE_SUFFIXES)}) in {path}.")
        self.frame_names = tuple(f.name for f in self._files)
        self.sizes = tuple(_image_size(f) for f in self._files)

    def picture(self, frame: int) -> Picture:
        picture = cv2.imread(str(self._files[frame]), cv2.IMREAD_COLOR)
        if picture is None:
            raise ActionError(f"{self._files[frame]} could not be decoded.")
        return picture  # type: ignore[return-value]

    def encoded(self, frame: int) -> bytes:
        try:
            return self._files[frame].read_bytes()
        except OSError as error:
            raise ActionError(f"{error.filename} cannot be read: {error.strerror}.") from None


class VideoFile:
    """Frames are decoded in order; the number of frames is counted, not taken from the header."""

    is_video = True
    step = 1
    missing: frozenset[int] = frozenset()

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._path = path
        self._capture = self._open()
        self._next = 0
        self._decoded: dict[int, Picture] = {}
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS)) or 10.0
        width = int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        count = 0
        while self._capture.grab():
            count += 1
        if not count:
            raise ActionError(f"{path} holds no frame that can be decoded.")
        self._capture = self._open()
        self.frame_names = tuple(f"frame_{n:06d}.PNG" for n in range(count))
        self.sizes: tuple[tuple[int, int], ...] = ((width, height),)

    def picture(self, frame: int) -> Picture:
        if frame in self._decoded:
            return self._decoded[frame]
        first = frame
        if frame < self._next:
            first = max(0, frame - READ_BACK + 1)
            self._capture.release()
            self._capture, self._next = self._open(), 0
        while self._next < first:
            self._capture.grab()
            self._next += 1
        self._decoded = {}
        while self._next <= frame:
            read, picture = self._capture.read()
            if not read:
                raise ActionError(f"Frame {self._next} of {self._path} could not be decoded.")
            self._decoded[self._next] = picture  # type: ignore[assignment]
            self._next += 1
        return self._decoded[frame]

    def encoded(self, frame: int) -> bytes:
        # BMP: the frame as it is, without the cost of compressing it for the way to ourselves
        _, data = cv2.imencode(".bmp", self.picture(frame))
        return data.tobytes()

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path))
        if not capture.isOpened():
            raise ActionError(f"{self._path} is not a video that OpenCV can read.")
        return capture


class NumberedMedia:
    """Media of which only some pictures are frames, under other numbers."""

    def __init__(self, media: Media, index_of: Mapping[int, int], step: int) -> None:
        """index_of: frame to its number in `media`, at least one."""
        self._media = media
        self._index_of = index_of
        self.name, self.fps, self.is_video, self.step = media.name, media.fps, media.is_video, step
        every = range(max(index_of) + 1)
        self.missing = frozenset(f for f in every if f not in index_of)
        self.frame_names = tuple(
            media.frame_names[index_of[f]] if f in index_of else "" for f in every
        )
        self.sizes = media.sizes
        if len(self.sizes) > 1:
            first = media.sizes[index_of[min(index_of)]]
            self.sizes = tuple(media.sizes[index_of[f]] if f in index_of else first for f in every)

    def picture(self, frame: int) -> Picture:
        return self._media.picture(self._index_of[frame])

    def encoded(self, frame: int) -> bytes:
        return self._media.encoded(self._index_of[frame])


def _image_size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            if _is_sideways(image):
                image.load()  # turns a TIFF
            width, height = image.size
            return (height, width) if _is_sideways(image) else (width, height)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        # SyntaxError is Pillow's word for a damaged part of a file
        raise ActionError(f"{path} is not an image that can be read.") from None


def _is_sideways(image: Image.Image) -> bool:
    """Whether EXIF data says that the camera was turned by a quarter."""
    return orientation_of(image) in (5, 6, 7, 8)
