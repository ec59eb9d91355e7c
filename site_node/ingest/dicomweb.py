"""A PACS spoken to over DICOMweb: QIDO-RS to ask (by dicomweb-client), WADO-RS to fetch.

Instances are fetched one by one over a connection that stays open, and their bytes are kept as they came:
dicomweb-client hands out parsed data sets, and takes a body that broke off in the middle for a whole one, so it is
read here.

Source: DICOM PS3.18 section 10.4 (Retrieve Transaction), 10.6 (Search Transaction), RFC 2387 (multipart/related).
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset

from site_node.errors import PacsAwayError, PacsError, PacsRefusedError, SettingsError
from site_node.ingest.answers import FoundInstance
from site_node.ingest.multipart import parts_of
from site_node.ingest.pacs import MAX_ANSWERS, RETURN_KEYS, Arrived, Level, Receive
from site_node.ingest.part10 import arrived_from
from site_node.pacs_settings import PacsSettings

PAGE = 500
CONNECT_SECONDS = 15.0
MAX_INSTANCE_BYTES = 4 << 30
MAX_SECRET_BYTES = 64 * 1024
AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
UNAUTHORISED, FORBIDDEN, GONE = 401, 403, (404, 410)
ASK_AGAIN = (408, 425, 429, *range(500, 600))
QUIET = ("dicomweb_client", "urllib3", "requests")  # their lines hold addresses, and these hold UIDs


class DicomwebPacs:
    """One PACS over DICOMweb."""

    def __init__(self, settings: PacsSettings) -> None:
        for name in QUIET:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self._url = str(settings.url).rstrip("/")
        self._session = _session(settings)
        self._timeout = (CONNECT_SECONDS, settings.timeout_seconds)
        self._client = DICOMwebClient(self._url, self._session, permissive_uid=True, timeout=self._timeout)
        self._client.set_http_retry_params(retry=False)  # the run has a back-off of its own

    def echo(self) -> str:
        """Ask for one imaging study."""
        with _told():
            self._client.search_for_studies(limit=1)
        return "QIDO-RS answered"

    def find(self, level: Level, keys: Mapping[str, str]) -> list[Dataset]:
        """Search page by page; a PACS that knows no pages answers with all at once."""
        found: dict[str, Dataset] = {}
        while len(found) < MAX_ANSWERS:
            with _told():
                page = self._search(level, dict(keys), len(found))
            new = {uid: answer for answer in map(_dataset, page) if (uid := _uid_of(level, answer)) not in found}
            found |= new
            if not new or len(page) < PAGE:
                break
        return list(found.values())

    def fetch(
        self, study: str, series: str, instances: Sequence[FoundInstance], *, whole: bool, receive: Receive
    ) -> str | None:
        """Fetch instance by instance, as the PACS holds them."""
        gone = 0
        for instance in instances:
            arrived = self._fetch(study, series, instance)
            if arrived is None:
                gone += 1
            else:
                receive(arrived)
        return "the PACS answers that it does not have them" if gone else None

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _search(self, level: Level, keys: dict[str, str], offset: int) -> list[dict[str, Any]]:
        study, series = keys.pop("StudyInstanceUID", None), keys.pop("SeriesInstanceUID", None)
        asked = {"fields": list(RETURN_KEYS[level]), "limit": PAGE, "offset": offset, "search_filters": keys}
        if level == "STUDY":
            return list(self._client.search_for_studies(**asked))
        if level == "SERIES":
            return list(self._client.search_for_series(study, **asked))
        return list(self._client.search_for_instances(study, series, **asked))

    def _fetch(self, study: str, series: str, instance: FoundInstance) -> Arrived | None:
        """Fetch one instance; None if the PACS no longer has it."""
        path = "/".join(("studies", quote(study), "series", quote(series), "instances", quote(instance.uid)))
        with (
            _told(),
            self._session.get(
                f"{self._url}/{path}", headers={"Accept": AS_STORED}, stream=True, timeout=self._timeout
            ) as response,
        ):
            if response.status_code in GONE:
                return None
            if response.status_code == FORBIDDEN:
                raise PacsError("the PACS does not allow us this imaging study", lasting=True)
            response.raise_for_status()
            body = parts_of(
                response.headers.get("Content-Type", ""), response.iter_content(1 << 20), MAX_INSTANCE_BYTES
            )
            part = next(body, None)
        return None if part is None else arrived_from(part, instance)


class _told:  # noqa: N801 - used as a `with`, like contextlib's own
    """Turn what requests and the client raise into our errors; none of their texts, which hold addresses, is kept."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, requests.HTTPError) and error.response is not None:
            raise _refusal(error.response.status_code) from None
        if isinstance(error, requests.TooManyRedirects):
            raise PacsRefusedError("the PACS sends us elsewhere", "Write where it does into pacs.url.") from None
        if isinstance(error, requests.exceptions.SSLError):
            raise PacsRefusedError("TLS with the PACS fails", "Check pacs.tls.ca and the address.") from None
        if isinstance(error, requests.ConnectionError | requests.Timeout):
            raise PacsAwayError("the PACS does not answer", "Check pacs.url, pacs.proxy and the firewall.") from None
        if isinstance(error, requests.RequestException | ValueError | KeyError):
            raise PacsError("the PACS's answer broke off or is no DICOMweb") from None


def _refusal(status: int) -> PacsError:
    if status == UNAUTHORISED:
        return PacsRefusedError("the PACS refuses our credentials", "Check pacs.token_file or pacs.user_file.")
    if status == FORBIDDEN:
        return PacsRefusedError("the PACS does not allow us this", "Have our account's rights checked there.")
    lasting = status not in ASK_AGAIN
    return PacsError(f"the PACS answered with HTTP status {status}", lasting=lasting)


def _session(settings: PacsSettings) -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # no proxy and no .netrc of the environment: a patient's image takes no detour
    session.max_redirects = 0
    if settings.proxy:
        session.proxies = {"http": settings.proxy, "https": settings.proxy}
    if settings.tls is not None:
        session.verify = str(settings.tls.ca) if settings.tls.ca else True
        if settings.tls.certificate and settings.tls.key:
            session.cert = (str(settings.tls.certificate), str(settings.tls.key))
    if settings.token_file:
        session.headers["Authorization"] = f"Bearer {_secret(settings.token_file)}"
    if settings.user_file:
        user, _, password = _secret(settings.user_file).partition(":")
        session.auth = (user.encode(), password.encode())
    return session


def _secret(path: Path) -> str:
    try:
        data = path.read_bytes()[:MAX_SECRET_BYTES]
        text = data.decode().strip()
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"{path} cannot be read.", "It must be a text file of the ingest process's user.") from None
    if not text or "\n" in text:
        raise SettingsError(f"{path} must hold one line.", "A token, or user:password.")
    return text


def _dataset(answer: dict[str, Any]) -> Dataset:
    try:
        return Dataset.from_json(answer)
    except Exception as error:  # pydicom raises whatever an odd answer leads it to
        raise PacsError("the PACS's answer to a query cannot be read", lasting=True) from error


def _uid_of(level: Level, answer: Dataset) -> str:
    return str(answer.get(RETURN_KEYS[level][0], ""))
