# SPDX-License-Identifier: MIT
"""The frames that are sent: a drawn clip as encoded images."""

import io
import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.clips import draw_clip

SEED = 3
FRAMES = 6
DRAWN_OBJECTS = 4
JPEG_QUALITY = 90
_TAKES = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class EncodedClip:
    width: int
    height: int
    images: tuple[bytes, ...]
    masks: NDArray[np.bool_]
    """(objects, height, width), on the first image."""

    take: int = 0
    """Of two takes no image has the same bytes."""

    def image(self, index: int) -> bytes:
        """One image file; of another index always other bytes, so that no cache knows it.

        Decoders ignore what follows the end of a JPEG or PNG.
        """
        ending = self.take.to_bytes(8, "big") + index.to_bytes(8, "big")
        return self.images[index % len(self.images)] + ending

    def another_take(self) -> "EncodedClip":
        """For whoever shares a function, and so its cache of images, with others."""
        return replace(self, take=next(_TAKES))


def encoded_clip(*, width: int, height: int, objects: int, image_format: str) -> EncodedClip:
    """Draws a clip of textured objects; more than four of them are shifted copies of the first."""
    clip = draw_clip(SEED, frames=FRAMES, width=width, height=height, objects=DRAWN_OBJECTS)
    return EncodedClip(
        width=width,
        height=height,
        images=tuple(_encode(frame, image_format) for frame in clip.frames),
        masks=np.stack(
            [
                np.roll(clip.masks[0, index % DRAWN_OBJECTS], 37 * (index // DRAWN_OBJECTS), axis=1)
                for index in range(objects)
            ]
        ),
    )


def _encode(frame: NDArray[np.uint8], image_format: str) -> bytes:
    buffer = io.BytesIO()
    options = {"quality": JPEG_QUALITY} if image_format == "JPEG" else {}
    Image.fromarray(frame).save(buffer, image_format, **options)
    return buffer.getvalue()
