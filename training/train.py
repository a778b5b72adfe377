# SPDX-License-Identifier: MIT
"""Train the micro model: `python -m training.train`, from nothing to models/*.safetensors.

Training runs the very code that tracks later: SAM2Base's own track step in eval mode (the model
has no dropout), with the frame-0 memory encoded as SAM2VideoPredictor encodes it. Only the mask
decoder is listened to, for the four masks and scores before one of them is chosen.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from sam2.sam2_video_predictor import SAM2VideoPredictor
from torch.multiprocessing.spawn import spawn

from training.dataset import FOLDER, KINDS, LEAST_PIXELS, SIDE, Batch, ClipStock, draw_stock
from training.evaluation_set import parameters_hash
from training.model import (
    CONFIG,
    WEIGHTS,
    build_predictor,
    digest_of,
    load_weights,
    save_weights,
)

PEAK_RATE = {"Muon": 3e-3, "AdamW": 1e-3}
WEIGHT_DECAY = 0.02
WARM_UP = 0.03  # share of the training
LONGER_CLIPS, FULL_SIZE, LONGEST_CLIPS = 0.2, 0.35, 0.6  # from which progress on
EARLY_STEPS = 2000  # over which the evened-out loss and the guide fade
EMA_DECAY = 0.997
CONTINUED = 0.6  # the progress that a training from stored weights starts with
MOST_NORM = 1.0
# Shares of the batches: tracked from boxes, and single pictures with boxes; the others are tracked
# from masks. At the start few are tracked from boxes, for nothing can be tracked from a wrong mask.
BOXES_TRACKED, BOXES_ALONE = (0.04, 0.2), (0.3, 0.15)  # before and after FULL_SIZE
FINE_LOSS = 0.75  # from this progress on the loss looks at 128 x 128 instead of 64 x 64
SECONDS_PER_CHECKPOINT = 180
STEPS_PER_LINE = 20
LONGEST_STEP = (
    30.0  # seconds that count: a training that was stopped (SIGSTOP) goes on where it was
)
NUM_FRAMES = 1 << 30  # any constant that no frame index reaches
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Serving:
    """What one batch is made of."""

    stock: str
    clips: int
    frames: int
    objects: int
    widest_stride: int
    side: int  # of the pictures


@dataclass(frozen=True)
class Losses:
    mask: torch.Tensor
    iou: torch.Tensor
    visibility: torch.Tensor
    mean_iou: float  # of the mask that tracking chooses, over frames that show the object
    silence: float  # share of the hidden frames that are known as hidden; nan without any

    @property
    def total(self) -> torch.Tensor:
        return self.mask + self.iou + 2 * self.visibility


def plain_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout_p: float = 0.0
) -> torch.Tensor:
    """Softmax attention step by step: with bfloat16 on a CPU forwards and backwards together take
    a third of the time of torch's fused kernel."""
    if dropout_p:
        raise ValueError("the micro model has no dropout")
    scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-2, -1))
    return torch.matmul(scores.softmax(-1), value)


class Tap:
    """Keeps what the mask decoder predicts (all four masks, their IoUs, the visibility), and the
    picture's features as the memory attention and the decoder's transformer leave them."""

    def __init__(self, predictor: SAM2VideoPredictor) -> None:
        self.seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self.remembered: list[torch.Tensor] = []  # (HW, M, C), not of frame 0
        self.decoded: list[torch.Tensor] = []  # (M, HW, C)
        predictor.memory_attention.register_forward_hook(
            lambda _module, _inputs, output: self.remembered.append(output)
        )
        predictor.sam_mask_decoder.transformer.register_forward_hook(
            lambda _module, _inputs, output: self.decoded.append(output[1])
        )
        decoder = predictor.sam_mask_decoder
        plain = decoder.predict_masks

        def listening(**inputs: Any) -> tuple[torch.Tensor, ...]:
            masks, ious, tokens, visibility = plain(**inputs)
            self.seen.append((masks, ious, visibility))
            return masks, ious, tokens, visibility

        decoder.predict_masks = listening

    def clear(self) -> None:
        self.seen.clear()
        self.remembered.clear()
        self.decoded.clear()


def serving_at(progress: float, rng: np.random.Generator) -> Serving:
    """Small pictures first, at a quarter of the cost; longer clips with things hidden later."""
    draw = rng.random()
    if progress < FULL_SIZE:
        if draw < 0.35 and progress > LONGER_CLIPS:
            return Serving("long", 2, 8, 2, 2, SIDE // 2)
        return Serving("short", 4, 4, 2, 2, SIDE // 2)
    if draw < 0.25 and progress > LONGEST_CLIPS:
        return Serving("long", 2, 12, 2, 1, SIDE)
    if draw < 0.45:
        return Serving("long", 2, 8, 3, 2, SIDE)
    if draw < 0.6:
        return Serving("mottled", 2, 8, 3, 1, SIDE)
    return Serving("short" if draw < 0.8 else "mottled", 4, 4, 2, 2, SIDE)


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


def rate_at(progress: float) -> float:
    """Share of the peak learning rate: a linear start, then half a cosine."""
    if progress < WARM_UP:
        return max(progress / WARM_UP, 0.01)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


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


def boxes_of(masks: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Boxes with a little looseness, float32 (M, 2, 2): corners x, y in pixels of the input."""
    corners = []
    for mask in masks:
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        x0, x1 = float(columns[0]), float(columns[-1]) + 1
        y0, y1 = float(rows[0]), float(rows[-1]) + 1
        size = np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0])
        shake = np.clip(rng.normal(0, 0.03, 4) * size, -6, 6) * (rng.random() < 0.7)
        corners.append(np.clip(np.array([x0, y0, x1, y1]) + shake, 0, len(mask)).reshape(2, 2))
    return torch.from_numpy(np.stack(corners)).float().to(masks.device)


def track(
    model: SAM2VideoPredictor, tap: Tap, images: torch.Tensor, masks: torch.Tensor,
    clip: torch.Tensor, times: tuple[int, ...], boxes: torch.Tensor | None, told: bool,
) -> torch.Tensor:  # fmt: skip
    """Run the tracker over a batch; gives the true masks of what the tap then holds.

    images: (B, T, 3, S, S), normalised; masks: bool (M, T, S, S); boxes: None for mask prompts.
    told: remember the true mask of frame 0, whatever a box was answered with.
    """
    clips, frames = images.shape[:2]
    levels, places, sizes = encode(model, images.flatten(0, 1))
    tap.clear()
    bank: dict[str, dict[int, dict[str, Any]]] = {
        "cond_frame_outputs": {}, "non_cond_frame_outputs": {}
    }  # fmt: skip
    for t in range(frames):
        rows = clip * frames + t
        current = [level[:, rows] for level in levels]
        points = mask_prompt = None
        if t == 0 and boxes is None:
            mask_prompt = masks[:, :1].float()
        elif t == 0 and boxes is not None:
            labels = torch.tensor([[2, 3]], dtype=torch.int32, device=masks.device)
            points = {"point_coords": boxes, "point_labels": labels.expand(len(boxes), 2)}
        output = model.track_step(
            frame_idx=times[t],
            is_init_cond_frame=t == 0,
            current_vision_feats=current,
            current_vision_pos_embeds=[place.expand(-1, len(rows), -1) for place in places],
            feat_sizes=sizes,
            point_inputs=points,
            mask_inputs=mask_prompt,
            output_dict=bank,
            num_frames=NUM_FRAMES,
            run_mem_encoder=t > 0,
        )
        if t == 0:  # as propagate_in_video_preflight does it
            upsampled = F.interpolate(output["pred_masks"], masks.shape[-2:], mode="bilinear")
            if told:
                upsampled = masks[:, :1].float() * 20 - 10
            output["maskmem_features"], output["maskmem_pos_enc"] = model._encode_new_memory(
                current, sizes, upsampled, output["object_score_logits"], is_mask_from_pts=True
            )
        bank["cond_frame_outputs" if t == 0 else "non_cond_frame_outputs"][times[t]] = output
    if boxes is None:
        tap.seen.pop(0)
        tap.decoded.pop(0)
        masks = masks[:, 1:]
    return masks.transpose(0, 1).flatten(0, 1)


def segment_boxes(
    model: SAM2VideoPredictor, tap: Tap, images: torch.Tensor, masks: torch.Tensor,
    clip: torch.Tensor, rng: np.random.Generator,
) -> torch.Tensor:  # fmt: skip
    """Prompt every frame with the boxes of what it shows, without any memory; like `track`."""
    frames = images.shape[1]
    levels, places, sizes = encode(model, images.flatten(0, 1))
    tap.clear()
    shown = masks.flatten(2).sum(2) > LEAST_PIXELS * (masks.shape[-1] / SIDE) ** 2
    objects, times = shown.nonzero(as_tuple=True)
    rows, truth = clip[objects] * frames + times, masks[objects, times]
    labels = torch.tensor([[2, 3]], dtype=torch.int32, device=masks.device).expand(len(truth), 2)
    model.track_step(
        frame_idx=0,
        is_init_cond_frame=True,
        current_vision_feats=[level[:, rows] for level in levels],
        current_vision_pos_embeds=[place.expand(-1, len(rows), -1) for place in places],
        feat_sizes=sizes,
        point_inputs={"point_coords": boxes_of(truth, rng), "point_labels": labels},
        mask_inputs=None,
        output_dict={},
        num_frames=NUM_FRAMES,
        run_mem_encoder=False,
    )
    return truth


def losses_of(tap: Tap, truth: torch.Tensor, boxed: int, balance: float, side: int) -> Losses:
    """truth: bool (K, S, S), what the tap holds predictions of; the first `boxed` are of boxes.

    balance: weight of a cross-entropy in which object and background count the same; at the start
    it leads away from answering "background" everywhere. side: of the masks that are compared; the
    truth on them is how much of a pixel is covered.
    """
    logits = torch.cat([seen[0] for seen in tap.seen]).float()
    ious = torch.cat([seen[1] for seen in tap.seen]).float()
    visibility = torch.cat([seen[2] for seen in tap.seen]).float().flatten()
    area = truth.sum((1, 2))
    # Between the two, a sliver shows that nobody could name: no lesson in it.
    shown, hidden = area > 12 * (truth.shape[-1] / SIDE) ** 2, area == 0
    truth = F.adaptive_avg_pool2d(truth[:, None].float(), side)
    clear = shown | hidden
    # Hidden frames are few: they weigh more.
    seen_loss = F.binary_cross_entropy_with_logits(
        visibility[clear], shown[clear].float(), weight=1 + hidden[clear].float()
    )
    silence = float((visibility[hidden] <= 0).float().mean()) if hidden.any() else math.nan
    logits, ious, truth = logits[shown], ious[shown], truth[shown]
    if side != logits.shape[-1]:
        logits = F.interpolate(logits, (side, side), mode="bilinear")
    target = truth.expand_as(logits)
    chance = logits.sigmoid()
    wrong = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = (wrong * (chance - target).abs() ** 2).mean((2, 3))
    overlap = (chance * target).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (chance.sum((2, 3)) + target.sum((2, 3)) + 1)
    per_mask = 20 * focal + dice
    if balance:
        even = (wrong * target).sum((2, 3)) / target.sum((2, 3)).clamp(min=1)
        even = even + (wrong * (1 - target)).sum((2, 3)) / (1 - target).sum((2, 3)).clamp(min=1)
        per_mask = per_mask + balance * even
    best, _ = per_mask[:, 1:].min(1)
    with torch.no_grad():
        said, real = logits > 0, target > 0.5
        union = (said | real).sum((2, 3)).clamp(min=1)
        actual = (said & real).sum((2, 3)) / union
        chosen = actual[:, 1:].gather(1, ious[:, 1:].argmax(1, keepdim=True)).flatten()
        boxed = int(shown[:boxed].sum())
        chosen[:boxed] = actual[:boxed, 0]  # a box is answered with the single mask
    single = per_mask[:, 0]
    return Losses(
        mask=best.mean() + 0.5 * single.mean() + 0.5 * single[:boxed].sum() / len(single),
        iou=(ious - actual).abs().mean(),
        visibility=seen_loss,
        mean_iou=float(chosen.mean()),
        silence=silence,
    )


def step_losses(
    model: SAM2VideoPredictor, tap: Tap, guides: torch.nn.ModuleList, batch: Batch,
    rng: np.random.Generator, full_size: bool, early: float, side: int,
) -> tuple[Losses, torch.Tensor]:  # fmt: skip
    """The losses, and the guides' loss. early: 1 at the start of a training, 0 later."""
    device = model.device
    images = torch.from_numpy(batch.images).to(device).permute(0, 1, 4, 2, 3).float() / 255
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (MEAN, STD))
    images = (images - mean) / std
    masks = torch.from_numpy(batch.masks).to(device)
    clip = torch.from_numpy(batch.clip).to(device)
    draw, told = rng.random(), rng.random() < early
    with torch.autocast(device.type, torch.bfloat16):
        if draw < BOXES_ALONE[full_size]:
            truth = segment_boxes(model, tap, images, masks, clip, rng)
            boxed = len(truth)
        else:
            from_boxes = draw < BOXES_ALONE[full_size] + BOXES_TRACKED[full_size]
            boxes = boxes_of(masks[:, 0], rng) if from_boxes else None
            truth = track(model, tap, images, masks, clip, batch.times, boxes, told)
            boxed = len(masks) if from_boxes else 0
    losses = losses_of(tap, truth, boxed, 2 * early, side)
    guiding = guide_loss(guides, tap, truth) if early else losses.total.new_zeros(())
    return losses, guiding


def attend_nearby(model: SAM2VideoPredictor) -> None:
    """Start the attention to memories at "the same place as then", where most objects still are.

    With equal constant queries and keys the rotary encoding alone decides, and it falls off with
    the distance; only the faster frequencies are used, for they tell neighbours apart. From random
    weights this locality is what a training needs longest to find.
    """
    with torch.no_grad():
        for layer in model.memory_attention.layers:
            attention = layer.cross_attn_image
            pairs = attention.internal_dim // 4  # per axis; x first, then y
            for projection in (attention.q_proj, attention.k_proj):
                axes = projection.bias.zero_().view(2, pairs, 2)
                axes[:, : pairs * 3 // 8] = 1.8


def optimizers_of(model: SAM2VideoPredictor) -> list[torch.optim.Optimizer]:
    """Muon for the matrices within the layers, AdamW for everything else."""
    matrices: list[torch.Tensor] = []
    others: list[torch.Tensor] = []
    for name, weight in model.named_parameters():
        inner = weight.ndim == 2 and min(weight.shape) >= 16 and not name.endswith("token.weight")
        inner = inner and not name.endswith("tokens.weight")
        (matrices if inner and "embed" not in name and "no_obj" not in name else others).append(
            weight
        )
    return [
        torch.optim.Muon(matrices, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.99), weight_decay=WEIGHT_DECAY),
    ]


def guide_loss(guides: torch.nn.ModuleList, tap: Tap, truth: torch.Tensor) -> torch.Tensor:
    """How well two linear layers read the object off the features that the tap has kept.

    Early in the training this tells memory, attention and decoder directly what they are for, long
    before the masks can. The guides are not part of the model. truth: bool (K, S, S).
    """
    features = [torch.cat(tap.decoded)]
    if tap.remembered:
        features.append(torch.cat([kept.transpose(0, 1) for kept in tap.remembered]))
    total = truth.new_zeros((), dtype=torch.float32)
    for guide, feature in zip(guides, features, strict=False):
        read = guide(feature.float())[..., 0]  # (K, HW); the last K, where frame 0 has none
        cells = math.isqrt(read.shape[1])
        covered = F.adaptive_avg_pool2d(truth[-len(read) :, None].float(), cells).flatten(1)
        wrong = F.binary_cross_entropy_with_logits(read, covered, reduction="none")
        total = total + (wrong * covered).sum() / covered.sum().clamp(min=1)
        total = total + (wrong * (1 - covered)).sum() / (1 - covered).sum().clamp(min=1)
    return total


class Training:
    """Model, its running average, optimizers and how far it has come."""

    def __init__(self, device: str, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = build_predictor(CONFIG, None, device)
        attend_nearby(self.model)
        self.tap = Tap(self.model)
        width = self.model.hidden_dim
        self.guides = torch.nn.ModuleList(torch.nn.Linear(width, 1) for _ in range(2)).to(device)
        self.optimizers = optimizers_of(self.model)
        self.optimizers[1].add_param_group({"params": list(self.guides.parameters())})
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.step, self.progress, self.seed = 0, 0.0, seed
        self.origin = ""  # the digest of the weights that it started from
        # All gradients lie in one tensor, the seconds of a step behind them.
        weights = [*self.model.parameters(), *self.guides.parameters()]
        self.flat = torch.zeros(sum(weight.numel() for weight in weights) + 1, device=device)
        parts = torch.split(self.flat[:-1], [weight.numel() for weight in weights])
        for weight, part in zip(weights, parts, strict=True):
            weight.grad = part.view_as(weight)

    def load(self, path: Path) -> None:
        kept = torch.load(path, map_location=self.model.device, weights_only=True)
        self.model.load_state_dict(kept["model"])
        self.guides.load_state_dict(kept["guides"])
        self.average = kept["average"]
        for optimizer, state in zip(self.optimizers, kept["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.step, self.progress, self.seed = kept["step"], kept["progress"], kept["seed"]
        self.origin = kept["origin"]

    def save(self, path: Path) -> None:
        part = path.with_suffix(".part")
        torch.save(
            {
                "model": self.model.state_dict(),
                "guides": self.guides.state_dict(),
                "average": self.average,
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "step": self.step,
                "progress": self.progress,
                "seed": self.seed,
                "origin": self.origin,
            },
            part,
        )
        os.replace(part, path)

    def start_from(self, weights: Path) -> None:
        """Go on with weights that were stored: a new schedule, its first part left out."""
        self.step, self.progress, self.origin = EARLY_STEPS, CONTINUED, digest_of(weights)
        self.model.load_state_dict(load_weights(weights), strict=True)
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    def advance(
        self, stocks: dict[str, ClipStock], seconds: float = 0.0
    ) -> tuple[Losses, float, float]:
        """One step; gives the losses, the mean of `seconds` over the processes, the guide's loss.

        What is drawn depends on seed, step and process alone, so a resumed training goes on as if
        it had never stopped.
        """
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        serving = serving_at(self.progress, np.random.default_rng((self.seed, self.step)))
        rng = np.random.default_rng((self.seed, self.step, rank))
        batch = stocks[serving.stock].sample(
            rng, serving.clips, serving.frames, serving.objects, serving.widest_stride,
            serving.side,
        )  # fmt: skip
        resize_input(self.model, serving.side)
        early = max(0.0, 1 - self.step / EARLY_STEPS)
        losses, guiding = step_losses(
            self.model, self.tap, self.guides, batch, rng,
            full_size=serving.side == SIDE, early=early,
            side=128 if self.progress >= FINE_LOSS else 64,
        )  # fmt: skip
        (losses.total + 2 * early * guiding).backward()  # type: ignore[no-untyped-call]
        seconds = self._share_gradients(world, seconds)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), MOST_NORM)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = PEAK_RATE[type(optimizer).__name__] * rate_at(self.progress)
            if torch.isfinite(norm):
                optimizer.step()
        self.flat.zero_()
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        state = self.model.state_dict()
        torch._foreach_lerp_(list(self.average.values()), list(state.values()), 1 - decay)
        self.step += 1
        return losses, seconds, guiding.item()

    def _share_gradients(self, world: int, seconds: float) -> float:
        """Average the gradients (and the seconds) over the processes."""
        self.flat[-1] = seconds
        if world > 1:
            dist.all_reduce(self.flat)
            self.flat /= world
        return float(self.flat[-1])


def train(training: Training, folder: Path, minutes: float, export: Path, rank: int) -> None:
    """Until the schedule ends; its length is time, so that it fits any machine."""
    stocks = {name: ClipStock(name, folder) for name in KINDS}
    saved = began = time.monotonic()
    recent: list[tuple[float, ...]] = []
    seconds = 0.0
    while training.progress < 1:
        losses, seconds, guide = training.advance(stocks, seconds)
        training.progress += seconds / (60 * minutes)
        mask, visibility = losses.mask.item(), losses.visibility.item()
        recent.append((mask, visibility, losses.mean_iou, losses.silence, guide, seconds))
        if training.step % STEPS_PER_LINE == 0:
            means = np.nanmean(np.array(recent), 0)
            named = zip(
                ("mask", "visibility", "iou", "silence", "guide", "s/step"), means, strict=True
            )
            if rank == 0:
                print(
                    f"{time.strftime('%H:%M:%S')} step {training.step} "
                    f"progress {training.progress:.3f} "
                    + " ".join(f"{name} {value:.3f}" for name, value in named),
                    flush=True,
                )
            recent.clear()
        now = time.monotonic()
        seconds, began = min(now - began, LONGEST_STEP), now
        if rank == 0 and now - saved > SECONDS_PER_CHECKPOINT:
            training.save(folder / "checkpoint.pt")
            saved = now
    if rank == 0:
        training.save(folder / "checkpoint.pt")
        save_weights(training.average, export)


def begin(arguments: argparse.Namespace) -> Training:
    """From where a checkpoint was left, else from the weights that are named, else from nothing."""
    training = Training(arguments.device, arguments.seed)
    checkpoint = arguments.folder / "checkpoint.pt"
    if checkpoint.exists():
        training.load(checkpoint)
    if training.progress >= 1 and arguments.start_from is None:
        raise SystemExit(f"{checkpoint} is finished: remove it, or give --start-from its weights")
    half_done = 0 < training.progress < 1
    if half_done and arguments.start_from and training.origin != digest_of(arguments.start_from):
        raise SystemExit(
            f"{checkpoint} is half of a training that did not start from {arguments.start_from}: "
            "finish it without --start-from, or remove it"
        )
    if arguments.start_from is not None and not half_done:
        training = Training(arguments.device, arguments.seed)
        training.start_from(arguments.start_from)
    return training


def work(rank: int, processes: int, arguments: argparse.Namespace) -> None:
    """One of the processes; on a CPU each has one thread, for OpenMP stalls on a shared machine."""
    if arguments.device == "cpu":
        torch.set_num_threads(1)
        setattr(F, "scaled_dot_product_attention", plain_attention)  # noqa: B010 (typed otherwise)
    if processes > 1:
        dist.init_process_group(
            "gloo",
            init_method=f"tcp://127.0.0.1:{arguments.port}",
            rank=rank,
            world_size=processes,
            timeout=timedelta(hours=3),
        )
    training = begin(arguments)
    if rank == 0:
        print(f"from step {training.step}, progress {training.progress:.3f}", flush=True)
    if rank == 0:
        count = sum(weight.numel() for weight in training.model.parameters())
        print(f"{count / 1e6:.2f} M parameters on {arguments.device}, {processes} processes; "
              f"evaluation set {parameters_hash()}", flush=True)  # fmt: skip
    train(training, arguments.folder, arguments.minutes, arguments.export, rank)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=110, help="length of the whole schedule")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--export", type=Path, default=WEIGHTS)
    parser.add_argument("--start-from", type=Path, help="safetensors to start a new schedule from")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--processes", type=int, help="default: 1 with CUDA, else one per core")
    parser.add_argument("--port", type=int, default=29517, help="on this machine, for gradients")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    processes = arguments.processes or (os.cpu_count() or 1 if arguments.device == "cpu" else 1)
    for name in KINDS:
        draw_stock(name, arguments.folder)
    if arguments.device == "cpu":
        # Read by glibc when a process starts: keep freed memory and use huge pages, which saves a
        # fifth of the time here.
        os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
        os.environ.setdefault("MALLOC_MMAP_MAX_", "0")
        os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(1 << 34))
        os.environ.setdefault("MALLOC_TOP_PAD_", str(1 << 28))
    if processes == 1 and arguments.device != "cpu":
        work(0, 1, arguments)
    else:
        spawn(work, (processes, arguments), processes)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
