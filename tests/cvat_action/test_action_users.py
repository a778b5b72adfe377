# SPDX-License-Identifier: MIT
"""What users of cvat-cli expect: which objects and jobs are tracked, and how much is told."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import MASK, POLYGON, RECTANGLE, automatic, keyframe, shape, shifted, track

ROOT = Path(__file__).resolve().parents[2]
TO_14 = ("track", "--job", 42, "--frame", 10, "--target-frame", 14)


def frames_of(job, group):
    return sorted(s["frame"] for s in job.shapes if s["group"] == group)


def test_all_seeds_are_tracked_each_from_its_frame_on(cvat, job, act):
    later = [0, 3, 1, 4, 30, 30, 33, 31]
    job.shapes = [
        shape("mask", MASK, id=900, group=1),
        shape("mask", later, id=901, frame=12, group=2),
        shape("mask", [0, 8, 40, 40, 43, 41], id=902, frame=12, group=3),
        shape("mask", later, id=903, frame=13, group=4, source="auto"),
    ]
    job.tracks = [track(keyframe(13, POLYGON), id=5)]
    done = act(*TO_14, "--all-seeds", "--exclude", "shape:902", "--json")
    assert done.code == 0
    assert [o["object"] for o in done.json["objects"]] == ["900", "901", "track:5"]
    assert frames_of(job, 1) == [10, 11, 12, 13, 14]
    assert frames_of(job, 2) == [12, 13, 14]
    assert frames_of(job, 3) == [12]
    assert frames_of(job, 4) == [13]
    assert [k["frame"] for k in job.tracks[0]["shapes"]] == [13, 14, 15]


def test_a_corrected_result_is_no_seed_of_its_own(cvat, job, act):
    job.shapes = [shape("mask", MASK, id=900)]
    assert act(*TO_14).code == 0
    (corrected,) = [s for s in job.shapes if s["frame"] == 12]
    corrected |= {"source": "semi-auto", "points": [0, 8, 30, 20, 33, 21]}
    again = act(*TO_14, "--all-seeds", "--replace", "--json")
    assert [o["object"] for o in again.json["objects"]] == ["900"]
    assert sorted(s["frame"] for s in job.shapes) == [10, 11, 12, 13, 14]
    assert [s["points"][-4] for s in job.shapes if s["frame"] == 14] == [32]


def test_a_polygon_of_a_later_frame_becomes_a_track_from_there_on(cvat, job, act):
    attribute = {"spec_id": 32, "value": "true"}
    job.shapes = [
        shape("mask", MASK, id=900),
        shape("polygon", POLYGON, id=901, frame=12, attributes=[attribute]),
    ]
    assert act(*TO_14, "--all-seeds", "--convert-polygon-shapes-to-tracks").code == 0
    (made,) = job.tracks
    assert [k["frame"] for k in made["shapes"]] == [12, 13, 14, 15]
    assert made["shapes"][0]["points"] == POLYGON
    assert [k["attributes"] for k in made["shapes"]] == [[attribute], [], [], []]
    assert 901 not in [s["id"] for s in job.shapes]


def test_a_polygon_of_a_later_frame_that_is_edited_meanwhile_stays_beside_its_track(
    cvat, job, act, function
):
    edited = shape("polygon", shifted(POLYGON, 9), id=901, frame=12, source="manual")

    def edit(frame, count):
        if frame == 13:
            job.shapes = [s for s in job.shapes if s["id"] != 901] + [edited]
        return 0.0

    job.shapes = [shape("mask", MASK, id=900), shape("polygon", POLYGON, id=901, frame=12)]
    function.seconds = edit
    assert act(*TO_14, "--all-seeds", "--convert-polygon-shapes-to-tracks").code == 3
    assert edited in job.shapes
    assert [k["frame"] for k in job.tracks[0]["shapes"]] == [13, 14, 15]


def test_a_type_chooses_the_objects(cvat, job, act):
    job.shapes = [
        shape("mask", MASK, id=900),
        shape("rectangle", RECTANGLE, id=901),
        shape("polygon", POLYGON, id=902),
    ]
    job.tracks = [track(keyframe(10, shifted(POLYGON, 20)), id=5)]
    shown = act(*TO_14, "--type", "polygon", "--type", "mask", "--dry-run", "--json").json
    assert [o["object"] for o in shown["objects"]] == ["900", "902", "track:5"]
    assert act(*TO_14, "--type", "rectangle").code == 0
    assert {s["type"] for s in job.shapes if s["frame"] > 10} == {"rectangle"}


def doubtful(job, function):
    """A mask and a track of which the frames 12 and 14 are doubtful."""
    job.shapes = [shape("mask", MASK, id=900)]
    job.tracks = [track(keyframe(10, POLYGON), automatic(20, POLYGON), id=5)]
    for y in (20, 2):
        function.scores |= {(y, 12): 0.49, (y, 14): 0.2, (y, 11): 0.5}


def test_results_that_are_less_sure_are_not_written(cvat, job, act, function):
    doubtful(job, function)
    assert "confidence below 0.5" in act(*TO_14, "--min-score", 0.5, "--dry-run").out
    done = act(*TO_14, "--min-score", 0.5)
    assert done.code == 0
    assert [line.split() for line in done.out.splitlines()][1][:8] == [
        *("900", "car", "mask", "4", "0", "2", "0.50", "on"),
    ]
    assert sorted(s["frame"] for s in job.shapes) == [10, 11, 13]
    assert {k["frame"]: k["outside"] for k in job.tracks[0]["shapes"]} == {
        **{10: False, 11: False, 12: True, 13: False, 14: True, 15: False, 20: False},
    }
    # the tracker went on from what was not written
    assert [s["points"][-4] for s in job.shapes] == [4, 5, 7]

    assert act(*TO_14, "--object", 900, "--replace").code == 0
    again = act(*TO_14, "--object", 900, "--replace", "--min-score", 0.5, "--json").json
    assert sorted(s["frame"] for s in job.shapes) == [10, 11, 13]
    assert again["objects"][0]["unsure_frames"] == [12, 14]


def test_a_resumed_run_leaves_out_the_same_results(cvat, job, act, function):
    doubtful(job, function)
    function.refuse = lambda frame, count: 503 if frame == 13 else None
    ended = act(*TO_14, "--min-score", 0.5, "--wait", 0)
    assert ended.code == 4
    function.refuse = lambda frame, count: None
    done = act("track", "--resume", ended.log.split("--resume ")[-1].split()[0], "--json").json
    assert [o["unsure_frames"] for o in done["objects"]] == [[12, 14], [12, 14]]
    assert sorted(s["frame"] for s in job.shapes) == [10, 11, 13]


def test_a_function_without_confidences_is_told(cvat, job, act, function):
    job.shapes = [shape("mask", MASK, id=900)]
    function.scores = {(20, frame): None for frame in range(10, 15)}
    done = act(*TO_14, "--min-score", 0.5)
    assert "gives no confidence for object 900" in done.log
    assert sorted(s["frame"] for s in job.shapes) == [10, 11, 12, 13, 14]


def test_a_task_stands_for_its_jobs_that_hold_the_frame(cvat, job, act):
    job.shapes = [shape("mask", MASK, id=900)]
    other, third, empty, truth = (
        cvat.add_job(
            replace(
                job,
                id=number,
                start_frame=first,
                stop_frame=last,
                shapes=[shape("mask", MASK, id=900 + number)],
                tracks=[],
            )
        )
        for number, first, last in ((43, 0, 8), (44, 8, 20), (45, 8, 20), (46, 8, 20))
    )
    empty.shapes, truth.type = [], "ground_truth"
    done = act("track", "--task", 7, "--frame", 10, "--target-frame", 12, "--json")
    assert done.code == 0
    assert "Job 45 is passed over: There is nothing to track on frame 10 of job 45." in done.log
    assert [(told["job"], "passed_over" in told) for told in done.json] == [
        (42, False), (44, False), (45, True),
    ]  # fmt: skip
    assert [len(each.shapes) for each in (job, other, third, truth)] == [3, 1, 3, 1]
    none = act("track", "--task", 7, "--frame", 40)
    assert (none.code, "No job of task 7 holds frame 40" in none.log) == (1, True)
    gone = act("track", "--task", 8, "--frame", 10)
    assert (gone.code, "There is no task 8" in gone.log) == (1, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--all-seeds", "--exclude", "999"), "no object 999 drawn on frames 10 to 14"),
        (("--all-seeds", "--object", "car"), "write 17 or track:5"),
        (("--exclude", "999"), "There is no object 999 on frame 10"),
        (("--type", "polygon"), "nothing to track on frame 10"),
    ],
)
def test_objects_that_are_not_there_are_named(cvat, job, act, options, said):
    job.shapes = [shape("mask", MASK, id=900)]
    done = act(*TO_14, *options, "--json")
    assert done.code == 1
    assert said in done.log
    # for scripts, too
    assert said in done.json["error"]
    assert done.json["resume"] is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--type", "points"), "invalid choice: 'points'"),
        (("--min-score", "50"), "'50' is not a number from 0 to 1"),
        (("--all-seeds", "--keyframes"), "give one of them"),
        (("--task", "7"), "--job and --task contradict each other"),
        (("--every", "5"), "--every is for --detect or --everything"),
        (("--map", "a=b"), "--map is for --detect."),
    ],
)
def test_options_that_contradict_each_other_are_a_usage_error(cvat, act, options, said):
    done = act(*TO_14, *options)
    assert (done.code, said in done.log) == (2, True)
    assert cvat.requests == []


@pytest.mark.parametrize("content", [None, b"\x89PNG\xff\xfe", b"{}\n", "folder"])
@pytest.mark.parametrize(
    ("command", "what"),
    [("undo", "receipt"), ("discard", "journal"), ("track --resume", "journal")],
)
def test_files_that_are_none_of_ours_are_named(act, tmp_path, command, what, content):
    path = tmp_path / "file"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    done = act(*command.split(), path)
    assert done.code == 1
    reason = {None: "No such file or directory.", "folder": "Is a directory."}.get(
        content, f"is not a {what} of this command, or is damaged."
    )
    assert done.log.endswith(f"{reason}\n")
    assert str(path) in done.log


def test_a_journal_in_the_place_of_a_folder_is_named(cvat, job, act, tmp_path):
    job.shapes = [shape("mask", MASK, id=900)]
    done = act(*TO_14, "--journal", tmp_path)
    assert (done.code, "it is no file" in done.log) == (1, True)


def test_how_much_is_told(cvat, job, act, function, monkeypatch):
    job.shapes = [shape("mask", MASK, id=900)]
    monkeypatch.setattr("cvat_action.run.LOG_SECONDS", 0.0)
    lines = act(*TO_14).log
    assert [f"Frame {11 + n}: {n + 1} of 4 frames, 1 object." in lines for n in range(4)] == [
        True
    ] * 4
    assert act(*TO_14, "--replace", "--quiet").log == ""
    debug = act(*TO_14, "--replace", "--debug").log
    assert "POST" in debug
    assert "200" in debug
    assert act("--version").out.startswith("cvat-sam2 ")


@pytest.mark.slow
def test_it_can_be_installed_as_a_command(tmp_path):
    source, target = tmp_path / "source", tmp_path / "site"
    unwanted = shutil.ignore_patterns(".*", "node_modules", "out", "build", "tests", "docs")
    shutil.copytree(ROOT, source, ignore=unwanted)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", target, source], check=True)
    environment = {**os.environ, "PYTHONPATH": str(target)}
    for command, said in (
        (["--version"], "cvat-sam2 0.1.0\n"),
        (["local", "--help"], "--annotations"),
    ):
        run = subprocess.run(
            [target / "bin" / "cvat-sam2", *command],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert said in run.stdout
    import_local = "import cvat_action.local; print(cvat_action.local.__file__)"
    run = subprocess.run(
        [sys.executable, "-c", import_local],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run.stdout.startswith(str(target))
