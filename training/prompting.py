# SPDX-License-Identifier: MIT
"""Run the tracker over a batch as an annotator would use it: prompts, corrections, propagation.

SAM2Base's own track step in eval mode (the model has no dropout) does the work, and frames with
prompts are remembered as SAM2VideoPredictor remembers them with
add_all_frames_to_correct_as_cond=True. The recipe is that of SAM 2's own training (sam2/training,
facebookresearch/sam2 at 2b90b9f): one or two conditioning frames; masks, boxes or a click; clicks
from the error region with the previous logits fed back; a corrected frame is a conditioning frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from sam2.modeling.sam2_utils import get_next_point, sample_box_points
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.utils.misc import concat_points

Prompt = Literal["mask", "box", "click"]

BOX_NOISE, MOST_BOX_NOISE = 0.1, 20  # share of a side, pixels: as in SAM 2's training
CLICKS_ON_TRUTH = 0.1  # share of the corrections that are drawn from the mask, not from the error
NUM_FRAMES = 1 << 30  # any constant that no frame index reaches


@dataclass(frozen=True)
class Plan:
    """How the objects of one batch are prompted.

    corrections: clicks after a prompt that is no mask, each from the error of the mask before.
    second: the position of a second prompted frame, None without one. joined: it is prompted when
    tracking has come to it (a correction); else before the tracking begins.
    """

    prompt: Prompt
    corrections: int = 0
    second: int | None = None
    joined: bool = False


def draw_plan(rng: np.random.Generator, frames: int, clicks: bool) -> Plan:
    """frames: of the batch. clicks: False at the start of a training from nothing."""
    if not clicks:
        return Plan("mask" if rng.random() < 0.9 else "box")
    prompt: Prompt = ("mask", "box", "click")[int(rng.choice(3, p=[0.55, 0.2, 0.25]))]
    corrections = int(rng.integers(0, 4))
    second = int(rng.integers(1, frames)) if frames > 2 and rng.random() < 0.35 else None
    return Plan(prompt, corrections, second, joined=bool(rng.random() < 0.6))


@dataclass(frozen=True)
class Answer:
    """What the mask decoder said of M objects in one frame.

    logits: (M, 4, s, s), the single mask first. ious: (M, 4). visibility: (M, 1) logits.
    tokens: (M, 4, C), of which object pointers are made.
    decoded: (M, HW, C) and remembered: (HW, M, C) or None, features for the guides.
    truth: bool (M, S, S). points: how many the prompt had,
    a box as two, with the corrections so far; 0 of a tracked frame.
    """

    logits: torch.Tensor
    ious: torch.Tensor
    visibility: torch.Tensor
    tokens: torch.Tensor
    decoded: torch.Tensor
    remembered: torch.Tensor | None
    truth: torch.Tensor
    points: int


class Tap:
    """Listens to the mask decoder of a model, which itself gives only the chosen mask."""

    def __init__(self, model: SAM2VideoPredictor) -> None:
        self._decoder: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        self._remembered: torch.Tensor | None = None
        self._decoded: torch.Tensor | None = None
        model.memory_attention.register_forward_hook(self._hear_attention)
        model.sam_mask_decoder.transformer.register_forward_hook(self._hear_transformer)
        predict_masks = model.sam_mask_decoder.predict_masks

        def listening(**inputs: Any) -> tuple[torch.Tensor, ...]:
            masks, ious, tokens, visibility = predict_masks(**inputs)
            self._decoder = (masks, ious, visibility, tokens)
            return masks, ious, tokens, visibility

        model.sam_mask_decoder.predict_masks = listening

    def _hear_attention(self, _module: Any, _inputs: Any, output: torch.Tensor) -> None:
        self._remembered = output

    def _hear_transformer(self, _module: Any, _inputs: Any, output: Any) -> None:
        self._decoded = output[1]

    def take(self, truth: torch.Tensor, points: int) -> Answer:
        """The last answer. truth: bool (M, S, S). points: how many the prompt had so far."""
        if self._decoder is None or self._decoded is None:
            raise RuntimeError("the mask decoder has not been asked since the last answer")
        answer = Answer(*self._decoder, self._decoded, self._remembered, truth, points)
        self.forget()
        return answer

    def forget(self) -> None:
        self._decoder = self._decoded = self._remembered = None


class Before:
    """The model as it was before a training: what it would answer where no click is given."""

    def __init__(self, model: SAM2VideoPredictor) -> None:
        self.model = model.requires_grad_(False)
        self._tap = Tap(model)

    @torch.no_grad()
    def answer(
        self, features: torch.Tensor, fine: list[torch.Tensor], mask: torch.Tensor | None,
        truth: torch.Tensor,
    ) -> Answer:  # fmt: skip
        """features: (M, C, h, w), with what is remembered. fine: the finer levels.

        mask: float (M, 1, S, S), a prompt; None: a tracked frame. truth: bool (M, S, S).
        """
        resize_input(self.model, truth.shape[-1])
        if mask is not None:
            self.model._use_mask_as_output(features, fine, mask)
        else:
            self.model._forward_sam_heads(features, high_res_features=fine, multimask_output=True)
        return self._tap.take(truth, 0)


def encode(
    model: SAM2VideoPredictor, images: torch.Tensor
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[tuple[int, int]]]:
    """forward_image and _prepare_backbone_features, a third cheaper for training.

    The neck's two finest levels are 1x1 convolutions that the mask decoder's conv_s0 and conv_s1
    follow at once: two matrices, multiplied here before they meet the picture. Their positional
    encodings, which nothing uses, are left out (zeros of batch size 1).

    Gives features (HW, N, C), positional encodings (HW, 1, C) and sizes (H, W), finest first.
    """
    neck, decoder = model.image_encoder.neck, model.sam_mask_decoder
    trunk = model.image_encoder.trunk(images)
    coarse, top = neck.convs[1](trunk[2]), neck.convs[0](trunk[3])
    coarse = coarse + F.interpolate(top.float(), scale_factor=2.0, mode="nearest").to(coarse.dtype)
    fine = []
    for level, last in ((0, decoder.conv_s0), (1, decoder.conv_s1)):
        first = neck.convs[3 - level].conv
        weight = last.weight.flatten(1) @ first.weight.flatten(1)
        bias = last.weight.flatten(1) @ first.bias + last.bias
        fine.append(F.conv2d(trunk[level], weight[:, :, None, None], bias))
    maps = [*fine, coarse]
    sizes = [tuple(feature.shape[-2:]) for feature in maps]
    place = neck.position_encoding(coarse[:1]).flatten(2).permute(2, 0, 1)
    places = [place.new_zeros(h * w, 1, place.shape[2]) for h, w in sizes[:2]] + [place]
    return [feature.flatten(2).permute(2, 0, 1) for feature in maps], places, sizes


def resize_input(model: SAM2VideoPredictor, side: int) -> None:
    """Let the model take side x side pixels; nothing that is learned depends on it."""
    if model.image_size == side:
        return
    cells = side // model.backbone_stride
    model.image_size, model.sam_image_embedding_size = side, cells
    prompts = model.sam_prompt_encoder
    prompts.input_image_size = (side, side)
    prompts.image_embedding_size = (cells, cells)
    prompts.mask_input_size = (4 * cells, 4 * cells)


def clicks_of(
    truth: torch.Tensor, predicted: torch.Tensor | None, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """One click per object: in the error, float32 (M, 1, 2), and its label, int32 (M, 1).

    truth, predicted: bool (M, 1, S, S). A click of label 1 lies on the object where the prediction
    misses it, one of label 0 beside the object where the prediction has it.
    """
    if predicted is not None and rng.random() < CLICKS_ON_TRUTH:
        predicted = None
    method = "center" if rng.random() < 0.3 else "uniform"
    points, labels = get_next_point(truth, predicted, method)
    return points.to(truth.device).float(), labels.to(truth.device)


class Tracker:
    """The objects of a batch on their way through its frames."""

    def __init__(
        self, model: SAM2VideoPredictor, tap: Tap, images: torch.Tensor, masks: torch.Tensor,
        clip: torch.Tensor, times: tuple[int, ...], rng: np.random.Generator,
        through_memory: bool = True, before: Before | None = None,
    ) -> None:  # fmt: skip
        """images: (B, T, 3, S, S), normalised; masks: bool (M, T, S, S); clip: int (M,).

        through_memory: gradients flow from a frame through its memories to the frames before.
        before: is asked too on each frame without clicks, for `comparisons`.
        """
        self.before = before
        self.comparisons: list[tuple[Answer, Answer, bool]] = []
        """An answer, what it was before the training, and whether the prompt was a mask."""
        self.through_memory = through_memory
        self.model, self.tap, self.masks, self.clip = model, tap, masks, clip
        self.frames, self.times, self.rng = images.shape[1], times, rng
        self.levels, self.places, self.sizes = encode(model, images.flatten(0, 1))
        self.bank: dict[str, dict[int, Any]] = {
            "cond_frame_outputs": {}, "non_cond_frame_outputs": {}
        }  # fmt: skip
        self.answers: list[Answer] = []

    def prompt_of(self, kind: Prompt, truth: torch.Tensor) -> tuple[Any, Any]:
        """Point inputs and mask input as track_step takes them. truth: bool (M, 1, S, S)."""
        if kind == "mask":
            return None, truth.float()
        if kind == "box":
            points, labels = sample_box_points(truth, BOX_NOISE, MOST_BOX_NOISE)
            return {"point_coords": points, "point_labels": labels}, None
        points, labels = clicks_of(truth, None, self.rng)
        return {"point_coords": points, "point_labels": labels}, None

    def step(
        self, rows: torch.Tensor, time: int, truth: torch.Tensor, first: bool, points: Any,
        mask: Any, corrections: int,
    ) -> tuple[dict[str, Any], list[torch.Tensor]]:  # fmt: skip
        """One frame of every object: rows of the features, truth bool (M, 1, S, S).

        first: without memory. Gives the outcome without its memory, and the features. The answers
        are kept for the loss, but for one that only repeats a mask.
        """
        current = [level[:, rows] for level in self.levels]
        outcome, heads, fine, conditioned = self.model._track_step(
            time, first, current, [place.expand(-1, len(rows), -1) for place in self.places],
            self.sizes, points, mask, self.bank, NUM_FRAMES, False, None,
        )  # fmt: skip
        count = 0 if points is None else points["point_labels"].shape[1]
        answer = self.tap.take(truth[:, 0], count)
        if self.before is not None and points is None:
            was = self.before.answer(conditioned, fine, mask, truth[:, 0])
            self.comparisons.append((answer, was, mask is not None))
        if mask is None:
            self.answers.append(answer)
            for _ in range(corrections):
                low, high = heads[3], heads[4]
                click, label = clicks_of(truth, high > 0, self.rng)
                points = concat_points(points, click, label)
                heads = self.model._forward_sam_heads(
                    backbone_features=conditioned,
                    point_inputs=points,
                    mask_inputs=low.clamp(-32, 32),
                    high_res_features=fine,
                    multimask_output=self.model._use_multimask(first, points),
                )
                self.answers.append(self.tap.take(truth[:, 0], points["point_labels"].shape[1]))
        outcome["pred_masks"], outcome["high_res"] = heads[3], heads[4]
        outcome["obj_ptr"], outcome["object_score_logits"] = heads[5], heads[6]
        return outcome, current

    def visit(
        self, position: int, *, prompt: Prompt | None, first: bool, corrections: int, told: bool
    ) -> None:
        """Prompt or track the frame at this position and remember it."""
        truth = self.masks[:, position : position + 1]
        points = mask = None
        if prompt == "box" and not truth.flatten(1).any(1).all():
            prompt = "mask"  # nothing has no box
        if prompt is not None and (first or prompt == "mask"):
            points, mask = self.prompt_of(prompt, truth)
        elif prompt is not None:  # a tracked frame is corrected by clicks
            corrections = max(corrections, 1)
        time = self.times[position]
        rows = self.clip * self.frames + position
        outcome, current = self.step(
            rows, time, truth, first, points, mask, corrections if prompt else 0
        )
        if not self.through_memory:
            outcome = {k: v.detach() if torch.is_tensor(v) else v for k, v in outcome.items()}
        seen = outcome.pop("high_res")
        if prompt is not None:  # as propagate_in_video_preflight does it
            side = truth.shape[-2:]
            seen = F.interpolate(outcome["pred_masks"], side, mode="bilinear")
            if told:
                seen = truth.float() * 20 - 10
        outcome["maskmem_features"], outcome["maskmem_pos_enc"] = self.model._encode_new_memory(
            current, self.sizes, seen, outcome["object_score_logits"],
            is_mask_from_pts=prompt is not None,
        )  # fmt: skip
        kind = "cond_frame_outputs" if prompt is not None else "non_cond_frame_outputs"
        self.bank[kind][time] = outcome

    def track(self, plan: Plan, told: bool = False) -> list[Answer]:
        """told: frame 0 is remembered by its true mask, not by the answer to the prompt."""
        self.visit(
            0, prompt=plan.prompt, first=True, corrections=plan.corrections, told=told
        )  # fmt: skip
        if plan.second is not None and not plan.joined:
            self.visit(
                plan.second, prompt=plan.prompt, first=True, corrections=plan.corrections,
                told=False,
            )  # fmt: skip
        for position in range(1, self.frames):
            if position != plan.second:
                self.visit(position, prompt=None, first=False, corrections=0, told=False)
            elif plan.joined:
                self.visit(
                    position, prompt=plan.prompt, first=False, corrections=plan.corrections,
                    told=False,
                )  # fmt: skip
        return self.answers

    def segment(self, plan: Plan, least: float) -> list[Answer]:
        """Prompt every frame with what it shows, without any memory.

        least: pixels that an object shows at least.
        """
        objects, positions = (self.masks.flatten(2).sum(2) >= least).nonzero(as_tuple=True)
        truth = self.masks[objects, positions][:, None]
        rows = self.clip[objects] * self.frames + positions
        points, _ = self.prompt_of("click" if plan.prompt == "mask" else plan.prompt, truth)
        self.step(rows, 0, truth, True, points, None, plan.corrections)
        return self.answers
