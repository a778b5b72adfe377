# SPDX-License-Identifier: MIT
"""What the model handler does beside tracking; test_fidelity.py has that."""

import os
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from sam2.modeling.memory_encoder import MemoryEncoder
from tracking import images, start, step, tight_box

from model_handler import ModelHandler
from sam2_tracker import build_model
from sam2_tracker.build_model import choose_device, choose_precision
from sam2_tracker.errors import ConfigurationError
from sam2_tracker.mask_logits import logits_to_bitmaps, pack_bits
from sam2_tracker.memory_bank import MemoryFrame, start_bank
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.models import ModelFiles
from sam2_tracker.threads import available_cores
from tools.official import OfficialRun, official_predictor
from tools.sam2_models import load_model, random_model
from training.clips import draw_clip


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


def test_too_little_memory_while_the_model_is_built_is_told(
    micro_files: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sam2's modules put constants on the GPU while they are built; hydra wraps what they raise."""
    full = mock.Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory."))
    monkeypatch.setattr(MemoryEncoder, "__init__", lambda *_, **__: full())
    with pytest.raises(ConfigurationError, match="too little memory for .*: take a smaller model"):
        load_model(micro_files)


def test_too_little_memory_for_the_weights_is_not_told_as_wrong_weights(
    micro_files: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = mock.Mock(
        side_effect=RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")
    )
    monkeypatch.setattr(build_model, "load_weights", full)
    with pytest.raises(ConfigurationError, match="cpu has too little memory for .*9 bytes"):
        load_model(micro_files)


@pytest.mark.parametrize(
    ("name", "index"), [("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)]
)
def test_a_gpu_is_the_one_that_sam2s_modules_take(
    monkeypatch: pytest.MonkeyPatch, name: str, index: int
) -> None:
    """sam2's modules put constants on "cuda" while they are built: on the device that is set."""
    taken: list[int] = []
    tried: list[torch.device] = []
    convolve = build_model._convolve

    def convolve_on_the_cpu(device: torch.device) -> None:
        tried.append(device)
        convolve(torch.device("cpu"))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch._C, "_cuda_setDevice", taken.append, raising=False)
    monkeypatch.setattr(build_model, "_convolve", convolve_on_the_cpu)
    device = torch.device("cuda" if name == "auto" else name)
    assert choose_device(name) == device
    assert (taken, tried) == ([index], [device])
    with pytest.raises(ConfigurationError, match="there are 2 CUDA devices here"):
        choose_device("cuda:2")


@pytest.mark.parametrize("answers", [True, False])
def test_a_gpu_that_refuses_all_work_is_told_from_one_that_works(
    small_model: ModelHandler, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    assert not small_model.device_failed()  # a CPU
    monkeypatch.setattr(ModelHandler, "device", torch.device("cuda"))
    monkeypatch.setattr(
        torch.cuda, "synchronize", mock.Mock(side_effect=None if answers else error)
    )
    assert small_model.device_failed() != answers


@pytest.mark.parametrize(
    ("capability", "precision"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")]
)
def test_bfloat16_only_where_a_gpu_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)  # older ones emulate it
    assert choose_precision("auto", torch.device("cuda")) == precision


@pytest.mark.parametrize("amx", [False, True])
@pytest.mark.parametrize("avx512", [False, True])
def test_bfloat16_only_where_a_cpu_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    expected = "bfloat16" if amx or avx512 else "float32"
    assert choose_precision("auto", torch.device("cpu")) == expected
    assert choose_precision("float32", torch.device("cpu")) == "float32"


@pytest.mark.parametrize("size", [(7, 5), (64, 48), (321, 240)])
def test_a_gpus_way_to_bitmaps_gives_what_the_cpus_gives(size: tuple[int, int]) -> None:
    """Packed to bits, 32 at a time; both ways run on a CPU."""
    width, height = size
    generator = torch.Generator().manual_seed(width)
    logits = [torch.randn((16, 16), generator=generator) for _ in range(40)]
    plain, packed = (
        list(logits_to_bitmaps(logits, width=width, height=height, packed=packed))
        for packed in (False, True)
    )
    assert len(packed) == 40
    for one, other in zip(plain, packed, strict=True):
        assert one.shape == other.shape == (height, width)
        assert other.dtype == np.bool_
        assert (one == other).all()


def test_32_objects_go_through_the_model_together(small_model: ModelHandler) -> None:
    calls: list[int] = []
    hook = small_model.network.sam_mask_decoder.register_forward_hook(
        lambda module, arguments, output: calls.append(len(output[1]))
    )
    frame = small_model.encode(Image.effect_noise((64, 48), 60).convert("RGB"))
    boxes = [(1.0 * n, 8.0, 20.0 + n, 40.0) for n in range(33)]
    small_model.start(frame, boxes[:32], width=64, height=48)
    assert calls == [32]
    small_model.start(frame, boxes, width=64, height=48)
    assert calls == [32, 32, 1]
    hook.remove()


def test_the_score_is_object_score_times_predicted_iou_as_the_official_predictor_has_them(
    micro_files: ModelFiles, micro_model: ModelHandler, tmp_path: Path
) -> None:
    """Of a box, and of the step after it."""
    clip = draw_clip(5, frames=2, width=96, height=64, objects=1)
    frames, box = images(clip), tight_box(clip.masks[0, 0])
    official: list[float] = []

    def keep(module: object, arguments: object, output: tuple[torch.Tensor, ...]) -> None:
        _, ious, _, object_scores = output
        official.append(float(object_scores.sigmoid()[0, 0] * ious[0].max()))

    predictor = official_predictor(micro_files)
    predictor.sam_mask_decoder.register_forward_hook(keep)
    run = OfficialRun(predictor, frames, tmp_path)
    run.draw(0, 0, box)
    run.track(0, 1)

    (started,) = start(micro_model, frames[0], [box])
    bank = start_bank("official", started.seen)
    (stepped,) = step(micro_model, micro_model.encode(frames[1]), [bank])
    assert started.score == pytest.approx(official[0], abs=1e-4)
    assert stepped.score == pytest.approx(official[-1], abs=1e-4)
    assert stepped.seen.predicted_iou < 0.999  # else it would not show whether it is in the score


def test_memory_that_is_released_changes_no_answer(micro_files: ModelFiles) -> None:
    cache = MemoryCache(1 << 26)
    model = load_model(micro_files, precision="bfloat16", cache=cache)
    image = Image.effect_noise((64, 48), 60).convert("RGB")
    frame = model.encode(image)
    (started,) = start(model, image, [(8.0, 8.0, 40.0, 40.0)])
    bank = start_bank("official", started.seen)
    cache.put(MemoryFrame(id=started.seen.memory.id, features=started.seen.memory.features))

    def logits() -> torch.Tensor:
        return step(model, frame, [bank])[0].logits

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
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    for name, text, expected in (
        ("cpu/cpu.cfs_quota_us", "-1", cores),  # without limit
        ("cpu/cpu.cfs_quota_us", "50000", 0.5),
        ("cpu.max", "25000 100000", 0.25),  # version 2
        ("cpu.max", f"{(cores + 1) * 100000} 100000", cores),
    ):
        (tmp_path / name).write_text(f"{text}\n")
        assert available_cores(tmp_path) == expected
