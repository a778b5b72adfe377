# SPDX-License-Identifier: MIT
"""`--detect`: objects that a detector finds begin where they are found, and none is doubled."""

import json

import pytest
from conftest import LABELS, MASK, POLYGON, RECTANGLE, keyframe, shape, shifted, track
from scripted_function import frame_picture
from standin_cvat import Fault, StandinFunction
from standin_detector import ScriptedDetector

from cvat_action.detections import Detection, Outline, new_ones
from cvat_action.detectors import OUR_INTERACTOR
from cvat_action.identity import mark_of

THEIRS = ({"name": "car", "type": "any", "attributes": []}, {"name": "bus", "type": "any"})
TRACK = ("track", "--job", 42, "--frame", 10, "--target-frame", 20, "--wait", 0)
DETECT = (*TRACK, "--detect", "det", "--every", 5)


def found(points, label="car", **more):
    """An entry of a detector's answer."""
    kind = "rectangle" if len(points) == 4 else "polygon"
    return {"confidence": "0.9", "label": label, "type": kind, "points": points, **more}


@pytest.fixture
def detector(cvat, job):
    """It finds a car on frame 10 and again on 15 where it is then, with another one below it."""
    detector = ScriptedDetector()
    detector.on_frame = {
        10: [found(RECTANGLE)],
        15: [found(shifted(RECTANGLE, 5)), found(POLYGON)],
    }
    cvat.functions["det"] = StandinFunction(detector.url, "det", "detector", labels=THEIRS)
    yield detector
    detector.close()


def frames_by_place(shapes):
    """(type, left edge less the frame, top) to the frames of these shapes."""
    by_place = {}
    for s in shapes:
        left, top = s["points"][-4:-2] if s["type"] == "mask" else s["points"][:2]
        by_place.setdefault((s["type"], left - s["frame"], top), []).append(s["frame"])
    return {place: sorted(frames) for place, frames in by_place.items()}


BOX, RING = ("rectangle", -6.0, 30.0), ("polygon", -11.0, 2.0)
"""the two of the detector above; everything moves by a pixel per frame"""


def test_what_is_found_is_tracked_from_there_on_and_what_is_tracked_is_not_doubled(
    act, job, detector
):
    job.shapes = [shape("mask", MASK, id=1)]
    detector.on_frame[10].append(found(list(map(float, [4, 20, 8, 22]))))  # the mask's own box
    result = act(*DETECT, "--json")
    assert result.code == 0, result.log
    assert frames_by_place(job.shapes) == {
        ("mask", -6.0, 20.0): list(range(10, 21)),
        BOX: list(range(10, 21)),
        RING: list(range(15, 21)),
    }
    assert detector.asked == [10, 15, 20]
    new = [s for s in job.shapes if s["id"] != 1]
    assert all((s["source"], s["label_id"], s["group"]) == ("auto", 7, 0) for s in new)
    assert len({mark_of(s["score"], s["frame"]).number for s in new}) == 3  # each object its own
    assert [o["object"] for o in result.json["objects"]] == ["1", "new:1", "new:2"]


def test_a_second_run_finds_nothing_new_and_undo_takes_all_back(act, job, detector, tmp_path):
    assert act(*DETECT).code == 0
    once = sorted(s["id"] for s in job.shapes)
    assert act(*DETECT, "--replace").code == 0
    assert frames_by_place(job.shapes) == {BOX: list(range(10, 21)), RING: list(range(15, 21))}
    kept = [s for s in job.shapes if s["id"] in once]
    assert RING in frames_by_place(kept)  # it was there, so it was not found anew
    for receipt in sorted((tmp_path / "state").rglob("receipts/*.jsonl"), reverse=True):
        assert act("undo", receipt).code == 0
    assert job.shapes == []


def test_polygons_become_tracks_that_begin_where_they_are_found(act, job, detector, tmp_path):
    sheet = ("--contact-sheet", tmp_path / "sheet.png")
    result = act(*DETECT, "--convert-polygon-shapes-to-tracks", *sheet)
    assert result.code == 0, result.log
    (made,) = job.tracks
    assert [k["frame"] for k in made["shapes"]] == list(range(15, 22))
    assert [k["outside"] for k in made["shapes"]] == [False] * 6 + [True]
    assert frames_by_place(job.shapes) == {BOX: list(range(10, 21))}


@pytest.mark.parametrize("convert", [True, False])
def test_both_ways_tracks_a_newcomer_back_to_where_it_came_into_sight(
    act, job, function, detector, convert
):
    function.lost.add((2, 12))
    option = ["--convert-polygon-shapes-to-tracks"] if convert else []
    assert act(*DETECT, "--both-ways", *option).code == 0
    ring = [s for s in job.shapes if s["type"] == "polygon"]
    if convert:
        ring = [k for k in job.tracks[0]["shapes"] if not k["outside"]]
    # The scripted function moves to the right in every direction.
    lefts = {s["frame"]: round(s["points"][0]) for s in ring}
    assert lefts == {13: 6, 14: 5, 15: 4, 16: 5, 17: 6, 18: 7, 19: 8, 20: 9}


def test_a_newcomer_ends_backwards_where_a_tracked_object_is(act, job, detector):
    drawn = [3.0, 3.0, 9.0, 3.0, 9.0, 7.0, 3.0, 7.0]  # on frame 13 the newcomer meets it
    job.shapes = [shape("polygon", drawn, id=1)]
    assert act(*DETECT, "--both-ways").code == 0
    ring = [s["frame"] for s in job.shapes if s["type"] == "polygon" and s["points"][1] == 2]
    assert sorted(ring) == list(range(14, 21))


def test_a_killed_run_goes_on_with_the_same_newcomers(act, job, function, detector):
    function.refuse = lambda frame, count: 404 if frame == 18 else None
    broken = act(*DETECT, "--json")
    assert broken.code == 4, broken.log
    detector.on_frame = {20: [found([40.0, 5.0, 50.0, 15.0])]}
    function.refuse = lambda frame, count: None
    result = act(*broken.json["resume"].split()[-3:], "--json")
    assert result.code == 0, result.log
    assert detector.asked == [10, 15, 20]
    assert frames_by_place(job.shapes) == {
        BOX: list(range(10, 21)),
        RING: list(range(15, 21)),
        ("rectangle", 20.0, 5.0): [20],
    }
    assert [o["object"] for o in result.json["objects"]] == ["new:1", "new:2", "new:3"]


def test_a_run_that_ends_where_the_detector_is_away_asks_it_again(act, cvat, job, detector):
    cvat.faults.append(Fault("POST", "/api/lambda/functions/det", 503, "refused", skip=1))
    broken = act(*DETECT, "--json")
    assert broken.code == 4
    assert "Nothing was found on frame 15, because det could not be asked." in broken.log
    assert frames_by_place(job.shapes) == {BOX: list(range(10, 15))}
    assert act(*broken.json["resume"].split()[-3:]).code == 0
    assert frames_by_place(job.shapes) == {BOX: list(range(10, 21)), RING: list(range(15, 21))}


def test_what_a_person_drew_meanwhile_is_not_doubled(act, cvat, job, function, detector):
    """On frames 12 and 15 the person drew a mask of another label where the found box is."""
    square = [0, 64, 6, 30, 13, 37]
    job.shapes = [
        shape("mask", square, id=1, frame=12, label_id=8),
        shape("mask", [0, 64, 9, 30, 16, 37], id=2, frame=15, label_id=8),
    ]
    detector.on_frame[15] = [found([9.0, 30.0, 17.0, 38.0])]
    assert act(*DETECT).code == 3  # it was left out on two frames
    assert frames_by_place(s for s in job.shapes if s["type"] == "rectangle") == {
        BOX: [10, 11, 13, 14, *range(16, 21)]
    }


def test_most_new_objects_are_counted_over_the_whole_run(act, job, detector):
    result = act(*DETECT, "--max-objects", 1)
    assert "Frame 15: 1 more of what det found are left out" in result.log
    assert frames_by_place(job.shapes) == {BOX: list(range(10, 21))}


def test_dry_run_shows_what_would_start(act, job, detector):
    result = act(*DETECT, "--dry-run")
    assert result.code == 0, result.log
    assert "new:1   car    rectangle  a rectangle shape per frame" in result.out
    assert "looked at again for new objects: frames 15, 20" in result.out
    assert job.shapes == []


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ([], ["car"]),
        (["--map", "bus=person"], ["person"]),
        (["--map", "bus=person", "--map", "car=car", "--label", "person"], ["person"]),
    ],
)
def test_labels_are_mapped_and_chosen(act, job, detector, options, labels):
    detector.on_frame[10] = [found(RECTANGLE), found(POLYGON, "bus"), found([9, 9, 30, 15], "van")]
    result = act(*TRACK, "--detect", "det", "--threshold", 0.4, *options, "--json")
    assert result.code == 0, result.log
    assert [o["label"] for o in result.json["objects"]] == labels
    assert detector.bodies == [{"threshold": 0.4}]


def test_words_are_for_an_interactor_and_its_confidence_counts(act, cvat, job, detector):
    cvat.functions["det"].kind = "interactor"
    detector.on_frame[10] = {
        "shapes": [
            {"type": "mask", "points": MASK, "attributes": [{"spec_id": 0, "value": "0.5"}]},
            {"type": "mask", "points": [0, 8, 5, 20, 8, 21],
             "attributes": [{"spec_id": 0, "value": "0.8"}]},
        ]
    }  # fmt: skip
    asked = (*TRACK, "--detect", "det", "--text", "red cars", "--json")
    assert "Say with one --label which label" in act(*asked).log
    result = act(*asked, "--label", "person")
    assert result.code == 0, result.log
    assert detector.bodies == [{"pos_points": [], "neg_points": [], "text_prompts": ["red cars"]}]
    # The two overlap by more than half: the surer one is taken.
    assert frames_by_place(job.shapes) == {("mask", -5.0, 20.0): list(range(10, 21))}


def test_everything_is_asked_of_the_interactor_in_words(act, cvat, job, detector):
    words = "points_per_side=8 pred_iou_thresh=0.5"
    asked = (*TRACK, "--everything", words, "--every", 10, "--label", "person", "--json")
    assert "deploy it with --interactor" in act(*asked).log
    cvat.functions[OUR_INTERACTOR] = StandinFunction(detector.url, OUR_INTERACTOR, "interactor")
    nothing = {"shapes": [], "message": "The nearest has a predicted IoU of 0.3." + "!" * 9999}
    detector.on_frame = {10: {"shapes": [{"type": "mask", "points": MASK}]}, 20: nothing}
    result = act(*asked)
    assert result.code == 0, result.log
    assert f"Frame 20: {OUR_INTERACTOR} says: The nearest has a predicted IoU of 0.3." in result.log
    assert len(result.log) < 2000
    assert [each["text_prompts"] for each in detector.bodies] == [[f"everything {words}"]] * 2
    assert frames_by_place(job.shapes) == {("mask", -6.0, 20.0): list(range(10, 21))}
    cvat.faults.append(Fault("POST", f"/api/lambda/functions/{OUR_INTERACTOR}", 413, "too long"))
    assert "ask for fewer clicks: --everything points_per_side=16." in act(*asked).log
    assert "points_per_side=1 to 64" in act(*TRACK, "--everything", "points_per_side=65").log


FAR = "points far outside the 64x48 image"


@pytest.mark.parametrize(
    ("answer", "code", "sentence"),
    [
        ([], 1, "nothing new was found there"),
        ("what", 1, "its answer is not as CVAT takes a detector's"),
        ([{"label": "car"}], 1, "its answer is not as CVAT takes a detector's"),
        ([found([float("nan"), 1.0, 9.0, 9.0])], 1, "its answer is not as CVAT takes"),
        ([found([1e9, 0.0, 1e9, 9.0]), found(RECTANGLE)], 0, f"left out: {FAR}"),
        ([found([70.0, 5.0, 80.0, 9.0]), found(RECTANGLE)], 0, "smaller than a pixel inside"),
        ([found([4.0, 30.0], type="ellipse"), found(RECTANGLE)], 0, "left out: type ellipse."),
        ([found(RECTANGLE, rotation=30.0), found(POLYGON)], 0, "left out: a rotated box."),
        ([found([1.0, 2.0, 3.0]), found(RECTANGLE)], 0, "a polygon of 3 numbers"),
        ([found([1.0 * x, 1.0, x + 1.0, 2.0]) for x in range(60)] * 99, 0, "--max-objects is"),
        (404, 1, "has no function 'det'. Its detectors: none."),
        (503, 1, "Nothing listens on the function's port"),
        (400, 1, "Nothing was found on frame 10, because det could not be asked."),
    ],
)
def test_hostile_answers_give_one_sentence(act, cvat, job, detector, answer, code, sentence):
    detector.on_frame[10] = answer
    if answer == 404:
        del cvat.functions["det"]
    elif isinstance(answer, int):
        body = "Connection refused" if answer == 503 else "what is wrong"
        cvat.faults.append(Fault("POST", "/api/lambda/functions/det", answer, body))
    result = act(*TRACK, "--detect", "det", "--max-objects", 20)
    assert result.code == code, result.log
    assert sentence in result.log
    assert "Traceback" not in result.log
    assert bool(job.shapes) == (code == 0)
    assert len({mark_of(s["score"], s["frame"]).number for s in job.shapes}) <= 20


def test_an_answer_that_no_cvat_gives_is_refused(act, cvat, job, detector):
    cvat.faults.append(Fault("POST", "/api/lambda/functions/det", 200, '{"shapes": 5}'))
    result = act(*DETECT)
    assert "Function det cannot be used: its answer has no list of shapes" in result.log


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--detect", "pth-facebookresearch-sam2-tracker"], "is not a detector, but a tracker"),
        (["--detect", "det", "--text", "cat"], "takes no text: it is a detector"),
        (["--detect", "det", "--map", "tram=car"], "the detector has no label 'tram'"),
        (["--detect", "det", "--map", "car"], "is not MODEL=LABEL"),
        (["--every", 5], "--every is for --detect"),
    ],
)
def test_wrong_wishes(act, job, detector, options, sentence):
    result = act(*TRACK, *options)
    assert result.code in (1, 2)
    assert sentence in result.log


def test_functions_names_detectors_and_what_they_find(act, detector):
    assert "det  Segment Anything 2: Tracker  car, bus" in act("functions").out


def test_labels_that_are_not_the_jobs(act, cvat, job, detector):
    cvat.functions["det"].labels = ({"name": "bus"},)
    assert "Say which become which with --map MODEL=LABEL" in act(*DETECT).log


# --- clicks --------------------------------------------------------------------------------------

CLICKED = [0, 64, 6, 30, 13, 37]
"""the mask that the tracker finds for clicks whose topmost is at y = 31"""
POINTS = (*TRACK, "--points", "car 8,31 9.5,33 -20,40")


@pytest.fixture
def clickable(cvat, job, function):
    cvat.functions["pth-facebookresearch-sam2-tracker"].shape_types = (
        "mask", "polygon", "rectangle", "points",
    )  # fmt: skip
    function.answers[31, 10] = {"type": "mask", "points": CLICKED}


SQUARE = ("mask", -4.0, 30.0)


def test_what_is_clicked_on_is_tracked_written_once_and_taken_back(
    act, job, function, clickable, tmp_path
):
    job.shapes = [shape("mask", MASK, id=1)]
    shown = act(*POINTS, "--dry-run")
    assert "new:1   car    mask  a mask shape per frame" in shown.out, shown.log
    assert len(job.shapes) == 1
    result = act(*POINTS, "--json")
    assert result.code == 0, result.log
    assert function.bodies[0]["shapes"] == [
        {"type": "points", "points": [8, 31, 9.5, 33], "neg_points": [[20, 40]], "answer": "mask"}
    ]
    assert frames_by_place(job.shapes) == {
        ("mask", -6.0, 20.0): list(range(10, 21)), SQUARE: list(range(10, 21)),
    }  # fmt: skip
    again = act(*POINTS, "--replace")
    assert again.code == 1
    assert "object 1 (car) is already there on frame 10: object " in again.log
    (receipt,) = (tmp_path / "state").rglob("receipts/*.jsonl")
    assert act("undo", receipt).code == 0
    assert [s["id"] for s in job.shapes] == [1]


@pytest.mark.parametrize("how", ["killed", "lost", "late"])
def test_a_run_that_breaks_writes_what_was_clicked_on_once(
    act, cvat, job, function, clickable, how
):
    if how == "killed":
        function.refuse = lambda frame, count: 404 if frame == 18 else None
    else:
        cvat.faults.append(
            Fault("PATCH", r"/api/jobs/\d+/annotations/", 504, after=how == "late", times=1)
        )
    broken = act(*POINTS, "--json")
    if broken.code:
        function.refuse = lambda frame, count: None
        function.answers.clear()  # no click is asked for again
        assert act(*broken.json["resume"].split()[-3:]).code == 0
    assert frames_by_place(job.shapes) == {SQUARE: list(range(10, 21))}


def test_a_polygon_that_is_clicked_on_becomes_a_track(act, job, function, clickable):
    function.answers[31, 10] = {"type": "polygon", "points": POLYGON}
    convert = ("--points-as", "polygon", "--convert-polygon-shapes-to-tracks", "--tolerance", 0.01)
    result = act(*POINTS, *convert)
    assert result.code == 0, result.log
    assert function.bodies[0]["shapes"][0]["tolerance"] == 0.01
    assert [k["frame"] for k in job.tracks[0]["shapes"]] == list(range(10, 22))
    assert job.shapes == []


def test_what_a_detector_finds_of_what_is_clicked_on_is_not_doubled(act, job, detector, clickable):
    detector.on_frame = {10: [found([6.0, 30.0, 14.0, 38.0]), found(POLYGON)]}
    result = act(*POINTS, "--detect", "det", "--json")
    assert result.code == 0, result.log
    assert {place[0] for place in frames_by_place(job.shapes)} == {"mask", "polygon"}
    assert [o["object"] for o in result.json["objects"]] == ["new:1", "new:2"]


def test_what_a_person_draws_meanwhile_where_was_clicked_stays(act, cvat, job, clickable):
    """It came between the plan and the writing, on two frames."""
    drawn = [shape("rectangle", [n - 4.0, 30.0, n + 4.0, 38.0], id=n, frame=n) for n in (10, 12)]
    answer = cvat.answer

    def meanwhile(method, path, query, body):
        if method == "PATCH" and drawn:
            raise AssertionError("written before it was looked at again")
        if path.endswith("/annotations/") and function_called:
            job.shapes += [drawn.pop() for _ in range(len(drawn))]
        if path.startswith("/api/lambda/functions/"):
            function_called.append(path)
        return answer(method, path, query, body)

    function_called = []
    cvat.answer = meanwhile
    result = act(*POINTS)
    assert result.code == 3, result.log
    masks = frames_by_place(s for s in job.shapes if s["type"] == "mask")
    assert masks == {SQUARE: [11, *range(13, 21)]}


NO_OBJECT = {"code": "bad_shape", "message": "No such click."}


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        (["car 99,5"], "object 1 (car): The click (99, 5) does not lie on the image of 64 x 48"),
        (["car 8,31", "car nan,5"], "object 2 (car): The points must be finite numbers."),
        (["car inf,5"], "The points must be finite numbers."),
        (["car -8,31"], "all clicks have a minus"),
        (["car"], "'car': it ends with no click. Write 'LABEL x,y x,y -x,y'"),
        (["8,31"], "it begins with no label"),
        (["car 8,31,4"], "it ends with no click"),
        ([""], "it ends with no click"),
        (["tram, red 8,31"], "There is no label 'tram, red' in job 42. Its labels: car, person."),
        (["car" + " 8,31" * 5000], "5000 clicks on one object; the limit is 64."),
        (["car 8,31", "car 9,31"], "object 2 (car) is already there on frame 10: --points, obj"),
        (["car 8,31", "car 9,7"], "object 2 (car): No such click. Click on more of it"),
        (["car 8,9"], "object 1 (car): the tracker sees nothing there. Click on more of it"),
    ],
)
def test_hostile_clicks_name_what_is_wrong_and_write_nothing(
    act, job, function, clickable, points, sentence
):
    function.errors[7, 10] = [NO_OBJECT]
    function.answers[9, 10] = None
    result = act(*TRACK, *(word for text in points for word in ("--points", text)))
    assert result.code == 1
    assert sentence in result.log
    assert "Traceback" not in result.log
    assert job.shapes == []


def test_a_tracker_or_a_job_that_cannot_be_clicked_on(act, cvat, job, clickable):
    job.labels = [*LABELS, {**LABELS[0], "id": 9}]
    assert "2 labels of job 42 are called 'car'. Rename all but one." in act(*POINTS).log
    cvat.functions["pth-facebookresearch-sam2-tracker"].shape_types = ("mask",)
    assert "takes no clicks, which --points needs" in act(*POINTS).log
    assert "--points-as is for --points" in act(*TRACK, "--points-as", "mask").log


# --- files ---------------------------------------------------------------------------------------


@pytest.fixture
def clip(tmp_path):
    """Eleven pictures, and an annotation file with labels only."""
    folder = tmp_path / "clip"
    folder.mkdir()
    for n in range(11):
        (folder / f"frame_{n:06}.png").write_bytes(frame_picture(n))
    labels = [{"id": label["id"], "name": label["name"]} for label in LABELS]
    (tmp_path / "labels.json").write_text(
        json.dumps({"images": [], "annotations": [], "categories": labels})
    )
    return folder


def result_of(frame, box, **more):
    return {"image_id": frame + 1, "category_id": 7, "bbox": box, "score": 0.8, **more}


RESULTS = [
    result_of(0, [4, 30, 8, 8]),
    result_of(5, [4, 2, 6, 4], score=0.3),
    result_of(5, [20, 2, 16, 14]),
    result_of(99, [1, 1, 9, 9]),
]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not JSON that can be read"),
        ({}, "holds neither COCO results"),
        ([{"image_id": 1}], "entry 0 cannot be read (category_id)"),
        ([result_of(0, [1, 1, 5, 5], category_id=9)], "entry 0 cannot be read (9)"),
        ([result_of(0, [1, 1, 5, 5], score=float("nan"))], "its score is nan"),
        ([result_of(0, None)], "neither a box nor a segmentation"),
        ([result_of(0, ["x", 1, 5, 5])], "entry 0 cannot be read"),
        ([result_of(77, [1, 1, 5, 5])], "none of its images is a frame of clip"),
    ],
)
def test_wrong_files_of_results(act, clip, tmp_path, content, sentence):
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "found.json").write_text(text)
    result = act(
        "local", "--video", clip, "--annotations", tmp_path / "labels.json",
        "--detect", tmp_path / "found.json", "--out", tmp_path / "out.json",
    )  # fmt: skip
    assert result.code == 1
    assert sentence in result.log


@pytest.mark.parametrize("find", ["--detect", "--points", "--everything"])
def test_two_labels_of_one_name_are_told_apart_by_nobody(act, clip, tmp_path, find):
    same = [{"id": n, "name": "car"} for n in (7, 8)]
    (tmp_path / "labels.json").write_text(
        json.dumps({"images": [], "annotations": [], "categories": same})
    )
    (tmp_path / "found.json").write_text(json.dumps(RESULTS))
    words = {"--detect": [tmp_path / "found.json"], "--points": ["car 8,31", "--frame", 0]}
    result = act(
        "local", "--video", clip, "--annotations", tmp_path / "labels.json",
        "--out", tmp_path / "out.json", find, *words.get(find, ["--label", "car"]),
    )  # fmt: skip
    assert result.code == 1
    assert "2 labels of" in result.log
    assert "are called 'car'. Rename all but one." in result.log


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


@pytest.mark.parametrize("convert", [False, True])
@pytest.mark.parametrize("points", [RECTANGLE, POLYGON])
def test_nothing_that_is_found_is_written_over_a_persons_track(
    act, cvat, job, function, detector, points, convert
):
    """The detector finds the car on frame 10; a person's track has it from frame 12 on."""
    detector.on_frame = {10: [found(points)]}
    theirs = track(*[keyframe(f, shifted(points, f - 10)) for f in (12, 20)], id=5)
    job.tracks = [theirs]
    more = ["--convert-polygon-shapes-to-tracks"] if convert else []
    done = act(*TRACK, "--detect", "det", *more)
    assert done.code == 3
    assert "that this run did not write; it was kept" in done.log
    assert job.tracks[0] == theirs
    written = [s["frame"] for s in job.shapes]
    written += [k["frame"] for t in job.tracks[1:] for k in t["shapes"] if not k["outside"]]
    assert sorted(written) == [10, 11]


def test_no_track_of_what_is_found_goes_over_what_a_person_drew(act, cvat, job, function, detector):
    detector.on_frame = {10: [found(POLYGON)]}
    job.shapes = [
        shape("polygon", shifted(POLYGON, f - 10), frame=f, id=800 + f) for f in (12, 13, 14)
    ]
    assert act(*TRACK, "--detect", "det", "--convert-polygon-shapes-to-tracks").code == 3
    (made,) = job.tracks
    visible = {k["frame"] for k in made["shapes"] if not k["outside"]}
    assert visible == {10, 11, *range(15, 21)}
    assert {k["frame"] for k in made["shapes"] if k["outside"]} >= {12}
    assert sorted(s["frame"] for s in job.shapes) == [12, 13, 14]
