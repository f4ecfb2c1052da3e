"""Plotly figures as plain dictionaries, in one look: transparent, so that light and dark themes both work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from plumbline.kernels.stats import Reliability

Figure = dict[str, Any]
BASE, TUNED, OTHER, GOOD, BAD = "#8a8f98", "#3b76d6", "#b5852b", "#3f9a6b", "#cf5a4a"
SEQUENCE = (TUNED, BASE, OTHER, GOOD, BAD)
GRID = "rgba(128,128,128,0.25)"


def _list(values: ArrayLike) -> list[Any]:
    """Plain numbers; what is not finite becomes a gap in the plot."""
    return [None if isinstance(v, float) and not np.isfinite(v) else v for v in np.asarray(values).tolist()]


def _figure(data: list[dict[str, Any]], x: str, y: str, **more: Any) -> Figure:
    axis = {"gridcolor": GRID, "zerolinecolor": GRID, "automargin": True}
    layout = {
        "xaxis": {**axis, "title": {"text": x}, **more.pop("xaxis", {})},
        "yaxis": {**axis, "title": {"text": y}, **more.pop("yaxis", {})},
        "margin": {"l": 50, "r": 16, "t": 24, "b": 44},
        "legend": {"orientation": "h", "y": 1.12},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hovermode": "closest",
        **more,
    }
    return {"data": data, "layout": layout}


def _faint(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def lines(series: Mapping[str, Mapping[str, Any]], x: str, y: str, **more: Any) -> Figure:
    """Lines with bands. Each series: ``x``, ``y`` [k], optional ``low``, ``high`` [k], ``note`` [k], ``color``."""
    data: list[dict[str, Any]] = []
    for i, (name, s) in enumerate(series.items()):
        color = s.get("color", SEQUENCE[i % len(SEQUENCE)])
        xs = _list(s["x"])
        if s.get("low") is not None:
            edge = {"x": xs, "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
            data.append({"type": "scatter", **edge, "y": _list(s["high"])})
            data.append(
                {"type": "scatter", **edge, "y": _list(s["low"]), "fill": "tonexty", "fillcolor": _faint(color)}
            )
        line = {"type": "scatter", "name": name, "x": xs, "y": _list(s["y"]), "mode": "lines+markers"}
        line |= {"line": {"color": color, "width": 2}, "marker": {"size": 5}}
        if s.get("note") is not None:
            line |= {"text": list(s["note"]), "hovertemplate": "%{x}: %{y:.4g}<br>%{text}<extra>" + name + "</extra>"}
        data.append(line)
    return _figure(data, x, y, **more)


def bars(
    names: Sequence[str], series: Mapping[str, Mapping[str, Any]], x: str, y: str, *, stacked: bool = False, **more: Any
) -> Figure:
    """Bars per name. Each series: ``y`` [k], optional ``low``, ``high`` [k] (an interval), ``note`` [k], ``color``."""
    data: list[dict[str, Any]] = []
    for i, (name, s) in enumerate(series.items()):
        bar: dict[str, Any] = {"type": "bar", "name": name, "x": list(names), "y": _list(s["y"])}
        bar["marker"] = {"color": s.get("color", SEQUENCE[i % len(SEQUENCE)])}
        if s.get("low") is not None:
            height, low, high = (np.asarray(s[k], np.float64) for k in ("y", "low", "high"))
            bar["error_y"] = {
                "type": "data", "symmetric": False, "thickness": 1,
                "array": _list(np.nan_to_num(high - height)), "arrayminus": _list(np.nan_to_num(height - low)),
            }  # fmt: skip
        if s.get("note") is not None:
            bar |= {"text": list(s["note"]), "textposition": "none"}
            bar["hovertemplate"] = "%{x}: %{y:.4g}<br>%{text}<extra>" + name + "</extra>"
        data.append(bar)
    return _figure(data, x, y, barmode="stack" if stacked else "group", **more)


def histogram(edges: ArrayLike, counts: Mapping[str, ArrayLike], x: str, y: str = "count", **more: Any) -> Figure:
    """Counts [k] per series over shared edges [k+1]."""
    cut = np.asarray(edges, np.float64)
    middle, notes = (cut[1:] + cut[:-1]) / 2, [f"{a:.3g} to {b:.3g}" for a, b in pairwise(cut)]
    data = [
        {
            "type": "bar", "name": name, "x": _list(middle), "y": _list(c), "width": _list(np.diff(cut)), "text": notes,
            "textposition": "none", "hovertemplate": "%{text}: %{y}<extra>" + name + "</extra>", "opacity": 0.75,
            "marker": {"color": SEQUENCE[i % len(SEQUENCE)], "line": {"width": 0}},
        }
        for i, (name, c) in enumerate(counts.items())
    ]  # fmt: skip
    return _figure(data, x, y, barmode="overlay", **more)


def reliability_diagram(arms: Mapping[str, Reliability]) -> Figure:
    """Accuracy against confidence per bin with Wilson bars and the diagonal; marker area follows the bin's mass."""
    diagonal = {"type": "scatter", "x": [0, 1], "y": [0, 1], "mode": "lines", "name": "calibrated", "hoverinfo": "skip"}
    data: list[dict[str, Any]] = [{**diagonal, "line": {"color": GRID, "dash": "dash"}}]
    for (name, r), color in zip(arms.items(), (BASE, TUNED), strict=False):
        data.append({
            "type": "scatter", "mode": "lines+markers", "name": name, "x": _list(r.conf), "y": _list(r.accuracy),
            "line": {"color": color}, "marker": {"color": color, "size": _list(6 + 18 * np.sqrt(r.mass))},
            "error_y": {
                "type": "data", "symmetric": False, "thickness": 1, "array": _list(np.maximum(r.high - r.accuracy, 0)),
                "arrayminus": _list(np.maximum(r.accuracy - r.low, 0)),
            },
            "text": [f"{n:.0f} items" for n in r.n],
            "hovertemplate": "confidence %{x:.3f}, accuracy %{y:.3f}, %{text}<extra>" + name + "</extra>",
        })  # fmt: skip
    unit = {"range": [-0.02, 1.02]}
    return _figure(data, "confidence", "accuracy", xaxis=unit, yaxis=dict(unit))
