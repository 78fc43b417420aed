"""Configurations read back as they were written, and wrong ones say what is wrong."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ibinn.errors import ConfigError
from ibinn.flow.architectures import SmallConfig
from tests.training.tiny_runs import tiny_config
from training.config import (
    FitConfig,
    ObjectiveKind,
    ScheduleConfig,
    digest,
    from_dict,
    override,
    to_dict,
)
from training.recipes import RECIPES, recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_configuration_reads_back_as_it_was_written(name: str) -> None:
    config = recipe(name)
    written = json.loads(json.dumps(to_dict(config)))
    assert from_dict(written) == config
    assert digest(from_dict(written)) == digest(config)


def test_overrides_change_the_value_that_they_name() -> None:
    config = override(
        recipe("digits"),
        [
            "epochs=3",
            "optimizer.learning_rate=0.002",
            "optimizer.name=sgd",
            "objective.gamma=inf",
            "objective.kind=class_nll",
            "architecture.widths=[8, 8]",
            "augment.flip=true",
            "intended_use=Sorting nuts from bolts = easy.",
            "mixture.rank=null",
        ],
    )
    assert config.epochs == 3
    assert (config.optimizer.learning_rate, config.optimizer.name) == (0.002, "sgd")
    assert config.objective.gamma == float("inf")
    assert config.objective.kind is ObjectiveKind.CLASS_NLL
    assert isinstance(config.architecture, SmallConfig)
    assert config.architecture.widths == (8, 8)
    assert config.augment.flip is True
    assert config.intended_use == "Sorting nuts from bolts = easy."
    assert config.mixture.rank is None
    assert override(config, []) == config


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("epohcs=3", r"unknown key 'epohcs'; there are: .*epochs, .*recipes --show"),
        ("optimizer.rate=3", r"'optimizer\.rate'; there are: .*gradient_clip, learning_rate"),
        ("optimiser.name=sgd", r"'optimiser\.name'; there are: .*optimizer"),
        ("epochs.more=3", r"'epochs\.more'"),
        ("architecture.depth=3", r"'architecture\.depth'; there are: blocks, channels, clamp"),
        ("epochs", "--set 'epochs': expected key=value, such as epochs=20"),
        ("=3", "expected key=value"),
        ("epochs=many", "epochs is 'many': .*valid integer"),
        ("compile=maybe", "compile is 'maybe': .*valid boolean"),
        ("optimizer.learning_rate=fast", r"optimizer\.learning_rate is 'fast': .*number"),
        ("optimizer.name=lion", r"optimizer\.name is 'lion': .*'muon', 'adamw' or 'sgd'"),
        ("optimizer=sgd", "optimizer is 'sgd'"),
        ("architecture.name=large", "architecture is 'large'; there are: small, cifar"),
        ("architecture.clamp=wide", r"architecture\.clamp is 'wide': .*number"),
        ("architecture.widths=8", "architecture small: .*check the types"),
        ('architecture.widths=["a", 8]', r"architecture\.widths\.0 is 'a': .*integer"),
        ("architecture.side=24", "architecture.side is 24 px and preprocessing.side 16"),
        ("preprocessing.fit=stretch", "fit is 'stretch'; expected one of crop, squash"),
        ("objective.gamma=-1", r"gamma is -1.0 .*\[0, inf\]"),
        ("optimizer.learning_rate=0", r"optimizer\.learning_rate is 0.0; expected .* above 0"),
        ("schedule.warmup=1", r"schedule\.warmup is 1.0"),
        ("schedule.first_factor=0", r"first_factor 0.0; expected .* in \(0, 1\]"),
        ("accumulate=3", r"accumulate is 3 and batch_size 32; .*must be a multiple of it"),
        ("accumulate=0", "accumulate is 0"),
        ("max_steps=0", "max_steps is 0; expected at least 1, or null"),
        ("checkpoint_every_steps=-1", "checkpoint_every_steps is -1"),
        ("memory=none", "memory is 'none'; expected one of store, checkpoint, invert"),
        ("batch_norm=global", "batch_norm is 'global'; expected one of synchronised, local"),
        ("split.test=0.9", "add up to"),
        ("epochs=0", "epochs is 0"),
        ("ema_decay=1", r"ema_decay is 1.0; expected a number in \[0, 1\)"),
        ("alpha=5", r"alpha is 5.0; expected a number in \(0, 1\)"),
        ("mixture.rank=0", "rank is 0; expected at least 1"),
    ],
)
def test_a_wrong_override_says_what_is_wrong(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        override(recipe("digits"), [assignment])
    assert "\n" not in str(caught.value)


def test_an_inverse_through_bfloat16_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"memory is invert and .*set memory=checkpoint or"):
        override(recipe("digits"), ["memory=invert", "bf16_subnetworks=true"])


def test_unknown_keys_of_a_file_are_named() -> None:
    values = to_dict(tiny_config())
    with pytest.raises(ConfigError, match="unknown key 'surprise'; there are: accumulate, alpha"):
        from_dict(values | {"surprise": 1})
    with pytest.raises(ConfigError, match=r"unknown key 'optimizer\.surprise'"):
        from_dict(values | {"optimizer": {"surprise": 1}})


def test_runs_of_earlier_versions_keep_their_digests() -> None:
    # Of `digits` and `cifar10-small` before training took place on many devices.
    assert digest(recipe("digits")).startswith("98964df7c414e5b1")
    small = recipe("cifar10-small")
    assert digest(small).startswith("4c86c5e88e21f17b")
    once = dataclasses.replace(small, epochs=26, schedule=ScheduleConfig(warmup=0.15))
    assert digest(once).startswith("b874d891c85af843")


def test_the_digest_is_of_what_determines_the_weights() -> None:
    config = tiny_config()
    same = {
        "workers": 7,
        "checkpoint_every_s": 1.0,
        "checkpoint_every_steps": 1,
        "memory": "invert",
        "alpha": 0.5,
        "conformal_coverage": 0.5,
        "compile": True,
        "intended_use": "x",
        "training_data": "x",
        "reestimate_images": 1,
    }
    assert digest(dataclasses.replace(config, **same)) == digest(config)
    for change in (
        *({"epochs": 3}, {"seed": 1}, {"batch_size": 9}, {"ema_decay": 0.5}),
        *({"accumulate": 2}, {"max_steps": 3}, {"batch_norm": "local"}),
        {"schedule": ScheduleConfig(first_steps=10, first_factor=0.05)},
    ):
        assert digest(dataclasses.replace(config, **change)) != digest(config)
    # What is missing from both lists above would be decided by accident.
    decided = {*same, "epochs", "seed", "batch_size", "ema_decay", "bf16_subnetworks", "recipe"}
    decided |= {"accumulate", "max_steps", "batch_norm"}
    scalars = {
        field.name
        for field in dataclasses.fields(FitConfig)
        if not dataclasses.is_dataclass(getattr(config, field.name))
    }
    assert scalars == decided
