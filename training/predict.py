# SPDX-License-Identifier: MIT
"""What the official SAM2VideoPredictor answers on a clip: tracks, clicks and corrections.

The predictor is built with add_all_frames_to_correct_as_cond=True: a corrected frame becomes a
conditioning frame, as in SAM 2's training. Without it the next pass overwrites a correction.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sam2 import sam2_video_predictor
from sam2.modeling.sam2_utils import sample_one_point_from_error_center
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.utils import misc
from tqdm import tqdm

from model_handler import IMAGE_MEAN, IMAGE_STD
from training.clips import Clip
from training.metrics import jaccard


def silence_bars() -> None:
    """sam2's progress bars, one per clip, would drown the output."""
    sam2_video_predictor.tqdm = misc.tqdm = partial(tqdm, disable=True)


def state_of(predictor: SAM2VideoPredictor, frames: np.ndarray, folder: Path) -> dict[str, Any]:
    """init_state, with the frames handed over in memory instead of as JPEG files.

    frames: uint8 (T, H, W, 3), RGB, resized as load_video_frames does it. init_state itself builds
    the state from one black JPEG in `folder`.
    """
    size = predictor.image_size
    height, width = frames.shape[1:3]
    Image.new("RGB", (width, height)).save(folder / "0.jpg")
    state = predictor.init_state(str(folder))
    images = np.stack([np.asarray(Image.fromarray(frame).resize((size, size))) for frame in frames])
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGE_MEAN, IMAGE_STD))
    state["images"] = ((tensor - mean) / std).to(state["device"])
    state["num_frames"] = len(frames)
    state["cached_features"].clear()
    return dict(state)


def tracked(
    predictor: SAM2VideoPredictor, clip: Clip, prompt: str, folder: Path, seconds: list[float]
) -> np.ndarray:
    """Masks bool (T, N, H, W); prompt: mask or box, in frame 0.

    seconds: gets the time per frame (encoding and all objects), frame 0 left out.
    """
    state = state_of(predictor, clip.frames, folder)
    for index, mask in enumerate(clip.masks[0]):
        if prompt == "mask":
            predictor.add_new_mask(state, 0, index, mask)
        else:
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
            predictor.add_new_points_or_box(state, 0, index, box=box)
    masks = np.zeros_like(clip.masks)
    began = time.perf_counter()
    for t, _, logits in predictor.propagate_in_video(state):
        masks[t] = (logits[:, 0] > 0).cpu().numpy()
        now = time.perf_counter()
        if t > 0:
            seconds.append(now - began)
        began = now
    return masks


def clicked(
    predictor: SAM2VideoPredictor, clip: Clip, clicks: int, folder: Path
) -> list[list[float]]:
    """IoU in frame 0 after 1, 2 ... clicks, for every object.

    Each click is in the middle of the largest error of the mask before; the first one in the
    middle of the object.
    """
    state = state_of(predictor, clip.frames[:1], folder)
    scores: list[list[float]] = []
    for truth in clip.masks[0]:
        predictor.reset_state(state)
        mask, reached = np.zeros_like(truth), []
        for _ in range(clicks):
            points, labels = sample_one_point_from_error_center(
                torch.from_numpy(truth)[None, None], torch.from_numpy(mask)[None, None]
            )
            _, _, logits = predictor.add_new_points_or_box(
                state, 0, 0, points=points[0].numpy(), labels=labels[0].numpy(),
                clear_old_points=False,
            )  # fmt: skip
            mask = (logits[0, 0] > 0).cpu().numpy()
            reached.append(jaccard(mask, truth))
        scores.append(reached)
    return scores


def corrected(
    predictor: SAM2VideoPredictor, clip: Clip, frames: list[int], join: bool, folder: Path
) -> np.ndarray:
    """Masks bool (T, N, H, W) of a track that gets the true masks in frame 0 and in `frames`.

    join: the masks are added to the track (conditioning frames); else it is started anew there.
    frames: rising, above 0.
    """
    state = state_of(predictor, clip.frames, folder)
    masks = np.zeros_like(clip.masks)
    starts = [0, *frames]
    for start, end in zip(starts, [*frames, len(clip.frames)], strict=True):
        if not join:
            predictor.reset_state(state)
        for index, mask in enumerate(clip.masks[start]):
            predictor.add_new_mask(state, start, index, mask)
        # One frame further, because only a frame that was tracked can be corrected.
        steps = min(end, len(clip.frames) - 1) - start
        for t, _, logits in predictor.propagate_in_video(state, start, steps):
            masks[t] = (logits[:, 0] > 0).cpu().numpy()
    return masks
