# SPDX-License-Identifier: MIT
"""The action with the real function (the bundled model), and without a server."""

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import LABELS, keyframe, shape, track
from cvat_sdk.masks import decode_mask, encode_mask
from standin_cvat import StandinCvat, StandinFunction, StandinJob
from standin_detector import ScriptedDetector

from cvat_action.detectors import OUR_INTERACTOR
from cvat_action.errors import ActionError
from cvat_action.formats import read_document
from cvat_action.geometry import points_to_bitmap
from cvat_action.local import LocalTracker
from cvat_action.media import ImageFolder, open_media
from cvat_action.server import OURS
from cvat_action.tracking import CallFailed, Cure
from tools.function_process import FunctionProcess

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT, FRAMES = 160, 120, 7
CONVERT = "--convert-polygon-shapes-to-tracks"


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
def real_function() -> Iterator[str]:
    """The URL of the function with the bundled model."""
    with FunctionProcess(os.environ) as function:
        yield function.url


@pytest.fixture
def cvat(real_function) -> Iterator[StandinCvat]:
    cvat = StandinCvat()
    cvat.functions["sam2"] = StandinFunction(real_function, "sam2")
    yield cvat
    cvat.close()


@pytest.fixture
def job(cvat):
    return cvat.add_job(
        StandinJob(
            source=[picture(n) for n in range(FRAMES)],
            sizes=[(WIDTH, HEIGHT)],
            labels=LABELS,
            stop_frame=FRAMES - 1,
        )
    )


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "pictures"
    path.mkdir()
    for n in range(FRAMES):
        (path / f"frame_{n}.png").write_bytes(picture(n))
    return path


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


@pytest.mark.parametrize("option", ["--keyframes", "--both-ways"])
def test_what_was_drawn_on_two_frames_joins_through_cvat(cvat, job, act, real_function, option):
    """Through CVAT's rules for shapes and states, as its server has them."""
    cvat.functions = {OURS: StandinFunction(real_function, OURS)}
    drawn_on = FRAMES - 2
    first, second = (keyframe(frame, outline(truth(frame)[1])) for frame in (0, drawn_on))
    job.tracks = [track(first, second, id=5)]
    result = act("track", "--job", 42, "--frame", 0, option, "--json")
    assert result.code == 0, result.log
    assert "anew" not in result.log
    assert "do not count" not in result.log
    keyframes = {k["frame"]: k for k in job.tracks[0]["shapes"]}
    assert sorted(keyframes) == list(range(FRAMES))
    assert keyframes[drawn_on]["points"] == second["points"]
    for frame in range(FRAMES):
        assert overlap("polygon", keyframes[frame]["points"], truth(frame)[1]) > 0.7


def test_objects_are_tracked_through_cvat_and_the_real_function(cvat, job, act):
    job.shapes = seeds()
    result = act("track", "--job", 42, "--frame", 0, CONVERT, "--json")
    assert result.code == 0, result.log
    assert result.json["complete"]
    (made,) = job.tracks
    masks = [s for s in job.shapes if s["type"] == "mask"]
    boxes = [s for s in job.shapes if s["type"] == "rectangle"]
    assert [s["frame"] for s in masks] == [s["frame"] for s in boxes] == list(range(FRAMES))
    assert [k["frame"] for k in made["shapes"]] == list(range(FRAMES))
    for frame in range(FRAMES):
        disc, other, box = truth(frame)
        assert overlap("mask", masks[frame]["points"], disc) > 0.7
        assert overlap("polygon", made["shapes"][frame]["points"], other) > 0.7
        assert overlap("rectangle", boxes[frame]["points"], box) > 0.6
    assert all(0 <= o["lowest_score"] <= 1 for o in result.json["objects"])


def test_without_a_server_the_same_comes_out(cvat, job, act, folder, tmp_path):
    job.shapes = seeds()
    assert act("track", "--job", 42, "--frame", 0).code == 0
    (tmp_path / "seeds.json").write_text(json.dumps(as_coco(seeds())))
    for name in ("out.json", "out.xml"):
        result = act(
            "local", "--video", folder, "--annotations", tmp_path / "seeds.json",
            "--out", tmp_path / name,
        )  # fmt: skip
        assert result.code == 0, result.log
        assert "bundled micro model" in result.log
        document, _ = read_document(tmp_path / name, open_media(folder))
        for kind in ("mask", "polygon", "rectangle"):
            expected = {s["frame"]: s["points"] for s in job.shapes if s["type"] == kind}
            found = {
                s["frame"]: s["points"] for s in document.annotations.shapes if s["type"] == kind
            }
            for t in document.annotations.tracks:  # what has no shape of its own in CVAT's XML
                if t["shapes"][0]["type"] == kind:
                    found |= {k["frame"]: k["points"] for k in t["shapes"] if not k["outside"]}
            assert sorted(found) == sorted(expected)
            for frame, points in expected.items():
                assert found[frame] == pytest.approx(points, abs=0.006)


@pytest.mark.parametrize("kind", ["mask", "polygon"])
def test_an_object_is_clicked_on_and_tracked(act, cvat, job, folder, tmp_path, monkeypatch, kind):
    """Beside what is drawn, which stays as it is; also if the run breaks and is resumed.

    On files and on a server alike.
    """
    (tmp_path / "seeds.json").write_text(json.dumps(as_coco(seeds()[:1])))
    y, x = np.argwhere(truth(0)[1])[truth(0)[1].sum() // 2]
    label = LABELS[0]["name"]
    out = tmp_path / "out.json"
    common = (
        "local", "--video", folder, "--annotations", tmp_path / "seeds.json", "--out", out,
        "--target-frame", 2,
    )  # fmt: skip
    clicks = f"{label} {x},{y}.5 -2,2"
    for wrong, said in (
        ((clicks,), "--frame"),
        (("none 5,5", "--frame", 0), "no label 'none'"),
        ((f"{label} -5,5", "--frame", 0), "minus"),
        ((f"{label} 5,x", "--frame", 0), "minus"),
        ((f"{label} 99999,5", "--frame", 0), "does not lie on the image"),
    ):
        refused = act(*common, "--points", *wrong)
        assert (refused.code != 0, said in refused.log, out.exists()) == (True, True, False), said
    step, journal = LocalTracker.step, tmp_path / "run.jsonl"

    def broken(self, frame, states):
        if frame == 2 and kind == "mask":
            raise CallFailed(Cure.NONE, "broken")
        return step(self, frame, states)

    with monkeypatch.context() as patched:
        patched.setattr(LocalTracker, "step", broken)
        arguments = ("--points", clicks, "--points-as", kind, "--frame", 0, "--journal", journal)
        result = act(*common, *arguments)
    assert (result.code == 0) == (kind == "polygon"), result.log
    if kind == "mask":
        result = act("local", "--resume", journal)
        assert result.code == 0, result.log
    document, _ = read_document(out, open_media(folder))
    shapes = document.annotations.shapes
    drawn = next(s for s in shapes if s["frame"] == 0 and s["points"] == seeds()[0]["points"])
    assert drawn["type"] == "mask"
    frames = [s["frame"] for s in shapes if s["type"] == kind]
    assert sorted(set(frames)) == [0, 1, 2]
    assert len(shapes) == 6  # two objects on three frames
    job.shapes = seeds()[:1]
    cvat.functions["sam2"].shape_types = ("mask", "polygon", "rectangle", "points")
    track = ("track", "--job", 42, "--frame", 0, "--target-frame", 2, "--function", "sam2")
    result = act(*track, "--points", clicks, "--points-as", kind)
    assert result.code == 0, result.log
    for frame in range(2):  # on frame 2 the resumed run began anew
        here, there = (
            sorted(s["points"] for s in held if (s["frame"], s["type"]) == (frame, kind))
            for held in (job.shapes, shapes)
        )
        assert here == [pytest.approx(points, abs=0.006) for points in there]


def box_of(mask):
    ys, xs = np.nonzero(mask)
    return [float(v) for v in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)]


def test_what_a_detector_finds_is_tracked_on_a_server_and_without_one(
    cvat, job, act, folder, tmp_path, monkeypatch
):
    """Boxes of two objects, of which one enters on frame 3, become masks; also in a resumed run."""
    boxes = {0: [box_of(truth(0)[0])], 3: [box_of(m) for m in truth(3)[:2]]}
    detector = ScriptedDetector()
    detector.frame_of = [picture(n) for n in range(FRAMES)].index
    detector.on_frame = {
        frame: [{"label": "car", "type": "rectangle", "points": box} for box in found]
        for frame, found in boxes.items()
    }
    cvat.functions["det"] = StandinFunction(detector.url, "det", "detector", labels=(LABELS[0],))
    find = ("--every", 3, "--boxes-to-masks")
    result = act("track", "--job", 42, "--frame", 0, "--function", "sam2", "--detect", "det", *find)
    detector.close()
    assert result.code == 0, result.log
    masks = {}
    for s in job.shapes:
        masks.setdefault(s["frame"], []).append(s["points"])
    assert {frame: len(here) for frame, here in masks.items()} == {
        n: 1 if n < 3 else 2 for n in range(FRAMES)
    }
    for frame, here in masks.items():
        for number in range(len(here)):
            assert max(overlap("mask", points, truth(frame)[number]) for points in here) > 0.7

    results = [
        {
            "image_id": frame + 1, "category_id": 1, "score": 0.9,
            "bbox": [left, top, right - left, bottom - top],
        }
        for frame, found in boxes.items() for left, top, right, bottom in found
    ]  # fmt: skip
    (tmp_path / "found.json").write_text(json.dumps(results))
    (tmp_path / "labels.json").write_text(json.dumps(as_coco([]) | {"images": []}))
    step, journal = LocalTracker.step, tmp_path / "run.jsonl"

    def broken(self, frame, states):
        if frame == 5:
            raise CallFailed(Cure.NONE, "broken")
        return step(self, frame, states)

    with monkeypatch.context() as patched:
        patched.setattr(LocalTracker, "step", broken)
        result = act(
            "local", "--video", folder, "--annotations", tmp_path / "labels.json", "--out",
            tmp_path / "out.json", "--detect", tmp_path / "found.json", "--journal", journal, *find,
        )  # fmt: skip
    assert result.code == 4, result.log
    result = act("local", "--resume", journal)
    assert result.code == 0, result.log
    document, _ = read_document(tmp_path / "out.json", open_media(folder))
    local = {}
    for s in document.annotations.shapes:
        local.setdefault(s["frame"], []).append(s["points"])
    assert {f: len(here) for f, here in local.items()} == {f: len(m) for f, m in masks.items()}
    for frame in range(5):  # then it was started again from its last result
        assert sorted(local[frame]) == sorted(masks[frame])


def test_everything_is_the_same_by_the_interactor_and_without_a_server(
    cvat, job, act, folder, tmp_path
):
    job.labels = [{"id": 1, "name": "car", "type": "any", "attributes": []}]
    find = (
        "--everything", "points_per_side=4 pred_iou_thresh=0.1 stability_score_thresh=0.01",
        "--max-objects", 2, "--target-frame", 2,
    )  # fmt: skip
    with FunctionProcess({**os.environ, "SAM2_FUNCTION": "interactor"}) as interactor:
        function = StandinFunction(interactor.url, OUR_INTERACTOR, "interactor")
        cvat.functions[OUR_INTERACTOR] = function
        result = act("track", "--job", 42, "--frame", 0, "--function", "sam2", *find)
    assert result.code == 0, result.log
    assert "because --max-objects is reached" in result.log
    (tmp_path / "labels.json").write_text(json.dumps(as_coco([]) | {"images": []}))
    result = act(
        "local", "--video", folder, "--annotations", tmp_path / "labels.json", "--out",
        tmp_path / "out.json", *find,
    )  # fmt: skip
    assert result.code == 0, result.log
    document, _ = read_document(tmp_path / "out.json", open_media(folder))
    ours, theirs = (
        sorted((s["frame"], list(s["points"])) for s in shapes)
        for shapes in (document.annotations.shapes, job.shapes)
    )
    assert [frame for frame, _ in theirs].count(0) == 2
    assert ours == theirs


def test_without_a_server_backwards_over_a_video(act, tmp_path):
    writer = cv2.VideoWriter(
        str(tmp_path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 12, (WIDTH, HEIGHT)
    )
    for n in range(FRAMES):
        writer.write(cv2.imdecode(np.frombuffer(picture(n), np.uint8), cv2.IMREAD_COLOR))
    writer.release()
    content = as_coco([{**seeds()[0], "points": encode_mask(truth(5)[0])}])
    content["images"][0]["file_name"] = "frame_000005.PNG"
    (tmp_path / "seeds.json").write_text(json.dumps(content))
    video, sheet = tmp_path / "seen.mp4", tmp_path / "seen.png"
    result = act(
        "local", "--video", tmp_path / "clip.mp4", "--annotations", tmp_path / "seeds.json",
        "--target-frame", 2, "--backward", "--out", tmp_path / "out.json", "--preview", video,
        "--contact-sheet", sheet, "--json",
    )  # fmt: skip
    assert result.code == 0, result.log
    assert result.json["frames"] == [4, 3, 2]
    document, _ = read_document(tmp_path / "out.json", open_media(tmp_path / "clip.mp4"))
    found = {s["frame"]: s["points"] for s in document.annotations.shapes}
    assert sorted(found) == [2, 3, 4, 5]
    assert all(overlap("mask", points, truth(f)[0]) > 0.7 for f, points in found.items())
    assert cv2.imread(str(sheet)).shape[1] == 1600
    assert video.stat().st_size > 0


def test_a_local_run_that_breaks_keeps_what_is_done_and_goes_on(act, folder, tmp_path, monkeypatch):
    (tmp_path / "seeds.json").write_text(json.dumps(as_coco(seeds()[1:])))
    encoded = ImageFolder.encoded

    def without_the_disk(media, frame):
        if frame == 4:
            raise ActionError("frame_4.png cannot be read: Input/output error.")
        return encoded(media, frame)

    monkeypatch.setattr(ImageFolder, "encoded", without_the_disk)
    out = tmp_path / "out.json"
    ended = act(
        "local", "--video", folder, "--annotations", tmp_path / "seeds.json", "--out", out, "--json"
    )
    assert ended.code == 4, ended.log
    frames = [s["frame"] for s in read_document(out, open_media(folder))[0].annotations.shapes]
    assert sorted(set(frames)) == [0, 1, 2, 3]
    monkeypatch.setattr(ImageFolder, "encoded", encoded)
    again = act("local", "--resume", ended.json["resume"].split()[-1], "--json")
    assert again.code == 0, again.log
    assert again.json["frames"] == list(range(1, FRAMES))
    frames = [s["frame"] for s in read_document(out, open_media(folder))[0].annotations.shapes]
    assert sorted(frames) == sorted([*range(FRAMES)] * 2)


def test_without_a_server_the_same_objects_and_results_are_chosen(act, folder, tmp_path):
    drawn = as_coco(seeds())
    drawn["images"].append({**drawn["images"][0], "id": 2, "file_name": "frame_3.png"})
    drawn["annotations"][2]["image_id"] = 2
    (tmp_path / "seeds.json").write_text(json.dumps(drawn))
    out = tmp_path / "out.json"
    wishes = ("--all-seeds", "--type", "rectangle", "--type", "polygon", "--min-score", 0.9999)
    done = act(
        "local", "--video", folder, "--annotations", tmp_path / "seeds.json", "--out", out,
        *wishes, "--json",
    )  # fmt: skip
    assert done.code == 0, done.log
    assert [(o["type"], o["unsure_frames"]) for o in done.json["objects"]] == [
        ("polygon", list(range(1, FRAMES))), ("rectangle", list(range(4, FRAMES))),
    ]  # fmt: skip
    written = read_document(out, open_media(folder))[0].annotations.shapes
    assert sorted((s["type"], s["frame"]) for s in written) == [
        ("mask", 0), ("polygon", 0), ("rectangle", 3),
    ]  # fmt: skip


def test_step_shows_asks_corrects_and_stops(act, folder, tmp_path, monkeypatch):
    (tmp_path / "seeds.json").write_text(json.dumps(as_coco(seeds()[1:])))
    answers = (
        "c 2 100,110 60,-5\n\n"  # corners in any order, and a little off the image
        "c 9 1,1 2,2\nc 1 5,5\nc 1 20,20 40,20 40,40 20,40\nc 2 outside\n\nwhat\ns\n"
    )
    monkeypatch.setattr("sys.stdin", io.StringIO(answers))
    result = act(
        "local", "--video", folder, "--annotations", tmp_path / "seeds.json", CONVERT,
        "--out", tmp_path / "out.json", "--step", "--json",
    )  # fmt: skip
    assert result.code == 0, result.log
    assert "There is no object 9" in result.log
    assert "a polygon of 2 numbers" in result.log
    assert result.json["frames"] == [1, 2, 3]
    assert (tmp_path / "out.step.png").exists()
    document, _ = read_document(tmp_path / "out.json", open_media(folder))
    (made,) = document.annotations.tracks
    corrected = next(k for k in made["shapes"] if k["frame"] == 2)
    assert corrected["points"] == [20, 20, 40, 20, 40, 40, 20, 40]
    boxes = [s["frame"] for s in document.annotations.shapes]
    assert boxes == [0, 1]
    assert document.annotations.shapes[1]["points"] == [60, 0, 100, 110]


def test_a_cvat_export_goes_in_and_comes_out_with_its_tracks_edited(act, folder, tmp_path):
    from cvat_action.formats import write_document
    from cvat_action.formats.document import AttributeSpec, Document, LabelSpec
    from cvat_action.job import Annotations

    points = outline(truth(0)[1])
    spec = AttributeSpec(0, "colour", False)
    document = Document(
        (LabelSpec(0, "car", (spec,)),),
        Annotations(
            (),
            (
                track(
                    keyframe(0, points),
                    keyframe(1, points, outside=True),
                    label_id=0,
                    id=0,
                    attributes=[{"spec_id": 0, "value": "red"}],
                ),
            ),
        ),
        "cvat",
    )
    media = open_media(folder)
    write_document(tmp_path / "in.xml", document, media)
    result = act(
        "local", "--video", folder, "--annotations", tmp_path / "in.xml", "--target-frame", 3,
        "--out", tmp_path / "out.xml",
    )  # fmt: skip
    assert result.code == 0, result.log
    (edited,) = read_document(tmp_path / "out.xml", media)[0].annotations.tracks
    assert edited["attributes"] == [{"spec_id": 0, "value": "red"}]
    assert [(k["frame"], k["outside"]) for k in edited["shapes"]] == [
        (0, False), (1, False), (2, False), (3, False), (4, True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--out", "out.txt"), "must end in .json"),
        (("--target-frame", "9"), "holds frames 0 to 6"),
        (("--frame", "3"), "nothing to track on frame 3"),
        (("--model", "sam9"), "no model 'sam9'"),
        (("--label", "dog"), "no label 'dog'"),
    ],
)
def test_wrong_arguments_without_a_server(act, folder, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seeds.json").write_text(json.dumps(as_coco(seeds())))
    result = act(
        "local", "--video", folder, "--annotations", tmp_path / "seeds.json",
        "--out", tmp_path / "out.json", *arguments,
    )  # fmt: skip
    assert result.code == 1
    assert said in result.log
    assert not (tmp_path / "out.json").exists()


def on_the_next_frame(element):
    return element.replace(' frame="0"', ' frame="1"').replace('outside="0"', 'outside="1"')


def two_boxes():
    """As CVAT exports a mask and two boxes: each a track of its own, in the order of drawing, with
    an `outside` element on the next frame."""
    *runs, left, top, right, bottom = encode_mask(truth(0)[1])
    flags = 'frame="0" keyframe="1" outside="0" occluded="0" z_order="0"'
    rle = ", ".join(str(int(run)) for run in runs)
    size = f'left="{left}" top="{top}" width="{right - left + 1}" height="{bottom - top + 1}"'
    elements = [
        f'<mask {flags} rle="{rle}" {size}/>',
        f'<box {flags} xtl="17" ytl="22" xbr="53" ybr="58"/>',
        f'<box {flags} xtl="60" ytl="80" xbr="100" ybr="110"/>',
    ]
    tracks = (
        f'<track id="{n}" label="thing" source="manual">{each}{on_the_next_frame(each)}</track>'
        for n, each in enumerate(elements)
    )
    return f"<annotations><version>1.1</version>{''.join(tracks)}</annotations>"


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("same", [False, True])
def test_a_local_run_that_writes_over_its_own_annotations_goes_on(
    act, folder, tmp_path, monkeypatch, same, changed
):
    annotations = tmp_path / "labels.xml"
    annotations.write_text(two_boxes())
    out = annotations if same else tmp_path / "out.xml"
    encoded = ImageFolder.encoded

    def without_the_disk(media, frame):
        if frame == 4:
            raise ActionError("frame_4.png cannot be read: Input/output error.")
        return encoded(media, frame)

    run = ("local", "--video", folder, "--annotations", annotations, "--out", out, "--json")
    with monkeypatch.context() as patched:
        patched.setattr(ImageFolder, "encoded", without_the_disk)
        ended = act(*run, "--type", "rectangle")
    assert ended.code == 4
    assert annotations.read_text() == two_boxes(), "the run goes on from this file"
    resume = ("local", "--resume", ended.json["resume"].split()[-1])
    if changed:
        annotations.write_text(two_boxes().replace("manual", "semi-auto"))
        left = annotations.read_text()
        refused = act(*resume)
        assert (refused.code, annotations.read_text()) == (1, left)
        assert f"{annotations} is not as it was when this run began" in refused.log
        return
    assert act(*resume).code == 0
    for each in read_document(out, open_media(folder))[0].annotations.tracks:
        tops = [k["points"][1] for k in each["shapes"]]
        assert max(tops) - min(tops) < 15, "it stays the same object"
    assert out.read_text().count('keyframe="1"') > 2 * FRAMES
