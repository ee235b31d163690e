"""A benchmark as tables of text, alone or beside an earlier one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Found = Mapping[str, Any]


def render(found: Found, earlier: Found | None = None) -> str:
    """All tables; beside an earlier benchmark each rate with its ratio to the earlier one."""
    return "\n".join(_lines(found, earlier or {})).rstrip()


def _lines(found: Found, earlier: Found) -> Iterator[str]:
    machine, work = found["machine"], found["work"]
    where = machine["gpu"] or f"{machine['processor']}, {machine['threads']} threads"
    yield f"{where}, {machine['instructions']}; {machine['system']}, Python {machine['python']}"
    yield f"torch {machine['torch']}, transformers {machine['transformers']}, rpbert " + str(
        machine["rpbert"]
    )
    best = ", ".join(f"{name} {rate:,.0f}" for name, rate in machine["products"].items())
    yield f"best products of square matrices, GFLOP/s: {best}"
    yield f"{work['system']}, {work['size']} sizes, batches of {work['batch']}; median (low-high)"
    if other := _otherwise(work, earlier.get("work", work)):
        yield f"the earlier benchmark is of other work: {other}"
    yield ""
    yield from _inference(found, earlier)
    yield from _training(found, earlier)
    for name, grown in found.get("growth", {}).items():
        yield from _growth(name, grown)
    for name, profile in found.get("profile", {}).items():
        yield from _profile(name, profile)


def _inference(found: Found, earlier: Found) -> Iterator[str]:
    yield f"{'inference':11}{'posts/s':>22}{'of the best':>13}{'one post p50':>14}{'p95':>9}" + (
        f"{'peak GiB':>10}{'first answer':>14}{'off by':>10}"
    )
    for name, row in found["inference"].items():
        best = found["machine"]["products"].get(name)
        share = _share(row["gflop_per_second"], best)
        waits = row["latency_seconds"]
        first = row["first_prediction_seconds"]
        yield (
            f"{name:11}{_rate(row['posts_per_second']):>22}{share:>13}"
            f"{1000 * waits['p50']:>11.0f} ms{1000 * waits['p95']:>6.0f} ms"
            f"{row['peak_gib']:>10.2f}{first:>12.1f} s{row['max_difference']:>10.1e}"
        ) + _ratio(row, earlier.get("inference", {}).get(name))
    for row in list(found["inference"].values())[:1]:
        yield f"a post takes {row['gflop_per_post']:.1f} GFLOP of products and convolutions"
    yield "off by: the furthest emission from that of the plain system in float32"
    yield ""


def _training(found: Found, earlier: Found) -> Iterator[str]:
    if not found["training"]:
        return
    yield f"{'training':11}{'task':10}{'posts/s':>22}{'of the best':>13}{'peak GiB':>10}"
    for name, row in found["training"].items():
        before = earlier.get("training", {}).get(name, {}).get("posts_per_second", {})
        for task, rate in row["posts_per_second"].items():
            operations = found["training_gflop_per_post"][task] * rate["median"]
            share = _share(operations, found["machine"]["products"].get(name))
            memory = f"{row['peak_gib']:>10.2f}, moments: {row['moments']}"
            line = f"{name:11}{task:10}{_rate(rate):>22}{share:>13}{memory}"
            yield line + _ratio(
                {"posts_per_second": rate},
                {"posts_per_second": before[task]} if task in before else None,
            )
    yield ""


def _growth(name: str, grown: Found) -> Iterator[str]:
    titles = {
        "batch": "posts in a batch",
        "length": "times the words",
        "posts": "posts in all",
    }
    yield f"{name}: posts/s as the work grows"
    for axis, rates in grown.items():
        cells = "".join(f"{point:>6}: {rate:<7.2f}" for point, rate in rates.items())
        yield f"  {titles[axis]:18}{cells}"
    yield ""


def _profile(name: str, profile: Found) -> Iterator[str]:
    yield f"{name}: {1000 * profile['seconds_per_post']:.1f} ms a post, of which"
    for row in profile["operations"]:
        yield f"  {100 * row['share']:5.1f} %  {row['calls']:>6} ×  {row['name']}"
    yield ""


def _rate(spread: Found) -> str:
    return f"{spread['median']:.2f} ({spread['low']:.2f}-{spread['high']:.2f})"


def _share(gflop_per_second: float, best: float | None) -> str:
    """Of the best products in that type of number, where they were measured."""
    return f"{100 * gflop_per_second / best:.0f} %" if best else ""


def _otherwise(work: Found, earlier: Found) -> str:
    """What else an earlier benchmark measured, so that its rates are of something else."""
    keys = ("system", "size", "batch", "threads", "device")
    return ", ".join(f"{key} {earlier[key]}" for key in keys if earlier[key] != work[key])


def _ratio(row: Found, before: Found | None) -> str:
    if before is None:
        return ""
    ratio = row["posts_per_second"]["median"] / before["posts_per_second"]["median"]
    return f"   {ratio:.2f} × the earlier"
