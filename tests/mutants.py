# SPDX-License-Identifier: MIT
"""Breaks the code in one place at a time and says which test catches it (`make mutants`).

    python tests/mutants.py [--list] [name ...]

Each break is made in a copy. The tests near it run first, and all fast tests only if those pass.
A break that nothing catches is a hole in the tests, and one whose code is gone has to be written
anew: in both cases the others are made as well, and the exit status is 1.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = (".git", ".venv", "out", "node_modules", "__pycache__", ".hypothesis", "weights", "dist")

CAUGHT = "caught"
NOT_CAUGHT = "NOT CAUGHT"
UNKNOWN = "NOT MADE: the code to break does not stand once in its file"
FAILS_ANYWAY = "NOT MADE: a test near it fails without the break too"
HOLES = (NOT_CAUGHT, UNKNOWN, FAILS_ANYWAY)


@dataclass(frozen=True, kw_only=True)
class Mutant:
    name: str
    file: str
    old: str
    """Occurs once in the file."""
    new: str
    near: str
    """The tests that should catch it: arguments of pytest, or of vitest for the plugin."""


def mutant(name: str, file: str, old: str, new: str, near: str) -> Mutant:
    return Mutant(name=name, file=file, old=old, new=new, near=near)


HANDLER, WIRING = "tests/test_model_handler.py", "tests/test_wiring.py"
REGION = "tests/test_search_region.py"
CARRYING = "tests/cvat_action/test_carrying.py"
MACHINE, STATE = "tests/faults/test_machine.py", "tests/test_tracker_state.py"
# fmt: off
MUTANTS = (
    mutant("score without the predicted IoU", "sam2_tracker/passes.py",
        "scores = heads.object_scores.sigmoid()[:, 0] * ious",
        "scores = heads.object_scores.sigmoid()[:, 0]", HANDLER),
    mutant("auto never takes bfloat16 on a CPU", "sam2_tracker/build_model.py",
        "fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()",
        "fast = False", HANDLER),
    mutant("no warm-up", "main.py", "    function.warm_up()\n", "", WIRING),
    mutant("another default than the README's", "sam2_tracker/settings.py",
        '"SAM2_MAX_OBJECTS", 100,', '"SAM2_MAX_OBJECTS", 40,', "tests/test_settings.py"),
    mutant("the cost of a request as that of one object", "tracker.py",
        'self.budget.remember("start", seconds["start"] / len(drawn))',
        'self.budget.remember("start", seconds["start"])', WIRING),
    mutant("a flip of the picture but not of its label", "training/dataset.py",
        "shots, labels = shots[:, :, ::-1], labels[:, :, ::-1]",
        "shots = shots[:, :, ::-1]", "tests/test_training_data.py"),
    mutant("a loss with the wrong sign", "training/losses.py",
        "FOCAL_WEIGHT * focal_loss(logits, target) + dice_loss(logits, target)",
        "FOCAL_WEIGHT * focal_loss(logits, target) - dice_loss(logits, target)",
        "tests/test_training_losses.py"),
    mutant("SAM2_FILL_HOLE_AREA is wired to nothing", "tracker.py",
        "fill_hole_area=settings.fill_hole_area,", "fill_hole_area=0,", WIRING),
    mutant("objects in small batches", "model_handler.py",
        "OBJECTS_AT_ONCE = 32", "OBJECTS_AT_ONCE = 7", HANDLER),
    mutant("idle connections are not checked", "sam2_tracker/records.py",
        "health_check_interval=15,", "health_check_interval=0,", WIRING),
    mutant("masks from a GPU are unpacked wrongly", "sam2_tracker/mask_logits.py",
        "yield np.unpackbits(each_packed, axis=1, count=width).view(np.bool_)",
        "yield np.unpackbits(each_packed, axis=1, bitorder='little', count=width).view(np.bool_)",
        HANDLER),
    mutant("a forged head is believed", "sam2_tracker/record_format.py",
        "if not hmac.compare_digest(seal(id_, record[SEAL_BYTES:]), record[:SEAL_BYTES]):",
        "if len(record) < SEAL_BYTES:", "tests/faults/test_hostile.py -k records"),
    mutant("frames are removed a step too early", "tracker_state.py",
        "item.step <= bank.step - RETAINED", "item.step <= bank.step - RETAINED + 1", MACHINE),
    mutant("a cached frame counts though the store has lost it", "tracker_state.py",
        "            if there\n", "", MACHINE),
    mutant("a drawn frame is removed when a track lets go of it", "tracker_state.py",
        "if name not in replaced\n", "\n", STATE),
    mutant("a rectangle that is lost answers where it was drawn, not where it was last",
        "sam2_tracker/object_shapes.py",
        'return Shape(type="rectangle", points=list(box)), replace(track, box=box)',
        'return Shape(type="rectangle", points=list(box)), track', MACHINE),
    mutant("any numbers are points", "sam2_tracker/shapes.py",
        "    if not np.isfinite(numbers).all():\n",
        "    if numbers.ndim > 1:\n", "tests/faults/test_hostile.py -k any_body"),
    mutant("the distance of a correction is ignored", "request_objects.py",
        "bank = correct_bank(each.state.bank, drawn, distance=distance)",
        "bank = correct_bank(each.state.bank, drawn, distance=1)", MACHINE),
    mutant("an object adopts itself", "sam2_tracker/protocol.py",
        "if 0 <= index < len(entries) and index != own else None",
        "if 0 <= index < len(entries) else None", "tests/test_protocol.py"),
    mutant("lives of frames in use are not renewed", "tracker_state.py",
        "            extend=list(extend),\n", "            extend=[],\n", MACHINE),
    mutant("a store that hangs is waited for", "sam2_tracker/store_call.py",
        "timeout=max(0.0, self._deadline - self._clock())",
        "timeout=60.0 + max(0.0, self._deadline - self._clock())",
        "tests/faults/test_bounds.py -k deadline"),
    mutant("frames lie on their side", "sam2_tracker/image_decoding.py",
        "    image = _turn_upright(image)\n",
        "", "tests/test_image_decoding.py"),
    mutant("hidden frames count as seen", "sam2_tracker/memory_policy.py",
        "    if seen.object_score <= 0:\n        return 0.0\n",
        "    if seen.object_score <= 0:\n        return 1.0\n", "tests/test_memory_policy.py"),
    # In the interactor.
    mutant("interactor: a click does not see what the clicks before it found", "interactor.py",
        "previous=() if before is None else (before.logits,),",
        "previous=(),", "tests/test_interactor.py"),
    mutant("nobody looks at the time while shapes are made", "tracker.py",
        'check_time(done, len(found), "shapes are made",',
        'check_time(0, len(found), "shapes are made",',
        "tests/test_tracker.py -k time_for_its_shapes"),
    mutant("interactor: nobody looks at the time between batches of clicks that find nothing",
        "interactor.py", "check(first, len(clicks),", "check(0, len(clicks),",
        "tests/test_everything.py"),
    mutant("interactor: nobody looks at the time while a grid of clicks is looked at",
        "interactor.py",
        "first + done * len(batch) // len(looked_at),", "0,", "tests/test_everything.py"),
    mutant("command line: an object that is there already is clicked on and doubled",
        "cvat_action/clicked.py",
        "if place.iou(other) >= SAME",
        "if place.iou(other) > SAME + 1", "tests/cvat_action/test_action_clicks.py"),
    mutant("command line: both ways, drawings do not join on the way", "cvat_action/both_ways.py",
        "way = tuple(self.of.corrections[gap.left] for gap in gaps[1:])",
        "way = ()", "tests/cvat_action/test_action_both_ways.py"),
    mutant("command line: a run that goes on has forgotten its objects", "cvat_action/rebuild.py",
        "o.state = each.state if each.live else None",
        "o.state = None", "tests/cvat_action/test_action_local_files.py"),
    mutant("command line: a run that goes on has forgotten how its objects are remembered",
        "cvat_action/rebuild.py", ", tuning=o.tuning", "",
        "tests/cvat_action/test_action_local_files.py"),
    mutant("command line: a preview is drawn over a person's file", "cvat_action/own_files.py",
        "return digest(path) in (None, _noted(path)[0])",
        "return True", "tests/cvat_action/test_action_pictures.py"),
    mutant("interactor: what clicks found on one image counts for another", "interactor.py",
        "key = (frame.digest, step)", 'key = (b"", step)', "tests/test_interactor.py"),
    mutant("interactor: the confidence has a number that CVAT does not read",
        "sam2_tracker/click_protocol.py",
        '"attributes": [{"spec_id": 0,',
        '"attributes": [{"spec_id": 1,', "tests/test_interactor.py"),
    # In the plugin for CVAT's page.
    mutant("plugin: a mask's box is a pixel too small", "cvat_ui_plugin/src/ts/boxes.ts",
        "return [left, top, right + 1, bottom + 1];",
        "return [left, top, right, bottom];", "vitest tests/whose.test.ts"),
    mutant("plugin: the target may lie outside of the job", "cvat_ui_plugin/src/ts/frames.ts",
        "return Math.min(Math.max(number, job.startFrame), job.stopFrame);",
        "return number;", "vitest tests/run.test.ts"),
    mutant("plugin: deleted frames are tracked", "cvat_ui_plugin/src/ts/frames.ts",
        "return isDeleted ? null : {", "return {", "vitest tests/run.test.ts"),
    mutant("plugin: any overlap makes two shapes one object", "cvat_ui_plugin/src/ts/earlier.ts",
        "export const LEAST_OVERLAP = 0.3;",
        "export const LEAST_OVERLAP = 0.001;", "vitest tests/whose.test.ts"),
    mutant("plugin: what a person changed meanwhile is written over",
        "cvat_ui_plugin/src/ts/fresh.ts",
        "if (frames.has(result.frame)) result.byHand = true;",
        "if (frames.has(-1)) result.byHand = true;", "vitest tests/corrections.test.ts"),
    mutant("plugin: keyframes that a person deleted come back", "cvat_ui_plugin/src/ts/run.ts",
        "({ frame }) => !removed.has(frame)",
        "({ frame }) => !removed.has(-frame)", "vitest tests/corrections.test.ts"),
    mutant("plugin: frames between two keyframes are not checked",
        "cvat_ui_plugin/src/ts/keyframes.ts",
        "return !truth || truth.isWithin(at(",
        "return !truth || 0 < at.length || truth.isWithin(at(", "vitest tests/sparse.test.ts"),
    mutant("plugin: the memory policy does not reach the function",
        "cvat_ui_plugin/src/ts/starting.ts",
        "...(memory === null ? {} : { memory }),", "", "vitest tests/sparse.test.ts"),
    mutant("a search region that never moves", "sam2_tracker/search_region.py",
        "        window = _window(share, ahead, width, height)\n", "        pass\n", REGION),
    mutant("a search region that goes behind the object", "sam2_tracker/search_region.py",
        "ahead = centre[0] + motion[0], centre[1] + motion[1]",
        "ahead = centre[0] - motion[0], centre[1] - motion[1]", REGION),
    mutant("the masks of a window are not put in their place", "sam2_tracker/object_shapes.py",
        "placed[top:bottom, left:right] = bitmap",
        "placed[: bottom - top, : right - left] = bitmap", REGION),
    mutant("what is drawn is not carried into the window", "sam2_tracker/object_shapes.py",
        "prompt=cut_prompt(prompt, region)", "prompt=prompt", REGION),
    mutant("the search region is forgotten between two requests", "sam2_tracker/record_format.py",
        '"region": head.track.region and _region_to_json(head.track.region),', '"region": None,',
        STATE),
    mutant("windows of one image share their features", "sam2_tracker/frame_cache.py",
        "digest = frame.digest + str(window).encode()", "digest = frame.digest", REGION),
    mutant("a carried drawing is not compared with what was tracked", "cvat_action/carrying.py",
        "if found is None or overlap <= LEAST_OVERLAP:", "if found is None:", CARRYING),
    mutant("a drawing that is carried on is not carried back", "cvat_action/carrying.py",
        "check = keeps * bitmaps_iou(_sample(soft, way) > HALF, drawn > HALF)",
        "check = keeps", CARRYING),
    mutant("the end of a gap is carried from its beginning", "cvat_action/carrying.py",
        "nearer_left, other, 1 - nearer_left, 0", "1.0, other, 0.0, 0", CARRYING),
    mutant("a result with another label is carried", "cvat_action/both_ways.py",
        "        and gap.left not in section.drawn.of.seed.relabelled\n", "", CARRYING),
    mutant("--both-ways: a resume tracks everything again", "cvat_action/both_ways.py",
        "left = kept.recall(objects, frames) if kept else frames", "left = frames",
        "tests/cvat_action/test_action_both_ways.py"),
    mutant("backwards: what a person hid is shown", "cvat_action/corrections.py",
        "if points is None and backwards and following:", "if False:",
        "tests/cvat_action/test_action_tracks.py"),
    mutant("a run that was taken back goes on", "cvat_action/commands.py",
        "if record.taken_back:", "if False:", "tests/cvat_action/test_action_undo.py"),
    mutant("a track loses attributes that were set on results", "cvat_action/track_results.py",
        "if not values.items() <= held.items():", "if False:",
        "tests/cvat_action/test_action_replace.py"),
    mutant("objects that end on the same thing are not told", "cvat_action/coinciding.py",
        "if not all(drawn):", "if False:", "tests/cvat_action/test_coinciding.py"),
    mutant("plugin: objects that end on the same thing are not told",
        "cvat_ui_plugin/src/ts/coinciding.ts",
        "if (a.byHand && b.byHand) continue;", "continue;", "vitest tests/coinciding.test.ts"),
    mutant("plugin: corrected results of an object drawn anew are written over",
        "cvat_ui_plugin/src/ts/beside.ts",
        "(owners.has(number) && !near.has(number))", "owners.has(number)",
        "vitest tests/whose.test.ts"),
    mutant("plugin: between drawn frames the worse end is taken",
        "cvat_ui_plugin/src/ts/bothWays.ts",
        "if (sum > best)", "if (sum < best)", "vitest tests/bothWays.test.ts"),
    mutant("plugin: a wait for CVAT cannot be cancelled", "cvat_ui_plugin/src/ts/waiting.ts",
        "                mayGoOn();\n", "", "vitest tests/waiting.test.ts"),
)
# fmt: on


def commands_of(mutant: Mutant, copy: Path) -> list[tuple[list[str], Path]]:
    """What may catch it, nearest first: a command and the folder that it runs in."""
    if mutant.near.startswith("vitest"):
        modules = ROOT / "cvat_ui_plugin" / "node_modules"
        if not modules.exists():
            raise SystemExit("The plugin's breaks need its packages: run `make test-plugin` first.")
        if not (link := copy / "cvat_ui_plugin" / "node_modules").exists():
            link.symlink_to(modules)
        with_node = str(ROOT / "cvat_ui_plugin" / "with_node.sh")
        vitest = [with_node, "npx", "vitest", "run", "--bail=1"]
        folder = copy / "cvat_ui_plugin"
        return [([*vitest, *mutant.near.split()[1:]], folder), (vitest, folder)]
    near = [
        word for word in mutant.near.split() if not word.endswith(".py") or (copy / word).exists()
    ]
    fast = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not slow", "--show-capture=no"]
    fast += ["--tb=no", "-p", "no:cacheprovider", "--timeout=3600"]  # a busy machine fails none
    return [([*fast, *near], copy), (fast, copy)]


def try_out(mutant: Mutant, copy: Path) -> str:
    """The test that catches it, or one of HOLES."""
    path = copy / mutant.file
    text = path.read_text() if path.exists() else ""
    if text.count(mutant.old) != 1:
        return UNKNOWN
    near, fast = commands_of(mutant, copy)
    # A test that fails without the break as well has caught nothing.
    if _failure_unbroken(tuple(near[0]), near[1]):
        return FAILS_ANYWAY
    path.write_text(text.replace(mutant.old, mutant.new))
    try:
        return _failure(*near) or _failure(*fast) or NOT_CAUGHT
    finally:
        path.write_text(text)


@cache
def _failure_unbroken(command: tuple[str, ...], folder: Path) -> str | None:
    return _failure(list(command), folder)


def _failure(command: list[str], folder: Path) -> str | None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HYPOTHESIS_PROFILE": "unshrunk"}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if run.returncode == 0:
        return None
    found = re.search(
        r"^(?:FAILED|ERROR|\s*FAIL|\s*×)\s+(.+?)(?: - .*)?$", run.stdout, re.MULTILINE
    )
    return found[1] if found else (run.stdout + run.stderr).strip().splitlines()[-1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="name", help="a part of a name; default: all")
    parser.add_argument("--list", action="store_true", help="names only")
    options = parser.parse_args()
    chosen = [
        mutant
        for mutant in MUTANTS
        if not options.names or any(name in mutant.name for name in options.names)
    ]
    told: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
        for mutant in () if options.list else chosen:
            outcome = try_out(mutant, copy)
            told[outcome if outcome in HOLES else CAUGHT] += 1
            print(f"{mutant.name}: {outcome}", flush=True)
    if options.list:
        print("\n".join(mutant.name for mutant in chosen))
        return 0
    print(", ".join(f"{count} {outcome}" for outcome, count in told.items()))
    return 0 if told[CAUGHT] == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
