# SPDX-License-Identifier: MIT
"""The table of models, and their files: configuration, checkpoint, checksum.

The checkpoints are fetched by download.py.
"""

import hashlib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sam2_tracker.errors import ConfigurationError
from sam2_tracker.settings import Settings

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parents[1]
META_URL = "https://dl.fbaipublicfiles.com/segment_anything_2"
EFFICIENTTAM_URL = "https://huggingface.co/yunyangx/efficient-track-anything/resolve/main"


@dataclass(frozen=True, kw_only=True)
class Model:
    """One row of the table. A bundled model has no URL: its file lies beside its configuration.

    size: of the checkpoint in bytes. tensor_bytes: of its tensors alone, for a checkpoint whose
    size and checksum are not known.
    """

    name: str
    hugging_face_id: str | None = None
    config: Path
    file_name: str
    url: str | None = None
    size: int | None = None
    tensor_bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """An existing configuration and checkpoint; `sha256` is that of the checkpoint's bytes."""

    name: str
    config: Path
    checkpoint: Path
    sha256: str


def _sam2_configs() -> Path:
    # find_spec, not import: importing sam2 initialises hydra and takes seconds.
    spec = importlib.util.find_spec("sam2")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return Path(folders[0] if folders else "sam2-is-not-installed") / "configs"


def _table() -> tuple[Model, ...]:
    micro = Model(
        name="sam2.1_hiera_micro",
        config=ROOT / "models" / "sam2.1_hiera_micro.yaml",
        file_name="sam2.1_hiera_micro.safetensors",
    )
    return (micro, *_sam2_models(), *_efficienttam_models())


def _sam2_models() -> list[Model]:
    configs = _sam2_configs()
    # Several independent public repositories agree on the checksums of SAM 2.1. For SAM 2 no such
    # source is known, so the person who fetches one of its files has to give the checksum.
    known = {
        "sam2.1_hiera_tiny": (
            156_008_466,
            "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
        ),
        "sam2.1_hiera_small": (
            184_416_285,
            "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
        ),
        "sam2.1_hiera_base_plus": (
            323_606_802,
            "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
        ),
        "sam2.1_hiera_large": (
            898_083_611,
            "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
        ),
    }
    models = []
    for version, folder in (("sam2.1", "092824"), ("sam2", "072824")):
        for size, letters in (("tiny", "t"), ("small", "s"), ("base_plus", "b+"), ("large", "l")):
            name = f"{version}_hiera_{size}"
            length, sha256 = known.get(name, (None, None))
            models.append(
                Model(
                    name=name,
                    hugging_face_id=f"facebook/{version}-hiera-{size.replace('_', '-')}",
                    config=configs / version / f"{version}_hiera_{letters}.yaml",
                    file_name=f"{name}.pt",
                    url=f"{META_URL}/{folder}/{name}.pt",
                    size=length,
                    sha256=sha256,
                )
            )
    return models


def _efficienttam_models() -> list[Model]:
    """EfficientTAM (arXiv 2411.18933): its authors' names, with _512 in the place of _512x512."""
    # The authors publish no checksums. On those of `ti` and `s` two independent public
    # repositories agree. Those of `512` come from one of the two, which mirrors the files; another
    # repository states the same size for `ti_512`. None is known of the models that pool.
    known = {
        "ti": (
            71_616_316,
            "acbb17b28cca1f860acee09c9ecb6efdb732080dc7a85a07292c31813175fa7d",
        ),
        "ti_512": (
            71_620_052,
            "7d4d652a465f0081391050932f45d8a66768ccc99c8ea393ce8a5927e83f3b9b",
        ),
        "s": (
            136_375_868,
            "2b572be30d9e96ee29c8d785fe157c6b079ede7d56fbc8a3671d4120e63c89cd",
        ),
        "s_512": (
            136_379_145,
            "67b5840012737ed2c94a4cb8787c5c1b27b3a946045d2e602e65ef77230b6085",
        ),
    }
    models = []
    for size, tensor_bytes in (("ti", 71_465_096), ("s", 136_224_392)):
        for variant in (size, f"{size}_512", f"{size}_1", f"{size}_2"):
            name = f"efficienttam_{variant}"
            length, sha256 = known.get(variant, (None, None))
            file_name = f"{name.replace('_512', '_512x512')}.pt"
            models.append(
                Model(
                    name=name,
                    config=Path(__file__).with_name("configs") / f"{name}.yaml",
                    file_name=file_name,
                    url=f"{EFFICIENTTAM_URL}/{file_name}",
                    size=length,
                    tensor_bytes=tensor_bytes,
                    sha256=sha256,
                )
            )
    return models


MODELS = _table()


def find_model(name: str) -> Model:
    """Finds a model by its name in the table or its Hugging Face id.

    Raises ConfigurationError, listing the known models, for any other name.
    """
    for model in MODELS:
        if name and name in (model.name, model.hugging_face_id):
            return model
    known = "; ".join(
        f"{m.name} ({m.hugging_face_id})" if m.hugging_face_id else m.name for m in MODELS
    )
    raise ConfigurationError(f"There is no model {name!r}. Known models: {known}.")


def model_files(settings: Settings) -> ModelFiles:
    """Returns the files that the settings ask for, checked; never downloads.

    SAM2_CONFIG and SAM2_CHECKPOINT take precedence over SAM2_MODEL. Raises ConfigurationError for a
    file that is missing, truncated or not the expected one.
    """
    if settings.config or settings.checkpoint:
        if not (settings.config and settings.checkpoint):
            raise ConfigurationError(
                "SAM2_CONFIG and SAM2_CHECKPOINT belong together; only "
                f"{'SAM2_CONFIG' if settings.config else 'SAM2_CHECKPOINT'} is set."
            )
        config, checkpoint = settings.config.absolute(), settings.checkpoint.absolute()
        for variable, path in (("SAM2_CONFIG", config), ("SAM2_CHECKPOINT", checkpoint)):
            if not path.is_file():
                raise ConfigurationError(f"{variable} is {path}, but there is no such file.")
        return ModelFiles(
            name=checkpoint.stem, config=config, checkpoint=checkpoint, sha256=_sha256(checkpoint)
        )

    model = find_model(settings.model)
    checkpoint = checkpoint_path(model, settings)
    if not checkpoint.is_file():
        cure = (
            f"Fetch it with `python -m sam2_tracker.download {model.name}`."
            if model.url
            else "It belongs to this repository, so this copy of the repository is incomplete."
        )
        raise ConfigurationError(f"The weights of {model.name} are not at {checkpoint}. {cure}")
    if not model.config.is_file():
        raise ConfigurationError(
            f"The configuration of {model.name} is not at {model.config}. Is sam2 installed "
            "(requirements-sam2.txt)?"
        )
    sha256 = check_file(checkpoint, model, sha256=expected_sha256(model, checkpoint))
    return ModelFiles(name=model.name, config=model.config, checkpoint=checkpoint, sha256=sha256)


def checkpoint_path(model: Model, settings: Settings) -> Path:
    """Returns the path at which the model's checkpoint is expected."""
    if model.url is None:
        return model.config.with_name(model.file_name)
    return ROOT / settings.weights_dir / model.file_name


def load_weights(path: Path) -> dict[str, "torch.Tensor"]:
    """Reads a checkpoint into a state dict on the CPU: sam2's `.pt` or safetensors.

    Only tensors are unpickled. Raises ConfigurationError for a file that is neither.
    """
    import torch  # not at the top: download.py imports this module and must run without torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            if isinstance(content, dict) and isinstance(content.get("model"), dict):
                content = content["model"]
    except Exception as error:  # a damaged file can raise almost anything
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise ConfigurationError(
            f"The checkpoint {path} cannot be read: it is broken, or not a checkpoint ({reason})."
        ) from error
    if not (
        isinstance(content, dict)
        and content
        and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in content.items())
    ):
        raise ConfigurationError(
            f"The checkpoint {path} holds no weights. It must have sam2's form, "
            '{"model": {name: tensor}}, or {name: tensor}.'
        )
    return content


def expected_sha256(model: Model, checkpoint: Path, *, given: str | None = None) -> str | None:
    """The checksum that the model's checkpoint must have, as 64 lower-case digits; None: unknown.

    It is the table's, else the one that is given, else the one that remember_sha256 wrote.
    Raises ConfigurationError if `given` is not a SHA-256, or not the table's.
    """
    if given is not None and not re.fullmatch("[0-9a-fA-F]{64}", given):
        raise ConfigurationError(f"{given!r} is not a SHA-256, which has 64 hexadecimal digits.")
    if model.sha256 is not None and given is not None and given.lower() != model.sha256:
        raise ConfigurationError(f"The SHA-256 of {model.name} is {model.sha256}, not {given}.")
    if model.sha256 is not None or given is not None:
        return model.sha256 or str(given).lower()
    record = _sha256_record(checkpoint)
    try:
        words = record.read_text("ascii", errors="replace").split()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"{record} cannot be read: {error.strerror}.") from error
    if not words or not re.fullmatch("[0-9a-f]{64}", words[0]):
        raise ConfigurationError(f"{record} holds no SHA-256. Delete it.")
    return words[0]


def remember_sha256(model: Model, checkpoint: Path, sha256: str) -> None:
    """Writes the checksum beside the checkpoint if the table does not know it."""
    if model.sha256 is None:
        _sha256_record(checkpoint).write_text(f"{sha256}  {checkpoint.name}\n", "ascii")


def check_file(
    path: Path,
    model: Model,
    *,
    sha256: str | None,
    cure: str = "Delete it and fetch it again.",
) -> str:
    """Returns the SHA-256 of a file that is to be the model's checkpoint.

    Raises ConfigurationError, ending with `cure`, if its size or its checksum is not the expected
    one. A checkpoint of unknown size is at most 1 % larger than its tensors.
    """
    found, length = _sha256(path), path.stat().st_size
    least = model.size or model.tensor_bytes or 0
    most = model.size or (least + least // 100 if least else length)
    if not least <= length <= most:
        expected = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        raise ConfigurationError(
            f"{path} has {length:,} bytes, not {expected}: it is "
            f"{'truncated' if length < least else 'another file'}. {cure}"
        )
    if sha256 is not None and found != sha256:
        raise ConfigurationError(
            f"{path} is damaged or another file: its SHA-256 is {found}, expected is {sha256}. "
            f"{cure}"
        )
    return found


def _sha256(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from error


def _sha256_record(checkpoint: Path) -> Path:
    return checkpoint.with_name(checkpoint.name + ".sha256")
