# SPDX-License-Identifier: MIT
"""Receipts: `undo` takes a run back, `runs` lists, `discard` drops."""

from pathlib import Path

from conftest import MASK, POLYGON, keyframe, shape, shifted, track
from standin_cvat import Fault

TO_13 = ("track", "--job", 42, "--frame", 10, "--target-frame", 13)
CONVERT = "--convert-polygon-shapes-to-tracks"


def plain(objects):
    """Without ids, which a restored shape has new."""
    return sorted(
        repr([o["label_id"], o["source"], [(k["frame"], k["points"], k["outside"])
              for k in o.get("shapes", [o])]])
        for o in objects
    )  # fmt: skip


def receipt(act):
    return Path(act("runs", "--json").json["receipts"][-1]["receipt"])


def test_undo_restores_what_was_there_before(cvat, job, act, function):
    job.shapes = [
        shape("mask", MASK, id=900, score=1.0),
        shape("polygon", POLYGON, id=901, score=1.0),
    ]
    job.tracks = [track(keyframe(8, shifted(POLYGON, 9)), keyframe(20, POLYGON), id=5)]
    before = plain(job.shapes), plain(job.tracks)
    assert act(*TO_13, CONVERT).code == 0
    assert len(job.shapes) == 1 + 3
    assert len(job.tracks) == 2
    assert receipt(act).stat().st_mode & 0o777 == 0o600
    undone = act("undo", receipt(act))
    assert undone.code == 0
    assert (plain(job.shapes), plain(job.tracks)) == before
    again = act("undo", receipt(act))
    assert (again.code, again.log) == (0, ""), "it takes nothing of its own for a person's"
    assert (plain(job.shapes), plain(job.tracks)) == before


def test_undo_knows_what_was_created_though_the_answer_was_lost(cvat, job, act):
    job.shapes = [
        shape("mask", MASK, id=900, score=1.0),
        shape("polygon", POLYGON, id=901, score=1.0),
    ]
    before = plain(job.shapes), []
    cvat.faults = [Fault("PATCH", ".*", 504, "<html>", after=True, skip=n) for n in (0, 1)]
    assert act(*TO_13, CONVERT).code == 0
    assert len(job.shapes) == 1 + 3
    assert act("undo", receipt(act)).code == 0
    assert (plain(job.shapes), plain(job.tracks)) == before


def test_undo_keeps_what_a_person_changed_since(cvat, job, act, function):
    job.shapes = [shape("mask", MASK, id=900, score=1.0)]
    assert act(*TO_13).code == 0
    edited = next(s for s in job.shapes if s["frame"] == 12)
    edited["points"], edited["source"] = [0.0, 1.0, 3.0, 3.0, 3.0, 3.0], "semi-auto"
    undone = act("undo", receipt(act))
    assert undone.code == 3
    assert f"A person changed shape {edited['id']} since; it was kept." in undone.log
    assert sorted(s["frame"] for s in job.shapes) == [10, 12]


def test_runs_lists_what_waits_and_discard_drops_it(cvat, job, act, function):
    assert "There are no journals and no receipts." in act("runs").out
    job.shapes = [shape("mask", MASK, id=900, score=1.0)]
    function.refuse = lambda frame, count: 503 if frame == 12 else None
    assert act(*TO_13, "--wait", 0).code == 4
    (waiting,) = act("runs", "--json").json["waiting"]
    assert (waiting["job"], waiting["frames"], waiting["tracked"]) == (42, 3, 1)
    assert not waiting["going_on"]
    function.refuse = lambda frame, count: None
    assert "was cut off" in act(*TO_13).log, "the journal that waits is named first"
    assert act("discard", waiting["journal"]).code == 0
    assert act("runs", "--json").json["waiting"] == []
    assert act(*TO_13, "--replace").code == 0
    assert sorted(s["frame"] for s in job.shapes) == [10, 11, 12, 13]


def test_undo_restores_nothing_beside_what_a_person_corrected(act, cvat, job, function):
    job.shapes = [shape("mask", MASK, id=900, score=1.0)]
    assert act(*TO_13).code == 0
    elsewhere = {"type": "mask", "points": [0, 3, 1, 4, 9, 20, 12, 21]}
    function.answers = {(20, 12): elsewhere, (20, 13): elsewhere}
    assert act(*TO_13, "--replace").code == 0
    receipts = act("runs", "--json").json["receipts"]
    (replacing,) = [r["receipt"] for r in receipts if r["changed"]]
    corrected = next(s for s in job.shapes if s["frame"] == 12)
    corrected["points"], corrected["source"] = [0, 3, 1, 4, 30, 20, 33, 21], "semi-auto"
    undone = act("undo", replacing)
    assert undone.code == 3
    assert f"A person changed shape {corrected['id']} since" in undone.log
    assert [s["frame"] for s in job.shapes].count(12) == 1
    assert corrected in job.shapes
    # on 13 nobody changed anything: what the run replaced is back
    assert [s["points"][-4] for s in job.shapes if s["frame"] == 13] == [7]


def test_undo_restores_no_polygon_beside_its_track_that_a_person_corrected(act, cvat, job):
    job.shapes = [shape("polygon", POLYGON, id=901, score=1.0)]
    assert act(*TO_13, CONVERT).code == 0
    job.tracks[0]["shapes"][2]["points"] = shifted(POLYGON, 7)
    undone = act("undo", receipt(act))
    assert undone.code == 3
    assert "0 shapes restored" in undone.out
    assert job.shapes == []
    assert len(job.tracks) == 1


def test_undo_keeps_a_result_of_which_a_person_set_an_attribute(act, cvat, job):
    job.shapes = [shape("mask", MASK, id=900, score=1.0)]
    assert act(*TO_13).code == 0
    named = next(s for s in job.shapes if s["frame"] == 12)
    named["attributes"] = [{"spec_id": 31, "value": "blue"}]  # CVAT's page leaves the source
    assert act("undo", receipt(act)).code == 3
    assert sorted(s["frame"] for s in job.shapes) == [10, 12]
