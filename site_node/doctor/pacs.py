"""The hospital's PACS: does it answer, and does it know us? C-ECHO over DICOM, a bounded question over DICOMweb."""

from contextlib import closing

from site_node.dicom.quiet import quiet
from site_node.doctor.finding import Finding, fine, problem
from site_node.errors import PacsAwayError, PacsError, PacsRefusedError, SettingsError, SiteError
from site_node.ingest.pacs import open_pacs
from site_node.settings import SiteSettings

CHECK = "pacs"
MOST_SECONDS = 15.0


def examine(settings: SiteSettings) -> list[Finding]:
    """Ask the PACS, if site.yaml names one."""
    if settings.pacs is None:
        return [fine(CHECK, "No PACS is named in site.yaml.")]
    brisk = settings.pacs.model_copy(update={"timeout_seconds": min(settings.pacs.timeout_seconds, MOST_SECONDS)})
    try:
        with quiet(), closing(open_pacs(brisk)) as pacs:
            return [fine(CHECK, f"{pacs.echo()}.")]
    except (PacsError, SettingsError) as error:
        return [verdict_on_failure(error)]


def verdict_on_failure(error: SiteError) -> Finding:
    """Say what kept the PACS from answering. Pure."""
    says = f"The PACS: {error.message.rstrip('.')}."
    if isinstance(error, PacsRefusedError):
        remedy = "Ask its administrator to enter our AE title and address, or the user; compare `pacs` in site.yaml."
    elif isinstance(error, PacsAwayError):
        remedy = "Check host and port in `pacs` of site.yaml, the firewall, and whether the PACS runs."
    else:
        remedy = "Ask the administrator of the PACS."
    return problem(CHECK, says, error.remedy or remedy)
