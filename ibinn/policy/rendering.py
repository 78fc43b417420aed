"""How policies and forecasts look on a terminal, as rich renderables; nothing here prints."""

from __future__ import annotations

import math

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ibinn.policy.forecast import Forecast, Share
from ibinn.policy.values import Costs, Policy
from ibinn.rendering import printable

_CLASSES_SHOWN = 12


def policy_block(policy: Policy) -> RenderableType:
    """What a policy holds."""
    certificate, origin = policy.certificate, policy.origin
    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True, style="dim")
    facts.add_column()
    rows = [
        ("digest", policy.digest),
        ("classes", f"{len(policy.classes)}: {_listed(policy.classes)}"),
        ("weights", origin.weights if origin else "any model with these classes"),
        ("calibrated", origin.calibration if origin else "any"),
        ("significance", f"α = {policy.alpha:g}"),
        ("class sets", f"for {100 * policy.coverage:g} %"),
        ("costs", _costs_line(policy.costs)),
    ]
    if any(alpha is not None for alpha in policy.class_alphas):
        named = zip(policy.classes, policy.class_alphas, strict=True)
        rows.append(("of classes", ", ".join(f"{c} {a:g}" for c, a in named if a is not None)))
    if policy.priors is not None:
        shares = zip(policy.classes, policy.priors.deployment, strict=True)
        rows.append(("class shares", _listed([f"{name} {share:.3g}" for name, share in shares])))
    if certificate is None:
        rows.append(("risk", "not certified: the policy was not fitted"))
    else:
        rows += [
            (
                "risk",
                f"at most {100 * certificate.max_risk:g} % of accepted answers wrong, with "
                f"confidence {100 * (1 - certificate.delta):g} %, unknown images apart",
            ),
            (
                "threshold",
                f"probability ≥ {certificate.threshold:.4f}: {certificate.accepted:,} of "
                f"{certificate.images:,} held-out images accepted, {certificate.errors:,} wrong "
                f"(p = {certificate.p_value:.2g} ≤ {certificate.level:.2g})",
            ),
        ]
    for label, value in rows:
        facts.add_row(label, Text(printable(value)))
    return Lines(Text(printable(policy.name), style="bold"), Padding(facts, (0, 0, 1, 2)))


def forecast_block(found: Forecast) -> RenderableType:
    """What a policy does per 1,000 images of the mix."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("")
    table.add_column("expected", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    known, unknown = 1000 * (1 - found.unknown_share), 1000 * found.unknown_share

    def add(label: str, share: Share) -> None:
        low, high = found.per_thousand_known(share.low), found.per_thousand_known(share.high)
        table.add_row(
            label, f"{found.per_thousand_known(share.value):.1f}", f"{low:.1f} – {high:.1f}"
        )

    add("accepted", found.accepted)
    add("  of these wrong", found.errors)
    add("deferred to a person", found.deferred)
    add("rejected, another picture asked for", found.rejected)
    add("false alarms, among the two above", found.false_alarms)
    if found.missed and found.unknown_share:
        low = found.per_thousand_unknown(min(rate for _, rate in found.missed))
        high = found.per_thousand_unknown(max(rate for _, rate in found.missed))
        mean = found.per_thousand_unknown(found.mean_missed or 0.0)
        table.add_row("unknown and not flagged", f"{mean:.1f}", f"{low:.1f} – {high:.1f} by kind")
    lines: list[RenderableType] = [
        Text(
            f"per 1,000 images, {known:g} known and {unknown:g} unknown "
            f"(counted on {found.accepted.count:,} held-out images)",
            style="bold",
        ),
        Padding(table, (0, 0, 0, 2)),
        Text(
            f"a known image costs {found.mean_cost:.3g} on average "
            f"({found.mean_cost_low:.3g} – {found.mean_cost_high:.3g})"
        ),
    ]
    if found.unknown_share and not found.missed:
        lines.append(Text("the bundle knows no miss rates: nothing is said of unknown images"))
    elif found.unknown_share:
        kinds = ", ".join(f"{name} {100 * rate:.0f} %" for name, rate in found.missed)
        lines.append(
            Text(
                f"missed by kind of unknown image: {printable(kinds)}; other kinds can be missed "
                "more often, and of the missed ones at most all are accepted"
            )
        )
    return Lines(*lines)


def _costs_line(costs: Costs) -> str:
    wrong = {c for i, row in enumerate(costs.act) for j, c in enumerate(row) if i != j}
    least, most = min(wrong), max(wrong)
    error = f"{least:g}" if math.isclose(least, most) else f"{least:g} to {most:g}"
    return (
        f"error {error}, deferring {costs.defer:g}, another picture {costs.reject:g}, acting on "
        f"an unknown image {costs.unknown:g}"
    )


def _listed(names: tuple[str, ...] | list[str]) -> str:
    shown = ", ".join(names[:_CLASSES_SHOWN])
    return shown if len(names) <= _CLASSES_SHOWN else f"{shown} and {len(names) - _CLASSES_SHOWN}"
