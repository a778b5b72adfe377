# SPDX-License-Identifier: MIT
"""Runs the official SAM 2 predictors on images in memory, for comparison with ours."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from unittest import mock

import cv2
import numpy as np
import sam2.utils.misc
import torch
import torch.nn.functional as F
from hydra import initialize_config_dir, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from PIL import Image
from sam2.build_sam import build_sam2, build_sam2_video_predictor
from sam2.sam2_video_predictor import SAM2VideoPredictor
from torch import Tensor, nn

from sam2_tracker.clicks import Clicks
from sam2_tracker.models import ModelFiles, load_weights

if TYPE_CHECKING:
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
    from sam2.sam2_image_predictor import SAM2ImagePredictor

# SAM2VideoPredictor scales the time encoding by min(number of frames, 16).
LEAST_FRAMES = 16

Prompt = np.ndarray | tuple[float, float, float, float] | Clicks


def official_predictor(files: ModelFiles, *, fill_hole_area: int = 0) -> SAM2VideoPredictor:
    """Builds the predictor with sam2's own builder, which adds overrides, on the CPU in float32.

    fill_hole_area: holes of at most so many low-resolution pixels are filled. OfficialRun
    supplies the connected components that sam2 computes with its CUDA extension.
    """
    predictor = _build(build_sam2_video_predictor, files)
    # Set here, because the builder overrides every given value with its own 8.
    predictor.fill_hole_area = fill_hole_area
    return predictor


def official_image_predictor(files: ModelFiles, *, fill_hole_area: int = 0) -> "SAM2ImagePredictor":
    """Builds sam2's predictor for single images with sam2's own builder, on the CPU in float32."""
    with _torchvision():
        from sam2.sam2_image_predictor import SAM2ImagePredictor

        predictor = SAM2ImagePredictor(_build(build_sam2, files), max_hole_area=fill_hole_area)
    # It knows the sizes at 1024 px only.
    sizes = [predictor.model.image_size // stride for stride in (4, 8, 16)]
    predictor._bb_feat_sizes = [(size, size) for size in sizes]
    return predictor


def official_mask_generator(files: ModelFiles, **options: float) -> "SAM2AutomaticMaskGenerator":
    """sam2's generator of all masks of an image, on the CPU in float32.

    options: of SAM2AutomaticMaskGenerator. It takes two functions from torchvision, which stand
    below: non-maximum suppression as torchvision's documentation defines it, and an unused one.
    """
    predictor = official_image_predictor(files)
    with _torchvision():
        from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

        generator = SAM2AutomaticMaskGenerator(predictor.model, **options)
    generator.predictor._bb_feat_sizes = predictor._bb_feat_sizes
    return generator


@contextmanager
def opencv_holes() -> Iterator[None]:
    """Inside it sam2 fills holes without its CUDA extension."""
    with mock.patch.object(sam2.utils.misc, "get_connected_components", opencv_components):
        yield


def _build(builder: Callable[..., Any], files: ModelFiles) -> Any:
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(files.config.parent), version_base="1.2"):
            model = builder(files.config.stem, device="cpu")
    finally:  # hydra's state as it is after an import of sam2
        GlobalHydra.instance().clear()
        initialize_config_module("sam2", version_base="1.2")
    model.load_state_dict(load_weights(files.checkpoint), strict=True)
    return model


@contextmanager
def _torchvision() -> Iterator[None]:
    """Lets sam2 import its three transforms where torchvision is not installed.

    A torchvision without CUDA is not on PyPI. The results were compared with torchvision 0.28's:
    the same bits at six sizes.
    """
    package, transforms = ModuleType("torchvision"), ModuleType("torchvision.transforms")
    own = {"ToTensor": _ToTensor, "Resize": _Resize, "Normalize": _Normalize}
    transforms.__dict__.update(own)
    ops, boxes = ModuleType("torchvision.ops"), ModuleType("torchvision.ops.boxes")
    boxes.__dict__.update({"batched_nms": _batched_nms, "box_area": None})
    missing = {
        "torchvision": package,
        "torchvision.transforms": transforms,
        "torchvision.ops": ops,
        "torchvision.ops.boxes": boxes,
    }
    with mock.patch.dict(sys.modules, missing), mock.patch.object(torch.jit, "script", lambda x: x):
        yield


def _batched_nms(boxes: Tensor, scores: Tensor, _: Tensor, *, iou_threshold: float) -> Tensor:
    """Indexes of the boxes (x0, y0, x1, y1) that stay, all of one category: by falling score, each
    that has no larger IoU than `iou_threshold` with one that stays."""
    low, high = boxes[:, :2], boxes[:, 2:]
    areas = (high - low).prod(dim=1)
    kept: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        sides = torch.minimum(high[i], high[kept]) - torch.maximum(low[i], low[kept])
        shared = sides.clamp(min=0).prod(dim=1)
        if not (shared / (areas[i] + areas[kept] - shared) > iou_threshold).any():
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)


class _ToTensor(nn.Module):
    def forward(self, image: Image.Image) -> Tensor:
        """uint8 (height, width, 3) to float32 (3, height, width) of 0..1."""
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)


class _Resize(nn.Module):
    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, image: Tensor) -> Tensor:
        return F.interpolate(image[None], size=self.size, mode="bilinear", antialias=True)[0]


class _Normalize(nn.Module):
    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.mean, self.std = (torch.tensor(each)[:, None, None] for each in (mean, std))

    def forward(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.std


class OfficialRun:
    """One session of the official predictor; what it found is in `found`, by object and frame.

    Corrections of tracked frames become conditioning frames, as in SAM 2's training. By default
    the predictor forgets them when it tracks on.
    """

    def __init__(
        self, predictor: SAM2VideoPredictor, frames: Sequence[Image.Image], folder: Path
    ) -> None:
        """folder: an empty one, for the frames."""
        for index in range(max(len(frames), LEAST_FRAMES)):
            # PNG, because the pixels must stay exact, under the name that the predictor looks for.
            frame = frames[min(index, len(frames) - 1)]
            frame.save(folder / f"{index}.jpg", format="PNG", compress_level=1)
        predictor.add_all_frames_to_correct_as_cond = True
        self._predictor = predictor
        self._state = predictor.init_state(str(folder))
        self.found: dict[int, dict[int, Tensor]] = {}

    def draw(self, number: int, frame: int, prompt: Prompt) -> None:
        """A mask, a box or clicks of object `number` on a frame."""
        prompt = Clicks(box=prompt) if isinstance(prompt, tuple) else prompt
        with opencv_holes():
            if isinstance(prompt, Clicks):
                points, labels = list(map(list, prompt.points)), list(map(int, prompt.positive))
                self._predictor.add_new_points_or_box(
                    self._state, frame, number, points or None, labels or None, box=prompt.box
                )
            else:
                self._predictor.add_new_mask(self._state, frame, number, prompt)

    def track(self, start: int, last: int) -> None:
        """Tracks all objects from frame `start` to frame `last`; backwards where it is less."""
        with opencv_holes():
            for index, numbers, logits in self._predictor.propagate_in_video(
                self._state,
                start_frame_idx=start,
                max_frame_num_to_track=abs(last - start),
                reverse=last < start,
            ):
                for number, each in zip(numbers, logits[:, 0], strict=True):
                    self.found.setdefault(number, {})[index] = each.clone()

    def forget(self) -> None:
        """Ends the tracks; what was found stays."""
        self._predictor.reset_state(self._state)


def official_logits(
    predictor: SAM2VideoPredictor,
    frames: Sequence[Image.Image],
    prompts: Sequence[Prompt],
    folder: Path,
    *,
    starts: Sequence[int] | None = None,
) -> list[dict[int, Tensor]]:
    """Tracks each object from the frame of its prompt to the last frame.

    prompts: one per object, a bool mask (height, width) or a box (x0, y0, x1, y1) in pixels.
    starts: the frame of each prompt; default: 0. folder: an empty one, for the frames as files.
    Returns for each object its mask logits, float32 (height, width) at image size, by frame index.
    """
    run = OfficialRun(predictor, frames, folder)
    starts = starts or [0] * len(prompts)
    # One run per start frame. In one run for all, the predictor would also track objects on the
    # frames before their start, and remember these frames.
    for start in sorted(set(starts)):
        run.forget()
        for number, prompt in enumerate(prompts):
            if starts[number] == start:
                run.draw(number, start, prompt)
        run.track(start, len(frames) - 1)
    return [run.found[number] for number in range(len(prompts))]


def opencv_components(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Computes labels and areas of 8-connected components, as sam2's CUDA extension does.

    mask: bool or 0/1 (batch, 1, height, width). Returns two int32 tensors of its shape.
    """
    labels, areas = torch.zeros_like(mask, dtype=torch.int32), torch.zeros_like(mask).int()
    for index, plane in enumerate(mask[:, 0].cpu().numpy().astype(np.uint8)):
        _, found, stats, _ = cv2.connectedComponentsWithStats(plane, connectivity=8)
        size = stats[:, cv2.CC_STAT_AREA].copy()
        size[0] = 0
        labels[index, 0], areas[index, 0] = torch.from_numpy(found), torch.from_numpy(size[found])
    return labels, areas
