# SPDX-License-Identifier: MIT
"""Results of an earlier run that are in the way: `--replace`, `--keep-earlier`, and what stays."""

import pytest
from conftest import COLOUR, CONVERT, MOVING
from look import by_frame, frames_of, frames_of_group, hidden, on_frame, places
from wire import MASK, POLYGON, shape, shifted


def at(x, y=20, **more):
    """A square that still overlaps itself when it has moved by a pixel."""
    return shape("mask", [0, 25, x, y, x + 4, y + 4], **more)


def as_another_model_had_it(job):
    """Moves the results of earlier runs, which are marked, down by a pixel."""
    for s in job.shapes:
        if s["source"] == "auto" and s.get("score", 1) < 1:
            *runs, left, top, right, bottom = s["points"]
            s["points"] = [*runs, left, top + 1, right, bottom + 1]


def ids_of(job):
    return {s["id"] for s in job.shapes}


def test_an_earlier_runs_shapes_stop_the_run_unless_replaced_or_kept(job, track_to, function):
    job.shapes = [
        shape("mask", MASK, id=900, group=5),
        shape("mask", [0, 1, 40, 20, 40, 20], id=901, frame=11, source="semi-auto"),
        shape("mask", MASK, id=902, frame=11, group=6, source="auto"),
    ]
    track_to(12)
    calls = len(function.calls)
    again = track_to(12, code=1)
    assert "2 shapes on frames 11 to 12 are an earlier run's, or look like it" in again.log
    shown = track_to(12, "--dry-run").out
    assert "before it can run: 2 shapes on frames 11 to 12 are an earlier run's" in shown
    assert len(function.calls) == calls
    first = ids_of(job)

    track_to(12, "--replace")
    assert ids_of(job) == first, "what would be written again as it is stays"
    as_another_model_had_it(job)
    track_to(12, "--replace")
    assert frames_of(job.shapes) == [10, 11, 11, 11, 12]
    assert first & ids_of(job) == {900, 901, 902}

    track_to(12, "--keep-earlier")
    assert frames_of(job.shapes) == [10, 11, 11, 11, 11, 12, 12]

    track_to(12, "--replace")
    assert frames_of(job.shapes) == [10, 11, 11, 11, 12], "both chains are the object's"


def test_replace_keeps_what_a_person_set_without_touching_the_shape(job, track_to):
    """CVAT's page leaves the source `auto` when only label, group or attributes change."""
    job.shapes = [at(4, id=900)]
    track_to(12)
    for attributes in ([COLOUR], [MOVING]):  # all alike: the new ones are as the seed is now
        job.shapes[0] = {**job.shapes[0], "attributes": attributes}
        track_to(12, "--replace")
        assert [s["attributes"] for s in job.shapes] == [attributes] * 3
    edited = on_frame(job, 12)
    edited |= {"label_id": 8, "group": 3, "attributes": []}
    as_another_model_had_it(job)
    track_to(12, "--replace")
    found = {s["frame"]: s for s in job.shapes}
    assert found[12]["id"] != edited["id"]
    said = [(s["label_id"], s["group"], s["attributes"]) for _, s in sorted(found.items())]
    assert said == [(7, 0, [MOVING]), (7, 0, [MOVING]), (8, 3, [])]


def test_what_a_person_set_on_all_results_of_a_part_stays_when_the_part_is_tracked_again(
    job, track_to
):
    job.shapes = [at(4, id=900)]
    track_to(16)
    for s in job.shapes:
        if s["frame"] > 13:
            s["attributes"] = [MOVING]
    on_frame(job, 13)["source"] = "semi-auto"
    as_another_model_had_it(job)
    track_to(16, "--replace", start=13)
    assert [s["frame"] for s in job.shapes if s["attributes"] == [MOVING]] == [14, 15, 16]


@pytest.mark.parametrize("target", [16, 5])
@pytest.mark.parametrize("more", [(), ("--sparse",)], ids=["dense", "sparse"])
def test_a_track_has_the_attributes_that_a_person_set_on_the_results_it_replaces(
    job, track_to, target, more
):
    standing, walking = ({"spec_id": 32, "value": value} for value in ("false", "true"))
    job.shapes = [shape("polygon", POLYGON, id=900, attributes=[standing])]
    track_to(target)
    for s in job.shapes:
        if abs(s["frame"] - 10) > 3:
            s["attributes"] = [walking]
    track_to(target, CONVERT, "--replace", *more)
    (track,) = job.tracks
    held, values = by_frame(track), {}
    for frame in range(min(held), max(held) + 1):
        said = held.get(frame, {}).get("attributes") or [values.get(frame - 1)]
        values[frame] = said[0]
    walked = [f for f in range(5, 17) if values.get(f) == walking]
    assert walked == ([14, 15, 16] if target == 16 else [5, 6])
    assert job.shapes == []


def test_replace_after_a_correction_finds_what_is_left_over(job, track_to):
    job.shapes = [at(4, id=900), at(20, id=901)]
    track_to(12)
    job.shapes = [at(50, id=900), *job.shapes[1:]]
    track_to(12, "--replace", "--object", "900")
    assert places(job.shapes) == [(10 + n, x + n) for n in range(3) for x in (20, 50)]


def test_replace_keeps_the_results_of_an_object_that_failed(job, track_to, masks, function):
    track_to(13)
    before = [s for s in job.shapes if s["group"] == 30]
    function.errors = {(30, 10): [{"code": "empty_shape", "message": "It is empty."}]}
    track_to(13, "--replace", code=3)
    assert [s for s in job.shapes if s["group"] == 30] == before
    assert frames_of_group(job, 20) == [10, 11, 12, 13]


# --- without a mark ------------------------------------------------------------------------------


def test_replace_refuses_to_guess_whose_shapes_they_are(cvat, job, track_to, function, monkeypatch):
    cvat.keeps_scores = False
    monkeypatch.setattr("cvat_action.commands.numbers_of_seeds", lambda server, job: {})
    job.shapes = [at(4, id=900), at(20, id=901)]
    track_to(12)
    calls = len(function.calls)
    # both have moved away from their earlier results, and only one is tracked again
    job.shapes = [at(50, id=900), at(50, 30, id=901), *job.shapes[2:]]
    result = track_to(12, "--replace", "--object", "900", code=1)
    assert "it cannot be told whose they are" in result.log
    assert len(function.calls) == calls
    track_to(12, "--keep-earlier")
    assert len(job.shapes) == 10


# --- shapes and tracks of one object -------------------------------------------------------------


@pytest.mark.parametrize(("options", "left"), [((), [5000]), ((CONVERT,), [])])
def test_the_result_beside_what_a_person_drew_is_replaced(job, track_to, options, left):
    job.shapes = [shape("polygon", POLYGON, id=900, group=3)]
    track_to(13)
    drawn = shape("polygon", shifted(POLYGON, 30), id=5000, frame=12, group=3)
    job.shapes = [*job.shapes, drawn]
    track_to(13, "--keyframes", "--replace", *options)
    assert [s["id"] for s in job.shapes if s["frame"] == 12] == left


@pytest.fixture
def track_on(job, track_to):
    """Of shapes to frame 16 a second run made a track to frame 12. Tracks it on to 16."""
    job.shapes = [shape("polygon", POLYGON, id=900)]
    track_to(16)
    track_to(12, CONVERT, "--replace")
    assert frames_of(job.shapes) == [13, 14, 15, 16]
    made = f"track:{job.tracks[0]['id']}"
    return lambda *options, code=0: track_to(16, "--object", made, *options, start=12, code=code)


def test_a_track_replaces_the_shapes_of_its_object_only_when_asked(job, track_on):
    assert "4 shapes on frames 13 to 16 are an earlier run's" in track_on(code=1).log
    track_on("--replace")
    assert job.shapes == []
    assert hidden(job.tracks[0], [16]) == []


def test_undo_restores_no_shapes_beside_their_track_that_a_person_corrected(
    act, job, track_on, receipts
):
    track_on("--replace")
    by_frame(job.tracks[0])[15]["points"] = shifted(POLYGON, 20)
    act("undo", receipts()[-1], code=3)
    assert job.shapes == []
