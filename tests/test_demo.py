# SPDX-License-Identifier: MIT
"""`make demo`: with a person's own files, and with the generated clip."""

import errno
import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cvat_action.errors import ActionError
from tools import demo, film, first_mask
from tools.function_process import FunctionError
from training.pictures import FILMED

WIDTH, HEIGHT, FRAMES = 64, 48, 12
NO_START = "no mask, polygon or upright box to start from"


def write_film(path: Path, codec: str, size: tuple[int, int], greys: Sequence[int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 12, size)
    for grey in greys:
        writer.write(np.full((*size[::-1], 3), grey, np.uint8))
    writer.release()
    return path


@pytest.fixture(autouse=True)
def _notes_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    greys = range(0, 20 * FRAMES, 20)
    return write_film(tmp_path / "clip.mp4", "mp4v", (WIDTH, HEIGHT), greys)


def write_frame(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), np.zeros((HEIGHT, WIDTH, 3), np.uint8))


def write_seeds(path: Path, annotations: list[dict[str, Any]], images: dict[int, str]) -> Path:
    content = {
        "images": [{"id": i, "file_name": name} for i, name in images.items()],
        "categories": [{"id": 3, "name": "car"}],
        "annotations": [
            {"id": i, "category_id": 3, **annotation} for i, annotation in enumerate(annotations)
        ],
    }
    path.write_text(json.dumps(content))
    return path


def test_objects_start_on_the_frames_that_their_images_name(video: Path, tmp_path: Path) -> None:
    box = {"bbox": [4, 4, 10, 8]}
    seeds = write_seeds(
        tmp_path / "seeds.json",
        [
            {"image_id": 58, **box},
            {"image_id": 60, "segmentation": [[1, 2, 20, 2, 20, 20]]},
            # one object of CVAT's export, drawn on three frames
            *({"image_id": i, **box, "attributes": {"track_id": 0}} for i in (58, 59, 60)),
        ],
        {58: "frame_000007.png", 59: "frame_000008.png", 60: "frame_000009.png"},
    )
    clip = demo.clip_from_files(video, seeds)
    rectangle = {"type": "rectangle", "points": [4, 4, 14, 12]}
    polygon = {"type": "polygon", "points": [1, 2, 20, 2, 20, 20]}
    assert clip.seeds == {7: [rectangle, rectangle], 9: [polygon]}
    assert clip.names == ["car 1", "car 2", "car 3"]
    assert clip.frames_per_second == 12
    assert [round(float(frame.mean()) / 20) for frame in clip.frames] == list(range(FRAMES))


def test_results_of_an_earlier_run_start_no_objects(video: Path, tmp_path: Path) -> None:
    """As `local` selects them with --keyframes."""

    def mask(number: int, frame: int, source: str) -> str:
        return (
            f'<track id="{number}" label="car" source="{source}"><mask frame="{frame}" '
            'outside="0" rle="0, 16" left="4" top="4" width="4" height="4"/></track>'
        )

    tracks = mask(0, 7, "manual") + mask(1, 8, "auto") + mask(2, 9, "manual")
    label = "<labels><label><name>car</name></label></labels>"
    task = f"<task><size>{FRAMES}</size>{label}</task>"
    text = f"<annotations><version>1.1</version><meta>{task}</meta>{tracks}</annotations>"
    (tmp_path / "seeds.xml").write_text(text)
    clip = demo.clip_from_files(video, tmp_path / "seeds.xml")
    assert {frame: len(shapes) for frame, shapes in clip.seeds.items()} == {7: 1, 9: 1}


@pytest.mark.parametrize(
    ("frame", "annotation", "said"),
    [
        (99, {"bbox": [4, 4, 10, 8]}, "is not a frame of clip.mp4"),
        (1, {"segmentation": {"size": [9, 9], "counts": [81]}}, "its RLE is of size"),
        (1, {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [WIDTH * HEIGHT]}}, NO_START),
        (1, {"bbox": [4, 4, 10, 8], "attributes": {"rotation": 30.0}}, NO_START),
    ],
)
def test_the_error_says_why_nothing_can_be_tracked(
    video: Path, tmp_path: Path, frame: int, annotation: dict[str, Any], said: str
) -> None:
    images = {1: f"frame_{frame:06}.png"}
    seeds = write_seeds(tmp_path / "seeds.json", [{"image_id": 1, **annotation}], images)
    with pytest.raises(ActionError, match=said):
        demo.clip_from_files(video, seeds)


def frames_of(path: Path) -> int:
    capture = cv2.VideoCapture(str(path))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return count


def test_a_persons_own_clip_is_tracked_from_end_to_end(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # --model takes precedence over a configuration in the environment.
    monkeypatch.setenv("SAM2_CONFIG", "/nowhere.yaml")
    monkeypatch.setenv("SAM2_CHECKPOINT", "/nowhere.pt")
    box = {"image_id": 1, "bbox": [4, 4, 30, 28]}
    seeds = write_seeds(tmp_path / "seeds.json", [box], {1: "frame_000010.PNG"})
    out = tmp_path / "out"
    words = ["--video", str(video), "--seeds", str(seeds), "--out", str(out)]
    assert demo.main([*words, "--model", "sam2.1_hiera_micro"]) == 0
    assert "car 1" in capsys.readouterr().out
    tracked = json.loads((out / "annotations.json").read_text())
    assert 11 in {a["image_id"] for a in tracked["annotations"]}  # the shape that was drawn
    assert frames_of(out / "overlay.mp4") == FRAMES
    assert cv2.imread(str(out / "contact_sheet.png")) is not None


class StandinFunction:
    """Answers what it was asked, until a frame on which it does something else."""

    url = "http://nowhere"
    ends_on = FRAMES
    end: Callable[[], tuple[int, Any]]

    def __init__(self, environment: dict[str, str]) -> None:
        self._frame = -1
        self._shapes: list[Any] = []

    def __enter__(self) -> "StandinFunction":
        return self

    def __exit__(self, *error: object) -> None: ...

    def get(self) -> Any:
        return {"model": "standin", "device": "cpu", "precision": "float32"}

    def post(self, body: Any) -> tuple[int, Any]:
        self._frame += 1
        if self._frame == self.ends_on:
            return self.end()
        self._shapes += [shape for shape in body["shapes"] if shape]
        count = len(self._shapes)
        answer = {"shapes": self._shapes, "states": [{}] * count, "scores": [0.9] * count}
        return 200, {**answer, "errors": [None] * count}


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> type[StandinFunction]:
    class Standin(StandinFunction):
        pass

    monkeypatch.setattr(demo, "FunctionProcess", Standin)
    return Standin


@pytest.fixture
def words(video: Path, tmp_path: Path) -> list[str]:
    """Two objects on frame 0, and another folder for the results."""
    box = {"image_id": 1, "bbox": [4, 4, 30, 28]}
    seeds = write_seeds(tmp_path / "seeds.json", [box, box], {1: "frame_000000.PNG"})
    return ["--video", str(video), "--seeds", str(seeds), "--out", str(tmp_path / "out")]


def stop() -> Any:
    raise KeyboardInterrupt


def hang_up() -> Any:
    raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))


def changed_size() -> Any:
    return 400, {"error": {"code": "size_changed", "message": "The sizes are different."}}


def failed_object() -> Any:
    error = {"code": "model_failure", "message": "It failed."}
    return 200, {"shapes": [None] * 2, "states": [None] * 2, "scores": [None] * 2,
                 "errors": [None, error]}  # fmt: skip


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        (stop, 130, "Stopped by Ctrl+C."),
        (changed_size, 1, "Frame 3: The sizes are different."),
        (failed_object, 1, "Frame 3: car 2: It failed."),
        (hang_up, 1, "Frame 3: The function gave no answer: [Errno 104] Connection reset by peer."),
    ],
)
def test_what_was_tracked_before_an_end_is_written(
    standin: Any, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    end: Any, code: int, said: str,
) -> None:  # fmt: skip
    standin.ends_on, standin.end = 3, staticmethod(end)
    assert demo.main(words) == code
    assert capsys.readouterr().err.endswith(f"{said} 3 of 12 frames are tracked.\n")
    written = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert {a["image_id"] for a in written["annotations"]} == {1, 2, 3}
    assert written["categories"] == [{"id": 1, "name": "car"}]
    objects = {(a["category_id"], a["attributes"]["track_id"]) for a in written["annotations"]}
    assert objects == {(1, 0), (1, 1)}
    assert frames_of(tmp_path / "out" / "overlay.mp4") == 3
    assert cv2.imread(str(tmp_path / "out" / "contact_sheet.png")) is not None


def test_where_nothing_is_tracked_earlier_results_stay(
    standin: Any, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo.main(words) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    standin.ends_on, standin.end = 0, staticmethod(stop)
    assert demo.main(words) == 130
    assert "Nothing is tracked, so nothing is written." in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_full_disk_is_one_sentence_and_the_other_files_are_written(
    standin: Any, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def full(path: Path, rate: float) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(demo, "new_video", full)
    assert demo.main(words) == 1
    captured = capsys.readouterr()
    assert captured.err.endswith("overlay.mp4 cannot be written: No space left on device.\n")
    assert "overlay.mp4" not in captured.out
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"annotations.json", "contact_sheet.png"}


@pytest.mark.parametrize(
    ("video_name", "seeds_name", "out", "said"),
    [
        ("overlay.mp4", "seeds.json", ".", "it is the file of --video"),
        ("clip.mp4", "drawn/annotations.json", "drawn", "it is the file of --seeds"),
        ("frames", "seeds.json", "frames", "lies in the folder of --video"),
        ("clip.mp4", "seeds.json", "mine", "contact_sheet.png is there already"),
        ("clip.mp4", "seeds.json", "clip.mp4", "cannot be written: File exists."),
        ("clip.mp4", "seeds.json", "/proc", "cannot be written: No such file or directory."),
    ],
)
def test_what_the_demo_did_not_write_is_not_written_over(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], video_name: str, seeds_name: str, out: str, said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write_frame(tmp_path / "frames" / "frame_000000.PNG")
    (tmp_path / "overlay.mp4").write_bytes(video.read_bytes())
    for name in ("mine", "drawn"):
        (tmp_path / name).mkdir()
    (tmp_path / "mine" / "contact_sheet.png").write_text("a picture of somebody else")
    box = {"image_id": 1, "bbox": [4, 4, 30, 28]}
    for name in ("seeds.json", "drawn/annotations.json"):
        write_seeds(tmp_path / name, [box], {1: "frame_000000.PNG"})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert demo.main(["--video", video_name, "--seeds", seeds_name, "--out", out]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_clips_of_one_name_have_folders_of_their_own(
    standin: Any, words: list[str], video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    for name in ("run.1", "run.2"):
        write_frame(tmp_path / name / "frame_000000.PNG")
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / video.name
    other.write_bytes(video.read_bytes())
    for clip in (tmp_path / "run.1", tmp_path / "run.2", video, other) * 2:
        assert demo.main(["--video", str(clip), *words[2:4]]) == 0
    folders = list((tmp_path / "out" / "clips").iterdir())
    assert {folder.name for folder in folders} == {"run.1", "run.2", "clip", "clip-2"}
    for folder in folders:
        assert {path.name for path in folder.iterdir()} == {*demo.FILES, demo.OWNER}


def test_a_clip_that_is_not_there_leaves_no_folder(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    for more in ((), words[4:]):
        assert demo.main(["--video", str(tmp_path / "nope.mp4"), *words[2:4], *more]) == 1
    assert not (tmp_path / "out").exists()


def test_a_clip_without_seeds_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--video", "my.mp4"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "make demo VIDEO=my.mp4 SEEDS=seeds.json" in line


def test_a_model_without_weights_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAM2_WEIGHTS_DIR", str(tmp_path))
    assert demo.main(["--model", "efficienttam_ti_512", "--out", str(tmp_path / "out")]) == 1
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert said.endswith("with `python -m sam2_tracker.download efficienttam_ti_512`.")


def test_the_generated_clip_is_tracked_from_end_to_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo.main(["--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "sam2.1_hiera_micro" in printed
    rows = {line.split()[0]: line.split() for line in printed.splitlines() if line.strip()}
    for name in ("mask", "polygon", "rectangle"):
        assert rows[name][1] == str(demo.CLIP_FRAMES)
        assert float(rows[name][3]) > 0.5  # mean IoU with the truth
    written = json.loads((tmp_path / "annotations.json").read_text())
    assert [i["file_name"] for i in written["images"][:2]] == [
        "frame_000000.PNG", "frame_000001.PNG"
    ]  # fmt: skip
    tracked = written["annotations"]
    assert len({a["image_id"] for a in tracked}) == demo.CLIP_FRAMES
    assert {a["category_id"] for a in tracked} == {1, 2, 3}


def test_the_pictures_of_first_masks_show_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "CLIP_FRAMES", 9)
    monkeypatch.setenv("SAM2_IMAGE_SIZE", "256")
    few = "points_per_side=4 pred_iou_thresh=0 stability_score_thresh=0"
    assert first_mask.main(["--out", str(tmp_path), "--everything", few]) == 0
    frame = demo.drawn_clip().frames[0]
    for name in ("drawn", "clicked", "detected", "everything"):
        path = tmp_path / f"first_mask_{name}.jpg"
        picture = cv2.imread(str(path)).astype(int)
        plain = cv2.resize(frame, picture.shape[1::-1], interpolation=cv2.INTER_AREA)
        changed = (abs(picture - plain).max(axis=2) > 40).mean()
        assert 0.005 < changed < 0.99, name
        assert path.stat().st_size < 200_000
    (tmp_path / "first_mask_drawn.jpg").unlink()
    (tmp_path / "first_mask_drawn.jpg").mkdir()
    with pytest.raises(SystemExit, match="first_mask_drawn.jpg cannot be written"):
        first_mask.main(["--out", str(tmp_path), "--everything", few])


@pytest.fixture
def words_of_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """With a grey film in the place of the package's."""
    monkeypatch.setattr(film, "FRAMES", 2)
    unpacked = tmp_path / "pictures"
    write_film(unpacked / FILMED[0], "MJPG", (768, 576), [90] * 3)
    (unpacked / f"{film.PACKAGE}.done").touch()
    places = {"--pictures": unpacked, "--out": tmp_path / "out", "--sheet": tmp_path / "sheet.jpg"}
    return [str(word) for option in places.items() for word in option]


def test_the_film_of_a_package_is_tracked_from_end_to_end(
    words_of_film: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert film.main(words_of_film) == 0
    printed = capsys.readouterr().out
    assert all(f"person {number} " in printed for number in (1, 2, 3))
    tracked = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert len(tracked["images"]) == 2
    assert cv2.imread(str(tmp_path / "sheet.jpg")).shape[1] == 1200


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGHUP"])
def test_a_signal_that_ends_the_demo_loses_nothing(
    standin: Any, words: list[str], tmp_path: Path, signal_name: str
) -> None:
    ended = signal.Signals[signal_name]
    before = signal.signal(ended, lambda *_: None)
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def stop() -> Any:
        os.kill(os.getpid(), ended)
        return 400, {"error": {"code": "", "message": "The signal did not end it."}}

    standin.ends_on, standin.end = 3, staticmethod(stop)
    try:
        assert demo.main(words) == 130
    finally:
        for number, handler in {**kept, ended: before}.items():
            signal.signal(number, handler)
    written = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert {a["image_id"] for a in written["annotations"]} == {1, 2, 3}


def test_all_files_in_the_way_are_named_with_what_to_do(
    standin: Any, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As those of an older version, which noted nothing."""
    out = tmp_path / "out"
    out.mkdir()
    paths = [out / name for name in demo.FILES]
    for path in paths:
        path.write_text("of an older version")
    assert demo.main(words) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"mv {' '.join(map(str, paths))} FOLDER" in line
    assert 'make demo ARGS="--out FOLDER"' in line


@pytest.mark.parametrize("why", ["does not start", "is stopped at once"])
def test_a_clip_without_results_leaves_no_folder(
    standin: Any, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    def no_start(self: Any) -> Any:
        raise FunctionError("The function cannot start.")

    monkeypatch.setattr(demo, "ROOT", tmp_path)
    if why == "does not start":
        monkeypatch.setattr(standin, "__enter__", no_start)
    else:
        standin.ends_on, standin.end = 0, staticmethod(stop)
    assert demo.main(words[:4]) != 0
    assert [*(tmp_path / "out" / "clips").iterdir()] == []


def test_a_file_of_a_person_stays_in_a_folder_without_results(
    standin: Any, words: list[str], tmp_path: Path
) -> None:
    """Also one of the name by which a clip's own folder is known."""
    held = tmp_path / "out" / demo.OWNER
    held.parent.mkdir()
    held.write_text("of a person")
    standin.ends_on, standin.end = 0, staticmethod(stop)
    assert demo.main(words) != 0
    assert held.read_text() == "of a person"


@pytest.mark.parametrize("theirs", ["out/film.mp4", "sheet.jpg"])
def test_a_film_is_written_over_nothing_of_somebody_else(
    standin: Any, words_of_film: list[str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str], theirs: str,
) -> None:  # fmt: skip
    held = tmp_path / theirs
    held.parent.mkdir(exist_ok=True)
    held.write_text("of somebody else")
    assert film.main(words_of_film) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"{held} is there already" in line
    assert held.read_text() == "of somebody else"
    held.unlink()
    for _ in range(2):
        assert film.main(words_of_film) == 0
