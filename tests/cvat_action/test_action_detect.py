# SPDX-License-Identifier: MIT
"""`--detect`: objects that a detector finds begin where they are found, and none is doubled."""

import json

import pytest
from conftest import CONVERT, LABELS, objects_of
from look import course, frames_of, hidden, ways
from scripted_function import frame_picture
from standin_cvat import Fault, StandinFunction
from wire import MASK, POLYGON, RECTANGLE, keyframe, shape, shifted, track

from cvat_action.detections import Detection, Outline, new_ones
from cvat_action.detectors import OUR_INTERACTOR
from cvat_action.identity import mark_of
from cvat_action.journal import Journal
from cvat_action.server import OURS

THEIRS = ({"name": "car", "type": "any", "attributes": []}, {"name": "bus", "type": "any"})
ASK = "/api/lambda/functions/det"
DETECT = ("--wait", 0, "--detect", "det")
EVERY_5 = (*DETECT, "--every", 5)


def found(points, label="car", **more):
    """An entry of a detector's answer."""
    kind = "rectangle" if len(points) == 4 else "polygon"
    return {"confidence": "0.9", "label": label, "type": kind, "points": points, **more}


@pytest.fixture
def detector(cvat, job, detector):
    """It finds a car on frame 10 and again on 15 where it is then, with another one below it."""
    cvat.functions["det"].labels = THEIRS
    detector.on_frame = {
        10: [found(RECTANGLE)],
        15: [found(shifted(RECTANGLE, 5)), found(POLYGON)],
    }
    return detector


BOX, RING = ("rectangle", -6.0, 30.0), ("polygon", -11.0, 2.0)
"""the two of the detector above; everything moves by a pixel per frame"""
ALL = {BOX: list(range(10, 21)), RING: list(range(15, 21))}
ONLY_BOX = {BOX: ALL[BOX]}


def test_what_is_found_is_tracked_from_there_on_and_what_is_tracked_is_not_doubled(
    job, track_to, detector
):
    job.shapes = [shape("mask", MASK, id=1)]
    detector.on_frame[10].append(found([4.0, 20.0, 8.0, 22.0]))  # the mask's own box
    result = track_to(20, *EVERY_5, "--json")
    assert ways(job.shapes) == ALL | {("mask", -6.0, 20.0): list(range(10, 21))}
    assert detector.asked == [10, 15, 20]
    new = [s for s in job.shapes if s["id"] != 1]
    assert all((s["source"], s["label_id"], s["group"]) == ("auto", 7, 0) for s in new)
    assert len({mark_of(s["score"], s["frame"]).number for s in new}) == 3  # each object its own
    assert objects_of(result) == ["1", "new:1", "new:2"]


def test_a_second_run_finds_nothing_new_and_undo_takes_all_back(
    act, job, track_to, detector, receipts
):
    track_to(20, *EVERY_5)
    once = sorted(s["id"] for s in job.shapes)
    track_to(20, *EVERY_5, "--replace")
    assert ways(job.shapes) == ALL
    assert RING in ways(s for s in job.shapes if s["id"] in once)  # so it was not found anew
    for receipt in receipts()[::-1]:
        act("undo", receipt)
    assert job.shapes == []


def test_polygons_become_tracks_that_begin_where_they_are_found(job, track_to, detector, tmp_path):
    track_to(20, *EVERY_5, CONVERT, "--contact-sheet", tmp_path / "sheet.png")
    assert course(job.tracks[0]) == "15:0 16:1 17:2 18:3 19:4 20:5 (21:5)"
    assert ways(job.shapes) == ONLY_BOX


@pytest.mark.parametrize("options", [(CONVERT,), ()], ids=["convert", "plain"])
def test_both_ways_tracks_a_newcomer_back_to_where_it_came_into_sight(
    job, track_to, function, detector, options
):
    function.lost.add((2, 12))
    track_to(20, *EVERY_5, "--both-ways", *options)
    ring = [s for s in job.shapes if s["type"] == "polygon"]
    if options:
        ring = [k for k in job.tracks[0]["shapes"] if not k["outside"]]
    # The scripted function moves to the right in every direction.
    lefts = {s["frame"]: round(s["points"][0]) for s in ring}
    assert lefts == {13: 6, 14: 5, 15: 4, 16: 5, 17: 6, 18: 7, 19: 8, 20: 9}


@pytest.mark.parametrize("drawn", [False, True], ids=["found", "drawn"])
def test_a_box_that_becomes_a_mask_is_no_new_object_where_this_mask_is_tracked(
    job, track_to, function, detector, drawn
):
    """The mask is much smaller than the box, which is found again and again."""
    small = {f: [0, 36, 10 + f, 20, 15 + f, 25] for f in (10, 15, 20)}
    detector.on_frame = {f: [found([10.0, 10.0, 40.0, 40.0])] for f in small}
    detector.on_frame[15].append(found(POLYGON))
    function.answers = {(10, f): {"type": "mask", "points": m} for f, m in small.items()}
    if drawn:
        job.shapes = [shape("mask", small[10], id=1)]
    track_to(20, *EVERY_5, "--boxes-to-masks", "--max-objects", 1 if drawn else 2)
    assert ways(job.shapes) == {("mask", 10.0, 20.0): list(range(10, 21)), RING: ALL[RING]}


def test_a_newcomer_ends_backwards_where_a_tracked_object_is(job, track_to, detector):
    drawn = [3.0, 3.0, 9.0, 3.0, 9.0, 7.0, 3.0, 7.0]  # on frame 13 the newcomer meets it
    job.shapes = [shape("polygon", drawn, id=1)]
    track_to(20, *EVERY_5, "--both-ways")
    ring = (s for s in job.shapes if s["type"] == "polygon" and s["points"][1] == 2)
    assert frames_of(ring) == list(range(14, 21))


def test_most_new_objects_are_counted_over_the_whole_run(job, track_to, detector):
    result = track_to(20, *EVERY_5, "--max-objects", 1)
    assert "Frame 15: 1 more of what det found are left out" in result.log
    assert ways(job.shapes) == ONLY_BOX


def test_dry_run_shows_what_would_start(job, track_to, detector):
    shown = track_to(20, *EVERY_5, "--dry-run").out
    assert "new:1   car    rectangle  a rectangle shape per frame" in shown
    assert "looked at again for new objects: frames 15, 20" in shown
    assert job.shapes == []


# --- runs that go on -----------------------------------------------------------------------------


def test_a_run_that_broke_goes_on_with_the_same_newcomers(job, cut_off, resume, detector):
    ended = cut_off(18, 20, *EVERY_5)
    detector.on_frame = {20: [found([40.0, 5.0, 50.0, 15.0])]}
    result = resume(ended, "--json")
    assert detector.asked == [10, 15, 20]
    assert ways(job.shapes) == ALL | {("rectangle", 20.0, 5.0): [20]}
    assert objects_of(result) == ["new:1", "new:2", "new:3"]


def test_a_run_that_ends_where_the_detector_is_away_asks_it_again(
    cvat, job, track_to, resume, detector
):
    cvat.faults.append(Fault("POST", ASK, 503, "refused", skip=1))
    ended = track_to(20, *EVERY_5, code=4)
    assert "Nothing was found on frame 15, because det could not be asked." in ended.log
    assert ways(job.shapes) == {BOX: list(range(10, 15))}
    resume(ended)
    assert ways(job.shapes) == ALL


def test_a_resume_goes_on_though_only_the_last_look_failed(
    cvat, track_to, resume, detector, monkeypatch
):
    stage = Journal.stage

    def then_away(self, *told):
        stage(self, *told)
        cvat.faults = [Fault("GET", ".*/annotations/", 503, "away", times=99)]

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "stage", then_away)
        ended = track_to(20, *EVERY_5, code=4)
    cvat.faults = []
    resume(ended)


# --- what others drew ----------------------------------------------------------------------------


def test_what_a_person_drew_meanwhile_is_not_doubled(job, track_to, detector):
    """On frames 12 and 15 the person drew a mask of another label where the found box is."""
    job.shapes = [
        shape("mask", [0, 64, left, 30, left + 7, 37], id=left, frame=frame, label_id=8)
        for left, frame in ((6, 12), (9, 15))
    ]
    detector.on_frame[15] = [found([9.0, 30.0, 17.0, 38.0])]
    track_to(20, *EVERY_5, code=3)  # it was left out on two frames
    boxes = ways(s for s in job.shapes if s["type"] == "rectangle")
    assert boxes == {BOX: [10, 11, 13, 14, *range(16, 21)]}


def test_what_a_person_drew_as_a_turned_box_is_not_new(job, track_to, detector):
    turned = shape("rectangle", [18.0, 20.0, 46.0, 28.0], id=900, rotation=90.0)
    job.shapes = [turned]
    detector.on_frame = {10: [found([28.0, 10.0, 36.0, 38.0])]}
    assert "nothing new was found there" in track_to(20, *DETECT, code=1).log
    assert job.shapes == [turned]


@pytest.mark.parametrize("options", [(), (CONVERT,)], ids=["plain", "convert"])
@pytest.mark.parametrize("points", [RECTANGLE, POLYGON])
def test_nothing_that_is_found_is_written_over_a_persons_track(
    job, track_to, detector, points, options
):
    """The detector finds the car on frame 10; a person's track has it from frame 12 on."""
    detector.on_frame = {10: [found(points)]}
    theirs = track(*[keyframe(f, shifted(points, f - 10)) for f in (12, 20)], id=5)
    job.tracks = [theirs]
    done = track_to(20, *DETECT, *options, code=3)
    assert "that this run did not write; it was kept" in done.log
    assert job.tracks[0] == theirs
    made = [k for t in job.tracks[1:] for k in t["shapes"] if not k["outside"]]
    assert frames_of([*job.shapes, *made]) == [10, 11]


def test_no_track_of_what_is_found_goes_over_what_a_person_drew(job, track_to, detector):
    detector.on_frame = {10: [found(POLYGON)]}
    drawn = [shape("polygon", shifted(POLYGON, f - 10), frame=f, id=800 + f) for f in (12, 13, 14)]
    job.shapes = list(drawn)
    track_to(20, *DETECT, CONVERT, code=3)
    (made,) = job.tracks
    assert hidden(made, range(10, 21)) == [12, 13, 14]
    assert {k["frame"] for k in made["shapes"] if not k["outside"]} == {10, 11, *range(15, 21)}
    assert job.shapes == drawn


# --- what is asked of the function ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ([], ["car"]),
        (["--map", "bus=person"], ["person"]),
        (["--map", "bus=person", "--map", "car=car", "--label", "person"], ["person"]),
    ],
)
def test_labels_are_mapped_and_chosen(track_to, detector, options, labels):
    detector.on_frame[10] = [found(RECTANGLE), found(POLYGON, "bus"), found([9, 9, 30, 15], "van")]
    result = track_to(20, *DETECT, "--threshold", 0.4, *options, "--json")
    assert [o["label"] for o in result.json["objects"]] == labels
    assert detector.bodies == [{"threshold": 0.4}]


def test_an_interactor_gets_the_words_and_its_more_confident_mask_is_taken(
    cvat, job, track_to, detector
):
    cvat.functions["det"].kind = "interactor"
    masks = [
        {"type": "mask", "points": points, "attributes": [{"spec_id": 0, "value": confidence}]}
        for points, confidence in ((MASK, "0.5"), ([0, 8, 5, 20, 8, 21], "0.8"))
    ]
    detector.on_frame[10] = {"shapes": masks}
    asked = (*DETECT, "--text", "red cars")
    assert "Say with one --label which label" in track_to(20, *asked, code=1).log
    track_to(20, *asked, "--label", "person")
    assert detector.bodies == [{"pos_points": [], "neg_points": [], "text_prompts": ["red cars"]}]
    # The two overlap by more than half: the surer one is taken.
    assert ways(job.shapes) == {("mask", -5.0, 20.0): list(range(10, 21))}


def test_everything_is_asked_of_the_interactor_in_words(cvat, job, track_to, detector):
    words = "points_per_side=8 pred_iou_thresh=0.5"
    asked = ("--wait", 0, "--everything", words, "--every", 10, "--label", "person")
    assert "deploy it with --interactor" in track_to(20, *asked, code=1).log
    cvat.functions[OUR_INTERACTOR] = StandinFunction(detector.url, OUR_INTERACTOR, "interactor")
    nothing = {"shapes": [], "message": "The nearest has a predicted IoU of 0.3." + "!" * 9999}
    detector.on_frame = {10: {"shapes": [{"type": "mask", "points": MASK}]}, 20: nothing}
    result = track_to(20, *asked)
    assert f"Frame 20: {OUR_INTERACTOR} says: The nearest has a predicted IoU of 0.3." in result.log
    assert len(result.log) < 2000
    assert [each["text_prompts"] for each in detector.bodies] == [[f"everything {words}"]] * 2
    assert ways(job.shapes) == {("mask", -6.0, 20.0): list(range(10, 21))}
    cvat.faults.append(Fault("POST", f"/api/lambda/functions/{OUR_INTERACTOR}", 413, "too long"))
    too_many = "ask for fewer clicks: --everything points_per_side=16."
    assert too_many in track_to(20, *asked, code=1).log


FAR = "points far outside the 64x48 image"
WRONG = "its answer is not as CVAT takes a detector's"


@pytest.mark.parametrize(
    ("answer", "code", "sentence"),
    [
        ([], 1, "nothing new was found there"),
        ("what", 1, WRONG),
        ([{"label": "car"}], 1, WRONG),
        ([found([float("nan"), 1.0, 9.0, 9.0])], 1, WRONG),
        ([found([1e9, 0.0, 1e9, 9.0]), found(RECTANGLE)], 0, f"left out of what det found: {FAR}"),
        ([found([70.0, 5.0, 80.0, 9.0]), found(RECTANGLE)], 0, "smaller than a pixel inside"),
        ([found([4.0, 30.0], type="ellipse"), found(RECTANGLE)], 0, "det found: type ellipse."),
        ([found(RECTANGLE, rotation=30.0), found(POLYGON)], 0, "det found: a rotated box."),
        ([found([1.0, 2.0, 3.0]), found(RECTANGLE)], 0, "a polygon of 3 numbers"),
        ([found([1.0 * x, 1.0, x + 1.0, 2.0]) for x in range(60)] * 99, 0, "--max-objects is"),
        (404, 1, "has no function 'det'. Its detectors: none."),
        (503, 1, "Nothing listens on the function's port"),
        (400, 1, "Nothing was found on frame 10, because det could not be asked."),
        (200, 1, "Function det cannot be used: its answer has no list of shapes"),
    ],
)
def test_hostile_answers_give_one_sentence(cvat, job, track_to, detector, answer, code, sentence):
    detector.on_frame[10] = answer
    if answer == 404:
        del cvat.functions["det"]
    elif isinstance(answer, int):
        bodies = {503: "Connection refused", 200: '{"shapes": 5}'}  # which no CVAT gives
        cvat.faults.append(Fault("POST", ASK, answer, bodies.get(answer, "what is wrong")))
    result = track_to(20, *DETECT, "--max-objects", 20, code=code)
    assert sentence in result.log
    assert bool(job.shapes) == (code == 0)
    assert len({mark_of(s["score"], s["frame"]).number for s in job.shapes}) <= 20


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--detect", OURS], 1, "is not a detector, but a tracker"),
        (["--detect", "det", "--text", "cat"], 1, "takes no text: it is a detector"),
        (["--detect", "det", "--map", "tram=car"], 1, "the detector has no label 'tram'"),
        (["--detect", "det", "--map", "car"], 1, "is not MODEL=LABEL"),
        (["--detect", "only-buses"], 1, "Say which become which with --map MODEL=LABEL"),
        (["--everything", "points_per_side=65"], 2, "points_per_side=1 to 64"),
    ],
)
def test_wrong_options_are_one_sentence(cvat, track_to, detector, options, code, sentence):
    buses = StandinFunction(detector.url, "only-buses", "detector", labels=({"name": "bus"},))
    cvat.functions["only-buses"] = buses
    assert sentence in track_to(20, *options, code=code).log


def test_functions_names_detectors_and_what_they_find(act, detector):
    assert "det  Segment Anything 2: Tracker  car, bus" in act("functions").out


# --- files ---------------------------------------------------------------------------------------


@pytest.fixture
def local(act, tmp_path):
    """Tracks in eleven pictures, by an annotation file with these labels only."""
    folder = tmp_path / "clip"
    folder.mkdir()
    for n in range(11):
        (folder / f"frame_{n:06}.png").write_bytes(frame_picture(n))

    def local(*options, labels=LABELS):
        categories = [{"id": label["id"], "name": label["name"]} for label in labels]
        content = {"images": [], "annotations": [], "categories": categories}
        (tmp_path / "labels.json").write_text(json.dumps(content))
        files = ("--annotations", tmp_path / "labels.json", "--out", tmp_path / "out.json")
        return act("local", "--video", folder, *files, *options, code=1)

    return local


def result_of(frame, **more):
    common = {"category_id": 7, "bbox": [4, 30, 8, 8], "score": 0.8}
    return {"image_id": frame + 1, **common, **more}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not JSON that can be read"),
        ({}, "holds neither COCO results"),
        ([{"image_id": 1}], "entry 0 cannot be read (it has no category_id)"),
        ([result_of(0, category_id=9)], "0 cannot be read (its category_id 9 is not in"),
        ([result_of(0, score=float("nan"))], "its score is nan"),
        ([result_of(0, bbox=None)], "neither a box nor a segmentation"),
        ([result_of(0, bbox=["x", 1, 5, 5])], "entry 0 cannot be read"),
        ([result_of(77)], "none of its images is a frame of clip"),
    ],
)
def test_wrong_files_of_results(local, tmp_path, content, sentence):
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "found.json").write_text(text)
    assert sentence in local("--detect", tmp_path / "found.json").log


@pytest.mark.parametrize("find", ["--detect", "--points", "--everything"])
def test_two_labels_with_one_name_are_refused(local, tmp_path, find):
    path = tmp_path / "found.json"
    path.write_text(json.dumps([result_of(0)]))
    words = {"--detect": [path], "--points": ["car 8,31", "--frame", 0]}
    said = local(
        *(find, *words.get(find, ["--label", "car"])),
        labels=[{"id": n, "name": "car"} for n in (7, 8)],
    ).log
    assert "2 labels of" in said
    assert "are called 'car'. Rename all but one." in said


# --- matching ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "iou"),
    [
        (("rectangle", [0, 0, 10, 10]), ("rectangle", [5, 0, 15, 10]), 1 / 3),
        (("mask", [0, 100, 0, 0, 9, 9]), ("polygon", [5, 0, 15, 0, 15, 10, 5, 10]), 1 / 3),
        (("mask", [0, 50, 50, 0, 0, 9, 9]), ("mask", [50, 50, 0, 0, 9, 9]), 0),  # same box
        (("mask", [0, 50, 50, 0, 0, 9, 9]), ("rectangle", [0, 0, 10, 10]), 1),  # by boxes
        (("polygon", [0, 0, 9, 0, 9, 9]), ("polygon", [30, 30, 39, 30, 39, 39]), 0),
    ],
)
def test_overlap_is_of_pixels_or_of_boxes(one, other, iou):
    assert Outline(*one).iou(Outline(*other)) == pytest.approx(iou)
    assert Outline(*other).iou(Outline(*one)) == pytest.approx(iou)


def test_the_surest_of_what_overlaps_is_new():
    boxes = [[0, 0, 10, 10], [1, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]
    detections = [
        Detection(7, "rectangle", box, score)
        for box, score in zip(boxes, (0.5, 0.6, 0.9, 0.3), strict=True)
    ]
    there = [Outline("rectangle", [20, 0, 31, 10])]
    new, left = new_ones(detections, there, 1)
    assert [d.points for d in new] == [boxes[1]]
    assert left == 1
