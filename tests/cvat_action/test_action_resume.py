# SPDX-License-Identifier: MIT
"""Runs that are cut off: their journals, and how they go on."""

import json
import math
import re
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import CONVERT, ctrl_c, disk_with
from look import course, frames_of, frames_of_group
from processes import WAIT, command, read_until
from standin_cvat import Fault
from wire import RECTANGLE, keyframe, mask_at, shape, track

from cvat_action.errors import ActionError
from cvat_action.journal import VERSION, Journal, folder, name_of_path, read
from cvat_action.receipt import VERSION as RECEIPT_VERSION
from cvat_action.receipt import receipts_folder

WRITE = "/api/jobs/42/annotations/"
TO_14 = ("track", "--job", 42, "--frame", 10, "--target-frame", 14)
ALL_FRAMES = sorted([10, 11, 12, 13, 14] * 3)
UNTIL_12 = [10] * 3 + [11] * 3 + [12] * 3
PLAN = {"seeds": [], "frames": []}


def waiting(act):
    return act("runs", "--json").json["waiting"]


# --- a run that goes on --------------------------------------------------------------------------


def test_a_resume_goes_on_with_the_tracks_of_the_first_part_and_tracks_only_what_is_left(
    job, cut_off, resume, one_polygon, function
):
    job.tracks = [track(keyframe(10, RECTANGLE), id=5)]
    ended = cut_off(13, 14, CONVERT)
    (number,) = [t["id"] for t in job.tracks if t["id"] != 5]
    made = lambda: next(t for t in job.tracks if t["id"] == number)  # noqa: E731
    assert course(made()) == "10:0 11:1 12:2 (13:2)"
    assert job.shapes == []
    function.calls.clear()
    resume(ended)
    assert [(kind, frame) for kind, frame, _ in function.calls] == [("step", 13), ("step", 14)]
    assert course(made()) == "10:0 11:1 12:2 13:3 14:4 (15:4)"
    (other,) = [t for t in job.tracks if t["id"] != number]
    assert course(other, RECTANGLE) == "10:0 11:1 12:2 13:3 14:4 (15:4)"


def test_a_resume_goes_on_replacing(job, track_to, cut_off, resume, masks):
    track_to(14)
    job.shapes = [s if s["id"] != 20 else {**s, "points": [0, 8, 4, 20, 7, 21]} for s in job.shapes]
    resume(cut_off(13, 14, "--replace", "--object", "20"))
    assert frames_of(job.shapes) == ALL_FRAMES
    assert {tuple(s["points"][:2]) for s in job.shapes if s["group"] == 20} == {(0, 8)}


def test_a_resume_leaves_what_would_be_written_again_as_it_is(
    job, track_to, cut_off, resume, one_mask
):
    track_to(13)
    ids = sorted(s["id"] for s in job.shapes)
    resume(cut_off(12, 13, "--replace"))
    assert sorted(s["id"] for s in job.shapes) == ids


def test_a_resume_with_nothing_left_to_track_is_told_as_json(cvat, job, track_to, resume, masks):
    cvat.faults = [Fault("PATCH", ".*", status=500, times=9)]
    ended = track_to(14, "--wait", 0, code=4)
    cvat.faults = []
    told = resume(ended, "--json").json
    assert (told["complete"], told["frames"]) == (True, [11, 12, 13, 14])
    assert told["written"] == {"shapes_created": 12}
    assert len(job.shapes) == 3 + 3 * 4


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", "/api/lambda/.*", 503, "away", skip=2, times=9),
        Fault("PATCH", WRITE, 503, "busy", skip=1, times=9),
        Fault("PATCH", WRITE, 503, "busy", skip=1, times=9, after=True),
    ],
    ids=["after a deletion", "before a deletion", "deletion without an answer"],
)
def test_a_resume_counts_what_the_run_before_it_changed_and_deleted(
    cvat, job, track_to, resume, one_polygon, fault
):
    job.tracks = [track(keyframe(10, RECTANGLE), id=5)]
    everything = {"shapes_deleted": 1, "tracks_created": 1, "tracks_updated": 1}
    cvat.faults = [fault]
    ended = track_to(14, CONVERT, "--wait", 0, code=4)
    cvat.faults = []
    assert resume(ended, "--json").json["written"] == everything


def test_a_resume_that_fails_at_once_keeps_its_journal(job, track_to, resume, one_mask, function):
    function.refuse = lambda frame, count: 503 if frame == 13 else None
    ended = track_to(13, "--wait", 0, code=4)
    for _ in range(2):
        ended = resume(ended, "--wait", 0, code=4)
        assert ended.journal.exists()
    function.refuse = lambda frame, count: None
    resume(ended)
    assert frames_of(job.shapes) == [10, 11, 12, 13]


@pytest.mark.slow
def test_the_exit_code_of_a_resume_knows_what_was_left_out_before(
    long_job, cut_off, resume, function
):
    long_job.shapes = [shape("mask", mask_at(10), id=900, frame=0)]
    drawn = shape("mask", mask_at(160), id=5000, frame=150)
    function.meanwhile[100] = lambda: long_job.shapes.append(drawn)
    done = resume(cut_off(230, 240, start=0), "--json", code=3)
    assert [left["frames"] for left in done.json["left_out"]] == [[150]]


def test_options_that_a_resume_cannot_use_are_refused(job, cut_off, resume, masks):
    ended = cut_off(13, 14)
    kept = ended.journal.read_bytes()
    for more in (["--dry-run"], ["--job", 42, "--frame", 0], ["--replace"]):
        refused = resume(ended, *more, code=2)
        assert f"leave out {', '.join(str(m) for m in more if str(m)[0] == '-')}." in refused.log
    assert ended.journal.read_bytes() == kept
    assert frames_of(job.shapes) == UNTIL_12
    assert resume(ended, "--json").json["complete"] is True


# --- journals ------------------------------------------------------------------------------------


def test_the_command_runs_lists_unfinished_runs_and_discard_drops_one(
    cvat, job, act, track_to, cut_off, one_mask
):
    assert "There are no journals and no receipts." in act("runs").out
    cut_off(12, 13)
    (there,) = waiting(act)
    assert (there["job"], there["frames"], there["tracked"]) == (42, 3, 1)
    assert not there["going_on"]
    in_the_way = track_to(13, code=1).log
    assert f"{cvat.url} track --resume {there['journal']}, drop it: " in in_the_way
    act("discard", there["journal"])
    assert waiting(act) == []
    track_to(13, "--replace")
    assert frames_of(job.shapes) == [10, 11, 12, 13]


def test_a_journal_of_another_version_can_be_dropped(act, cut_off, resume, one_mask):
    ended = cut_off(12, 13)
    text = ended.journal.read_text()
    ended.journal.write_text(re.sub(r'"journal": \d+', '"journal": 1', text, count=1))
    assert f"-m cvat_action discard {ended.journal}" in resume(ended, code=1).log
    act("discard", ended.journal)
    assert not ended.journal.exists()


@pytest.mark.parametrize("content", [b"", b'{"journal": 4, "receipt": {"pa'])
def test_a_journal_that_was_cut_off_in_its_first_line_can_be_dropped(
    act, track_to, cut_off, one_mask, content
):
    path = cut_off(12, 13).journal
    path.write_bytes(content)
    assert f"-m cvat_action discard {path}" in track_to(13, code=1).log
    assert f"Discarded {path}." in act("discard", path).out
    track_to(13, "--replace")


def test_an_empty_journal_in_any_folder_can_be_dropped(act, tmp_path):
    path = tmp_path / "run.jsonl"
    path.touch()
    act("discard", path)
    assert not path.exists()


def test_a_journal_that_is_just_begun_is_not_dropped(act):
    path = folder() / "run.jsonl"
    journal = Journal.begin(path, PLAN)
    path.write_bytes(b"")
    assert "is still going on in another process" in act("discard", path, code=1).log
    assert path.exists()
    journal.close()


@pytest.mark.parametrize("command", ["discard", "track --resume"])
def test_a_receipt_is_no_journal_and_stays(cvat, act, track_to, one_mask, receipts, command):
    track_to(13)
    (receipt,) = receipts()
    copy = folder() / "copy.jsonl"
    copy.write_bytes(receipt.read_bytes())
    for path in (receipt, copy):
        said = act(*command.split(), path, code=1).log
        assert f"-m cvat_action --server-host {cvat.url} undo {path}\n" in said
    assert receipts() == [receipt]
    assert copy.exists()


def test_a_journal_is_no_receipt(cvat, job, act, cut_off, one_mask, receipts):
    of_files = folder() / "files.jsonl"
    Journal.begin(of_files, PLAN).close()
    assert f"discard {of_files}\n" in act("undo", of_files, code=1).log
    journal = cut_off(12, 13).journal
    (receipt,) = receipts()
    assert f"--server-host {cvat.url} undo {receipt}\n" in act("undo", journal, code=1).log
    assert frames_of(job.shapes) == [10, 11]


def test_ctrl_c_while_a_journal_is_begun_leaves_none(act, track_to, one_mask, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("cvat_action.journal._lock", ctrl_c)
        track_to(13, code=130)
    assert waiting(act) == []


@pytest.mark.parametrize(
    "content", [None, b"\x89PNG\xff\xfe", b"{}\n", b'["journal"]\n', b'"a journal"\n', "folder"]
)
@pytest.mark.parametrize(
    ("command", "what"),
    [("undo", "receipt"), ("discard", "journal"), ("track --resume", "journal")],
)
def test_files_that_are_none_of_ours_are_named_and_stay(act, tmp_path, command, what, content):
    path = tmp_path / "file"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    done = act(*command.split(), path, code=1)
    reason = {None: "No such file or directory.", "folder": "Is a directory."}.get(
        content, f"is not a {what} of this command, or is damaged."
    )
    assert done.log.endswith(f"{reason}\n")
    assert str(path) in done.log
    assert path.exists() == (content is not None)


@pytest.mark.parametrize(
    "parts",
    [
        *({}, {"plan": []}, {"plan": {"files": 1}}, {"plan": {"files": {}}}, {"receipt": []}),
        {"plan": {"server": ["x"]}},
    ],
)
@pytest.mark.parametrize("command", ["track", "local"])
def test_a_journal_whose_parts_are_missing_or_no_objects_is_damaged(act, tmp_path, command, parts):
    path = tmp_path / "run.jsonl"
    path.write_text(json.dumps({"journal": VERSION, "plan": {}, **parts}) + "\n")
    assert "or is damaged." in act(command, "--resume", path, code=1).log


NO_NUMBER = [[[math.inf, 1, 4, 20, 7, 21], 0.9, False, False]]
NEVER_WRITTEN = [
    "[" * 100_000,
    json.dumps({"frame": 13, "results": NO_NUMBER, "stopped": [None], "states": [None]}),
]


@pytest.mark.parametrize("line", NEVER_WRITTEN, ids=["nested", "no number"])
def test_a_line_that_holds_what_no_run_writes_is_damage(act, cut_off, one_mask, line):
    cut_off(12, 13)
    path = Path(waiting(act)[0]["journal"])
    with path.open("a") as file:
        file.write(line + "\n")
    assert "or is damaged." in act("track", "--resume", path, code=1).log
    if line[0] == "[":
        assert "or is damaged." in act("runs").out


def test_a_receipt_without_its_parts_is_damaged_and_hides_no_other_run(act, track_to, one_mask):
    track_to(12)
    path = receipts_folder() / "cut.jsonl"
    path.write_text(json.dumps({"receipt": RECEIPT_VERSION}) + "\n")
    assert "or is damaged." in act("undo", path, code=1).log
    told = act("runs").out
    assert f"{path} is not a receipt of this command, or is damaged." in told
    assert ": 2 created, " in told


def test_the_journal_of_a_run_on_another_server_names_that_one(track_to, cut_off, one_mask, act):
    cut_off(12, 13)
    path = Path(waiting(act)[0]["journal"])
    head, _, rest = path.read_text().partition("\n")
    there = json.loads(head)
    there["plan"]["server"] = "https://other.example"
    path.write_text(json.dumps(there) + "\n" + rest)
    said = track_to(13, code=1).log
    assert f"--server-host https://other.example track --resume {path}, drop it: " in said


def test_a_journal_where_a_folder_is_wanted_is_named(track_to, one_mask, tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "run.jsonl", tmp_path):
        refused = track_to(14, "--journal", path, code=1)
        assert re.search("cannot be written .* name another place", refused.log)
    assert "it is no file" in refused.log


@pytest.mark.parametrize("content", ["{}", '{"images": []}', "not JSON"])
def test_a_file_that_is_no_journal_is_not_called_one(track_to, one_mask, tmp_path, content):
    path = tmp_path / "seeds.json"
    path.write_text(content)
    refused = track_to(14, "--journal", path, code=1)
    assert f"{path} is there already and is no journal of this command" in refused.log
    assert "discard" not in refused.log
    assert path.read_text() == content


def test_a_full_disk_leaves_a_journal_that_can_be_read_and_its_owner_alone_reads_it(tmp_path):
    path = tmp_path / "run.jsonl"
    with disk_with(5), pytest.raises(ActionError, match="cannot be written"):
        Journal.begin(path, PLAN)
    assert not path.exists()
    journal = Journal.begin(path, PLAN)
    assert path.stat().st_mode & 0o777 == 0o600
    journal.frame(1, [])
    with disk_with(path.stat().st_size + 10), pytest.raises(ActionError, match="cannot be written"):
        journal.frame(2, [])
    journal.frame(3, [])
    journal.close()
    assert read(path).done == [1, 3]


def test_different_paths_have_different_journal_names():
    tokyo, osaka = (Path(f"/data/{city}/o.json") for city in ("\u6771\u4eac", "\u5927\u962a"))
    others = [Path("/data/a b.json"), Path("/data/a_b.json")]
    assert len({name_of_path(p) for p in (tokyo, osaka, *others)}) == 4
    assert name_of_path(tokyo) == name_of_path(tokyo)
    assert len(name_of_path(Path("/" + "long/" * 100 + "o.json"))) < 120


def test_nothing_can_fail_between_the_journal_and_the_first_frame(cvat, act, track_to, one_mask):
    cvat.faults = [Fault("GET", "/api/lambda/functions", 503, "away", skip=1)]
    track_to(13, "--wait", 0)
    assert waiting(act) == []


# --- processes that are stopped ------------------------------------------------------------------


@pytest.fixture
def at_frame_13(function):
    """`reached` is set when the function is asked for frame 13, and `go_on` lets it answer."""
    at = SimpleNamespace(reached=threading.Event(), go_on=threading.Event())
    function.meanwhile[13] = lambda: (at.reached.set(), at.go_on.wait(WAIT))
    yield at
    at.go_on.set()


def test_a_journal_of_another_run_is_never_written_over(
    cvat, job, act, track_to, resume, masks, at_frame_13, tmp_path
):
    """Neither of one that is still going on nor of one that was killed."""
    process = command(cvat, tmp_path / "state", *TO_14, "--object", 20)
    assert at_frame_13.reached.wait(WAIT)
    second = track_to(14, "--object", 30, code=1)
    journal = second.log.split("with the journal ")[1].split(". Wait")[0]
    held = act("track", "--resume", journal, code=1)
    assert "is still going on in another process" in held.log
    act("discard", journal, code=1)
    assert "still going on in another process" in second.log
    process.kill()
    process.communicate(timeout=WAIT)
    with Path(journal).open("a") as file:
        file.write('{"frame": 13, "resul')  # the last line may be cut short
    at_frame_13.go_on.set()
    third = track_to(14, "--object", 20, code=1)
    assert "Such a run was cut off before" in third.log
    assert len(job.shapes) == 3
    resume(third)
    assert [frames_of_group(job, group) for group in (20, 30)] == [[10, 11, 12, 13, 14], [10]]
    track_to(14, "--object", 30)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_ctrl_c_keeps_what_is_done(cvat, job, act, masks, at_frame_13, tmp_path, name):
    process = command(cvat, tmp_path, *TO_14, "--json")
    assert at_frame_13.reached.wait(WAIT)
    process.send_signal(getattr(signal, name))
    out, log = process.communicate(timeout=WAIT)
    assert process.returncode == 130
    assert "Stopped by Ctrl+C. 2 of 4 frames are tracked and written" in log
    assert "Traceback" not in log
    assert frames_of(job.shapes) == UNTIL_12
    assert json.loads(out)["complete"] is False
    at_frame_13.go_on.set()
    act("track", "--resume", json.loads(out)["resume"].split()[-1])
    assert len(job.shapes) == 3 + 3 * 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "code"),
    [
        (("SIGINT",), 0),
        (("SIGINT", "SIGINT"), 130),
        (("SIGTERM",), 0),
        (("SIGHUP",), 0),
        (("SIGHUP", "SIGHUP"), 0),
        (("SIGHUP", "SIGINT"), 130),
    ],
)
def test_a_signal_while_writing_still_writes_and_a_second_one_that_is_no_hang_up_stops(
    cvat, job, act, masks, tmp_path, names, code
):
    hold = threading.Event()
    cvat.faults = [Fault("PATCH", WRITE, 503, "busy", hold=hold)]
    process = command(cvat, tmp_path, *TO_14)
    assert cvat.faults[0].reached.wait(WAIT)
    process.send_signal(getattr(signal, names[0]))
    read_until(process, "Writing what is done")
    for name in names[1:]:
        process.send_signal(getattr(signal, name))
    if code:
        process.wait(WAIT)
    hold.set()
    _, log = process.communicate(timeout=WAIT)
    assert process.returncode == code
    if code:
        assert "4 of 4 frames are tracked, and not all of it is written" in log
        act("track", "--resume", log.split("--resume ")[-1].split()[0])
    assert len(job.shapes) == 3 + 3 * 4


@pytest.mark.slow
def test_a_pipe_that_was_closed_leaves_no_journal(cvat, job, one_mask, tmp_path):
    for words in (TO_14, ("runs",)):
        process = command(cvat, tmp_path, *words)
        process.stdout.close()
        said = process.stderr.read()
        process.stderr.close()
        assert process.wait(WAIT) == 0
        assert "The summary could not be printed: Broken pipe." in said
        assert "Traceback" not in said
    assert len(job.shapes) == 5
    assert list(tmp_path.glob("cvat-action/*.jsonl")) == []


def test_a_journal_of_a_server_given_to_local_names_the_command_that_goes_on(
    cvat, act, cut_off, one_mask
):
    ended = cut_off(13, 15)
    refused = act("local", "--resume", ended.journal, code=1)
    whole = f"-m cvat_action --server-host {cvat.url} track --resume {ended.journal}\n"
    assert refused.log.endswith(
        f"belongs to a run on a server. Go on with it: {sys.executable} {whole}"
    )


def test_a_journal_of_files_given_to_track_names_the_command_that_goes_on(
    act, cut_off, resume, one_mask
):
    ended = cut_off(13, 15)
    head, frames = ended.journal.read_text().split("\n", 1)
    content = json.loads(head)
    content["plan"]["server"] = ""
    ended.journal.write_text(f"{json.dumps(content)}\n{frames}")
    assert f"-m cvat_action local --resume {ended.journal}\n" in resume(ended, code=1).log
