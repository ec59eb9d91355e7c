"""The report of `wardround site index`, as a script reads it and as a person does."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from site_node.cohort.index import IndexReport, Progress, index_folder
from site_node.file_names import shown

FEW = 10


def index_of_any_folder(folder: Path, *, progress: Progress | None = None, decode: bool = False) -> IndexReport:
    """Index a folder into an index that is thrown away: no site, no enrolment, nothing kept.

    Raises: IndexingError if the folder is not there.
    """
    with TemporaryDirectory(prefix="wardround-index-") as temporary:
        return index_folder([folder], Path(temporary) / "index.sqlite", progress=progress, decode=decode)


@contextmanager
def progress_shown(*, disable: bool) -> Iterator[Progress]:
    """Yield what shows on a terminal how many of the new and changed files were read."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (*Bars.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Bars(*columns, console=console, transient=True, disable=disable or not console.is_terminal) as bars:
        bar = bars.add_task("reading headers", total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


def report_as_json(report: IndexReport, folders: Sequence[Path]) -> dict[str, Any]:
    """Return the report as plain data; every file that is left out is named, below its folder."""
    roots = [folder.resolve() for folder in folders]
    return {
        "files": report.files,
        "instances": report.instances,
        "patients": report.patients,
        "indexed": report.indexed,
        "companions": report.companions,
        "reasons": dict(_reasons(report)),
        "quarantined": [{"file": _name(entry.file, roots), "reason": entry.reason} for entry in report.quarantined],
    }


def report_as_text(report: IndexReport, folders: Sequence[Path], *, every: bool = False) -> str:
    """Return the report in lines: what is usable, each reason of quarantine with its number, and the first such files.

    Names of files may tell of patients, and under a timer these lines are kept in a journal: hence few, below their
    folder, unless `every` one is asked for.
    """
    lines = [
        f"{report.files} files: {report.indexed} images ({report.instances} instances of {report.patients} patients), "
        f"{report.companions} texts and masks beside them, {len(report.quarantined)} quarantined"
    ]
    lines += [f"  {number:6d}  {reason}" for reason, number in _reasons(report)]
    roots = [folder.resolve() for folder in folders]
    said = report.quarantined if every else report.quarantined[:FEW]
    lines += [f"  left out: {_name(entry.file, roots)}: {entry.reason}" for entry in said]
    if len(said) < len(report.quarantined):
        lines.append(f"  and {len(report.quarantined) - len(said)} more: --list names all of them")
    return "\n".join(lines)


def _reasons(report: IndexReport) -> list[tuple[str, int]]:
    return Counter(entry.reason for entry in report.quarantined).most_common()


def _name(file: Path, roots: Sequence[Path]) -> str:
    """Return a file's name below its folder, which is named too where there are several."""
    root = next((folder for folder in roots if file.is_relative_to(folder)), None)
    if root is None:
        return shown(file)
    return shown(file.relative_to(root if len(roots) == 1 else root.parent))
