# SPDX-License-Identifier: MIT
"""Both ways to attend against the formula, values narrower than keys included."""

import math

import pytest
import torch

from sam2_tracker.modules.attention import attend


@pytest.mark.parametrize("amx", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("channels", [16, 64])
@pytest.mark.parametrize("biased", [False, True])
def test_attends_as_the_formula_says(
    monkeypatch: pytest.MonkeyPatch, amx: bool, dtype: torch.dtype, channels: int, biased: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    torch.manual_seed(1)
    queries = torch.randn(3, 2, 100, 64).to(dtype)
    keys = torch.randn(3, 2, 70, 64).to(dtype)
    values = torch.randn(3, 2, 70, channels).to(dtype)
    biases = (torch.arange(70) % 2 * math.log(4)).to(dtype) if biased else None
    scores = queries.double() @ keys.double().transpose(2, 3) / math.sqrt(64)
    if biases is not None:
        scores = scores + biases.double()
    truth = scores.softmax(-1) @ values.double()
    attended = attend(queries, keys, values, biases)
    assert attended.dtype == dtype
    assert attended.shape == (3, 2, 100, channels)
    assert (attended - truth).abs().max() < (0.02 if dtype == torch.bfloat16 else 1e-5)


def test_attends_to_more_than_is_worked_on_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys, values = (torch.randn(5, 1, 33, 8).bfloat16() for _ in range(3))
    whole = attend(queries, keys, values)
    monkeypatch.setattr("sam2_tracker.modules.attention.SCORES_AT_ONCE", 100)  # 3 rows of 33
    assert (attend(queries, keys, values) - whole).abs().max() < 0.02
