# SPDX-License-Identifier: MIT
"""The action with the real function (the bundled model), and without a server."""

import json
import os
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from conftest import CONVERT, LABELS, unreadable_from, write_clip
from cvat_sdk.masks import decode_mask, encode_mask
from look import by_frame, frames_of
from standin_cvat import StandinFunction, StandinJob
from wire import keyframe, shape, track

from cvat_action.detectors import OUR_INTERACTOR
from cvat_action.formats import read_document
from cvat_action.geometry import points_to_bitmap
from cvat_action.media import open_media
from cvat_action.server import OURS
from tools.function_process import FunctionProcess

WIDTH, HEIGHT, FRAMES = 160, 120, 7


def truth(frame):
    """The three objects on a frame: two discs that move right and down, a box that moves left."""
    masks = [np.zeros((HEIGHT, WIDTH), np.uint8) for _ in range(3)]
    cv2.circle(masks[0], (35 + 3 * frame, 40), 18, 1, -1)
    cv2.circle(masks[1], (110, 35 + 2 * frame), 16, 1, -1)
    left = 60 - 2 * frame
    masks[2][80:110, left : left + 40] = 1
    return [m.astype(bool) for m in masks]


def picture(frame):
    """Encoded PNG of a frame."""
    noise = np.random.default_rng(3).normal(0, 12, (HEIGHT, WIDTH, 3))
    image = cv2.GaussianBlur(noise, (0, 0), 1.5) * 2 + 90
    for mask, colour in zip(
        truth(frame), ((40, 60, 220), (60, 200, 60), (220, 180, 40)), strict=True
    ):
        image[mask] = colour + noise[mask] * 0.5
    _, data = cv2.imencode(".png", np.clip(image, 0, 255).astype(np.uint8))
    return data.tobytes()


def outline(mask):
    """The polygon along the pixels' edges of a mask that is larger than it is fine."""
    grown = cv2.resize(mask.astype(np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    (ring,), _ = cv2.findContours(grown, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return ((ring.reshape(-1, 2) + 0.5) / 2).ravel().tolist()


def overlap(kind, points, mask):
    found = points_to_bitmap(kind, points, WIDTH, HEIGHT)
    return (found & mask).sum() / (found | mask).sum()


@pytest.fixture(scope="module")
def function() -> Iterator[FunctionProcess]:
    """The real one, with the bundled model."""
    with FunctionProcess(os.environ) as function:
        yield function


@pytest.fixture
def job(cvat):
    pictures = [picture(n) for n in range(FRAMES)]
    return cvat.add_job(StandinJob(pictures, [(WIDTH, HEIGHT)], LABELS, stop_frame=FRAMES - 1))


@pytest.fixture
def local(act, tmp_path):
    """Tracks what is drawn in a folder of pictures, without a server."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(FRAMES):
        (folder / f"frame_{n}.png").write_bytes(picture(n))

    def local(content, *options, out="out.json", code=0):
        (tmp_path / "seeds.json").write_text(json.dumps(content))
        files = ("--annotations", tmp_path / "seeds.json", "--out", tmp_path / out)
        return act("local", "--video", folder, *files, *options, code=code)

    return local


@pytest.fixture
def written(tmp_path):
    """The annotations that a run without a server wrote."""

    def written(out="out.json", video="pictures"):
        return read_document(tmp_path / out, open_media(tmp_path / video))[0].annotations

    return written


def seeds():
    disc, other, box = truth(0)
    return [
        shape("mask", encode_mask(disc), id=1, frame=0),
        shape("polygon", outline(other), id=2, frame=0),
        shape("rectangle", [60.0, 80.0, 100.0, 110.0], id=3, frame=0),
    ]


def as_coco(shapes):
    annotations = []
    for s in shapes:
        geometry = {"segmentation": [s["points"]]}
        if s["type"] == "mask":
            mask = decode_mask(s["points"], image_width=WIDTH, image_height=HEIGHT)
            flat = mask.ravel(order="F")
            edges = np.flatnonzero(np.diff(flat)) + 1
            counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
            geometry = {"segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}}
        elif s["type"] == "rectangle":
            left, top, right, bottom = s["points"]
            geometry = {"bbox": [left, top, right - left, bottom - top]}
        annotations.append({"id": s["id"], "image_id": 1, "category_id": 1, **geometry})
    return {
        "images": [{"id": 1, "file_name": "frame_0.png", "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": annotations,
    }


NO_OBJECTS = {**as_coco([]), "images": []}


def assert_on(shapes, kind, truths, least=0.7):
    """These shapes are the one object, on all frames in order."""
    assert [s["frame"] for s in shapes] == list(range(FRAMES))
    for s, mask in zip(shapes, truths, strict=True):
        assert overlap(kind, s["points"], mask) > least


TRUTHS = list(zip(*map(truth, range(FRAMES)), strict=True))
"""the three objects, each on all frames"""


@pytest.mark.parametrize("option", ["--keyframes", "--both-ways"])
def test_what_was_drawn_on_two_frames_joins_through_cvat(cvat, job, track_to, option):
    """Through CVAT's rules for shapes and states, as its server has them.

    Both ways, what is drawn is also carried by optical flow, over the pictures that CVAT shows.
    """
    drawn_on = FRAMES - 2
    first, second = (keyframe(frame, outline(truth(frame)[1])) for frame in (0, drawn_on))
    job.tracks = [track(first, second, id=5)]
    result = track_to(FRAMES - 1, option, start=0)
    assert "anew" not in result.log
    assert "do not count" not in result.log
    assert "coarser" not in result.log
    assert ("With --both-ways" in result.out) is (option != "--both-ways")
    pictures = [q["number"] for _, path, q, _ in cvat.requests if path.endswith("/data")]
    assert sorted(map(int, pictures)) == (list(range(FRAMES)) if option == "--both-ways" else [])
    assert by_frame(job.tracks[0])[drawn_on]["points"] == second["points"]
    assert_on(job.tracks[0]["shapes"], "polygon", TRUTHS[1])


def test_objects_are_tracked_through_cvat_and_the_real_function(job, track_to):
    job.shapes = seeds()
    result = track_to(FRAMES - 1, CONVERT, "--json", start=0)
    assert result.json["complete"]
    masks, boxes = ([s for s in job.shapes if s["type"] == kind] for kind in ("mask", "rectangle"))
    assert_on(masks, "mask", TRUTHS[0])
    assert_on(job.tracks[0]["shapes"], "polygon", TRUTHS[1])
    assert_on(boxes, "rectangle", TRUTHS[2], least=0.6)
    assert all(0 <= o["lowest_score"] <= 1 for o in result.json["objects"])


def test_a_run_without_a_server_gives_the_shapes_of_a_run_on_the_server(
    job, track_to, local, written
):
    job.shapes = seeds()
    track_to(FRAMES - 1, start=0)
    for name in ("out.json", "out.xml"):
        assert "bundled micro model" in local(as_coco(seeds()), out=name).log
        made = written(name)
        # what has no shape of its own in CVAT's XML is a track
        keyframes = (k for t in made.tracks for k in t["shapes"] if not k["outside"])
        found = {(s["type"], s["frame"]): s["points"] for s in (*made.shapes, *keyframes)}
        expected = {(s["type"], s["frame"]): s["points"] for s in job.shapes}
        assert found.keys() == expected.keys()
        for key, points in expected.items():
            assert found[key] == pytest.approx(points, abs=0.006)


@pytest.mark.parametrize("kind", ["mask", "polygon"])
def test_an_object_is_clicked_on_and_tracked(act, cvat, job, track_to, local, written, kind):
    """Beside what is drawn, which stays as it is; also if the run breaks and is resumed.

    On files and on a server alike.
    """
    drawn = as_coco(seeds()[:1])
    y, x = np.argwhere(truth(0)[1])[truth(0)[1].sum() // 2]
    clicks = f"car {x},{y}.5 -2,2"
    click = ("--points", clicks, "--points-as", kind)
    run = ("--target-frame", 2, "--frame", 0, *click)
    if kind == "mask":
        with unreadable_from(2):
            ended = local(drawn, *run, code=4)
        act("local", "--resume", ended.journal)
    else:
        local(drawn, *run)
    shapes = written().shapes
    (kept,) = [s for s in shapes if s["frame"] == 0 and s["points"] == seeds()[0]["points"]]
    assert kept["type"] == "mask"
    assert frames_of(shapes) == [0, 0, 1, 1, 2, 2]
    assert {s["frame"] for s in shapes if s["type"] == kind} == {0, 1, 2}
    job.shapes = seeds()[:1]
    cvat.functions[OURS].shape_types = ("mask", "polygon", "rectangle", "points")
    track_to(2, *click, start=0)
    for frame in range(3):
        here, there = (
            sorted(s["points"] for s in held if (s["frame"], s["type"]) == (frame, kind))
            for held in (job.shapes, shapes)
        )
        assert here == [pytest.approx(points, abs=0.006) for points in there]


def box_of(mask):
    ys, xs = np.nonzero(mask)
    return [float(v) for v in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)]


def points_by_frame(shapes):
    return {n: sorted(s["points"] for s in shapes if s["frame"] == n) for n in range(FRAMES)}


def test_what_a_detector_finds_is_tracked_on_a_server_and_without_one(
    act, job, track_to, local, written, detector, tmp_path
):
    """Boxes of two objects, of which one enters on frame 3, become masks; also in a resumed run."""
    boxes = {0: [box_of(truth(0)[0])], 3: [box_of(m) for m in truth(3)[:2]]}
    detector.frame_of = job.source.index
    detector.on_frame = {
        frame: [{"label": "car", "type": "rectangle", "points": box} for box in found]
        for frame, found in boxes.items()
    }
    find = ("--every", 3, "--boxes-to-masks")
    track_to(FRAMES - 1, "--detect", "det", *find, start=0)
    masks = points_by_frame(job.shapes)
    assert [len(here) for here in masks.values()] == [1, 1, 1, 2, 2, 2, 2]
    for frame, here in masks.items():
        for number in range(len(here)):
            assert max(overlap("mask", points, truth(frame)[number]) for points in here) > 0.7

    results = [
        {"image_id": frame + 1, "category_id": 1, "score": 0.9, "bbox": [x, y, right - x, low - y]}
        for frame, found in boxes.items()
        for x, y, right, low in found
    ]
    (tmp_path / "found.json").write_text(json.dumps(results))
    with unreadable_from(5):
        ended = local(NO_OBJECTS, "--detect", tmp_path / "found.json", *find, code=4)
    act("local", "--resume", ended.journal)
    here = points_by_frame(written().shapes)
    assert [len(found) for found in here.values()] == [1, 1, 1, 2, 2, 2, 2]
    assert here == masks


def test_everything_finds_the_same_shapes_with_the_interactor_and_without_a_server(
    cvat, job, track_to, local, written
):
    job.labels = [{"id": 1, "name": "car", "type": "any", "attributes": []}]
    parameters = "points_per_side=4 pred_iou_thresh=0.1 stability_score_thresh=0.01"
    find = ("--everything", parameters, "--max-objects", 2)
    with FunctionProcess({**os.environ, "SAM2_FUNCTION": "interactor"}) as interactor:
        function = StandinFunction(interactor.url, OUR_INTERACTOR, "interactor")
        cvat.functions[OUR_INTERACTOR] = function
        assert "because --max-objects is reached" in track_to(2, *find, start=0).log
    local(NO_OBJECTS, "--target-frame", 2, *find)
    theirs = points_by_frame(job.shapes)
    assert len(theirs[0]) == 2
    assert points_by_frame(written().shapes) == theirs


def test_without_a_server_backwards_over_a_video(act, written, tmp_path):
    encoded = [np.frombuffer(picture(n), np.uint8) for n in range(FRAMES)]
    pictures = (cv2.imdecode(each, cv2.IMREAD_COLOR) for each in encoded)
    clip = write_clip(tmp_path / "clip.mp4", pictures)
    content = as_coco([{**seeds()[0], "points": encode_mask(truth(5)[0])}])
    content["images"][0]["file_name"] = "frame_000005.PNG"
    (tmp_path / "seeds.json").write_text(json.dumps(content))
    video, sheet = tmp_path / "seen.mp4", tmp_path / "seen.png"
    result = act(
        "local", "--video", clip, "--annotations", tmp_path / "seeds.json",
        "--target-frame", 2, "--backward", "--out", tmp_path / "out.json", "--preview", video,
        "--contact-sheet", sheet, "--json",
    )  # fmt: skip
    assert result.json["frames"] == [4, 3, 2]
    found = {s["frame"]: s["points"] for s in written(video="clip.mp4").shapes}
    assert sorted(found) == [2, 3, 4, 5]
    assert all(overlap("mask", points, truth(f)[0]) > 0.7 for f, points in found.items())
    assert cv2.imread(str(sheet)).shape[1] == 1600
    assert video.stat().st_size > 0


def test_without_a_server_the_same_objects_and_results_are_chosen(local, written):
    drawn = as_coco(seeds())
    drawn["images"].append({**drawn["images"][0], "id": 2, "file_name": "frame_3.png"})
    drawn["annotations"][2]["image_id"] = 2
    wishes = ("--all-seeds", "--type", "rectangle", "--type", "polygon", "--min-score", 0.9999)
    done = local(drawn, *wishes, "--json")
    assert [(o["type"], o["unsure_frames"]) for o in done.json["objects"]] == [
        ("polygon", list(range(1, FRAMES))), ("rectangle", list(range(4, FRAMES))),
    ]  # fmt: skip
    assert sorted((s["type"], s["frame"]) for s in written().shapes) == [
        ("mask", 0), ("polygon", 0), ("rectangle", 3),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("damaged", "options", "code"),
    [(3, (), 4), (0, ("--points", "car 5,5", "--frame", 0), 1), (0, ("--everything",), 1)],
)
def test_a_damaged_picture_is_named(local, tmp_path, damaged, options, code):
    path = tmp_path / "pictures" / f"frame_{damaged}.png"
    path.write_bytes(path.read_bytes()[:2000])
    log = local(as_coco(seeds()), *options, code=code).log
    named = f"CRITICAL: Frame {damaged} (frame_{damaged}.png): The image cannot be decoded"
    assert named in log


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--out", "out.txt"), "must end in .json"),
        (("--target-frame", "9"), "holds frames 0 to 6"),
        (("--model", "sam9"), "no model 'sam9'"),
        (("--points", "car 5,5"), "--frame"),
    ],
)
def test_wrong_arguments_without_a_server(local, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert said in local(as_coco(seeds()), *arguments, code=1).log
    assert not (tmp_path / "out.json").exists()
