"""Plots of how cost grows, as SVG: the cost of one over the number of them, level where the whole grows in a straight line."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.growth import Growth

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 70, 30, 40, 50
COLOURS = ("#1f6feb", "#d1480f", "#7fb2ff", "#f0a98c")


def svg(growth: Growth) -> str:
    """The plot of it."""
    scale, unit = (1_000, "µs") if growth.unit == "ns" and _greatest(growth) >= 2_000 else (1, growth.unit)
    top = _round_up(_greatest(growth) / scale)

    def across(number: int) -> float:
        widest = math.log(growth.numbers[-1]) or 1
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(number) / widest

    def up(cost: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * cost / top

    title = f"{growth.title}: {unit} of one, by the number of {growth.of}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{escape(title)}</text>',
    ]
    for step in range(5):
        cost = top * step / 4
        parts += [
            f'<path d="M{LEFT} {up(cost):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>',
            f'<text x="{LEFT - 8}" y="{up(cost) + 4:.1f}" text-anchor="end">{cost:,g}</text>',
        ]
    parts += [
        f'<text x="{across(number):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{number:,}</text>'
        for number in growth.numbers
        if number == growth.numbers[-1] or across(growth.numbers[-1]) - across(number) > 50
    ]
    for at, (line, colour) in enumerate(zip(growth.lines, COLOURS, strict=False)):
        points = [(across(number), up(cost / scale)) for number, cost in zip(growth.numbers, line.costs, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        name = escape(line.name.replace("`", ""))
        parts.append(f'<text x="{LEFT + 140 * at}" y="{HEIGHT - 8}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _greatest(growth: Growth) -> float:
    return max(max(line.costs) for line in growth.lines)


def _round_up(value: float) -> float:
    """To 1, 2, 4 or 8 of a power of ten: four steps of it have short names."""
    power = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next(power * digit for digit in (1, 2, 4, 8, 10) if value <= power * digit)
