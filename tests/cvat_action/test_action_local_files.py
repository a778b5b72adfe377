# SPDX-License-Identifier: MIT
"""`local` run again over its own files, over CVAT's exports, and over what a person corrected.

The tracker is a scripted one: every object moves one pixel to the right per frame.
"""

import errno
import io
import json
import math
import os
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from conftest import CONVERT, ctrl_c, journal_full_from, unreadable_from
from look import hidden
from PIL import Image
from scripted_function import HEIGHT, WIDTH, moved
from wire import POLYGON

from cvat_action import local, rebuild
from cvat_action.calls import Answer
from cvat_action.formats import read_document
from cvat_action.media import open_media
from cvat_action.put_in_place import put_in_place
from cvat_action.tracked import TrackedObject

FRAMES = 8


class MovingTracker:
    joins = True
    meanwhile = {}
    """what happens when it is asked for a frame, once each"""

    def __init__(self, tracker, media):
        self._media = media

    def start(self, frame, shapes):
        self._media.encoded(frame)
        drawn = [{"type": s["type"], "points": list(s["points"])} for s in shapes]
        return Answer(drawn, drawn, [0.9] * len(drawn), [None] * len(drawn))

    def step(self, frame, states):
        self.meanwhile.pop(frame, lambda: None)()
        return self.start(frame, [moved(state) for state in states])

    def correct(self, frame, shapes, states):
        return self.start(frame, shapes)


class FasterTracker(MovingTracker):
    """The longer it knows an object, the faster this moves. A correction joins what it knows."""

    def start(self, frame, shapes, ages=None):
        answer = super().start(frame, shapes)
        states = list(zip(answer.states, ages or [0] * len(shapes), strict=True))
        return Answer(answer.shapes, states, answer.scores, answer.errors)

    def step(self, frame, states):
        ages = [age + 1 for _, age in states]
        shapes = [moved(shape, age) for (shape, _), age in zip(states, ages, strict=True)]
        return self.start(frame, shapes, ages)

    def correct(self, frame, shapes, states):
        return self.start(frame, shapes, [age + 1 for _, age in states])


@pytest.fixture(autouse=True)
def scripted(monkeypatch):
    nothing = SimpleNamespace(close=lambda: None)
    monkeypatch.setattr(local, "load_tracker", lambda model: nothing)
    monkeypatch.setattr(local, "LocalTracker", MovingTracker)
    monkeypatch.setattr(MovingTracker, "meanwhile", {})


@pytest.fixture
def pictures(request, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(getattr(request, "param", FRAMES)):
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / f"frame_{n:06d}.png")
    return folder


@pytest.fixture
def run(act, pictures, coco, tmp_path):
    """Tracks from one file to another; both are named without their folder.

    There is a.json, with a box on frame 0.
    """
    coco(box(0, 4))

    def run(source, out, *more, code=0):
        files = ("--annotations", tmp_path / source, "--out", tmp_path / out)
        return act("local", "--video", pictures, *files, *more, code=code)

    return run


def annotation(frame, bbox, segmentation=(), **more):
    common = {"image_id": frame + 1, "category_id": 1, "segmentation": [*segmentation]}
    return {**common, "bbox": bbox, **more}


def box(frame, left, **more):
    return annotation(frame, [left, 30, 8, 8], **more)


def polygon(frame, points=POLYGON, **more):
    return annotation(frame, [4, 2, 6, 4], [points], **more)


@pytest.fixture
def coco(tmp_path):
    """Writes a.json with these annotations."""

    def coco(*annotations, name="a.json", images=FRAMES):
        images = [
            {"id": n + 1, "file_name": f"frame_{n:06d}.png", "width": WIDTH, "height": HEIGHT}
            for n in range(images)
        ]
        content = {
            "images": images,
            "categories": [{"id": 1, "name": "car"}],
            "annotations": [{"id": n, **a} for n, a in enumerate(annotations, 1)],
        }
        (tmp_path / name).write_text(json.dumps(content))

    return coco


@pytest.fixture
def lefts(tmp_path):
    """(frame, left edge) of all boxes in a file, in order."""
    return lambda name: sorted(
        (a["image_id"] - 1, a["bbox"][0]) for a in annotations_of(tmp_path / name)
    )


def annotations_of(path):
    return json.loads(path.read_text())["annotations"]


def change(path, frame, **keys):
    """As a person changes an annotation in another program."""
    content = json.loads(path.read_text())
    for a in content["annotations"]:
        if a["image_id"] == frame + 1:
            a.update(keys)
    path.write_text(json.dumps(content))


MOVED = {"bbox": [30, 30, 8, 8]}
FROM_4 = [(n, 4 + n) for n in range(FRAMES)]
CORRECTED_ON_3 = [*FROM_4[:3], *((n, 27 + n) for n in range(3, FRAMES))]


# --- what is tracked -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pictures", "options", "said"),
    [
        (8, ("--frame", 7), "There is no frame to track after frame 7."),
        (8, ("--frame", 0, "--backward"), "There is no frame to track before frame 0."),
        (1, (), "after frame 0. Only one frame could be read from"),
    ],
    indirect=["pictures"],
)
def test_where_no_frame_is_left_to_track_it_is_said_why(run, coco, options, said):
    coco(box(0, 4), images=1)
    assert said in run("a.json", "b.json", *options, code=1).log


def test_a_dry_run_names_the_video(run):
    shown = run("a.json", "b.json", "--dry-run").out
    assert shown.startswith("pictures: from frame 0 to 7, 7 frames\n")


# --- CVAT's own export ---------------------------------------------------------------------------


def exported(number, kind, left=4.13, frame=0, ends=1, label="car", group=0):
    """A shape of one frame as CVAT exports it: a track with an `outside` element on another one."""
    place = {
        "polygon": f'points="{left:.2f},2.00;{left + 6:.2f},2.00;{left + 6:.2f},6.00"',
        "box": f'xtl="{left:.2f}" ytl="30.00" xbr="{left + 8:.2f}" ybr="38.00"',
        "mask": 'rle="0, 8" left="30" top="9" width="4" height="2"',
    }
    both = "".join(
        f'<{kind} frame="{at}" outside="{outside}" keyframe="1" occluded="0" z_order="0" '
        f'{place[kind]}><attribute name="colour">red</attribute></{kind}>'
        for at, outside in ((frame, 0), (ends, 1))
    )
    about = f'id="{number}" label="{label}" source="manual" group_id="{group}"'
    return f"<track {about}>{both}</track>"


POLYGON_AND_BOX = exported(0, "polygon") + exported(1, "box")


def as_cvat_exports(tracks=POLYGON_AND_BOX):
    return f"""<annotations><version>1.1</version><meta><task><id>1</id><size>8</size>
<start_frame>0</start_frame><stop_frame>7</stop_frame><frame_filter></frame_filter><labels><label>
<name>car</name><attributes><attribute><name>colour</name><mutable>False</mutable>
<input_type>text</input_type></attribute></attributes></label></labels></task></meta>
{tracks}</annotations>"""


@pytest.fixture
def tracks_of(tmp_path, pictures):
    return lambda name: read_document(tmp_path / name, open_media(pictures))[0].annotations.tracks


def keyframes_of(tracks):
    return [[(k["frame"], k["outside"]) for k in t["shapes"]] for t in tracks]


@pytest.mark.parametrize(
    ("ends", "hidden_on"), [(1, 6), (3, 3)], ids=["by the export", "by a person"]
)
def test_shapes_of_cvats_export_are_tracked_up_to_where_a_person_hid_them(
    run, tmp_path, tracks_of, ends, hidden_on
):
    """Each ends on the next frame in the export, which no person drew. Attributes stay."""
    both = (exported(n, kind, ends=ends) for n, kind in enumerate(("polygon", "box")))
    (tmp_path / "a.xml").write_text(as_cvat_exports("".join(both)))
    run("a.xml", "b.xml", "--target-frame", 5)
    whole = [*((frame, False) for frame in range(hidden_on)), (hidden_on, True)]
    assert keyframes_of(tracks_of("b.xml")) == [whole, whole]
    assert [[a["value"] for a in t["attributes"]] for t in tracks_of("b.xml")] == [["red"]] * 2


def test_a_shape_of_cvats_export_that_is_not_tracked_keeps_its_end(run, tmp_path):
    (tmp_path / "a.xml").write_text(as_cvat_exports())
    run("a.xml", "b.xml", "--type", "polygon")
    untouched = ElementTree.parse(tmp_path / "b.xml").findall("track")[1]
    assert [(e.get("frame"), e.get("outside"), e.get("xtl")) for e in untouched] == [
        ("0", "0", "4.13"), ("1", "1", "4.13"),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["polygon", "box"])
@pytest.mark.parametrize(
    ("drawn", "hidden_on"),
    [
        pytest.param({"left": 8.5}, [4], id="in its place"),
        pytest.param({"left": 8.5, "group": 3}, [4], id="in its place, in a group"),
        pytest.param({"left": 30.5}, [], id="elsewhere"),
        pytest.param({"left": 8.5, "label": "bus"}, [], id="of another label"),
        pytest.param({"left": 8.5, "ends": 7}, [], id="a track that goes on"),
    ],
)
def test_what_a_person_drew_later_is_not_doubled(run, tmp_path, tracks_of, kind, drawn, hidden_on):
    """In this format it is a track of one frame."""
    later = exported(9, kind, frame=4, **{"ends": 5, **drawn})
    (tmp_path / "a.xml").write_text(as_cvat_exports(exported(0, kind) + later))
    done = run("a.xml", "b.xml", "--frame", 0, code=3 if hidden_on else 0)
    told = "Object track:0, frame 4: a drawing of this frame alone lies in its place and was kept"
    assert (told in done.log) == bool(hidden_on)
    assert hidden(tracks_of("b.xml")[0], range(FRAMES)) == hidden_on
    before, after = (
        [e.attrib for e in ElementTree.parse(tmp_path / name).findall("track")[1]]
        for name in ("a.xml", "b.xml")
    )
    assert after == before


def test_results_that_are_tracks_of_one_frame_each_are_not_doubled(run, tracks_of):
    run("a.json", "b.xml", "--target-frame", 5)
    again = run("b.xml", "c.xml", "--frame", 0)
    assert "results of an earlier run as tracks of one frame each" in again.log
    assert keyframes_of(tracks_of("c.xml")) == keyframes_of(tracks_of("b.xml"))
    run("b.xml", "d.xml", "--frame", 5)
    assert keyframes_of(tracks_of("d.xml"))[5] == [(5, False), (6, False), (7, False)]


# --- tracks in COCO ------------------------------------------------------------------------------


TRACK = {"attributes": {"track_id": 0}}


@pytest.mark.parametrize(
    ("drawn", "options"),
    [(box(0, 4.0, **TRACK), ()), (polygon(0, **TRACK), ()), (polygon(0), (CONVERT,))],
    ids=["box", "polygon", "a polygon that became a track"],
)
def test_a_track_of_an_earlier_run_in_coco_goes_on_and_is_not_a_persons(
    run, coco, lefts, drawn, options
):
    coco(drawn)
    run("a.json", "b.json", "--target-frame", 3, *options)
    run("b.json", "c.json", "--frame", 1)
    assert [frame for frame, _ in lefts("c.json")] == list(range(FRAMES))
    assert "corrected on" not in run("c.json", "d.json", "--frame", 1, "--dry-run").out


def test_the_same_run_over_its_own_sparse_track_changes_nothing(run, coco, tmp_path):
    coco(polygon(0))
    run("a.json", "b.json", CONVERT, "--sparse")
    again = run("b.json", "c.json", "--frame", 0, "--sparse")
    assert "for 7 frames" in again.out, "all frames are tracked anew, not only the last one"
    assert annotations_of(tmp_path / "c.json") == annotations_of(tmp_path / "b.json")


# --- shapes in COCO ------------------------------------------------------------------------------


@pytest.fixture
def tracked(run, tmp_path):
    """A box that a first run tracked over all frames."""
    run("a.json", "b.json")
    return tmp_path / "b.json"


def test_a_box_that_is_corrected_in_the_file_is_not_doubled(run, tracked, lefts):
    change(tracked, 3, **MOVED)
    stopped = run("b.json", "c.json", "--frame", 3, code=1)
    assert "4 shapes on frames 4 to 7 are an earlier run's" in stopped.log
    done = run("b.json", "c.json", "--frame", 3, "--replace")
    written = f"written to {tracked.parent / 'c.json'}: 4 shapes created, 4 shapes deleted"
    assert written in done.out
    assert lefts("c.json") == CORRECTED_ON_3


@pytest.mark.parametrize(
    "keys",
    [MOVED, {"attributes": {"occluded": True}}, {"content_hash": None}],
    ids=["moved", "occluded", "without its hash"],
)
def test_what_a_person_changed_in_the_file_stays(run, tmp_path, tracked, keys):
    change(tracked, 5, **keys)
    run("b.json", "c.json", "--frame", 0, "--replace")
    before, after = (
        [a for a in annotations_of(path) if a["image_id"] == 6]
        for path in (tracked, tmp_path / "c.json")
    )
    assert after == before
    assert len(annotations_of(tmp_path / "c.json")) == FRAMES


@pytest.mark.parametrize("category", ["car", "vehicle"], ids=["the same", "renamed"])
def test_the_same_run_over_its_own_results_changes_nothing(run, tmp_path, tracked, category):
    """A category with another name makes no results a person's."""
    content = json.loads(tracked.read_text())
    content["categories"][0]["name"] = category
    (tmp_path / "named.json").write_text(json.dumps(content))
    run("named.json", "c.json", "--frame", 0, "--replace")
    assert annotations_of(tmp_path / "c.json") == annotations_of(tracked)


def test_results_of_each_type_are_known_again_in_coco(run, coco, tmp_path, pictures):
    counts = [5 * HEIGHT + 3, 4, WIDTH * HEIGHT - 5 * HEIGHT - 7]
    rle = {"size": [HEIGHT, WIDTH], "counts": counts}
    mask = {"image_id": 1, "category_id": 1, "segmentation": rle}
    sloping = [4.1, 2.7, 10.3, 2.2, 10.9, 6.6]
    box_of_thirds = annotation(0, [4 / 3, 91 / 3, 25 / 3, 22 / 3])
    named = {"attributes": {"colour": "red", "age": 3, "moving": True, "note": None, "on": ["a"]}}
    coco(mask, polygon(0, sloping, **named), box_of_thirds)
    run("a.json", "b.json")
    document, _ = read_document(tmp_path / "b.json", open_media(pictures))
    sources = {(s["frame"] > 0, s["source"]) for s in document.annotations.shapes}
    assert sources == {(False, "file"), (True, "auto")}


def test_a_result_has_the_values_of_its_objects_attributes(run, coco, tmp_path):
    """Also where another object has text there."""
    values = {"note": None, "colour": None, "tags": ["a"], "at": {"x": 1}, "age": 1.5, "by": "1"}
    coco(box(0, 4, attributes=values), box(7, 40, attributes={"colour": "red"}))
    run("a.json", "b.json", "--target-frame", 1)
    (result,) = (a for a in annotations_of(tmp_path / "b.json") if a["image_id"] == 2)
    assert {name: result["attributes"].get(name, "is missing") for name in values} == values


@pytest.mark.parametrize("text", ["null", '["a"]'])
def test_text_of_cvat_for_video_stays_text_in_coco(run, tmp_path, text):
    (tmp_path / "a.xml").write_text(as_cvat_exports().replace(">red<", f">{text}<"))
    run("a.xml", "b.json")
    assert {a["attributes"]["colour"] for a in annotations_of(tmp_path / "b.json")} == {text}


# --- what a detector found -----------------------------------------------------------------------


@pytest.mark.parametrize(("more", "frames"), [((), [2, 3, 4]), (("--backward",), [7, 6, 5, 4])])
def test_a_detector_begins_on_the_first_frame_of_the_task(run, tmp_path, more, frames):
    """Its task leaves out the first two frames of the source."""
    empty = as_cvat_exports("").replace("<start_frame>0", "<start_frame>2")
    (tmp_path / "a.xml").write_text(empty)
    found = [{**box(frame, 4), "score": 0.9} for frame in (2, 7)]
    (tmp_path / "found.json").write_text(json.dumps(found))
    detect = ("--detect", tmp_path / "found.json", "--target-frame", 4)
    run("a.xml", "b.xml", *detect, *more)
    tracks = ElementTree.parse(tmp_path / "b.xml").findall("track")
    assert sorted(int(t[0].get("frame")) for t in tracks) == sorted(frames)


# --- corrected while stepping --------------------------------------------------------------------


@pytest.fixture
def typed(monkeypatch):
    """What a person types while `--step` asks; then the run goes on to its end."""
    return lambda *lines: monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\nr\n"))


OVER_AGAIN = ("--frame", 0, "--replace", "--step")


@pytest.mark.parametrize("name", ["b.step.png", "sheet.png"])
def test_a_picture_of_an_earlier_run_is_replaced_unless_it_was_changed(
    run, coco, tmp_path, typed, name
):
    def drawn(left, code=0):
        coco(box(0, left))
        typed("r")
        pictures = ("--step", "--contact-sheet", tmp_path / "sheet.png")
        said = run("a.json", "b.json", *pictures, code=code).log
        return said, (tmp_path / name).read_bytes()

    assert drawn(4)[1] != drawn(20)[1]
    (tmp_path / name).write_text("a picture of somebody else")
    assert "It is not written over" in drawn(4, code=1)[0]


def test_what_is_drawn_while_stepping_is_a_persons_in_the_next_run(run, tmp_path, lefts, typed):
    """Corners may be named in any order, and lie a little off the image."""
    typed("", "", "c 1 38,30 30,50")
    run("a.json", "b.json", "--step")
    assert [30, 30, 8, HEIGHT - 30] in [a["bbox"] for a in annotations_of(tmp_path / "b.json")]
    run("b.json", "c.json", "--frame", 0, "--replace")
    assert lefts("c.json") == lefts("b.json") == CORRECTED_ON_3


@pytest.mark.parametrize("again", [(), ("c 1 30,30 38,38",)], ids=["to the end", "for a while"])
def test_what_is_hidden_while_stepping_has_no_results_of_an_earlier_run_left(
    run, tracked, lefts, typed, again
):
    """It is hidden from frame 3 on; the person may correct it again on frame 5."""
    typed("", "", "c 1 outside", "", "", *again)
    done = run("b.json", "c.json", *OVER_AGAIN, "--json")
    later = [(5, 30), (6, 31), (7, 32)] if again else []
    assert lefts("c.json") == [*FROM_4[:3], *later]
    (told,) = done.json["objects"]
    assert (told["frames"], told["lost_frames"]) == (7, [3, 4] if again else [3, 4, 5, 6, 7])


def test_what_is_hidden_while_stepping_leaves_what_a_person_corrected(run, tracked, lefts, typed):
    change(tracked, 5, **MOVED)
    typed("", "", "c 1 outside")
    run("b.json", "c.json", *OVER_AGAIN)
    assert lefts("c.json") == [*FROM_4[:3], (5, 30), (6, 31), (7, 32)]


@pytest.mark.parametrize("more", [(), (CONVERT,)], ids=["shapes", "tracks"])
@pytest.mark.parametrize("again", ["20,20 28,20 28,28", "outside"])
def test_a_correction_while_stepping_takes_the_place_of_one_of_an_earlier_run(
    run, coco, lefts, typed, again, more
):
    coco(polygon(0))
    typed("", "", "c 1 30,30 38,30 38,38")
    run("a.json", "b.json", "--step")
    assert (3, 30) in lefts("b.json")
    typed("", "", f"c 1 {again}")
    run("b.json", "c.json", *OVER_AGAIN, *more)
    on_3 = [left for frame, left in lefts("c.json") if frame == 3]
    assert on_3 == ([] if again == "outside" else [20])


@pytest.mark.parametrize("again", ["20,20 28,28", "outside"])
def test_a_correction_while_stepping_leaves_what_may_be_another_object(
    run, coco, tmp_path, typed, again
):
    """Far from the result, and without a group that would tell."""
    coco(box(0, 4), box(3, 50))
    typed("", "", f"c 1 {again}")
    run("a.json", "b.json", "--frame", 0, "--keyframes", "--step")
    there = [a["bbox"] for a in annotations_of(tmp_path / "b.json") if a["image_id"] == 4]
    assert [50, 30, 8, 8] in there


def test_a_correction_while_stepping_leaves_a_result_with_another_label(run, tracked, typed):
    content = json.loads(tracked.read_text())
    content["categories"].append({"id": 2, "name": "another"})
    tracked.write_text(json.dumps(content))
    change(tracked, 3, category_id=2)
    typed("", "", "c 1 30,30 38,38")
    done = run("b.json", "c.json", *OVER_AGAIN, code=3)
    assert "frame 3: a shape of this object is there" in done.log


def test_a_track_that_is_hidden_while_stepping_stays_hidden(run, tmp_path, tracks_of, typed):
    (tmp_path / "a.xml").write_text(as_cvat_exports())
    run("a.xml", "b.xml")
    typed("", "", "c track:1 outside")
    run("b.xml", "c.xml", *OVER_AGAIN, "--type", "rectangle")
    (hidden,) = (t for t in tracks_of("c.xml") if t["shapes"][0]["type"] == "rectangle")
    assert keyframes_of([hidden]) == [[*((n, False) for n in range(3)), (3, True)]]


def test_a_resume_leaves_no_earlier_result_of_what_was_hidden_while_stepping(
    act, run, coco, tmp_path, typed
):
    coco(box(0, 4), annotation(0, [4, 10, 8, 8]))
    run("a.json", "b.json")
    typed("", "", "c 1 outside", "")
    with unreadable_from(5):
        ended = run("b.json", "c.json", *OVER_AGAIN, code=4)
    typed("")
    act("local", "--resume", ended.journal)
    left = [(a["image_id"] - 1, a["bbox"][1]) for a in annotations_of(tmp_path / "c.json")]
    assert sorted(left) == sorted([(n, 10) for n in range(FRAMES)] + [(n, 30) for n in range(3)])


@pytest.mark.parametrize(
    ("drawn", "line", "said"),
    [
        (box(0, 4), "1 70,10 80,20", "That is a rectangle smaller than a pixel inside the image."),
        (box(0, 4), "1 10,10 10.5,20", "That is a rectangle smaller than a pixel inside the image"),
        (box(0, 4), "1 10,10 20,10 30,10", "The polygon covers no pixel of the image."),
        (box(0, 4), "1 9.4,9 10.2,9 10,20", "That is a rectangle smaller than a pixel"),
        (polygon(0), "1 10,10 10,20 10,30", "The polygon covers no pixel of the image."),
        (polygon(0), "1 70,10 80,20", "That is a rectangle smaller than a pixel inside the image."),
        (polygon(0), "1 70,10 80,20 90,5", "The polygon covers no pixel of the image."),
        (polygon(0), "1 5,5", "That is a polygon of 2 numbers"),
        (polygon(0), "9 1,1 2,2", "There is no object 9; there are 1."),
    ],
)
def test_a_mistyped_correction_is_told_and_changes_nothing(
    run, coco, tmp_path, typed, drawn, line, said
):
    coco(drawn)
    run("a.json", "b.json")
    typed("what", f"c {line}")
    assert said in run("a.json", "c.json", "--step").log
    assert without_scores(tmp_path / "c.json") == without_scores(tmp_path / "b.json")


def without_scores(path):
    """The annotations without what tells one run from another."""
    return [
        {k: v for k, v in a.items() if k not in ("score", "content_hash")}
        for a in annotations_of(path)
    ]


# --- what lies where the output goes -------------------------------------------------------------


@pytest.fixture
def cut_off(run):
    """A run from a.json to b.json from which frame 5 on is missing."""
    with unreadable_from(5):
        return run("a.json", "b.json", "--json", code=4)


def test_a_resume_goes_on_with_what_it_wrote_itself(act, run, cut_off, lefts):
    assert lefts("b.json") == FROM_4[:5]
    in_the_way = run("a.json", "b.json", code=1)
    assert f"-m cvat_action local --resume {cut_off.journal}, drop it: " in in_the_way.log
    again = act("local", "--resume", cut_off.journal, "--json")
    assert again.json["frames"] == list(range(1, FRAMES))
    assert lefts("b.json") == FROM_4


@pytest.mark.parametrize("steps", [(), ("", "c 1 30,30 38,38"), ("", "c 1 outside")])
def test_a_resumed_run_writes_what_an_undisturbed_one_writes(
    act, run, coco, tmp_path, typed, monkeypatch, steps
):
    """The memory of the objects goes with the process; a second object enters on frame 4."""
    monkeypatch.setattr(local, "LocalTracker", FasterTracker)
    coco(box(0, 4), box(0, 20))
    (tmp_path / "found.json").write_text(json.dumps([{**annotation(4, [4, 9, 8, 8]), "score": 1}]))
    options = ("--detect", tmp_path / "found.json", "--every", 2, *(["--step"] if steps else []))
    typed(*steps)
    run("a.json", "whole.json", *options)
    typed(*steps)
    with unreadable_from(6):
        ended = run("a.json", "b.json", *options, code=4)
    typed()
    again = act("local", "--resume", ended.journal)
    assert "5 frames are tracked again to rebuild it" in again.log
    assert without_scores(tmp_path / "b.json") == without_scores(tmp_path / "whole.json")


def test_what_is_told_of_a_run_that_waits(act, cut_off, tmp_path, pictures):
    """It wrote what is done, so this is not lost."""
    out = tmp_path / "b.json"
    kept = "4 of 7 frames tracked, all of them kept in this journal; was cut off"
    assert f"{cut_off.journal}\n  {pictures} -> {out}: {kept}\n" in act("runs").out
    (told,) = act("runs", "--json").json["waiting"]
    assert (told["out"], told["tracked"]) == (str(out), 4)
    said = act("discard", cut_off.journal).out
    assert f"with 4 frames tracked. What was written to {out} stays.\n" in said


def test_a_resume_that_breaks_while_it_tracks_again_can_be_given_again(act, cut_off, lefts):
    with unreadable_from(3):
        broken = act("local", "--resume", cut_off.journal, code=4)
    assert "4 of 7 frames are tracked and written." in broken.log
    act("local", "--resume", broken.journal)
    assert lefts("b.json") == FROM_4


def test_a_resume_writes_over_nothing_that_a_person_corrected(act, tmp_path, cut_off, lefts):
    out = tmp_path / "b.json"
    change(out, 3, **MOVED)
    corrected = out.read_text()
    refused = act("local", "--resume", cut_off.journal, code=1)
    assert out.read_text() == corrected
    assert "is not a file of results as this command wrote it" in refused.log
    out.rename(tmp_path / "corrected.json")
    act("local", "--resume", cut_off.journal)
    assert lefts("b.json") == FROM_4


@pytest.mark.parametrize("changed", [False, True], ids=["as it was", "changed"])
@pytest.mark.parametrize("out", ["a.xml", "b.xml"], ids=["over its annotations", "beside"])
def test_a_resume_needs_the_annotations_as_they_were(act, run, tmp_path, tracks_of, out, changed):
    """Also where the header of the file does not name the label of its tracks."""
    annotations = tmp_path / "a.xml"
    held = as_cvat_exports(exported(0, "mask") + exported(1, "box"))
    held = held.replace("<name>car<", "<name>bus<")
    annotations.write_text(held)
    with unreadable_from(4):
        ended = run("a.xml", out, "--type", "rectangle", code=4)
    assert annotations.read_text() == held, "the run goes on from this file"
    if changed:
        held = held.replace("manual", "semi-auto")
        annotations.write_text(held)
        refused = act("local", "--resume", ended.journal, code=1)
        assert f"{annotations} is not as it was when this run began" in refused.log
        assert annotations.read_text() == held
        return
    act("local", "--resume", ended.journal)
    (t,) = tracks_of(out)
    assert [k["frame"] for k in t["shapes"]] == list(range(FRAMES))
    assert {round(k["points"][1]) for k in t["shapes"]} == {30}, "it stays the same object"


def test_a_file_that_cannot_be_written_counts_nothing_as_written_and_leaves_what_is_there(
    run, tmp_path, monkeypatch
):
    def stands_there(*arguments):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))

    (tmp_path / "b.json").touch()
    monkeypatch.setattr(Path, "replace", stands_there)
    ended = run("a.json", "b.json", "--json", code=4)
    assert ended.json["written"] == {}
    assert "b.json cannot be written: Is a directory. 7 of 7 frames are tracked" in ended.log
    assert "and nothing was written. Go on with" in ended.log
    assert (tmp_path / "b.json").read_bytes() == b""
    assert {*tmp_path.glob(".*")} == set()


def test_the_same_command_given_twice_writes_the_same(run, tmp_path, lefts):
    (tmp_path / "b.json").touch()  # an empty file holds nothing
    for _ in range(2):
        run("a.json", "b.json")
        assert lefts("b.json") == FROM_4


@pytest.mark.parametrize(
    ("fewer", "told"),
    [
        (("--frame", 0, "--target-frame", 2), "results of frames 0 to 7"),
        (("--frame", 0, "--object", 2), "results of object 1"),
    ],
)
def test_a_smaller_run_loses_no_results_of_an_earlier_one(run, coco, tmp_path, lefts, fewer, told):
    coco(box(0, 4), box(0, 14))
    run("a.json", "b.json", "--frame", 0)
    held = lefts("b.json")
    assert told in run("a.json", "b.json", *fewer, code=1).log
    assert "before it can run: " in run("a.json", "b.json", *fewer, "--dry-run").out
    assert lefts("b.json") == held
    (tmp_path / "b.json").unlink()
    run("a.json", "b.json", *fewer)
    run("a.json", "b.json", "--frame", 0)
    assert lefts("b.json") == held


@pytest.mark.parametrize("how", ["s", "Ctrl+C"])
def test_a_run_that_ends_early_loses_no_results_of_an_earlier_one(run, lefts, typed, how):
    run("a.json", "b.json")
    if how == "s":
        typed("s")
        ended = run("a.json", "b.json", "--step", code=4)
        assert "1 of 7 frames" in ended.log
        assert "writing it would lose them" in ended.log
    else:
        MovingTracker.meanwhile[3] = ctrl_c
        ended = run("a.json", "b.json", code=130)
    assert "Go on with" in ended.log
    assert lefts("b.json") == FROM_4


@pytest.mark.parametrize("corrected", [False, True], ids=["another program's", "corrected"])
def test_a_file_that_is_not_as_this_command_wrote_it_is_not_written_over(run, tmp_path, corrected):
    out = tmp_path / "b.json"
    if corrected:
        run("a.json", "b.json")
        change(out, 3, **MOVED)
    else:
        out.write_text("a thesis")
    held = out.read_text()
    assert "move it away first" in run("a.json", "b.json", code=1).log
    assert out.read_text() == held
    run("a.json", "b.json", "--dry-run")


@pytest.mark.parametrize("out", ["a.json", "b.json"], ids=["in place", "beside"])
def test_a_file_that_a_person_changed_during_the_run_is_not_written_over(run, tmp_path, out):
    changed = '{"by": "a person"}'
    MovingTracker.meanwhile[4] = lambda: (tmp_path / out).write_text(changed)
    ended = run("a.json", out, code=4)
    assert (tmp_path / out).read_text() == changed
    assert "was changed while this ran" in ended.log


def test_files_that_are_written_over_keep_their_modes_and_the_links_to_them(run, tmp_path, lefts):
    links = [tmp_path / name for name in ("a.json", "sheet.png")]
    links[1].touch()
    for link in links:
        held = link.rename(tmp_path / f"held_{link.name}")
        held.chmod(0o640)
        link.symlink_to(held.name)
    run("a.json", "a.json", "--contact-sheet", links[1])
    assert all(link.is_symlink() for link in links)
    assert [link.stat().st_mode & 0o777 for link in links] == [0o640, 0o640]
    assert lefts("held_a.json") == FROM_4
    assert links[1].stat().st_size


@pytest.mark.parametrize("kind", ["file", "link"])
@pytest.mark.parametrize("part", ["b.json.part", "s.png.part.png"])
def test_a_persons_files_beside_the_results_stay(run, tmp_path, part, kind):
    held = tmp_path / "thesis.txt"
    held.write_text("a thesis")
    if kind == "link":
        (tmp_path / part).symlink_to(held)
    else:
        (tmp_path / part).write_text("a thesis")
    before = {*tmp_path.iterdir()}
    run("a.json", "b.json", "--contact-sheet", tmp_path / "s.png")
    assert (tmp_path / part).read_text() == held.read_text() == "a thesis"
    assert (tmp_path / part).is_symlink() == (kind == "link")
    new = {path.name for path in {*tmp_path.iterdir()} - before}
    assert new <= {"b.json", "s.png", "state", "config"}


def test_a_name_as_long_as_any_can_be_is_written_to(run, lefts):
    name = "b" * 248 + ".json"
    run("a.json", name)
    assert lefts(name) == FROM_4


def test_a_link_that_leads_to_itself_is_named(run, tmp_path):
    (tmp_path / "b.json").symlink_to("b.json")
    for files in (("a.json", "b.json"), ("b.json", "c.json")):
        assert "b.json cannot be read: Too many levels" in run(*files, code=1).log
    picture = "--contact-sheet", tmp_path / "s.png"
    assert "b.json cannot be read: Too many levels" in run("b.json", "c.json", *picture, code=1).log


@pytest.mark.parametrize("option", ["--video", "--journal"])
def test_a_name_that_is_too_long_is_named(run, option):
    long = "b" * 300
    assert f"{long}: File name too long." in run("a.json", "b.json", option, long, code=1).log


def test_the_annotations_themselves_may_be_written_over(run, coco, lefts):
    for options in ((), ("--frame", 0, "--replace")):
        run("a.json", "a.json", *options)
        assert lefts("a.json") == FROM_4
    coco(box(0, 20), name="other.json")
    run("other.json", "a.json", code=1)


def test_of_an_object_that_is_seen_on_no_frame_it_is_said_what_may_help(run, coco, monkeypatch):
    class BlindTracker(MovingTracker):
        def step(self, frame, states):
            answer = super().step(frame, states)
            gone = [state["points"][0] > 20 for state in states]
            shapes = [None if g else s for g, s in zip(gone, answer.shapes, strict=True)]
            return Answer(shapes, answer.states, answer.scores, answer.errors)

    monkeypatch.setattr(local, "LocalTracker", BlindTracker)
    coco(polygon(0), polygon(0, [30, 2, 36, 2, 33, 6]))
    told = run("a.json", "b.json").out
    assert told.count("seen on no frame; if it is small, try --search-region 4") == 1


# --- the memory that a run goes on with ----------------------------------------------------------


class AsAskedTracker(FasterTracker):
    """How fast an object moves is also said by how it was asked for where it began."""

    def start(self, frame, shapes, ages=None):
        wanted = {"memory": "official", "tolerance": 0.1, "search_region": 3}
        asked = [sum(s.get(key) == value for key, value in wanted.items()) for s in shapes]
        return super().start(frame, shapes, ages or asked)

    def adopt(self, frame, shape_type, state, others):
        (shape, age) = state
        return self.start(frame, [shape], [age])


def test_a_resume_remembers_the_objects_as_the_run_was_asked_to(
    act, run, coco, tmp_path, monkeypatch
):
    monkeypatch.setattr(local, "LocalTracker", AsAskedTracker)
    coco(polygon(0))
    options = ("--memory", "official", "--tolerance", 0.1, "--search-region", 3)
    run("a.json", "whole.json", *options)
    with unreadable_from(4):
        ended = run("a.json", "b.json", *options, code=4)
    act("local", "--resume", ended.journal)
    assert without_scores(tmp_path / "b.json") == without_scores(tmp_path / "whole.json")


def test_an_object_that_is_lost_while_it_is_tracked_again_goes_on_from_its_last_result(
    act, run, coco, lefts, monkeypatch
):
    class ForgetfulTracker(MovingTracker):
        def step(self, frame, states):
            answer = super().step(frame, states)
            lost = [frame == 2 and state["points"][1] == 30 for state in states]
            shapes, states = (
                [None if gone else each for each, gone in zip(whole, lost, strict=True)]
                for whole in (answer.shapes, answer.states)
            )
            return Answer(shapes, states, answer.scores, answer.errors)

    coco(box(0, 4), annotation(0, [4, 10, 8, 8]))
    with unreadable_from(5):
        ended = run("a.json", "b.json", code=4)
    monkeypatch.setattr(local, "LocalTracker", ForgetfulTracker)
    act("local", "--resume", ended.journal)
    assert lefts("b.json") == sorted(FROM_4 * 2)


@pytest.mark.parametrize("found", [False, True], ids=["drawn", "drawn and found"])
def test_a_resume_of_both_ways_tracks_again_only_what_was_found(
    act, run, coco, tmp_path, monkeypatch, found
):
    """What is drawn starts anew from its drawings in any case."""
    monkeypatch.setattr(local, "LocalTracker", AsAskedTracker)
    coco(box(0, 4), box(6, 26))
    detected = [{**annotation(2, [4, 9, 8, 8]), "score": 1}] if found else []
    (tmp_path / "found.json").write_text(json.dumps(detected))
    options = ("--frame", 0, "--both-ways", "--detect", tmp_path / "found.json", "--every", 2)
    run("a.json", "whole.json", *options)
    with journal_full_from(5):
        ended = run("a.json", "b.json", *options, code=4)
    again = act("local", "--resume", ended.journal)
    assert ("4 frames are tracked again" in again.log) == found
    assert without_scores(tmp_path / "b.json") == without_scores(tmp_path / "whole.json")


def test_a_resume_of_both_ways_tracks_again_only_the_direction_that_was_not_complete(
    act, run, coco, tmp_path, monkeypatch
):
    """First it is tracked forwards to check the drawing, then forwards and backwards."""
    monkeypatch.setattr(local, "LocalTracker", AsAskedTracker)
    coco(box(0, 4), box(4, 13))
    options = ("--frame", 0, "--both-ways")
    run("a.json", "whole.json", *options)

    stepped, step = [], AsAskedTracker.step

    def stepping(self, frame, states):
        stepped.append(frame)
        if stepped.count(2) == 3:
            ctrl_c()
        return step(self, frame, states)

    monkeypatch.setattr(AsAskedTracker, "step", stepping)
    ended = run("a.json", "b.json", *options, code=130)
    assert "0 of 7 frames are tracked, and 7 frames in one direction." in ended.log
    stepped.clear()
    act("local", "--resume", ended.journal)
    assert stepped == [1, 2, 3, 4, 3, 2, 1]
    assert without_scores(tmp_path / "b.json") == without_scores(tmp_path / "whole.json")


def test_nothing_is_tracked_again_where_every_object_has_stopped(
    act, run, coco, tmp_path, monkeypatch
):
    """The detector may find others."""

    class OfOneFrame(MovingTracker):
        def step(self, frame, states):
            nothing = [None] * len(states)
            return Answer(nothing, nothing, nothing, nothing)

    monkeypatch.setattr(local, "LocalTracker", OfOneFrame)
    coco(box(0, 4))
    (tmp_path / "found.json").write_text("[]")
    options = ("--detect", tmp_path / "found.json", "--every", 2)
    with journal_full_from(5):
        ended = run("a.json", "b.json", *options, code=4)
    assert "tracked again" not in act("local", "--resume", ended.journal, code=3).log


def test_what_is_tracked_again_is_not_kept(act, run, coco, monkeypatch):
    """Of a long clip it would fill the memory."""
    made = []

    def object_again(*seed, **how):
        made.append(TrackedObject(*seed, **how))
        return made[-1]

    coco(box(0, 4))
    with unreadable_from(6):
        ended = run("a.json", "b.json", code=4)
    held = []
    step = MovingTracker.step

    def counted(self, frame, states):
        held.append([len(o.frames) for o in made])
        return step(self, frame, states)

    monkeypatch.setattr(rebuild, "TrackedObject", object_again)
    monkeypatch.setattr(MovingTracker, "step", counted)
    act("local", "--resume", ended.journal)
    assert held == [[0]] * 7


def test_a_file_that_a_kill_leaves_behind_is_named_unfinished(tmp_path):
    with put_in_place(tmp_path / "b.json"):
        (left,) = tmp_path.iterdir()
    assert left.name.startswith(".unfinished-")
    assert left.suffix == ".json"


def test_an_object_whose_score_is_not_a_number_stops(run, monkeypatch):
    def start(self, frame, shapes):
        drawn = [{"type": s["type"], "points": list(s["points"])} for s in shapes]
        return Answer(drawn, drawn, [math.nan] * len(drawn), [None] * len(drawn))

    monkeypatch.setattr(MovingTracker, "start", start)
    log = run("a.json", "b.json", code=1).log
    assert "Object 1: the function answered a score that is not finite on frame 1" in log
