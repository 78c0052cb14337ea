"""The table for people, and `figure NAME = VALUE UNIT` lines whose names stay."""

from rich.table import Table

from forebay.testbed.table.bench import Plan, Row
from forebay.testbed.table.rows import TITLES


def table(rows: list[Row], plan: Plan) -> Table:
    curve = plan.curve
    shown = Table(
        title=f"{curve.count:,} interactions, {curve.base:g}/s with {curve.spike_s:g} s at "
        f"{curve.spike:g}/s, seed {plan.seed}",
        caption="TTFT in seconds from the scheduled moment; “all” counts each failure at its "
        "deadline of 30 s. Cost is the provider's own bill, failed answers included.",
    )
    shown.add_column("")
    for column in ("success", "mean", "p50", "p99", "all mean", "all p50", "all p99", "$ per 1M"):
        shown.add_column(column, justify="right")
    last = None
    for row in rows:
        if row.lengths != last:
            shown.add_section()
            shown.add_row(f"[bold]{row.lengths}")
            last = row.lengths
        cost = "–" if row.usd_per_million is None else f"{row.usd_per_million:,.0f}"
        shown.add_row(
            TITLES[row.row] + (" (void)" if row.void else ""),
            f"{row.success:.1%}",
            f"{row.ttft_mean_s:.2f}",
            f"{row.ttft_p50_s:.2f}",
            f"{row.ttft_p99_s:.2f}",
            f"{row.ttft_all_mean_s:.2f}",
            f"{row.ttft_all_p50_s:.2f}",
            f"{row.ttft_all_p99_s:.2f}",
            cost,
        )
    return shown


def remarks(rows: list[Row]) -> list[str]:
    """How each row went, in a line, and its notes."""
    lines = []
    for row in rows:
        failed = ", ".join(f"{n} {v}" for v, n in row.verdicts.items() if v != "ok") or "none"
        rig = "not measured"
        if row.driver_cores is not None and row.twin_cores is not None:
            cores = row.driver_cores + row.twin_cores
            rig = f"{cores:.2f} cores (driver {row.driver_cores:.2f}, twin {row.twin_cores:.2f})"
        if row.gateway_cores is not None:
            rig += f", gateway {row.gateway_cores:.2f}"
        lines.append(
            f"{TITLES[row.row]}, {row.lengths}: failures {failed}; {row.attempts} attempts, "
            f"{row.provider_requests} seen by the provider; "
            f"{row.most_in_flight} in flight at most; rig at the spike's end {rig}; "
            f"driver lag p99 {row.lag_p99_s * 1000:.1f} ms"
        )
        if row.void:
            lines.append(
                "  void: the driver fell behind, so this measured the machine, not the row"
            )
        lines += [f"  {note}" for note in row.notes]
    return lines


def figures(rows: list[Row]) -> list[str]:
    """One line a figure; the Azure-lengths row has its own names. A void row has none."""
    lines = []
    for row in rows:
        if row.void:
            continue
        name = "table_" + row.row + ("_azure" if row.lengths.startswith("azure") else "")
        values = [
            ("success", f"{row.success * 100:.2f}", "%"),
            ("ttft_mean", f"{row.ttft_mean_s:.3f}", "s"),
            ("ttft_p50", f"{row.ttft_p50_s:.3f}", "s"),
            ("ttft_p99", f"{row.ttft_p99_s:.3f}", "s"),
            ("ttft_all_mean", f"{row.ttft_all_mean_s:.3f}", "s"),
            ("ttft_all_p50", f"{row.ttft_all_p50_s:.3f}", "s"),
            ("ttft_all_p99", f"{row.ttft_all_p99_s:.3f}", "s"),
        ]
        if row.usd_per_million is not None:
            values.append(("cost_per_million", f"{row.usd_per_million:.0f}", "USD"))
        if row.driver_cores is not None and row.twin_cores is not None:
            values.append(("rig_cores", f"{row.driver_cores + row.twin_cores:.2f}", "cores"))
        lines += [f"figure {name}_{what} = {value} {unit}" for what, value, unit in values]
    return lines
