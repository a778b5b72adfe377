# SPDX-License-Identifier: MIT
"""What was measured, in words: markdown tables, goals, a plot."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.summary import Interval, median_interval, paired_ratio, slope, spread

Results = dict[str, Any]

# At 1024 px: a step of one object with a full bank (benchmarks/flop.py).
STEP_FLOP = 0.62e12
MODEL_PHASES = ("encode", "start", "step")
NAMES = {
    "http": "(a) function over HTTP",
    "in_process": "(b) our tracker in-process",
    "official": "(c) SAM2VideoPredictor",
    "agent": "(d) CVAT's agent way",
}
SHORT = {"http": "a", "in_process": "b", "official": "c", "agent": "d"}
VERDICTS = {True: "pass", False: "**FAIL**", None: "-"}


@dataclass(frozen=True, kw_only=True)
class Goal:
    text: str
    measured: str
    passed: bool | None
    """None: not measured, not promised on a machine of this kind, or the interval holds the
    limit."""


class View:
    """The results by what they are about."""

    def __init__(self, results: Results) -> None:
        self.parts: Results = results["parts"]
        self.plan: Results = results["plan"]
        self.speeds: dict[str, Results] = {
            name.removeprefix("speed_"): part
            for name, part in self.parts.items()
            if name.startswith("speed_")
        }

    def case(
        self, model: str, runner: str, precision: str, objects: int, image: str = "JPEG"
    ) -> Results | None:
        wanted = (runner, precision, objects, image)
        for case in self.speeds.get(model, {"cases": []})["cases"]:
            if tuple(case[k] for k in ("runner", "precision", "objects", "image_format")) == wanted:
                found: Results = case
                return found
        return None

    def ratio(
        self,
        model: str,
        ours: tuple[str, str],
        theirs: tuple[str, str],
        objects: int,
        image: str = "JPEG",
    ) -> Interval | None:
        """ours, theirs: runner and precision."""
        one = self.case(model, *ours, objects, image)
        other = self.case(model, *theirs, objects, image)
        try:
            return paired_ratio(by_round(one), by_round(other)) if one and other else None
        except ValueError:
            return None

    def milliseconds(self, model: str, objects: int) -> Interval | None:
        case = self.case(model, "http", "bfloat16", objects)
        return median_interval([1000 * s for s in case["seconds"]]) if case else None

    def over_products(self, model: str, objects: int, phase: str, flop: float) -> Interval | None:
        """The time of a phase over that of bfloat16 matrix products of `flop` in its round."""
        if not (case := self.case(model, "http", "bfloat16", objects)):
            return None
        rates = self.speeds[model]["matrix_rates"]
        pairs = zip(case["phases"][phase], case["rounds"], strict=True)
        return median_interval([seconds * rates[number] / flop for seconds, number in pairs])

    def outside(self, model: str, case: Results) -> list[float]:
        """Seconds beyond the model's phases, by round; resizing is part of encoding."""
        phases = [case["phases"][name] for name in MODEL_PHASES if name in case["phases"]]
        inside = zip(*phases, strict=True)
        resize = self.speeds[model]["resize_seconds"]
        return [s - sum(each) + resize for s, each in zip(case["seconds"], inside, strict=True)]


def by_round(case: Results) -> dict[int, float]:
    return dict(zip(case["rounds"], case["seconds"], strict=True))


def report_markdown(results: Results) -> str:
    """Everything that was measured; parts that are missing are left out."""
    view = View(results)
    lines = [*_machine_lines(view), "", *_origin_lines(view), ""]
    for model in view.speeds:
        lines += [*_speed_lines(view, model), "", *_phase_lines(view, model), ""]
    lines += [*_savings_lines(view), *_accuracy_lines(view), *_other_lines(view), ""]
    lines += table(
        ("goal", "measured (95 % interval)", ""),
        ([each.text, each.measured, VERDICTS[each.passed]] for each in goals(results)),
    )
    lines += ["", "`-`: not measured, not promised on this kind of machine, or still open.", ""]
    lines += [
        f"**Part {name} failed:** {error.strip().splitlines()[-1]}"
        for name, error in results.get("failed", {}).items()
    ]
    return "\n".join(lines)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def goals(results: Results) -> list[Goal]:
    """A goal is missed only where the whole interval is beyond its limit."""
    view = View(results)
    machine = view.parts.get("machine", {})
    here = "gpu" if machine.get("gpu") else "amx" if machine.get("amx") else "cpu"
    kinds = {"all": True, "cpu": here != "gpu", "amx": here == "amx", "gpu": here == "gpu"}
    rows = [*_rows_for_all(view), *_rows_for_amx(view), *_rows_for_gpu(view)]
    found = []
    for where, text, value, form, least, most in rows:
        if where == "gpu" and here != "gpu" or where == "amx" and here == "gpu":
            continue
        if value is None:
            # What gpu.sh did not measure, it did not check.
            if where in ("amx", "gpu"):
                found.append(
                    Goal(
                        text=text, measured="not measured", passed=None if here != "gpu" else False
                    )
                )
            continue
        low, high = (value.low, value.high) if isinstance(value, Interval) else (value, value)
        passed = None
        if kinds[where]:
            passed = True if least <= low and high <= most else None
            passed = False if high < least or low > most else passed
        middle = value.median if isinstance(value, Interval) else value
        measured = form.format(middle)
        if isinstance(value, Interval) and value.rounds > 1:
            measured += f" ({form.format(low)} to {form.format(high)})"
        found.append(Goal(text=text, measured=measured, passed=passed))
    return found


Value = Interval | float | None
ANY = float("inf")


GoalRow = tuple[str, str, Value, str, float, float]
"""(machine, text, value, format, at least, at most)"""


def _rows_for_all(view: View) -> list[GoalRow]:
    parts, plan = view.parts, view.plan
    rows: list[GoalRow] = []
    model = plan["models"][0]
    for precision in plan["precisions"]:
        for n in sorted({min(plan["objects"]), max(plan["objects"])}):
            ratio = view.ratio(model, ("official", precision), ("agent", precision), n)
            text = f"(d) within 15 % of (c): {model}, {precision}, {n} objects; c / d"
            rows.append(("all", text, ratio, "{:.2f}", 1 / 1.15, 1.15))
    if part := parts.get("agreement"):
        text = "the official predictor's masks in float32: mean IoU >= 0.999"
        rows.append(("all", text, part["mean_iou"]["in_process"], "{:.4f}", 0.999, ANY))
    if part := parts.get("second_action"):
        calls = part["actions"][1]["encoder_calls"]
        text = "second action over the same frames: calls of the encoder"
        rows.append(("all", text, calls, "{:.0f}", 0, 0))
    if part := parts.get("cold_start"):
        rows.append(("cpu", "cold start <= 15 s", spread(part["seconds"]), "{:.1f} s", 0, 15))
        first = spread([first_over_median(run) for run in (*part["starts"], *part["steps"])])
        rows.append(("all", "first request <= 2x the median", first, "{:.2f}x", 0, 2))
    if part := parts.get("accuracy"):
        (half,) = (row for row in part["rows"] if row["name"] == "bfloat16")
        text = f"bfloat16: mean IoU with float32 >= 0.98 ({half['object_frames']} object-frames)"
        rows.append(("all", text, half["iou_with_float32"], "{:.4f}", 0.98, ANY))
    if part := parts.get("track_length"):
        early, late = (part["frames"][key] for key in sorted(part["frames"], key=int))
        times = [dict(enumerate(each["seconds"])) for each in (late, early)]
        text = "frame 500 takes as long as frame 20 (within 5 %)"
        rows.append(("all", text, paired_ratio(*times), "{:.3f}x", 0, 1.05))
        moved = [statistics.median(e["read_bytes"] + e["written_bytes"]) for e in (early, late)]
        most = max(moved[1] / moved[0], late["bytes_in_redis"] / early["bytes_in_redis"])
        text = "frame 500 moves and keeps the bytes of frame 20 (within 2 %)"
        rows.append(("all", text, most, "{:.3f}x", 0, 1.02))
    return rows


def _rows_for_amx(view: View) -> list[GoalRow]:
    rows: list[GoalRow] = []
    for n, limit in ((1, 0.27), (4, 0.22)):
        ratio = view.ratio("tiny", ("http", "bfloat16"), ("agent", "float32"), n)
        text = f"AMX: {n} objects at most {limit} of (d)'s time"
        rows.append(("amx", text, ratio, "{:.3f}", 0, limit))
        took = view.over_products("tiny", n, "step", STEP_FLOP * n)
        rows.append(("amx", f"AMX: the step of {n} within 2x of its FLOP", took, "{:.2f}x", 0, 2))
        share = None
        if case := view.case("tiny", "http", "bfloat16", n):
            pairs = zip(view.outside("tiny", case), case["seconds"], strict=True)
            share = median_interval([outside / total for outside, total in pairs])
        text = f"AMX: outside the model below 5 %, {n} objects"
        rows.append(("amx", text, share, "{:.1%}", 0, 0.05))
    scaled = view.over_products("tiny", 1, "encode", 1.7e12)
    text = "AMX: encoding <= 0.6 s, scaled to 1.7 TFLOP/s"
    rows.append(("amx", text, scaled, "{:.2f} s", 0, 0.6))
    return rows


def _rows_for_gpu(view: View) -> list[GoalRow]:
    rows: list[GoalRow] = []
    for name, n, most in (("tiny", 1, 30), ("tiny", 16, 75), ("large", 1, 50)):
        text = f"{name}, {n} objects <= {most} ms"
        rows.append(("gpu", text, view.milliseconds(name, n), "{:.1f} ms", 0, most))
    totals = {n: view.milliseconds("tiny", n) for n in view.plan["objects"]}
    known = {n: each.median for n, each in totals.items() if each}
    more = slope([*known], [*known.values()]) if len(known) > 1 else None
    rows.append(("gpu", "tiny: each further object <= 3 ms", more, "{:.2f} ms", 0, 3))
    faster = view.ratio("tiny", ("agent", "float32"), ("http", "bfloat16"), 16)
    rows.append(("gpu", "16 objects: >= 5x faster than (d)", faster, "{:.1f}x", 5, ANY))
    one, many = (view.case("tiny", "http", "bfloat16", n) for n in (1, 16))
    after = rest = None
    if one:
        known_before = zip(one["phases"]["decode"], one["phases"]["read"], strict=True)
        pairs = zip(one["seconds"], known_before, strict=True)
        after = median_interval([1000 * (s - sum(each)) for s, each in pairs])
    if many:
        pairs = zip(view.outside("tiny", many), many["phases"]["decode"], strict=True)
        rest = median_interval([1000 * (outside - decode) / 16 for outside, decode in pairs])
    text = "tiny, 1 object: decoded frame to answer <= 15 ms"
    rows.append(("gpu", text, after, "{:.1f} ms", 0, 15))
    text = "outside the model, beside decoding: <= 1 ms per object (of 16)"
    rows.append(("gpu", text, rest, "{:.2f} ms", 0, 1))
    return rows


def first_over_median(run: Sequence[float]) -> float:
    """The first request of a process over the median of the following ones."""
    return run[0] / statistics.median(run[1:])


def plot(results: Results, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    view = View(results)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.5), constrained_layout=True)
    model = view.plan["models"][0]
    for colour, runner in enumerate(NAMES):
        for precision, style in (("bfloat16", "-"), ("float32", "--")):
            cases = [view.case(model, runner, precision, n) for n in sorted(view.plan["objects"])]
            points = [(c["objects"], _middle(c["seconds"])) for c in cases if c]
            if points:
                label = f"{NAMES[runner]}, {precision}"
                left.plot(
                    *zip(*points, strict=True), style, marker="o", c=f"C{colour}", label=label
                )
    left.set(title=model, xlabel="objects", ylabel="time per frame, ms")
    if left.has_data():
        left.legend(fontsize=8)
    if length := view.parts.get("track_length"):
        seconds, window = length["curve"]["seconds"], 10
        starts = range(0, len(seconds) - window + 1, window)
        middles = [_middle(seconds[start : start + window]) for start in starts]
        label = f"{length['curve']['model']}, medians of {window} frames"
        right.plot([start + window / 2 for start in starts], middles, label=label)
        frames = sorted(map(int, length["frames"]))
        middles = [_middle(length["frames"][str(frame)]["seconds"]) for frame in frames]
        right.plot(frames, middles, "o", label=length["model"])
        right.set_yscale("log")
        right.legend(fontsize=8)
    right.set(title="One object, over HTTP", xlabel="frame of the track", ylabel="time, ms")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _machine_lines(view: View) -> list[str]:
    if not (machine := view.parts.get("machine")):
        return ["The machine was not measured."]
    kind = machine["gpu"] or f"{machine['cpu']}, {machine['threads']} threads"
    has = "AMX" if machine["amx"] else "AVX512-BF16" if machine["avx512_bf16"] else "no bfloat16"
    rates = [f"{name} {rate / 1e12:.2f} TFLOP/s" for name, rate in machine["matrix_rate"].items()]
    return [
        f"{kind} ({has}), torch {machine['torch']}, load at the start {machine['load']}; matrix "
        f"rate: {', '.join(rates)}. (a) to (d) and how they are measured: docs/benchmarks.md."
    ]


def _origin_lines(view: View) -> list[str]:
    """Which command measured what, when, at which commit and with which weights."""
    keys = ("date", "command", "commit", "weights_digest")
    return table(
        ("part", "date", "command", "commit", "weights"),
        ([name, *(str(part.get(k, "")) for k in keys)] for name, part in view.parts.items()),
    )


def _speed_lines(view: View, model: str) -> list[str]:
    part = view.speeds[model]
    wanted = dict.fromkeys((c["image_format"], c["precision"], c["objects"]) for c in part["cases"])
    rows = []
    for image, precision, n in sorted(wanted, key=lambda key: (key[0] != "JPEG", *key)):
        cases = [view.case(model, runner, precision, n, image) for runner in NAMES]
        ratios = [
            view.ratio(model, (ours, precision), ("agent", theirs), n, image)
            for ours, theirs in (("http", precision), ("official", precision), ("http", "float32"))
        ]
        row = [image, precision, str(n)]
        row += [f"{_middle(case['seconds']):.0f}" if case else "" for case in cases]
        row += [str(ratio or "") for ratio in ratios]
        rows.append([*row, str(min(len(case["seconds"]) for case in cases if case))])
    head = ["image", "precision", "objects", "(a) ms", "(b) ms", "(c) ms", "(d) ms"]
    head += ["a / d", "c / d", "a / (d in float32)", "rounds"]
    lines = [f"SAM 2.1 {model} ({part['weights']} weights)", "", *table(head, rows)]
    missing = [
        f"{SHORT[c['runner']]} {c['precision']} {c['objects']} {c['image_format']}"
        for c in part["not_measured"]
    ]
    if missing:
        lines.append(f"\nNot measured, because the time was over: {', '.join(missing)}.")
    return lines


def _phase_lines(view: View, model: str) -> list[str]:
    cases = [case for case in view.speeds[model]["cases"] if case["runner"] == "http"]
    if not cases:
        return []
    names = list(dict.fromkeys(name for case in cases for name in case["phases"]))
    rows = []
    for case in cases:
        row = [case["image_format"], case["precision"], str(case["objects"])]
        row += [f"{_middle(case['phases'].get(name, [0])):.1f}" for name in names]
        row.append(f"{_middle(view.outside(model, case)):.0f}")
        rows.append(row + [f"{statistics.median(case[k]):.0f}" for k in _BYTES])
    peaks = view.speeds[model]["server_peak_bytes"].items()
    memory = ", ".join(f"{precision} {peak / 2**20:.0f} MiB" for precision, peak in peaks)
    head = ("image", "precision", "objects", *names, "outside the model", "B read", "B written")
    text = f"Phases of (a) in ms, {model}. Largest memory of the server process: {memory}."
    return [text, "", *table(head, rows)]


_BYTES = ("read_bytes", "written_bytes")


def _other_lines(view: View) -> list[str]:
    lines = []
    if cold := view.parts.get("cold_start"):
        seconds = ", ".join(f"{s:.1f} s" for s in cold["seconds"])
        lines.append(f"- Cold start to the first answer ({cold['model']}): {seconds}.")
    if second := view.parts.get("second_action"):
        times = [f"{_middle(action['seconds']):.0f} ms" for action in second["actions"]]
        lines.append(f"- A frame, and once more in a second action: {', then '.join(times)}.")
    if length := view.parts.get("track_length"):
        for frame, each in length["frames"].items():
            moved = ", ".join(f"{statistics.median(each[k]):.0f} {k}" for k in _BYTES)
            lines.append(
                f"- Frame {frame} of a track ({length['model']}, one object): "
                f"{_middle(each['seconds']):.0f} ms, {moved.replace('_', ' ')}, "
                f"{each['bytes_in_redis'] / 2**20:.2f} MiB lie in Redis."
            )
        read = length["read_bytes_of_another_worker"] / 2**20
        lines.append(f"- A worker that does not know the object reads {read:.2f} MiB, once.")
    if agreement := view.parts.get("agreement"):
        ours, agent = (agreement["mean_iou"][name] for name in ("in_process", "agent"))
        lines.append(f"- Mean IoU with (c)'s masks in float32: (b) {ours:.4f}, (d) {agent:.4f}.")
    return lines


def _savings_lines(view: View) -> list[str]:
    if not (part := view.parts.get("savings")):
        return []
    rows: list[list[str]] = []
    first: dict[str, Mapping[int, float]] = {}
    for row in part["rows"]:
        seconds = dict(enumerate(row["seconds"]))
        ratio = paired_ratio(seconds, first.setdefault(row["group"], seconds))
        rows.append([row["group"], row["name"], f"{_middle(row['seconds']):.0f}", str(ratio)])
    text = f"What each saving gives ({part['model']}, bfloat16 where nothing else is said):"
    return [text, "", *table(("", "", "ms", "of the first"), rows), ""]


def _accuracy_lines(view: View) -> list[str]:
    if not (part := view.parts.get("accuracy")):
        return []
    keys = ("j_and_f", "j", "f", "found_again", "iou_with_float32")
    rows = [
        [row["name"], *("" if row[key] is None else f"{row[key]:.3f}" for key in keys)]
        for row in part["rows"]
    ]
    text = f"Accuracy ({part['model']}, mask prompts, {part['clips']} of {part['of']} clips of the "
    text += f"evaluation set {part['evaluation_set']}, {part['frames']} frames each):"
    return [text, "", *table(("", "J&F", "J", "F", "found again", "IoU with float32"), rows), ""]


def _middle(seconds: Sequence[float]) -> float:
    """Milliseconds."""
    return 1000 * statistics.median(seconds)
