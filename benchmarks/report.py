# SPDX-License-Identifier: MIT
"""What was measured, in words: markdown tables, goals, a plot."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.summary import paired_ratio, slope, summarise

Results = dict[str, Any]

# At 1024 px: a step of one object with a full bank; tiny's encoder (benchmarks/flop.py).
STEP_FLOP = 0.62e12
TINY_ENCODE_FLOP = 0.29e12
MODEL_PHASES = ("encode", "start", "step")
NAMES = {
    "http": "(a) function over HTTP",
    "in_process": "(b) our tracker in-process",
    "official": "(c) SAM2VideoPredictor",
    "agent": "(d) CVAT's agent way",
}
SHORT = {"http": "a", "in_process": "b", "official": "c", "agent": "d"}


@dataclass(frozen=True, kw_only=True)
class Goal:
    text: str
    measured: str
    passed: bool | None
    """None: not measured, or not promised on a machine of this kind."""


def report_markdown(results: Results) -> str:
    """Everything that was measured; parts that are missing are left out."""
    lines = [*_machine_lines(results), "", *_measured_lines(results), ""]
    for model, part in _speeds(results).items():
        lines += [*_speed_table(model, part), ""]
        if any(case["runner"] == "http" for case in part["cases"]):
            lines += [*_phase_table(model, part, results), ""]
    lines += [*_savings_lines(results), *_accuracy_lines(results)]
    lines += [*_other_lines(results), "", *_goal_table(goals(results)), ""]
    failed = results.get("failed", {})
    lines += [
        f"**Part {name} failed:** {error.strip().splitlines()[-1]}"
        for name, error in failed.items()
    ]
    return "\n".join(lines)


def seconds_of(
    results: Results,
    model: str,
    runner: str,
    precision: str,
    objects: int,
    image_format: str = "JPEG",
) -> list[float]:
    """By round; empty where it was not measured."""
    case = _case(results, model, runner, precision, objects, image_format)
    return list(case["seconds"]) if case else []


def goals(results: Results) -> list[Goal]:
    parts = results["parts"]
    machine = parts.get("machine", {})
    found = _general_goals(results)
    if machine.get("gpu"):
        found += _gpu_goals(results)
    else:
        found += _cpu_goals(results, promised=bool(machine.get("amx")))
    return found


def plot(results: Results, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.5), constrained_layout=True)
    model = results["plan"]["models"][0]
    part = _speeds(results).get(model, {"cases": []})
    styles = {"bfloat16": "-", "float32": "--"}
    for colour, runner in enumerate(NAMES):
        for precision, style in styles.items():
            points = sorted(
                (case["objects"], 1000 * statistics.median(case["seconds"]))
                for case in part["cases"]
                if (case["runner"], case["precision"], case["image_format"])
                == (runner, precision, "JPEG")
            )
            if points:
                label = f"{NAMES[runner]}, {precision}"
                left.plot(
                    *zip(*points, strict=True), style, marker="o", c=f"C{colour}", label=label
                )
    left.set(
        title=f"SAM 2.1 {model}", xlabel="objects", ylabel="time per frame, ms", ylim=(0, None)
    )
    if left.has_data():
        left.set_xticks(results["plan"]["objects"])
        left.legend(fontsize=8)
    length = results["parts"].get("track_length")
    if length:
        curve = length["curve"]
        seconds = curve["seconds"]
        window = 10
        starts = range(0, len(seconds) - window + 1, window)
        right.plot(
            [start + window / 2 for start in starts],
            [1000 * statistics.median(seconds[start : start + window]) for start in starts],
            label=f"SAM 2.1 {curve['model']}, medians of {window} frames",
        )
        ones = sorted((int(frame), each["seconds"]) for frame, each in length["frames"].items())
        right.plot(
            [frame for frame, _ in ones],
            [1000 * statistics.median(each) for _, each in ones],
            "o",
            label=f"SAM 2.1 {length['model']}",
        )
        right.set_yscale("log")
        right.legend(fontsize=8)
    right.set(title="One object, over HTTP", xlabel="frame of the track", ylabel="time, ms")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _machine_lines(results: Results) -> list[str]:
    machine = results["parts"].get("machine")
    if not machine:
        return ["The machine was not measured."]
    kind = machine["gpu"] or f"{machine['cpu']}, {machine['threads']} threads"
    has = "AMX" if machine["amx"] else "AVX512-BF16" if machine["avx512_bf16"] else "no bfloat16"
    rates = ", ".join(
        f"{name} {rate / 1e12:.2f} TFLOP/s" for name, rate in machine["matrix_rate"].items()
    )
    return [
        f"{kind} ({has}), torch {machine['torch']}, OMP_WAIT_POLICY={machine['omp_wait_policy']}, "
        f"load at the start {machine['load']}; matrix rate (4096 x 4096 x 4096, best of 5): "
        f"{rates}.",
        "",
        "(a) the whole function over HTTP with Redis, (b) our tracker in-process, (c) the "
        "official SAM2VideoPredictor, (d) a re-creation of the way CVAT's agent function works. "
        "Milliseconds per frame from the encoded image to the answer, memory banks full (7 memory "
        "frames, 16 object pointers), median of interleaved rounds; bfloat16 in (c) and (d) is "
        "torch's autocast. A ratio is the median of the ratios within each round.",
    ]


def _measured_lines(results: Results) -> list[str]:
    """Which command measured what, and when: a part that is measured again has a later date."""
    parts_of: dict[tuple[str, str], list[str]] = {}
    for name, part in results["parts"].items():
        key = part.get("date", "no date"), part.get("command", "no command")
        parts_of.setdefault(key, []).append(name)
    return [
        f"- {date}, `{command}`: {', '.join(names)}"
        for (date, command), names in sorted(parts_of.items())
    ]


def _speed_table(model: str, part: Results) -> list[str]:
    wanted = sorted(
        {(c["image_format"], c["precision"], c["objects"]) for c in part["cases"]},
        key=lambda key: (key[0] != "JPEG", *key),
    )
    lines = [
        f"SAM 2.1 {model} ({part['weights']} weights)",
        "",
        "| image | precision | objects | (a) ms | (b) ms | (c) ms | (d) ms | a / d | c / d "
        "| a / (d in float32) | rounds |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for image_format, precision, objects in wanted:
        by_runner = {
            c["runner"]: c["seconds"]
            for c in part["cases"]
            if (c["image_format"], c["precision"], c["objects"])
            == (image_format, precision, objects)
        }
        reference = [
            c["seconds"]
            for c in part["cases"]
            if (c["runner"], c["precision"], c["objects"], c["image_format"])
            == ("agent", "float32", objects, image_format)
        ]
        cells = [image_format, precision, str(objects)]
        cells += [_milliseconds(by_runner.get(runner)) for runner in NAMES]
        agent = by_runner.get("agent")
        cells += [_ratio(by_runner.get("http"), agent), _ratio(by_runner.get("official"), agent)]
        cells += [_ratio(by_runner.get("http"), reference[0] if reference else None)]
        cells += [str(min(len(seconds) for seconds in by_runner.values()))]
        lines.append("| " + " | ".join(cells) + " |")
    if missing := part["not_measured"]:
        names = ", ".join(
            f"{SHORT[c['runner']]} {c['precision']} {c['objects']} {c['image_format']}"
            for c in missing
        )
        lines.append(f"\nNot measured, because the time was over: {names}.")
    return lines


def _phase_table(model: str, part: Results, results: Results) -> list[str]:
    cases = [case for case in part["cases"] if case["runner"] == "http"]
    names = list(dict.fromkeys(name for case in cases for name in case["phases"]))
    lines = [
        f"Phases of (a) in ms, {model}; HTTP is what the client waits beyond them. Encoding "
        f"includes {1000 * part['resize_seconds']:.0f} ms to resize the image.",
        "",
        "| image | precision | objects | " + " | ".join(names) + " | HTTP | outside the model "
        "| from Redis, B | to Redis, B |",
        "|---|---|---:|" + "---:|" * (len(names) + 4),
    ]
    for case in cases:
        cells = [case["image_format"], case["precision"], str(case["objects"])]
        cells += [_milliseconds(case["phases"].get(name), digits=1) for name in names]
        outside = outside_the_model(case, part["resize_seconds"])
        total = statistics.median(case["seconds"])
        cells += [
            f"{1000 * statistics.median(_http_seconds(case)):.1f}",
            f"{1000 * outside:.0f} ({100 * outside / total:.1f} %)",
            f"{statistics.median(case['read_bytes']):.0f}",
            f"{statistics.median(case['written_bytes']):.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    for case in cases:
        if model in ("tiny", "small", "base_plus", "large") and case["precision"] == "bfloat16":
            reached = 1 / _over_products(part, case, "step", STEP_FLOP * case["objects"])
            text = f"- {case['objects']} objects: the step reaches {100 * reached:.0f} % of the "
            text += "machine's bfloat16 matrix rate"
            if model == "tiny":
                reached = 1 / _over_products(part, case, "encode", TINY_ENCODE_FLOP)
                text += f", encoding {100 * reached:.0f} %"
            lines.append(f"\n{text}." if not lines[-1].startswith(("- ", "\n- ")) else f"{text}.")
    peaks = ", ".join(
        f"{precision} {peak / 2**20:.0f} MiB"
        for precision, peak in part["server_peak_bytes"].items()
    )
    lines.append(f"\nLargest memory of the server process: {peaks}.")
    return lines


def _other_lines(results: Results) -> list[str]:
    parts, lines = results["parts"], []
    if cold := parts.get("cold_start"):
        lines.append(
            f"- Cold start to the first answer ({cold['model']}, {cold['precision']}): "
            f"{', '.join(f'{s:.1f} s' for s in cold['seconds'])}; the first request took "
            f"{_first_over_median(cold['starts']):.2f} times the median of such requests, the "
            f"first step {_first_over_median(cold['steps']):.2f} times."
        )
    if second := parts.get("second_action"):
        first, again = second["actions"]
        lines.append(
            f"- Second action over the same {len(first['seconds'])} frames ({second['model']}): "
            f"{first['encoder_calls']} calls of the encoder, then {again['encoder_calls']}; "
            f"{_milliseconds(first['seconds'])} ms per frame, then "
            f"{_milliseconds(again['seconds'])} ms."
        )
    if length := parts.get("track_length"):
        for frame, each in length["frames"].items():
            lines.append(
                f"- Frame {frame} of a track ({length['model']}, one object): "
                f"{_milliseconds(each['seconds'])} ms, "
                f"{statistics.median(each['read_bytes']):.0f} B from Redis, "
                f"{statistics.median(each['written_bytes']):.0f} B to Redis, "
                f"{each['bytes_in_redis'] / 2**20:.2f} MiB lie there."
            )
        lines.append(
            f"- A worker that knows nothing of the object yet reads "
            f"{length['read_bytes_of_another_worker'] / 2**20:.2f} MiB, once."
        )
    if agreement := parts.get("agreement"):
        ious = agreement["mean_iou"]
        lines.append(
            f"- Same work: over {agreement['frames']} frames of 3 objects ({agreement['model']}, "
            f"float32) the mean IoU with (c)'s masks is {ious['in_process']:.4f} of (b), "
            f"{ious['agent']:.4f} of (d)."
        )
    return lines


def _savings_lines(results: Results) -> list[str]:
    part = results["parts"].get("savings")
    if not part:
        return []
    lines = [
        f"What each saving gives ({part['model']}, bfloat16 where nothing else is said):",
        "",
        "| | | ms | of the first | rounds |",
        "|---|---|---:|---:|---:|",
    ]
    first: dict[str, list[float]] = {}
    for row in part["rows"]:
        reference = first.setdefault(row["group"], row["seconds"])
        lines.append(
            f"| {row['group']} | {row['name']} | {_milliseconds(row['seconds'])} "
            f"| {_ratio(row['seconds'], reference)} | {len(row['seconds'])} |"
        )
    return [*lines, ""]


def _accuracy_lines(results: Results) -> list[str]:
    part = results["parts"].get("accuracy")
    if not part:
        return []
    lines = [
        f"Accuracy ({part['model']}, mask prompts, {part['clips']} of {part['of']} clips of the "
        f"evaluation set {part['evaluation_set']}, {part['frames']} frames each):",
        "",
        "| | J&F | J | F | found again | IoU with float32 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in part["rows"]:
        again = "" if row["found_again"] is None else f"{row['found_again']:.0%}"
        lines.append(
            f"| {row['name']} | {row['j_and_f']:.3f} | {row['j']:.3f} | {row['f']:.3f} | {again} "
            f"| {row['iou_with_float32']:.4f} |"
        )
    return [*lines, ""]


def _goal_table(found: list[Goal]) -> list[str]:
    words = {True: "pass", False: "**FAIL**", None: "-"}
    return [
        "| goal | measured | |",
        "|---|---|---|",
        *(f"| {goal.text} | {goal.measured} | {words[goal.passed]} |" for goal in found),
        "",
        "`-`: not measured, or not promised on a machine of this kind.",
    ]


def _general_goals(results: Results) -> list[Goal]:
    parts, plan = results["parts"], results["plan"]
    found = []
    model = plan["models"][0]
    for precision in plan["precisions"]:
        for objects in sorted({min(plan["objects"]), max(plan["objects"])}):
            ratio = _case_ratio(
                results, (model, "official", precision), (model, "agent", precision), objects
            )
            text = f"(d) within 15 % of (c): {model}, {precision}, {objects} objects"
            found.append(_goal(text, ratio, lambda r: 1 / 1.15 <= r <= 1.15, "c / d = {:.2f}"))
    if agreement := parts.get("agreement"):
        found.append(
            _goal(
                "the official predictor's masks in float32: mean IoU >= 0.999",
                agreement["mean_iou"]["in_process"], lambda iou: iou >= 0.999, "{:.4f}",
            )
        )  # fmt: skip
    if second := parts.get("second_action"):
        calls = second["actions"][1]["encoder_calls"]
        first = second["actions"][0]["encoder_calls"]
        found.append(
            Goal(
                text="second action over the same frames: no encoder call",
                measured=f"{first}, then {calls}",
                passed=first == len(second["actions"][0]["seconds"]) and calls == 0,
            )
        )
    if cold := parts.get("cold_start"):
        worst = max(cold["seconds"])
        goal = _goal("cold start <= 15 s, on a CPU", worst, lambda s: s <= 15, "{:.1f} s")
        found.append(replace(goal, passed=None) if parts.get("machine", {}).get("gpu") else goal)
        ratio = max(_first_over_median(cold["starts"]), _first_over_median(cold["steps"]))
        found.append(_goal("first request <= 2x the median", ratio, lambda r: r <= 2, "{:.2f}x"))
    if accuracy := parts.get("accuracy"):
        (half,) = (row for row in accuracy["rows"] if row["name"] == "bfloat16")
        found.append(
            _goal(
                f"bfloat16: mean IoU with float32 >= 0.98 ({half['object_frames']} object-frames)",
                half["iou_with_float32"], lambda iou: iou >= 0.98, "{:.4f}",
            )
        )  # fmt: skip
    if length := parts.get("track_length"):
        early, late = (length["frames"][key] for key in sorted(length["frames"], key=int))
        ratio = paired_ratio(late["seconds"], early["seconds"])
        found.append(
            _goal(
                "frame 500 takes as long as frame 20 (within 5 %)", ratio, lambda r: r <= 1.05,
                "{:.3f}x",
            )
        )  # fmt: skip
        sums = [
            statistics.median(each["read_bytes"]) + statistics.median(each["written_bytes"])
            for each in (early, late)
        ]
        lying = late["bytes_in_redis"] / early["bytes_in_redis"]
        found.append(
            _goal(
                "frame 500 moves and keeps the bytes of frame 20 (within 2 %)",
                max(sums[1] / sums[0], lying), lambda r: r <= 1.02, "{:.3f}x",
            )
        )  # fmt: skip
    return found


def _cpu_goals(results: Results, *, promised: bool) -> list[Goal]:
    found = []
    for objects, limit in ((1, 0.27), (4, 0.22)):
        ratio = _case_ratio(
            results, ("tiny", "http", "bfloat16"), ("tiny", "agent", "float32"), objects
        )
        text = f"AMX: {objects} objects at most {limit} of (d)'s time"
        found.append(_goal(text, ratio, _at_most(limit), "{:.3f}"))
    for objects in (1, 4):
        case = _case(results, "tiny", "http", "bfloat16", objects)
        if not case:
            continue
        part = _speeds(results)["tiny"]
        found.append(
            _goal(
                f"AMX: the step of {objects} within 2x of 0.62 TFLOP / rate",
                _over_products(part, case, "step", STEP_FLOP * objects),
                lambda r: r <= 2, "{:.2f}x",
            )
        )  # fmt: skip
        if objects == 1:
            scaled = _over_products(part, case, "encode", 1.7e12)
            found.append(
                _goal(
                    "AMX: encoding <= 0.6 s, scaled to 1.7 TFLOP/s", scaled,
                    lambda s: s <= 0.6, "{:.2f} s",
                )
            )  # fmt: skip
        share = outside_the_model(case, part["resize_seconds"]) / statistics.median(case["seconds"])
        found.append(
            _goal(
                f"AMX: time outside the model below 5 %, {objects} objects", share,
                lambda s: s < 0.05, "{:.1%}",
            )
        )  # fmt: skip
    if promised:
        return found
    return [Goal(text=goal.text, measured=goal.measured, passed=None) for goal in found]


def _gpu_goals(results: Results) -> list[Goal]:
    """One H200, tiny, bfloat16, 1080p JPEG in, JSON out, Redis on the same machine."""

    def total(model: str, objects: int) -> float | None:
        seconds = seconds_of(results, model, "http", "bfloat16", objects)
        return 1000 * statistics.median(seconds) if seconds else None

    one, sixteen = _case(results, "tiny", "http", "bfloat16", 1), total("tiny", 16)
    found = [_goal("tiny, 1 object <= 30 ms", total("tiny", 1), lambda s: s <= 30, "{:.1f} ms")]
    if one:
        after = [
            s - decode - read
            for s, decode, read in zip(
                one["seconds"], one["phases"]["decode"], one["phases"]["read"], strict=True
            )
        ]
        found.append(
            _goal(
                "tiny, 1 object: decoded frame to answer <= 15 ms",
                1000 * statistics.median(after), lambda s: s <= 15, "{:.1f} ms",
            )
        )  # fmt: skip
    counts = [n for n in results["plan"]["objects"] if total("tiny", n) is not None]
    each = slope(counts, [total("tiny", n) or 0 for n in counts]) if len(counts) > 1 else None
    found.append(_goal("tiny: each further object <= 3 ms", each, lambda s: s <= 3, "{:.2f} ms"))
    found.append(_goal("tiny, 16 objects <= 75 ms", sixteen, lambda s: s <= 75, "{:.1f} ms"))
    ratio = _case_ratio(results, ("tiny", "agent", "float32"), ("tiny", "http", "bfloat16"), 16)
    found.append(_goal("16 objects: >= 5x faster than (d)", ratio, lambda r: r >= 5, "{:.1f}x"))
    found.append(
        _goal("large, 1 object <= 50 ms", total("large", 1), lambda s: s <= 50, "{:.1f} ms")
    )
    many = _case(results, "tiny", "http", "bfloat16", 16)
    outside = None
    if many:
        part = _speeds(results)["tiny"]
        whole = outside_the_model(many, part["resize_seconds"])
        outside = 1000 * (whole - statistics.median(many["phases"]["decode"])) / many["objects"]
    found.append(
        _goal(
            "outside the model, beside decoding: <= 1 ms per object (of 16)", outside,
            lambda s: s <= 1, "{:.2f} ms",
        )
    )  # fmt: skip
    # What gpu.sh did not measure, it did not check.
    return [replace(goal, passed=bool(goal.passed)) for goal in found]


def outside_the_model(case: Results, resize_seconds: float) -> float:
    """Seconds of a request that its model phases do not take; resizing is part of encoding."""
    inside = zip(
        *(case["phases"][name] for name in MODEL_PHASES if name in case["phases"]), strict=True
    )
    rest = [total - sum(each) for total, each in zip(case["seconds"], inside, strict=True)]
    return statistics.median(rest) + resize_seconds


def _http_seconds(case: Results) -> list[float]:
    known = zip(*case["phases"].values(), strict=True)
    return [total - sum(each) for total, each in zip(case["seconds"], known, strict=True)]


def _speeds(results: Results) -> dict[str, Results]:
    return {
        name.removeprefix("speed_"): part
        for name, part in results["parts"].items()
        if name.startswith("speed_")
    }


def _case(
    results: Results,
    model: str,
    runner: str,
    precision: str,
    objects: int,
    image_format: str = "JPEG",
) -> Results | None:
    for case in _speeds(results).get(model, {"cases": []})["cases"]:
        key = (case["runner"], case["precision"], case["objects"], case["image_format"])
        if key == (runner, precision, objects, image_format):
            found: Results = case
            return found
    return None


def _case_ratio(
    results: Results, ours: tuple[str, str, str], theirs: tuple[str, str, str], objects: int
) -> float | None:
    one, other = seconds_of(results, *ours, objects), seconds_of(results, *theirs, objects)
    return paired_ratio(one, other) if one and other else None


def _over_products(part: Results, case: Results, phase: str, flop: float) -> float:
    """What a phase takes over what bfloat16 matrix products of so many FLOP took in its round."""
    pairs = zip(case["phases"][phase], part["matrix_rates"], strict=False)
    return statistics.median(seconds * rate for seconds, rate in pairs) / flop


def _first_over_median(runs: Sequence[Sequence[float]]) -> float:
    """The first of each run over the median of the following; the worst run."""
    return max(run[0] / statistics.median(run[1:]) for run in runs)


def _goal(text: str, value: float | None, holds: Callable[[float], bool], form: str) -> Goal:
    if value is None:
        return Goal(text=text, measured="not measured", passed=None)
    return Goal(text=text, measured=form.format(value), passed=holds(value))


def _at_most(limit: float) -> Callable[[float], bool]:
    return lambda value: value <= limit


def _milliseconds(seconds: Sequence[float] | None, digits: int = 0) -> str:
    return f"{1000 * summarise(seconds).median:.{digits}f}" if seconds else ""


def _ratio(ours: Sequence[float] | None, theirs: Sequence[float] | None) -> str:
    return f"{paired_ratio(ours, theirs):.3f}" if ours and theirs else ""
