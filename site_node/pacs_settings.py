"""The block `pacs` of site.yaml: where the hospital's PACS is, how it is spoken to, and how hard it may be asked.

    pacs:
      host: pacs.hospital.example       # DICOM: C-FIND, then C-GET or C-MOVE
      port: 11112
      ae_title: PACS                    # the PACS's own
      our_ae_title: WARDROUND           # ours, as the PACS knows us
      studies_per_minute: 20
      hours: 19-6

Secrets never stand in site.yaml: `token_file` and `user_file` name files that only the ingest process may read.
"""

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

AeTitle = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[!-\[\]-~]([ -\[\]-~]*[!-\[\]-~])?$")]
HTTP = r"^https?://[^\s@?#]+$"  # no user and password in an address


class TlsSettings(BaseModel):
    """TLS towards the PACS: whom we trust, and who we are if the PACS asks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ca: Path | None = Field(default=None, description="bundle of the authorities to trust; without it the system's")
    certificate: Path | None = Field(default=None, description="our certificate, if the PACS asks for one")
    key: Path | None = Field(default=None, description="the certificate's private key")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: name both or neither")
        return self


class PacsSettings(BaseModel):
    """How to reach one PACS, over DICOM (`host`) or over DICOMweb (`url`), and at which pace."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str | None = Field(default=None, min_length=1, max_length=253, description="over DICOM: the PACS's address")
    port: int = Field(default=104, ge=1, le=65535)
    ae_title: AeTitle = Field(default="PACS", description="the PACS's AE title")
    our_ae_title: AeTitle = Field(default="WARDROUND", description="our AE title, as the PACS knows it")
    move_to: AeTitle | None = Field(
        default=None, description="AE title of the site's listener, for a PACS that offers C-MOVE and no C-GET"
    )
    tls: TlsSettings | None = Field(default=None, description="over DICOM: speak TLS; over https: whom to trust")

    url: str | None = Field(default=None, max_length=500, pattern=HTTP, description="over DICOMweb: the service's root")
    token_file: Path | None = Field(default=None, description="file with a bearer token")
    user_file: Path | None = Field(default=None, description="file with user:password")
    proxy: str | None = Field(default=None, pattern=HTTP, description="none unless it is named here")

    timeout_seconds: float = Field(default=60, ge=1, le=3600, description="longest silence of the PACS in an answer")
    attempts: int = Field(default=4, ge=1, le=20, description="how often one imaging study is tried")
    patience_minutes: float = Field(default=30, ge=0, le=24 * 60, description="wait so long for a PACS that is away")
    studies_per_minute: float | None = Field(default=None, gt=0, description="most imaging studies begun in a minute")
    instances_per_minute: float | None = Field(
        default=None, ge=12, description="most instances in a minute; slower than 12 the PACS would hang up in between"
    )
    hours: str | None = Field(
        default=None,
        pattern=r"^([01]?\d|2[0-3])-([01]?\d|2[0-4])$",
        description="hours of the day, local time, in which a study may be begun: 19-6",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.host is None) == (self.url is None):
            raise ValueError("name either host (DICOM) or url (DICOMweb)")
        if self.url is None and (self.token_file or self.user_file or self.proxy):
            raise ValueError("token_file, user_file and proxy belong to url (DICOMweb)")
        if self.token_file and self.user_file:
            raise ValueError("name either token_file or user_file")
        if self.hours and len(set(self.hours.split("-"))) == 1:
            raise ValueError("hours begin and end at the same hour: leave the line out for the whole day")
        return self

    def beside(self, root: Path) -> "PacsSettings":
        """Return the same with every file's path made absolute, relative ones beside site.yaml."""
        tls = self.tls and self.tls.model_copy(update=_absolute(root, self.tls, "ca", "certificate", "key"))
        return self.model_copy(update=_absolute(root, self, "token_file", "user_file") | {"tls": tls})


def _absolute(root: Path, model: BaseModel, *names: str) -> dict[str, Path]:
    return {name: (root / value).resolve() for name in names if (value := getattr(model, name)) is not None}
