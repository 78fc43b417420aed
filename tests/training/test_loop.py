"""A run is a function of its configuration and data, however often it is interrupted."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric

from ibinn.errors import CheckpointError, ConfigError, NonFiniteLossError
from ibinn.flow.architectures import SmallConfig
from ibinn.flow.subnetworks import use_low_precision
from ibinn.images import Preprocessing
from tests.training.tiny_runs import (
    POINT_EVERY,
    STEPS_PER_EPOCH,
    Recorder,
    digits,
    figures,
    run,
    tiny_config,
    tiny_data,
)
from training import checkpoint as checkpoints
from training.batch_norm import reestimate_batch_norm
from training.config import FitConfig, ObjectiveConfig, ObjectiveKind, OptimizerConfig
from training.fit import build_model
from training.loop import CHECKPOINT, Trained, train
from training.validation import validate

CPU = Fabric(accelerator="cpu", devices=1)


def finished(config: FitConfig, out: Path, recorder: Recorder | None = None) -> Trained:
    out.mkdir(exist_ok=True)
    trained = run(config, out, recorder=recorder)
    assert trained is not None
    return trained


def assert_same_weights(first: torch.nn.Module, second: torch.nn.Module) -> None:
    one, other = first.state_dict(), second.state_dict()
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path: Path) -> None:
    config = tiny_config(epochs=1)
    first = finished(config, tmp_path / "first")
    second = finished(config, tmp_path / "second")
    other = finished(tiny_config(epochs=1, seed=1), tmp_path / "other")
    assert figures(first.curve) == figures(second.curve)
    assert_same_weights(first.model, second.model)
    assert first.curve[-1].loss != other.curve[-1].loss


def test_a_run_learns_and_its_curve_covers_every_step(tmp_path: Path) -> None:
    recorder = Recorder()
    trained = finished(tiny_config(), tmp_path, recorder)
    assert recorder.steps == list(range(1, 2 * STEPS_PER_EPOCH + 1))
    assert tuple(recorder.points) == trained.curve
    assert recorder.start == []
    assert [point.step for point in trained.curve] == [50, 60, 100, 120]
    assert [point.epoch for point in trained.curve][1::2] == [1.0, 2.0]
    ends = [point.validation_accuracy is not None for point in trained.curve]
    assert ends == [False, True, False, True]
    first, last = trained.curve[0], trained.curve[-1]
    assert last.loss < first.loss
    assert last.validation_accuracy is not None
    assert last.validation_accuracy > 0.5
    assert last.learning_rate < first.learning_rate
    assert not trained.model.training
    assert trained.steps == 2 * STEPS_PER_EPOCH


@pytest.mark.parametrize("optimizer", ["muon", "adamw", "sgd"])
def test_a_run_stopped_within_an_epoch_goes_on_exactly(tmp_path: Path, optimizer: str) -> None:
    settings = OptimizerConfig(name=optimizer, learning_rate=3e-3)  # type: ignore[arg-type]
    config = tiny_config(optimizer=settings)
    whole = finished(config, tmp_path / "whole")
    out = tmp_path / "stopped"
    out.mkdir()
    stops = []
    while (trained := run(config, out, stop_after_s=0.0)) is None:
        stops.append(checkpoints.load(out / CHECKPOINT).step)
    assert stops == [POINT_EVERY, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 40]
    assert figures(trained.curve) == figures(whole.curve)
    assert_same_weights(trained.model, whole.model)
    assert trained.seconds > 0.0


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", ["muon", "adamw", "sgd"])
def test_a_run_on_an_accelerator_goes_on(tmp_path: Path, optimizer: str) -> None:
    settings = OptimizerConfig(name=optimizer, learning_rate=3e-3)  # type: ignore[arg-type]
    config = tiny_config(optimizer=settings, epochs=1)
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    whole = run(config, tmp_path / "whole", accelerator="cuda")
    assert run(config, tmp_path / "stopped", accelerator="cuda", stop_after_s=0.0) is None
    resumed = run(config, tmp_path / "stopped", accelerator="cuda")
    assert whole is not None
    assert resumed is not None
    assert resumed.curve[-1].loss == pytest.approx(whole.curve[-1].loss, rel=1e-2)


def test_a_resumed_run_reports_the_points_that_it_goes_on_from(tmp_path: Path) -> None:
    config = tiny_config(epochs=1)
    assert run(config, tmp_path, stop_after_s=0.0) is None
    recorder = Recorder()
    trained = run(config, tmp_path, recorder=recorder)
    assert trained is not None
    assert recorder.start is not None
    assert [point.step for point in recorder.start] == [POINT_EVERY]
    assert recorder.steps == list(range(POINT_EVERY + 1, STEPS_PER_EPOCH + 1))
    assert (*recorder.start, *recorder.points) == trained.curve


def test_checkpoints_come_in_time_within_an_epoch(tmp_path: Path) -> None:
    config = tiny_config(epochs=1, checkpoint_every_s=0.0)
    saved = []

    class Watcher(Recorder):
        def step(self, step: int, total: int, images_per_s: float, loader_share: float) -> None:
            if (tmp_path / CHECKPOINT).exists():
                saved.append(step)

    assert run(config, tmp_path, recorder=Watcher()) is not None
    assert saved[0] == POINT_EVERY + 1


def test_a_finished_run_gives_its_model_again_without_a_step(tmp_path: Path) -> None:
    config = tiny_config(epochs=1)
    first = finished(config, tmp_path)
    recorder = Recorder()
    again = finished(config, tmp_path, recorder)
    assert recorder.steps == []
    assert again.curve == first.curve
    assert_same_weights(first.model, again.model)


def test_settings_that_do_not_change_the_weights_may_change(tmp_path: Path) -> None:
    config = tiny_config(epochs=1)
    assert run(config, tmp_path, stop_after_s=0.0) is None
    changed = dataclasses.replace(config, alpha=0.2, checkpoint_every_s=1.0, workers=1)
    assert run(changed, tmp_path) is not None


def test_a_checkpoint_of_another_run_is_refused_and_kept(tmp_path: Path) -> None:
    config = tiny_config()
    assert run(config, tmp_path, stop_after_s=0.0) is None
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(CheckpointError, match=r"another configuration .*use the settings of that"):
        run(tiny_config(epochs=3), tmp_path)
    with pytest.raises(CheckpointError, match=r"another split .*another --out folder"):
        run(config, tmp_path, data=tiny_data(split_digest="other"))
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_a_loss_that_is_not_finite_stops_before_the_parameters_move(tmp_path: Path) -> None:
    config = tiny_config()
    model = build_model(config, 10)
    with torch.no_grad():
        model.mixture.means[3] = 1e30
    before = {name: value.clone() for name, value in model.named_parameters()}
    data = tiny_data()
    with pytest.raises(NonFiniteLossError) as caught:
        train(
            model,
            data,
            config,
            fabric=Fabric(accelerator="cpu", devices=1),
            out=tmp_path,
            progress=Recorder(),
        )
    message = str(caught.value)
    assert message.startswith("step 0: loss is ")
    assert "lower optimizer.learning_rate (now 0.0006)" in message
    assert "the optimizer did not move" in message
    named = message.partition("batch ids ")[2].partition(" …")[0].split(", ")
    known = {item.id[:12] for item in data.train.items}
    assert len(named) == 8
    assert set(named) <= known
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name]), name
    assert not (tmp_path / CHECKPOINT).exists()


def test_low_precision_keeps_the_names_of_the_state(tmp_path: Path) -> None:
    config = tiny_config()
    plain, low = build_model(config, 10), build_model(config, 10)
    use_low_precision(low.network, torch.bfloat16)
    assert plain.state_dict().keys() == low.state_dict().keys()
    low.load_state_dict(plain.state_dict())
    plain.load_state_dict(low.state_dict())
    assert_same_weights(plain, low)


def test_a_low_precision_run_resumes_and_fits_the_plain_network(tmp_path: Path) -> None:
    config = tiny_config(bf16_subnetworks=True, epochs=1)
    whole = finished(config, tmp_path / "whole")
    out = tmp_path / "stopped"
    out.mkdir()
    assert run(config, out, stop_after_s=0.0) is None
    resumed = finished(config, out)
    assert figures(resumed.curve) == figures(whole.curve)
    build_model(config, 10).load_state_dict(resumed.model.state_dict())
    assert all(value.dtype is not torch.bfloat16 for value in resumed.model.state_dict().values())


def test_without_averaging_the_trained_weights_are_given(tmp_path: Path) -> None:
    trained = finished(tiny_config(epochs=1, ema_decay=0.0), tmp_path)
    saved = checkpoints.load(tmp_path / CHECKPOINT)
    assert saved.average == {}
    for name, value in trained.model.named_parameters():
        assert torch.equal(value, saved.model[name]), name


@pytest.mark.parametrize(
    "objective",
    [
        ObjectiveConfig(gamma=0.0),
        ObjectiveConfig(gamma=float("inf")),
        ObjectiveConfig(kind=ObjectiveKind.CLASS_NLL),
    ],
    ids=["likelihood alone", "posterior alone", "class_nll"],
)
def test_every_objective_trains(tmp_path: Path, objective: ObjectiveConfig) -> None:
    curve = finished(tiny_config(epochs=1, objective=objective), tmp_path).curve
    assert curve[-1].loss < curve[0].loss


def test_batch_norm_statistics_are_those_of_training_images() -> None:
    config = tiny_config(reestimate_images=480)
    model = build_model(config, 10)
    images = digits().subset(range(480))
    preprocessing = Preprocessing(config.preprocessing)
    norm = next(m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    convolution = next(m for m in model.modules() if isinstance(m, torch.nn.Conv2d))
    seen = []
    handle = convolution.register_forward_hook(lambda _m, _i, output: seen.append(output))
    reestimate_batch_norm(model, images, preprocessing, config, fabric=CPU)
    handle.remove()
    batches = torch.stack([output.mean((0, 2, 3)) for output in seen])
    torch.testing.assert_close(norm.running_mean, batches.mean(0), atol=1e-5, rtol=1e-5)
    assert not any(module.training for module in model.modules())
    assert norm.momentum == 0.1


def test_validation_counts_every_image_once() -> None:
    config = tiny_config()
    model = build_model(config, 10)
    preprocessing = Preprocessing(config.preprocessing)
    images = digits().subset(range(300))
    accuracy, bits = validate(model, images, preprocessing, fabric=CPU)
    parts = [
        validate(model, digits().subset(part), preprocessing, fabric=CPU)
        for part in (range(100), range(100, 300))
    ]
    assert accuracy == pytest.approx((parts[0][0] + 2 * parts[1][0]) / 3)
    assert bits == pytest.approx((parts[0][1] + 2 * parts[1][1]) / 3, rel=1e-5)


def test_a_run_of_few_steps_ends_as_after_its_last_epoch(tmp_path: Path) -> None:
    recorder = Recorder()
    trained = finished(tiny_config(max_steps=7), tmp_path, recorder)
    assert trained.steps == 7
    assert recorder.steps == list(range(1, 8))
    (point,) = trained.curve
    assert point.validation_accuracy is not None
    assert point.loader_share is not None
    assert 0.0 <= point.loader_share <= 1.0
    # The schedule ends with the run.
    assert point.learning_rate < 0.1 * tiny_config().optimizer.learning_rate
    assert finished(tiny_config(max_steps=10**6, epochs=1), tmp_path / "more").steps == 60


def test_a_checkpoint_between_two_points_holds_the_figures_since_the_last(tmp_path: Path) -> None:
    config = tiny_config(max_steps=20, accumulate=2, checkpoint_every_steps=7)
    whole = finished(config, tmp_path / "whole")
    out = tmp_path / "killed"
    out.mkdir()

    class Killed(Recorder):
        def step(self, step: int, total: int, images_per_s: float, loader_share: float) -> None:
            if step == 16:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, out, recorder=Killed())
    assert checkpoints.load(out / CHECKPOINT).step == 14
    assert checkpoints.load(out / CHECKPOINT).open_point.images == 14 * 8
    recorder = Recorder()
    resumed = finished(config, out, recorder)
    assert recorder.steps == list(range(15, 21))
    assert figures(resumed.curve) == figures(whole.curve)
    assert_same_weights(resumed.model, whole.model)


def test_a_step_of_uneven_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size is 8 on 1 processes with 8 micro-batches"):
        run(tiny_config(accumulate=8), tmp_path)


def test_activations_that_are_computed_again_give_the_same_run(tmp_path: Path) -> None:
    config = tiny_config(max_steps=10)
    stored = finished(config, tmp_path / "store")
    again = finished(dataclasses.replace(config, memory="checkpoint"), tmp_path / "checkpoint")
    assert figures(again.curve) == figures(stored.curve)
    assert_same_weights(again.model, stored.model)
    inverted = finished(dataclasses.replace(config, memory="invert"), tmp_path / "invert")
    assert inverted.curve[-1].loss == pytest.approx(stored.curve[-1].loss, abs=1e-3)
    assert checkpoints.load(tmp_path / "invert" / CHECKPOINT).memory == "invert"


def test_an_unsound_inverse_is_given_up_for_good(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Act-norms that halve 24 times over, with couplings that add something back.
    architecture = SmallConfig(side=8, widths=(6,), blocks=(24,), initial_scale=0.5)
    config = tiny_config(architecture=architecture, max_steps=4, checkpoint_every_steps=2)
    stored = finished(config, tmp_path / "store")
    assert not caplog.records
    inverting = dataclasses.replace(config, memory="invert")
    inverted = finished(inverting, tmp_path / "invert")
    (record,) = caplog.records
    assert "step 1: memory is invert and an inverse is off by" in record.getMessage()
    assert "all further ones take memory=checkpoint" in record.getMessage()
    assert inverted.curve[-1].loss == pytest.approx(stored.curve[-1].loss, rel=1e-3)
    assert checkpoints.load(tmp_path / "invert" / CHECKPOINT).memory == "checkpoint"
    caplog.clear()
    finished(inverting, tmp_path / "invert")
    assert not caplog.records
