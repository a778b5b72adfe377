# SPDX-License-Identifier: MIT
"""What the model handler does beside tracking; test_fidelity.py has that."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sam2_models import load_model, random_model

from errors import ConfigurationError
from model_handler import pack_bits


@pytest.mark.parametrize("width", [1, 7, 8, 9, 320])
def test_bits_are_packed_as_numpy_unpacks_them(width: int) -> None:
    mask = np.random.default_rng(width).random((5, width)) < 0.5
    packed = pack_bits(torch.from_numpy(mask)).numpy()
    assert (np.unpackbits(packed, axis=1, count=width) == mask).all()
    assert packed.shape == (5, -(-width // 8))


def test_an_image_size_that_does_not_fit_is_told_at_start(tmp_path: Path, repository: Path) -> None:
    config = repository / "models" / "sam2.1_hiera_micro.yaml"
    files = random_model(config, tmp_path, image_size=250)
    with pytest.raises(ConfigurationError, match="cannot run at 250 x 250 pixels"):
        load_model(files)
