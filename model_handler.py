# SPDX-License-Identifier: MIT
"""SAM 2 through the official package: load it, encode a frame, start objects, step objects.

The truth is `sam2.sam2_video_predictor.SAM2VideoPredictor`. Its modules are called here on all
objects of a frame at once, with each object's memory handed in and out; nothing is kept between two
calls.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from PIL import Image
from sam2.modeling.sam2_utils import get_1d_sine_pe
from sam2.sam2_video_predictor import SAM2VideoPredictor
from torch import Tensor
from yaml import YAMLError  # type: ignore[import-untyped]

from sam2_tracker.errors import ConfigurationError, ModelFailure, OutOfMemory
from sam2_tracker.memory_bank import MemoryBank, MemoryLayout, advance_bank, start_bank
from sam2_tracker.models import ModelFiles, load_weights
from sam2_tracker.modules.image_encoder import speed_up
from sam2_tracker.modules.image_resize import image_to_pixels
from sam2_tracker.modules.memory_attention import MemoryAttention
from sam2_tracker.modules.official_rounding import PlainMemoryAttention, keep_objects_apart
from sam2_tracker.shapes import Bitmap, Box

logger = logging.getLogger(__name__)

T = TypeVar("T")
# As sam2.build_sam.build_sam2_video_predictor changes every configuration it builds.
PREDICTOR_OVERRIDES = {
    "_target_": "sam2.sam2_video_predictor.SAM2VideoPredictor",
    "binarize_mask_from_pts_for_mem_enc": True,
    "sam_mask_decoder_extra_args": {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    },
}
FORMAT = "1"
HOLE_FILL_LOGIT = 0.1
# Objects that go through the model together; bounds the memory of a request with many.
OBJECTS_AT_ONCE = 32
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameFeatures:
    """One encoded frame; levels from fine to coarse, each (height x width, 1, channels)."""

    levels: tuple[Tensor, ...]
    positions: tuple[Tensor, ...]
    sizes: tuple[tuple[int, int], ...]

    @property
    def nbytes(self) -> int:
        return sum(level.nbytes for level in self.levels)


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """One object on one frame."""

    logits: Tensor
    """float32 (size / 4, size / 4) on the model's device; above 0 is the object."""
    score: float
    """0..1: sigmoid of the object score times the predicted IoU of the chosen mask."""
    bank: MemoryBank


class ModelHandler:
    """A loaded SAM 2. Pure: a call changes neither its arguments nor the model."""

    def __init__(
        self,
        files: ModelFiles,
        *,
        device: str = "auto",
        precision: str = "auto",
        fill_hole_area: int = 8,
        image_size: int = 0,
        memory_frames: int = 0,
        cache_bytes: int,
    ) -> None:
        """Raises ConfigurationError if the device is missing or the files do not fit together.

        image_size, memory_frames: less than the model was made for, faster and less exact; 0: its
        own. cache_bytes: for what is derived from memory frames and needed again in the next step.
        """
        self.name = files.name
        self.device = _choose_device(device)
        self.precision = _choose_precision(precision, self.device)
        config = _read_config(files, image_size)
        self._fill_hole_area = fill_hole_area
        self._model = _build(files, config).to(self.device)
        if memory_frames:
            _keep_memory_frames(self._model, memory_frames)
            config.model.num_maskmem = memory_frames
        # Tracks that were started with other options are not continued with these.
        self.fingerprint = _fingerprint(files, config)
        self._dtype = torch.bfloat16 if self.precision == "bfloat16" else torch.float32
        try:
            self._rearrange(cache_bytes)
        except RuntimeError as error:
            raise ConfigurationError(
                f"{files.config.name} describes a model that cannot run at "
                f"{self._model.image_size} x {self._model.image_size} pixels: {error}"
            ) from error

    def _rearrange(self, cache_bytes: int) -> None:
        """Puts faster parts in the places of the official ones."""
        speed_up(self._model, dtype=self._dtype)
        self._image_mean = torch.tensor(IMAGE_MEAN, device=self.device)[:, None, None]
        self._image_std = torch.tensor(IMAGE_STD, device=self.device)[:, None, None]
        with torch.inference_mode():
            self.layout, positions = self._measure_memory()
            time_encodings = self._model.maskmem_tpos_enc[:, 0, 0]
            if self._dtype == torch.float32:
                keep_objects_apart(self._model)
                self._model.memory_attention = PlainMemoryAttention(
                    self._model.memory_attention,
                    memory_positions=positions,
                    time_encodings=time_encodings,
                )
            else:
                self._model.memory_attention = MemoryAttention(
                    self._model.memory_attention,
                    height=self.layout.height,
                    width=self.layout.width,
                    memory_positions=positions,
                    time_encodings=time_encodings,
                    dtype=self._dtype,
                    cache_bytes=cache_bytes,
                )

    def encode(self, image: Image.Image) -> FrameFeatures:
        """Encodes an RGB image of any size. Raises OutOfMemory."""
        with self._inference():
            pixels = image_to_pixels(image, self._model.image_size, self.device)
            tensor = pixels.permute(2, 0, 1).float() / 255.0
            tensor = (tensor - self._image_mean) / self._image_std
            encoded = self._model.forward_image(tensor[None].to(self._dtype))
            _, levels, positions, sizes = self._model._prepare_backbone_features(encoded)
        return FrameFeatures(levels=tuple(levels), positions=tuple(positions), sizes=tuple(sizes))

    def scale_mask(self, mask: Bitmap) -> Bitmap:
        """Scales a mask (bool, (height, width)) to the size of the model's input.

        One of that size is left as it is. start() scales by itself; to do it mask by mask saves
        memory where many objects start on a large image. Raises OutOfMemory.
        """
        size = self._model.image_size
        if mask.shape == (size, size):
            return mask
        # CUDA's kernel has no room for a reduction of more than about 180 to 1.
        device = self.device if max(mask.shape) <= 64 * size else torch.device("cpu")
        with self._inference():
            full = torch.from_numpy(mask)[None, None].to(device).float()
            resized = F.interpolate(
                full, size=(size, size), mode="bilinear", align_corners=False, antialias=True
            )[0, 0]
            # Of an object too small for the cut the strongest pixels stay: it can be followed.
            return (resized >= resized.max().clamp(max=0.5)).cpu().numpy()

    def start(
        self, frame: FrameFeatures, prompts: Sequence[Bitmap | Box], *, width: int, height: int
    ) -> list[Prediction]:
        """Starts objects from masks (bool, (height, width)) and boxes (x0, y0, x1, y1 in pixels).

        A mask may be scaled already. All masks run as one batch, and so do all boxes. Raises
        OutOfMemory, ModelFailure.
        """

        def kind(index: int) -> str:
            return "box" if isinstance(prompts[index], tuple) else "mask"

        def run(indexes: list[int]) -> list[Prediction]:
            chosen = [prompts[index] for index in indexes]
            scaled = [self.scale_mask(mask) for mask in chosen if not isinstance(mask, tuple)]
            if scaled:
                masks = torch.from_numpy(np.stack(scaled))[:, None].to(self.device).float()
                return self._start_batch(frame, None, masks)
            scale = torch.tensor([width, height], dtype=torch.float32)
            corners = torch.tensor(chosen, dtype=torch.float32).reshape(-1, 2, 2)
            points = {
                "point_coords": (corners / scale * self._model.image_size).to(self.device),
                # SAM 2 takes a box as two points, labelled 2 and 3.
                "point_labels": torch.tensor(
                    [[2, 3]] * len(chosen), dtype=torch.int32, device=self.device
                ),
            }
            return self._start_batch(frame, points, None)

        return self._in_batches(range(len(prompts)), kind, run)

    def step(self, frame: FrameFeatures, banks: Sequence[MemoryBank]) -> list[Prediction]:
        """Tracks objects on the next frame; those with an equal memory layout run as one batch.

        Raises OutOfMemory, ModelFailure.
        """

        def layout(index: int) -> tuple[int, int]:
            return len(banks[index].recent), len(banks[index].pointers)

        return self._in_batches(
            range(len(banks)),
            layout,
            lambda indexes: self._step_batch(frame, [banks[index] for index in indexes]),
        )

    def logits_to_bitmaps(
        self, logits: Sequence[Tensor], *, width: int, height: int
    ) -> Iterator[Bitmap]:
        """Scales predictions' logits to image size and cuts them at 0: (height, width) each.

        Those of many objects leave a GPU together, as bits. Raises OutOfMemory.
        """
        if self.device.type == "cpu":  # one by one, for those of a large image are large
            for each in logits:
                yield self.logits_to_image_size(each, width=width, height=height).gt(0).numpy()
            return
        for first in range(0, len(logits), OBJECTS_AT_ONCE):
            with self._inference():
                bits = [
                    pack_bits(self.logits_to_image_size(each, width=width, height=height) > 0)
                    for each in logits[first : first + OBJECTS_AT_ONCE]
                ]
                together = torch.stack(bits).cpu().numpy()
            for packed in together:
                yield np.unpackbits(packed, axis=1, count=width).view(np.bool_)

    def release_memory(self) -> None:
        """Gives back all device memory that is held for speed only."""
        if isinstance(self._model.memory_attention, MemoryAttention):
            self._model.memory_attention.forget()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def logits_to_image_size(self, logits: Tensor, *, width: int, height: int) -> Tensor:
        """Bilinear and without antialias, as the official predictor does; (height, width)."""
        with torch.inference_mode():
            return F.interpolate(
                logits[None, None], size=(height, width), mode="bilinear", align_corners=False
            )[0, 0]

    def _in_batches(
        self,
        indexes: Sequence[int],
        key: Callable[[int], object],
        run: Callable[[list[int]], list[Prediction]],
    ) -> list[Prediction]:
        groups: dict[object, list[int]] = {}
        for index in indexes:
            groups.setdefault(key(index), []).append(index)
        results: dict[int, Prediction] = {}
        for group in groups.values():
            batch = OBJECTS_AT_ONCE
            while group:
                try:
                    with self._inference():
                        results.update(zip(group[:batch], run(group[:batch]), strict=True))
                    group = group[batch:]
                except OutOfMemory:
                    batch = min(batch, len(group)) // 2
                    if batch == 0:
                        raise
                    logger.warning("out of device memory: %d objects at a time now", batch)
        return [results[index] for index in indexes]

    def _start_batch(
        self, frame: FrameFeatures, points: dict[str, Tensor] | None, masks: Tensor | None
    ) -> list[Prediction]:
        model = self._model
        count = len(masks if masks is not None else points["point_labels"])  # type: ignore[index]
        levels, positions = _expand(frame.levels, count), _expand(frame.positions, count)
        _, outputs, _, _ = model._track_step(
            frame_idx=0,
            is_init_cond_frame=True,
            current_vision_feats=levels,
            current_vision_pos_embeds=positions,
            feat_sizes=list(frame.sizes),
            point_inputs=points,
            mask_inputs=masks,
            output_dict={},
            num_frames=1,  # not read on a conditioning frame
            track_in_reverse=False,
            prev_sam_mask_logits=None,
        )
        _, _, ious, logits, _, pointers, object_scores = outputs
        logits = self._fill_holes(logits.float())
        # The memory of a prompted frame is encoded from its low-resolution logits, holes filled.
        memories, _ = model._encode_new_memory(
            current_vision_feats=levels,
            feat_sizes=list(frame.sizes),
            pred_masks_high_res=F.interpolate(
                logits, size=(model.image_size,) * 2, mode="bilinear", align_corners=False
            ),
            object_score_logits=object_scores,
            is_mask_from_pts=True,
        )
        scores = torch.ones(count) if masks is not None else _scores(ious, object_scores)
        return self._predictions([None] * count, logits, scores, memories, pointers)

    def _step_batch(self, frame: FrameFeatures, banks: list[MemoryBank]) -> list[Prediction]:
        model = self._model
        levels = _expand(frame.levels, len(banks))
        # The conditioning frame has the last time encoding, whatever its age; the newest the first.
        recent = len(banks[0].recent)
        with torch.autocast(self.device.type, enabled=False):  # it casts where it must by itself
            attended = model.memory_attention(
                frame.levels[-1][:, 0],
                frame.positions[-1][:, 0],
                [(bank.conditioning, *bank.recent) for bank in banks],
                [self.layout.recent, *range(recent - 1, -1, -1)],
                *self._pointer_tokens(banks),
            )
        maps = [_to_map(level, size) for level, size in zip(levels, frame.sizes, strict=True)]
        _, _, ious, logits, high_resolution, pointers, object_scores = model._forward_sam_heads(
            backbone_features=_to_map(attended.transpose(0, 1), frame.sizes[-1]),
            high_res_features=maps[:-1] or None,
            multimask_output=model._use_multimask(False, None),
        )
        memories, _ = model._encode_new_memory(
            current_vision_feats=levels,
            feat_sizes=list(frame.sizes),
            pred_masks_high_res=high_resolution,
            object_score_logits=object_scores,
            is_mask_from_pts=False,
        )
        scores = _scores(ious, object_scores)
        return self._predictions(
            banks, self._fill_holes(logits.float()), scores, memories, pointers
        )

    def _pointer_tokens(self, banks: list[MemoryBank]) -> tuple[Tensor, Tensor]:
        """Object pointers as memory tokens and their positions, (objects, tokens, channels).

        Order and encodings as in SAM2Base._prepare_memory_conditioned_features.
        """
        model, layout, count = self._model, self.layout, len(banks)
        if not model.use_obj_ptrs_in_encoder:
            none = torch.zeros(count, 0, layout.channels, device=self.device)
            return none, none
        pointers = torch.stack([bank.pointers for bank in banks])
        if model.add_tpos_enc_to_obj_ptrs:
            ages = range(1, pointers.shape[1])
            distances = torch.tensor([[bank.step + 1, *ages] for bank in banks], device=self.device)
            # SAM 2 scales by what it remembers at most, or the video's length if that is less: here
            # as in a long video, for it must not depend on how far the track has come.
            projected = model.proj_tpos_enc_in_obj_ptrs
            time = get_1d_sine_pe(
                distances / layout.pointers,
                dim=layout.pointer_channels if projected else layout.channels,
            )
            time = model.obj_ptr_tpos_proj(time)
        else:
            time = pointers.new_zeros(*pointers.shape[:2], layout.channels)
        # A pointer is wider than a memory token: it is cut into several.
        tokens_each = layout.pointer_channels // layout.channels
        tokens = pointers.reshape(count, -1, layout.channels)
        return tokens, time.repeat_interleave(tokens_each, dim=1)

    def _predictions(
        self,
        banks: Sequence[MemoryBank | None],
        logits: Tensor,
        scores: Tensor,
        memories: Tensor,
        pointers: Tensor,
    ) -> list[Prediction]:
        # bfloat16 on every device, also before its first use: as the official predictor keeps it.
        memories, pointers = memories.to(torch.bfloat16), pointers.float()
        for name, tensor in (("masks", logits), ("scores", scores), ("memory", memories)):
            if not tensor.isfinite().all():
                raise ModelFailure(f"The model's {name} are not finite numbers.")
        return [
            Prediction(
                logits=logits[index, 0],
                score=score,
                bank=start_bank(memories[index], pointers[index])
                if bank is None
                else advance_bank(bank, memories[index], pointers[index], self.layout),
            )
            for index, (bank, score) in enumerate(zip(banks, scores.tolist(), strict=True))
        ]

    def _fill_holes(self, logits: Tensor) -> Tensor:
        """Sets background components of at most `fill_hole_area` pixels to a small positive logit.

        logits: (objects, 1, height, width). The official predictor does this where its CUDA
        extension is built (sam2.utils.misc.fill_holes_in_mask_scores).
        """
        if self._fill_hole_area == 0:
            return logits
        holes = np.stack([self._holes(mask) for mask in logits.gt(0).cpu().numpy()[:, 0]])
        return torch.where(
            torch.from_numpy(holes)[:, None].to(self.device), HOLE_FILL_LOGIT, logits
        )

    def _holes(self, mask: Bitmap) -> Bitmap:
        _, labels, stats, _ = cv2.connectedComponentsWithStats(
            (~mask).astype(np.uint8), connectivity=8
        )
        small = stats[:, cv2.CC_STAT_AREA] <= self._fill_hole_area
        small[0] = False  # the object itself
        holes: Bitmap = small[labels]
        return holes

    def _measure_memory(self) -> tuple[MemoryLayout, Tensor]:
        """The memory's sizes, and its positional encoding: a constant, (pixels, channels)."""
        model = self._model
        side = model.image_size // model.backbone_stride
        blank = torch.zeros(1, model.hidden_dim, side, side, device=self.device)
        mask = torch.zeros(1, 1, model.image_size, model.image_size, device=self.device)
        output = model.memory_encoder(blank, mask, skip_mask_sigmoid=True)
        _, channels, height, width = output["vision_features"].shape
        layout = MemoryLayout(
            channels=channels,
            height=height,
            width=width,
            recent=model.num_maskmem - 1,
            pointer_channels=model.hidden_dim,
            pointers=model.max_obj_ptrs_in_encoder - 1,
        )
        return layout, output["vision_pos_enc"][-1][0].float().flatten(1).T

    @contextlib.contextmanager
    def _inference(self) -> Iterator[None]:
        try:
            with (
                torch.inference_mode(),
                torch.autocast(
                    self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"
                ),
            ):
                yield
        except torch.OutOfMemoryError:
            raise OutOfMemory("The device has too little memory for this frame.") from None


def pack_bits(mask: Tensor) -> Tensor:
    """bool (height, width) to uint8 (height, ceil(width / 8)), as numpy.packbits does it."""
    height, width = mask.shape
    padded = F.pad(mask, (0, -width % 8)).reshape(height, -1, 8)
    weights = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=mask.device)
    return (padded * weights).sum(dim=2, dtype=torch.uint8)


def set_threads(threads: int, workers: int) -> int:
    """Sets how many CPU threads the model uses, and returns it.

    threads: 0 means this worker's share of the container's CPU quota, which torch does not see.
    """
    torch.set_num_threads(threads or max(1, int(_available_cores() / workers)))
    return torch.get_num_threads()


def _available_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    cores = float(len(os.sched_getaffinity(0)))
    with contextlib.suppress(OSError, ValueError):
        quota, period = (cgroup / "cpu.max").read_text().split()
        return min(cores, int(quota) / int(period))
    with contextlib.suppress(OSError, ValueError):  # cgroup v1
        quota_us = int((cgroup / "cpu" / "cpu.cfs_quota_us").read_text())
        period_us = int((cgroup / "cpu" / "cpu.cfs_period_us").read_text())
        if quota_us > 0:
            return min(cores, quota_us / period_us)
    return cores


def _choose_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(
            f"SAM2_DEVICE is {name!r}, but there are {torch.cuda.device_count()} CUDA devices here."
        )
    return device


def _choose_precision(name: str, device: torch.device) -> str:
    if name != "auto":
        return name
    if device.type == "cuda":
        # Older ones emulate it, which torch.cuda.is_bf16_supported() does not tell apart.
        ampere = 8
        return "bfloat16" if torch.cuda.get_device_capability(device)[0] >= ampere else "float32"
    fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return "bfloat16" if fast else "float32"


def _read_config(files: ModelFiles, image_size: int) -> DictConfig:
    """The configuration file, with another image size unless that is 0."""
    try:
        config = OmegaConf.load(files.config)
        if not isinstance(config, DictConfig) or not isinstance(config.model, DictConfig):
            raise TypeError("it has no model")
    except (OSError, YAMLError, OmegaConfBaseException, TypeError, ValueError) as error:
        raise _not_a_configuration(files, error) from error
    if image_size:
        config.model.image_size = image_size
    return config


def _fingerprint(files: ModelFiles, config: DictConfig) -> str:
    text = "\n".join((FORMAT, files.sha256, OmegaConf.to_yaml(config, sort_keys=True)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _build(files: ModelFiles, config: DictConfig) -> SAM2VideoPredictor:
    try:
        whole = OmegaConf.merge(config, {"model": PREDICTOR_OVERRIDES})
        OmegaConf.resolve(whole)
        model = instantiate(whole.model, _recursive_=True)
    except (OmegaConfBaseException, InstantiationException) as error:
        raise _not_a_configuration(files, error) from error
    _check_supported(model, files.config.name)
    try:
        model.load_state_dict(load_weights(files.checkpoint), strict=True)
    except RuntimeError as error:
        raise ConfigurationError(
            f"{files.checkpoint.name} does not hold the weights of the model that "
            f"{files.config.name} describes: {str(error)[:500]}"
        ) from error
    # These act on all objects of a batch; the official predictor runs every object by itself.
    model.non_overlap_masks_for_mem_enc = False
    return model.eval()


def _not_a_configuration(files: ModelFiles, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"{files.config.name} is not a configuration of a SAM 2 model: {error}"
    )


def _keep_memory_frames(model: SAM2VideoPredictor, frames: int) -> None:
    """Lets a loaded model remember fewer frames: the conditioning one and frames - 1 recent ones.

    Of its time encodings the last belongs to the conditioning frame, the first to the newest.
    """
    if frames > model.num_maskmem:
        raise ConfigurationError(
            f"SAM2_MEMORY_FRAMES is {frames}, but the model remembers {model.num_maskmem}."
        )
    encodings = model.maskmem_tpos_enc.data
    model.maskmem_tpos_enc.data = torch.cat((encodings[: frames - 1], encodings[-1:]))
    model.num_maskmem = frames


def _check_supported(model: SAM2VideoPredictor, config: str) -> None:
    wanted = {
        "num_maskmem": model.num_maskmem >= 2,
        "memory_temporal_stride_for_eval": model.memory_temporal_stride_for_eval == 1,
        "directly_add_no_mem_embed": model.directly_add_no_mem_embed,
    }
    for option, supported in wanted.items():
        if not supported:
            raise ConfigurationError(
                f"{config} sets {option} to {getattr(model, option)}, which is not supported."
            )


def _expand(levels: Sequence[Tensor], count: int) -> list[Tensor]:
    return [level.expand(-1, count, -1) for level in levels]


def _to_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """(pixels, objects, channels) to (objects, channels, height, width)."""
    _, objects, channels = tokens.shape
    return tokens.permute(1, 2, 0).reshape(objects, channels, *size)


def _scores(ious: Tensor, object_scores: Tensor) -> Tensor:
    return (object_scores.float().sigmoid()[:, 0] * ious.float().amax(dim=1)).cpu()
