# SPDX-License-Identifier: MIT
"""Tracks that a person edits between two runs: what is a person's stays, the rest follows."""

import copy
import json
from pathlib import Path

import pytest
from conftest import MOVING, POLYGON, RECTANGLE, keyframe, shape, shifted, track

from cvat_action.interpolation import polygon_between
from cvat_action.job import Job
from cvat_action.selection import hand_made_frames, removed_keyframes
from cvat_action.signature import is_signed

CONVERT = "--convert-polygon-shapes-to-tracks"
TO_20 = ("track", "--job", 42, "--frame", 10, "--target-frame", 20)
# Of six points, so that a signature moves it by no more than 0.03 px.
HEXAGON = [4.0, 2.0, 8.0, 2.0, 12.0, 5.0, 12.0, 8.0, 8.0, 10.0, 4.0, 8.0]


def converted(job, act, *options):
    """A first run: HEXAGON on frame 10 becomes a track to frame 20."""
    job.shapes = [shape("polygon", HEXAGON, id=900, attributes=[MOVING])]
    assert act(*TO_20, CONVERT, *options).code == 0
    (made,) = job.tracks
    return made


def by_frame(t):
    return {k["frame"]: k for k in t["shapes"]}


def drawn(k):
    """What a person sees of a keyframe."""
    return {name: k[name] for name in ("points", "outside", "occluded", "z_order")}


def assert_near(points, expected):
    assert len(points) == len(expected)
    assert max(abs(a - b) for a, b in zip(points, expected, strict=True)) < 0.5


def test_automatic_keyframes_are_signed_and_the_persons_is_not(cvat, job, act):
    made = converted(job, act)
    assert hand_made_frames(made) == {10}
    assert by_frame(made)[10]["points"] == HEXAGON
    assert by_frame(made)[21]["outside"]
    assert made["source"] == "auto"


@pytest.mark.parametrize("options", [(), ("--keyframes",), ("--both-ways",)])
def test_a_second_run_changes_nothing(cvat, job, act, options):
    before = copy.deepcopy(converted(job, act, *options))
    writes = len(cvat.calls("PATCH", ".*"))
    for _ in range(2):
        again = act(*TO_20, *options)
        assert (again.code, "left alone" in again.log) == (0, False)
        assert job.tracks == [before]
    assert len(cvat.calls("PATCH", ".*")) == writes


@pytest.mark.parametrize("options", [(), ("--sparse",)], ids=["dense", "sparse"])
def test_what_a_person_edits_stays_and_the_frames_after_it_follow(cvat, job, act, options):
    made = converted(job, act, *options)
    keyframes = by_frame(made)
    # As the page saves it: one keyframe dragged, one born of interpolation and moved, one marked
    # as occluded; the track's source is semi-auto then.
    base = keyframes.get(13) or {**keyframes[10], "points": shifted(HEXAGON, 3), "attributes": []}
    dragged = {**base, "frame": 13, "points": shifted(base["points"], 5.37)}
    occluded = {**base, "frame": 17, "points": shifted(HEXAGON, 9.5), "occluded": True}
    keyframes[13], keyframes[17] = dragged, occluded
    made["shapes"] = [keyframes[f] for f in sorted(keyframes)]
    made["source"] = "semi-auto"
    assert hand_made_frames(made) == {10, 13, 17}

    assert act(*TO_20, *options).code == 0
    (t,) = job.tracks
    second = copy.deepcopy(t)
    found = by_frame(t)
    for frame, expected in ((10, HEXAGON), (13, dragged["points"]), (17, occluded["points"])):
        assert found[frame]["points"] == expected
        assert not is_signed(found[frame])
    assert found[17]["occluded"]
    # One correction reaches every frame up to the next one.
    shown = {f: position(t, f) for f in range(11, 21)}
    for frame in (14, 15, 16):
        assert_near(shown[frame], shifted(dragged["points"], frame - 13))
    for frame in (18, 19, 20):
        assert_near(shown[frame], shifted(occluded["points"], frame - 17))
    for frame in (11, 12):
        assert_near(shown[frame], shifted(HEXAGON, frame - 10))
    assert len(found) == len(t["shapes"])
    assert found[10]["attributes"] == [MOVING]

    writes = len(cvat.calls("PATCH", ".*"))
    assert act(*TO_20, *options).code == 0
    assert job.tracks == [second]
    assert len(cvat.calls("PATCH", ".*")) == writes


def position(t, frame):
    """What CVAT shows on a frame."""
    keyframes = by_frame(t)
    if frame in keyframes:
        return keyframes[frame]["points"]
    left = max(f for f in keyframes if f < frame)
    right = min(f for f in keyframes if f > frame)
    share = (frame - left) / (right - left)
    return polygon_between(keyframes[left]["points"], keyframes[right]["points"], share)


def test_a_keyframe_marked_as_outside_stays_and_ends_the_object_there(cvat, job, act):
    made = converted(job, act)
    by_frame(made)[15]["outside"] = True
    made["source"] = "semi-auto"
    there = copy.deepcopy(by_frame(made))
    assert act(*TO_20).code == 0
    found = by_frame(job.tracks[0])
    assert drawn(found[15]) == drawn(there[15])
    assert {f: drawn(k) for f, k in found.items() if f > 15} == {
        f: drawn(k) for f, k in there.items() if f > 15
    }


def test_drawn_keyframes_stay_also_where_a_sparse_run_left_no_others(cvat, job, act):
    by_hand = {frame: shifted(HEXAGON, frame - 10) for frame in (10, 15, 25)}
    job.tracks = [track(*(keyframe(f, p, id=f) for f, p in by_hand.items()), id=50)]
    for options in ((), ("--sparse",), ()):
        assert act(*TO_20[:-1], 15, *options).code == 0
        found = by_frame(job.tracks[0])
        if options:
            assert found.keys() == by_hand.keys()
        assert {f: found[f]["points"] for f in by_hand} == by_hand


def test_a_persons_keyframe_that_was_deleted_does_not_come_back(cvat, job, act):
    made = converted(job, act)
    keyframes = by_frame(made)
    keyframes[15] = {**keyframes[15], "points": shifted(HEXAGON, 20.3)}
    made["shapes"] = [keyframes[f] for f in sorted(keyframes)]
    made["source"] = "semi-auto"
    assert act(*TO_20).code == 0
    (t,) = job.tracks
    t["shapes"] = [k for k in t["shapes"] if k["frame"] != 15]
    t["source"] = "semi-auto"
    assert act(*TO_20).code == 0
    for frame in range(11, 21):
        assert_near(position(job.tracks[0], frame), shifted(HEXAGON, frame - 10))


CASES = json.loads((Path(__file__).parents[1] / "action_cases" / "tracks.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["why"])
def test_whose_a_keyframe_is_and_which_were_deleted(case):
    made = {"source": case["source"], "shapes": case["keyframes"]}
    job = Job(1, 1, 0, 99, (), ((640, 480),), frozenset(case["deleted_frames"]))
    assert sorted(hand_made_frames(made)) == case["hand_made"]
    assert sorted(removed_keyframes(job, made)) == case["removed"]


def test_automatic_keyframes_that_were_deleted_do_not_come_back(cvat, job, act):
    made = converted(job, act)
    made["shapes"] = [k for k in made["shapes"] if k["frame"] not in (11, 15, 16, 20)]
    made["source"] = "semi-auto"
    for _ in range(2):
        again = act(*TO_20)
        assert again.code == 0
        assert "deleted its keyframes here: 11, 15, 16, 20" in again.log
        assert sorted(by_frame(job.tracks[0])) == [10, 12, 13, 14, 17, 18, 19, 21]
    assert act(*TO_20, "--replace").code == 0
    assert sorted(by_frame(job.tracks[0])) == list(range(10, 22))

    for gone, said in (((12, 13, 15), "12, 13, 15."), ((18,), "18.")):
        job.tracks[0]["shapes"] = [k for k in job.tracks[0]["shapes"] if k["frame"] not in gone]
        again = act(*TO_20)
        assert f"deleted its keyframes here: {said}" in again.log
        assert not set(gone) & set(by_frame(job.tracks[0]))
        assert act(*TO_20, "--replace").code == 0


def test_what_was_never_tracked_or_left_out_as_sparse_is_not_taken_for_deleted(cvat, job, act):
    job.tracks = [track(keyframe(10, HEXAGON), keyframe(29, shifted(HEXAGON, 9)), id=5)]
    assert act("track", "--job", 42, "--frame", 10, "--target-frame", 13).code == 0
    assert act(*TO_20).code == 0
    assert sorted(by_frame(job.tracks[0])) == [*range(10, 21), 29]
    assert act(*TO_20, "--sparse").code == 0
    assert sorted(by_frame(job.tracks[0])) == [10, 20, 29]
    assert act(*TO_20).code == 0
    assert sorted(by_frame(job.tracks[0])) == [*range(10, 21), 29]


def test_a_track_of_an_older_version_is_written_over_if_nobody_edited_it(cvat, job, act):
    old = [keyframe(f, shifted(HEXAGON, 2 * (f - 10))) for f in range(10, 21)]
    job.tracks = [track(*old, id=5, source="auto")]
    assert act(*TO_20).code == 0
    assert_near(position(job.tracks[0], 15), shifted(HEXAGON, 5))

    job.tracks = [track(*copy.deepcopy(old), id=5, source="semi-auto")]
    refused = act(*TO_20)
    assert refused.code == 1
    assert "an older version" in refused.log
    assert job.tracks[0]["shapes"] == old


def test_a_drawn_track_keeps_its_keyframes_and_is_filled_between(cvat, job, act):
    other = shifted(HEXAGON, 30)
    hand_drawn = [keyframe(10, HEXAGON), keyframe(15, other), keyframe(29, other)]
    job.tracks = [track(*copy.deepcopy(hand_drawn), id=5)]
    assert act(*TO_20).code == 0
    (t,) = job.tracks
    found = by_frame(t)
    for k in hand_drawn:
        assert drawn(found[k["frame"]]) == drawn(k)
    assert hand_made_frames(t) == {10, 15, 29}
    assert_near(found[14]["points"], shifted(HEXAGON, 4))
    assert_near(found[16]["points"], shifted(other, 1))


def test_a_track_that_is_edited_in_several_stages_is_counted_once(cvat, job, act, monkeypatch):
    monkeypatch.setattr("cvat_action.run.STAGE_FRAMES", 2)
    job.tracks = [track(keyframe(10, HEXAGON), id=5)]
    assert act(*TO_20, "--json").json["written"]["tracks_updated"] == 1
    assert len(cvat.calls("PATCH", ".*")) > 1


def test_a_track_that_gets_no_result_keeps_its_source(cvat, job, act, function):
    """Else its keyframes, which are a person's, would count as automatic afterwards."""
    function.lost = {(2, f) for f in range(11, 21)}
    job.tracks = [track(keyframe(8, HEXAGON), keyframe(10, HEXAGON, outside=False), id=5)]
    act(*TO_20)
    (t,) = job.tracks
    assert hand_made_frames(t) >= {8, 10}


def test_sparse_keyframes_of_what_moves_evenly_are_two_and_the_summary_says_so(cvat, job, act):
    job.shapes = [shape("polygon", HEXAGON, id=900), shape("rectangle", RECTANGLE, id=901)]
    done = act(*TO_20, CONVERT, "--sparse", "--json", "--object", "900")
    assert done.code == 0
    (t,) = job.tracks
    assert sorted(by_frame(t)) == [10, 20, 21]
    for frame in range(10, 21):
        assert_near(position(t, frame), shifted(HEXAGON, frame - 10))
    assert json.loads(done.out)["sparse"] == {"frames": 10, "keyframes": 1, "points": 6}


def test_a_preview_of_sparse_keyframes_shows_what_cvat_makes_of_them(
    cvat, job, act, monkeypatch, tmp_path
):
    shown = {}
    monkeypatch.setattr(
        "cvat_action.preview.write_video",
        lambda path, frames, seeds, results, fps: shown.update(results),
    )
    made = converted(job, act, "--sparse", "--preview", tmp_path / "clip.mp4")
    assert len(by_frame(made)) < 5
    for frame in range(11, 21):
        assert list(shown[frame][0].points) == pytest.approx(position(made, frame))


def test_both_ways_with_sparse_keyframes(cvat, job, act):
    """Every gap from both ends, and then as few keyframes as hold the limit."""
    turn = shifted(HEXAGON, 30)
    job.tracks = [track(keyframe(10, HEXAGON), keyframe(20, turn), id=5)]
    assert act(*TO_20[:-1], 24, "--both-ways", "--sparse").code == 0
    found = by_frame(job.tracks[0])
    assert hand_made_frames(job.tracks[0]) == {10, 20}
    assert found[20]["points"] == turn
    assert sorted(found)[0] == 10
    assert len(found) < 8
    # Both ends are equally sure, so the whole gap is tracked from its right end.
    for frame, by in ((11, 9), (15, 5), (19, 1), (23, 3)):
        xs, expected = position(job.tracks[0], frame)[::2], shifted(turn, by)[::2]
        assert min(xs) == pytest.approx(min(expected), abs=2)
        assert max(xs) == pytest.approx(max(expected), abs=2)


def test_sparse_keyframes_around_frames_where_it_is_not_visible(cvat, job, act, function):
    function.lost = {(2, 14), (2, 15)}
    made = converted(job, act, "--sparse")
    found = by_frame(made)
    assert sorted(found) == [10, 13, 14, 16, 20, 21]
    assert [f for f, k in found.items() if k["outside"]] == [14, 21]


def test_a_dense_track_becomes_sparse_and_keeps_flags_and_attributes(cvat, job, act):
    made = converted(job, act)
    still = {**MOVING, "value": "false"}
    keyframes = by_frame(made)
    keyframes[14] = {**keyframes[14], "attributes": [still]}
    made["shapes"] = [keyframes[f] for f in sorted(keyframes)]
    made["source"] = "semi-auto"
    assert act(*TO_20, "--sparse").code == 0
    found = by_frame(job.tracks[0])
    assert sorted(found) == [10, 14, 20, 21]
    assert found[10]["attributes"] == [MOVING]
    assert found[14]["attributes"] == [still]
    assert found[20]["attributes"] == []


def test_a_polygon_takes_over_the_start_and_direction_of_the_drawn_one(cvat, job, act, function):
    turned = shifted(HEXAGON, 1)
    function.answers[2, 11] = {"type": "polygon", "points": turned[4:] + turned[:4]}
    backwards = [v for i in (5, 4, 3, 2, 1, 0) for v in turned[2 * i : 2 * i + 2]]
    function.answers[2, 12] = {"type": "polygon", "points": shifted(backwards, 1)}
    job.shapes = [shape("polygon", HEXAGON, id=900)]
    assert act("track", "--job", 42, "--frame", 10, "--target-frame", 12).code == 0
    assert [s["points"] for s in job.shapes] == [shifted(HEXAGON, n) for n in range(3)]


def test_the_tolerance_goes_to_the_function(cvat, job, act, function):
    job.shapes = [shape("polygon", HEXAGON, id=900)]
    job.tracks = [track(keyframe(10, shifted(POLYGON, 20)), id=5)]
    for options in (("--tolerance", "0.05"), ("--sparse", "--replace"), ("--replace",)):
        act("track", "--job", 42, "--frame", 10, "--target-frame", 11, *options)
    asked = [c["shapes"] for c in function.bodies if any(c["shapes"])]
    assert [[s.get("tolerance") for s in shapes] for shapes in asked] == [
        [0.05, 0.05],
        [None, 0.0],  # only tracks have keyframes to leave out
        [None, None],
    ]
