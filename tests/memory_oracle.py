# SPDX-License-Identifier: MIT
"""The official predictor with another choice of memory frames: the truth for our policies.

Written from the description of the policies, not from our code, and slow: every step goes through
the whole past again. Everything else is the predictor's own.
"""

from statistics import median
from types import MethodType
from typing import Any

import numpy as np
import torch
from sam2.modeling.sam2_utils import get_1d_sine_pe
from sam2.sam2_video_predictor import SAM2VideoPredictor
from skimage.measure import label, regionprops
from torch import Tensor

Outputs = dict[str, Any]
RECENT, POINTERS = 6, 15


class MemoryOracle:
    """Replaces the choice of memory frames of one predictor, in place."""

    def __init__(self, predictor: SAM2VideoPredictor, policy: str) -> None:
        self._predictor = predictor
        self._policy = policy
        # What the mask decoder said, by the object pointer that the predictor keeps.
        self._said: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self._original = predictor._prepare_memory_conditioned_features
        heads = predictor._forward_sam_heads

        def listening(*arguments: Any, **options: Any) -> Any:
            outputs = heads(*arguments, **options)
            candidates, _, ious, _, _, pointer, _ = outputs
            self._said[id(pointer)] = (pointer, candidates[0], ious[0])
            return outputs

        predictor._forward_sam_heads = listening
        predictor._prepare_memory_conditioned_features = MethodType(
            lambda _, **options: self._prepare(**options), predictor
        )

    def _prepare(self, **asked: Any) -> Tensor:
        if asked["is_init_cond_frame"]:
            return self._original(**asked)
        predictor, frame_idx = self._predictor, asked["frame_idx"]
        output_dict: dict[str, dict[int, Outputs]] = asked["output_dict"]
        drawn = output_dict["cond_frame_outputs"]
        past = {t: o for t, o in output_dict["non_cond_frame_outputs"].items() if t < frame_idx}
        anchors = self._anchors(drawn, past, frame_idx) if self._policy == "anchors" else []
        good = [t for t in sorted(past) if self._score(past[t]) > 0.01 and t not in anchors]
        last = frame_idx - 1
        if last in past and last not in good and last not in anchors:
            good.append(last)
        recent = good[-(RECENT - len(anchors)) :]
        acting = [*drawn.items(), *((t, past[t]) for t in anchors)]
        memories = [(output, RECENT) for _, output in acting]
        memories += [(past[t], len(recent) - 1 - rank) for rank, t in enumerate(recent)]
        tokens, positions = [], []
        for output, age in memories:
            tokens.append(output["maskmem_features"].flatten(2).permute(2, 0, 1))
            space = output["maskmem_pos_enc"][-1].flatten(2).permute(2, 0, 1)
            positions.append(space + predictor.maskmem_tpos_enc[age])
        pointers = [(frame_idx - t, output["obj_ptr"]) for t, output in acting]
        pointers += [
            (d, past[frame_idx - d]["obj_ptr"])
            for d in range(1, POINTERS + 1)
            if frame_idx - d in past and frame_idx - d not in anchors
        ]
        stacked = torch.stack([pointer for _, pointer in pointers])
        time = torch.zeros(len(pointers), 1, predictor.mem_dim)
        if predictor.add_tpos_enc_to_obj_ptrs:  # SAM 2.1 does, EfficientTAM does not
            time = get_1d_sine_pe(
                torch.tensor([d for d, _ in pointers]) / POINTERS, dim=stacked.shape[-1]
            )
            time = predictor.obj_ptr_tpos_proj(time)[:, None].expand(-1, 1, predictor.mem_dim)
        each = stacked.shape[-1] // predictor.mem_dim
        tokens.append(
            stacked.reshape(-1, 1, each, predictor.mem_dim).permute(0, 2, 1, 3).flatten(0, 1)
        )
        positions.append(time.repeat_interleave(each, dim=0))
        attended = predictor.memory_attention(
            curr=asked["current_vision_feats"],
            curr_pos=asked["current_vision_pos_embeds"],
            memory=torch.cat(tokens),
            memory_pos=torch.cat(positions),
            num_obj_ptr_tokens=len(tokens[-1]),
        )
        return attended.permute(1, 2, 0).view(1, predictor.hidden_dim, *asked["feat_sizes"][-1])

    def _iou(self, output: Outputs) -> float:
        return float(self._said[id(output["obj_ptr"])][2].max())

    def _score(self, output: Outputs) -> float:
        logit = float(output["object_score_logits"])
        if logit <= 0:
            return 0.0
        return (2 * float(torch.sigmoid(torch.tensor(logit))) - 1) * self._iou(output)

    def _anchors(self, drawn: dict[int, Outputs], past: dict[int, Outputs], now: int) -> list[int]:
        """The frames that serve as anchors for frame `now`, by going through the past."""
        areas = [area for output in drawn.values() if (area := _area(output))]
        found: list[int] = []
        for t in sorted(past):
            area = _area(past[t])
            if area and areas:
                usual = 0.8 <= area / median(areas[-10:]) <= 1.2
                early = bool(found) and t - found[-1] <= 5
                sure = self._iou(past[t]) > 0.8
                if usual and sure and not early and self._look_alike(past[t]):
                    found.append(t)
            if area:
                areas.append(area)
        return [t for t in found if t < now - 1][-3:]

    def _look_alike(self, output: Outputs) -> bool:
        _, candidates, ious = self._said[id(output["obj_ptr"])]
        masks = (candidates > 0).numpy()
        best = int(ious.argmax())
        return any(
            _second_place(masks[best], masks[other]) for other in range(len(masks)) if other != best
        )


def _area(output: Outputs) -> int:
    return int((output["pred_masks"] > 0).sum())


def _second_place(chosen: np.ndarray, other: np.ndarray) -> bool:
    parts = regionprops(label(other & ~chosen, connectivity=2))
    if not parts or not chosen.any():
        return False
    largest = max(parts, key=lambda part: part.num_pixels)
    (own,) = regionprops(chosen.astype(int))
    top, left = np.minimum(own.bbox[:2], largest.bbox[:2])
    bottom, right = np.maximum(own.bbox[2:], largest.bbox[2:])
    return bool(own.area_bbox / ((bottom - top) * (right - left)) <= 0.7)
