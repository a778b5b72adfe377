# SPDX-License-Identifier: MIT
"""`--preview` and `--contact-sheet`, and what is drawn during `--step`."""

import errno
import io
import os
import tracemalloc
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from conftest import ctrl_c, disk_with
from cvat_sdk.masks import encode_mask
from standin_cvat import Fault
from wire import MASK, keyframe, track

from cvat_action import preview
from cvat_action.errors import ActionError
from cvat_action.job import Job, Label
from cvat_action.overlay import new_video, write_caption
from cvat_action.seeds import Seed
from cvat_action.stepper import Stepper
from cvat_action.tracked import Tracked, TrackedObject
from sam2_tracker.shapes import polygon_to_bitmap

PICTURE = "/api/jobs/42/data/?"


def test_a_video_and_a_sheet_show_the_objects(track_to, one_mask, tmp_path):
    video, sheet = tmp_path / "out.mp4", tmp_path / "out.png"
    track_to(14, "--preview", video, "--contact-sheet", sheet)
    capture = cv2.VideoCapture(str(video))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 5
    capture.release()
    picture = cv2.imread(str(sheet))
    assert picture.shape == (600, 1600, 3)
    # the last frame's mask, rows 20 and 21 at x 8 to 11, in a cell 400 px wide, in the second row
    inside, beside = picture[300 + 131, 62], picture[300 + 131, 150]
    assert int(inside.max()) - int(inside.min()) > 60
    assert int(beside.max()) - int(beside.min()) < 10


def test_pictures_of_half_the_size_show_the_objects_in_their_place(
    job, track_to, one_mask, tmp_path
):
    """CVAT halves what its page shows of some videos."""

    def halved(data):
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        return cv2.imencode(".png", cv2.resize(picture, None, fx=0.5, fy=0.5))[1].tobytes()

    whole, half = tmp_path / "whole.png", tmp_path / "half.png"
    track_to(14, "--contact-sheet", whole)
    job.page_pictures = [halved(data) for data in job.source]
    track_to(14, "--replace", "--contact-sheet", half)
    expected, found = cv2.imread(str(whole)), cv2.imread(str(half))
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 10


def test_a_picture_that_fails_does_not_hide_what_is_written(cvat, job, track_to, masks, tmp_path):
    cvat.faults = [Fault("GET", PICTURE, 200, "not a picture")]
    result = track_to(14, "--contact-sheet", tmp_path / "out.png", code=1)
    assert "could not be decoded as a picture. The annotations are complete." in result.log
    assert "written: 12 shapes created" in result.out
    assert len(job.shapes) == 3 + 3 * 4


@pytest.fixture
def files(grey_clip, tmp_path):
    """A film, a folder of frames, annotations, a link to them, and a file of somebody else."""
    frames = tmp_path / "frames"
    frames.mkdir()
    (frames / "007.png").write_bytes(cv2.imencode(".png", np.zeros((30, 40, 3), np.uint8))[1])
    (tmp_path / "seeds.json").write_text("{}")
    (tmp_path / "round.png").symlink_to("round.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "pipe.json").symlink_to("pipe.png")
    (tmp_path / "link.mp4").symlink_to("seeds.json")
    for name in ("holiday.png", "holiday.step.png"):
        (tmp_path / name).write_text("a picture of somebody else")
    return tmp_path


@pytest.mark.parametrize(
    ("video", "more", "said"),
    [
        ("clip.mp4", ("--preview", "clip.mp4"), "is the file of --video"),
        ("clip.mp4", ("--preview", "frames/../clip.mp4"), "is the file of --video"),
        ("clip.mp4", ("--preview", "link.mp4"), "is the file of --annotations"),
        ("frames", ("--contact-sheet", "frames/007.png"), "lies in the folder of --video"),
        ("frames", ("--contact-sheet", "frames/new.png"), "lies in the folder of --video"),
        ("clip.mp4", ("--contact-sheet", "holiday.png"), "did not write it"),
        ("frames", ("--step", "--out", "frames/out.json"), "lies in the folder of --video"),
        ("clip.mp4", ("--step", "--out", "holiday.json"), "holiday.step.png is there already"),
        ("clip.mp4", ("--step", "--contact-sheet", "out.step.png"), "is the file of --step"),
        ("clip.mp4", ("--step", "--journal", "out.step.png"), "is the file of --journal"),
        ("clip.mp4", ("--journal", "s.png", "--contact-sheet", "s.png"), "file of --journal"),
        ("clip.mp4", ("--contact-sheet", "round.png"), "Too many levels of symbolic links"),
        ("clip.mp4", ("--contact-sheet", "pipe.png"), "it is no file"),
        ("clip.mp4", ("--out", "pipe.json"), "it is no file"),
        ("clip.mp4", ("--journal", "out.json"), "out.json would be written over, and it is"),
    ],
)
def test_a_picture_is_written_over_nothing_that_is_not_ours(
    act, files, monkeypatch, video, more, said
):
    monkeypatch.chdir(files)
    before = {path: path.read_bytes() for path in files.rglob("*") if path.is_file()}
    words = ("--video", video, "--annotations", "seeds.json", "--out", "out.json")
    assert said in act("local", *words, *more, code=1).log
    assert {path: path.read_bytes() for path in files.rglob("*") if path.is_file()} == before


def test_a_picture_and_the_journal_cannot_be_the_same_file(track_to, one_mask, tmp_path):
    same = tmp_path / "s.png"
    refused = track_to(14, "--journal", same, "--contact-sheet", same, code=1)
    assert "is the file of --journal" in refused.log
    assert not same.exists()


def test_one_picture_that_cannot_be_written_does_not_keep_the_other_away(
    track_to, one_mask, tmp_path, monkeypatch
):
    def full(path, rate):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("cvat_action.preview.new_video", full)
    sheet = tmp_path / "sheet.png"
    pictures = ("--preview", tmp_path / "clip.mp4", "--contact-sheet", sheet)
    log = track_to(12, *pictures, code=1).log
    assert "clip.mp4 cannot be written: No space left on device. The annotations are" in log
    assert sheet.is_file()


def test_a_video_on_a_full_disk_is_an_error_and_nothing_is_left_of_it(tmp_path):
    noise = np.random.default_rng(0)
    path = tmp_path / "clip.mp4"
    path.write_text("an earlier one")

    def write():
        with new_video(path, 10) as video:
            for _ in range(20):
                video.write(noise.integers(0, 255, (120, 160, 3), np.uint8))

    with disk_with(50_000), pytest.raises(OSError, match="of 20 frames are in it"):
        write()
    assert [p.read_text() for p in tmp_path.iterdir()] == ["an earlier one"]


@pytest.mark.parametrize("rate", [0.001, 0.5, 10, 29.97, 90_000, float("inf")])
def test_a_video_holds_every_frame(tmp_path, rate):
    with new_video(tmp_path / "clip.mp4", rate) as video:
        for n in range(25):
            video.write(np.full((31, 41, 3), n * 10, np.uint8))
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_ctrl_c_while_drawing_hides_nothing_of_what_is_written(
    job, track_to, masks, tmp_path, monkeypatch
):
    monkeypatch.setattr("cvat_action.preview.decode_picture", ctrl_c)
    result = track_to(14, "--contact-sheet", tmp_path / "out.png", "--json", code=130)
    assert "Stopped by Ctrl+C while drawing. The annotations are complete." in result.log
    assert (result.json["complete"], result.json["resume"]) == (True, None)
    assert len(job.shapes) == 3 + 3 * 4


def test_a_picture_that_cvat_is_still_making_is_waited_for_as_long_as_it_says(
    cvat, track_to, one_mask, tmp_path, monkeypatch
):
    waited = []
    monkeypatch.setattr("cvat_action.calls.time.sleep", waited.append)
    cvat.faults = [
        Fault("GET", PICTURE, 429, skip=skip, retry_after=after)
        for skip, after in ((0, "10"), (1, "0"))
    ]
    sheet = tmp_path / "sheet.png"
    track_to(13, "--contact-sheet", sheet)
    assert [seconds for seconds in waited if seconds] == [10, 0.01]
    assert sheet.is_file()


def test_the_contact_sheet_has_the_least_certain_frame():
    one = Seed("1", "mask", 0, tuple(MASK), {"id": 1}, False, 0)
    results = {
        f: [Tracked(tuple(MASK), 0.16 if (f, n) == (50, 8) else 0.5 + n / 100) for n in range(9)]
        for f in range(1, 90)
    }
    assert 50 in preview._frames_worth_seeing([one] * 9, results)


def test_a_preview_passes_over_keyframes_on_deleted_frames_as_cvat_does():
    boxes = {10: [4.0, 0, 8, 4], 11: [13.0, 0, 17, 4], 14: [4.0, 0, 8, 4]}
    made = track(*(keyframe(frame, box) for frame, box in boxes.items()), id=5)
    seed = Seed("track:5", "rectangle", 10, tuple(boxes[10]), made, True, 0)
    job = Job(1, 1, 0, 20, (), ((64, 48),), frozenset({11}))
    results = {f: [Tracked(tuple(boxes[10]), 0.9)] for f in (12, 13, 14)}
    shown = preview.as_cvat_shows(job, [seed], results, {"track:5": made})
    assert {here[0].points for here in shown.values()} == {tuple(boxes[10])}


def test_a_picture_of_many_objects_takes_little_memory():
    box = (10.0, 10.0, 60.0, 60.0)
    seeds = [Seed(str(n), "rectangle", 0, box, {"id": n}, False, 0) for n in range(40)]
    picture = np.zeros((1000, 1000, 3), np.uint8)
    tracemalloc.start()
    drawn = preview.draw(picture, 1, seeds, [Tracked(box, 0.9)] * len(seeds))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert drawn[30, 30].any()
    assert peak < 20 << 20  # one bitmap has 1 MB, the picture 3


@pytest.mark.parametrize("left", [8, 290])
def test_a_caption_has_a_black_edge_and_stays_in_the_picture(left):
    """In a picture 300 px wide, and 300 px wider."""
    narrow, wide = (np.full((40, width, 3), 128, np.uint8) for width in (300, 600))
    for picture in (narrow, wide):
        write_caption(picture, "hidden: mask", at=(left, 20))
    white, black = ((p == 0).all(axis=2) for p in (255 - narrow, narrow))
    near_white = cv2.dilate((narrow.min(axis=2) > 140).astype(np.uint8), np.ones((5, 5))) > 0
    assert black.any()
    assert near_white[black].all()
    assert white.sum() == (wide == 255).all(axis=2).sum()


@pytest.fixture
def step(tmp_path, monkeypatch):
    """Shows a mask to a person, who types this line."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    job = Job(1, 1, 0, 9, (Label(1, "thing"),), ((64, 48),))
    media = SimpleNamespace(picture=lambda frame: np.zeros((48, 64, 3), np.uint8))
    seed = Seed("1", "mask", 0, tuple(MASK), {"label_id": 1}, False, 0)

    def step(line, out):
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{line}\n\n"))
        return Stepper(job, media, tmp_path / out).ask(1, [TrackedObject(seed)])

    return step


def test_a_picture_of_step_that_cannot_be_written_is_not_called_drawn(step, capsys):
    step("", "gone/out.json")
    said = capsys.readouterr().err
    assert "Drawn in" not in said
    assert "out.step.png cannot be written: No such file or directory." in said


def test_what_is_drawn_during_step_is_filled_exactly(step):
    (drawn,) = step("c 1 5.4,5.6 20.7,6.2 9.1,18.9", "out.json")
    ring = [5.4, 5.6, 20.7, 6.2, 9.1, 18.9]
    assert list(drawn.points) == encode_mask(polygon_to_bitmap(ring, width=64, height=48))


@pytest.mark.parametrize("data", [b"", b"not a picture"])
def test_what_is_no_picture_is_told_with_its_frame(data):
    with pytest.raises(ActionError, match="Frame 7 could not be decoded as a picture"):
        preview.decode_picture(data, 7, (4, 4))
