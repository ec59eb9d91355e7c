"""Figures for plotly. Pure: views in, a figure out; nothing here asks the hub or draws.

Colours: a hospital keeps its colour on every page of a study (`markup.colour_of`); pooled is always the darkest line.
Intervals are 95 %, as the hub sends them.
"""

from collections.abc import Sequence
from math import log10
from typing import Any

import plotly.graph_objects as go

from ui.markup import POOLED_COLOUR, colour_of
from ui.views import Curves, Metrics, Round, Version
from ui.wording import count, short_digest, size

FONT = "Inter, 'Segoe UI', system-ui, 'Noto Sans', 'Helvetica Neue', Arial, sans-serif"
INK, SOFT, LINE, BAND = "#17302F", "#4D6664", "#E3EAE8", "rgba(11,107,115,.13)"
ROOM = 0.15
"""Left of round 0 and right of the last, in rounds."""
CONFIG: dict[str, Any] = {"displayModeBar": False, "responsive": True}


def auc_by_round(rounds: Sequence[Round], sites: Sequence[str], names: Sequence[str]) -> go.Figure:
    """Return the AUC of each round's version: pooled with its interval, and each hospital's."""
    figure = _figure(
        height=340, x_title="Round", y_title=f"{_score_name([item.metrics for item in rounds])} on held-out patients"
    )
    scored = [(item.number, item.metrics) for item in rounds if item.metrics and item.metrics.score is not None]
    for site in sites:
        points = [(r.number, s.metrics.score) for r in rounds for s in r.sites if s.site == site and s.metrics]
        figure.add_scatter(
            x=[x for x, _ in points],
            y=[y for _, y in points],
            name=site,
            mode="lines+markers",
            line={"color": colour_of(site, names), "width": 1.5},
            marker={"size": 5},
            hovertemplate="%{y:.3f}",
        )
    _add_band(figure, scored)
    figure.update_layout(hovermode="x unified", yaxis={"range": _auc_range(rounds), "tickformat": ".2f"})
    figure.update_xaxes(range=[-ROOM, max([1, *(item.number for item in rounds)]) + ROOM])  # also with one point
    _count_rounds(figure, len(rounds))
    return figure


def _score_name(shown: Sequence[Metrics | None]) -> str:
    return next((metrics.score_name for metrics in shown if metrics and metrics.score is not None), "AUC")


def _add_band(figure: go.Figure, scored: Sequence[tuple[int, Metrics]]) -> None:
    with_band = [(x, m) for x, m in scored if m.score_low is not None and m.score_high is not None]
    numbers = [x for x, _ in with_band]
    figure.add_scatter(
        x=numbers + numbers[::-1],
        y=[m.score_high for _, m in with_band] + [m.score_low for _, m in with_band][::-1],
        fill="toself",
        fillcolor=BAND,
        mode="lines",
        line={"width": 0},
        hoverinfo="skip",
        legendrank=1001,
        name="95 % interval, pooled",
    )
    figure.add_scatter(
        x=[x for x, _ in scored],
        y=[m.score for _, m in scored],
        name="pooled",
        legendrank=1,
        mode="lines+markers",
        line={"color": POOLED_COLOUR, "width": 3},
        marker={"size": 7},
        hovertemplate="<b>%{y:.3f}</b>",
    )


def _auc_range(rounds: Sequence[Round]) -> list[float]:
    found = [m for r in rounds for m in (r.metrics, *(s.metrics for s in r.sites)) if m and m.score is not None]
    lows = [m.score for m in found if m.score is not None] + [
        r.metrics.score_low for r in rounds if r.metrics and r.metrics.score_low
    ]
    highs = [m.score_high or m.score or 0.0 for m in found]
    return _score_range(lows, highs)


def _score_range(lows: Sequence[float], highs: Sequence[float]) -> list[float]:
    """Return an axis for scores that are at most 1, or for errors, which are in the unit of what is measured."""
    largest = max(highs, default=1.0)
    return [0.0, 1.05 * largest] if largest > 1 else [max(0.0, min([0.5, *lows]) - 0.02), 1.0]


def epsilon_by_round(numbers: Sequence[int], spent: Sequence[float], target: float | None, rounds: int) -> go.Figure:
    """Return epsilon after each round, with the promise that it stays below."""
    figure = _figure(height=230, x_title="Round", y_title="ε spent")
    figure.add_scatter(
        x=list(numbers),
        y=list(spent),
        mode="lines",
        line={"color": "#0B6B73", "width": 2.5, "shape": "hv" if len(numbers) < 40 else "linear"},
        fill="tozeroy",
        fillcolor=BAND,
        hovertemplate="after round %{x}: ε = %{y:.2f}<extra></extra>",
        showlegend=False,
    )
    if target is not None:
        figure.add_hline(y=target, line={"color": "#B26A00", "width": 1.5, "dash": "dash"})
        figure.add_annotation(
            x=0,
            xref="paper",
            xanchor="left",
            y=target,
            yshift=10,
            text=f"promised: at most {target:g}",
            showarrow=False,
            font={"color": "#8A5200", "size": 12},
        )
    figure.update_layout(yaxis={"range": [0, 1.22 * (target or max(spent, default=1.0))]})
    figure.update_xaxes(range=[0, rounds])
    _count_rounds(figure, rounds)
    return figure


def traffic_by_round(rounds: Sequence[Round]) -> go.Figure:
    """Return bytes that left the hospitals and bytes that they fetched, by round."""
    figure = _figure(height=230, x_title="Round", y_title="MB")
    kinds = (("sent by hospitals", "#0B6B73", "bytes_up"), ("fetched by hospitals", "#A9CBC6", "bytes_down"))
    for name, colour, attribute in kinds:
        values = [getattr(item, attribute) for item in rounds]
        figure.add_bar(
            x=[item.number for item in rounds],
            y=[value / 1e6 for value in values],
            customdata=[size(value) for value in values],
            name=name,
            marker={"color": colour},
            hovertemplate="%{customdata}",
        )
    figure.update_layout(barmode="group", bargap=0.45, hovermode="x unified")
    _count_rounds(figure, len(rounds))
    return figure


def rates_by_round(rounds: Sequence[Round], sites: Sequence[str], names: Sequence[str]) -> go.Figure:
    """Return what each hospital's learning rate was multiplied by, round by round; a doubling is as far as a half."""
    figure = _figure(height=250, x_title="Round", y_title="times the round's learning rate")
    figure.add_hline(y=1.0, line={"color": SOFT, "width": 1, "dash": "dot"})
    for site in sites:
        points = [(r.number, s) for r in rounds for s in r.sites if s.site == site and s.train_state and r.number]
        figure.add_scatter(
            x=[x for x, _ in points],
            y=[1.0 if s.rate_factor is None else s.rate_factor for _, s in points],
            name=site,
            mode="lines+markers",
            line={"color": colour_of(site, names), "width": 2},
            marker={"size": 6},
            hovertemplate="%{y:.2f}",
        )
    factors = [s.rate_factor for r in rounds for s in r.sites if s.rate_factor]
    ends = [log10(0.9 * min([0.8, *factors])), log10(1.1 * max([1.25, *factors]))]
    ticks = [0.1, 0.2, 0.3, 0.5, 0.6, 0.8, 1, 1.2, 1.5, 2, 3, 5, 10]
    figure.update_yaxes(type="log", range=ends, tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    figure.update_layout(hovermode="x unified")
    _count_rounds(figure, len(rounds))
    return figure


def forest(pooled: Metrics | None, sites: Sequence[tuple[str, Metrics]], names: Sequence[str]) -> go.Figure:
    """Return a forest plot: each hospital's AUC with its interval, and the pooled one as a diamond below."""
    rows = [(name, metrics, colour_of(name, names), "square") for name, metrics in sites]
    if pooled is not None:
        rows.append(("all hospitals", pooled, POOLED_COLOUR, "diamond"))
    figure = _figure(height=96 + 44 * len(rows), x_title=_forest_title([m for _, m, _, _ in rows]), y_title="")
    for name, metrics, colour, symbol in rows:
        _add_forest_row(figure, name, metrics, colour, symbol)
    if pooled is not None and pooled.score is not None:
        figure.add_vline(x=pooled.score, line={"color": POOLED_COLOUR, "width": 1, "dash": "dot"})
    lows = [metrics.score_low for _, metrics, _, _ in rows if metrics.score_low is not None]
    highs = [metrics.score_high or metrics.score or 0.0 for _, metrics, _, _ in rows]
    figure.update_layout(
        showlegend=False,
        margin={"l": 8, "r": 165, "t": 10, "b": 44},
        xaxis={
            "range": _score_range(lows, highs),
            "tickformat": ".2f",
            "showgrid": True,
            "gridcolor": LINE,
        },
        yaxis={
            "categoryorder": "array",
            "categoryarray": [f"<b>{row[0]}</b>" for row in rows][::-1],
            "showgrid": False,
        },
    )
    return figure


def _forest_title(shown: Sequence[Metrics]) -> str:
    name = _score_name(shown)
    return f"{name} index" if name == "Concordance" else f"{name} (95 % interval)"


def _add_forest_row(figure: go.Figure, name: str, metrics: Metrics, colour: str, symbol: str) -> None:
    text = f"<b>{name}</b>"
    if metrics.score is None:
        figure.add_scatter(x=[None], y=[text], mode="markers", hoverinfo="skip")
        label = "one class only" if metrics.figure is None else "too few to show"
    else:
        low, high = metrics.score_low or metrics.score, metrics.score_high or metrics.score
        label = f"<b>{metrics.score:.3f}</b>" + (f"  {low:.2f} to {high:.2f}" if metrics.score_low is not None else "")
        figure.add_scatter(
            x=[metrics.score],
            y=[text],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [high - metrics.score],
                "arrayminus": [metrics.score - low],
                "color": colour,
                "thickness": 2,
                "width": 5,
            },
            mode="markers",
            cliponaxis=False,  # an AUC of 1 stands on the edge
            marker={"symbol": symbol, "size": 15 if symbol == "diamond" else 11, "color": colour},
            hovertemplate=f"{name}: {metrics.score:.3f} ({low:.3f} to {high:.3f})<extra></extra>",
        )
    patients = f"<span style='color:{SOFT}'>n={count(metrics.patients)}</span>"
    place = {"x": 1.01, "xref": "paper", "xanchor": "left", "y": text, "showarrow": False}
    figure.add_annotation(text=f"{label}  {patients}", font={"size": 12}, **place)


def roc(pooled: Curves | None, sites: Sequence[Curves], names: Sequence[str]) -> go.Figure:
    """Return ROC curves, pooled and per hospital."""
    figure = _figure(height=380, x_title="1 - specificity", y_title="sensitivity")
    _add_diagonal(figure)
    for curves in sites:
        _add_curve(figure, curves.roc, curves.site, colour_of(curves.site, names), 1.5)
    if pooled is not None:
        _add_curve(figure, pooled.roc, "pooled", POOLED_COLOUR, 3)
    figure.update_layout(xaxis={"range": [0, 1.003]}, yaxis={"range": [0, 1.01]})
    return figure


def _add_curve(figure: go.Figure, points: Sequence[tuple[float, float]], name: str, colour: str, width: float) -> None:
    figure.add_scatter(
        x=[x for x, _ in points],
        y=[y for _, y in points],
        name=name,
        mode="lines",
        line={"color": colour, "width": width},
        hovertemplate="sensitivity %{y:.2f}<br>specificity %{customdata:.2f}",
        customdata=[1 - x for x, _ in points],
    )


def calibration(pooled: Curves | None) -> go.Figure:
    """Return what was seen against what the model said; a group of fewer than five patients is drawn hollow."""
    figure = _figure(height=380, x_title="mean score of the group", y_title="fraction with the finding")
    _add_diagonal(figure)
    points = pooled.calibration if pooled is not None else []
    figure.add_scatter(
        x=[score for score, _, _ in points],
        y=[seen for _, seen, _ in points],
        mode="lines+markers",
        cliponaxis=False,
        name="pooled",
        line={"color": POOLED_COLOUR, "width": 2},
        marker={
            "size": [8 + min(14, (patients or 0) ** 0.5 * 2) for _, _, patients in points],
            "color": ["#FFFFFF" if patients is None else POOLED_COLOUR for _, _, patients in points],
            "line": {"color": POOLED_COLOUR, "width": 2},
            "opacity": 1,
        },
        customdata=[count(patients) for _, _, patients in points],
        hovertemplate="said %{x:.2f}, seen %{y:.2f}<br>%{customdata} patients<extra></extra>",
    )
    figure.update_layout(xaxis={"range": [0, 1.003]}, yaxis={"range": [-0.02, 1.01]})
    return figure


def lineage(versions: Sequence[Version], final: int | None, names: Sequence[str]) -> go.Figure:
    """Return the line of versions, and below it which hospital's update went into which, sized by its weight."""
    sites = sorted({p.site for version in versions for p in version.participants})
    figure = _figure(height=150 + 38 * len(sites), x_title="Version", y_title="")
    top = "<b>model</b>"
    heaviest = max((p.weight for v in versions for p in v.participants), default=1.0)
    for site in sites:
        parts = [(v.number, p.weight) for v in versions for p in v.participants if p.site == site]
        figure.add_scatter(
            x=[x for x, _ in parts],
            y=[site] * len(parts),
            mode="markers",
            marker={
                "size": [6 + 10 * (w / heaviest) ** 0.5 for _, w in parts],
                "color": colour_of(site, names),
                "opacity": 1,
            },
            customdata=[w for _, w in parts],
            hovertemplate=f"{site} in version %{{x}}<br>weight %{{customdata:g}}<extra></extra>",
        )
    figure.add_scatter(
        x=[version.number for version in versions],
        y=[top] * len(versions),
        mode="lines+markers",
        line={"color": POOLED_COLOUR, "width": 2},
        marker={
            "size": [19 if version.number == final else 14 for version in versions],
            "color": [_judgement_colour(version) for version in versions],
            "line": {"color": POOLED_COLOUR, "width": 2},
            "opacity": 1,
        },
        customdata=[short_digest(version.digest) for version in versions],
        hovertemplate="version %{x}<br>%{customdata}<extra></extra>",
    )
    figure.update_layout(
        showlegend=False,
        yaxis={"categoryorder": "array", "categoryarray": [*sites[::-1], top], "showgrid": False},
        xaxis={"showgrid": False},
    )
    _count_rounds(figure, len(versions))
    return figure


def _count_rounds(figure: go.Figure, amount: int) -> None:
    figure.update_xaxes(tick0=0, dtick=max(1, -(-amount // 12)), tickformat="d")


def _judgement_colour(version: Version) -> str:
    last = version.decisions[-1].decision if version.decisions else ""
    return {"accepted": "#3F9C7A", "rejected": "#C4584F"}.get(last, "#FFFFFF")


def _add_diagonal(figure: go.Figure) -> None:
    line = {"color": "#9FB0AD", "width": 1, "dash": "dot"}
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", hoverinfo="skip", showlegend=False, line=line)


def _figure(*, height: int, x_title: str, y_title: str) -> go.Figure:
    figure = go.Figure()
    axis = {"zeroline": False, "linecolor": "#C3D0CD", "tickfont": {"color": SOFT, "size": 12}, "fixedrange": True}
    title = {"font": {"color": SOFT, "size": 12}}
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 12, "t": 30, "b": 44},
        font={"family": FONT, "color": INK, "size": 13},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 12, "color": SOFT}},
        hoverlabel={"bgcolor": "#FFFFFF", "bordercolor": "#C3D0CD", "font": {"family": FONT, "color": INK}},
        uirevision="kept",
        xaxis=axis | {"showgrid": False, "title": title | {"text": x_title}},
        yaxis=axis | {"gridcolor": LINE, "automargin": True, "title": title | {"text": y_title}},
    )
    return figure
