# SPDX-License-Identifier: MIT
"""Runs the official SAM 2 video predictor on frames in memory, for comparison with our tracker."""

from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import sam2.utils.misc
import torch
from hydra import initialize_config_dir, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from PIL import Image
from sam2.build_sam import build_sam2_video_predictor
from sam2.sam2_video_predictor import SAM2VideoPredictor
from torch import Tensor

from sam2_tracker.models import ModelFiles, load_weights

# SAM2VideoPredictor scales the time encoding by min(number of frames, 16).
LEAST_FRAMES = 16

Prompt = np.ndarray | tuple[float, float, float, float]


def official_predictor(files: ModelFiles, *, fill_hole_area: int = 0) -> SAM2VideoPredictor:
    """Builds the predictor with sam2's own builder, which adds overrides, on the CPU in float32.

    fill_hole_area: holes of at most so many low-resolution pixels are filled. OfficialRun
    supplies the connected components that sam2 computes with its CUDA extension.
    """
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(files.config.parent), version_base="1.2"):
            predictor = build_sam2_video_predictor(files.config.stem, device="cpu")
    finally:  # hydra's state as it is after an import of sam2
        GlobalHydra.instance().clear()
        initialize_config_module("sam2", version_base="1.2")
    # Set here, because the builder overrides every given value with its own 8.
    predictor.fill_hole_area = fill_hole_area
    predictor.load_state_dict(load_weights(files.checkpoint), strict=True)
    return predictor


class OfficialRun:
    """One session of the official predictor; what it found is in `found`, by object and frame.

    Corrections of tracked frames become conditioning frames, as in SAM 2's training. By default
    the predictor forgets them when it tracks on.
    """

    def __init__(
        self, predictor: SAM2VideoPredictor, frames: Sequence[Image.Image], folder: Path
    ) -> None:
        """folder: an empty one, for the frames."""
        for index in range(max(len(frames), LEAST_FRAMES)):
            # PNG, because the pixels must stay exact, under the name that the predictor looks for.
            frames[min(index, len(frames) - 1)].save(folder / f"{index}.jpg", format="PNG")
        predictor.add_all_frames_to_correct_as_cond = True
        self._predictor = predictor
        self._state = predictor.init_state(str(folder))
        self.found: dict[int, dict[int, Tensor]] = {}

    def draw(self, number: int, frame: int, prompt: Prompt) -> None:
        """A mask or a box of object `number` on a frame."""
        with _opencv_holes():
            if isinstance(prompt, tuple):
                self._predictor.add_new_points_or_box(self._state, frame, number, box=prompt)
            else:
                self._predictor.add_new_mask(self._state, frame, number, prompt)

    def track(self, start: int, last: int) -> None:
        """Tracks all objects from frame `start` to frame `last`; backwards where it is less."""
        with _opencv_holes():
            for index, numbers, logits in self._predictor.propagate_in_video(
                self._state,
                start_frame_idx=start,
                max_frame_num_to_track=abs(last - start),
                reverse=last < start,
            ):
                for number, each in zip(numbers, logits[:, 0], strict=True):
                    self.found.setdefault(number, {})[index] = each.clone()

    def forget(self) -> None:
        """Ends the tracks; what was found stays."""
        self._predictor.reset_state(self._state)


def official_logits(
    predictor: SAM2VideoPredictor,
    frames: Sequence[Image.Image],
    prompts: Sequence[Prompt],
    folder: Path,
    *,
    starts: Sequence[int] | None = None,
) -> list[dict[int, Tensor]]:
    """Tracks each object from the frame of its prompt to the last frame.

    prompts: one per object, a bool mask (height, width) or a box (x0, y0, x1, y1) in pixels.
    starts: the frame of each prompt; default: 0. folder: an empty one, for the frames as files.
    Returns for each object its mask logits, float32 (height, width) at image size, by frame index.
    """
    run = OfficialRun(predictor, frames, folder)
    starts = starts or [0] * len(prompts)
    # One run per start frame. In one run for all, the predictor would also track objects on the
    # frames before their start, and remember these frames.
    for start in sorted(set(starts)):
        run.forget()
        for number, prompt in enumerate(prompts):
            if starts[number] == start:
                run.draw(number, start, prompt)
        run.track(start, len(frames) - 1)
    return [run.found[number] for number in range(len(prompts))]


def _opencv_holes() -> "mock._patch[object]":
    return mock.patch.object(sam2.utils.misc, "get_connected_components", opencv_components)


def opencv_components(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Computes labels and areas of 8-connected components, as sam2's CUDA extension does.

    mask: bool or 0/1 (batch, 1, height, width). Returns two int32 tensors of its shape.
    """
    labels, areas = torch.zeros_like(mask, dtype=torch.int32), torch.zeros_like(mask).int()
    for index, plane in enumerate(mask[:, 0].cpu().numpy().astype(np.uint8)):
        _, found, stats, _ = cv2.connectedComponentsWithStats(plane, connectivity=8)
        size = stats[:, cv2.CC_STAT_AREA].copy()
        size[0] = 0
        labels[index, 0], areas[index, 0] = torch.from_numpy(found), torch.from_numpy(size[found])
    return labels, areas
