# SPDX-License-Identifier: MIT
"""`functions`: the trackers of a server, and which of them to use."""

import json

from cvat_action.errors import ActionError
from cvat_action.report import table
from cvat_action.server import Function, Server

OURS = "pth-facebookresearch-sam2-tracker"
"""the id under which this project's function.yaml deploys it"""


def why_unusable(function: Function) -> str | None:
    if function.kind != "tracker":
        return f"a {function.kind or 'function of unknown kind'}, not a tracker"
    if not function.usable_types:
        return "tracks neither masks, polygons nor rectangles"
    return None


def choose_function(server: Server, wanted: str | None) -> Function:
    """The named function, or the only usable tracker, or ours among several."""
    listed = server.functions()
    usable = [f for f in listed if why_unusable(f) is None]
    if wanted is not None:
        for f in listed:
            if f.id == wanted:
                reason = why_unusable(f)
                if reason:
                    raise ActionError(f"Function {wanted} cannot be used: {reason}.")
                return f
        known = ", ".join(f.id for f in usable) or "none"
        raise ActionError(f"{server.host} has no function {wanted!r}. Its trackers: {known}.")
    for f in usable:
        if f.id == OURS or len(usable) == 1:
            return f
    if not usable:
        raise ActionError(
            f"{server.host} has no tracker that can be used; deploy one, and see `functions`."
        )
    raise ActionError(
        f"Several trackers can be used: {', '.join(f.id for f in usable)}. Choose one with "
        "--function."
    )


def run_functions(server: Server, *, as_json: bool) -> None:
    listed = server.functions()
    trackers = [f for f in listed if f.kind == "tracker"]
    if as_json:
        entries = [
            {
                "id": f.id,
                "name": f.name,
                "kind": f.kind,
                "shape_types": list(f.shape_types),
                "usable": why_unusable(f) is None,
                "why_not": why_unusable(f),
            }
            for f in listed
        ]
        print(json.dumps(entries, indent=2))
    elif not trackers:
        print("This server has no trackers.")
    else:
        rows = [("id", "name", "tracks", "can be used")]
        for f in trackers:
            reason = why_unusable(f)
            rows.append(
                (f.id, f.name, ", ".join(f.shape_types), f"no: {reason}" if reason else "yes")
            )
        print(table(rows))
