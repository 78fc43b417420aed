"""The command `ibinn-train`.

Exit codes: 0 done; 1 the run stopped early and can be resumed; 2 something is wrong, and the
message says what. `promote` and `approve` have their own, see `training.promotion.cli`.
"""

from __future__ import annotations

import typer

from training.commands import checkpoints, data, fitting, measuring, studying
from training.promotion import cli as promotion

app = typer.Typer(
    no_args_is_help=True,
    help="Train, evaluate and examine trustworthy image classifiers.",
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.command()(data.doctor)
app.command()(data.shard)
app.command()(data.recipes)
app.command()(fitting.fit)
app.command()(fitting.retrain)
app.command()(measuring.evaluate)
app.command()(measuring.calibrate)
app.command()(measuring.extremes)
app.command()(measuring.comparator)
app.command()(studying.study)
app.command("import-checkpoint")(checkpoints.import_checkpoint)
app.command("export-checkpoint")(checkpoints.export_checkpoint)
app.command()(promotion.promote)
app.command()(promotion.approve)
app.add_typer(promotion.plan_app, name="plan")


def main() -> None:
    """Entry point of the console script."""
    app()
