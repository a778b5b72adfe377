# SPDX-License-Identifier: MIT
"""Grey images of more than 8 bits to 8 bits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

# Rows of 32-bit grey that are scaled at a time, because a float copy of a whole image is large.
ROWS_AT_ONCE = 256


def grey_to_8_bit(image: Image.Image) -> Image.Image:
    """Converts Pillow's modes I;16, I;16B, I (32-bit integers) and F to L.

    16 bits: stretched from the darkest to the brightest pixel, then equalised. This is the picture
    that CVAT's page shows to the annotator (ZipCompressedChunkWriter in its media_extractors.py).
    32-bit integers: from 0 to the brightest pixel. Floats: 0..1 becomes 0..255; a maximum of 1 to
    255 leaves the values as they are; a larger one becomes 255. Negative values become 0.
    """
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        low, high = int(values.min()), int(values.max())
        table = (np.arange(high - low + 1) / max(high - low, 1) * 255).astype(np.uint8)
        return ImageOps.equalize(Image.fromarray(table[values - low]))

    values = np.asarray(image)
    bands = [values[row : row + ROWS_AT_ONCE] for row in range(0, len(values), ROWS_AT_ONCE)]
    brightest = max(float(_positive(band).max()) for band in bands)
    if image.mode == "F":
        white = max(brightest, 255.0) if brightest > 1 else 1.0
    else:
        white = max(brightest, 1.0)
    scale = np.float32(255 / white)
    return Image.fromarray(
        np.concatenate([(_positive(band) * scale).astype(np.uint8) for band in bands])
    )


def _positive(values: NDArray[Any]) -> NDArray[np.float32]:
    floats = values.astype(np.float32)
    if values.dtype.kind == "f":
        np.nan_to_num(floats, copy=False, posinf=0.0, neginf=0.0)
    return np.maximum(floats, 0, out=floats)
