# SPDX-License-Identifier: MIT
"""The table of models, the check of the files that the function loads, and reading checkpoints."""

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sam2_tracker import models
from sam2_tracker.errors import ConfigurationError
from sam2_tracker.models import find_model, load_weights, model_files
from sam2_tracker.settings import Settings

ROOT = Path(models.__file__).parents[1]
CONTENT = bytes(range(256)) * 4
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def test_a_model_is_found_by_metas_name_and_by_its_hugging_face_id() -> None:
    for version in ("sam2", "sam2.1"):
        for size in ("tiny", "small", "base_plus", "large"):
            model = find_model(f"{version}_hiera_{size}")
            assert model is find_model(f"facebook/{version}-hiera-{size.replace('_', '-')}")
            assert model.file_name == f"{version}_hiera_{size}.pt"
            assert model.config.is_file()
            assert (model.sha256 is not None) == (version == "sam2.1")


def test_the_bundled_model_lies_beside_its_configuration() -> None:
    model = find_model("sam2.1_hiera_micro")
    assert models.checkpoint_path(model, Settings()) == (
        ROOT / "models" / "sam2.1_hiera_micro.safetensors"
    )
    assert model.config == ROOT / "models" / "sam2.1_hiera_micro.yaml"


@pytest.mark.parametrize("name", ["", "tiny", "sam2.1_hiera_tiny.pt", "facebook/sam3"])
def test_the_error_of_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigurationError, match="sam2.1_hiera_tiny.*facebook/sam2-hiera-large"):
        find_model(name)


def test_the_table_is_imported_without_a_model_library() -> None:
    code = (
        "import sys, sam2_tracker.download; "
        "heavy = {'torch', 'sam2', 'hydra', 'safetensors', 'numpy'}; "
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_error_of_missing_weights_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"-m sam2_tracker\.download sam2\.1_hiera_large"):
        model_files(Settings(model="facebook/sam2.1-hiera-large", weights_dir=tmp_path))


@pytest.mark.parametrize(
    ("length", "sentence"), [(0, "truncated"), (999, "truncated"), (1001, "another file")]
)
def test_a_file_of_the_wrong_length_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, sentence: str
) -> None:
    model = dataclasses.replace(find_model("sam2.1_hiera_tiny"), size=1000)
    monkeypatch.setattr(models, "MODELS", (model,))
    (tmp_path / model.file_name).write_bytes(bytes(length))
    with pytest.raises(ConfigurationError, match=f"has {length:,} bytes.*{sentence}"):
        model_files(Settings(weights_dir=tmp_path))


@pytest.mark.parametrize(("length", "sentence"), [(999, "truncated"), (1011, "another file")])
def test_a_file_of_unknown_checksum_is_checked_by_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, sentence: str
) -> None:
    model = dataclasses.replace(find_model("efficienttam_ti_2"), tensor_bytes=1000)
    monkeypatch.setattr(models, "MODELS", (model,))
    settings = Settings(model=model.name, weights_dir=tmp_path)
    (tmp_path / model.file_name).write_bytes(bytes(1010))
    assert model_files(settings).sha256 == hashlib.sha256(bytes(1010)).hexdigest()
    (tmp_path / model.file_name).write_bytes(bytes(length))
    with pytest.raises(ConfigurationError, match=f"not 1,000 to 1,010: it is {sentence}"):
        model_files(settings)


def test_a_file_with_one_flipped_bit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = find_model("sam2.1_hiera_tiny")
    model = dataclasses.replace(tiny, size=len(CONTENT), sha256=SHA256)
    monkeypatch.setattr(models, "MODELS", (model,))
    (tmp_path / model.file_name).write_bytes(CONTENT)
    assert model_files(Settings(weights_dir=tmp_path)).sha256 == SHA256
    (tmp_path / model.file_name).write_bytes(bytes([CONTENT[0] ^ 1]) + CONTENT[1:])
    with pytest.raises(ConfigurationError, match="damaged or another file"):
        model_files(Settings(weights_dir=tmp_path))


def test_paths_take_precedence_over_the_table(tmp_path: Path) -> None:
    config, checkpoint = tmp_path / "mine.yaml", tmp_path / "mine.pt"
    config.write_text("model: {}\n")
    checkpoint.write_bytes(CONTENT)
    files = model_files(Settings(model="nonsense", config=config, checkpoint=checkpoint))
    expected = models.ModelFiles(name="mine", config=config, checkpoint=checkpoint, sha256=SHA256)
    assert files == expected


def test_paths_without_a_file_are_refused(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("")
    nowhere = tmp_path / "nowhere"
    for paths, said in (
        ({"config": nowhere, "checkpoint": there}, "SAM2_CONFIG is .*nowhere"),
        ({"config": there, "checkpoint": nowhere}, "SAM2_CHECKPOINT is .*nowhere"),
        ({"config": there}, "belong together; only SAM2_CONFIG is set"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            model_files(Settings(**paths))


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("evil-was-here"),))


def test_checkpoints_are_read_in_all_their_forms(tmp_path: Path) -> None:
    state = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1, dtype=torch.bfloat16)}
    paths = [tmp_path / name for name in ("meta.pt", "flat.pt", "safe.safetensors")]
    torch.save({"model": state}, paths[0])
    torch.save(state, paths[1])
    save_file(state, paths[2])
    for path in paths:
        read = load_weights(path)
        assert read.keys() == state.keys()
        assert all(torch.equal(read[key], state[key]) for key in state)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut", "folder"])
def test_a_broken_checkpoint_is_refused(tmp_path: Path, damage: str, suffix: str) -> None:
    path = tmp_path / f"broken{suffix}"
    if damage == "folder":
        path.mkdir()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("<html>404</html>" * 100)
    elif damage == "cut":
        state = {"a": torch.ones(100, 100)}
        save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
        path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ConfigurationError, match="cannot be read: it is broken"):
        load_weights(path)


def test_only_tensors_are_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_weights(tmp_path / "evil.pt")
    assert not Path("evil-was-here").exists()


@pytest.mark.parametrize("content", [{}, {"model": {}}, {"model": {"a": 1}}, {"a": [1]}, [1, 2]])
def test_a_file_without_weights_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(ConfigurationError, match="holds no weights"):
        load_weights(tmp_path / "odd.pt")
