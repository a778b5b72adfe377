# SPDX-License-Identifier: MIT
"""An RGB image at the size of the model's input, as sam2's predictors make it, bit for bit.

For video they resize with Pillow, whose result is computed here on a GPU too. For a single image
they resize with torchvision, which calls torch's antialiased bilinear interpolation.

Pillow resizes with a bicubic filter whose width grows with the reduction, in one direction after
the other and in whole numbers of 2^-22 (https://pillow.readthedocs.io, "Concepts", "Filters").
With another version of Pillow the order of the directions may change: the tests would tell.
"""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

PRECISION_BITS = 22
SUPPORT = 2.0  # of the bicubic filter, in pixels of the smaller of both images
BICUBIC = -0.5  # the filter's free parameter (Keys, 1981)


def antialias_device(longest: int, size: int, device: torch.device) -> torch.device:
    """The device that can reduce a side of `longest` pixels to `size` with antialiasing.

    CUDA's kernel has no room for a reduction of more than about 180 to 1: then it is the CPU.
    """
    return device if longest <= 64 * size else torch.device("cpu")


def image_to_pixels(image: Image.Image, size: int, device: torch.device) -> Tensor:
    """An RGB image resized to uint8 (size, size, 3) on the device, with Pillow's default filter.

    sam2.utils.misc.load_video_frames resizes so.
    """
    if device.type == "cpu":
        return torch.from_numpy(np.array(image.resize((size, size))))
    # A GPU takes the time of a few dozen small kernels for it.
    return resize(torch.from_numpy(np.array(image)).to(device), width=size, height=size)


def image_to_smooth_pixels(image: Image.Image, size: int, device: torch.device) -> Tensor:
    """An RGB image resized to float32 (3, size, size) of 0..1 on the device.

    sam2.utils.transforms.SAM2Transforms resizes so.
    """
    place = antialias_device(max(image.size), size, device)
    pixels = torch.from_numpy(np.array(image)).to(place).permute(2, 0, 1).contiguous()
    resized = F.interpolate(
        pixels[None].float() / 255, size=(size, size), mode="bilinear", antialias=True
    )
    return resized[0].to(device)


def resize(image: Tensor, *, width: int, height: int) -> Tensor:
    """As `PIL.Image.Image.resize((width, height))`.

    image: uint8 (any height, any width, channels). Returns uint8 (height, width, channels).
    """
    rows, columns = image.shape[:2]
    if rows - height > 2 * max(0, columns - width):  # so Pillow decides which comes first
        pixels = _resize_columns(_resize_rows(image.int(), height), width)
    else:
        pixels = _resize_rows(_resize_columns(image.int(), width), height)
    return pixels.to(torch.uint8)


def _resize_rows(pixels: Tensor, length: int) -> Tensor:
    return _resize_columns(pixels.transpose(0, 1), length).transpose(0, 1)


def _resize_columns(pixels: Tensor, length: int) -> Tensor:
    """pixels: int32 (rows, columns, channels), of 0..255; the columns become `length`."""
    if pixels.shape[1] == length:
        return pixels
    places, weights = _taps(pixels.shape[1], length, pixels.device)
    total = pixels.new_full((len(pixels), length, pixels.shape[2]), 1 << (PRECISION_BITS - 1))
    for place, weight in zip(places, weights, strict=True):
        total += pixels[:, place] * weight[:, None]
    return (total >> PRECISION_BITS).clamp_(0, 255)


@lru_cache(maxsize=16)
def _taps(before: int, after: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each tap and each pixel afterwards: which pixel before, and its weight, int32."""
    scale = before / after
    widening = max(scale, 1.0)
    centre = (np.arange(after) + 0.5) * scale
    first = np.maximum((centre - SUPPORT * widening + 0.5).astype(np.int64), 0)
    end = np.minimum((centre + SUPPORT * widening + 0.5).astype(np.int64), before)
    places = first + np.arange((end - first).max())[:, None]
    weights = _bicubic((places - centre + 0.5) / widening) * (places < end)
    weights /= weights.sum(0)
    whole = np.trunc(weights * (1 << PRECISION_BITS) + np.copysign(0.5, weights)).astype(np.int32)
    places = np.minimum(places, before - 1)
    return torch.from_numpy(places).to(device), torch.from_numpy(whole).to(device)


def _bicubic(x: np.ndarray) -> np.ndarray:
    x, a = np.abs(x), BICUBIC
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
