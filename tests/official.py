# SPDX-License-Identifier: MIT
"""The official predictor, run on frames in memory: the truth that our tracker is compared with."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import sam2.utils.misc
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from PIL import Image
from sam2.build_sam import build_sam2_video_predictor
from sam2.sam2_video_predictor import SAM2VideoPredictor
from torch import Tensor

from weights import load_weights

# SAM2VideoPredictor scales the time encoding by min(number of frames, 16).
LEAST_FRAMES = 16


def official_predictor(
    config: Path, checkpoint: Path, *, fill_hole_area: int
) -> SAM2VideoPredictor:
    """Built by sam2's own builder, with all the overrides that it adds."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config.parent), version_base="1.2"):
        assert compose(config.stem)
        predictor = build_sam2_video_predictor(
            config.stem,
            device="cpu",
            # The builder's own override comes last, so its 8 is replaced below.
            apply_postprocessing=True,
        )
    predictor.fill_hole_area = fill_hole_area
    predictor.load_state_dict(load_weights(checkpoint), strict=True)
    return predictor


def official_logits(
    predictor: SAM2VideoPredictor,
    frames: Sequence[Image.Image],
    prompts: Sequence[np.ndarray | tuple[float, float, float, float]],
    folder: Path,
    *,
    seed_frames: Sequence[int] | None = None,
) -> dict[int, Tensor]:
    """Tracks objects from the frames of their prompts to the last frame.

    prompts: a bool mask (height, width) or a box each, on frame 0 or that in `seed_frames`.
    Returns by frame index the logits at image size, float32 (objects, height, width).
    """
    for index in range(max(len(frames), LEAST_FRAMES)):
        # PNG under the name that the predictor looks for: the pixels must be exactly ours.
        frames[min(index, len(frames) - 1)].save(folder / f"{index}.jpg", format="PNG")
    starts = list(seed_frames or [0] * len(prompts))
    with mock.patch.object(sam2.utils.misc, "get_connected_components", opencv_components):
        state = predictor.init_state(str(folder))
        for object_id, (prompt, start) in enumerate(zip(prompts, starts, strict=True)):
            if isinstance(prompt, tuple):
                predictor.add_new_points_or_box(state, start, object_id, box=prompt)
            else:
                predictor.add_new_mask(state, start, object_id, prompt)
        return {
            index: logits[:, 0].clone()
            for index, _, logits in predictor.propagate_in_video(
                state, start_frame_idx=min(starts), max_frame_num_to_track=len(frames) - 1
            )
        }


@contextmanager
def official_hole_filling() -> Iterator[None]:
    with mock.patch.object(sam2.utils.misc, "get_connected_components", opencv_components):
        yield


def opencv_components(mask: Tensor) -> tuple[Tensor, Tensor]:
    """What sam2's CUDA extension computes: labels and areas of 8-connected components."""
    labels, areas = torch.zeros_like(mask, dtype=torch.int32), torch.zeros_like(mask, dtype=torch.int32)
    for index, plane in enumerate(mask[:, 0].cpu().numpy()):
        _, found, stats, _ = cv2.connectedComponentsWithStats(plane.astype(np.uint8), connectivity=8)
        size = stats[:, cv2.CC_STAT_AREA].copy()
        size[0] = 0
        labels[index, 0], areas[index, 0] = torch.from_numpy(found), torch.from_numpy(size[found])
    return labels, areas
