"""Small pieces of HTML for `st.html`. Pure; every value is escaped here, and nowhere else is HTML written."""

from collections.abc import Iterable, Sequence
from html import escape

from ui.wording import NONE, short_digest, tone_of, words_of

SITE_COLOURS = ("#2F76A8", "#C27B12", "#7B5AA6", "#2E8B6F", "#B9506A", "#5D7283", "#8A7A2B", "#4E9FB5")
POOLED_COLOUR = "#0B3F46"

HOUSE = '<span class="wr-house" aria-hidden="true"></span>'
_EMPTY_DRAWING = '<span class="wr-drawing" aria-hidden="true"></span>'


def colour_of(site: str, sites: Iterable[str]) -> str:
    """Return a hospital's colour: the same on every page that lists the same hospitals."""
    ordered = sorted(set(sites))
    return SITE_COLOURS[ordered.index(site) % len(SITE_COLOURS)] if site in ordered else "#8A9A98"


def head(title: str, lead: str = "") -> str:
    """Return a page's heading."""
    return f'<div class="wr-head"><h1>{escape(title)}</h1>' + (f"<p>{escape(lead)}</p>" if lead else "") + "</div>"


def section(title: str, note: str = "") -> str:
    """Return the heading of a section."""
    return f'<div class="wr-section"><h2>{escape(title)}</h2><span>{escape(note)}</span></div>'


def pill(state: str | None, words: str | None = None) -> str:
    """Return a state as a coloured pill; the words carry the meaning, the colour only repeats it."""
    return f'<span class="wr-pill {tone_of(state)}">{escape(words or words_of(state))}</span>'


def ends(left: str, right: str, *, quiet: bool = False) -> str:
    """Return two texts at the two ends of a line."""
    kind = " wr-quiet" if quiet else ""
    return f'<div class="wr-ends{kind}"><span>{escape(left)}</span><span class="wr-quiet">{escape(right)}</span></div>'


def bar(fraction: float | None, tone: str = "") -> str:
    """Return a progress bar."""
    share = round(100 * min(1.0, max(0.0, fraction or 0.0)))
    return (
        f'<div class="wr-bar {escape(tone)}" role="progressbar" aria-valuenow="{share}" aria-valuemin="0" '
        f'aria-valuemax="100"><i style="width:{share}%"></i></div>'
    )


def digest(value: str | None) -> str:
    """Return a digest in short, which copies itself whole when clicked."""
    if not value:
        return NONE
    return (
        f'<span class="wr-digest" role="button" tabindex="0" data-copy="{escape(value)}" '
        f'title="{escape(value)}">{escape(short_digest(value))}</span>'
    )


def dot(colour: str) -> str:
    """Return a hospital's coloured dot."""
    return f'<span class="wr-dot" style="background:{escape(colour)}"></span>'


def named_site(name: str, colour: str) -> str:
    """Return a hospital's name with its dot, for tables."""
    return f'<span class="wr-named">{dot(colour)}{escape(name)}</span>'


def tile(label: str, value: str, note: str = "", unit: str = "") -> str:
    """Return a figure with its name."""
    small = f" <small>{escape(unit)}</small>" if unit else ""
    return (
        f'<div class="wr-tile"><div class="wr-label">{escape(label)}</div>'
        f'<div class="wr-value">{escape(value)}{small}</div><div class="wr-note">{escape(note) or "&nbsp;"}</div></div>'
    )


def tiles(items: Iterable[str]) -> str:
    """Return figures side by side."""
    return f'<div class="wr-tiles">{"".join(items)}</div>'


def grid(cards: Iterable[str]) -> str:
    """Return cards side by side, wrapping."""
    return f'<div class="wr-grid">{"".join(cards)}</div>'


def card(title: str, sign: str, state: str, body: str) -> str:
    """Return a hospital's card; `sign` (a dot or `HOUSE`), `state` and `body` are markup."""
    return f'<div class="wr-card"><div class="wr-site-head">{sign}<b>{escape(title)}</b>{state}</div>{body}</div>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return names and values; the values are markup."""
    return '<dl class="wr-facts">' + "".join(f"<dt>{escape(k)}</dt><dd>{v}</dd>" for k, v in pairs) + "</dl>"


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numeric: Sequence[int] = (),
    strong: int = -1,
    kind: str = "",
) -> str:
    """Return a table; cells are markup, `numeric` columns stand right, row `strong` is emphasised; `kind` styles it."""
    classes = ['class="num"' if index in numeric else "" for index in range(len(columns))]
    top = "".join(f"<th {kind}>{escape(name)}</th>" for name, kind in zip(columns, classes, strict=True))
    body = "".join(
        f'<tr class="{"strong" if index == strong else ""}">'
        + "".join(f"<td {kind}>{cell}</td>" for cell, kind in zip(row, classes, strict=True))
        + "</tr>"
        for index, row in enumerate(rows)
    )
    inside = f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="wr-scroll"><table class="wr-table {escape(kind)}">{inside}</table></div>'


def note(kind: str, title: str, text: str = "", points: Sequence[str] = ()) -> str:
    """Return a message box: info, good, wait or bad."""
    listed = "<ul>" + "".join(f"<li>{escape(point)}</li>" for point in points) + "</ul>" if points else ""
    body = f"<p>{escape(text)}</p>" if text else ""
    role = "alert" if kind == "bad" else "note"
    return f'<div class="wr-note-box {kind}" role="{role}"><b>{escape(title)}</b>{body}{listed}</div>'


def sentences(title: str, texts: Iterable[str]) -> str:
    """Return sentences under a small heading, one below the other."""
    listed = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<div class="wr-sentences"><h3>{escape(title)}</h3><ul>{listed}</ul></div>'


def empty(title: str, text: str) -> str:
    """Return what stands where there is nothing yet, with what to do about it."""
    return f'<div class="wr-empty">{_EMPTY_DRAWING}<b>{escape(title)}</b><p>{escape(text)}</p></div>'


def account(name: str, role: str) -> str:
    """Return who is signed in, with the way out."""
    return (
        f'<div class="wr-account"><span class="wr-face" aria-hidden="true">{escape(name[:1].upper())}</span>'
        f'<div style="min-width:0"><div class="wr-name">{escape(name)}</div>'
        f'<div class="wr-role">{escape(role)}</div></div>'
        '<a href="/sign-out">Sign out</a></div>'
    )
