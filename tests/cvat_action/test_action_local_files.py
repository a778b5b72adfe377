# SPDX-License-Identifier: MIT
"""`local` run again over its own files, over CVAT's exports, and over what a person corrected.

The tracker is a scripted one: every object moves one pixel to the right per frame.
"""

import json
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from conftest import POLYGON
from PIL import Image
from scripted_function import HEIGHT, WIDTH, moved

from cvat_action import local
from cvat_action.errors import ActionError
from cvat_action.formats import read_document
from cvat_action.media import ImageFolder, open_media
from cvat_action.tracking import Answer

FRAMES = 8
CONVERT = "--convert-polygon-shapes-to-tracks"


class MovingTracker:
    joins = True

    def __init__(self, tracker, media):
        self._media = media

    def start(self, frame, shapes):
        self._media.encoded(frame)
        drawn = [{"type": s["type"], "points": list(s["points"])} for s in shapes]
        return Answer(drawn, drawn, [0.9] * len(drawn), [None] * len(drawn))

    def step(self, frame, states):
        return self.start(frame, [moved(state) for state in states])

    def correct(self, frame, shapes, states):
        return self.start(frame, shapes)


@pytest.fixture(autouse=True)
def scripted(monkeypatch):
    nothing = SimpleNamespace(close=lambda: None)
    monkeypatch.setattr(local, "_build_tracker", lambda model: nothing)
    monkeypatch.setattr(local, "LocalTracker", MovingTracker)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(FRAMES):
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / f"frame_{n:06d}.png")
    return folder


@pytest.fixture
def run(act, pictures):
    """Tracks from one file to another."""
    return lambda source, out, *more: act(
        "local", "--video", pictures, "--annotations", source, "--out", out, *more
    )


def box(frame, left, **more):
    return {
        "image_id": frame + 1,
        "category_id": 1,
        "segmentation": [],
        "bbox": [left, 30, 8, 8],
        **more,
    }


def polygon(frame, points=POLYGON, **more):
    return {
        "image_id": frame + 1,
        "category_id": 1,
        "bbox": [4, 2, 6, 4],
        "segmentation": [points],
        **more,
    }


def coco(path, *annotations):
    images = [
        {"id": n + 1, "file_name": f"frame_{n:06d}.png", "width": WIDTH, "height": HEIGHT}
        for n in range(FRAMES)
    ]
    content = {
        "images": images,
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [{"id": n, **a} for n, a in enumerate(annotations, 1)],
    }
    path.write_text(json.dumps(content))
    return path


def annotations_of(path):
    return json.loads(path.read_text())["annotations"]


def lefts(path):
    """(frame, left edge) of all boxes, in order."""
    return sorted((a["image_id"] - 1, a["bbox"][0]) for a in annotations_of(path))


# --- CVAT's own export ---------------------------------------------------------------------------

AS_CVAT_EXPORTS = """<annotations><version>1.1</version><meta><task><id>1</id><size>8</size>
<start_frame>0</start_frame><stop_frame>7</stop_frame><frame_filter></frame_filter>
<labels><label><name>car</name><attributes></attributes></label></labels></task></meta>
<track id="0" label="car" source="manual">
<polygon frame="0" keyframe="1" outside="0" occluded="0" points="4.13,2.00;10.00,2.00;10.00,6.00"
 z_order="0"></polygon>
<polygon frame="1" keyframe="1" outside="1" occluded="0" points="4.13,2.00;10.00,2.00;10.00,6.00"
 z_order="0"></polygon>
</track>
<track id="1" label="car" source="manual">
<box frame="0" keyframe="1" outside="0" occluded="0" xtl="4.13" ytl="30.0" xbr="12.0" ybr="38.0"
 z_order="0"></box>
<box frame="1" keyframe="1" outside="1" occluded="0" xtl="4.13" ytl="30.0" xbr="12.0" ybr="38.0"
 z_order="0"></box>
</track></annotations>"""


def keyframes_of(path, pictures):
    document, _ = read_document(path, open_media(pictures))
    return [[(k["frame"], k["outside"]) for k in t["shapes"]] for t in document.annotations.tracks]


def test_shapes_of_cvats_export_are_tracked(run, tmp_path, pictures):
    """Their export ends on the next frame, which no person drew."""
    (tmp_path / "a.xml").write_text(AS_CVAT_EXPORTS)
    assert run(tmp_path / "a.xml", tmp_path / "b.xml", "--target-frame", 5).code == 0
    whole = [*((frame, False) for frame in range(6)), (6, True)]
    assert keyframes_of(tmp_path / "b.xml", pictures) == [whole, whole]


def test_a_shape_of_cvats_export_that_is_not_tracked_keeps_its_end(run, tmp_path):
    (tmp_path / "a.xml").write_text(AS_CVAT_EXPORTS)
    assert run(tmp_path / "a.xml", tmp_path / "b.xml", "--type", "polygon").code == 0
    untouched = ElementTree.parse(tmp_path / "b.xml").findall("track")[1]
    assert [(e.get("frame"), e.get("outside"), e.get("xtl")) for e in untouched] == [
        ("0", "0", "4.13"), ("1", "1", "4.13"),
    ]  # fmt: skip


def test_an_object_that_a_person_hid_later_sleeps_there(run, tmp_path, pictures):
    hidden = AS_CVAT_EXPORTS.replace(' frame="1"', ' frame="3"')
    (tmp_path / "a.xml").write_text(hidden)
    assert run(tmp_path / "a.xml", tmp_path / "b.xml").code == 0
    kept = [(0, False), (1, False), (2, False), (3, True)]
    assert keyframes_of(tmp_path / "b.xml", pictures) == [kept, kept]


def test_results_that_are_tracks_of_one_frame_each_are_not_doubled(run, tmp_path, pictures):
    source = coco(tmp_path / "a.json", box(0, 4))
    assert run(source, tmp_path / "b.xml", "--target-frame", 5).code == 0
    again = run(tmp_path / "b.xml", tmp_path / "c.xml", "--frame", 0)
    assert "results of an earlier run as tracks of one frame each" in again.log
    assert keyframes_of(tmp_path / "c.xml", pictures) == keyframes_of(tmp_path / "b.xml", pictures)
    assert run(tmp_path / "b.xml", tmp_path / "d.xml", "--frame", 5).code == 0
    assert keyframes_of(tmp_path / "d.xml", pictures)[5] == [(5, False), (6, False), (7, False)]


# --- tracks in COCO ------------------------------------------------------------------------------


def test_a_track_in_coco_goes_on(run, tmp_path):
    tracked = {"attributes": {"track_id": 0, "keyframe": True}}
    source = coco(tmp_path / "a.json", *(box(n, 4 + n, **tracked) for n in range(4)))
    assert run(source, tmp_path / "b.json", "--frame", 3).code == 0
    assert [frame for frame, _ in lefts(tmp_path / "b.json")] == list(range(FRAMES))


@pytest.mark.parametrize("drawn", [box(0, 4.0), polygon(0)], ids=["box", "polygon"])
def test_a_track_of_an_earlier_run_in_coco_goes_on_and_is_not_a_persons(run, tmp_path, drawn):
    drawn = {**drawn, "attributes": {"track_id": 0}}
    source = coco(tmp_path / "a.json", drawn)
    assert run(source, tmp_path / "b.json", "--target-frame", 3).code == 0
    assert run(tmp_path / "b.json", tmp_path / "c.json", "--frame", 1).code == 0
    assert [frame for frame, _ in lefts(tmp_path / "c.json")] == list(range(FRAMES))
    told = run(tmp_path / "c.json", tmp_path / "d.json", "--frame", 1, "--dry-run").out
    assert "corrected on" not in told


def test_a_polygon_that_became_a_track_in_coco_goes_on(run, tmp_path):
    source = coco(tmp_path / "a.json", polygon(0))
    assert run(source, tmp_path / "b.json", "--target-frame", 3, CONVERT).code == 0
    assert run(tmp_path / "b.json", tmp_path / "c.json", "--frame", 3).code == 0
    assert [frame for frame, _ in lefts(tmp_path / "c.json")] == list(range(FRAMES))


# --- shapes in COCO ------------------------------------------------------------------------------


@pytest.fixture
def tracked(run, tmp_path):
    """A box that a first run tracked over all frames."""
    source = coco(tmp_path / "a.json", box(0, 4))
    assert run(source, tmp_path / "b.json").code == 0
    return tmp_path / "b.json"


def change(path, frame, **keys):
    """As a person changes an annotation in another program."""
    content = json.loads(path.read_text())
    for a in content["annotations"]:
        if a["image_id"] == frame + 1:
            a.update(keys)
    path.write_text(json.dumps(content))


def test_a_box_that_is_corrected_in_the_file_is_not_doubled(run, tmp_path, tracked):
    change(tracked, 3, bbox=[30, 30, 8, 8])
    out = tmp_path / "c.json"
    stopped = run(tracked, out, "--frame", 3)
    assert stopped.code == 1
    assert "4 shapes on frames 4 to 7 are an earlier run's" in stopped.log
    done = run(tracked, out, "--frame", 3, "--replace")
    assert done.code == 0
    assert "4 shapes created, 4 shapes deleted" in done.out
    assert lefts(out) == [(0, 4), (1, 5), (2, 6), *((n, 27 + n) for n in range(3, 8))]


@pytest.mark.parametrize(
    "keys",
    [{"bbox": [30, 30, 8, 8]}, {"attributes": {"occluded": True}}, {"content_hash": None}],
    ids=["moved", "occluded", "without its hash"],
)
def test_what_a_person_changed_in_the_file_stays(run, tmp_path, tracked, keys):
    change(tracked, 5, **keys)
    corrected = next(a for a in annotations_of(tracked) if a["image_id"] == 6)
    out = tmp_path / "c.json"
    assert run(tracked, out, "--frame", 0, "--replace").code == 0
    assert [a for a in annotations_of(out) if a["image_id"] == 6] == [corrected]
    assert len(annotations_of(out)) == FRAMES


def test_the_same_run_over_its_own_results_changes_nothing(run, tmp_path, tracked):
    assert run(tracked, tmp_path / "c.json", "--frame", 0, "--replace").code == 0
    assert annotations_of(tmp_path / "c.json") == annotations_of(tracked)


def test_results_of_each_type_are_known_again_in_coco(run, tmp_path, pictures):
    counts = [5 * HEIGHT + 3, 4, WIDTH * HEIGHT - 5 * HEIGHT - 7]
    rle = {"size": [HEIGHT, WIDTH], "counts": counts}
    mask = {"image_id": 1, "category_id": 1, "segmentation": rle}
    sloping = [4.1, 2.7, 10.3, 2.2, 10.9, 6.6]
    box_of_thirds = box(0, 4 / 3, bbox=[4 / 3, 91 / 3, 25 / 3, 22 / 3])
    named = {"attributes": {"colour": "red", "age": 3, "moving": True}}
    source = coco(tmp_path / "a.json", mask, polygon(0, sloping, **named), box_of_thirds)
    assert run(source, tmp_path / "b.json").code == 0
    document, _ = read_document(tmp_path / "b.json", open_media(pictures))
    sources = {(s["frame"] > 0, s["source"]) for s in document.annotations.shapes}
    assert sources == {(False, "file"), (True, "auto")}


# --- what lies where the output goes -------------------------------------------------------------


@pytest.fixture
def without_the_disk(monkeypatch):
    """Pictures from frame 5 on cannot be read, until it is called."""
    encoded = ImageFolder.encoded

    def broken(media, frame):
        if frame >= 5:
            raise ActionError("The disk is away.")
        return encoded(media, frame)

    monkeypatch.setattr(ImageFolder, "encoded", broken)
    return lambda: monkeypatch.setattr(ImageFolder, "encoded", encoded)


def resume_of(ended):
    return ("local", "--resume", ended.log.split("--resume ")[-1].split()[0])


def test_a_resume_writes_over_nothing_that_a_person_corrected(act, run, tmp_path, without_the_disk):
    source, out = coco(tmp_path / "a.json", box(0, 4)), tmp_path / "b.json"
    ended = run(source, out)
    assert ended.code == 4
    change(out, 3, bbox=[30, 30, 8, 8])
    corrected = out.read_text()
    without_the_disk()
    refused = act(*resume_of(ended))
    assert (refused.code, out.read_text()) == (1, corrected)
    assert "is not a file of results as this command wrote it" in refused.log
    out.rename(tmp_path / "corrected.json")
    assert act(*resume_of(ended)).code == 0
    assert len(annotations_of(out)) == FRAMES


def test_a_resume_goes_on_with_what_it_wrote_itself(act, run, tmp_path, without_the_disk):
    source, out = coco(tmp_path / "a.json", box(0, 4)), tmp_path / "b.json"
    ended = run(source, out)
    without_the_disk()
    assert act(*resume_of(ended)).code == 0
    assert len(annotations_of(out)) == FRAMES


def test_the_same_command_given_twice_writes_the_same(run, tmp_path):
    source, out = coco(tmp_path / "a.json", box(0, 4)), tmp_path / "b.json"
    out.touch()  # an empty file holds nothing
    assert run(source, out).code == 0
    first = lefts(out)
    assert run(source, out).code == 0
    assert lefts(out) == first


@pytest.mark.parametrize("corrected", [False, True], ids=["another program's", "corrected"])
def test_a_file_that_is_not_as_this_command_wrote_it_is_not_written_over(run, tmp_path, corrected):
    source, out = coco(tmp_path / "a.json", box(0, 4)), tmp_path / "b.json"
    if corrected:
        assert run(source, out).code == 0
        change(out, 3, bbox=[30, 30, 8, 8])
    else:
        out.write_text("a thesis")
    held = out.read_text()
    refused = run(source, out)
    assert (refused.code, out.read_text()) == (1, held)
    assert "move it away first" in refused.log
    assert run(source, out, "--dry-run").code == 0


@pytest.mark.parametrize("in_place", [False, True])
def test_a_file_that_a_person_changed_during_the_run_is_not_written_over(
    run, tmp_path, monkeypatch, in_place
):
    source = coco(tmp_path / "a.json", box(0, 4))
    out = source if in_place else tmp_path / "b.json"
    step = MovingTracker.step

    def meanwhile(self, frame, states):
        if frame == 4:
            out.write_text('{"by": "a person"}')
        return step(self, frame, states)

    monkeypatch.setattr(MovingTracker, "step", meanwhile)
    ended = run(source, out)
    assert ended.code == 4
    assert out.read_text() == '{"by": "a person"}'
    assert "was changed while this ran" in ended.log


def test_the_annotations_themselves_may_be_written_over(run, tmp_path):
    source = coco(tmp_path / "a.json", box(0, 4))
    assert run(source, source).code == 0
    assert len(annotations_of(source)) == FRAMES
    assert run(source, source, "--frame", 0, "--replace").code == 0
    assert len(annotations_of(source)) == FRAMES
    other = coco(tmp_path / "other.json", box(0, 20))
    assert run(other, source).code == 1


def test_a_category_with_another_name_makes_no_results_a_persons(run, tracked, tmp_path):
    content = json.loads(tracked.read_text())
    content["categories"][0]["name"] = "vehicle"
    renamed = tmp_path / "renamed.json"
    renamed.write_text(json.dumps(content))
    out = tmp_path / "c.json"
    done = run(renamed, out, "--frame", 0, "--replace")
    assert done.code == 0
    assert annotations_of(out) == annotations_of(tracked)
