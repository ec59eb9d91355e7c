"""The reading API's routes: index, readiness, and reading cases. It runs as the worker's user, apart from `api/app.py`.

It is told a study by who opens its room or asks for its readiness, as the site's API shows it, and takes it by its
digest: the gate's records are not its to read. No answer names a patient, a file or a pseudonym; a case is a code.
Blinded: what the hospital's labels say of a case is answered to who has read it.
"""

import functools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from protocol.errors import ProtocolError
from protocol.study import MAX_STUDY_BYTES, StudySpec, parse_study
from site_node.api.calls import RefusedCallError, allowed, closed_app
from site_node.api.reading_tokens import reader_of
from site_node.api.tokens import Caller
from site_node.cohort.cohort import Patient
from site_node.errors import UnreadableError
from site_node.exporting import load_deidentification_policy, site_pseudonyms
from site_node.reading.index_page import index_document
from site_node.reading.picture import case_picture, slices_of
from site_node.reading.readiness_job import ReadinessJobs
from site_node.reading.records import (
    SHOWN,
    Reading,
    give_reading,
    open_reading_records,
    reading_by,
    readings_of,
    record_view,
    views_after,
)
from site_node.reading.rooms import Room, case_of, open_room, room_of, rooms_of
from site_node.settings import SiteSettings

MAX_BODY_BYTES = MAX_STUDY_BYTES + 4096
MAX_ENTRIES = 1000
PICTURES_AT_ONCE = 2
KEYS = ("specification", "measures", "labels", "confidence", "after", "image", "slice")
HOW_TO_POST = (
    'Send JSON, with Content-Type: application/json: {"specification": ...} as the site\'s API shows it; of a reading '
    '{"labels": [names of classes], "confidence": 1 to 5}.'
)
SEE_ELSEWHERE = "Read the case in the hospital's own viewer, or leave it out."
NO_ROOM = "This study's reading room is not open.", "An administrator opens it."
NO_CASE = "No open room has a case of this code.", "Its patient may have opted out."


class StudyBody(BaseModel):
    """A study, as the site's API shows its specification; `measures`: take steps of training to tell minutes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    specification: dict[str, Any]
    measures: bool = True


class ReadingBody(BaseModel):
    """A judgement: the study's words that apply, and how sure (1 guessed, 5 certain)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: list[Annotated[str, Field(max_length=100)]] = Field(max_length=64)
    confidence: int = Field(ge=1, le=5)


def make_app(
    settings: SiteSettings, clock: Callable[[], float] = time.time, jobs: ReadinessJobs | None = None
) -> FastAPI:
    """Return the reading API of a site."""
    app = closed_app(
        "Wardround reading",
        functools.partial(reader_of, settings.paths),
        most_bytes=MAX_BODY_BYTES,
        keys=KEYS,
        how_to_post=HOW_TO_POST,
    )
    app.state.settings, app.state.clock = settings, clock
    app.state.jobs = jobs or ReadinessJobs(settings.paths, clock=clock)
    app.state.pseudonyms = site_pseudonyms(settings.paths)
    app.state.decoding = threading.Semaphore(PICTURES_AT_ONCE)
    app.get("/v1/me")(_me)
    app.get("/v1/index", dependencies=[Depends(allowed("index"))])(_index)
    app.get("/v1/studies/{digest}/readiness", dependencies=[Depends(allowed("readiness"))])(_readiness)
    app.post("/v1/studies/{digest}/readiness", status_code=202)(_examine)
    app.get("/v1/rooms")(_rooms)
    app.post("/v1/studies/{digest}/room")(_open_room)
    app.get("/v1/studies/{digest}/cases")(_cases)
    app.get("/v1/studies/{digest}/readings", dependencies=[Depends(allowed("readings"))])(_readings)
    app.get("/v1/cases/{code}")(_case)
    app.get("/v1/cases/{code}/image")(_image)
    app.post("/v1/cases/{code}/reading")(_read)
    app.get("/v1/views", dependencies=[Depends(allowed("views"))])(_views)
    return app


def _settings(request: Request) -> SiteSettings:
    settings: SiteSettings = request.app.state.settings
    return settings


def _records(settings: Annotated[SiteSettings, Depends(_settings)]) -> Iterator[sqlite3.Connection]:
    with open_reading_records(settings.paths) as database:
        yield database


Settings = Annotated[SiteSettings, Depends(_settings)]
Records = Annotated[sqlite3.Connection, Depends(_records)]


def _me(caller: Annotated[Caller, Depends(allowed("reader"))]) -> dict[str, Any]:
    return {"name": caller.name, "role": caller.role, "ends_at": caller.ends_at}


def _index(settings: Settings) -> dict[str, Any]:
    return index_document(settings)


def _readiness(digest: str, request: Request) -> dict[str, Any]:
    return _jobs(request).report_of(_whole(digest))


def _examine(
    digest: str, body: StudyBody, caller: Annotated[Caller, Depends(allowed("examine"))], request: Request
) -> dict[str, Any]:
    study = _study(digest, body)
    _jobs(request).ask(study, caller.name, measures=body.measures)
    return _jobs(request).report_of(study.digest)


def _rooms(
    caller: Annotated[Caller, Depends(allowed("rooms"))], settings: Settings, database: Records
) -> list[dict[str, Any]]:
    return [_room_document(room, database, caller) for room in rooms_of(settings)]


def _open_room(
    digest: str,
    body: StudyBody,
    caller: Annotated[Caller, Depends(allowed("open_room"))],
    settings: Settings,
    database: Records,
    request: Request,
) -> dict[str, Any]:
    room = open_room(settings, _study(digest, body), caller.name, request.app.state.clock())
    return _room_document(room, database, caller)


def _cases(
    digest: str, caller: Annotated[Caller, Depends(allowed("cases"))], settings: Settings, database: Records
) -> list[dict[str, Any]]:
    room = room_of(settings, _whole(digest))
    if room is None:
        raise RefusedCallError(404, *NO_ROOM)
    read = {reading.case_code for reading in readings_of(database, room.study.digest, caller.name)}
    return [{"case": code, "images": len(case.images), "read": code in read} for code, case in room.cases.items()]


def _readings(digest: str, settings: Settings, database: Records) -> list[dict[str, Any]]:
    room = room_of(settings, _whole(digest))
    if room is None:
        raise RefusedCallError(404, *NO_ROOM)
    given = readings_of(database, room.study.digest)
    return [
        {**reading.as_json(), "site_labels": room.answer(room.cases[reading.case_code])}
        for reading in given
        if reading.case_code in room.cases
    ]


def _case(
    code: str, caller: Annotated[Caller, Depends(allowed("case"))], settings: Settings, database: Records
) -> dict[str, Any]:
    room, case = _found(settings, code)
    own = reading_by(database, code, caller.name)
    try:
        slices = [len(slices_of(image)) for image in case.images]
    except UnreadableError:
        raise RefusedCallError(409, "A series of this case makes no volume any more.", "Index again.") from None
    return {
        "case": code,
        "study_digest": room.study.digest,
        "slices": slices,
        "reading": None if own is None else own.as_json(),
        "site_labels": None if own is None else room.answer(case),
    }


def _image(
    code: str,
    caller: Annotated[Caller, Depends(allowed("image"))],
    settings: Settings,
    database: Records,
    request: Request,
    image: int = 0,
    number: Annotated[int, Query(alias="slice")] = 0,
) -> Response:
    _, case = _found(settings, code)
    now = request.app.state.clock()
    view = functools.partial(record_view, database, caller.name, code, image, number)
    try:
        picture = _picture(settings, request, case, image, number)
    except UnreadableError as error:
        why = error.message[:1].lower() + error.message[1:].rstrip(".")
        view(f"refused: {why}", now)
        raise RefusedCallError(409, f"This picture is not shown: {why}.", SEE_ELSEWHERE) from None
    view(SHOWN, now)
    return Response(picture, media_type="image/png", headers={"Content-Disposition": "inline"})


def _read(
    code: str,
    body: ReadingBody,
    caller: Annotated[Caller, Depends(allowed("read"))],
    settings: Settings,
    database: Records,
    request: Request,
) -> dict[str, Any]:
    room, case = _found(settings, code)
    _check_labels(room, body.labels)
    labels, digest = tuple(body.labels), room.study.digest
    reading = Reading(digest, code, caller.name, labels, body.confidence, request.app.state.clock())
    give_reading(database, reading)
    return {"reading": reading.as_json(), "site_labels": room.answer(case)}


def _views(database: Records, after: int = 0) -> list[dict[str, Any]]:
    return views_after(database, max(0, after), MAX_ENTRIES)


def _picture(settings: SiteSettings, request: Request, case: Patient, image: int, number: int) -> bytes:
    if not 0 <= image < len(case.images):
        raise RefusedCallError(404, "The case has no image of this number.", "They are counted from 0.")
    places = slices_of(case.images[image])
    if not 0 <= number < len(places):
        raise RefusedCallError(404, "The image has no slice of this number.", "They are counted from 0.")
    policy = load_deidentification_policy(settings.paths)
    with request.app.state.decoding:  # each may take as much memory as a file, several times over
        return case_picture(places, number, case.key, policy, request.app.state.pseudonyms)


def _check_labels(room: Room, labels: list[str]) -> None:
    if not room.takes_labels:
        raise RefusedCallError(409, "This study has no classes to choose from; its cases are only looked at.", "")
    several = room.study.outcome == "multi-label"
    fits = set(labels) <= set(room.study.label.classes) and len(set(labels)) == len(labels)
    if not fits or (len(labels) != 1 and not several):
        names = ", ".join(room.study.label.classes)
        raise RefusedCallError(422, "Not usable: labels.", f"{'Any' if several else 'One'} of: {names}.")


def _room_document(room: Room, database: sqlite3.Connection, caller: Caller) -> dict[str, Any]:
    study = room.study
    own = readings_of(database, study.digest, caller.name)
    return {
        "study_digest": study.digest,
        "name": study.name,
        "title": study.title,
        "classes": list(study.label.classes) if room.takes_labels else [],
        "several": study.outcome == "multi-label",
        "cases": len(room.cases),
        "read": sum(reading.case_code in room.cases for reading in own),
        "opened_by": room.opened_by,
        "opened_at": room.opened_at,
    }


def _study(digest: str, body: StudyBody) -> StudySpec:
    try:
        study = parse_study(body.specification)
    except ProtocolError:
        raise RefusedCallError(422, "Not usable: specification.", HOW_TO_POST) from None
    if study.digest != digest:
        raise RefusedCallError(422, "The specification is not that of this digest.", HOW_TO_POST)
    return study


def _whole(digest: str) -> str:
    digits = digest.removeprefix("sha256:")
    if digits == digest or len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise RefusedCallError(404, "That is no study's digest.", "Name the whole digest.")
    return digest


def _found(settings: SiteSettings, code: str) -> tuple[Room, Patient]:
    found = case_of(settings, code)
    if found is None:
        raise RefusedCallError(404, *NO_CASE)
    return found


def _jobs(request: Request) -> ReadinessJobs:
    jobs: ReadinessJobs = request.app.state.jobs
    return jobs
