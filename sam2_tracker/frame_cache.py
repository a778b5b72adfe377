# SPDX-License-Identifier: MIT
"""Images by a digest of their bytes: one that came before is neither decoded nor encoded again.

A window of an image is kept like an image of its own.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from PIL import Image

from sam2_tracker.byte_cache import ByteCache
from sam2_tracker.image_decoding import decode_image
from sam2_tracker.search_region import Window


class Features(Protocol):
    """What a model makes of an image."""

    @property
    def nbytes(self) -> int: ...


F = TypeVar("F", bound=Features)


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame(Generic[F]):
    """A request's image: decoded, or already known with its features from an earlier request."""

    digest: bytes
    width: int
    height: int
    content: Image.Image | F
    """Pixels, or what is known of them from an earlier request."""

    @property
    def is_new(self) -> bool:
        """It was not encoded in an earlier request."""
        return isinstance(self.content, Image.Image)

    @property
    def megapixels(self) -> float:
        return self.width * self.height / 1e6


class FrameCache(Generic[F]):
    def __init__(self, max_bytes: int, *, max_megapixels: float) -> None:
        """max_bytes: of all features together. max_megapixels: of one image."""
        self._max_megapixels = max_megapixels
        self._frames: ByteCache[bytes, Frame[F]] = ByteCache(max_bytes)

    def open(self, data: bytes) -> Frame[F]:
        """data: an encoded image file. Raises BadRequest, TooLarge, OutOfMemory."""
        digest = hashlib.sha256(data).digest()
        if (known := self._frames.get(digest)) is not None:
            return known
        image = decode_image(data, max_megapixels=self._max_megapixels)
        return Frame(digest=digest, width=image.width, height=image.height, content=image)

    def cut(self, frame: Frame[F], data: bytes, windows: Iterable[Window]) -> Iterator[Frame[F]]:
        """Windows of the frame that `open` made of `data`, in order. Raises as `open`."""
        image = frame.content if isinstance(frame.content, Image.Image) else None
        for window in windows:
            left, top, right, bottom = window
            if (right - left, bottom - top) == (frame.width, frame.height):
                yield frame
                continue
            digest = frame.digest + str(window).encode()
            if (known := self._frames.get(digest)) is not None:
                yield known
                continue
            if image is None:  # only what the model made of it was kept
                image = decode_image(data, max_megapixels=self._max_megapixels)
            part = image.crop(window)
            yield Frame(digest=digest, width=part.width, height=part.height, content=part)

    def keep(self, frame: Frame[F], features: F) -> None:
        """Remembers the features of a frame of `open` or `cut`; what was used least gives way."""
        if frame.is_new:
            self._frames.put(frame.digest, replace(frame, content=features), features.nbytes)

    def clear(self) -> None:
        self._frames.clear()
