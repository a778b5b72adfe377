# SPDX-License-Identifier: MIT
"""What runs left on this machine: journals that wait, and receipts of what was written."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cvat_action import journal as journals
from cvat_action import report
from cvat_action.commands import COMPLETE
from cvat_action.errors import ActionError
from cvat_action.journal import Journal
from cvat_action.receipt import read_undo, receipts_folder


def show_runs(*, as_json: bool) -> int:
    """Journals that wait, and receipts of what was written."""
    waiting = []
    for path in sorted(journals.folder().glob("*.jsonl")):
        entry: dict[str, Any] = {"journal": str(path)}
        try:
            entry |= _waiting(path)
        except ActionError as error:
            entry["problem"] = str(error)
        waiting.append(entry)
    receipts: list[dict[str, Any]] = []
    for path in sorted(receipts_folder().glob("*.jsonl")):
        try:
            undo = read_undo(path)
        except ActionError as error:
            receipts.append({"receipt": str(path), "problem": str(error)})
            continue
        receipts.append(
            {
                "receipt": str(path),
                "server": undo.head["server"],
                "job": undo.head["job"],
                "time": undo.head["time"],
                "created": sum(len(ids) for ids in undo.created.values()),
                "changed": len(undo.before) + len(undo.deleted),
            }
        )
    with report.telling():
        _print(waiting, receipts, as_json=as_json)
    return COMPLETE


def _print(
    waiting: Sequence[dict[str, Any]], receipts: Sequence[dict[str, Any]], *, as_json: bool
) -> None:
    if as_json:
        print(json.dumps({"waiting": waiting, "receipts": receipts}, indent=2))
        return
    for e in waiting:
        print(f"{e['journal']}\n  {e.get('problem') or _state(e)}")
    for e in receipts:
        state = e.get("problem") or (
            f"job {e['job']} on {e['server']}, {e['time']}: {e['created']} created, "
            f"{e['changed']} changed or deleted"
        )
        print(f"{e['receipt']}\n  {state}")
    if not waiting and not receipts:
        print("There are no journals and no receipts.")


def _waiting(path: Path) -> dict[str, Any]:
    """What a journal says of its run. Raises ActionError."""
    record = journals.read(path)
    with journals.sound(path):
        plan = record.plan
        files = plan.get("files")
        entry = (
            {"video": files["video"], "out": files["out"]}
            if files
            else {"server": plan["server"], "job": plan["job"], "written": record.written_until}
        )
        counts = {"frames": len(plan["frames"]), "tracked": len(record.done)}
    return entry | counts | {"going_on": journals.is_held(path), "taken_back": record.taken_back}


def _state(e: dict[str, Any]) -> str:
    """For a person. A run of files has all that it tracked in its journal."""
    tracked = f"{e['tracked']} of {e['frames']} frames tracked"
    if "out" in e:
        said = f"{e['video']} -> {e['out']}: {tracked}, all of them kept in this journal"
    else:
        said = f"job {e['job']} on {e['server']}: {tracked}, {e['written']} written"
    if e["taken_back"]:
        return f"{said}; was cut off, and taken back with undo"
    return f"{said}; " + ("is going on" if e["going_on"] else "was cut off")


def discard(path: Path) -> int:
    """Deletes the journal of a run that was cut off."""
    try:
        journal, record = Journal.go_on(path)
    except (journals.OtherVersion, journals.Damaged) as error:
        if isinstance(error, journals.Damaged) and not journals.counts_as_journal(path):
            raise
        path.unlink()
        print(f"Discarded {path}.")
        return COMPLETE
    journal.remove()
    out = (record.plan.get("files") or {}).get("out")
    lost = len(record.done) - record.written_until
    what = "tracked" if out else "not written"
    lost_frames = f" with {report.counted(lost, 'frame')} {what}" if lost else ""
    stays = f" What was written to {out} stays." if out and lost else ""
    print(f"Discarded {path}{lost_frames}.{stays}")
    return COMPLETE
