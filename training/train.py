# SPDX-License-Identifier: MIT
"""Train the micro model: `python -m training.train`, from nothing or from stored weights.

The best running average goes to `out/training/best.safetensors`; nothing in `models/` is changed.

One program for a CPU with several processes and for a GPU. The checkpoint holds everything, and
what is drawn depends on seed, step and process alone: a training that was stopped goes on with the
same command as if it had never stopped.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from sam2.sam2_video_predictor import SAM2VideoPredictor
from torch.multiprocessing.spawn import spawn

from model_handler import IMAGE_MEAN, IMAGE_STD
from training import pictures
from training.dataset import DATA_VERSION, FOLDER, KINDS, LEAST_PIXELS, SIDE, Batch, ClipStock
from training.evaluation_set import SEMI_REAL_HASH, check_frozen, parameters_hash
from training.losses import Losses, drift_loss, guide_loss, losses_of
from training.model import (
    CONFIG,
    build_predictor,
    digest_of,
    load_weights,
    save_weights,
    weights_file,
)
from training.prompting import Before, Tap, Tracker, draw_plan, resize_input
from training.schedule import CONTINUED_DECAY_SHARE, rate_at, serving_at
from training.validate import score_of

PEAK_RATE = {"Muon": 3e-3, "AdamW": 1e-3}
# Of the peak, for weights that can track already: batches are small, and more only shakes them.
CONTINUED_RATE = 0.05
# With --keep-tracking: clicks have more to learn, and what tracks is held fast.
KEPT_RATE, DRIFT_WEIGHT = 0.15, 20.0
WEIGHT_DECAY = 0.02
WARM_UP, CONTINUED_WARM_UP = 300, 100  # steps
EARLY_STEPS = 2000  # over which the evened-out loss and the guides fade in a training from nothing
LONGEST_HORIZON = 2000  # steps that the running average looks back on
MOST_NORM = 1.0
# What --decoder-only trains, and which part of it belongs to the features of a picture.
DECODER = ("sam_mask_decoder.", "sam_prompt_encoder.")
ENCODED = ("sam_mask_decoder.conv_s0.", "sam_mask_decoder.conv_s1.")
EXPORT = FOLDER / "best.safetensors"
SECONDS_PER_CHECKPOINT = 180
STEPS_PER_LINE = 20


def plain_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout_p: float = 0.0
) -> torch.Tensor:
    """Softmax attention step by step: with bfloat16 on a CPU forwards and backwards together take
    a third of the time of torch's fused kernel."""
    if dropout_p:
        raise ValueError("the micro model has no dropout")
    scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-2, -1))
    return torch.matmul(scores.softmax(-1), value)


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


def optimizers_of(
    model: SAM2VideoPredictor, guides: torch.nn.ModuleList
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices within the layers, AdamW for everything else.

    Only matrices and convolutions are decayed: biases, norms, positions and the embeddings of
    prompts and tokens, many of which a batch does not use at all, are not.
    """
    matrices: list[torch.Tensor] = []
    decayed: list[torch.Tensor] = []
    kept: list[torch.Tensor] = []
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        embedding = "embed" in name and "patch_embed" not in name or "token" in name
        embedding = embedding or "no_obj" in name or "no_mem" in name or "tpos" in name
        if embedding or weight.ndim < 2:
            kept.append(weight)
        elif weight.ndim == 2 and min(weight.shape) >= 16:
            matrices.append(weight)
        else:
            decayed.append(weight)
    groups = [
        {"params": decayed, "weight_decay": WEIGHT_DECAY},
        {"params": [*kept, *guides.parameters()], "weight_decay": 0.0},
    ]
    return [
        torch.optim.Muon(matrices, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, betas=(0.9, 0.99)),
    ]


class Training:
    """Model, its running average, optimizers, how far it has come, and the best average so far."""

    def __init__(
        self, device: str, seed: int, steps: int, drawn_only: bool = False,
        decoder_only: bool = False, keep_tracking: bool = False,
    ) -> None:  # fmt: skip
        torch.manual_seed(seed)
        self.model = build_predictor(CONFIG, None, device)
        attend_nearby(self.model)
        self.decoder_only = decoder_only
        if decoder_only:
            for name, weight in self.model.named_parameters():
                weight.requires_grad_(name.startswith(DECODER) and not name.startswith(ENCODED))
        self.tap = Tap(self.model)
        width = self.model.hidden_dim
        self.guides = torch.nn.ModuleList(torch.nn.Linear(width, 1) for _ in range(2)).to(device)
        self.optimizers = optimizers_of(self.model, self.guides)
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.best = self.average
        self.best_score, self.best_step = -1.0, 0
        self.step, self.steps, self.seed, self.drawn_only = 0, steps, seed, drawn_only
        self.origin = ""  # the digest of the weights that it started from
        self.keep_tracking = keep_tracking
        self.before: Before | None = None
        self.trained_seconds = 0.0
        # All gradients lie in one tensor, so that processes share them in one piece.
        self.weights = [w for w in self.model.parameters() if w.requires_grad]
        self.weights += self.guides.parameters()
        self.flat = torch.zeros(sum(weight.numel() for weight in self.weights), device=device)
        parts = torch.split(self.flat, [weight.numel() for weight in self.weights])
        for weight, part in zip(self.weights, parts, strict=True):
            weight.grad = part.view_as(weight)

    _COUNTS = ("step", "seed", "origin", "best_score", "best_step", "trained_seconds", "drawn_only",
               "decoder_only", "keep_tracking")  # fmt: skip

    def load(self, path: Path) -> None:
        """Raises ValueError for a checkpoint of another model, of other data or of other options.

        The seed is the one that the checkpoint was begun with.
        """
        kept = torch.load(path, map_location=self.model.device, weights_only=True)
        if kept.get("made_for") != made_for():
            raise ValueError(f"{path} is of another model or of other data: remove it")
        for option in ("drawn_only", "decoder_only", "keep_tracking"):
            wanted = getattr(self, option)
            if kept.get(option, False) != wanted:
                raise ValueError(
                    f"{path} was begun {'without' if wanted else 'with'} "
                    f"--{option.replace('_', '-')}: go on like that, or remove it"
                )
        self.model.load_state_dict(kept["model"])
        self.guides.load_state_dict(kept["guides"])
        self.average, self.best = kept["average"], kept["best"]
        for optimizer, state in zip(self.optimizers, kept["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        for name in self._COUNTS:
            setattr(self, name, kept[name])

    def save(self, path: Path) -> None:
        part = path.with_suffix(".part")
        torch.save(
            {
                "made_for": made_for(),
                "model": self.model.state_dict(),
                "guides": self.guides.state_dict(),
                "average": self.average,
                "best": self.best,
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                **{name: getattr(self, name) for name in self._COUNTS},
            },
            part,
        )
        os.replace(part, path)

    def start_from(self, weights: Path) -> None:
        """Go on with weights that were stored, with a schedule of its own."""
        self.origin = digest_of(weights)
        self.model.load_state_dict(load_weights(weights), strict=True)
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.best = self.average

    def remember(self, weights: Path) -> None:
        """With --keep-tracking: the weights whose tracking is kept."""
        self.before = Before(build_predictor(CONFIG, weights, str(self.model.device)))

    @property
    def rate(self) -> float:
        """Share of the peak learning rate of the next step."""
        if self.origin:
            share = rate_at(self.step, self.steps, CONTINUED_WARM_UP, CONTINUED_DECAY_SHARE)
            return (KEPT_RATE if self.keep_tracking else CONTINUED_RATE) * share
        return rate_at(self.step, self.steps, WARM_UP)

    def answers_loss(self, batch: Batch, alone: bool, clicks: bool) -> tuple[Losses, torch.Tensor]:
        """The losses of one batch, and what is trained on.

        Where tracking is kept as it was, answers without clicks are compared with the former ones
        and not with the truth.
        """
        rank = dist.get_rank() if dist.is_initialized() else 0
        rng = np.random.default_rng((self.seed, self.step, rank, 1))
        device, early = self.model.device, max(0.0, 1 - self.step / EARLY_STEPS)
        early = 0.0 if self.origin else early
        images = torch.from_numpy(batch.images).to(device).permute(0, 1, 4, 2, 3).float() / 255
        mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (IMAGE_MEAN, IMAGE_STD))
        images = (images - mean) / std
        masks = torch.from_numpy(batch.masks).to(device)
        clip = torch.from_numpy(batch.clip).to(device)
        side = images.shape[-1]
        resize_input(self.model, side)
        plan = draw_plan(rng, images.shape[1], clicks)
        with torch.autocast(device.type, torch.bfloat16):
            tracker = Tracker(
                self.model, self.tap, images, masks, clip, batch.times, rng,
                through_memory=not self.decoder_only, before=self.before,
            )  # fmt: skip
            if alone:
                answers = tracker.segment(plan, LEAST_PIXELS * (side / SIDE) ** 2)
            else:
                answers = tracker.track(plan, told=bool(rng.random() < early))
        compared = side // 4 if side <= SIDE // 2 else side // 2
        if self.before is not None:
            clicked = [answer for answer in answers if answer.points]
            losses = losses_of(clicked or answers, 0.0, compared)
            total = losses.total if clicked else losses.total.new_zeros(())
            if tracker.comparisons:
                total = total + DRIFT_WEIGHT * drift_loss(tracker.comparisons)
            return losses, total
        losses = losses_of(answers, 2 * early, compared)
        if not early:
            return losses, losses.total
        return losses, losses.total + 2 * early * guide_loss(self.guides, answers)

    def advance(self, stocks: dict[str, ClipStock]) -> Losses:
        """One step."""
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        serving = serving_at(
            self.step / self.steps, bool(self.origin),
            np.random.default_rng((self.seed, self.step)), self.drawn_only,
            self.decoder_only,
        )  # fmt: skip
        torch.manual_seed(hash((self.seed, self.step, rank)))
        batch = stocks[serving.stock].sample(
            np.random.default_rng((self.seed, self.step, rank)), serving.clips, serving.frames,
            serving.objects, serving.widest_stride, serving.side,
        )  # fmt: skip
        losses, total = self.answers_loss(batch, serving.alone, serving.clicks)
        total.backward()  # type: ignore[no-untyped-call]
        if world > 1:
            dist.all_reduce(self.flat)
            self.flat /= world
        norm = torch.nn.utils.clip_grad_norm_(self.weights, MOST_NORM)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = PEAK_RATE[type(optimizer).__name__] * self.rate
            if torch.isfinite(norm):
                optimizer.step()
        self.flat.zero_()
        horizon = min(LONGEST_HORIZON, self.steps / 10)
        decay = min(1 - 1 / max(horizon, 1), (1 + self.step) / (10 + self.step))
        state = self.model.state_dict()
        torch._foreach_lerp_(list(self.average.values()), list(state.values()), 1 - decay)
        self.step += 1
        return losses

    def keep_if_best(self, score: float) -> bool:
        """Keep a copy of the running average if none was better; score: higher is better."""
        if score <= self.best_score:
            return False
        self.best_score, self.best_step = score, self.step
        self.best = {name: tensor.clone() for name, tensor in self.average.items()}
        return True


def made_for() -> str:
    """What a checkpoint fits: the configuration's text, the pictures' size, the data's version."""
    return f"{CONFIG.read_text()}\nside {SIDE}, data {DATA_VERSION}"


def train(
    training: Training, folder: Path, rank: int, minutes: float,
    validate_every: int, validate: Callable[[dict[str, Any]], float],
) -> None:  # fmt: skip
    """Until the steps are done or the minutes are over; validate gives a score of weights.

    The weights that the training started from are judged first: they stay the best ones unless an
    average is better.
    """
    if rank == 0 and training.origin and not training.step:
        training.keep_if_best(validate(training.average))
        print(f"J&F of the weights that it starts from {training.best_score:.4f}", flush=True)
    stocks = {name: ClipStock(name, folder) for name in KINDS}
    began = saved = last = time.monotonic()
    recent: list[tuple[float, ...]] = []
    stop = torch.zeros(1)
    while training.step < training.steps and not stop:
        losses = training.advance(stocks)
        now = time.monotonic()
        training.trained_seconds += now - last
        mask, visibility = losses.mask.item(), losses.visibility.item()
        recent.append((mask, visibility, losses.mean_iou, losses.silence, now - last))
        last = now
        if rank == 0 and training.step % STEPS_PER_LINE == 0:
            names = ("mask", "visibility", "iou", "silence", "s/step")
            means = zip(names, np.nanmean(np.array(recent), 0), strict=True)
            print(
                f"{time.strftime('%H:%M:%S')} step {training.step} of {training.steps} "
                f"rate {training.rate:.3f} " + " ".join(f"{n} {value:.3f}" for n, value in means),
                flush=True,
            )
            recent.clear()
        if rank == 0 and (training.step % validate_every == 0 or training.step == training.steps):
            score = validate(training.average)
            mark = ", the best" if training.keep_if_best(score) else ""
            print(f"{time.strftime('%H:%M:%S')} step {training.step} J&F of the running "
                  f"average {score:.4f}{mark}", flush=True)  # fmt: skip
        if rank == 0 and time.monotonic() - saved > SECONDS_PER_CHECKPOINT:
            training.save(folder / "checkpoint.pt")
            saved = time.monotonic()
        stop[0] = float(time.monotonic() - began > 60 * minutes)
        if dist.is_initialized():
            dist.broadcast(stop, 0)
        last = time.monotonic()
    if rank == 0:
        training.save(folder / "checkpoint.pt")


def begin(arguments: argparse.Namespace) -> Training:
    """From where a checkpoint was left, else from the weights that are named, else from nothing.

    Exits with a message if the checkpoint is of another training, or finished.
    """
    training = Training(
        arguments.device, arguments.seed, arguments.steps, arguments.drawn_only,
        arguments.decoder_only, arguments.keep_tracking,
    )  # fmt: skip
    if arguments.keep_tracking:
        training.remember(arguments.start_from)
    checkpoint = arguments.folder / "checkpoint.pt"
    if not checkpoint.exists():
        if arguments.start_from is not None:
            training.start_from(arguments.start_from)
        return training
    try:
        training.load(checkpoint)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    if training.step >= training.steps:
        raise SystemExit(
            f"{checkpoint} is finished at step {training.step}: remove it to begin another "
            "training, or give more --steps to go on"
        )
    origin = digest_of(arguments.start_from) if arguments.start_from else ""
    if training.origin != origin:
        how = "with --start-from" if training.origin else "without --start-from"
        if training.origin and origin:
            how = "with other weights in --start-from"
        raise SystemExit(f"{checkpoint} was begun {how}: go on like that, or remove it")
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
        count = sum(weight.numel() for weight in training.model.parameters())
        print(f"from step {training.step} of {training.steps}; {count / 1e6:.2f} M parameters on "
              f"{arguments.device}, {processes} processes; evaluation sets {parameters_hash()} "
              f"(drawn), {SEMI_REAL_HASH} (semi-real)", flush=True)  # fmt: skip
    semi_real = not arguments.drawn_only
    train(
        training, arguments.folder, rank, arguments.minutes, arguments.validate_every,
        lambda weights: score_of(weights, arguments.device, semi_real),
    )  # fmt: skip
    if rank == 0:
        save_weights(training.best, arguments.export)
        print(f"{arguments.export}: the running average of step {training.best_step}, J&F "
              f"{training.best_score:.4f}, of {training.step} steps in "
              f"{training.trained_seconds / 60:.0f} minutes", flush=True)  # fmt: skip


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--steps", type=int, default=10_000,
        help="length of the schedule; may be changed when a training goes on",
    )  # fmt: skip
    parser.add_argument(
        "--minutes", type=float, default=1e9, help="stop then, with a checkpoint to go on from"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument(
        "--export", type=Path, default=EXPORT,
        help="where the best weights go (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--start-from", type=weights_file, help="safetensors to start a new schedule from"
    )
    parser.add_argument("--validate-every", type=int, default=250, help="steps")
    parser.add_argument(
        "--drawn-only", action="store_true", help="without the photographs of Debian's packages"
    )
    parser.add_argument(
        "--decoder-only", action="store_true",
        help="train the mask decoder and the prompt encoder alone, for a few hundred steps",
    )  # fmt: skip
    parser.add_argument(
        "--keep-tracking", action="store_true",
        help="with --decoder-only and --start-from: learn clicks and boxes, and answer frames "
        "without them as the weights did that it starts from",
    )  # fmt: skip
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--processes", type=int, help="default: 1 with CUDA, else one per core")
    parser.add_argument("--port", type=int, default=29517, help="on this machine, for gradients")
    parser.add_argument("--seed", type=int, default=1, help="a checkpoint keeps its own")
    arguments = parser.parse_args()
    if arguments.steps < 1 or arguments.minutes <= 0 or arguments.validate_every < 1:
        parser.error("--steps, --minutes and --validate-every have to be above 0")
    if arguments.keep_tracking and not (arguments.decoder_only and arguments.start_from):
        parser.error("--keep-tracking goes with --decoder-only and --start-from")
    return arguments


def main() -> None:
    arguments = read_options()
    processes = arguments.processes or (os.cpu_count() or 1 if arguments.device == "cpu" else 1)
    try:
        if not arguments.drawn_only:
            pictures.fetch()
        check_frozen(None if arguments.drawn_only else pictures.FOLDER)
    except pictures.NoPicturesError as error:
        raise SystemExit(f"{error} Or train on drawn clips alone: --drawn-only") from error
    except ValueError as error:
        raise SystemExit(str(error)) from error
    arguments.folder.mkdir(parents=True, exist_ok=True)
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
        begin(arguments)  # what it refuses is said once, and not by each process
        spawn(work, (processes, arguments), processes)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
