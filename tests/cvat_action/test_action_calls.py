# SPDX-License-Identifier: MIT
"""Answers of the function that are slow, broken, refused or missing."""

import time
from types import SimpleNamespace

import pytest
from conftest import journal_full_from
from look import by_frame, frames_of, frames_of_group, places
from standin_cvat import Fault
from wire import MASK, POLYGON, keyframe, shape, shifted, track

CALL = r"/api/lambda/functions/.*"
ANNOTATIONS = "/api/jobs/42/annotations/"
EMPTY = {"code": "empty_shape", "message": "The shape is empty."}
GONE = {"code": "state_gone", "message": "The state is no longer known."}
ALL_FRAMES = [10, 11, 12, 13, 14]

AWAY = [
    {"status": 503, "body": "503 Server Error: Service Unavailable for url: http://x/"},
    {"status": 502, "body": "<html>bad gateway</html>"},
    {"drop": True},
]
BROKEN = [
    {"status": 500, "body": "<h1>Server Error (500)</h1>"},
    {"status": 500, "body": '"500 Server Error: Internal Server Error for url: http://x/"'},
]


@pytest.mark.parametrize(
    ("method", "path", "fault"),
    [
        *(("POST", CALL, fault) for fault in AWAY + BROKEN),
        *(("GET", ANNOTATIONS, fault) for fault in AWAY),
    ],
)
def test_what_may_succeed_later_is_repeated(
    cvat, job, track_to, masks, function, method, path, fault
):
    cvat.faults = [Fault(method, path, times=2, **fault)]
    result = track_to(14)
    assert result.log.count("Trying again") == 2
    assert len(job.shapes) == 3 + 3 * 4
    assert [c for _, _, c in function.calls] == [[20, 30, 40]] * 5


def test_a_call_is_not_repeated_for_ever_and_what_is_done_is_kept(
    job, track_to, resume, masks, function
):
    function.refuse = lambda frame, count: 503 if frame == 13 else None
    ended = track_to(14, "--wait", 0.025, code=4)
    assert ended.log.count("Trying again") == 3
    assert ended.log.count("CRITICAL") == 1
    assert "2 of 4 frames are tracked and written" in ended.log
    assert frames_of(job.shapes) == [10] * 3 + [11] * 3 + [12] * 3

    function.refuse = lambda frame, count: None
    resume(ended)
    assert frames_of(job.shapes) == sorted(ALL_FRAMES * 3)
    assert places(s for s in job.shapes if s["group"] == 20) == [(10 + n, 4 + n) for n in range(5)]
    assert not ended.journal.exists()


# 400: the body is over Nuclio's limit
@pytest.mark.parametrize(("status", "most"), [(408, 2), (413, 2), (504, 2), (400, 1)])
def test_too_much_for_one_call_is_sent_in_parts(job, track_to, masks, function, status, most):
    function.refuse = lambda frame, count: status if count > most else None
    track_to(14)
    assert len(job.shapes) == 3 + 3 * 4
    assert all(len(objects) <= most for _, _, objects in function.calls)


@pytest.mark.parametrize("status", [408, 504])
def test_a_call_that_is_too_slow_for_one_object_is_made_once_more(
    track_to, masks, function, status
):
    """Each takes a minute of the function's time."""
    asked = []

    def refuse(frame, count):
        asked.append(frame)
        return status if frame == 13 else None

    function.refuse = refuse
    ended = track_to(14, "--object", 20, code=4)
    assert asked == [10, 11, 12, 13, 13]
    assert ended.log.count("Trying again") == 1


def test_slow_calls_are_split_and_joined_again(job, track_to, masks, function, monkeypatch):
    clock = SimpleNamespace(now=0.0, sleep=time.sleep)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr("cvat_action.calls.time", clock)

    def takes(frame, count):
        clock.now += 9.0 * count if frame == 11 else 1.0
        return 0.0

    function.seconds = takes
    track_to(14, "--seconds-per-call", 25)
    sizes = [(frame, len(objects)) for _, frame, objects in function.calls]
    assert sizes[:5] == [(10, 3), (11, 3), (12, 1), (12, 2), (13, 3)]
    assert len(job.shapes) == 3 + 3 * 4


def test_objects_per_call_is_kept_to(track_to, masks, function):
    track_to(14, "--objects-per-call", 2)
    assert [len(objects) for _, _, objects in function.calls] == [2, 1] * 5


# --- one object ----------------------------------------------------------------------------------


def too_large(function):
    answer = function.answer

    def answer_or_refuse(request):
        tops = [s["points"][-3] if s else 0 for s in request["shapes"]]
        return (413, {}) if len(tops) == 3 or 30 in tops else answer(request)

    function.answer = answer_or_refuse


def without_a_state(function):
    """A function that knows no `errors` gives null, which CVAT signs as `null:...`."""
    answer = function.answer

    def answer_without(request):
        status, columns = answer(request)
        del columns["errors"], columns["scores"]
        if not request["states"]:
            columns["states"][1] = None
        return status, columns

    function.answer = answer_without


def empty(function):
    function.errors = {(30, 10): [EMPTY]}


@pytest.mark.parametrize(
    ("breaks", "said"),
    [
        (too_large, "The function refused it: too many"),
        (without_a_state, "the function gave no state for it"),
        (empty, "The shape is empty."),
    ],
)
def test_an_object_that_cannot_be_started_is_told_and_the_others_go_on(
    job, track_to, masks, function, breaks, said
):
    breaks(function)
    result = track_to(14, code=3)
    assert f"Object 30: not started on frame 10: {said}" in result.log
    assert frames_of_group(job, 30) == [10]
    assert frames_of_group(job, 20) == frames_of_group(job, 40) == ALL_FRAMES


def one_is_gone(cvat, function):
    function.errors = {(30, 13): [GONE]}


def all_are_gone(cvat, function):
    cvat.faults = [Fault("POST", CALL, 410, "410 Client Error: Gone for url: http://x/", skip=3)]


def all_are_expired(cvat, function):
    cvat.expired_on = {13}


@pytest.mark.parametrize(
    ("happens", "again", "said"),
    [
        (one_is_gone, [30], "Frame 13, object 30: The state is no longer known."),
        (all_are_gone, [20, 30, 40], "no longer know"),
        (all_are_expired, [20, 30, 40], "expired"),
    ],
)
def test_objects_whose_states_are_gone_start_again_from_their_last_good_results(
    cvat, job, track_to, masks, function, happens, again, said
):
    happens(cvat, function)
    assert said in track_to(14).log
    assert ("start", 12, again) in function.calls
    assert places(s for s in job.shapes if s["group"] == 30) == [(10 + n, 4 + n) for n in range(5)]
    assert len(job.shapes) == 3 + 3 * 4


def test_an_object_that_fails_twice_is_stopped_and_the_others_go_on(job, track_to, masks, function):
    function.errors = {(30, 13): [GONE, GONE]}
    told = {o["object"]: o for o in track_to(14, "--json", code=3).json["objects"]}
    assert told["30"]["frames"] == 2
    assert "frame 13" in told["30"]["stopped"]
    assert told["20"]["frames"] == told["40"]["frames"] == 4
    assert frames_of_group(job, 30) == [10, 11, 12]


@pytest.mark.parametrize(
    ("answered", "said"),
    [
        ({"type": "mask", "points": [0, 9, 4, 20, 7, 21]}, "whose runs do not fill its box"),
        ({"type": "mask", "points": [0, 8, 62, 20, 65, 21]}, "in a 64x48 image"),
        ({"type": "polygon", "points": POLYGON}, "a polygon for a mask"),
        ({"type": "mask", "points": "no"}, "not a list of numbers"),
    ],
)
def test_a_broken_result_is_never_written(job, track_to, masks, function, answered, said):
    function.answers = {(30, 12): answered}
    assert said in track_to(14, code=3).log
    assert frames_of_group(job, 30) == [10, 11]
    assert frames_of_group(job, 40) == ALL_FRAMES


def test_a_result_whose_score_is_no_use_is_never_written(job, track_to, masks, function):
    """As JSON holds it: a number of which no float can be made."""
    function.scores = {(30, 12): 10**400}
    log = track_to(14, code=3).log
    assert "the function answered a score that is not finite on frame 12" in log
    assert frames_of_group(job, 30) == [10, 11]
    assert frames_of_group(job, 40) == ALL_FRAMES


def refuse_the_drawing(function, frame):
    """The upper polygon can be stepped to this frame, but not be drawn on it."""
    answer = function.answer

    def answer_or_refuse(request):
        shapes = request["shapes"]
        if shapes and all(s and s["points"][1] == 2 for s in shapes):
            function.errors[2, frame] = [EMPTY]
        answered = answer(request)
        function.errors.clear()
        return answered

    function.answer = answer_or_refuse


@pytest.mark.parametrize("late", [False, True], ids=["a track's keyframe", "a later polygon"])
def test_one_drawing_that_covers_no_pixel_does_not_end_the_run_for_others(
    job, track_to, one_mask, function, late
):
    if late:
        job.shapes.append(shape("polygon", POLYGON, id=901, frame=13))
    else:
        job.tracks = [track(keyframe(10, POLYGON), keyframe(13, shifted(POLYGON, 3)), id=1)]
    refuse_the_drawing(function, 13)
    done = track_to(16, *(("--all-seeds",) if late else ()), code=3)
    assert "not started on frame 13: The function refused it" in done.out
    assert frames_of(s for s in job.shapes if s["type"] == "mask") == list(range(10, 17))
    assert all(13 in by_frame(t) for t in job.tracks)


def test_a_found_box_that_is_refused_alone_does_not_end_the_run(
    job, track_to, one_mask, function, detector
):
    box = {"label": "car", "type": "rectangle", "points": [30.0, 10.0, 40.0, 20.0]}
    detector.on_frame = {12: [box]}
    function.errors[10, 12] = [EMPTY]
    done = track_to(16, "--detect", "det", "--every", 2, "--boxes-to-masks")
    assert "Frame 12: a box gives no mask: The function refused it" in done.log
    assert frames_of(job.shapes) == list(range(10, 17))


# --- what ends the run ---------------------------------------------------------------------------


def test_a_frame_that_every_object_is_refused_on_ends_the_run_and_names_the_frame(
    job, track_to, resume, masks, function
):
    """A picture that cannot be decoded must not stop all objects for good."""
    function.refuse = lambda frame, count: 400 if frame == 13 else None
    ended = track_to(14, code=4)
    assert "Frame 13: every object was refused, each one alone." in ended.log
    assert frames_of(job.shapes) == [10] * 3 + [11] * 3 + [12] * 3
    function.refuse = lambda frame, count: None
    resume(ended)
    assert frames_of(job.shapes) == sorted(ALL_FRAMES * 3)


def test_the_message_names_the_picture_as_a_possible_cause_if_the_only_object_is_refused(
    track_to, one_mask, function
):
    function.refuse = lambda frame, count: 400
    assert "picture of this frame cannot be decoded" in track_to(16, code=1).log


def test_lists_of_another_length_end_the_run(job, track_to, masks, function):
    answer = function.answer
    function.answer = lambda request: (200, {**answer(request)[1], "states": [1]})
    assert "The function answered 1 states for 3 objects" in track_to(14, code=1).log
    assert frames_of(job.shapes) == [10, 10, 10]


def test_another_image_size_ends_the_run_with_what_is_done(job, track_to, masks):
    job.sizes = [(64, 48)] * 8 + [(32, 48)] * 17
    assert "Frame 13 is 32x48, the frames before it 64x48" in track_to(14, code=1).log
    assert frames_of(job.shapes) == [10] * 3 + [11] * 3 + [12] * 3


def test_an_object_that_begins_later_on_frames_of_another_size_does_not_end_the_run_before(
    job, track_to, one_mask
):
    job.sizes = [(64, 48)] * 8 + [(32, 48)] * 17
    job.shapes.append(shape("mask", MASK, id=901, frame=14))
    ended = track_to(15, "--all-seeds", code=1)
    assert "Frame 13 is 32x48, the frames before it 64x48" in ended.log
    assert frames_of(job.shapes) == [10, 11, 12, 14]


def test_a_frame_that_cannot_be_noted_in_the_journal_is_not_written(job, track_to, one_mask):
    """Else a resume would write it again."""
    with journal_full_from(12):
        ended = track_to(14, "--json", code=4)
    assert "The disk is away." in ended.log
    assert frames_of(job.shapes) == [10, 11]
    assert (ended.json["frames"], ended.json["objects"][0]["frames"]) == ([11], 1)
