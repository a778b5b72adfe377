# SPDX-License-Identifier: MIT
"""The passes through SAM 2's modules: all objects of a frame at once, each with its own memory.

The truth is `sam2.sam2_video_predictor.SAM2VideoPredictor`, and for clicks on a single image
`sam2.sam2_image_predictor.SAM2ImagePredictor`: what they do for one object after the other is done
here for a batch. Nothing is kept from one pass to the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_utils import get_1d_sine_pe
from sam2.sam2_video_predictor import SAM2VideoPredictor
from torch import Tensor

from sam2_tracker.clicks import Clicks
from sam2_tracker.errors import ModelFailure
from sam2_tracker.mask_logits import fill_holes, find_distractors, mask_areas
from sam2_tracker.memory_bank import MemoryLayout, Observation, name_memory
from sam2_tracker.memory_policy import Recall
from sam2_tracker.predictions import Candidates, FrameFeatures, Prediction, Result

MASK_LOGIT_LIMIT = 32.0
"""The official predictor cuts logits to this before it feeds them back as a prompt."""
NOT_FINITE = "The model's numbers for this object are not finite."


@dataclass(frozen=True, kw_only=True, eq=False)
class _Heads:
    """What SAM 2's mask decoder makes of several objects."""

    candidates: Tensor
    """Low-resolution logits of all candidate masks, (objects, masks, height, width)."""
    ious: Tensor
    """Predicted IoU of each candidate, (objects, masks)."""
    logits: Tensor
    """Low-resolution logits of the chosen masks, float32 (objects, 1, height, width)."""
    high_resolution: Tensor
    """The same at the size of the model's input."""
    pointers: Tensor
    """float32 (objects, channels)."""
    object_scores: Tensor
    """Logits (objects, 1)."""


class Passes:
    """To be called in inference mode, under autocast where the precision is bfloat16."""

    def __init__(
        self,
        network: SAM2VideoPredictor,
        layout: MemoryLayout,
        *,
        device: torch.device,
        fill_hole_area: int,
    ) -> None:
        """fill_hole_area: low-resolution pixels of the largest holes that are filled; 0: none."""
        self._network = network
        self._layout = layout
        self._device = device
        self._fill_hole_area = fill_hole_area

    def points_of(self, prompts: Sequence[Clicks], width: int, height: int) -> dict[str, Tensor]:
        """Clicks and boxes as SAM 2 takes them; all have equally many points.

        width, height: of the image that the points lie on. A box is two points, labelled 2 and 3.
        """
        coordinates, labels = [], []
        for prompt in prompts:
            corners = () if prompt.box is None else (prompt.box[:2], prompt.box[2:])
            coordinates.append([*corners, *prompt.points])
            labels.append([*(2, 3)[: len(corners)], *map(int, prompt.positive)])
        scale = torch.tensor([width, height], dtype=torch.float32)
        points = torch.tensor(coordinates, dtype=torch.float32)
        return {
            "point_coords": (points / scale * self._network.image_size).to(self._device),
            "point_labels": torch.tensor(labels, dtype=torch.int32, device=self._device),
        }

    def decode(
        self,
        frame: FrameFeatures,
        points: dict[str, Tensor],
        previous: Tensor | None,
        multimask: bool,
    ) -> list[Candidates | ModelFailure]:
        """What clicks mean on a single image, as SAM2ImagePredictor._predict.

        previous: logits (objects, 1, size / 4, size / 4) of the masks that they correct.
        multimask: three masks each, else one.
        """
        network, count = self._network, len(points["point_labels"])
        if previous is not None:
            previous = previous.clamp(-MASK_LOGIT_LIMIT, MASK_LOGIT_LIMIT)
        sparse, dense = network.sam_prompt_encoder(
            points=(points["point_coords"], points["point_labels"]), boxes=None, masks=previous
        )
        # SAM 2 adds this where there is no memory, as on the first frame of a video.
        levels = [*frame.levels[:-1], frame.levels[-1] + network.no_mem_embed]
        maps = _to_maps(levels, frame.sizes, count)
        logits, ious, _, _ = network.sam_mask_decoder(
            image_embeddings=maps[-1],
            image_pe=network.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
            repeat_image=False,  # the image is there for each prompt
            high_res_features=maps[:-1] or None,
        )
        logits, ious = logits.float(), ious.float()
        sound = (logits.flatten(1).isfinite().all(dim=1) & ious.isfinite().all(dim=1)).tolist()
        return [
            Candidates(logits=logits[index], ious=tuple(own))
            if sound[index]
            else ModelFailure(NOT_FINITE)
            for index, own in enumerate(ious.tolist())
        ]

    def start(
        self, frame: FrameFeatures, points: dict[str, Tensor] | None, masks: Tensor | None
    ) -> list[Result]:
        """New objects from points_of() or from masks, float32 (objects, 1, size, size), 0 or 1."""
        count = len(masks if masks is not None else points["point_labels"])  # type: ignore[index]
        _, outputs, _, _ = self._network._track_step(
            frame_idx=0,
            is_init_cond_frame=True,
            current_vision_feats=_expand(frame.levels, count),
            current_vision_pos_embeds=_expand(frame.positions, count),
            feat_sizes=list(frame.sizes),
            point_inputs=points,
            mask_inputs=masks,
            output_dict={},
            num_frames=1,  # not read on a conditioning frame
            track_in_reverse=False,
            prev_sam_mask_logits=None,
        )
        heads = self._heads(outputs)
        return self._results(heads, self._remember_prompted(frame, heads), drawn=masks is not None)

    def step(
        self, frame: FrameFeatures, recalls: Sequence[Recall], with_candidates: bool
    ) -> list[Result]:
        """Objects on the next frame. All recalls have the same size.

        with_candidates: the masks that were not chosen are looked at for look-alikes.
        """
        heads = self._decode(frame, self._attend(frame, recalls))
        memories, _ = self._network._encode_new_memory(
            current_vision_feats=_expand(frame.levels, len(recalls)),
            feat_sizes=list(frame.sizes),
            pred_masks_high_res=heads.high_resolution,
            object_score_logits=heads.object_scores,
            is_mask_from_pts=False,
        )
        return self._results(heads, memories, with_candidates=with_candidates)

    def correct(
        self, frame: FrameFeatures, recalls: Sequence[Recall], points: dict[str, Tensor]
    ) -> list[Result]:
        """A step, and then the points on what it found. All recalls have the same size."""
        attended = self._attend(frame, recalls)
        tracked = self._decode(frame, attended).logits
        previous = tracked.clamp(-MASK_LOGIT_LIMIT, MASK_LOGIT_LIMIT)
        heads = self._decode(frame, attended, points=points, previous=previous)
        return self._results(heads, self._remember_prompted(frame, heads))

    def _attend(self, frame: FrameFeatures, recalls: Sequence[Recall]) -> Tensor:
        """The frame's features with each object's memory in them, (objects, channels, h, w)."""
        # MemoryAttention chooses its own dtypes.
        with torch.autocast(self._device.type, enabled=False):
            attended = self._network.memory_attention(
                frame.levels[-1][:, 0],
                frame.positions[-1][:, 0],
                [each.memories for each in recalls],
                [each.ages for each in recalls],
                *self._pointer_tokens(recalls),
            )
        return _to_map(attended.transpose(0, 1), frame.sizes[-1])

    def _decode(
        self,
        frame: FrameFeatures,
        features: Tensor,
        *,
        points: dict[str, Tensor] | None = None,
        previous: Tensor | None = None,
    ) -> _Heads:
        """features: from `_attend`. previous: mask logits (objects, 1, h, w) as a prompt."""
        maps = _to_maps(frame.levels, frame.sizes, len(features))
        return self._heads(
            self._network._forward_sam_heads(
                backbone_features=features,
                point_inputs=points,
                mask_inputs=previous,
                high_res_features=maps[:-1] or None,
                multimask_output=self._network._use_multimask(False, points),
            )
        )

    def _heads(self, outputs: tuple[Tensor, ...]) -> _Heads:
        candidates, _, ious, logits, high_resolution, pointers, object_scores = outputs
        return _Heads(
            candidates=candidates,
            ious=ious.float(),
            logits=fill_holes(logits.float(), largest=self._fill_hole_area),
            high_resolution=high_resolution,
            pointers=pointers.float(),
            object_scores=object_scores.float(),
        )

    def _remember_prompted(self, frame: FrameFeatures, heads: _Heads) -> Tensor:
        """The memory of a prompted frame, encoded from its low-resolution logits, holes filled."""
        encoded: tuple[Tensor, object] = self._network._encode_new_memory(
            current_vision_feats=_expand(frame.levels, len(heads.logits)),
            feat_sizes=list(frame.sizes),
            pred_masks_high_res=F.interpolate(
                heads.logits,
                size=(self._network.image_size,) * 2,
                mode="bilinear",
                align_corners=False,
            ),
            object_score_logits=heads.object_scores,
            is_mask_from_pts=True,
        )
        return encoded[0]

    def _pointer_tokens(self, recalls: Sequence[Recall]) -> tuple[Tensor, Tensor]:
        """Object pointers as memory tokens and their positions, (objects, tokens, channels).

        Order and encodings as in SAM2Base._prepare_memory_conditioned_features.
        """
        network, layout, count = self._network, self._layout, len(recalls)
        if not network.use_obj_ptrs_in_encoder or not recalls[0].pointers:
            none = torch.zeros(count, 0, layout.channels, device=self._device)
            return none, none
        pointers = torch.stack([torch.stack(each.pointers) for each in recalls])
        if network.add_tpos_enc_to_obj_ptrs:
            distances = torch.tensor([each.distances for each in recalls], device=self._device)
            # SAM 2 divides by the most pointers it can use, or by the video's length if that is
            # smaller. Here it is always the former, so that a step does not depend on the length.
            projected = network.proj_tpos_enc_in_obj_ptrs
            time = get_1d_sine_pe(
                distances / layout.pointers,
                dim=layout.pointer_channels if projected else layout.channels,
            )
            time = network.obj_ptr_tpos_proj(time)
        else:
            time = pointers.new_zeros(*pointers.shape[:2], layout.channels)
        # A pointer is wider than a memory token: it is cut into several.
        tokens_each = layout.pointer_channels // layout.channels
        tokens = pointers.reshape(count, -1, layout.channels)
        return tokens, time.repeat_interleave(tokens_each, dim=1)

    def _results(
        self, heads: _Heads, memories: Tensor, *, drawn: bool = False, with_candidates: bool = False
    ) -> list[Result]:
        """drawn: the masks are the prompts themselves, so their score is 1."""
        # bfloat16 on every device, also before its first use: as the official predictor keeps it.
        memories = memories.to(torch.bfloat16).flatten(2)  # a map is a row of tokens
        ious, best = heads.ious.max(dim=1)
        scores = heads.object_scores.sigmoid()[:, 0] * ious
        sound = (
            heads.logits.flatten(1).isfinite().all(dim=1)
            & memories.flatten(1).isfinite().all(dim=1)
            & heads.pointers.isfinite().all(dim=1)
            & scores.isfinite()
        ).tolist()
        areas = mask_areas(heads.logits)
        object_scores, predicted_ious = heads.object_scores[:, 0].tolist(), ious.tolist()
        distractors = [False] * len(areas)
        if with_candidates and heads.candidates.shape[1] > 1:
            distractors = find_distractors(heads.candidates, best.tolist())
        return [
            Prediction(
                logits=heads.logits[index, 0],
                score=1.0 if drawn else score,
                seen=Observation(
                    memory=name_memory(memories[index]),
                    pointer=heads.pointers[index],
                    object_score=object_scores[index],
                    predicted_iou=predicted_ious[index],
                    area=areas[index],
                    distractor=distractors[index],
                ),
            )
            if sound[index]
            else ModelFailure(NOT_FINITE)
            for index, score in enumerate(scores.tolist())
        ]


def _expand(levels: Sequence[Tensor], count: int) -> list[Tensor]:
    return [level.expand(-1, count, -1) for level in levels]


def _to_maps(
    levels: Sequence[Tensor], sizes: Sequence[tuple[int, int]], count: int
) -> list[Tensor]:
    """Each level of a frame as a map, the same for `count` objects."""
    return [_to_map(level, size) for level, size in zip(_expand(levels, count), sizes, strict=True)]


def _to_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """(pixels, objects, channels) to (objects, channels, height, width)."""
    _, objects, channels = tokens.shape
    return tokens.permute(1, 2, 0).reshape(objects, channels, *size)
