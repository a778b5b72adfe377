# SPDX-License-Identifier: MIT
"""Image files that bombs, liars and careless tools make; each small, each with what is right."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image, PngImagePlugin

PNG_START = b"\x89PNG\r\n\x1a\n"
GREY, RGB = 0, 2


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *, depth: int = 8, colour: int = RGB, extra: bytes = b"") -> bytes:
    """A black PNG; the compressed rows of a large one take almost no place."""
    bits = depth * (3 if colour == RGB else 1)
    left = height * (1 + (width * bits + 7) // 8)
    deflate = zlib.compressobj(9)
    zeros, parts = bytes(1 << 20), []
    while left > 0:
        parts.append(deflate.compress(zeros[: min(left, len(zeros))]))
        left -= len(zeros)
    rows = b"".join(parts) + deflate.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return PNG_START + chunk(b"IHDR", header) + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int, height: int, *, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def jpeg_with_scans(count: int, side: int = 64) -> bytes:
    """A progressive JPEG whose last scan is repeated, so that it has `count` more."""
    jpeg = encoded(Image.new("L", (side, side), 90), "JPEG", progressive=True)
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return jpeg[:-2] + last * count + jpeg[-2:]


def _inflating(kind: bytes, start: bytes, times: int) -> bytes:
    return chunk(kind, start + zlib.compress(bytes(1 << 20), 9)) * times


def _text_png(size: int) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * size, zip=True)
    return encoded(Image.new("RGB", (8, 8)), "PNG", pnginfo=info)


def _cut(data: bytes, part: float) -> bytes:
    return data[: int(len(data) * part)]


def _lying_bmp() -> bytes:
    bmp = bytearray(encoded(Image.new("RGB", (8, 8)), "BMP"))
    bmp[18:26] = struct.pack("<ii", 6000, -6000)
    return bytes(bmp)


def _tiff_loop() -> bytes:
    """A TIFF whose list of directories leads back to its first."""
    tiff = bytearray(encoded(Image.new("RGB", (8, 8)), "TIFF"))
    first = struct.unpack("<I", tiff[4:8])[0]
    entries = struct.unpack("<H", tiff[first : first + 2])[0]
    end = first + 2 + 12 * entries
    tiff[end : end + 4] = struct.pack("<I", first)
    return bytes(tiff)


_MAKERS: dict[str, tuple[str | None, Callable[[], bytes]]] = {
    # refused by their size, before they are decoded
    "png bomb, 1 bit": ("too_large", lambda: png(12_000, 12_000, depth=1, colour=GREY)),
    "png bomb, rgb": ("too_large", lambda: png(9_000, 9_000)),
    "png bomb, huge": ("too_large", lambda: png(60_000, 60_000, depth=1, colour=GREY)),
    "png header only": (
        "too_large",
        lambda: (
            PNG_START
            + chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(b""))
        ),
    ),
    # Few pixels, but the tables to resize so long a line would take gigabytes.
    "a very long line": ("too_large", lambda: png(2_000_000, 1, depth=1, colour=GREY)),
    # refused as damaged or as no image
    "jpeg of 2000 scans": ("bad_request", lambda: jpeg_with_scans(2000, side=4000)),
    "png of 1000 profiles": (
        "bad_request",
        lambda: png(8, 8, extra=_inflating(b"iCCP", b"x\0\0", 1000)),
    ),
    "png of 1000 zTXt": (
        "bad_request",
        lambda: png(8, 8, extra=_inflating(b"zTXt", b"x\0\0", 1000)),
    ),
    "png of 1000 iTXt": (
        "bad_request",
        lambda: png(8, 8, extra=_inflating(b"iTXt", b"x\0\1\0\0\0", 1000)),
    ),
    "png of one deep zTXt": (
        "bad_request",
        lambda: png(8, 8, extra=chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(1 << 26), 9))),
    ),
    "nothing": ("bad_request", lambda: b""),
    "text": ("bad_request", lambda: b"this is no image at all"),
    "svg": ("bad_request", lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9"/>'),
    "postscript": ("bad_request", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    "pdf": ("bad_request", lambda: encoded(Image.new("RGB", (8, 8)), "PDF")),
    "half a jpeg": ("bad_request", lambda: _cut(encoded(noise(64, 48), "JPEG"), 0.5)),
    "half a png": ("bad_request", lambda: _cut(encoded(noise(64, 48), "PNG"), 0.5)),
    "half a webp": ("bad_request", lambda: _cut(encoded(noise(64, 48), "WEBP"), 0.5)),
    **{
        f"the first {size} bytes of a {kind}": (
            "bad_request",
            lambda kind=kind, size=size: encoded(Image.new("RGB", (40, 40)), kind)[:size],
        )
        for kind, size in (("GIF", 20), ("AVIF", 200), ("JPEG2000", 100), ("TIFF", 100))
    },
    "ico": ("bad_request", lambda: encoded(Image.new("RGB", (4, 4)), "ICO")),
    "png of noise": ("bad_request", lambda: PNG_START + b"\xff" * 100),
    "jpeg header": ("bad_request", lambda: encoded(noise(64, 48), "JPEG")[:20]),
    "bmp that lies": ("bad_request", _lying_bmp),
    "png of no pixels": ("bad_request", lambda: png(0, 0)),
    "pickle": ("bad_request", lambda: b"\x80\x04cos\nsystem\n(S'false'\ntR."),
    # unusual and right
    "png named otherwise": (None, lambda: encoded(noise(40, 30), "PNG")),
    "grey": (None, lambda: encoded(noise(40, 30).convert("L"), "PNG")),
    "grey of 16 bit": (None, lambda: png(40, 30, depth=16, colour=GREY)),
    "one bit": (None, lambda: png(40, 30, depth=1, colour=GREY)),
    "palette": (None, lambda: encoded(noise(40, 30).convert("P"), "PNG")),
    "with alpha": (None, lambda: encoded(noise(40, 30).convert("RGBA"), "PNG")),
    "cmyk": (None, lambda: encoded(noise(40, 30).convert("CMYK"), "JPEG")),
    "float tiff": (None, lambda: encoded(noise(40, 30).convert("F"), "TIFF")),
    "webp": (None, lambda: encoded(noise(40, 30), "WEBP")),
    "gif": (None, lambda: encoded(noise(40, 30).convert("P"), "GIF")),
    "jpeg 2000": (None, lambda: encoded(noise(40, 30), "JPEG2000")),
    "avif": (None, lambda: encoded(noise(40, 30), "AVIF")),
    "ppm": (None, lambda: encoded(noise(40, 30), "PPM")),
    "bmp": (None, lambda: encoded(noise(40, 30), "BMP")),
    "tiff loop": (None, _tiff_loop),
    "progressive": (None, lambda: encoded(noise(40, 30), "JPEG", progressive=True)),
    "one pixel": (None, lambda: png(1, 1)),
    "a line": (None, lambda: png(1, 10_000)),
    "text of 60 kB": (None, lambda: _text_png(60_000)),
    "one profile": (None, lambda: png(40, 30, extra=_inflating(b"iCCP", b"x\0\0", 1))),
    "as large as allowed": (None, lambda: png(6_300, 6_300, depth=1, colour=GREY)),
}
EXPECTED = {name: code for name, (code, _) in _MAKERS.items()}
LARGE = ("as large as allowed",)


@cache
def hostile_image(name: str) -> bytes:
    return _MAKERS[name][1]()


@cache
def _whole() -> tuple[bytes, ...]:
    image = noise(48, 36, seed=1)
    return tuple(encoded(image, kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF"))


def damaged_image(rng: random.Random) -> bytes:
    """A small valid file with a few bytes changed, cut out or put in."""
    data = bytearray(rng.choice(_whole()))
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[place] ^= 1 << rng.randrange(8)
            case 1:
                data[place : place + 4] = rng.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"))
            case 2:
                del data[place : place + rng.randint(1, 40)]
            case _:
                data[place:place] = rng.randbytes(rng.randint(1, 40))
    return bytes(data)
