# SPDX-License-Identifier: MIT
"""Our tracking against the official predictor on the same pixels."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from tracking import (
    LOGIT_TOLERANCE,
    SAM2_CONFIGS,
    hide_all_objects,
    images,
    largest_difference,
    our_logits,
    start,
    step,
    threads,
    tight_box,
)

from model_handler import ModelHandler
from sam2_tracker.memory_bank import MemoryBank, start_bank
from sam2_tracker.memory_policy import remember
from sam2_tracker.models import ModelFiles
from tools.official import Prompt, official_logits, official_predictor
from tools.sam2_models import load_model, random_model
from training.clips import Clip, draw_clip


@pytest.fixture(scope="module")
def clip() -> Clip:
    """26 frames of three objects of different size; the last one leaves and returns."""
    return draw_clip(3, frames=26, width=320, height=240, objects=3, leaving=True)


@pytest.mark.parametrize(
    ("files", "fill_hole_area", "thread_count"), [("small_files", 0, 1), ("micro_files", 8, 2)]
)
def test_masks_and_boxes_over_many_frames(
    clip: Clip, request: pytest.FixtureRequest, tmp_path: Path,
    files: str, fill_hole_area: int, thread_count: int,
) -> None:  # fmt: skip
    model_files: ModelFiles = request.getfixturevalue(files)
    prompts = [clip.masks[0, 0], tight_box(clip.masks[0, 1]), clip.masks[0, 2]]
    predictor = official_predictor(model_files, fill_hole_area=fill_hole_area)
    model = load_model(model_files, fill_hole_area=fill_hole_area)
    with threads(thread_count):
        official = official_logits(predictor, images(clip), prompts, tmp_path)
        ours = our_logits(model, images(clip), prompts)
    visible = [bool((one > 0).any()) for each in official for one in each.values()]
    assert np.mean(visible) >= 0.8
    assert largest_difference(ours, official) < LOGIT_TOLERANCE


@pytest.mark.parametrize(("seed", "thread_count"), [(10, 2), (21, 1)])
def test_many_objects_of_other_clips(
    seed: int, thread_count: int, micro_files: ModelFiles, tmp_path: Path
) -> None:
    """Five objects in a batch, of which each must be rounded as if it were alone."""
    clip = draw_clip(seed, frames=9, width=320, height=240, objects=3)
    masks = list(clip.masks[0])
    prompts: list[Prompt] = [*masks, tight_box(masks[0]), tight_box(masks[1])]
    predictor = official_predictor(micro_files, fill_hole_area=8)
    with threads(thread_count):
        official = official_logits(predictor, images(clip), prompts, tmp_path)
        ours = our_logits(load_model(micro_files, fill_hole_area=8), images(clip), prompts)
    assert largest_difference(ours, official) < LOGIT_TOLERANCE


def test_hole_filling_makes_a_difference(clip: Clip, micro_files: ModelFiles) -> None:
    """Else the test above would not see it missing."""
    mask = clip.masks[0, 0].copy()
    y, x = np.argwhere(mask).mean(axis=0).astype(int)
    mask[y - 3 : y + 4, x - 3 : x + 4] = False
    filled, open_ = (
        our_logits(load_model(micro_files, fill_hole_area=area), images(clip)[:3], [mask])[0]
        for area in (8, 0)
    )
    assert filled[0][y, x] > 0 > open_[0][y, x]
    assert not torch.equal(filled[2], open_[2])  # and it is remembered


def test_objects_that_start_on_different_frames(
    clip: Clip, small_model: ModelHandler, small_files: ModelFiles, tmp_path: Path
) -> None:
    starts, masks = [0, 2, 5, 2], clip.masks
    prompts: list[Prompt] = [masks[0, 0], masks[2, 1], tight_box(masks[5, 0])]
    prompts.append(tight_box(masks[2, 1]))
    predictor = official_predictor(small_files)
    official = official_logits(predictor, images(clip), prompts, tmp_path, starts=starts)
    ours = our_logits(small_model, images(clip), prompts, starts)
    assert largest_difference(ours, official) < LOGIT_TOLERANCE


def test_backwards_is_forwards_on_reversed_frames(
    clip: Clip, small_model: ModelHandler, small_files: ModelFiles, tmp_path: Path
) -> None:
    frames = images(clip)[:17]
    for index, frame in enumerate(frames):
        frame.save(tmp_path / f"{index}.jpg", format="PNG")
    predictor = official_predictor(small_files)
    state = predictor.init_state(str(tmp_path))
    predictor.add_new_mask(state, 16, 0, clip.masks[16, 0])
    official = {
        16 - index: logits[0, 0].clone()
        for index, _, logits in predictor.propagate_in_video(state, 16, reverse=True)
    }
    ours = our_logits(small_model, frames[::-1], [clip.masks[16, 0]])
    assert largest_difference(ours, [official]) < LOGIT_TOLERANCE


def test_a_one_pixel_mask_starts_a_visible_object(micro_model: ModelHandler) -> None:
    """A pixel of a large image is less than half of one at the model's size."""
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(0, 255, (900, 1200, 3), dtype=np.uint8))
    mask = np.zeros((900, 1200), dtype=np.bool_)
    mask[400, 700] = True
    (started,) = start(micro_model, image, [mask])
    assert started.seen.object_score > 0


@pytest.mark.parametrize(
    ("config", "image_size", "frames"),
    [
        ("sam2.1/sam2.1_hiera_t.yaml", None, 2),
        ("sam2.1/sam2.1_hiera_t.yaml", 256, 3),
        ("sam2/sam2_hiera_t.yaml", 256, 9),  # no time encoding of pointers, no occlusion embedding
        ("sam2.1/sam2.1_hiera_b+.yaml", 256, 3),  # other heads, windows and position grid
    ],
)
def test_metas_models_with_random_weights(
    clip: Clip, tmp_path: Path, config: str, image_size: int | None, frames: int
) -> None:
    """The weights let no object be hidden, so it is the decoder's logits that are compared."""
    files = random_model(SAM2_CONFIGS / config, tmp_path, image_size=image_size)
    pictures = images(clip)[:frames]
    prompts: list[Prompt] = [clip.masks[0, 0], tight_box(clip.masks[0, 1])][: 1 + bool(image_size)]
    predictor = official_predictor(files, fill_hole_area=8)
    with threads(2):
        official = official_logits(predictor, pictures, prompts, tmp_path)
        ours = our_logits(load_model(files, fill_hole_area=8), pictures, prompts)
    assert min(float(one.max()) for each in official for one in each.values()) > -100  # not hidden
    assert largest_difference(ours, official) < LOGIT_TOLERANCE


def test_a_model_whose_objects_are_hidden(clip: Clip, tmp_path: Path, repository: Path) -> None:
    """The occlusion score decides over mask, pointer and memory alike."""
    files = random_model(repository / "models" / "sam2.1_hiera_micro.yaml", tmp_path)
    hide_all_objects(files.checkpoint)
    prompts: list[Prompt] = [clip.masks[0, 0], clip.masks[0, 1]]
    pictures = images(clip)[:5]
    official = official_logits(official_predictor(files), pictures, prompts, tmp_path)
    ours = our_logits(load_model(files), pictures, prompts)
    assert max(float(official[0][index].max()) for index in range(1, 5)) < -100  # hidden
    assert largest_difference(ours, official) < LOGIT_TOLERANCE


def banks_of(model: ModelHandler, clip: Clip, ages: Sequence[int]) -> list[MemoryBank]:
    """One bank per age, each of another object or start."""
    banks, frames = [], images(clip)
    for number, age in enumerate(ages):
        mask = np.roll(clip.masks[0, number % 3], number * 5, axis=1)
        (started,) = start(model, frames[0], [mask])
        bank = start_bank("official", started.seen)
        for image in frames[1 : age + 1]:
            (prediction,) = step(model, model.encode(image), [bank])
            bank = remember(bank, prediction.seen, model.layout)
        banks.append(bank)
    return banks


def test_a_frame_is_encoded_once_and_its_objects_run_in_batches(
    clip: Clip, micro_model: ModelHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    banks, masks = banks_of(micro_model, clip, [3] * 5), clip.masks[0]
    sizes: dict[str, list[int]] = {}
    for name in ("image_encoder", "sam_mask_decoder.transformer", "memory_encoder"):
        part, seen = micro_model.network.get_submodule(name), sizes.setdefault(name, [])

        def forward(*given: Any, run: Any = part.forward, seen: Any = seen, **named: Any) -> Any:
            seen.append(len([*given, *named.values()][0]))
            return run(*given, **named)

        monkeypatch.setattr(part, "forward", forward)
    micro_model.step(micro_model.encode(images(clip)[4]), banks)
    assert list(sizes.values()) == [[1], [5], [5]]
    for seen in sizes.values():
        seen.clear()
    start(
        micro_model, images(clip)[0], [masks[0], tight_box(masks[1]), masks[2], tight_box(masks[0])]
    )
    assert sizes["image_encoder"] == [1]
    assert sizes["memory_encoder"] == [2, 2]  # masks together, boxes together


def test_a_batch_changes_no_result_and_is_repeated_bit_by_bit(
    clip: Clip, micro_model: ModelHandler
) -> None:
    """Also of objects whose memories differ in length."""
    banks = banks_of(micro_model, clip, [2, 9, 2, 18, 0])
    frame = micro_model.encode(images(clip)[21])
    together, again = step(micro_model, frame, banks), step(micro_model, frame, banks)
    for bank, one, other in zip(banks, together, again, strict=True):
        (alone,) = step(micro_model, frame, [bank])
        a, b = alone.logits > 0, one.logits > 0
        assert (a & b).sum() >= 0.999 * (a | b).sum()
        assert alone.score == pytest.approx(one.score, abs=1e-4)
        assert (alone.logits - one.logits).abs().max() < LOGIT_TOLERANCE
        assert torch.equal(one.logits, other.logits)
        assert torch.equal(one.seen.memory.features, other.seen.memory.features)
        assert one.score == other.score


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in tensors(item)]
    if hasattr(value, "__dataclass_fields__"):
        return tensors([getattr(value, field.name) for field in fields(value)])
    return []


def test_the_model_changes_no_argument(clip: Clip, micro_model: ModelHandler) -> None:
    banks = banks_of(micro_model, clip, [0, 4, 17])
    image = images(clip)[18]
    pixels, mask = np.asarray(image).copy(), clip.masks[18, 0].copy()
    frame = micro_model.encode(image)
    watched = [*tensors([frame, banks]), *micro_model.network.state_dict().values()]
    before = [tensor.clone() for tensor in watched]
    micro_model.step(frame, banks)
    micro_model.start(frame, [mask, (1.0, 2.0, 50.0, 60.0)], width=320, height=240)
    assert all(torch.equal(a, b) for a, b in zip(before, watched, strict=True))
    assert (np.asarray(image) == pixels).all()
    assert (mask == clip.masks[18, 0]).all()


def test_memories_are_bfloat16_and_pointers_float32(clip: Clip, micro_model: ModelHandler) -> None:
    (bank,) = banks_of(micro_model, clip, [8])
    layout = micro_model.layout
    memories = {(memory.features.dtype, memory.features.shape) for memory in bank.memories}
    assert memories == {(torch.bfloat16, (layout.channels, layout.tokens))}
    pointers = [frame.pointer for frame in (*bank.conditioning, *bank.tracked)]
    assert {(p.dtype, p.shape) for p in pointers} == {(torch.float32, (layout.pointer_channels,))}
    assert (layout.recent, layout.pointers) == (6, 15)
