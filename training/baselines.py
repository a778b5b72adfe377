# SPDX-License-Identifier: MIT
"""What a tracker has to beat: the first mask repeated, and the first mask carried by flow."""

from __future__ import annotations

import cv2
import numpy as np


def repeat_first(frames: np.ndarray, first: np.ndarray) -> np.ndarray:
    """frames: uint8 (T, H, W, 3); first: bool (N, H, W). Gives bool (T, N, H, W)."""
    return np.broadcast_to(first, (len(frames), *first.shape)).copy()


def carry_by_flow(frames: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Like `repeat_first`, but each mask is the last one moved by OpenCV's DIS optical flow."""
    flow_of = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    height, width = frames.shape[1:3]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), 2).astype(np.float32)
    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    soft = [mask.astype(np.float32) for mask in first]
    masks = [first]
    for before, now in zip(greys[:-1], greys[1:], strict=True):
        flow = flow_of.calc(now, before, None)  # type: ignore[call-overload]
        whence = grid + flow
        x, y = np.ascontiguousarray(whence[..., 0]), np.ascontiguousarray(whence[..., 1])
        soft = [np.asarray(cv2.remap(mask, x, y, cv2.INTER_LINEAR)) for mask in soft]
        masks.append(np.stack(soft) > 0.5)
    return np.stack(masks)
