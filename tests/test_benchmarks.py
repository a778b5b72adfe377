# SPDX-License-Identifier: MIT
"""That the benchmarks measure what they say; never how fast anything is."""

import json
import math
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from benchmarks import all_models, clicks, effort, growth, parts, steps
from benchmarks.__main__ import list_parts, main, measure, share_of_first
from benchmarks.accuracy import Variant, accuracy_of
from benchmarks.banks import FILLED
from benchmarks.clip import encoded_clip
from benchmarks.machine import peak_memory
from benchmarks.models import MICRO, benchmark_files, random_files
from benchmarks.parts import compare_masks
from benchmarks.plan import Clock, Plan
from benchmarks.report import Results, goals, plot, report_markdown
from benchmarks.runners import AgentRunner, InProcessRunner
from benchmarks.savings import savings
from benchmarks.scores import auroc
from benchmarks.steps import cache_hits, holds, take_turns
from benchmarks.summary import Interval, median_interval, paired_ratio, slope
from benchmarks.tracks import folder_masks
from model_handler import ModelHandler
from sam2_tracker.image_decoding import decode_image
from sam2_tracker.memory_bank import start_bank
from sam2_tracker.models import ModelFiles
from sam2_tracker.predictions import prediction_of
from tools.official import official_predictor
from training.evaluation_set import SUBSETS

SIZE = {"width": 160, "height": 120}
OF_MICRO = {"models": (MICRO,), "objects": (1,), "precisions": ("float32",)}
SMALL = Plan(device="cpu", **OF_MICRO, **SIZE, rounds=1, track_frames=3)


def quiet(text: str) -> None:
    pass


@pytest.fixture(autouse=True)
def small_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's matrix rate is measured on small ones: large products take half a minute."""
    monkeypatch.setattr("benchmarks.machine.SIDE", 64)


def part_alone(name: str, part: Any, **more: Any) -> Results:
    return {"parts": {name: part}, "failed": {}, "plan": OF_MICRO, **more}


def verdicts(results: Results, *words: str) -> list[bool | None]:
    """Of the goals whose text has one of the words."""
    found = goals(results)
    return [goal.passed for goal in found if any(word in goal.text for word in words)]


# ---- statistics ----


def test_a_ratio_is_taken_within_rounds() -> None:
    """A round that was slow for both does not count more than the others."""
    assert paired_ratio({0: 1.0, 1: 10.0, 2: 1.0}, {0: 4.0, 1: 40.0, 2: 2.0}).median == 0.25
    # One of them skipped a round.
    assert paired_ratio({0: 1.0, 2: 9.0}, {0: 2.0, 1: 2.0, 2: 18.0}).median == 0.5
    with pytest.raises(ValueError, match="no round"):
        paired_ratio({0: 1.0}, {1: 1.0})


def test_an_interval_is_wider_the_fewer_rounds_it_has() -> None:
    assert median_interval([0.5]) == Interval(median=0.5, low=-math.inf, high=math.inf, rounds=1)
    few, many = median_interval([0.8, 1.0, 1.2]), median_interval([0.8, 1.0, 1.2] * 50)
    assert few.low < many.low <= 1.0 <= many.high < few.high
    assert few == median_interval([0.8, 1.0, 1.2])  # the same every time
    assert str(few) == "1.000 (0.800 to 1.200)"


def test_auroc() -> None:
    """The share of pairs in which the frame that went wrong has the lower value; ties are half."""
    wrong = [True, True, False, False]
    assert auroc([0.1, 0.2, 0.8, 0.9], wrong) == 1.0
    assert auroc([0.8, 0.9, 0.1, 0.2], wrong) == 0.0
    assert auroc([0.1, 0.5, 0.5, 0.9], wrong) == 0.875
    assert math.isnan(auroc([0.1, 0.2], [True, True]))


def test_a_limit_within_the_interval_is_neither_kept_nor_missed() -> None:
    interval = Interval(median=1.0, low=0.9, high=1.1, rounds=9)
    assert [holds(interval, limit) for limit in (0.8, 1.0, 1.1)] == [False, None, True]


def test_slope() -> None:
    assert slope([1, 4, 16], [12.0, 18.0, 42.0]) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="two points"):
        slope([1], [1.0])


# ---- what is compared ----


def test_the_agents_way_and_ours_track_as_the_official_predictor_does(
    micro_files: ModelFiles,
) -> None:
    """Else the times would be those of other work."""
    clip = encoded_clip(width=320, height=240, objects=2, image_format="PNG")
    ious = compare_masks(micro_files, official_predictor(micro_files), clip, "cpu", 4, quiet)
    assert ious["in_process"] > 0.999
    assert ious["agent"] > 0.9  # its time encoding of pointers and its resizing differ


def test_the_agents_memory_is_full_and_stays_so(micro_files: ModelFiles) -> None:
    clip = encoded_clip(**SIZE, objects=2, image_format="JPEG")
    runner = AgentRunner(official_predictor(micro_files), clip, "float32")
    runner.start()
    for frame in range(3):
        for state in runner._states:
            kept = state.outputs["non_cond_frame_outputs"]
            last = FILLED - 1 + frame
            assert sorted(kept) == list(range(last - 6, last + 1))
        runner.step()


def test_every_image_has_other_bytes_and_the_same_pixels() -> None:
    for image_format in ("JPEG", "PNG"):
        clip = encoded_clip(**SIZE, objects=6, image_format=image_format)
        one, same = clip.image(0), clip.image(len(clip.images))
        assert one != same
        pixels = [decode_image(data, max_megapixels=1).tobytes() for data in (one, same)]
        assert pixels[0] == pixels[1]
        assert clip.masks.any(axis=(1, 2)).all()


def test_those_that_share_a_function_do_not_find_each_others_frames_in_its_cache(
    micro_files: ModelFiles,
) -> None:
    clip = encoded_clip(**SIZE, objects=1, image_format="JPEG")
    tracker = parts._tracker(micro_files, "cpu", "float32")
    runners = [InProcessRunner(tracker, clip) for _ in range(2)]
    calls: list[object] = []
    encoder: Any = tracker._model.network.image_encoder
    encoder.register_forward_pre_hook(lambda *_: calls.append(1))
    for runner in runners:
        runner.start()
        runner.step()
    assert len(calls) == 4
    tracker.close()


def test_random_weights_answer_a_blob(tmp_path: Path, repository: Path) -> None:
    files = random_files(repository / "models" / "sam2.1_hiera_micro.yaml", tmp_path)
    model = ModelHandler(files, device="cpu", precision="float32", fill_hole_area=0)
    clip = encoded_clip(width=320, height=240, objects=1, image_format="JPEG")
    frame = model.encode(decode_image(clip.image(0), max_megapixels=1))
    (started,) = model.start(frame, [clip.masks[0]], width=320, height=240)
    (tracked,) = model.step(frame, [start_bank("quality", prediction_of(started).seen)])
    (bitmap,) = model.logits_to_bitmaps([prediction_of(tracked).logits], width=320, height=240)
    assert 0.005 < bitmap.mean() < 0.2
    rows = bitmap[bitmap.any(axis=1)].astype(int)
    assert (abs(rows[:, 1:] - rows[:, :-1]).sum(axis=1) <= 2).all()  # one run in every row


def test_a_second_action_neither_decodes_nor_encodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = mock.Mock(side_effect=decode_image)
    monkeypatch.setattr("sam2_tracker.frame_cache.decode_image", decode)
    monkeypatch.setattr(parts, "ACTION_FRAMES", 4)
    first, second = parts.second_action(SMALL, Clock(60), tmp_path, quiet)["actions"]
    assert (first["encoder_calls"], second["encoder_calls"]) == (4, 0)  # counted on the module
    decoded = [call.args[0] for call in decode.call_args_list]
    assert len(decoded) == len(set(decoded)) == 4


def test_corrections_are_told_as_a_share_of_starting_anew() -> None:
    counts = {("anew", "eye"): [4, 2, 2, 6], ("joined", "eye"): [2, 1, 1, 3]}
    rows = [{"way": w, "proposal": p, "corrections": found} for (w, p), found in counts.items()]
    # each object takes half, so there is no doubt about the half
    assert effort.shares(rows, "eye")["joined", "eye"] == (0.5, 0.5, 0.5)
    rows[1]["corrections"] = [7, 0, 0, 0]
    share, low, high = effort.shares(rows, "eye")["joined", "eye"]
    assert (share, low) == (0.5, 0.0)
    assert high > 1
    assert effort.shares(rows, "score") == {}


def test_a_share_that_a_few_objects_decide_has_no_interval(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A sample of the objects may be of those alone that need no correction."""
    counts = {"anew": [0] * 10 + [3, 9], "joined": [0] * 10 + [3, 3]}
    effort.show_shares(
        [{"way": w, "proposal": "eye", "corrections": found} for w, found in counts.items()]
    )
    assert "0.50 of anew, eye (too few objects for an interval)" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["effort", "small", "memory", "scores", "tracks"])
def test_a_folder_that_is_no_clip_ends_with_a_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [])  # each reads its options from there
    monkeypatch.setattr("benchmarks.memory.ROOT", tmp_path)
    with pytest.raises(SystemExit, match=f"^{tmp_path} has no "):
        main([name, "--clip", str(tmp_path)])


# ---- the whole ----


def test_measures_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MEASUREMENTS_EACH", 1)  # and else by --rounds, not by the clock
    out = tmp_path / "results.json"
    failed = {"track_length": "RuntimeError: an earlier run"}
    results: Results = {"parts": {}, "failed": failed, "plan": OF_MICRO}
    named = ["machine", f"speed_{MICRO}", "track_length"]
    monkeypatch.setattr(parts, "ROUNDS_OF_ALL", 1)
    measure(replace(SMALL, rounds=2), 60, out, results, words=[], only=named)
    assert results["failed"] == {}
    assert json.loads(out.read_text())["parts"].keys() == set(named)
    cases: list[Any] = results["parts"][f"speed_{MICRO}"]["cases"]
    assert [case["runner"] for case in cases] == list(parts.RUNNERS)
    assert [case["rounds"] for case in cases] == [[0, 1], [0], [0], [0, 1]]  # (a) and (d) go on
    assert all(len(case["seconds"]) == len(case["rounds"]) for case in cases)
    http = cases[0]
    # A step writes one memory frame and a head, and reads heads: the frames are in the cache.
    assert min(http["written_bytes"]) > 16 * 16 * 32 * 2
    assert 0 < max(http["read_bytes"]) < min(http["written_bytes"])
    assert {"decode", "encode", "step", "save"} <= http["phases"].keys()
    early, late = results["parts"]["track_length"]["frames"].values()
    assert early["bytes_in_redis"] == pytest.approx(late["bytes_in_redis"], rel=0.02)

    measure(SMALL, 60, out, results, words=["--part", "machine"], only=["machine"])
    text = report_markdown(results)
    assert "| JPEG | float32 | 1 |" in text
    of_part = {name: part["command"] for name, part in results["parts"].items()}
    assert of_part[f"speed_{MICRO}"] == "python -m benchmarks"
    assert of_part["track_length"] == "python -m benchmarks"
    assert of_part["machine"] == "python -m benchmarks --part machine"  # measured again: named
    assert all(command in text for command in of_part.values())
    digest = benchmark_files(MICRO, tmp_path).sha256[:12]
    assert all(part["weights_digest"] == digest for part in results["parts"].values())
    assert verdicts(results, "bytes of frame 20") == [True]
    plot(results, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_what_is_missing_is_said() -> None:
    part = {"weights": "random", "resize_seconds": 0.0, "matrix_rates": [], "cases": []}
    part |= {"server_peak_bytes": {}}
    part |= {"not_measured": [asdict(case) for case in parts.speed_cases(SMALL, MICRO)]}
    results = part_alone(f"speed_{MICRO}", part, failed={"machine": "RuntimeError: no"})
    text = report_markdown(results)
    assert "Not measured, because the time was over: a float32 1 JPEG, b float32 1 JPEG" in text
    assert "Part machine failed" in text
    assert all(goal.passed is not False for goal in goals(results))


def test_a_missed_goal_is_seen() -> None:
    def cold(seconds: list[float], first: list[float]) -> list[bool | None]:
        runs = {"starts": [[f, 1.0, 1.0] for f in first], "steps": [], "seconds": seconds}
        part = {"model": MICRO, "precision": "float32", **runs}
        return verdicts(part_alone("cold_start", part), "cold", "2x the")

    assert cold([14.8, 14.9], [1.8, 1.9]) == [True, True]
    assert cold([15.1, 15.2], [2.1, 2.2]) == [False, False]
    assert cold([14.9, 15.1], [1.9, 2.1]) == [None, None]  # nobody knows yet

    for iou, passed in ((0.9995, True), (0.99, False)):
        part = {"model": MICRO, "frames": 8, "mean_iou": {"in_process": iou, "agent": 0.9}}
        assert verdicts(part_alone("agreement", part), "official")[0] is passed


def test_results_of_other_weights_are_not_mixed_and_unknown_parts_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results.json"
    out.write_text(json.dumps({"parts": {"machine": {}}, "failed": {}, "weights": "others"}))
    for words, said in (
        (["--resume", "--out", str(out), "--part", "agreement"], "other weights"),
        (["--part", "sped_tiny"], "no such part: sped_tiny"),
        (["--out", str(out), "--part", "agreement"], "has other parts, which would be lost"),
    ):
        with pytest.raises(SystemExit):
            main(words)
        assert said in capsys.readouterr().err


def test_variants_take_turns() -> None:
    calls: list[str] = []

    def variant(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    seconds = take_turns({name: partial(variant, name) for name in ("a", "b")}, rounds=2)
    assert "".join(calls[-4:]) == "abba"
    assert seconds == {"a": [5.0, 8.0], "b": [6.0, 7.0]}  # the rounds before warm up


def test_the_cache_keeps_what_fits() -> None:
    """What is measured in docs/benchmarks.md: hits do not fall to nothing where a cache is full."""
    frame = 9 << 20
    fits, full = cache_hits(2, 2 * 8 * frame), cache_hits(4, 2 * 8 * frame)
    assert (fits["keys"], fits["frames"]) == (6 / 7, 1.0)
    assert 0.2 < full["keys"] < 6 / 7


def test_the_parts_share_the_time() -> None:
    """What is left when each has taken its share is nothing, and each gets some."""
    for plan in (SMALL, replace(SMALL, models=("tiny", "small", "large"), extra=True)):
        names, left = list_parts(plan), 1.0
        for index in range(len(names)):
            share = share_of_first(plan, names[index:])
            assert 0 < share <= 1
            left *= 1 - share
        assert left == pytest.approx(0)
    # Where time runs short the comparison itself gets most of it.
    shares = [share_of_first(SMALL, list_parts(SMALL)[2:]), 0.5]
    assert shares[0] > shares[1]


def test_all_models_are_measured_round_by_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(all_models, "FRAMES", 1)
    monkeypatch.setattr(all_models, "WARM_UP", 1)
    out = tmp_path / "models.json"
    words = ["--model", MICRO, "--size", "160", "120", "--precision", "float32", "--out", str(out)]
    assert all_models.main([*words, "--rounds", "1"]) == 0
    first = json.loads(out.read_text())["rounds"]
    assert all_models.main([*words, "--rounds", "2", "--resume"]) == 0
    results = json.loads(out.read_text())
    assert results["rounds"][:1] == first  # kept
    assert [one["run"] for one in results["rounds"]] == [0, 1]
    for one in results["rounds"]:
        measured = one["models"][MICRO]
        assert one["matrix_rate"].keys() == {"bfloat16", "float32"}
        # a full bank: 15 memory frames of 20 x 20 tokens and 32 channels, and nine heads
        assert 15 < measured["bytes_per_object"] / (24 * 24 * 32 * 2) < 20
        for of in measured["objects"].values():
            assert 0 < of["in_model_s"] < of["seconds"] < measured["cold_start_s"]
            assert of["peak_bytes"] > 100 << 20
    text = out.with_suffix(".md").read_text()
    assert f"| {MICRO} |" in text
    assert "2 rounds by `python -m benchmarks models" in text
    with pytest.raises(SystemExit):
        all_models.main(["--resume", "--out", str(out)])  # other models


def test_goals_of_the_fast_model_are_reached_missed_or_open() -> None:
    """Tiny takes 10 s of 1 TFLOP a frame at 1 TFLOP/s; the fast model what is given."""

    def verdicts_of(of_one: list[float]) -> dict[str, bool | None]:
        def measured(seconds: float) -> Results:
            frame = {"seconds": seconds, "in_model_s": 0.9 * seconds, "peak_bytes": 1}
            return {"objects": {"1": frame, "4": frame}, "cold_start_s": 5 * seconds}

        fast, tiny, slow = all_models.FAST, all_models.TINY, measured(10)
        results = {
            "plan": {"models": [tiny, fast], "precision": "float32"},
            "models": {name: {"encode": 0.5e12, "step": 0.125e12} for name in (tiny, fast)},
            "rounds": [
                {"matrix_rate": {"float32": 1e12}, "models": {tiny: slow, fast: measured(s)}}
                for s in of_one
            ],
        }
        return {text: found for text, _, found in all_models.goals(results)}

    good, bad = verdicts_of([0.9, 0.95]), verdicts_of([2.3, 2.4])
    assert set(good.values()) == {True}
    missed = [text for text, found in bad.items() if found is False]
    assert [text.split(": ")[1].split(" <=")[0] for text in missed] == [
        "a frame with 1 object, of tiny's",
        "the model, of its matrix products, 1 object",
        "a frame with 4 objects, of tiny's",
        "the model, of its matrix products, 4 objects",
        "cold start, s",
    ]
    nearly = verdicts_of([1.1, 1.3])
    assert nearly["efficienttam_ti_512: a frame with 1 object, of tiny's <= 0.12"] is None
    assert set(verdicts_of([0.9]).values()) == {None}  # one round decides nothing


# ---- accuracy and savings ----


def test_accuracy_of_precisions_and_options(micro_files: ModelFiles) -> None:
    variants = (
        Variant(name="float32"),
        Variant(name="bfloat16", precision="bfloat16"),
        Variant(name="small", image_size=64),
    )
    of = {"variants": variants, "subsets": (replace(SUBSETS[1], clips=3, frames=10),)}
    found = accuracy_of(micro_files, device="cpu", clips=1, clock=Clock(60), report=quiet, **of)
    assert (found["clips"], found["of"], found["frames"]) == (1, 3, 10)
    assert found["rows"][0]["object_frames"] == 9
    exact, half, small = found["rows"]
    assert exact["iou_with_float32"] == 1.0
    assert 0.9 < half["iou_with_float32"] < 1.0
    assert small["iou_with_float32"] < half["iou_with_float32"]
    assert small["j_and_f"] < exact["j_and_f"]
    results = part_alone("accuracy", found, plan=asdict(SMALL))
    assert "| small |" in report_markdown(results)
    assert verdicts(results, "IoU") == [True]
    found["rows"][1]["iou_with_float32"] = 0.979
    assert verdicts(results, "IoU") == [False]


def test_a_process_that_has_ended_has_no_peak_of_zero_bytes(tmp_path: Path) -> None:
    assert peak_memory(Path("/proc/self/status")) > 10 << 20
    (tmp_path / "status").write_text("Name:\tpython\nState:\tZ (zombie)\n")
    with pytest.raises(ValueError, match="had ended"):
        peak_memory(tmp_path / "status")


def test_savings_are_measured(tmp_path: Path) -> None:
    part = savings(SMALL, Clock(0), tmp_path, quiet)
    assert len({row["group"] for row in part["rows"]}) == 5
    assert all(len(row["seconds"]) == 1 for row in part["rows"])
    results = part_alone("savings", part, plan=asdict(SMALL))
    assert "| official, autocast |" in report_markdown(results)


@pytest.mark.parametrize(
    "name",
    ["steps", "memory", "effort", "small", "scores", "growth", "clicks", "models"],
)
def test_numbers_can_be_written_elsewhere(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [])
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert "--out" in capsys.readouterr().out


def test_growth_is_written_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"frames": 5, "peak_gib": 0.1, "seconds": 1.0, "wall": 1.0, "written": {}}
    out = tmp_path / "new" / "growth.json"
    monkeypatch.setattr(growth, "measure", lambda frames, objects: row)
    monkeypatch.setattr(growth, "table", lambda rows: "")
    monkeypatch.setattr("sys.argv", ["growth", "--frames", "5", "--out", str(out)])
    assert growth.main() == 0
    assert json.loads(out.read_text())["rows"] == [row]


def test_what_the_cache_hits_is_written_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "cache.json"
    monkeypatch.setattr(steps, "CACHE_OBJECTS", (1,))
    monkeypatch.setattr("sys.argv", ["steps", "--only", "cache", "--out", str(out)])
    assert steps.main() == 0
    assert len(json.loads(out.read_text())["rows"]) == 1


def test_clicks_are_timed_by_pairs_and_ten_people_wait_for_the_work_of_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(clicks, "RESULTS", tmp_path)
    monkeypatch.setattr(clicks, "PEOPLE", 3)
    monkeypatch.setenv("SAM2_IMAGE_SIZE", "256")
    monkeypatch.setattr("sys.argv", ["clicks", "--rounds", "2"])
    clicks.main()
    told = json.loads((tmp_path / "clicks_micro.json").read_text())
    assert len(told["ratios"]) == 2
    assert told["ratio"] == pytest.approx(sum(told["ratios"]) / 2, abs=1e-3)
    assert told["wait_of_work"] == pytest.approx(told["longest_wait_ms"] / told["work_ms"])
    log = ["worker 0 is ready", "request: {'image_bytes': 9, 'read_ms': 1.5, 'encode_ms': 20.0}"]
    assert clicks.work_of(log) == [0.0215]


def test_the_objects_of_a_clip_are_numbered_by_the_palette_as_in_davis(tmp_path: Path) -> None:
    numbers = np.zeros((60, 80), np.uint8)
    numbers[10:30, 10:30], numbers[35:50, 40:70] = 1, 2
    image = Image.fromarray(numbers)
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    (tmp_path / "Annotations").mkdir()
    image.save(tmp_path / "Annotations" / "00007.png")
    found = {masks.name: masks.frames[7] for masks in folder_masks(tmp_path)}
    assert [*found] == [f"{tmp_path.name} 1", f"{tmp_path.name} 2"]
    assert np.array_equal(found[f"{tmp_path.name} 2"], numbers == 2)
    image.convert("RGB").save(tmp_path / "Annotations" / "00008.png")
    with pytest.raises(ValueError, match="has colours"):
        list(folder_masks(tmp_path))
