"""A site with images, an index and people with tokens, and its reading API as one of them may use it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocol.study import StudySpec
from site_node.api.reading_tokens import publish_readers
from site_node.api.roles import Role
from site_node.api.tokens import add_token, open_tokens, reading_token
from site_node.cohort.index import index_folder
from site_node.enrolment import create_site
from site_node.reading.app import make_app
from site_node.reading.readiness_job import Check, ReadinessJobs
from site_node.settings import SitePaths, SiteSettings
from tests.fakes.api_caller import Caller

NOW = 1_900_000_000.0


@dataclass
class ReadingSite:
    """Drives the reading API of one site; `now` is its clock."""

    settings: SiteSettings
    now: float = NOW
    check: Check | None = None

    @classmethod
    def make(cls, folder: Path, images: Path, **more: Any) -> "ReadingSite":
        """Make a site of a folder of images with labels.csv, and index it."""
        settings = create_site(folder / "site", "st-anna", "http://hub.test", [images], images / "labels.csv")
        index_folder([images], settings.paths.index, labels=settings.labels)
        return cls(settings, **more)

    @property
    def paths(self) -> SitePaths:
        return self.settings.paths

    def token(self, role: Role, name: str | None = None) -> str:
        """Give somebody a token and return it."""
        with open_tokens(self.paths) as tokens:
            token = add_token(tokens, name or f"some-{role}", role, 90, self.now)
            publish_readers(self.paths, tokens, self.now)
        return token

    def caller(self, role: Role, name: str | None = None) -> Caller:
        """Return the API as somebody of this role may use it."""
        return self.with_token(reading_token(self.token(role, name)))

    def with_token(self, token: str | None) -> Caller:
        jobs = None
        if self.check is not None:
            jobs = ReadinessJobs(self.paths, self.check, lambda: self.now)
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return Caller(make_app(self.settings, lambda: self.now, jobs), headers)


def told(study: StudySpec) -> dict[str, Any]:
    """Return the body that tells the reading API a study, as the site's API shows it."""
    return {"specification": study.model_dump(mode="json", by_alias=True)}
