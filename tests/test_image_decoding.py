# SPDX-License-Identifier: MIT
"""Image files to pixels: every format that CVAT serves, within limits, and what is refused."""

import contextlib
import io
import math
import resource
import struct
from collections.abc import Callable
from unittest import mock

import numpy as np
import pytest
from faults.hostile_images import EXPECTED, GREY, encoded, hostile_image, jpeg_with_scans, png
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from sam2_tracker import decode_process, image_decoding
from sam2_tracker.errors import BadRequest, OutOfMemory, TooLarge
from sam2_tracker.image_decoding import MAX_JPEG_SCANS, decode_image

ORIENTATION = 0x0112  # EXIF's tag
PICTURE = encoded(Image.new("RGB", (4, 3), (10, 200, 30)), "PNG")


def pixels(data: bytes, max_megapixels: float = 40) -> np.ndarray:
    image = decode_image(data, max_megapixels=max_megapixels)
    assert image.mode == "RGB"
    return np.asarray(image)


FORMATS = {
    "PNG": {},
    "BMP": {},
    "TIFF": {},
    "WEBP": {"lossless": True},
    "JPEG": {"quality": 100},
    "MPO": {"quality": 100},  # JPEG with several pictures, as phones write it
    "GIF": {},
    "PPM": {},
    "JPEG2000": {},
    "AVIF": {"quality": 100},
}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_keeps_size_and_colour(kind: str) -> None:
    found = pixels(encoded(Image.new("RGB", (40, 30), (10, 200, 30)), kind, **FORMATS[kind]))
    assert found.shape == (30, 40, 3)
    assert np.abs(found.astype(int) - (10, 200, 30)).max() <= 3


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "AVIF", "MPO"])
def test_the_first_of_several_pictures_counts(kind: str) -> None:
    first, second = (Image.new("RGB", (40, 30), colour) for colour in ((200, 0, 0), (0, 0, 200)))
    data = encoded(first, kind, save_all=True, append_images=[second] * 20)
    assert np.abs(pixels(data).astype(int) - (200, 0, 0)).max() <= 6


def two_colours() -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([9, 8, 7, 250, 100, 50])
    image.putpixel((1, 0), 1)
    return image


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"P2 2 1 255\n0 255\n", [[0] * 3, [255] * 3]),
        (b"P5 2 1 1023\n" + struct.pack(">HH", 0, 1023), [[0] * 3, [255] * 3]),
        (b"P3 2 1 255\n0 0 0 255 255 255\n", [[0] * 3, [255] * 3]),
        (encoded(two_colours()), [[9, 8, 7], [250, 100, 50]]),
        (encoded(two_colours(), transparency=b"\x00\xff"), [[9, 8, 7], [250, 100, 50]]),
    ],
    ids=["PGM plain", "PGM of 10 bits", "PPM plain", "palette", "transparent palette"],
)
def test_rarer_forms_and_palettes(data: bytes, expected: list[list[int]]) -> None:
    assert pixels(data).tolist() == [expected]


@pytest.mark.parametrize(
    ("mode", "colour", "kind", "expected"),
    [
        ("1", 1, "PNG", (255, 255, 255)),
        ("L", 77, "PNG", (77, 77, 77)),
        ("LA", (77, 10), "PNG", (77, 77, 77)),
        ("RGBA", (10, 200, 30, 5), "PNG", (10, 200, 30)),
        ("CMYK", (0, 255, 255, 0), "JPEG", (255, 0, 0)),
        ("YCbCr", (128, 128, 128), "JPEG", (128, 128, 128)),
    ],
)
def test_colour_modes(mode: str, colour: object, kind: str, expected: tuple[int, int, int]) -> None:
    found = pixels(encoded(Image.new(mode, (16, 16), colour), kind))
    assert np.abs(found[8, 8].astype(int) - expected).max() <= 3


def deep_grey(kind: str, values: np.ndarray) -> bytes:
    if kind == "big-endian TIFF":
        return encoded(Image.fromarray(values.astype(">u2")), "TIFF")
    return encoded(Image.fromarray(values.astype(np.uint16)), kind)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "unit"),
    [("PNG", unit) for unit in (1, 3, 16, 1000)]
    + [(kind, 3) for kind in ("TIFF", "big-endian TIFF", "JPEG2000")],
)
def test_16_bit_grey_is_the_picture_that_cvat_shows(kind: str, unit: int) -> None:
    """Also where it uses few of the 16 bits: with a unit of 1 the values differ by 5 at most."""
    values = 100 + unit * np.random.default_rng(0).integers(0, 6, (8, 9))
    stretched = (values - values.min()) / (values.max() - values.min()) * 255
    shown = ImageOps.equalize(Image.fromarray(stretched.astype(np.uint8)))
    found = pixels(deep_grey(kind, values))
    assert (found == np.asarray(shown)[..., None]).all()
    assert found.max() - found.min() > 200
    assert not pixels(deep_grey(kind, np.full((4, 4), unit))).any()  # of one value: black


@pytest.mark.parametrize("brightest", [1, 3, 300, 100_000])
def test_32_bit_integer_grey_is_scaled_to_its_brightest_pixel(brightest: int) -> None:
    image = Image.fromarray(np.array([[0, -5, brightest]], dtype=np.int32))
    assert pixels(encoded(image, "TIFF"))[0, :, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 127, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 500.0, 1000.0], [0, 127, 255]),
        ([math.nan, -5.0, 200.0], [0, 0, 200]),
        ([math.inf, -math.inf, 200.0], [0, 0, 200]),
        ([0.0, 0.0, 0.0], [0, 0, 0]),
    ],
)
def test_floating_point_grey(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert pixels(encoded(image, "TIFF"))[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    "kind",
    ["JPEG", "PNG", *(pytest.param(k, marks=pytest.mark.slow) for k in ("WEBP", "TIFF", "AVIF"))],
)
@pytest.mark.parametrize("orientation", range(10))
def test_every_way_to_hold_a_camera(kind: str, orientation: int) -> None:
    """Values that EXIF does not know, 0 and 9, turn nothing."""
    corners = Image.new("RGB", (40, 24))
    for place, colour in ((0, 0), (200, 0, 0)), ((32, 0), (0, 200, 0)), ((0, 16), (0, 0, 200)):
        corners.paste(colour, (*place, place[0] + 8, place[1] + 8))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(corners, kind, exif=exif, **FORMATS[kind])
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert upright.shape == ((40, 24, 3) if 5 <= orientation <= 8 else (24, 40, 3))
    assert np.abs(pixels(data).astype(int) - upright).max() <= 3


@pytest.mark.parametrize("tag", [256, 282])
def test_a_photo_is_turned_upright_though_another_tag_is_wrong(tag: int) -> None:
    """A width and a resolution that are text."""
    entries = sorted([(ORIENTATION, 3, 1, b"\6\0\0\0"), (tag, 2, 4, b"abc\0")])
    packed = b"".join(struct.pack("<HHI4s", *entry) for entry in entries)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + packed + bytes(4)
    for kind in ("JPEG", "PNG", "WEBP"):
        assert pixels(encoded(Image.new("RGB", (40, 20)), kind, exif=exif)).shape == (40, 20, 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_a_strange_image_is_decoded_or_refused_as_it_should_be(name: str) -> None:
    data = hostile_image(name)
    if EXPECTED[name] == "bad_request":
        with pytest.raises(BadRequest, match="cannot be decoded.*JPEG, PNG, .*AVIF|has more than"):
            pixels(data)
    elif EXPECTED[name] == "too_large":
        with pytest.raises(TooLarge):
            pixels(data)
    else:
        width, height = Image.open(io.BytesIO(data)).size
        assert pixels(data).shape == (height, width, 3)


def tiff_of_jpeg(jpeg: bytes) -> bytes:
    """A grey TIFF of 64 x 64 pixels whose one strip is the JPEG."""
    start = 8 + 2 + 9 * 12 + 4
    tags = [(256, 64), (257, 64), (258, 8), (259, 7), (262, 1), (273, start), (277, 1), (278, 64)]
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in [*tags, (279, len(jpeg))]]
    return b"II*\0" + struct.pack("<IH", 8, 9) + b"".join(entries) + bytes(4) + jpeg


@pytest.mark.parametrize("wrap", [bytes, tiff_of_jpeg], ids=["JPEG", "JPEG in a TIFF"])
def test_a_jpeg_with_too_many_scans_is_refused(wrap: Callable[[bytes], bytes]) -> None:
    assert (pixels(wrap(jpeg_with_scans(10))) == 90).all()
    with pytest.raises(BadRequest):
        pixels(wrap(jpeg_with_scans(MAX_JPEG_SCANS)))


def jpeg_with_exif(segments: int) -> bytes:
    jpeg = encoded(Image.new("RGB", (8, 8), (90, 90, 90)), "JPEG")
    return jpeg[:2] + (b"\xff\xe1\0\x0aExif\0\0xx" * segments) + jpeg[2:]


def test_a_jpeg_with_too_many_exif_segments_is_refused() -> None:
    """Each of them is copied as often as others follow."""
    assert (pixels(jpeg_with_exif(64)) == 90).all()
    with pytest.raises(BadRequest, match="more than 64 EXIF segments"):
        pixels(jpeg_with_exif(65))


JPEG = encoded(Image.new("RGB", (64, 64), (90, 90, 90)), "JPEG")
"""Its first segment, JFIF, ends at byte 20."""
STARTS_OF_SCANS = b"\xff\xfe\0\x44" + b"\xff\xda" * (MAX_JPEG_SCANS + 1)
"""A comment that holds them: the file has one scan."""


@pytest.mark.parametrize(
    "part", [b"\xff", b"\0", b"\xff\0", b"\xff\xe9\0\x02"], ids=["FF", "00", "FF00", "segment"]
)
@pytest.mark.parametrize("ends", [True, False], ids=["an image", "nothing"])
def test_a_jpeg_with_a_very_long_header_is_refused(part: bytes, ends: bool) -> None:
    """Pillow walks through it in Python, in a second per megabyte."""
    assert (pixels(JPEG[:20] + part * 1000 + JPEG[20:]) == 90).all()
    with pytest.raises(BadRequest, match="more than 65536 segments and stray bytes"):
        pixels(JPEG[:20] + part * 1_000_000 + JPEG[20:] * ends)


@pytest.mark.parametrize("part", [b"\xff", b"\xff\xe9\0\x02"], ids=["FF", "segment"])
def test_what_follows_the_first_scan_takes_no_time_either(part: bytes) -> None:
    """Minutes, with a search that goes back in a run of FF; here pytest's limit would end it."""
    jpeg = JPEG[:20] + STARTS_OF_SCANS + JPEG[20:-2]
    few = jpeg + part * 1000 + b"\0" + JPEG[-2:]
    assert (pixels(few) == 90).all()
    many = jpeg + part * 1_000_000 + b"\0" + JPEG[-2:]
    if part == b"\xff":
        assert (pixels(many) == 90).all()
    else:
        with pytest.raises(BadRequest, match="more than 65536 segments"):
            pixels(many)


def rle_bmp(compression: int) -> bytes:
    """8 x 8 pixels, each line one run: of 8 bits where the compression is 1, of 4 where it is 2."""
    bits, pixel = (8, 7) if compression == 1 else (4, 0x77)
    lines = bytes([8, pixel, 0, 0]) * 8 + b"\0\1"
    palette = bytes(4 * 7) + bytes([30, 200, 10, 0]) + bytes(4 * 8)
    start = 14 + 40 + len(palette)
    file = struct.pack("<2sIII", b"BM", start + len(lines), 0, start)
    sizes = (len(lines), 0, 0, 16, 0)
    return file + struct.pack("<IiiHH6I", 40, 8, 8, 1, bits, compression, *sizes) + palette + lines


@pytest.mark.parametrize("compression", [1, 2])
def test_a_compressed_bmp_is_decoded_within_limits(
    compression: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow decodes it in Python: 40 megapixels take seconds."""
    bmp = rle_bmp(compression)
    assert (pixels(bmp) == (10, 200, 30)).all()
    monkeypatch.setattr(image_decoding, "PROCESS_SECONDS", 0.001)
    with pytest.raises(TooLarge, match="takes too long"):
        pixels(bmp)


def gif_with_comments(count: int) -> bytes:
    gif = encoded(Image.new("P", (8, 8)), "GIF")
    header = 13 + 3 * (2 << (gif[10] & 7))
    return gif[:header] + b"!\xfe\x01a\0" * count + gif[header:]


@pytest.mark.slow
def test_a_file_that_takes_too_long_is_refused() -> None:
    assert not pixels(gif_with_comments(10)).any()
    with pytest.raises(TooLarge, match="takes too long"):
        pixels(gif_with_comments(7_000_000))


@pytest.mark.parametrize("megapixels", [0.0001, 1, 16.9, 17, 40, 178])
def test_the_end_of_the_time_is_told_from_the_end_of_the_memory(
    monkeypatch: pytest.MonkeyPatch, megapixels: float
) -> None:
    """At the hard limit Linux sends SIGKILL, as it does where memory runs out."""
    limits: dict[int, tuple[int, int]] = {}
    monkeypatch.setattr(decode_process.resource, "setrlimit", limits.__setitem__)
    decode_process.limit_seconds(megapixels)
    soft, hard = limits[resource.RLIMIT_CPU]
    assert 3 <= soft < hard


def test_a_small_file_that_needs_much_memory_is_refused() -> None:
    """65,025 tiles of one pixel: OpenJPEG takes 9 kB for each."""
    data = bytearray(encoded(Image.new("RGB", (255, 255)), "JPEG2000"))
    tile_size = data.index(b"\xff\x4f\xff\x51") + 24
    data[tile_size : tile_size + 8] = struct.pack(">II", 1, 1)
    with pytest.raises((BadRequest, TooLarge)):
        pixels(bytes(data), max_megapixels=0.1)


@pytest.mark.parametrize("side", [6400, 14_000])
def test_large_images_are_refused_before_they_are_decoded(
    side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(TooLarge, match="megapixels"):
        pixels(png(side, side, depth=1, colour=GREY))


@pytest.mark.parametrize("kind", ["PNG", "GIF", "PPM", "TIFF", "JPEG2000", "AVIF"])
def test_the_limit_of_megapixels_is_exact_for_every_format(kind: str) -> None:
    data = encoded(Image.new("RGB", (100, 100)), kind)
    assert pixels(data, max_megapixels=0.01).shape == (100, 100, 3)
    with pytest.raises(TooLarge, match="100 x 100 pixels; the limit is 0.0099 megapixels"):
        pixels(data, max_megapixels=0.0099)


@given(st.binary(max_size=60), st.integers(0, len(PICTURE)))
def test_a_damaged_image_is_decoded_or_rejected(junk: bytes, place: int) -> None:
    data = PICTURE[:place] + junk + PICTURE[place + len(junk) :]
    with contextlib.suppress(BadRequest, TooLarge):
        decode_image(data, max_megapixels=1)


def test_running_out_of_memory_is_not_called_a_damaged_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", mock.Mock(side_effect=MemoryError))
    with pytest.raises(OutOfMemory):
        pixels(PICTURE)
