# SPDX-License-Identifier: MIT
"""An encoded image file to pixels, within limits on its size and on the time and memory it takes.

JPEG, PNG, WEBP and BMP, which are nearly all that CVAT sends, are decoded here. The decoders of the
other formats and of compressed BMP can be slow, or take gigabytes for a small file, so they run in
a process with limits (decode_process.py), which costs 0.1 to 0.2 s more.
"""

import io
import json
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from sam2_tracker.errors import BadRequest, OutOfMemory, RequestError, TooLarge

ROOT = Path(__file__).resolve().parents[1]

FORMATS_HERE = ("JPEG", "PNG", "WEBP", "BMP")
FORMATS_IN_PROCESS = ("TIFF", "GIF", "PPM", "JPEG2000", "AVIF", "BMP")
# How files of FORMATS_IN_PROCESS begin; of BMP only those in run-length encoding.
STARTS_IN_PROCESS = re.compile(
    rb"II[*+]\0|MM\0[*+]|GIF8|P[1-6Ff]\s|\0\0\0\x0cjP  |\xff\x4f\xff\x51"
    rb"|....ftyp(avi[fs]|mif1)|BM.{28}[\1\2]\0\0\0",
    re.DOTALL,
)
# The process is given up after so long. Its limit of CPU time, in decode_process.py, is lower.
PROCESS_SECONDS = 40.0

# Very many of these parts take minutes. Scans of a progressive JPEG: each is a pass over the whole
# image, and cameras write 10. Segments of a JPEG, and stray bytes before its first scan: each is a
# step of Pillow in Python, and cameras write 20. Segments with a JPEG's EXIF data: each copies all
# before it, and cameras write 1. Colour profiles of a PNG: there should be 1.
MAX_JPEG_SCANS = 32
MAX_JPEG_PARTS = 65_536
MAX_JPEG_EXIF = 64
MAX_PNG_PROFILES = 8
# Resizing a line of millions of pixels takes gigabytes of tables, in this project and in Pillow.
MAX_SIDE = 65_535
# JPEG markers that are followed by a length, and the end of the image. Without a repetition in it:
# on a long run of FF that would take a time that grows with the square of its length.
JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
# The value of EXIF's tag for the way the camera was held, and what turns the picture upright.
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(data: bytes, *, max_megapixels: float) -> Image.Image:
    """Decodes the first picture of an image file to RGB, turned upright as its EXIF tag says.

    Grey of more than 8 bits is scaled by the rules in deep_grey.py.

    Raises TooLarge if the image exceeds a limit, BadRequest if it cannot be decoded, OutOfMemory.
    """
    if STARTS_IN_PROCESS.match(data):
        return _decode_in_process(data, max_megapixels)
    _check_parts(data)
    with request_errors():
        return to_rgb(open_image(data, FORMATS_HERE, max_megapixels=max_megapixels))


def open_image(data: bytes, formats: tuple[str, ...], *, max_megapixels: float) -> Image.Image:
    """Reads the header only. Raises TooLarge, and what Pillow raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our limit decides, not Pillow's warning
            image = Image.open(io.BytesIO(data), formats=formats)
    except Image.DecompressionBombError:
        raise TooLarge(f"The image has more than {max_megapixels:g} megapixels.") from None
    if max(image.size) > MAX_SIDE:
        raise TooLarge(
            f"The image has {image.width} x {image.height} pixels; a side may have {MAX_SIDE}."
        )
    if image.width * image.height > max_megapixels * 1e6:
        raise TooLarge(
            f"The image has {image.width} x {image.height} pixels; "
            f"the limit is {max_megapixels:g} megapixels."
        )
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Decodes an opened image. Raises what Pillow raises."""
    image.load()
    image = _turn_upright(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        # Not at the top, because numpy takes 0.2 s to import in the process of decode_process.py.
        from sam2_tracker.deep_grey import grey_to_8_bit

        image = grey_to_8_bit(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _turn_upright(image: Image.Image) -> Image.Image:
    """Not by ImageOps.exif_transpose, which encodes all EXIF data anew: a wrong tag makes it fail.

    image: loaded. A TIFF was turned by that.
    """
    turn = UPRIGHT.get(orientation_of(image))
    return image if turn is None else image.transpose(turn)


def orientation_of(image: Image.Image) -> int:
    """EXIF's value for the way the camera was held; 1, upright, where EXIF data does not say it."""
    try:
        found: int = image.getexif().get(ORIENTATION, 1)
    except MemoryError:
        raise
    except Exception:  # EXIF data that cannot be read says nothing
        return 1
    return found


@contextmanager
def request_errors() -> Iterator[None]:
    """Turns what Pillow raises into TooLarge, OutOfMemory or BadRequest."""
    try:
        yield
    except TooLarge:
        raise
    except MemoryError:
        raise OutOfMemory("There is too little memory for this image; try again later.") from None
    except Exception as error:  # Pillow's decoders raise almost anything for a broken file
        raise _undecodable() from error


def _decode_in_process(data: bytes, max_megapixels: float) -> Image.Image:
    try:
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "sam2_tracker.decode_process", str(max_megapixels)],
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            timeout=PROCESS_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise TooLarge("The image takes too long to decode.") from None
    if done.returncode == -signal.SIGXCPU:
        raise TooLarge("The image takes too long to decode.")
    if done.returncode == -signal.SIGKILL:  # by the kernel, when the container's memory is full
        raise OutOfMemory("There is too little memory for this image; try again later.")
    if done.returncode != 0:
        raise _undecodable()
    header, _, pixels = done.stdout.partition(b"\n")
    answer = json.loads(header)
    if "error" in answer:
        errors: dict[str, type[RequestError]] = {e.code: e for e in (BadRequest, TooLarge)}
        raise errors[answer["error"]](answer["message"])
    return Image.frombytes("RGB", tuple(answer["size"]), pixels)


def _undecodable() -> BadRequest:
    formats = ", ".join(dict.fromkeys(FORMATS_HERE + FORMATS_IN_PROCESS))
    return BadRequest(f"The image cannot be decoded: it is damaged, or not one of {formats}.")


def _check_parts(data: bytes) -> None:
    if data.startswith(b"\x89PNG") and data.count(b"iCCP") > MAX_PNG_PROFILES:
        raise BadRequest(f"The PNG has more than {MAX_PNG_PROFILES} colour profiles.")
    if not data.startswith(b"\xff\xd8"):
        return
    if data.count(b"Exif\0\0") > MAX_JPEG_EXIF:
        raise BadRequest(f"The JPEG has more than {MAX_JPEG_EXIF} EXIF segments.")
    _check_jpeg_segments(data)


def _check_jpeg_segments(jpeg: bytes) -> None:
    # Some of these may belong to an embedded preview; the walk counts those of the file itself.
    may_have_many_scans = jpeg.count(bytes((0xFF, START_OF_SCAN))) > MAX_JPEG_SCANS
    parts, scans, position = 0, 0, 2
    while position < len(jpeg) and (scans == 0 or may_have_many_scans):
        marker = JPEG_MARKER.search(jpeg, position)
        end = marker.start() if marker else len(jpeg)
        parts += 1 if scans else 1 + end - position
        if parts > MAX_JPEG_PARTS:
            raise BadRequest(f"The JPEG has more than {MAX_JPEG_PARTS} segments and stray bytes.")
        if marker is None or marker[1][0] == END_OF_IMAGE:
            return
        scans += marker[1][0] == START_OF_SCAN
        if scans > MAX_JPEG_SCANS:
            raise BadRequest(f"The JPEG has more than {MAX_JPEG_SCANS} scans.")
        position = marker.end() + int.from_bytes(jpeg[marker.end() : marker.end() + 2], "big")
