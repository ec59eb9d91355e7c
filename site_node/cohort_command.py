"""`wardround site cohort`: whom would these criteria find here, and why did the others fall out?"""

import csv
import io
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from site_node.command_line import Folder, Json, print_json, told
from site_node.errors import IndexingError, SettingsError
from site_node.settings import SiteSettings, load_settings, read_yaml

if TYPE_CHECKING:
    from protocol.cohort_terms import Cohort as Criteria
    from protocol.study import StudySpec

Words = list[str] | None


@told
def cohort(
    folder: Folder,
    study: Annotated[
        Path | None, typer.Argument(help="A study's file, for its criteria; or give some yourself:")
    ] = None,
    modality: Annotated[Words, typer.Option(help="DX, CR, CT, MR ...; each option may be given several times.")] = None,
    body_part: Annotated[Words, typer.Option(help="CHEST, ABDOMEN ...; synonyms of the standard count.")] = None,
    view: Annotated[Words, typer.Option(help="AP, PA, LL ...")] = None,
    sex: Annotated[Words, typer.Option(help="F, M or O.")] = None,
    manufacturer: Annotated[Words, typer.Option(help="The words with which it begins: GE, Siemens ...")] = None,
    protocol: Annotated[Words, typer.Option(help="Words of the protocol name, in any order.")] = None,
    series_description: Annotated[Words, typer.Option(help="Words of the series description, in any order.")] = None,
    date_from: Annotated[str | None, typer.Option(help="First day of the imaging studies: 2020-01-31.")] = None,
    date_until: Annotated[str | None, typer.Option(help="Last day of the imaging studies.")] = None,
    age_min_years: Annotated[int | None, typer.Option(min=0)] = None,
    age_max_years: Annotated[int | None, typer.Option(min=0)] = None,
    labelled: Annotated[
        bool, typer.Option("--labelled", help="Only what labels.csv, or a study's reports, label.")
    ] = False,
    doubtful: Annotated[
        Path | None,
        typer.Option(help="Write the ids that may be one patient to a new file, as a merge table to check."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Count the patients and images of the index that meet criteria, and say why the others fell out.

    Reads no pixel and sends nothing; small counts are hidden. What a study would find with its labels, splits and
    budget is what `wardround site check` tells.
    """
    from site_node.cohort.index_database import open_index
    from site_node.cohort.survey import labelled_names, lines_of, survey, survey_as_json
    from site_node.opt_outs import load_identities

    settings = load_settings(folder)
    if not settings.paths.index.exists():
        raise IndexingError("The images of this site are not indexed yet.", f"Run: wardround site index {folder}")
    given = {
        **{"modality": modality, "body_part": body_part, "view": view, "sex": sex, "manufacturer": manufacturer},
        **{"protocol": protocol, "series_description": series_description, "date_from": date_from},
        **{"date_until": date_until, "age_min_years": age_min_years, "age_max_years": age_max_years},
    }
    asked = None if study is None else _study(study)
    criteria = _criteria(asked, {name: value for name, value in given.items() if value is not None})
    identities = load_identities(settings)
    with open_index(settings.paths.index, identities) as database:
        named = (
            labelled_names(database, settings.labels, settings.labelling, identities.one, asked) if labelled else None
        )
        found = survey(database, criteria, named)
    if doubtful is not None:
        _write_doubtful(doubtful, found.doubtful)
    report = survey_as_json(found, identities, _least(settings))
    if as_json:
        print_json(report)
        return
    for line in lines_of(report, len(found.doubtful)):
        typer.echo(line)


def _study(path: Path) -> "StudySpec":
    from protocol.study import parse_study

    return parse_study(read_yaml(path, "Name a study's file."))


def _criteria(study: "StudySpec | None", given: dict[str, Any]) -> "Criteria":
    from pydantic import ValidationError

    from protocol.cohort_terms import Cohort as Criteria
    from site_node.settings import faults

    if study is not None and given:
        raise SettingsError("A study has its own criteria.", "Name the study, or give criteria, not both.")
    if study is not None:
        return study.cohort
    try:
        for name in ("date_from", "date_until"):
            if name in given:
                given[name] = date.fromisoformat(given[name])
        return Criteria.model_validate(given)
    except ValueError as error:
        said = faults(error) if isinstance(error, ValidationError) else "a date is written 2020-01-31"
        raise SettingsError(f"The criteria are not usable: {said}.", "See wardround site cohort --help.") from None


def _least(settings: SiteSettings) -> int:
    from site_node.cohort.cohort import SMALLEST_SAID
    from site_node.governance.policy import load_policy

    return max(SMALLEST_SAID, load_policy(settings.policy).minimum_patients)


def _write_doubtful(path: Path, pairs: set[tuple[str, str]]) -> None:
    from site_node.cohort.identities import JOINED, KIND_COLUMN, NEW_COLUMN, OLD_COLUMN
    from site_node.durable import write_durably

    if path.exists():
        raise SettingsError(f"{path} is there already.", "Name a new file.")
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow((OLD_COLUMN, NEW_COLUMN, KIND_COLUMN))
    table.writerows((*pair, JOINED) for pair in sorted(pairs))
    write_durably(path, text.getvalue().encode("utf-8"), mode=0o600)
    typer.echo(f"Written to {path}, which holds patient ids: check every line before site.yaml names it.", err=True)
