# SPDX-License-Identifier: MIT
"""Which objects are tracked, which are left alone, and what is refused before anything is done."""

import pytest
from conftest import (
    COLOUR,
    MASK,
    MOVING,
    POLYGON,
    RECTANGLE,
    keyframe,
    shape,
    shifted,
    track,
)
from standin_cvat import StandinFunction

from cvat_action.identity import Mark, mark_of, marked_score

TO_12 = ("track", "--job", 42, "--frame", 10, "--target-frame", 12)


def frames(shapes):
    return sorted(s["frame"] for s in shapes)


def test_every_object_that_cannot_be_tracked_is_left_alone_with_a_reason(cvat, job, act, function):
    cuboid = [float(i) for i in range(16)]
    job.shapes = [
        shape("polygon", POLYGON, id=1),
        shape("points", [1.0, 1.0], id=2),
        shape("ellipse", [9.0, 9.0, 12.0, 5.0], id=3),
        shape("rectangle", RECTANGLE, rotation=30.0, id=4),
        shape("polyline", [1.0, 1.0, 2.0, 2.0], id=5),
        shape("cuboid", cuboid, id=6),
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
    result = act(*TO_12, "--json")
    assert result.code == 0
    reasons = {x["object"]: x["reason"] for x in result.json["left_alone"]}
    assert set(reasons) == {"2", "3", "4", "5", "6", "7", "9", "track:11", "track:13", "track:14"}
    assert "points" in reasons["2"]
    assert "ellipse" in reasons["3"]
    assert "rotated" in reasons["4"]
    assert "rotated" in reasons["track:14"]
    assert "skeleton" in reasons["7"]
    assert "runs do not fill its box" in reasons["9"]
    assert "outside" in reasons["track:11"]
    assert "mask" in reasons["track:13"]
    assert all(f"Object {ref} is left alone" in result.log for ref in reasons)
    assert [o["object"] for o in result.json["objects"]] == ["1"]
    assert job.tracks == before


def test_object_and_label_choose(cvat, job, act, function):
    job.shapes = [
        shape("mask", MASK, id=900),
        shape("rectangle", RECTANGLE, id=901, label_id=8),
    ]
    job.tracks = [track(keyframe(10, POLYGON), id=5)]
    assert act(*TO_12, "--object", "900", "--object", "track:5").code == 0
    assert function.calls[0] == ("start", 10, [20, 2])
    assert act(*TO_12, "--label", "person").code == 0
    assert function.calls[3] == ("start", 10, [30])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--object", "5"), "There is no object 5 on frame 10"),
        (("--object", "track:900"), "Objects there: 900"),
        (("--object", "car"), "write 17 or track:5"),
        (("--label", "cat"), "Its labels: car, person"),
        (("--target-frame", "30"), "job 42 holds frames 5 to 29"),
        (("--target-frame", "8"), "add --backward"),
        (("--backward",), "--backward needs a target frame before frame 10"),
        (("--frame", "4"), "job 42 holds frames 5 to 29"),
        (("--frame", "11"), "There is nothing to track on frame 11"),
        (("--job", "43"), "There is no job 43"),
        (("--function", "siammask"), "no function 'siammask'"),
        (("--preview", "/nowhere/at/all.mp4"), "lie in a folder that exists"),
        (("--contact-sheet", "sheet.jpg"), "must end in .png"),
    ],
)
def test_a_wrong_argument_is_one_clear_line_and_nothing_is_written(cvat, job, act, arguments, said):
    job.shapes = [shape("mask", MASK, id=900)]
    result = act(*TO_12, *arguments)
    assert result.code == 1
    assert said in result.log
    assert result.log.count("CRITICAL") == 1
    assert "Traceback" not in result.log
    assert cvat.calls("PATCH", ".*") == cvat.calls("POST", ".*") == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*TO_12, "--replace", "--keep-earlier"), "contradict each other"),
        (("track", "--job", 42), "track needs --job (or --task) and --frame"),
        (("track", "--job", 42, "--frame", "ten"), "is not a number from 0 on"),
        ((*TO_12, "--wait", "-1"), "is not a number of seconds"),
        (("local", "--video", "clip.mp4"), "local needs --video, --annotations and --out"),
    ],
)
def test_a_wrong_use_is_a_usage_error(cvat, job, act, arguments, said):
    result = act(*arguments)
    assert result.code == 2
    assert said in result.log
    assert cvat.requests == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dimension": "3d"}, "3D job"),
        ({"media_type": "audio"}, "audio job"),
        ({"type": "ground_truth"}, "ground truth job"),
        ({"deleted_frames": [10]}, "Frame 10 is deleted"),
    ],
)
def test_jobs_that_cannot_be_tracked_in_are_refused(cvat, job, act, change, said):
    job.shapes = [shape("mask", MASK, id=900)]
    for name, value in change.items():
        setattr(job, name, value)
    result = act(*TO_12)
    assert result.code == 1
    assert said in result.log
    assert cvat.calls("POST", ".*") == []


def test_the_target_on_the_frame_itself_does_nothing(cvat, job, act):
    job.shapes = [shape("mask", MASK, id=900)]
    assert act("track", "--job", 42, "--frame", 10, "--target-frame", 10).code == 0
    assert cvat.calls("POST|PATCH", ".*") == []


def test_tracks_are_refused_beforehand_where_the_task_takes_none(cvat, job, act, function):
    job.validation_mode = "gt_pool"
    job.shapes = [shape("polygon", POLYGON, id=900)]
    result = act(*TO_12, "--convert-polygon-shapes-to-tracks")
    assert result.code == 1
    assert "pool of ground truth frames" in result.log
    assert function.calls == []
    assert act(*TO_12).code == 0
    assert frames(job.shapes) == [10, 11, 12]


def test_an_earlier_runs_shapes_stop_the_run_unless_replaced_or_kept(cvat, job, act, function):
    job.shapes = [
        shape("mask", MASK, id=900, group=5),
        shape("mask", [0, 1, 40, 20, 40, 20], id=901, frame=11, source="semi-auto"),
        shape("mask", MASK, id=902, frame=11, group=6, source="auto"),
    ]
    assert act(*TO_12).code == 0
    calls = len(function.calls)
    again = act(*TO_12)
    assert again.code == 1
    assert "2 shapes on frames 11 to 12 are an earlier run's, or look like it" in again.log
    assert len(function.calls) == calls
    first = {s["id"] for s in job.shapes}

    assert act(*TO_12, "--replace").code == 0
    assert {s["id"] for s in job.shapes} == first, "what would be written again as it is stays"
    as_another_model_had_it(job)
    assert act(*TO_12, "--replace").code == 0
    assert frames(job.shapes) == [10, 11, 11, 11, 12]
    assert {900, 901, 902} <= {s["id"] for s in job.shapes}
    assert len(first & {s["id"] for s in job.shapes}) == 3

    assert act(*TO_12, "--keep-earlier").code == 0
    assert frames(job.shapes) == [10, 11, 11, 11, 11, 12, 12]

    assert act(*TO_12, "--replace").code == 0, "both chains are the object's"
    assert frames(job.shapes) == [10, 11, 11, 11, 12]


def as_another_model_had_it(job):
    """Moves the results of earlier runs, which are marked, by a pixel."""
    for s in job.shapes:
        if s["source"] == "auto" and s.get("score", 1) < 1:
            s["points"] = [
                *s["points"][:-3],
                s["points"][-3] + 1,
                s["points"][-2],
                s["points"][-1] + 1,
            ]


def at(x, y=20, **more):
    return shape("mask", [0, 25, x, y, x + 4, y + 4], **more)


def test_replace_leaves_neighbours_of_the_same_kind_alone(cvat, job, act):
    job.shapes = [at(4, id=900), at(20, id=901), at(4, 30, id=902)]
    assert act(*TO_12).code == 0
    made = {s["id"] for s in job.shapes}
    as_another_model_had_it(job)
    assert act(*TO_12, "--replace", "--object", "900").code == 0
    assert len(made & {s["id"] for s in job.shapes}) == len(made) - 2
    assert len(job.shapes) == 9
    assert len({(s["frame"], *s["points"]) for s in job.shapes}) == 9


def test_replace_keeps_what_a_person_set_without_touching_the_shape(cvat, job, act):
    """CVAT's page leaves the source `auto` when only label, group or attributes change."""
    job.shapes = [at(4, id=900)]
    assert act(*TO_12).code == 0
    for attributes in ([COLOUR], [MOVING]):  # all alike: the new ones are as the seed is now
        job.shapes[0] = {**job.shapes[0], "attributes": attributes}
        assert act(*TO_12, "--replace").code == 0
        assert [s["attributes"] for s in job.shapes] == [attributes] * 3
    edited = next(s for s in job.shapes if s["frame"] == 12)
    edited |= {"label_id": 8, "group": 3, "attributes": []}
    as_another_model_had_it(job)
    assert act(*TO_12, "--replace").code == 0
    found = {s["frame"]: s for s in job.shapes}
    assert found[12]["id"] != edited["id"]
    said = [(s["label_id"], s["group"], s["attributes"]) for _, s in sorted(found.items())]
    assert said == [(7, 0, [MOVING]), (7, 0, [MOVING]), (8, 3, [])]


def test_what_a_person_edits_meanwhile_is_told_once(cvat, job, act, function):
    job.shapes = [at(4, id=900)]
    assert act(*TO_12).code == 0
    as_another_model_had_it(job)
    theirs = next(s for s in job.shapes if s["frame"] == 11)
    step = function.answer

    def meanwhile(request):
        theirs.update(source="semi-auto", points=shifted(theirs["points"], 2))
        return step(request)

    function.answer = meanwhile
    result = act(*TO_12, "--replace", "--json")
    assert result.code == 3
    assert [(x["frames"], x["reason"][:7]) for x in result.json["left_out"]] == [([11], "changed")]
    assert [s for s in job.shapes if s["frame"] == 11] == [theirs]


def test_the_summary_has_the_same_order_whatever_cvats(job, act):
    job.shapes = [at(30, id=902), at(4, id=900)]
    job.tracks = [track(keyframe(10, POLYGON), id=6), track(keyframe(10, RECTANGLE), id=5)]
    rows = [o["object"] for o in act(*TO_12, "--json").json["objects"]]
    assert rows == ["900", "902", "track:5", "track:6"]


@pytest.mark.parametrize("fresh", [True, False], ids=["", "looking again before each step"])
def test_of_two_runs_at_once_the_first_results_stay(cvat, job, act, monkeypatch, fresh):
    """The other run writes between our snapshot and our request, and may have drawn our number."""
    monkeypatch.setattr("cvat_action.sinks.CvatSink._is_fresh", lambda sink: fresh)
    job.shapes = [at(4, id=900)]
    patch = cvat._patch

    def both(number, query, body):
        if query["action"] == "create" and len(job.shapes) == 1:
            mine = mark_of(body["shapes"][0]["score"], 11)
            for run in (mine.run, (mine.run + 1) % 100):
                frame = 11 + (run != mine.run)
                score = marked_score(0.5, Mark(mine.number, run), frame)
                there = at(frame - 6, frame=frame, source="auto", score=score)
                patch(number, {"action": "create"}, {"shapes": [there]})
        return patch(number, query, body)

    cvat._patch = both
    assert act("track", "--job", 42, "--frame", 10, "--target-frame", 13).code == 0
    confidence = {s["frame"]: round(s["score"], 2) for s in job.shapes[1:]}
    assert confidence == {11: 0.5, 12: 0.5, 13: 0.9}
    assert len(job.shapes) == 4


def test_replace_after_a_correction_finds_what_is_left_over(cvat, job, act):
    job.shapes = [at(4, id=900), at(20, id=901)]
    assert act(*TO_12).code == 0
    job.shapes = [at(50, id=900), *job.shapes[1:]]
    assert act(*TO_12, "--replace", "--object", "900").code == 0
    assert sorted((s["frame"], s["points"][2]) for s in job.shapes) == [
        (10, 20), (10, 50), (11, 21), (11, 51), (12, 22), (12, 52),
    ]  # fmt: skip


def test_replace_refuses_to_guess_whose_shapes_they_are(cvat, job, act, function, monkeypatch):
    cvat.keeps_scores = False
    monkeypatch.setattr("cvat_action.commands.numbers_of_seeds", lambda server, job: {})
    job.shapes = [at(4, id=900), at(20, id=901)]
    assert act(*TO_12).code == 0
    calls = len(function.calls)
    # both have moved away from their earlier results, and only one is tracked again
    job.shapes = [at(50, id=900), at(50, 30, id=901), *job.shapes[2:]]
    result = act(*TO_12, "--replace", "--object", "900")
    assert result.code == 1
    assert "it cannot be told whose they are" in result.log
    assert len(function.calls) == calls
    assert act(*TO_12, "--keep-earlier").code == 0
    assert len(job.shapes) == 10


def test_keyframes_start_a_track_again_from_what_was_drawn(cvat, job, act, function):
    fixed = [p + 1 if i % 2 == 0 else p for i, p in enumerate(shifted(POLYGON, 20))]
    job.tracks = [
        track(
            keyframe(10, POLYGON),
            keyframe(12, fixed, attributes=[MOVING]),
            keyframe(14, fixed, outside=True),
            keyframe(16, POLYGON),
            id=5,
        )
    ]
    to_18 = ("track", "--job", 42, "--frame", 10, "--target-frame", 17, "--keyframes")
    assert act(*to_18).code == 0
    assert [
        (k["frame"], None if k["outside"] else [float(round(p)) for p in k["points"]])
        for k in job.tracks[0]["shapes"]
    ] == [
        (10, POLYGON),
        (11, shifted(POLYGON, 1)),
        (12, fixed),
        (13, shifted(fixed, 1)),
        (14, None),
        (16, POLYGON),
        (17, shifted(POLYGON, 1)),
        (18, None),
    ]
    assert [(kind, f) for kind, f, _ in function.calls] == [
        ("start", 10), ("step", 11), ("correct", 12), ("step", 13), ("start", 16), ("step", 17),
    ]  # fmt: skip


def test_keyframes_of_shapes_go_by_label_type_and_group(cvat, job, act, function):
    fixed = [0, 2, 30, 20, 31, 20]
    job.shapes = [
        shape("mask", MASK, id=900, group=1),
        shape("mask", fixed, id=901, frame=12, group=1),
        shape("mask", fixed, id=902, frame=12, group=2),
    ]
    to_13 = ("track", "--job", 42, "--frame", 10, "--target-frame", 13, "--keyframes")
    assert act(*to_13).code == 0
    mine = {s["frame"]: s["points"][-4:] for s in job.shapes if s["group"] == 1}
    assert mine == {
        10: MASK[-4:],
        11: [5, 20, 8, 21],
        12: fixed[-4:],
        13: [31, 20, 32, 20],
    }
    assert len(job.shapes) == 5

    job.shapes = [*job.shapes[:2], shape("mask", MASK, id=903, frame=12, group=1)]
    result = act(*to_13)
    assert "more than one object could be object 900" in result.log


@pytest.mark.parametrize("stage", [1, 200])
def test_converting_with_keyframes_takes_the_drawn_shapes_into_the_track(
    cvat, job, act, monkeypatch, stage
):
    monkeypatch.setattr("cvat_action.run.STAGE_FRAMES", stage)
    fixed = shifted(POLYGON, 20)
    said = {"occluded": True, "z_order": 4, "attributes": [COLOUR, MOVING]}
    job.shapes = [
        shape("polygon", POLYGON, id=900, group=1),
        shape("polygon", fixed, id=901, frame=12, group=1, **said),
    ]
    convert = "--convert-polygon-shapes-to-tracks"
    to_13 = ("track", "--job", 42, "--frame", 10, "--target-frame", 13, "--keyframes", convert)
    assert act(*to_13).code == 0
    assert job.shapes == []
    assert [[float(round(p)) for p in k["points"]] for k in job.tracks[0]["shapes"][:4]] == [
        POLYGON, shifted(POLYGON, 1), fixed, shifted(fixed, 1),
    ]  # fmt: skip
    drawn = job.tracks[0]["shapes"][2]
    assert drawn["points"] == fixed
    assert {name: drawn[name] for name in said} == {**said, "attributes": [MOVING]}


def test_dry_run_shows_the_plan_and_does_nothing(cvat, job, act):
    job.deleted_frames = [11]
    job.shapes = [
        shape("mask", MASK, id=900),
        shape("polygon", POLYGON, id=901),
        shape("ellipse", [9.0, 9.0, 12.0, 5.0], id=902),
    ]
    job.tracks = [track(keyframe(10, RECTANGLE), id=5)]
    convert = "--convert-polygon-shapes-to-tracks"
    result = act(*TO_12, "--dry-run", convert)
    assert result.code == 0
    assert "1 frame (deleted ones skipped: [11])" in result.out
    assert "a mask shape per frame" in result.out
    assert "a new track; the shape is deleted" in result.out
    assert "keyframes of this track" in result.out
    assert "ellipse cannot be tracked" in result.out
    plan = act(*TO_12, "--dry-run", "--json").json
    assert plan["frames"] == [12]
    assert [o["object"] for o in plan["objects"]] == ["900", "901", "track:5"]
    assert cvat.calls("POST|PATCH", ".*") == []


def test_functions_lists_trackers_and_says_why_not(cvat, job, act):
    cvat.functions["boxes"] = StandinFunction(None, "boxes", shape_types=("rectangle",), name="B")
    cvat.functions["lines"] = StandinFunction(None, "lines", shape_types=("polyline",), name="L")
    cvat.functions["yolo"] = StandinFunction(None, "yolo", kind="detector", shape_types=())
    result = act("functions")
    assert result.code == 0
    rows = {line.split()[0]: line for line in result.out.splitlines() if line}
    assert rows["pth-facebookresearch-sam2-tracker"].endswith("yes")
    assert rows["boxes"].split()[-2:] == ["rectangle", "yes"]
    assert "no: tracks neither masks, polygons nor rectangles" in rows["lines"]
    assert rows["yolo"].endswith("does not say")
    assert [f["usable"] for f in act("functions", "--json").json] == [True, True, False, False]

    job.shapes = [shape("mask", MASK, id=900)]
    refused = act(*TO_12, "--function", "boxes")
    assert "the function does not track objects of type mask" in refused.log
    del cvat.functions["pth-facebookresearch-sam2-tracker"]
    cvat.functions["more"] = StandinFunction(None, "more")
    assert "Choose one with --function" in act(*TO_12).log
