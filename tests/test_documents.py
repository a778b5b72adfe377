# SPDX-License-Identifier: MIT
"""What the documents say is so: each number of a committed result.

A sentence or a table row is made from the results here, and must stand in the document.
"""

import argparse
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import all_models, effort, growth, report, scores, steps
from cvat_action import arguments

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def text_of(name: str) -> str:
    """A document without bold type, each paragraph and each table row on one line."""
    text = (ROOT / name).read_text().replace("**", "")
    return re.sub(r"(?<![|\n])\n(?=[^|\n])", " ", text)


def result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def cells(*values: object) -> str:
    return f"| {' | '.join(map(str, values))} |"


def memory_lines() -> Iterator[tuple[str, str]]:
    rows = result("memory")["rows"]
    names = {
        "plain": "plain, 14 clips",
        "occlusion": "occlusion, 20 clips",
        "distractor": "distractors, 12 clips",
        "look-alike": "hidden for 12 frames, look-alike, 12 clips",
        "chair": 'clip "chair" of PUMaVOS, 60 frames',
    }
    for set_, name in names.items():
        of_set = [row for row in rows if row["set"] == set_]
        assert [row["policy"] for row in of_set] == ["official", "quality", "anchors"]
        values = [f"{row['j_and_f']:.3f}" for row in of_set]
        again = ["{} of {}".format(*row["found_again"]) for row in of_set]
        shown = ["{} of {}".format(*row["shown_while_hidden"]) for row in of_set]
        counted = of_set[0]["found_again"][1] > 0
        both = [f"{v}; {a}" if counted else v for v, a in zip(values, again, strict=True)]
        if set_ != "chair":
            yield "README.md", cells(name, *both)
        short = name if set_ == "chair" else f"{set_}, {of_set[0]['clips']} clips"
        yield "docs/benchmarks.md", cells(short, "J&F", *values)
        if counted:
            pairs = [f"{a}; {s}" for a, s in zip(again, shown, strict=True)]
            found = cells("", "found again; shown while hidden", *pairs).replace("|  |", "| |")
            yield "docs/benchmarks.md", f"{cells(short, 'J&F', *values)}\n{found}"


def effort_lines() -> Iterator[tuple[str, str]]:
    names = {
        "anew": "anew from each correction",
        "joined": "joined",
        "both ways": "both ways",
        "carried": "both ways, and carried by optical flow",
    }
    proposals = {"eye": "first bad frame", "score": "lowest score"}
    chair, drawn, two, four, all_of_them = (
        {(row["way"], row["proposal"]): row for row in result("effort")[part]["rows"]}
        for part in (
            "chair, quality, 2 conditioning frames",
            "drawn, 20 clips, quality, 2 conditioning frames",
            *(f"drawn, quality, {count} conditioning frames" for count in (2, 4, 0)),
        )
    )

    def mean_j(row: Any) -> list[str]:
        return [f"{row['mean_j_after'][key]:.3f}" for key in ("0", "1", "2", "4")]

    in_region = result("effort")["chair, quality, 2 conditioning frames, search region 2"]["rows"]
    for row in in_region:
        name, by = names[row["way"]], proposals[row["proposal"]]
        yield "docs/benchmarks.md", cells(name, by, *mean_j(row))
    whole, in_region = (
        [
            f"{row['corrections_per_object']:.2f}"
            for row in result("effort")[f"drawn, quality, 2 conditioning frames{part}"]["rows"]
            if row["way"] == "both ways" and row["proposal"] in proposals
        ]
        for part in ("", ", search region 3")
    )
    yield (
        "docs/benchmarks.md",
        f"{in_region[0]} both ways at the first bad frame ({whole[0]} on the whole image), "
        f"{in_region[1]} at the lowest score ({whole[1]})",
    )

    of_eye = effort.shares(list(drawn.values()), "eye")

    def in_words(share: tuple[float, float, float]) -> str:
        return "1" if share == (1, 1, 1) else "{:.2f} ({:.2f} to {:.2f})".format(*share)

    for proposal, by in proposals.items():
        for way, name in names.items():
            row = chair[way, proposal]
            right = f"{row['corrections_per_object']:.0f}" if row["finished"] else "not in 10"
            yield "docs/benchmarks.md", cells(name, by, right, *mean_j(row))
            row = drawn[way, proposal]
            share = f"{row['corrections_per_object']:.2f}", in_words(of_eye[way, proposal])
            right = f"{row['finished']} of {row['objects']}"
            yield "docs/benchmarks.md", cells(name, by, *share, right, *mean_j(row))
    of_score = effort.shares(list(drawn.values()), "score")
    joined, both, carried = (
        in_words(of_score[way, "score"]) for way in ("joined", "both ways", "carried")
    )
    yield (
        "docs/benchmarks.md",
        f"joining takes {joined}, tracking both ways {both} and carrying as well {carried}",
    )
    for count, part in (("2", two), ("4", four), ("all", all_of_them)):
        values = [
            f"{part[way, 'eye']['corrections_per_object']:.2f}; {mean_j(part[way, 'eye'])[3]}"
            for way in ("joined", "both ways")
        ]
        yield "docs/benchmarks.md", cells(count, *values)
    by_score, by_eye = (
        [f"{drawn[way, proposal]['corrections_per_object']:.1f}" for way in ("anew", "carried")]
        for proposal in ("score", "eye")
    )
    assert not any(chair["anew", proposal]["finished"] for proposal in proposals)
    right = [f"{chair['carried', by]['corrections_per_object']:.0f}" for by in ("score", "eye")]
    yield (
        "README.md",
        f"A real clip: every frame is right after {right[0]} corrections with `--both-ways` "
        f"({right[1]} where a person finds the first bad frame), and not after 10 where each "
        "starts the object anew. Mean J after four corrections: "
        f"{mean_j(chair['carried', 'score'])[3]} and {mean_j(chair['anew', 'score'])[3]}. On drawn "
        f"clips, whose objects move fast, {by_score[1]} corrections per object and {by_score[0]} "
        f"started anew ({by_eye[1]} and {by_eye[0]})",
    )


def small_lines() -> Iterator[tuple[str, str]]:
    names = {"chair": 'clip "chair"', "drawn": "drawn, 6 clips"}
    shown = {1: "as it is", 2: "half of the image", 4: "a quarter of the image"}
    for set_, name in names.items():
        for times, as_ in shown.items():
            rows = [row for row in result("small")[set_]["rows"] if row["shown_at"] == times]
            line = cells(name, as_, *(f"{row['j_and_f']:.3f}" for row in rows))
            yield from ((file, line) for file in ("README.md", "docs/benchmarks.md"))


def models_lines() -> Iterator[tuple[str, str]]:
    for line in all_models.report(result("models")).splitlines():
        if line.startswith("| "):
            yield "docs/benchmarks.md", line.replace("**", "")


def steps_lines() -> Iterator[tuple[str, str]]:
    for model in ("micro", "tiny"):
        for line in steps.report(result(f"steps_{model}")).splitlines():
            if line.startswith("|"):
                yield "docs/benchmarks.md", line
    for line in steps.report_cache(result("cache")["rows"]).splitlines():
        yield "docs/benchmarks.md", line


def scores_lines() -> Iterator[tuple[str, str]]:
    sets = result("scores")["sets"]
    answer, stable = (
        [f"{sets[name]['formulas'][formula]['auroc']:.3f}" for name in sets]
        for formula in ("the answer's score", "score x stability")
    )
    yield "docs/benchmarks.md", f"reaches {answer[1]} on a third of the drawn evaluation set"
    yield "docs/benchmarks.md", f"{answer[0]} on clips of other seeds"
    yield "docs/benchmarks.md", f"and {answer[2]} on the real clip `chair`"
    yield "docs/benchmarks.md", f"reaches {stable[0]} on the clips of other seeds"
    yield "docs/benchmarks.md", f"and {stable[1]} on the evaluation set and {stable[2]} on `chair`"


def options_lines() -> Iterator[tuple[str, str]]:
    view = report.View(result("default"))
    rows = view.parts["accuracy"]["rows"]
    exact, half, small, few = (rows[index] for index in (0, 1, 2, 4))
    savings = {(r["group"], r["name"]): r["seconds"] for r in view.parts["savings"]["rows"]}
    whole, small_step, few_step = (
        dict(enumerate(savings["options: step one object", f"{px} px, {frames} memory frames"]))
        for px, frames in ((1024, 7), (512, 7), (1024, 4))
    )
    ratios = [f"{report.paired_ratio(s, whole).median:.2f}" for s in (small_step, few_step)]
    yield (
        "docs/benchmarks.md",
        f"On all {view.parts['accuracy']['clips']} clips of the evaluation set J&F fell from "
        f"{half['j_and_f']:.3f} (bfloat16) to {small['j_and_f']:.3f} with half of the input's "
        f"side, and stayed {few['j_and_f']:.3f} with 4 memory frames, though 5 % of the mask is "
        f"then another one (IoU with float32 {few['iou_with_float32']:.3f}); a step of tiny took "
        f"{ratios[0]} and {ratios[1]} of its time",
    )
    yield (
        "docs/benchmarks.md",
        f"bfloat16 itself cost nothing (float32: {exact['j_and_f']:.3f}); its masks' mean IoU with "
        f"those of float32 is {half['iou_with_float32']:.3f}",
    )
    speeds = [
        view.ratio("tiny", ("http", "bfloat16"), ("agent", "bfloat16"), n, "JPEG") for n in (4, 1)
    ]
    low, high = (f"{ratio.median:.1f}" for ratio in speeds if ratio)
    yield "README.md", f"{low} to {high} on AMD Zen (one and two rounds)"


def faults_lines() -> Iterator[tuple[str, str]]:
    for name, run in result("faults").items():
        told = cells(name, run["met"], run["broken"], run["seed"], f"{run['scale']:g}", run["date"])
        yield "docs/fidelity.md", told


def speed_lines() -> Iterator[tuple[str, str]]:
    for name, words in (("default", "a frame of tiny takes"), ("intel_amx", "a frame takes")):
        view = report.View(result(name))
        rates = view.parts["machine"]["matrix_rate"]
        yield "docs/benchmarks.md", f"{rates['bfloat16'] / rates['float32']:.1f}"
        one, four = (
            view.ratio("tiny", ("http", "bfloat16"), ("agent", "float32"), n).median for n in (1, 4)
        )
        yield (
            "docs/benchmarks.md",
            f"{words} {one:.3f} (one object) and {four:.3f} (four) of the time",
        )
        one, four = (
            view.over_products("tiny", n, "step", n * report.STEP_FLOP).median for n in (1, 4)
        )
        yield (
            "docs/benchmarks.md",
            f"a step takes {one:.2f} (one object) and {four:.2f} (four) times",
        )
    one, four = (view.ratio("tiny", ("http", "bfloat16"), ("agent", "bfloat16"), n) for n in (1, 4))
    each = [f"{ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})" for ratio in (one, four)]
    yield "docs/benchmarks.md", f"{each[0]} and {each[1]} of the time of (d) in bfloat16"
    yield (
        "README.md",
        f"on Intel with AMX {one.median:.2f} with one object and {four.median:.2f} with four.",
    )
    against_float32, both_in_float32 = (
        [
            report.View(result(name)).ratio("tiny", ("http", ours), ("agent", "float32"), n).median
            for name in ("default", "intel_amx")
            for n in (1, 4)
        ]
        for ours in ("bfloat16", "float32")
    )
    yield (
        "README.md",
        "Ours in bfloat16, the agent in float32: "
        f"{min(against_float32):.2f} to {max(against_float32):.2f} on both. "
        f"Both in float32: {min(both_in_float32):.2f} to {max(both_in_float32):.2f}",
    )


def clicks_lines() -> Iterator[tuple[str, str]]:
    clicks = result("clicks_tiny")
    yield "docs/benchmarks.md", f"{clicks['ratio']:.3f}, so the goal is just missed"
    yield "docs/benchmarks.md", f"and {clicks['wait_of_work']:.3f}"


def growth_lines() -> Iterator[tuple[str, str]]:
    for line in growth.table(result("growth")["rows"]).splitlines():
        yield "docs/action.md", line


LINES = (memory_lines, effort_lines, small_lines, models_lines, steps_lines, scores_lines)
LINES += (options_lines, speed_lines, clicks_lines, growth_lines, faults_lines)


@pytest.mark.parametrize("lines", LINES)
def test_the_numbers_are_those_of_the_committed_results(lines: Any) -> None:
    found = [(name, line) for name, line in lines() if line not in text_of(name)]
    assert found == []


@pytest.mark.parametrize(
    "path",
    [*ROOT.glob("*.md"), *ROOT.glob("[!.]*/*.md")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_the_files_that_a_document_names_are_there(path: Path) -> None:
    folders = "benchmarks|cvat_action|cvat_ui_plugin|docs|models|sam2_tracker|tests|tools|training"
    names = re.findall(
        rf"\b((?:{folders})/[\w/.-]+\.(?:py|ts|sh|md|yaml|json))\b", path.read_text()
    )
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_the_minutes_of_a_deployment_follow_from_its_gigabytes() -> None:
    text = text_of("docs/deploy.md")
    packages = re.search(r"packages take ([\d.]+) GB on CPU and ([\d.]+) GB on GPU", text)
    checkpoints = re.search(r"checkpoint \(([\d.]+) to ([\d.]+) GB", text)
    assert packages
    assert checkpoints
    pairs = zip(packages.groups(), checkpoints.groups(), strict=True)
    sizes = [round(float(one) + float(other), 1) for one, other in pairs]
    minutes = [math.ceil(size * 8000 / 100 / 60) for size in sizes]
    assert f"CPU / GPU | {sizes[0]} / {sizes[1]} GB |" in text
    assert f"| that takes at 100 Mbit/s, at most | {minutes[0]} / {minutes[1]} min |" in text


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/deploy.md"])
def test_the_firewall_keeps_the_port_that_docker_forwards(page: str) -> None:
    """Docker rewrites the address before any chain of ufw: only DOCKER-USER sees the packet."""
    text = (ROOT / page).read_text()
    port = (ROOT / "function.yaml").read_text().split("\n        port: ")[1].split()[0]
    rule = f"-p tcp -m conntrack --ctorigdstport {port} --ctdir ORIGINAL -j DROP"
    for program in ("iptables", "ip6tables"):
        assert f"$ sudo {program} -I DOCKER-USER -i eth0 {rule}\n" in text
    assert f"$ sudo ip6tables -I INPUT -i eth0 -p tcp --dport {port} -j DROP\n" in text
    assert "A rule of ufw does not do it" in text_of(page)


@pytest.mark.parametrize(
    ("name", "made"),
    [("default", report.report_markdown), ("scores", scores.report)]
    + [(name, steps.report) for name in ("steps_micro", "steps_tiny")],
)
def test_the_committed_tables_are_made_from_the_committed_results(name: str, made: Any) -> None:
    assert (RESULTS / f"{name}.md").read_text().strip() == made(result(name)).strip()


def test_every_command_and_option_of_the_command_line_is_on_its_page() -> None:
    text = (ROOT / "docs" / "action.md").read_text()
    parsers, missing = [arguments.parser()], []
    for parser in parsers:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
                missing += [name for name in action.choices if f"`{name}" not in text]
            names = action.option_strings  # of which one is enough
            if names and not any(re.search(rf"{name}(?![\w-])", text) for name in names):
                missing.append(names[-1])
    assert set(missing) <= {"--help", "--version"}
