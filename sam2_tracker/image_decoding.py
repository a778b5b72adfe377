# SPDX-License-Identifier: MIT
"""An encoded image file to pixels: bounded, whatever the file claims to be."""

import io
import re
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sam2_tracker.errors import BadRequest, OutOfMemory, TooLarge

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
# Parts that cost a decoder milliseconds for a few bytes, and minutes where there are many: passes
# over the whole image in a progressive JPEG (cameras need 10), colour profiles in a PNG (1).
MAX_JPEG_SCANS = 32
MAX_PNG_PROFILES = 8
# To resize a line of millions of pixels takes gigabytes of tables, here and in Pillow.
MAX_SIDE = 65_535
# Markers with a length, and the end of the image.
JPEG_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd7\xff])")
START_OF_SCAN = 0xDA
# Rows of deep grey that are scaled at a time: float copies of a whole image would be its largest.
ROWS_AT_ONCE = 256


def decode_image(data: bytes, *, max_megapixels: float) -> Image.Image:
    """Decodes an image file to RGB, upright as its EXIF tag says.

    Grey of more than 8 bits is scaled so that its brightest pixel is white, and floating-point grey
    of 0..1 to 0..255. Raises TooLarge before anything is decoded, BadRequest if it is no image that
    can be decoded, OutOfMemory.
    """
    _check_parts(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our limit decides, not Pillow's warning
            opened = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
            _check_size(opened, max_megapixels)
            ImageOps.exif_transpose(opened, in_place=True)
            opened.load()
            if opened.mode == "RGB":
                return opened
            deep = opened.mode == "F" or opened.mode.startswith("I")
            return (_grey_to_8_bit(opened) if deep else opened).convert("RGB")
    except TooLarge:
        raise
    except Image.DecompressionBombError:
        raise TooLarge(f"The image has more than {max_megapixels:g} megapixels.") from None
    except MemoryError:
        raise OutOfMemory("There is too little memory for this image; try again later.") from None
    except Exception as error:  # a broken file can raise almost anything in Pillow's decoders
        raise BadRequest(
            f"The image cannot be decoded: it is damaged, or not one of {', '.join(IMAGE_FORMATS)}."
        ) from error


def _check_size(image: Image.Image, max_megapixels: float) -> None:
    if max(image.size) > MAX_SIDE:
        raise TooLarge(
            f"The image has {image.width} x {image.height} pixels; a side may have {MAX_SIDE}."
        )
    if image.width * image.height > max_megapixels * 1e6:
        raise TooLarge(
            f"The image has {image.width} x {image.height} pixels; "
            f"the limit is {max_megapixels:g} megapixels."
        )


def _check_parts(data: bytes) -> None:
    if data.startswith(b"\x89PNG") and data.count(b"iCCP") > MAX_PNG_PROFILES:
        raise BadRequest(f"The PNG has more than {MAX_PNG_PROFILES} colour profiles.")
    if data.startswith(b"\xff\xd8") and _has_many_scans(data):
        raise BadRequest(f"The JPEG has more than {MAX_JPEG_SCANS} scans.")


def _has_many_scans(jpeg: bytes) -> bool:
    if jpeg.count(bytes((0xFF, START_OF_SCAN))) <= MAX_JPEG_SCANS:
        return False
    # Some may be those of an embedded preview: count along the file's own segments.
    scans, position = 0, 2
    while scans <= MAX_JPEG_SCANS and (marker := JPEG_MARKER.search(jpeg, position)):
        code = marker[1][0]
        if code == 0xD9:  # end of image
            return False
        scans += code == START_OF_SCAN
        position = marker.end() + int.from_bytes(jpeg[marker.end() : marker.end() + 2], "big")
    return scans > MAX_JPEG_SCANS


def _grey_to_8_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    bands = [values[row : row + ROWS_AT_ONCE] for row in range(0, len(values), ROWS_AT_ONCE)]
    brightest = max(float(_positive(band).max()) for band in bands)
    scale = np.float32(255 if brightest <= 1 else 255 / max(brightest, 255))
    return Image.fromarray(
        np.concatenate([(_positive(band) * scale).astype(np.uint8) for band in bands])
    )


def _positive(values: NDArray[Any]) -> NDArray[np.float32]:
    floats = values.astype(np.float32)
    if values.dtype.kind == "f":
        np.nan_to_num(floats, copy=False, posinf=0.0, neginf=0.0)
    return np.maximum(floats, 0, out=floats)
