# SPDX-License-Identifier: MIT
"""From a configuration and its weights to a network that is ready to run."""

import hashlib
from dataclasses import dataclass

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from sam2.sam2_video_predictor import SAM2VideoPredictor
from torch import Tensor
from yaml import YAMLError  # type: ignore[import-untyped]

from sam2_tracker.errors import ConfigurationError, in_one_line
from sam2_tracker.memory_bank import MemoryLayout
from sam2_tracker.memory_cache import MemoryCache
from sam2_tracker.models import ModelFiles, load_weights
from sam2_tracker.modules.image_encoder import prepare_image_encoder
from sam2_tracker.modules.memory_attention import MemoryAttention
from sam2_tracker.modules.memory_encoder import MemoryEncoder
from sam2_tracker.modules.official_rounding import PlainMemoryAttention, keep_objects_apart
from sam2_tracker.out_of_memory import is_out_of_memory
from sam2_tracker.record_format import VERSION

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
AMPERE = 8
"""Compute capability of the first NVIDIA GPUs with bfloat16 in hardware."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedModel:
    """A network with its weights, its parts rearranged for repeated use."""

    name: str
    fingerprint: str
    """Names model, configuration, weights and record format: tracks that were started with
    another one are not continued."""
    device: torch.device
    precision: str
    """float32 or bfloat16."""
    network: SAM2VideoPredictor
    layout: MemoryLayout


def build_model(
    files: ModelFiles,
    *,
    device: str = "auto",
    precision: str = "auto",
    image_size: int = 0,
    memory_frames: int = 0,
    cache: MemoryCache,
) -> LoadedModel:
    """Loads a model and puts this function's modules in the places of SAM 2's.

    image_size, memory_frames: less than the model was made for, faster and less exact; 0: its own.
    cache: keeps what attention derives from memory frames. Raises ConfigurationError if the device
    is missing or the files do not fit together.
    """
    chosen_device = choose_device(device)
    chosen_precision = choose_precision(precision, chosen_device)
    dtype = torch.bfloat16 if chosen_precision == "bfloat16" else torch.float32
    config = _read_config(files, image_size)
    network = _build_network(files, config, chosen_device)
    try:
        network.to(chosen_device)
        if memory_frames:
            _keep_memory_frames(network, memory_frames)
            config.model.num_maskmem = memory_frames
        layout = _install_modules(network, dtype, cache)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise _too_little_memory(files, chosen_device, error) from error
        raise ConfigurationError(
            f"{files.config.name} describes a model that cannot run at "
            f"{network.image_size} x {network.image_size} pixels: {in_one_line(error)}"
        ) from error
    return LoadedModel(
        name=files.name,
        fingerprint=_fingerprint(files, config),
        device=chosen_device,
        precision=chosen_precision,
        network=network,
        layout=layout,
    )


def choose_precision(name: str, device: torch.device) -> str:
    """float32 or bfloat16; "auto" is bfloat16 where the device has it in hardware."""
    if name != "auto":
        return name
    if device.type == "cuda":
        # Older ones emulate it, which torch.cuda.is_bf16_supported() does not tell apart.
        fast = torch.cuda.get_device_capability(device)[0] >= AMPERE
    else:
        fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return "bfloat16" if fast else "float32"


def choose_device(name: str) -> torch.device:
    """The device of the setting of its name.

    Raises ConfigurationError where it is not there, and where it is a GPU that cannot be used.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type != "cuda":
        return device
    if (device.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(
            f"SAM2_DEVICE is {name!r}, but there are {torch.cuda.device_count()} CUDA devices here."
        )
    try:
        # sam2's modules put constants on "cuda" while they are built: not on another GPU.
        torch.cuda.set_device(device.index or 0)
        _convolve(device)
    except Exception as error:  # torch raises several kinds
        first_line = str(error).partition("\n")[0].rstrip(".")
        raise ConfigurationError(
            f"The GPU cannot be used: {first_line}. Free its memory, update its driver, or take an "
            "older CUDA with --torch-index (docs/deploy.md)."
        ) from error
    return device


def _convolve(device: torch.device) -> None:
    """Waits for a tiny convolution: it takes the driver, memory, and kernels for this GPU."""
    image = torch.ones((1, 1, 8, 8), device=device)
    torch.nn.functional.conv2d(image, image[..., :3, :3]).cpu()


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


def _build_network(
    files: ModelFiles, config: DictConfig, device: torch.device
) -> SAM2VideoPredictor:
    try:
        whole = OmegaConf.merge(config, {"model": PREDICTOR_OVERRIDES})
        OmegaConf.resolve(whole)
        network = instantiate(whole.model, _recursive_=True)
    except (OmegaConfBaseException, InstantiationException) as error:
        if error.__cause__ is not None and is_out_of_memory(error.__cause__):
            raise _too_little_memory(files, device, error.__cause__) from error
        raise _not_a_configuration(files, error) from error
    _check_supported(network, files.config.name)
    try:
        network.load_state_dict(load_weights(files.checkpoint), strict=True)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise _too_little_memory(files, torch.device("cpu"), error) from error
        raise ConfigurationError(
            f"{files.checkpoint.name} does not hold the weights of the model that "
            f"{files.config.name} describes: {in_one_line(error)}"
        ) from error
    # These act on all objects of a batch; the official predictor runs every object by itself.
    network.non_overlap_masks_for_mem_enc = False
    return network.eval()


def _install_modules(
    network: SAM2VideoPredictor, dtype: torch.dtype, cache: MemoryCache
) -> MemoryLayout:
    prepare_image_encoder(network, dtype=dtype)
    with torch.inference_mode():
        layout, positions, (height, width) = _measure_memory(network)
        time_encodings = network.maskmem_tpos_enc[:, 0, 0]
        if dtype == torch.float32:
            keep_objects_apart(network)
            network.memory_attention = PlainMemoryAttention(
                network.memory_attention,
                memory_positions=positions,
                time_encodings=time_encodings,
            )
        else:
            network.memory_attention = MemoryAttention(
                network.memory_attention,
                height=height,
                width=width,
                memory_positions=positions,
                time_encodings=time_encodings,
                dtype=dtype,
                cache=cache,
            )
            network.memory_encoder = MemoryEncoder(network.memory_encoder)
            _cast_weights(network, dtype)
    return layout


def _cast_weights(network: SAM2VideoPredictor, dtype: torch.dtype) -> None:
    """Holds the weights of linear layers and convolutions as autocast would cast them."""
    for part in (network.sam_mask_decoder, network.sam_prompt_encoder):
        for module in part.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d | torch.nn.ConvTranspose2d):
                module.to(dtype)


def _measure_memory(network: SAM2VideoPredictor) -> tuple[MemoryLayout, Tensor, tuple[int, int]]:
    """What the model's own memory encoder gives.

    Returns the memory's sizes, its positional encoding, which is a constant, (tokens, channels),
    and the height and width of the map that the tokens are.
    """
    device = network.maskmem_tpos_enc.device
    side = network.image_size // network.backbone_stride
    blank = torch.zeros(1, network.hidden_dim, side, side, device=device)
    mask = torch.zeros(1, 1, network.image_size, network.image_size, device=device)
    output = network.memory_encoder(blank, mask, skip_mask_sigmoid=True)
    _, channels, height, width = output["vision_features"].shape
    layout = MemoryLayout(
        tokens=height * width,
        channels=channels,
        recent=network.num_maskmem - 1,
        pointer_channels=network.hidden_dim,
        pointers=network.max_obj_ptrs_in_encoder - 1,
    )
    positions = output["vision_pos_enc"][-1][0].float().flatten(1).T
    return layout, positions, (height, width)


def _keep_memory_frames(network: SAM2VideoPredictor, frames: int) -> None:
    """Lets a loaded model remember fewer frames: the conditioning one and frames - 1 recent ones.

    Of its time encodings the last belongs to the conditioning frame, the first to the newest.
    """
    if frames > network.num_maskmem:
        raise ConfigurationError(
            f"SAM2_MEMORY_FRAMES is {frames}, but the model remembers {network.num_maskmem}."
        )
    encodings = network.maskmem_tpos_enc.data
    network.maskmem_tpos_enc.data = torch.cat((encodings[: frames - 1], encodings[-1:]))
    network.num_maskmem = frames


def _check_supported(network: SAM2VideoPredictor, config: str) -> None:
    wanted = {
        "num_maskmem": network.num_maskmem >= 2,
        "max_obj_ptrs_in_encoder": network.max_obj_ptrs_in_encoder >= 2,
        "memory_temporal_stride_for_eval": network.memory_temporal_stride_for_eval == 1,
        "directly_add_no_mem_embed": network.directly_add_no_mem_embed,
        "only_obj_ptrs_in_the_past_for_eval": network.only_obj_ptrs_in_the_past_for_eval,
    }
    for option, supported in wanted.items():
        if not supported:
            raise ConfigurationError(
                f"{config} sets {option} to {getattr(network, option)}, which is not supported."
            )


def _fingerprint(files: ModelFiles, config: DictConfig) -> str:
    text = "\n".join((str(VERSION), files.sha256, OmegaConf.to_yaml(config, sort_keys=True)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _too_little_memory(
    files: ModelFiles, device: torch.device, error: BaseException
) -> ConfigurationError:
    return ConfigurationError(
        f"{device} has too little memory for {files.name}: take a smaller model "
        f"({in_one_line(error)})."
    )


def _not_a_configuration(files: ModelFiles, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"{files.config.name} is not a configuration of a SAM 2 model: {in_one_line(error)}"
    )
