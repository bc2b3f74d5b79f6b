"""What a person sees of cost: the estimate before a run and the account after it, as rows of a table."""

from __future__ import annotations

from mmearth_data.cost.account import Account
from mmearth_data.cost.assumptions import Range, layers_read
from mmearth_data.cost.estimate import Estimate
from mmearth_data.modalities import MODALITIES
from mmearth_data.traffic import total

Row = dict[str, object]


def estimate_rows(estimate: Estimate) -> list[Row]:
    """One row per quantity: what is estimated, the figure, and what it rests on."""
    work, basis = estimate.work, estimate.basis
    rows = [
        ("tiles to store", f"{work.tiles:,}", "the location table, and what is stored"),
        ("locations to resolve", f"{work.locations:,}", "the same, reserves included"),
        *((f"requests: {kind}", f"{count:,}", basis[kind]) for kind, count in estimate.requests.items()),
        ("EECU-hours", _between(estimate.eecu_hours_in_all), basis["eecu_hours"]),
        *((f"months of {tier}", _between(months), "monthly allowance") for tier, months in estimate.months.items()),
        ("bytes received", size(estimate.bytes_received), basis["bytes_received"]),
        ("bytes stored", size(estimate.bytes_stored), basis["bytes_stored"]),
        ("hours", f"{_rounded(estimate.hours)} at {estimate.tiles_per_hour:,.0f} tiles/h", basis["hours"]),
    ]
    return [{"what": what, "estimate": figure, "basis": source} for what, figure, source in rows]


def eecu_rows(estimate: Estimate) -> list[Row]:
    """One row per modality, the dearest first: layers read per tile, EECU-hours, its share of all."""
    hours = estimate.eecu_hours
    in_all = estimate.eecu_hours_in_all.high or 1.0
    return [
        {
            "modality": name,
            "layers per tile": f"{layers_read(MODALITIES[name]):g}" if name in MODALITIES else "",
            "EECU-hours": _between(hours[name]),
            "share": f"{hours[name].high / in_all:.0%}",
        }
        for name in sorted(hours, key=lambda name: -hours[name].high)
    ]


def account_rows(account: Account, stored: int, bytes_stored: int) -> list[Row]:
    """One row per kind of request and one per sum of the store so far."""
    rows = [
        (f"requests: {kind}", f"{count.sent:,} ({count.repeated:,} repeated), {size(count.bytes_received)} received")
        for kind, count in account.traffic.items()
    ]
    traffic = total(account.traffic)
    rows += [
        ("requests", f"{traffic.sent:,} ({traffic.repeated:,} repeated)"),
        ("bytes sent, received", f"{size(traffic.bytes_sent)}, {size(traffic.bytes_received)}"),
        ("bytes stored", f"{size(bytes_stored)} for {stored:,} tiles"),
        ("sessions", f"{account.sessions:,} since {account.since[:16].replace('T', ' ')} UTC"),
        ("time at work", f"{account.hours * 3600:,.0f} s, {account.hours:,.2f} h"),
        ("tiles per hour", f"{stored / account.hours:,.0f}" if account.hours else "unknown"),
        *((f"EECU-seconds: {kind}", f"{seconds:,.1f}") for kind, seconds in account.eecu_seconds_by_type.items()),
        *((f"EECU-hours in {month}", f"{hours:,.2f}") for month, hours in account.eecu_hours_by_month.items()),
    ]
    if not account.eecu_seconds:
        rows.append(("EECU-seconds", "not reported"))
    return [{"what": what, "so far": figure} for what, figure in rows]


def size(count: float) -> str:
    """A number of bytes as people read it."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def _between(figure: Range) -> str:
    low, high = _rounded(figure.low), _rounded(figure.high)
    return low if low == high else f"{low} to {high}"


def _rounded(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
