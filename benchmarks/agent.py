# SPDX-License-Identifier: MIT
"""The way CVAT's agent function runs SAM 2, re-created from descriptions of it, to compare with.

The frame is encoded once, but `track_step` runs for one object after the other; what an object
remembers lies in this process, whole outputs as the model gives them; a frame's index is how often
the object was tracked, and the video seems to end with it; one conditioning frame and the last
`num_maskmem` outputs are kept; masks are scaled without antialias on the way in and with it on the
way out. float32, unless the caller runs it under autocast.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sam2.sam2_video_predictor import SAM2VideoPredictor

from model_handler import IMAGE_MEAN, IMAGE_STD
from sam2_tracker.shapes import Bitmap


@dataclass
class AgentState:
    """Changed in place by every frame."""

    frame_index: int = 0
    outputs: dict[str, dict[int, Any]] = field(
        default_factory=lambda: {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    )


class AgentTracker:
    def __init__(self, predictor: SAM2VideoPredictor) -> None:
        self._model = predictor

    @torch.inference_mode()
    def encode(self, image: Image.Image) -> dict[str, Any]:
        model = self._model
        pixels = np.array(image.resize((model.image_size, model.image_size)))
        tensor = torch.from_numpy(pixels).to(model.device).permute(2, 0, 1).float() / 255
        mean, std = (
            torch.tensor(numbers, device=model.device)[:, None, None]
            for numbers in (IMAGE_MEAN, IMAGE_STD)
        )
        encoded = model.forward_image(((tensor - mean) / std)[None])
        _, features, positions, sizes = model._prepare_backbone_features(encoded)
        return {
            "current_vision_feats": features,
            "current_vision_pos_embeds": positions,
            "feat_sizes": sizes,
        }

    @torch.inference_mode()
    def start(self, frame: dict[str, Any], mask: Bitmap) -> AgentState:
        model = self._model
        full = torch.from_numpy(mask)[None, None].float().to(model.device)
        resized = F.interpolate(
            full, size=(model.image_size, model.image_size), mode="bilinear", align_corners=False
        )
        state = AgentState()
        state.outputs["cond_frame_outputs"][0] = self._step(
            frame, state, (resized >= 0.5).float(), is_first=True
        )
        return state

    @torch.inference_mode()
    def track(
        self, frame: dict[str, Any], state: AgentState, *, width: int, height: int
    ) -> Bitmap | None:
        """The object on the next frame; None: not found."""
        state.frame_index += 1
        output = self._step(frame, state, None, is_first=False)
        kept = state.outputs["non_cond_frame_outputs"]
        kept[state.frame_index] = output
        for index in [i for i in kept if i <= state.frame_index - self._model.num_maskmem]:
            del kept[index]
        logits = F.interpolate(
            output["pred_masks"].float(),
            size=(height, width),
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )
        bitmap: Bitmap = (logits[0, 0] > 0).cpu().numpy()
        return bitmap if bitmap.any() else None

    def _step(
        self,
        frame: dict[str, Any],
        state: AgentState,
        mask: torch.Tensor | None,
        *,
        is_first: bool,
    ) -> dict[str, Any]:
        output: dict[str, Any] = self._model.track_step(
            frame_idx=state.frame_index,
            is_init_cond_frame=is_first,
            point_inputs=None,
            mask_inputs=mask,
            output_dict=state.outputs,
            num_frames=state.frame_index + 1,
            **frame,
        )
        return output
