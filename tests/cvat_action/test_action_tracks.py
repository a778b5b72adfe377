# SPDX-License-Identifier: MIT
"""Tracks that a person edits between two runs: what is a person's stays, the rest follows."""

import copy

import pytest
from conftest import CONVERT, MOVING, recorded
from look import by_frame, course, frames_of, hidden, position
from wire import POLYGON, RECTANGLE, keyframe, shape, shifted, track

from cvat_action.job import Job
from cvat_action.positions import hand_made_frames, removed_keyframes
from cvat_action.signature import is_signed

# Of six points, so that a signature moves it by no more than 0.03 px.
HEXAGON = [4.0, 2.0, 8.0, 2.0, 12.0, 5.0, 12.0, 8.0, 8.0, 10.0, 4.0, 8.0]


def converted(job, track_to, *options):
    """A first run: HEXAGON on frame 10 becomes a track to frame 20."""
    job.shapes = [shape("polygon", HEXAGON, id=900, attributes=[MOVING])]
    track_to(20, CONVERT, *options)
    (made,) = job.tracks
    return made


def edited(job, keyframes):
    """A person saves these keyframes by frame."""
    (t,) = job.tracks
    t["shapes"] = [keyframes[f] for f in sorted(keyframes)]
    t["source"] = "semi-auto"


def frames(job):
    return frames_of(job.tracks[0]["shapes"])


def drawn(k):
    """What a person sees of a keyframe."""
    return {name: k[name] for name in ("points", "outside", "occluded", "z_order")}


def assert_near(points, expected):
    assert points == pytest.approx(expected, abs=0.5)


def assert_shown(job, frames, start, points):
    """The object moves on from these points on frame `start`."""
    for frame in frames:
        assert_near(position(job.tracks[0], frame)["points"], shifted(points, frame - start))


@pytest.mark.parametrize("options", [(), ("--keyframes",), ("--both-ways",)])
def test_a_second_run_changes_nothing(cvat, job, track_to, options):
    before = copy.deepcopy(converted(job, track_to, *options))
    writes = len(cvat.calls("PATCH", ".*"))
    for _ in range(2):
        again = track_to(20, *options)
        assert "left alone" not in again.log
        assert "written: nothing new" in again.out
        assert job.tracks == [before]
    assert len(cvat.calls("PATCH", ".*")) == writes


def test_tracks_with_the_same_keyframes_are_named(job, track_to):
    late = {**copy.deepcopy(converted(job, track_to)), "id": 5000}
    job.tracks.append(late)
    equal = f"These tracks are equal, delete all but one: track:{job.tracks[0]['id']}, track:5000."
    assert equal in track_to(20).log
    late["shapes"] = late["shapes"][1:]
    assert "are equal" not in track_to(20).log


@pytest.mark.parametrize("options", [(), ("--sparse",)], ids=["dense", "sparse"])
def test_what_a_person_edits_stays_and_the_frames_after_it_follow(cvat, job, track_to, options):
    keyframes = by_frame(converted(job, track_to, *options))
    # As the page saves it: one keyframe dragged, one born of interpolation and moved, one marked
    # as occluded.
    base = keyframes.get(13) or {**keyframes[10], "points": shifted(HEXAGON, 3), "attributes": []}
    dragged = {**base, "frame": 13, "points": shifted(base["points"], 5.37)}
    occluded = {**base, "frame": 17, "points": shifted(HEXAGON, 9.5), "occluded": True}
    edited(job, keyframes | {13: dragged, 17: occluded})
    assert hand_made_frames(job.tracks[0]) == {10, 13, 17}

    track_to(20, *options)
    second = copy.deepcopy(job.tracks)
    found = by_frame(job.tracks[0])
    for frame, expected in ((10, HEXAGON), (13, dragged["points"]), (17, occluded["points"])):
        assert found[frame]["points"] == expected
        assert not is_signed(found[frame])
    assert found[17]["occluded"]
    # One correction reaches every frame up to the next one.
    assert_shown(job, (11, 12), 10, HEXAGON)
    assert_shown(job, (14, 15, 16), 13, dragged["points"])
    assert_shown(job, (18, 19, 20), 17, occluded["points"])
    assert len(found) == len(job.tracks[0]["shapes"])
    assert found[10]["attributes"] == [MOVING]

    writes = len(cvat.calls("PATCH", ".*"))
    track_to(20, *options)
    assert job.tracks == second
    assert len(cvat.calls("PATCH", ".*")) == writes


def test_a_keyframe_marked_as_outside_stays_and_ends_the_object_there(job, track_to):
    keyframes = by_frame(converted(job, track_to))
    keyframes[15]["outside"] = True
    edited(job, keyframes)
    there = copy.deepcopy(keyframes)
    track_to(20)
    found = by_frame(job.tracks[0])
    assert {f: drawn(k) for f, k in found.items() if f >= 15} == {
        f: drawn(k) for f, k in there.items() if f >= 15
    }


def test_drawn_keyframes_stay_also_where_a_sparse_run_left_no_others(job, track_to):
    by_hand = {frame: shifted(HEXAGON, frame - 10) for frame in (10, 15, 25)}
    job.tracks = [track(*(keyframe(f, p, id=f) for f, p in by_hand.items()), id=50)]
    for options in ((), ("--sparse",), ()):
        track_to(15, *options)
        found = by_frame(job.tracks[0])
        if options:
            assert found.keys() == by_hand.keys()
        assert {f: found[f]["points"] for f in by_hand} == by_hand


def test_a_persons_keyframe_that_was_deleted_does_not_come_back(job, track_to):
    keyframes = by_frame(converted(job, track_to))
    moved = {**keyframes[15], "points": shifted(HEXAGON, 20.3)}
    edited(job, keyframes | {15: moved})
    track_to(20)
    keyframes = by_frame(job.tracks[0])
    del keyframes[15]
    edited(job, keyframes)
    track_to(20)
    assert_shown(job, range(11, 21), 10, HEXAGON)


CASES = recorded("tracks")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["why"])
def test_whose_a_keyframe_is_and_which_were_deleted(case):
    made = {"source": case["source"], "shapes": case["keyframes"]}
    job = Job(1, 1, 0, 99, (), ((640, 480),), frozenset(case["deleted_frames"]))
    assert sorted(hand_made_frames(made)) == case["hand_made"]
    assert sorted(removed_keyframes(job, made)) == case["removed"]


def without(job, *gone):
    """A person deletes keyframes."""
    edited(job, {f: k for f, k in by_frame(job.tracks[0]).items() if f not in gone})


def test_automatic_keyframes_that_were_deleted_do_not_come_back(job, track_to):
    converted(job, track_to)
    without(job, 11, 15, 16, 20)
    for _ in range(2):
        assert "seem to have been deleted: 11, 15, 16, 20" in track_to(20).log
        assert frames(job) == [10, 12, 13, 14, 17, 18, 19, 21]
    track_to(20, "--replace")
    assert frames(job) == list(range(10, 22))


def test_a_run_over_nothing_but_deleted_keyframes_changes_nothing(job, track_to):
    converted(job, track_to)
    without(job, 13, 14)
    track_to(14, start=12)
    assert frames(job) == [10, 11, 12, *range(15, 22)]


def test_a_track_of_an_older_version_is_written_over_if_nobody_edited_it(job, track_to):
    old = [keyframe(f, shifted(HEXAGON, 2 * (f - 10))) for f in range(10, 21)]
    job.tracks = [track(*old, id=5, source="auto")]
    track_to(20)
    assert_shown(job, [15], 10, HEXAGON)

    job.tracks = [track(*copy.deepcopy(old), id=5, source="semi-auto")]
    assert "an older version" in track_to(20, code=1).log
    assert job.tracks[0]["shapes"] == old


def test_a_track_that_is_edited_in_several_stages_is_counted_once(cvat, job, track_to, monkeypatch):
    monkeypatch.setattr("cvat_action.run.STAGE_FRAMES", 2)
    job.tracks = [track(keyframe(10, HEXAGON), id=5)]
    assert track_to(20, "--json").json["written"]["tracks_updated"] == 1
    assert len(cvat.calls("PATCH", ".*")) > 1


def test_a_track_that_gets_no_result_keeps_its_source(job, track_to, function):
    """Else its keyframes, which are a person's, would count as automatic afterwards."""
    function.lost = {(2, f) for f in range(11, 21)}
    job.tracks = [track(keyframe(8, HEXAGON), keyframe(10, HEXAGON), id=5)]
    track_to(20)
    assert hand_made_frames(job.tracks[0]) >= {8, 10}


@pytest.mark.parametrize("target", [100, pytest.param(240, marks=pytest.mark.slow)])
def test_a_track_that_ends_on_a_drawn_frame_is_closed_however_long_it_is(
    long_job, track_to, target
):
    later = shape("polygon", shifted(POLYGON, 5), id=901, frame=target, group=3)
    long_job.shapes = [shape("polygon", POLYGON, id=900, frame=0, group=3), later]
    track_to(target, "--object", 900, "--keyframes", CONVERT, start=0)
    assert course(long_job.tracks[0]).endswith(f" {target}:5 ({target + 1}:5)")


@pytest.mark.parametrize("options", [(), ("--both-ways",), ("--replace",)])
@pytest.mark.parametrize("target", [10, 14])
def test_backwards_what_a_person_hid_stays_hidden_up_to_the_next_keyframe(
    job, track_to, target, options
):
    drawn = [(2, False), (12, True), (20, False)]
    job.tracks = [track(*(keyframe(f, HEXAGON, outside=hidden) for f, hidden in drawn), id=50)]
    track_to(target, *options, start=22)
    shown = [f for f in range(5, 25) if not position(job.tracks[0], f)["outside"]]
    assert shown == [*range(5, 12), *range(20, 25)]
    assert is_signed(by_frame(job.tracks[0])[21])


# --- backwards, lost where a run breaks or a stage ends ------------------------------------------


def test_backwards_an_object_that_is_lost_where_a_run_broke_is_not_shown(
    job, cut_off, resume, function
):
    job.shapes = [shape("polygon", POLYGON, id=900, frame=20)]
    function.lost = {(2, 15)}
    resume(cut_off(14, 10, CONVERT, start=20))
    assert hidden(job.tracks[0], [14, 15, 16]) == [15]


def test_backwards_an_object_that_is_lost_where_a_stage_ends_is_not_shown(
    long_job, track_to, function
):
    long_job.shapes = [shape("polygon", POLYGON, id=900, frame=255)]
    function.lost = {(2, 55)}
    track_to(20, CONVERT, start=255)
    assert hidden(long_job.tracks[0], [55]) == [55]


# --- sparse --------------------------------------------------------------------------------------


def test_sparse_keyframes_of_what_moves_evenly_are_two_and_the_summary_says_so(job, track_to):
    job.shapes = [shape("polygon", HEXAGON, id=900), shape("rectangle", RECTANGLE, id=901)]
    done = track_to(20, CONVERT, "--sparse", "--json", "--object", "900")
    assert frames(job) == [10, 20, 21]
    assert_shown(job, range(10, 21), 10, HEXAGON)
    assert done.json["sparse"] == {"frames": 10, "keyframes": 1, "points": 6}


def test_a_preview_of_sparse_keyframes_shows_what_cvat_makes_of_them(
    job, track_to, monkeypatch, tmp_path
):
    shown = {}
    monkeypatch.setattr(
        "cvat_action.preview.write_video",
        lambda path, frames, seeds, results, fps: shown.update(results),
    )
    made = converted(job, track_to, "--sparse", "--preview", tmp_path / "clip.mp4")
    assert len(by_frame(made)) < 5
    for frame in range(11, 21):
        assert list(shown[frame][0].points) == pytest.approx(position(made, frame)["points"])


def test_both_ways_with_sparse_keyframes(job, track_to):
    """Every gap from both ends, and then as few keyframes as hold the limit."""
    turn = shifted(HEXAGON, 30)
    job.tracks = [track(keyframe(10, HEXAGON), keyframe(20, turn), id=5)]
    track_to(24, "--both-ways", "--sparse")
    found = by_frame(job.tracks[0])
    assert hand_made_frames(job.tracks[0]) == {10, 20}
    assert found[20]["points"] == turn
    assert min(found) == 10
    assert len(found) < 8
    # Both ends are equally sure, so the whole gap is tracked from its right end.
    for frame, by in ((11, 9), (15, 5), (19, 1), (23, 3)):
        xs, expected = position(job.tracks[0], frame)["points"][::2], shifted(turn, by)[::2]
        assert (min(xs), max(xs)) == pytest.approx((min(expected), max(expected)), abs=2)


def test_a_sparse_track_is_hidden_on_the_frames_where_its_object_is_lost(job, track_to, function):
    function.lost = {(2, 14), (2, 15)}
    converted(job, track_to, "--sparse")
    assert frames(job) == [10, 13, 14, 16, 20, 21]
    assert [k["frame"] for k in job.tracks[0]["shapes"] if k["outside"]] == [14, 21]


def test_a_dense_track_becomes_sparse_and_keeps_flags_and_attributes(job, track_to):
    keyframes = by_frame(converted(job, track_to))
    still = {**MOVING, "value": "false"}
    edited(job, keyframes | {14: {**keyframes[14], "attributes": [still]}})
    track_to(20, "--sparse")
    found = {f: k["attributes"] for f, k in by_frame(job.tracks[0]).items()}
    assert found == {10: [MOVING], 14: [still], 20: [], 21: []}
