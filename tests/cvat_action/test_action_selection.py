# SPDX-License-Identifier: MIT
"""Which objects and results are taken, and what is refused before anything is done."""

import pytest
from conftest import COLOUR, CONVERT, MOVING, objects_of
from look import by_frame, correct, course, frames_of, frames_of_group, places
from standin_cvat import StandinFunction
from wire import MASK, POLYGON, RECTANGLE, automatic, keyframe, mask_at, shape, shifted, track

from cvat_action.server import OURS

ELLIPSE = [9.0, 9.0, 12.0, 5.0]


def test_every_object_that_cannot_be_tracked_is_left_alone_with_a_reason(job, track_to):
    job.shapes = [
        shape("polygon", POLYGON, id=1),
        shape("points", [1.0, 1.0], id=2),
        shape("ellipse", ELLIPSE, id=3),
        shape("rectangle", RECTANGLE, rotation=30.0, id=4),
        shape("polyline", [1.0, 1.0, 2.0, 2.0], id=5),
        shape("cuboid", [float(i) for i in range(16)], id=6),
        shape("skeleton", [], elements=[shape("points", [1.0, 1.0])], id=7),
        shape("polygon", POLYGON, frame=9, id=8),
        shape("mask", [0, 9, 4, 20, 7, 21], id=9),
    ]
    job.tracks = [
        track(keyframe(8, POLYGON), keyframe(9, POLYGON, outside=True), id=11),
        track(keyframe(11, POLYGON), id=12),
        track({**keyframe(10, []), "type": "mask", "points": MASK}, id=13),
        track(keyframe(8, RECTANGLE), keyframe(12, RECTANGLE, rotation=5.0), id=14),
    ]
    before = list(job.tracks)
    result = track_to(12, "--json")
    reasons = {x["object"]: x["reason"] for x in result.json["left_alone"]}
    said = {
        "2": "points", "3": "ellipse", "4": "rotated", "5": "", "6": "", "7": "skeleton",
        "9": "runs do not fill its box", "track:11": "outside", "track:13": "mask",
        "track:14": "rotated",
    }  # fmt: skip
    assert reasons.keys() == said.keys()
    assert all(said[ref] in reason for ref, reason in reasons.items())
    assert all(f"Object {ref} is left alone" in result.log for ref in reasons)
    assert objects_of(result) == ["1"]
    assert job.tracks == before


def test_an_object_that_is_named_and_left_alone_counts_by_any_of_its_names(job, track_to, one_mask):
    job.shapes = [*job.shapes, shape("ellipse", ELLIPSE, id=901)]
    track_to(13, "--object", "900", "--object", "shape:901", code=3)


def test_an_object_that_a_person_hid_from_the_first_frame_on_is_told(job, track_to, one_mask):
    hidden = keyframe(11, POLYGON, outside=True)
    job.tracks = [track(keyframe(10, POLYGON), hidden, id=5)]
    assert "hidden (outside) from frame 11 on" in track_to(14).out
    told = {o["object"]: o for o in track_to(29, "--replace", "--json").json["objects"]}
    assert (told["track:5"]["hidden_from"], told["900"]["hidden_from"]) == (11, None)


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        (("--object", "900", "--object", "track:5"), ["900", "track:5"]),
        (("--label", "person"), ["901", "track:6"]),
        (("--type", "polygon", "--type", "mask"), ["900", "902", "track:5"]),
        (("--type", "rectangle"), ["901", "track:6"]),
        (("--exclude", "901", "--exclude", "shape:902"), ["900", "track:5", "track:6"]),
        ((), ["900", "901", "902", "track:5", "track:6"]),  # sorted; CVAT's order changes
    ],
)
def test_options_choose_the_objects(job, track_to, options, chosen):
    job.shapes = [
        shape("polygon", shifted(POLYGON, 40), id=902),
        shape("rectangle", RECTANGLE, id=901, label_id=8),
        shape("mask", MASK, id=900),
    ]
    lower = track(keyframe(10, [24.0, 40.0, 40.0, 46.0]), id=6, label_id=8)
    job.tracks = [lower, track(keyframe(10, POLYGON), id=5)]
    assert objects_of(track_to(12, *options, "--json")) == chosen
    on_12 = {s["type"] for s in job.shapes if s["frame"] == 12}
    assert on_12 == {s["type"] for s in job.shapes if str(s["id"]) in chosen}


# --- drawn on later frames -----------------------------------------------------------------------


def test_all_seeds_are_tracked_each_from_its_frame_on(job, track_to, one_mask):
    job.shapes = [
        shape("mask", MASK, id=900, group=1),
        shape("mask", mask_at(30, 30), id=901, frame=12, group=2),
        shape("mask", [0, 8, 40, 40, 43, 41], id=902, frame=12, group=3),
        shape("mask", mask_at(30, 30), id=903, frame=13, group=4, source="auto"),
    ]
    job.tracks = [track(keyframe(13, POLYGON), id=5)]
    done = track_to(14, "--all-seeds", "--exclude", "shape:902", "--json")
    assert objects_of(done) == ["900", "901", "track:5"]
    assert [frames_of_group(job, group) for group in (1, 2, 3, 4)] == [
        [10, 11, 12, 13, 14], [12, 13, 14], [12], [13],
    ]  # fmt: skip
    assert frames_of(job.tracks[0]["shapes"]) == [13, 14, 15]


def test_an_object_of_another_label_can_be_excluded_from_all_seeds(job, track_to, one_mask):
    job.shapes.append(shape("mask", mask_at(30, 30), id=901, frame=12, label_id=8))
    done = track_to(14, "--all-seeds", "--label", "car", "--exclude", 901, "--json")
    assert objects_of(done) == ["900"]


def test_a_corrected_result_is_no_seed_of_its_own(job, track_to, one_mask):
    track_to(14)
    correct(job, 12, [0, 8, 30, 20, 33, 21])
    assert objects_of(track_to(14, "--all-seeds", "--replace", "--json")) == ["900"]
    assert places(job.shapes) == [(10, 4), (11, 5), (12, 30), (13, 31), (14, 32)]


def test_a_polygon_of_a_later_frame_becomes_a_track_from_there_on(job, track_to, one_mask):
    later = shape("polygon", POLYGON, id=901, frame=12, attributes=[MOVING])
    job.shapes = [*job.shapes, later]
    track_to(14, "--all-seeds", CONVERT)
    (made,) = job.tracks
    assert course(made) == "12:0 13:1 14:2 (15:2)"
    assert [k["attributes"] for k in made["shapes"]] == [[MOVING], [], [], []]
    assert 901 not in [s["id"] for s in job.shapes]


def test_keyframes_start_a_track_again_from_what_was_drawn(job, track_to, function):
    drawn = shifted(POLYGON, 21)
    job.tracks = [
        track(
            keyframe(10, POLYGON),
            keyframe(12, drawn, attributes=[MOVING]),
            keyframe(14, drawn, outside=True),
            keyframe(16, POLYGON),
            id=5,
        )
    ]
    track_to(17, "--keyframes")
    assert course(job.tracks[0]) == "10:0 11:1 12:21 13:22 (14:21) 16:0 17:1 (18:1)"
    assert [(kind, f) for kind, f, _ in function.calls] == [
        ("start", 10), ("step", 11), ("correct", 12), ("step", 13), ("start", 16), ("step", 17),
    ]  # fmt: skip


def test_keyframes_of_shapes_go_by_label_type_and_group(job, track_to):
    drawn = [0, 2, 30, 20, 31, 20]
    mine = [shape("mask", MASK, id=900, group=1)]
    mine += [shape("mask", drawn, id=901, frame=12, group=1)]
    job.shapes = [*mine, shape("mask", drawn, id=902, frame=12, group=2)]
    track_to(13, "--keyframes")
    found = {s["frame"]: s["points"][-4:] for s in job.shapes if s["group"] == 1}
    assert found == {10: MASK[-4:], 11: [5, 20, 8, 21], 12: drawn[-4:], 13: [31, 20, 32, 20]}
    assert len(job.shapes) == 5

    job.shapes = [*mine, shape("mask", MASK, id=903, frame=12, group=1)]
    assert "more than one object could be object 900" in track_to(13, "--keyframes").log


@pytest.mark.parametrize("stage", [1, 200])
def test_converting_with_keyframes_takes_the_drawn_shapes_into_the_track(
    job, track_to, monkeypatch, stage
):
    monkeypatch.setattr("cvat_action.run.STAGE_FRAMES", stage)
    fixed = shifted(POLYGON, 20)
    said = {"occluded": True, "z_order": 4, "attributes": [COLOUR, MOVING]}
    job.shapes = [
        shape("polygon", POLYGON, id=900, group=1),
        shape("polygon", fixed, id=901, frame=12, group=1, **said),
    ]
    track_to(13, "--keyframes", CONVERT)
    assert job.shapes == []
    assert course(job.tracks[0]) == "10:0 11:1 12:20 13:21 (14:21)"
    drawn = by_frame(job.tracks[0])[12]
    assert drawn["points"] == fixed
    assert {name: drawn[name] for name in said} == {**said, "attributes": [MOVING]}


# --- results that are not sure -------------------------------------------------------------------


@pytest.fixture
def doubtful(job, function, one_mask):
    """A mask and a track of which the frames 12 and 14 are doubtful."""
    job.tracks = [track(keyframe(10, POLYGON), automatic(20, POLYGON), id=5)]
    for y in (20, 2):
        function.scores |= {(y, 12): 0.49, (y, 14): 0.2, (y, 11): 0.5}


def test_results_that_are_less_sure_are_not_written(job, track_to, doubtful):
    assert "confidence below 0.5" in track_to(14, "--min-score", 0.5, "--dry-run").out
    done = track_to(14, "--min-score", 0.5)
    row = done.out.splitlines()[1].split()
    assert row[:8] == ["900", "car", "mask", "4", "0", "2", "0.50", "on"]
    # the tracker went on from what was not written
    assert places(job.shapes) == [(10, 4), (11, 5), (13, 7)]
    assert course(job.tracks[0]) == "10:0 11:1 (12:1) 13:3 (14:3) 15:0 20:0"

    track_to(14, "--object", 900, "--replace")
    again = track_to(14, "--object", 900, "--replace", "--min-score", 0.5, "--json").json
    assert frames_of(job.shapes) == [10, 11, 13]
    assert again["objects"][0]["unsure_frames"] == [12, 14]


def test_a_resumed_run_leaves_out_the_same_results(job, cut_off, resume, doubtful):
    done = resume(cut_off(13, 14, "--min-score", 0.5), "--json").json
    assert [o["unsure_frames"] for o in done["objects"]] == [[12, 14], [12, 14]]
    assert frames_of(job.shapes) == [10, 11, 13]


def test_a_function_without_confidences_is_told(job, track_to, one_mask, function):
    function.scores = {(20, frame): None for frame in range(10, 15)}
    assert "gives no confidence for object 900" in track_to(14, "--min-score", 0.5).log
    assert frames_of(job.shapes) == [10, 11, 12, 13, 14]


# --- what is refused -----------------------------------------------------------------------------

TO_12 = ("track", "--job", 42, "--frame", 10, "--target-frame", 12)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--object", "5"), "There is no object 5 on frame 10"),
        (("--object", "track:900"), "Objects there: 900"),
        (("--object", "car"), "write 17 or track:5"),
        (("--exclude", "999"), "There is no object 999 on frame 10"),
        (("--all-seeds", "--exclude", "999"), "no object 999 drawn on frames 10 to 12"),
        (("--all-seeds", "--object", "car"), "write 17 or track:5"),
        (("--type", "polygon"), "frame 10 of job 42. Of 1 object there, none passes --type."),
        (("--object", "900", "--label", "person"), "none passes --object and --label."),
        (("--all-seeds", "--exclude", "900"), "Of 1 object there, none passes --exclude."),
        (("--label", "cat"), "There is no label 'cat' in job 42. Its labels: car, person."),
        (("--target-frame", "30"), "job 42 holds frames 5 to 29"),
        (("--target-frame", "8"), "add --backward"),
        (("--backward",), "--backward needs a target frame before frame 10"),
        (("--frame", "4"), "job 42 holds frames 5 to 29"),
        (("--frame", "11"), "frame 11 of job 42. Name another frame"),
        (("--job", "43"), "There is no job 43"),
        (("--function", "siammask"), "no function 'siammask'"),
        (("--preview", "/nowhere/at/all.mp4"), "lie in a folder that exists"),
        (("--contact-sheet", "sheet.jpg"), "must end in .png"),
        (("--preview", "n" * 252 + ".mp4"), "cannot be written: File name too long"),
    ],
)
def test_a_wrong_argument_is_one_clear_line_and_nothing_is_written(
    cvat, act, one_mask, arguments, said
):
    result = act(*TO_12, *arguments, "--json", code=1)
    assert said in result.log
    assert said in result.json["error"], "for scripts, too"
    assert result.json["resume"] is None
    assert result.log.count("CRITICAL") == 1
    assert cvat.calls("PATCH", ".*") == cvat.calls("POST", ".*") == []


LOCAL = ("local", "--video", "clip.mp4")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*TO_12, "--replace", "--keep-earlier"), "contradict each other"),
        (("track", "--job", 42), "track needs --job (or --task) and --frame"),
        (("track", "--job", 42, "--frame", "ten"), "is not a number from 0 on"),
        ((*TO_12, "--wait", "-1"), "is not a number of seconds"),
        (LOCAL, "local needs --video, --annotations and --out"),
        ((*LOCAL, "--annotations", "a.json", "--out", "b.json", "--step", "--both-ways"), "--step"),
        ((*TO_12, "--type", "points"), "invalid choice: 'points'"),
        ((*TO_12, "--min-score", "50"), "'50' is not a number from 0 to 1"),
        ((*TO_12, "--search-region", "1"), "'1' is neither 0 nor a number from 1.5 to 10"),
        ((*TO_12, "--all-seeds", "--keyframes"), "give one of them"),
        ((*TO_12, "--task", "7"), "--job and --task contradict each other"),
        ((*TO_12, "--every", "5"), "--every is for --detect or --everything"),
        ((*TO_12, "--map", "a=b"), "--map is for --detect."),
        ((*TO_12, "--everything", "--threshold", 0.9), "pred_iou_thresh=0.9"),
    ],
)
def test_a_wrong_use_is_a_usage_error(cvat, act, arguments, said):
    assert said in act(*arguments, code=2).log.splitlines()[-1]
    assert cvat.requests == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("dimension", "3d", "3D job"),
        ("media_type", "audio", "audio job"),
        ("type", "ground_truth", "ground truth job"),
        ("deleted_frames", [10], "Frame 10 is deleted"),
    ],
)
def test_jobs_that_cannot_be_tracked_in_are_refused(
    cvat, job, track_to, one_mask, name, value, said
):
    setattr(job, name, value)
    assert said in track_to(12, code=1).log
    assert cvat.calls("POST", ".*") == []


def test_tracks_are_refused_beforehand_where_the_task_takes_none(job, track_to, function):
    job.validation_mode = "gt_pool"
    job.shapes = [shape("polygon", POLYGON, id=900)]
    assert "pool of ground truth frames" in track_to(12, CONVERT, code=1).log
    assert function.calls == []
    track_to(12)
    assert frames_of(job.shapes) == [10, 11, 12]


def test_dry_run_shows_the_plan_and_does_nothing(cvat, job, track_to, one_mask):
    job.deleted_frames = [11]
    ellipse = shape("ellipse", ELLIPSE, id=902)
    job.shapes = [*job.shapes, shape("polygon", POLYGON, id=901), ellipse]
    job.tracks = [track(keyframe(10, RECTANGLE), id=5)]
    shown = track_to(12, "--dry-run", CONVERT).out
    assert "1 frame (deleted ones skipped: [11])" in shown
    assert "a mask shape per frame" in shown
    assert "a new track; the shape is deleted" in shown
    assert "keyframes of this track" in shown
    assert "ellipse cannot be tracked" in shown
    plan = track_to(12, "--dry-run", "--json")
    assert plan.json["frames"] == [12]
    assert objects_of(plan) == ["900", "901", "track:5"]
    assert cvat.calls("PATCH", ".*") == cvat.calls("POST", ".*") == []


def test_functions_lists_trackers_and_says_why_not(cvat, act, track_to, one_mask):
    cvat.functions["boxes"] = StandinFunction(None, "boxes", shape_types=("rectangle",), name="B")
    cvat.functions["lines"] = StandinFunction(None, "lines", shape_types=("polyline",), name="L")
    cvat.functions["yolo"] = StandinFunction(None, "yolo", kind="detector", shape_types=())
    rows = {line.split()[0]: line for line in act("functions").out.splitlines() if line}
    assert rows[OURS].endswith("yes")
    assert rows["boxes"].split()[-2:] == ["rectangle", "yes"]
    assert "no: tracks neither masks, polygons nor rectangles" in rows["lines"]
    assert rows["yolo"].endswith("does not say")
    assert [f["usable"] for f in act("functions", "--json").json] == [True, True, False, False]

    refused = track_to(12, "--function", "boxes", code=1)
    assert "the function does not track objects of type mask" in refused.log
    del cvat.functions[OURS]
    cvat.functions["more"] = StandinFunction(None, "more")
    assert "Choose one with --function" in track_to(12, code=1).log
