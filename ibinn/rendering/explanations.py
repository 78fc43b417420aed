"""What an explanation adds to an answer."""

from __future__ import annotations

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ibinn.rendering.answers import prediction_block
from ibinn.rendering.words import facts, percent, printable
from ibinn.types import DecisionSpace, Explanation


def explanation_block(name: str, explanation: Explanation) -> RenderableType:
    """An answer in full with its evidence: what the heatmaps add up to, and what is near."""
    rows = [
        (
            "heatmap",
            f"of {heatmap.class_name}: adds up to log q = {heatmap.log_posterior:.4f} nats within "
            f"{heatmap.completeness_error:.1e}",
        )
        for heatmap in explanation.heatmaps
    ]
    if (contrast := explanation.contrast) is not None:
        likely = contrast.class_name if contrast.log_odds >= 0 else contrast.versus
        rows.append(
            (
                "contrast",
                f"{contrast.class_name} against {contrast.versus}: adds up to log-odds of "
                f"{contrast.log_odds:+.4f} nats within {contrast.completeness_error:.1e}, "
                f"in favour of {likely}",
            )
        )
    if explanation.receptive_field_px is not None:
        rows.append(
            ("sees", f"a cell responds to about {explanation.receptive_field_px:.1f} px around it")
        )
    if explanation.nearby:
        near = ", ".join(
            f"{near.class_name} (Δ = {near.distance:.2f}, overlap {percent(near.overlap)})"
            for near in explanation.nearby
        )
        rows.append(("near classes", near))
    parts: list[RenderableType] = [
        prediction_block(name, explanation.prediction),
        Padding(facts(rows), (0, 0, 1, 2), expand=False),
    ]
    if explanation.decision_space is not None:
        parts += [
            Text("decision space, in standard deviations of a class", style="bold"),
            Padding(_space(explanation.decision_space), (0, 0, 1, 2), expand=False),
        ]
    return Lines(*parts)


def _space(space: DecisionSpace) -> Table:
    """The image and the means, along the line through the first two and away from it."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("")
    for title in ("along", "away", "90 % within", "probability"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_row("this image", f"{space.x:.2f}", f"{space.y:.2f}", "", "", style="bold")
    for point in space.means:
        table.add_row(
            Text(printable(point.class_name)),
            f"{point.x:.2f}",
            f"{point.y:.2f}",
            f"{point.radius:.2f}",
            percent(point.probability),
        )
    table.add_row("boundary", f"{space.boundary:.2f}", "any", "", "", style="dim")
    return table
