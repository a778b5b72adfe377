# SPDX-License-Identifier: MIT
"""`--task`: the jobs of a task that hold the frame, one after the other."""

import signal
import threading
from dataclasses import replace

import pytest
from conftest import LABELS
from look import frames_of
from processes import WAIT, command, read_until
from standin_cvat import Fault
from wire import MASK, RECTANGLE, shape

TASK = ("track", "--task", 7, "--frame")


@pytest.fixture
def another(cvat, job):
    """Adds a job like the first one, with an object of its own."""

    def another(number, **more):
        drawn = [shape("mask", MASK, id=900 + number)]
        return cvat.add_job(replace(job, **{"id": number, "shapes": drawn, "tracks": []} | more))

    return another


def test_a_task_stands_for_its_jobs_that_hold_the_frame(job, act, another, one_mask):
    later = {"start_frame": 8, "stop_frame": 20}
    other = another(43, start_frame=0, stop_frame=8)
    third, truth = another(44, **later), another(46, **later, type="ground_truth")
    another(45, **later, shapes=[])
    done = act(*TASK, 10, "--target-frame", 12, "--json")
    assert "Job 45 is passed over: There is nothing to track on frame 10 of job 45." in done.log
    assert [(told["job"], "passed_over" in told) for told in done.json] == [
        (42, False), (44, False), (45, True),
    ]  # fmt: skip
    assert [len(each.shapes) for each in (job, other, third, truth)] == [3, 1, 3, 1]
    assert "No job of task 7 holds frame 40" in act(*TASK, 40, code=1).log
    gone = act("track", "--task", 8, "--frame", 10, code=1)
    assert "There is no task 8" in gone.log


def test_a_job_that_ends_before_the_target_frame_is_tracked_to_its_end(job, act, another, one_mask):
    later, same = another(43, start_frame=8, stop_frame=20), another(44, stop_frame=10)
    job.stop_frame = 14
    done = act(*TASK, 10, "--target-frame", 16)
    assert "to 14: it is tracked to frame 14." in done.log
    assert frames_of(later.shapes) == list(range(10, 17))
    assert frames_of(job.shapes) == list(range(10, 15))
    assert frames_of(same.shapes) == [10]
    assert (
        "Job 44 is passed over: It holds frames 5 to 10, none of them beyond frame 10." in done.log
    )
    for each in (job, later):
        each.shapes = []
    act(*TASK, 10, "--target-frame", 16, code=1)
    beyond = act(*TASK, 10, "--target-frame", 21, code=1)
    assert "Target frame 21 is out of range: job 43 holds frames 8 to 20." in beyond.log


def test_a_job_that_cannot_be_read_does_not_stop_the_others(cvat, job, act, another, one_mask):
    another(41)
    cvat.faults = [Fault("GET", "/api/jobs/41/data/meta", 500, "x", times=99)]
    done = act(*TASK, 10, "--target-frame", 12, "--wait", 0, "--json", code=1)
    assert [entry["job"] for entry in done.json] == [41, 42]
    assert len(job.shapes) == 3


@pytest.mark.slow
def test_ctrl_c_while_the_last_frames_of_a_job_are_written_ends_the_task(
    cvat, job, another, tmp_path, one_mask
):
    other = another(44)
    hold = threading.Event()
    cvat.faults = [Fault("PATCH", ".*", 503, "busy", hold=hold)]
    process = command(cvat, tmp_path, *TASK, 10, "--target-frame", 12)
    assert cvat.faults[0].reached.wait(WAIT)
    process.send_signal(signal.SIGINT)
    read_until(process, "Writing what is done")
    hold.set()
    _, rest = process.communicate(timeout=WAIT)
    assert process.returncode == 130
    assert "Stopped by Ctrl+C." in rest
    assert (len(job.shapes), len(other.shapes)) == (3, 1)


# --- overlapping jobs, of which only some have the object ----------------------------------------


@pytest.fixture
def drawn(job):
    """On frame 26, which a second job of the task holds too."""
    job.shapes = [shape("rectangle", RECTANGLE, id=900, frame=26)]


def test_a_job_without_the_named_object_is_passed_over(job, act, drawn, another):
    there = [shape("rectangle", RECTANGLE, id=950, frame=26)]
    other = another(43, start_frame=25, shapes=there)
    done = act(*TASK, 26, "--object", 900, "--json")
    assert [entry["job"] for entry in done.json] == [42, 43]
    assert "There is no object 900" in done.json[1]["passed_over"]
    assert frames_of(job.shapes) == [26, 27, 28, 29]
    assert len(other.shapes) == 1


def test_names_of_objects_of_several_jobs_count_each_in_its_own_job(job, act, drawn, another):
    there = [shape("rectangle", RECTANGLE, id=number, frame=26) for number in (950, 951)]
    other = another(43, start_frame=25, shapes=there)
    to = (*TASK, 26, "--target-frame", 27)
    gone = act(*to, "--object", 900, "--exclude", 999, code=1)
    assert "There is no object 999" in gone.log
    act(*to, "--object", 900, "--object", 951, "--exclude", 950)
    assert (frames_of(job.shapes), frames_of(other.shapes)) == ([26, 27], [26, 26, 27])


def test_a_task_of_which_no_job_has_an_object_fails(act, another):
    another(43, start_frame=25, shapes=[])
    done = act(*TASK, 26, code=1)
    assert done.log.count("There is nothing to track on frame 26") == 2


def test_a_job_without_the_label_is_not_passed_over(act, drawn, another):
    another(43, start_frame=25, shapes=[], labels=LABELS[1:])
    act(*TASK, 26, "--label", "car", code=1)
