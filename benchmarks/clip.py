# SPDX-License-Identifier: MIT
"""The frames that are sent: a drawn clip as encoded images."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.clips import draw_clip

SEED = 3
FRAMES = 6
DRAWN_OBJECTS = 4
JPEG_QUALITY = 90


@dataclass(frozen=True, kw_only=True)
class EncodedClip:
    width: int
    height: int
    images: tuple[bytes, ...]
    masks: NDArray[np.bool_]
    """(objects, height, width), on the first image."""

    def image(self, index: int) -> bytes:
        """One image file; of another index always other bytes, so that no cache knows it.

        Decoders ignore what follows the end of a JPEG or PNG.
        """
        return self.images[index % len(self.images)] + index.to_bytes(8, "big")


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
