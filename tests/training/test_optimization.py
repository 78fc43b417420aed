"""Optimizers move what they should, and schedules do what their names say."""

from __future__ import annotations

import pytest
import torch

from ibinn.errors import ConfigError
from tests.training.tiny_runs import tiny_config
from training.config import OptimizerConfig, ScheduleConfig
from training.fit import build_model
from training.optimization import make_optimizer, rate_factor, set_rate


@pytest.mark.parametrize("name", ["muon", "adamw", "sgd"])
def test_every_parameter_is_in_one_group_and_moves(name: str) -> None:
    model = build_model(tiny_config(), 10)
    config = OptimizerConfig(name=name, learning_rate=0.1, mean_rate=3.0, weight_decay=0.01)  # type: ignore[arg-type]
    optimizer = make_optimizer(model, config)
    grouped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(grouped) == len(set(grouped)) == len(list(model.parameters()))
    before = [parameter.detach().clone() for parameter in grouped]
    for parameter in grouped:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    for parameter, old in zip(grouped, before, strict=True):
        assert not torch.equal(parameter, old)


@pytest.mark.parametrize("name", ["muon", "adamw", "sgd"])
def test_only_weights_decay(name: str) -> None:
    model = build_model(tiny_config(), 10)
    config = OptimizerConfig(name=name, weight_decay=0.01)  # type: ignore[arg-type]
    weights, means, others = make_optimizer(model, config).param_groups
    assert [group["weight_decay"] for group in (weights, means, others)] == [0.01, 0.0, 0.0]
    assert all(parameter.dim() >= 2 for parameter in weights["params"])
    assert all(parameter.dim() < 2 for parameter in others["params"])


def test_rates_scale_from_where_they_started() -> None:
    model = build_model(tiny_config(), 10)
    config = OptimizerConfig(name="sgd", learning_rate=0.1, mean_rate=3.0)
    optimizer = make_optimizer(model, config)
    assert set_rate(optimizer, 0.0) == 0.0
    assert set_rate(optimizer, 0.5) == pytest.approx(0.05)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.15, 0.05])
    # The thesis moves the means without momentum.
    assert [group["momentum"] for group in optimizer.param_groups] == [0.9, 0.0, 0.9]


def factors(config: ScheduleConfig, total: int = 100) -> list[float]:
    return [rate_factor(config, step, total) for step in range(total)]


def test_one_cycle_rises_to_one_and_falls_to_zero() -> None:
    found = factors(ScheduleConfig(name="one_cycle", warmup=0.2))
    assert found[0] == pytest.approx(0.1)
    assert found[20] == max(found) == 1.0
    assert found[:21] == sorted(found[:21])
    assert found[20:] == sorted(found[20:], reverse=True)
    assert 0.0 < found[-1] < 0.001


def test_cycles_repeat_the_schedule_from_a_lower_rate() -> None:
    once = factors(ScheduleConfig(name="one_cycle", warmup=0.2), 50)
    found = factors(ScheduleConfig(name="one_cycle", warmup=0.2, cycles=2, cycle_factor=0.5), 100)
    assert found[:50] == pytest.approx(once)
    assert found[50:] == pytest.approx([0.5 * factor for factor in once])


@pytest.mark.parametrize("wrong", [{"cycles": 0}, {"cycle_factor": 0.0}, {"cycle_factor": 1.5}])
def test_cycles_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="schedule: cycles is"):
        ScheduleConfig(**wrong)  # type: ignore[arg-type]


def test_cosine_starts_at_one() -> None:
    found = factors(ScheduleConfig(name="cosine"))
    assert found[0] == 1.0
    assert found == sorted(found, reverse=True)
    assert found[50] == pytest.approx(0.5)


def test_step_divides_by_ten_at_each_milestone() -> None:
    found = factors(ScheduleConfig(name="step", milestones=(0.5, 0.75)))
    assert found[:50] == [1.0] * 50
    assert found[50:75] == pytest.approx([0.1] * 25)
    assert found[75:] == pytest.approx([0.01] * 25)
