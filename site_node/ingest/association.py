"""One association with the PACS: opened or refused with a reason a person understands, released in any case.

What is proposed for C-GET: each SOP class that is to come, apart for uncompressed and for every compressed transfer
syntax, so that a PACS can send each instance as it holds it and need not convert it.
"""

import logging
import ssl
from collections.abc import Collection, Sequence
from typing import Any, Self

from pydicom.uid import (
    HEVCMP51,
    HTJ2K,
    JPEG2000,
    MPEG2MPHL,
    MPEG2MPML,
    MPEG4HP41,
    MPEG4HP41BD,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pynetdicom import AE, StoragePresentationContexts, build_context, build_role, evt

from site_node.errors import PacsAwayError, PacsError, PacsRefusedError
from site_node.pacs_settings import PacsSettings

CONNECT_SECONDS = 15.0
MOST_CONTEXTS = 128  # PS3.8 9.3.2.2: odd numbers of one byte
UNCOMPRESSED = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
ALONE = (
    *(JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless),
    *(JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K, RLELossless),
    *(DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian),
    *(MPEG2MPML, MPEG2MPHL, MPEG4HP41, MPEG4HP41BD, HEVCMP51),
)
CALLING_UNKNOWN, CALLED_UNKNOWN = (1, 3), (1, 7)  # source and diagnostic, PS3.8 table 9-21
TRANSIENT = 2


def storage_contexts(classes: Collection[str | None]) -> tuple[list[tuple[str, list[str] | None]], list[Any]]:
    """Return what to propose so that instances of these SOP classes may be sent to us; None stands for any."""
    known = sorted({name for name in classes if name})
    common = [str(context.abstract_syntax) for context in StoragePresentationContexts]
    if None in classes or len(known) * (len(ALONE) + 1) >= MOST_CONTEXTS:
        every = (known + [name for name in common if name not in known])[: MOST_CONTEXTS - 1]
        contexts = [(name, [*UNCOMPRESSED, *ALONE]) for name in every]
    else:
        contexts = [(name, list(syntaxes)) for name in known for syntaxes in (UNCOMPRESSED, *([one] for one in ALONE))]
    names = dict.fromkeys(name for name, _ in contexts)
    return [*contexts], [build_role(name, scp_role=True) for name in names]


class NotOfferedError(PacsRefusedError):
    """The PACS takes up none of the services that were proposed."""

    def __init__(self) -> None:
        super().__init__("the PACS does not offer us this service", "Allow it for our AE title there.")


class Line:
    """An association that is established. Use it in a `with`."""

    def __init__(self, association: Any) -> None:
        self.association = association

    @classmethod
    def open(
        cls,
        settings: PacsSettings,
        tls: ssl.SSLContext | None,
        contexts: Sequence[tuple[str, list[str] | None]],
        roles: Sequence[Any] = (),
        handlers: Sequence[Any] = (),
    ) -> Self:
        """Associate with the PACS.

        Raises: PacsAwayError if it does not answer or has no room now; PacsRefusedError if it does not want us.
        """
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)  # its lines quote what is asked and answered
        connected: list[bool] = []
        entity = AE(settings.our_ae_title)
        entity.connection_timeout = CONNECT_SECONDS
        entity.acse_timeout = entity.dimse_timeout = settings.timeout_seconds
        entity.network_timeout = 2 * settings.timeout_seconds
        host = str(settings.host)
        try:
            association = entity.associate(
                host,
                settings.port,
                [build_context(name, syntaxes) for name, syntaxes in contexts],
                ae_title=settings.ae_title,
                ext_neg=list(roles),
                tls_args=(tls, host) if tls else None,
                evt_handlers=[(evt.EVT_CONN_OPEN, lambda _: connected.append(True)), *handlers],
            )
        except OSError:
            raise PacsAwayError("the PACS's address cannot be resolved", "Check pacs.host.") from None
        line = cls(association)
        if not association.is_established:
            raise line._why_not(bool(connected), tls is not None)
        return line

    def accepts(self, sop_class: str) -> bool:
        """Tell whether the PACS took up this service."""
        return any(context.abstract_syntax == sop_class for context in self.association.accepted_contexts)

    def need(self, sop_class: str) -> None:
        """Demand a service.

        Raises: NotOfferedError if the PACS does not offer it to us.
        """
        if not self.accepts(sop_class):
            self.close()
            raise NotOfferedError

    def close(self) -> None:
        """Release the association, or abort it if the PACS is gone."""
        if self.association.is_established:
            self.association.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None and self.association.is_established:
            self.association.abort()
        self.close()

    def _why_not(self, connected: bool, tls: bool) -> PacsError:
        if not connected:
            doubt = ", or TLS with it fails: see pacs.tls" if tls else ""
            return PacsAwayError(f"the PACS does not answer{doubt}", "Check pacs.host, pacs.port and the firewall.")
        if self.association.is_rejected:
            return self._rejection()
        if self.association.rejected_contexts:
            return NotOfferedError()
        return PacsAwayError("the PACS hung up", "Look into its log; perhaps it wants TLS, or does not know us.")

    def _rejection(self) -> PacsError:
        answer = self.association.acceptor.primitive
        if answer.result == TRANSIENT:
            return PacsAwayError("the PACS takes no association now")
        why = (answer.result_source, answer.diagnostic)
        if why == CALLED_UNKNOWN:
            return PacsRefusedError("the PACS has another AE title", "Correct pacs.ae_title.")
        if why == CALLING_UNKNOWN:
            return PacsRefusedError(
                "the PACS does not know our AE title", "Have pacs.our_ae_title entered in the PACS, with this address."
            )
        return PacsRefusedError("the PACS rejects the association", "Look into its log for the reason.")
