"""Curves as SVG: both axes logarithmic, a line for each client, its name at its end. No library is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 760, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 170, 46, 48
_COLORS = ("#c2410c", "#1d4ed8", "#15803d", "#6b7280", "#7c3aed", "#b45309")
_TEXT = 'font-family="system-ui, sans-serif" font-size="12"'


def svg(title: str, axis: str, unit: str, lines: Mapping[str, Mapping[int, float]]) -> str:
    """A picture of `lines`: for each name its values by point."""
    points = sorted({point for line in lines.values() for point in line})
    values = [value for line in lines.values() for value in line.values()]
    x = _Scale(points[0], points[-1], _LEFT, _WIDTH - _RIGHT)
    y = _Scale(_floor(min(values)), _ceiling(max(values)), _HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _words(_LEFT, 22, title, weight="bold"),
        *_grid(points, x, y),
        _words((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, axis, anchor="middle"),
        _words(_LEFT, 38, unit),
    ]
    ends: list[float] = []
    for color, (name, line) in zip(_COLORS, lines.items(), strict=False):
        parts += _line(name, line, color, x, y, ends)
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Scale:
    """From a value to a coordinate, by its logarithm."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low, self._span = math.log10(low), (math.log10(high) - math.log10(low)) or 1.0
        self._start, self._length = start, end - start

    def __call__(self, value: float) -> float:
        return self._start + (math.log10(value) - self._low) / self._span * self._length


def _grid(points: list[int], x: _Scale, y: _Scale) -> list[str]:
    left, right, bottom = _LEFT, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    decade = 10.0 ** math.floor(math.log10(1e-3))
    while decade < 1e9:
        for value in (decade, 2 * decade, 5 * decade):
            at = y(value)
            if _TOP - 0.5 <= at <= bottom + 0.5:
                parts.append(f'<path d="M{left} {at:.1f}H{right}" stroke="#e5e7eb"/>')
                parts.append(_words(left - 8, at + 4, f"{value:,.4g}", anchor="end"))
        decade *= 10
    for point in points:
        parts.append(f'<path d="M{x(point):.1f} {_TOP}V{bottom}" stroke="#f3f4f6"/>')
        parts.append(_words(x(point), bottom + 18, f"{point:,}", anchor="middle"))
    return parts


def _line(
    name: str, line: Mapping[int, float], color: str, x: _Scale, y: _Scale, ends: list[float]
) -> list[str]:
    places = [(x(point), y(value)) for point, value in sorted(line.items())]
    path = "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
    end_x, end_y = places[-1]
    while any(abs(end_y - other) < 14 for other in ends):  # names must not lie upon each other
        end_y += 14 if end_y + 14 < _HEIGHT - _BOTTOM else -14
        if len(ends) > 8:
            break
    ends.append(end_y)
    dots = [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{color}"/>' for a, b in places]
    return [
        f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="2"/>',
        *dots,
        _words(end_x + 10, end_y + 4, name, color=color),
    ]


def _words(
    x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", color: str = "#111827"
) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="{color}"'
    return f"<text {place} {_TEXT}>{escape(text)}</text>"


def _floor(value: float) -> float:
    return max(s for s in _steps() if s <= value)


def _ceiling(value: float) -> float:
    return min(s for s in _steps() if s >= value)


def _steps() -> list[float]:
    return [digit * 10.0**power for power in range(-3, 9) for digit in (1, 2, 5)]
