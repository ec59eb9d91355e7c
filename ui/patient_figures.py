"""What the validation page shows of patients who are not scored: Dice coefficients of classes, or absolute errors."""

from html import escape

from ui import markup
from ui.study_choice import auc_cell
from ui.views import Mean, Metrics, Study
from ui.wording import NONE, count, interval, number


def tiles(study: Study, pooled: Metrics) -> str:
    """Return the pooled figures: the mean, each class's where there are several, and how many patients were judged."""
    shown = [markup.tile(_named(study, pooled), number(pooled.score), _of_mean(pooled.score_low, pooled.score_high))]
    if len(pooled.figures) > 1:
        shown += [
            markup.tile(name, number(figure.mean), _of_mean(figure.mean_low, figure.mean_high))
            for name, figure in _of_classes(study, pooled)
        ]
    shown += [
        markup.tile("Median", number(pooled.median), "half of the patients are above, half below"),
        markup.tile("Held-out patients", count(pooled.patients), "each counts once"),
    ]
    return markup.tiles(shown)


def table(study: Study, rows: list[tuple[str, Metrics]], pooled: Metrics | None, names: list[str]) -> str:
    """Return the table of hospitals, and the line of all together."""
    of_classes = [name for name, _ in _of_classes(study, pooled or Metrics())] if pooled else []
    columns_of = len(of_classes) if len(of_classes) > 1 else 0
    lines = [
        [markup.named_site(name, markup.colour_of(name, names)), *_cells(metrics, columns_of)] for name, metrics in rows
    ]
    if pooled is not None:
        lines.append(["all hospitals", *_cells(pooled, columns_of)])
    columns = ["Hospital", "Patients", _named(study, pooled or Metrics()), "Median", *of_classes[:columns_of]]
    return markup.table(columns, lines, numeric=(1, 3, *range(4, len(columns))), strong=len(rows) if pooled else -1)


def _cells(metrics: Metrics, classes: int) -> list[str]:
    each = [number(figure.mean) for figure in [*metrics.figures, *[Mean()] * classes][:classes]]
    mean = auc_cell(metrics.score, metrics.score_low, metrics.score_high)
    return [escape(count(metrics.patients)), mean, number(metrics.median), *each]


def _named(study: Study, pooled: Metrics) -> str:
    unit = str((study.study.get("regression") or {}).get("unit") or "")
    return f"{pooled.score_name} ({unit})" if pooled.figure == "absolute-error" and unit else pooled.score_name


def _of_classes(study: Study, pooled: Metrics) -> list[tuple[str, Mean]]:
    classes = [str(name) for name in (study.study.get("label") or {}).get("classes", [])]
    return list(zip(classes[1:], pooled.figures, strict=False))


def _of_mean(low: float | None, high: float | None) -> str:
    return NONE if low is None else "interval " + interval(low, high)
