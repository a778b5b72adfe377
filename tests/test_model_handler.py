# SPDX-License-Identifier: MIT
"""What the model handler does beside tracking; test_fidelity.py has that."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model_handler import Prediction
from sam2_tracker.build_model import choose_precision
from sam2_tracker.errors import ConfigurationError
from sam2_tracker.mask_logits import pack_bits
from sam2_tracker.memory_bank import MemoryFrame, start_bank
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.models import ModelFiles
from sam2_tracker.threads import available_cores
from tools.sam2_models import load_model, random_model


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


@pytest.mark.parametrize(
    ("capability", "precision"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")]
)
def test_bfloat16_only_where_a_gpu_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)  # older ones emulate it
    assert choose_precision("auto", torch.device("cuda")) == precision


def test_memory_that_is_released_changes_no_answer(micro_files: ModelFiles) -> None:
    cache = MemoryCache(1 << 26)
    model = load_model(micro_files, precision="bfloat16", cache=cache)
    frame = model.encode(Image.effect_noise((64, 48), 60).convert("RGB"))
    (started,) = model.start(frame, [(8.0, 8.0, 40.0, 40.0)], width=64, height=48)
    assert isinstance(started, Prediction)
    bank = start_bank("official", started.seen)
    cache.put(MemoryFrame(id=started.seen.memory.id, features=started.seen.memory.features))

    def logits() -> torch.Tensor:
        (stepped,) = model.step(frame, [bank])
        assert isinstance(stepped, Prediction)
        return stepped.logits

    before = logits()
    assert torch.equal(logits(), before)
    assert (cache.derived_hits, cache.derived_misses) == (1, 1)
    model.release_memory()
    assert cache.get(started.seen.memory.id) is None
    assert torch.equal(logits(), before)
    assert (cache.derived_hits, cache.derived_misses) == (1, 2)


def test_a_containers_share_of_the_cores_is_seen(tmp_path: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    assert available_cores(tmp_path) == cores  # no cgroup
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert available_cores(tmp_path) == cores  # without limit
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("50000\n")
    assert available_cores(tmp_path) == 0.5
    (tmp_path / "cpu.max").write_text("25000 100000\n")  # version 2
    assert available_cores(tmp_path) == 0.25
    (tmp_path / "cpu.max").write_text(f"{(cores + 1) * 100000} 100000\n")
    assert available_cores(tmp_path) == cores
