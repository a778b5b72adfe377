# SPDX-License-Identifier: MIT
"""The shipped micro model, and that training runs the tracker exactly as it is used later."""

import argparse
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from model_handler import IMAGE_MEAN, IMAGE_STD
from training import calibrate, evaluate
from training import train as training_program
from training.clips import Clip, draw_clip
from training.dataset import ClipStock, ensure_clip
from training.metrics import jaccard
from training.model import CONFIG, WEIGHTS, build_predictor, load_weights, save_weights
from training.predict import clicked, corrected, tracked
from training.prompting import Plan, Tap, Tracker, clicks_of, draw_plan, encode, resize_input
from training.schedule import Serving
from training.train import Training, optimizers_of

META_CONFIG = "configs/sam2.1/sam2.1_hiera_t.yaml"
SIDE = 128  # small pictures, for speed: nothing that is learned depends on the size


@pytest.fixture(scope="module")
def predictor():
    return build_predictor()


@pytest.fixture(scope="module")
def small():
    predictor = build_predictor()
    resize_input(predictor, SIDE)
    return predictor


@pytest.fixture(scope="module")
def clip() -> Clip:
    return draw_clip(41, frames=6, width=SIDE, height=SIDE, objects=2, pictures="none", motion=0.5)


def test_the_shipped_weights_are_small_halves_and_fit_the_official_predictor(predictor) -> None:
    stored = load_file(WEIGHTS)
    assert WEIGHTS.stat().st_size <= 20_000_000
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert set(stored) == set(predictor.state_dict())
    assert all(torch.isfinite(tensor).all() for tensor in stored.values())


def test_every_feature_of_sam_2_1_is_on_as_in_metas_configuration() -> None:
    import sam2

    meta = OmegaConf.load(Path(sam2.__path__[0]) / META_CONFIG).model
    ours = OmegaConf.load(CONFIG).model
    assert set(ours) == set(meta)
    for name in set(meta) - {"image_encoder", "memory_attention", "memory_encoder", "image_size"}:
        assert ours[name] == meta[name], name


@pytest.mark.parametrize("prompt", ["mask", "box"])
def test_it_tracks_two_objects_through_the_official_predictor(
    predictor, tmp_path: Path, prompt: str
) -> None:
    clip = draw_clip(41, frames=8, width=256, height=256, objects=2, pictures="none", motion=0.5)
    masks = tracked(predictor, clip, prompt, tmp_path, [])
    scores = [jaccard(masks[t, i], clip.masks[t, i]) for t in range(1, 8) for i in range(2)]
    assert np.mean(scores) > 0.6


def test_the_training_encoder_equals_the_models_own(small) -> None:
    images = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        _, levels, places, sizes = small._prepare_backbone_features(small.forward_image(images))
        ours, our_places, our_sizes = encode(small, images)
    for level, our_level in zip(levels, ours, strict=True):
        torch.testing.assert_close(our_level, level, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(our_places[2], places[2][:, :1])
    assert our_sizes == sizes


def tracker_on(clip: Clip, times: tuple[int, ...], images: torch.Tensor | None = None) -> Tracker:
    """Training's tracker over the first frames of a clip; they are black without images."""
    model = build_predictor()
    resize_input(model, SIDE)
    masks = torch.from_numpy(clip.masks[: len(times)]).transpose(0, 1)
    if images is None:
        images = torch.zeros(1, len(times), 3, SIDE, SIDE)
    objects = torch.zeros(len(masks), dtype=torch.long)
    rng = np.random.default_rng(0)
    return Tracker(model, Tap(model), images, masks, objects, times, rng)


def masks_in_training(plan: Plan, clip: Clip) -> np.ndarray:
    """What training's tracker answers, bool (T, N, H, W), frames in the order of the clip."""
    images = torch.from_numpy(clip.frames)[None].permute(0, 1, 4, 2, 3).float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGE_MEAN, IMAGE_STD))
    images = (images - mean) / std
    times = tuple(range(len(clip.frames)))
    with torch.no_grad():
        tracker = tracker_on(clip, times, images)
        tracker.track(plan)
    bank = tracker.bank["cond_frame_outputs"] | tracker.bank["non_cond_frame_outputs"]
    logits = torch.stack([bank[t]["pred_masks"][:, 0] for t in times])
    large = torch.nn.functional.interpolate(logits, (SIDE, SIDE), mode="bilinear")
    return (large > 0).numpy()


def test_training_tracks_as_the_official_predictor_does(small, clip, tmp_path: Path) -> None:
    ours = masks_in_training(Plan("mask"), clip)
    official = tracked(small, clip, "mask", tmp_path, [])
    assert (ours[1:] == official[1:]).mean() > 0.999


def test_a_correction_joins_in_training_as_in_the_official_predictor(
    small, clip, tmp_path: Path
) -> None:
    """The corrected frame conditions the frames behind it; those before it stay as they were."""
    joined = masks_in_training(Plan("mask", second=3, joined=True), clip)
    official = corrected(small, clip, [3], join=True, folder=tmp_path)
    plain = tracked(small, clip, "mask", tmp_path, [])
    for t in (1, 2, 4, 5):
        assert (joined[t] == official[t]).mean() > 0.999, t
    assert np.array_equal(official[1:3], plain[1:3])
    assert not np.array_equal(official[4:], plain[4:]), "the correction changes what follows"
    anew = corrected(small, clip, [3], join=False, folder=tmp_path)
    assert not np.array_equal(official[4:], anew[4:]), "the frames before are remembered"


def test_two_initial_conditioning_frames_are_both_in_the_memory(clip) -> None:
    tracker = tracker_on(clip, (0, 4, 5, 7))
    with torch.no_grad():
        answers = tracker.track(Plan("mask", second=2))
    assert set(tracker.bank["cond_frame_outputs"]) == {0, 5}
    assert set(tracker.bank["non_cond_frame_outputs"]) == {4, 7}
    assert len(answers) == 2, "a mask prompt is no prediction"


def test_every_correction_click_is_in_the_loss(clip) -> None:
    tracker = tracker_on(clip, (0, 1, 2))
    with torch.no_grad():
        answers = tracker.track(Plan("click", corrections=2, second=2, joined=True))
    # Frame 0: a click and two corrections. Frame 1: tracked. Frame 2: tracked, two corrections.
    assert [answer.points for answer in answers] == [1, 2, 3, 0, 0, 1, 2]
    assert set(tracker.bank["cond_frame_outputs"]) == {0, 2}


def test_clicks_lie_in_the_error_with_the_right_label() -> None:
    truth = torch.zeros(3, 1, 64, 64, dtype=torch.bool)
    truth[:, :, 10:30, 10:30] = True
    predicted = truth.clone()
    predicted[0, :, 10:30, 20:30] = False  # misses the right half
    predicted[1, :, 40:60, 40:60] = True  # has too much below
    predicted[2] = False
    for seed in range(12):
        rng = np.random.default_rng(seed)
        on_truth = np.random.default_rng(seed).random() < 0.1
        points, labels = clicks_of(truth, predicted, rng)
        x, y = points[:, 0, 0].long(), points[:, 0, 1].long()
        if on_truth:
            assert labels.flatten().tolist() == [1, 1, 1]
            continue
        assert labels.flatten().tolist() == [1, 0, 1]
        assert 20 <= x[0] < 30
        assert 10 <= y[0] < 30
        assert 40 <= x[1] < 60
        assert 40 <= y[1] < 60
        assert truth[2, 0, y[2], x[2]]


def test_plans_have_every_prompt_corrections_joins_and_two_first_frames() -> None:
    rng = np.random.default_rng(0)
    plans = [draw_plan(rng, 6, clicks=True) for _ in range(300)]
    assert {plan.prompt for plan in plans} == {"mask", "box", "click"}
    assert {plan.corrections for plan in plans} == {0, 1, 2, 3}
    seconds = [plan for plan in plans if plan.second is not None]
    assert 0.25 < len(seconds) / len(plans) < 0.45
    assert {plan.joined for plan in seconds} == {True, False}
    assert all(plan.second is not None and 1 <= plan.second < 6 for plan in seconds)
    early = [draw_plan(rng, 6, clicks=False) for _ in range(100)]
    assert {plan.prompt for plan in early} == {"mask", "box"}
    assert all(plan.second is None for plan in early)


def test_clicks_are_measured_per_object(small, clip, tmp_path: Path) -> None:
    reached = clicked(small, clip, 3, tmp_path)
    assert [len(scores) for scores in reached] == [3, 3]
    assert all(0 <= score <= 1 for scores in reached for score in scores)


@pytest.fixture
def stocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, ClipStock]:
    """Two small clips, and steps that are small too."""
    from training import dataset

    def draw(_kind: dataset.Kind, number: int) -> Clip:
        return draw_clip(
            number, frames=8, width=160, height=96, objects=2, pictures="none", motion=0.5
        )

    monkeypatch.setattr(dataset, "training_clip", draw)
    for number in range(2):
        ensure_clip("drawn", number, tmp_path)
    monkeypatch.setattr(
        training_program, "serving_at", lambda *_args: Serving("drawn", 1, 3, 2, 1, SIDE)
    )
    return {"drawn": ClipStock("drawn", tmp_path, clips=2)}


def test_a_stopped_training_goes_on_bit_by_bit(stocks, tmp_path: Path) -> None:
    whole = Training("cpu", seed=5, steps=100)
    whole.advance(stocks)
    whole.keep_if_best(0.5)
    whole.save(tmp_path / "checkpoint.pt")
    stopped = Training("cpu", seed=6, steps=100)
    stopped.load(tmp_path / "checkpoint.pt")
    whole.advance(stocks)
    stopped.advance(stocks)
    assert stopped.step == whole.step == 2
    assert (stopped.best_score, stopped.best_step) == (0.5, 1)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, stopped.model.state_dict()[name]), name
        assert torch.equal(whole.average[name], stopped.average[name]), name
        assert torch.equal(whole.best[name], stopped.best[name]), name


def test_one_batch_is_learned(stocks) -> None:
    training = Training("cpu", seed=1, steps=100)
    training.start_from(WEIGHTS)
    rng = np.random.default_rng(0)
    batch = stocks["drawn"].sample(rng, 1, 3, 2, 1, SIDE)
    costs = []
    for _ in range(6):
        _, total = training.answers_loss(batch, alone=False, clicks=False)
        costs.append(float(total.detach()))
        total.backward()
        for optimizer in training.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = 5e-4
            optimizer.step()
        training.flat.zero_()
    assert costs[-1] < 0.9 * costs[0]


def test_clicks_are_learned_and_tracking_is_kept(stocks) -> None:
    training = Training("cpu", seed=1, steps=100, decoder_only=True, keep_tracking=True)
    training.start_from(WEIGHTS)
    training.remember(WEIGHTS)
    batch = stocks["drawn"].sample(np.random.default_rng(0), 1, 3, 2, 1, SIDE)
    _, unchanged = training.answers_loss(batch, alone=False, clicks=False)
    assert unchanged.item() == pytest.approx(0, abs=1e-4), "a mask prompt: nothing is to be learned"
    _, clicked = training.answers_loss(batch, alone=True, clicks=True)
    assert clicked.item() > 0.1
    with torch.no_grad():
        for name, weight in training.model.named_parameters():
            if "output_hypernetworks_mlps.2.layers.2" in name:
                weight *= 1.5
    _, moved = training.answers_loss(batch, alone=False, clicks=False)
    assert moved.item() > 1e-3
    moved.backward()
    assert training.flat.abs().sum() > 0


def test_the_best_average_is_exported_not_the_last(stocks, tmp_path: Path) -> None:
    training = Training("cpu", seed=5, steps=3)
    training.start_from(WEIGHTS)
    scores = iter([0.4, 0.6, 0.7, 0.5])
    training_program.train(training, tmp_path, 0, 1e9, 1, lambda _weights: next(scores))
    assert (training.step, training.best_step, training.best_score) == (3, 2, 0.7)
    assert any(
        not torch.equal(weight, training.average[name]) for name, weight in training.best.items()
    )


def test_weights_that_were_better_before_are_kept(stocks, tmp_path: Path) -> None:
    training = Training("cpu", seed=5, steps=1)
    training.start_from(WEIGHTS)
    scores = iter([0.7, 0.6])
    training_program.train(training, tmp_path, 0, 1e9, 1, lambda _weights: next(scores))
    for name, weight in load_weights(WEIGHTS).items():
        assert torch.equal(training.best[name], weight), name


def test_minutes_stop_a_training_and_change_nothing_else(stocks, tmp_path: Path) -> None:
    training = Training("cpu", seed=5, steps=50)
    training_program.train(training, tmp_path, 0, 1e-9, 100, lambda _weights: 0.0)
    assert training.step == 1
    again = Training("cpu", seed=5, steps=50)
    again.load(tmp_path / "checkpoint.pt")
    assert again.rate == training.rate


def test_stored_weights_are_warmed_up(stocks) -> None:
    training = Training("cpu", seed=5, steps=1000)
    training.start_from(WEIGHTS)
    before = {k: v.clone() for k, v in training.model.state_dict().items()}
    assert training.rate < 0.01
    for name, weight in load_weights(WEIGHTS).items():
        assert torch.equal(weight, before[name]), name
    training.advance(stocks)
    change = max((v - before[k]).abs().max() for k, v in training.model.state_dict().items())
    assert 0 < change < 1e-3
    training.step = 150
    assert training.rate == training_program.CONTINUED_RATE
    training.step = 600
    assert training.rate == pytest.approx(training_program.CONTINUED_RATE / 2)


def test_only_matrices_are_decayed(predictor) -> None:
    guides = torch.nn.ModuleList([torch.nn.Linear(4, 1)])
    muon, adam = optimizers_of(predictor, guides)
    names = {id(weight): name for name, weight in predictor.named_parameters()}
    decayed, kept = ([names.get(id(w), "guide") for w in g["params"]] for g in adam.param_groups)
    assert adam.param_groups[1]["weight_decay"] == 0
    for name in ("sam_prompt_encoder.point_embeddings.0.weight", "image_encoder.trunk.pos_embed",
                 "maskmem_tpos_enc", "no_obj_ptr", "sam_mask_decoder.iou_token.weight", "guide",
                 "memory_attention.norm.weight"):  # fmt: skip
        assert name in kept, name
    assert all(dict(predictor.named_parameters())[name].ndim >= 2 for name in decayed)
    assert all(weight.ndim == 2 for group in muon.param_groups for weight in group["params"])
    assert len(decayed) + len(kept) + len(muon.param_groups[0]["params"]) == len(names) + 2


def test_a_training_is_not_mixed_up_with_another(tmp_path: Path) -> None:
    arguments = argparse.Namespace(
        device="cpu",
        seed=5,
        folder=tmp_path,
        start_from=None,
        steps=100,
        drawn_only=True,
        decoder_only=False,
        keep_tracking=False,
    )
    checkpoint = tmp_path / "checkpoint.pt"
    from_nothing = training_program.begin(arguments)
    from_nothing.step = 50
    from_nothing.save(checkpoint)
    assert training_program.begin(arguments).step == 50
    arguments.start_from = WEIGHTS
    with pytest.raises(SystemExit, match="was begun without --start-from"):
        training_program.begin(arguments)
    arguments.start_from, arguments.drawn_only = None, False
    with pytest.raises(SystemExit, match="was begun with --drawn-only"):
        training_program.begin(arguments)
    arguments.drawn_only, arguments.steps = True, 50
    with pytest.raises(SystemExit, match="is finished at step 50"):
        training_program.begin(arguments)
    checkpoint.unlink()
    arguments.start_from, arguments.steps = WEIGHTS, 100
    from_weights = training_program.begin(arguments)
    assert from_weights.origin
    from_weights.save(checkpoint)
    arguments.start_from = None
    with pytest.raises(SystemExit, match="was begun with --start-from"):
        training_program.begin(arguments)
    arguments.start_from = tmp_path / "other.safetensors"
    save_weights(from_weights.best | {"no_obj_ptr": torch.ones(1, 256)}, arguments.start_from)
    with pytest.raises(SystemExit, match="with other weights in --start-from"):
        training_program.begin(arguments)


def test_a_checkpoint_of_other_data_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training("cpu", seed=5, steps=10)
    training.save(tmp_path / "checkpoint.pt")
    monkeypatch.setattr(training_program, "DATA_VERSION", 99)
    with pytest.raises(ValueError, match="of another model or of other data"):
        training.load(tmp_path / "checkpoint.pt")


def test_weights_beyond_float16_are_not_stored(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too_large does not fit float16"):
        save_weights({"too_large": torch.tensor([1e6])}, tmp_path / "weights.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("program", [training_program, evaluate, calibrate])
def test_weights_that_cannot_be_read_are_named(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "notes.txt").write_text("no weights")
    option = "--start-from" if program is training_program else "--weights"
    for name in ("nothing.safetensors", "notes.txt"):
        monkeypatch.setattr("sys.argv", ["program", option, str(tmp_path / name)])
        with pytest.raises(SystemExit):
            program.main()
        assert f"{name} is no safetensors file: " in capsys.readouterr().err
