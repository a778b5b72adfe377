# SPDX-License-Identifier: MIT
"""Our resizing for GPUs against Pillow's."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sam2_tracker.modules.image_resize import resize

SIDES = st.integers(1, 200)


def check(pixels: np.ndarray, width: int, height: int) -> None:
    truth = np.asarray(Image.fromarray(pixels).resize((width, height)))
    ours = resize(torch.from_numpy(pixels), width=width, height=height)
    assert ours.dtype == torch.uint8
    np.testing.assert_array_equal(ours.numpy(), truth)


@given(before=st.tuples(SIDES, SIDES), after=st.tuples(SIDES, SIDES), seed=st.integers(0, 99))
def test_equals_pillow(before: tuple[int, int], after: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Black and white pixels reach beyond both ends of the range.
    pixels = rng.choice([0, 255, seed], (*before, 3)).astype(np.uint8)
    check(pixels, *after)


@pytest.mark.parametrize("before", [(1080, 1920), (1920, 1080), (480, 853), (1024, 1024)])
def test_equals_pillow_at_sizes_of_videos(before: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*before, 3), dtype=np.uint8)
    check(pixels, 1024, 1024)
