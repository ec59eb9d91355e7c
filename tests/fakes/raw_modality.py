"""A modality that sends anything: any bytes under any name, in any transfer syntax, over one association."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, build_context, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

DX = "1.2.840.10008.5.1.4.1.1.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"
NO_ANSWER = -1


@dataclass
class RawModality:
    """One association that is open; `reports` are results of storage commitment told on it."""

    association: Any
    reports: list[tuple[int, Dataset]]

    def send(self, data: bytes, instance_uid: str | None, class_uid: str | None = DX, context: int = 1) -> int:
        """Send bytes as an object and return the status, or NO_ANSWER if the association ended."""
        request = C_STORE()
        request.MessageID, request.Priority = 7, 2
        request.AffectedSOPClassUID = class_uid
        request._affected_sop_instance_uid = UID(instance_uid) if instance_uid else None  # valid or not
        request.DataSet = BytesIO(data) if data else None
        self.association._reactor_checkpoint.clear()
        try:
            self.association.dimse.send_msg(request, context)
            _, answer = self.association.dimse.get_msg(block=True)
        finally:
            self.association._reactor_checkpoint.set()
        return NO_ANSWER if answer is None else int(answer.Status)

    def send_file(self, path: Path) -> int:
        """Send a file's data set as its bytes lie there."""
        meta = pydicom.filereader.read_file_meta_info(path)
        accepted = {(c.abstract_syntax, c.transfer_syntax[0]): c.context_id for c in self.association.accepted_contexts}
        context = accepted[(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)]
        uids = str(meta.MediaStorageSOPInstanceUID), str(meta.MediaStorageSOPClassUID)
        return self.send(data_of(path), *uids, context=context)

    def ask_commitment(self, transaction: str, references: Sequence[tuple[str, str]], action: int = 1) -> int:
        """Ask for storage commitment of (SOP class, SOP instance) and return the status of the request."""
        information = Dataset()
        information.TransactionUID = transaction
        information.ReferencedSOPSequence = [_item(*reference) for reference in references]
        status, _ = self.association.send_n_action(
            information, action, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        return int(status.get("Status", NO_ANSWER))


@contextmanager
def raw_modality(
    port: int, contexts: Sequence[tuple[str, str]] = ((DX, EXPLICIT),), ae_title: str = "CT1", **how: Any
) -> Iterator[RawModality]:
    """Open an association that proposes each (SOP class, transfer syntax), and storage commitment."""
    entity = AE(ae_title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    reports: list[tuple[int, Dataset]] = []

    def hear(event: Any) -> tuple[int, None]:
        reports.append((event.request.EventTypeID, event.event_information))
        return 0, None

    proposed = [build_context(sop_class, syntax) for sop_class, syntax in contexts]
    association = entity.associate(
        "127.0.0.1", port, contexts=[*proposed, build_context(StorageCommitmentPushModel)], ae_title="WARDROUND",
        evt_handlers=[(evt.EVT_N_EVENT_REPORT, hear)], **how,
    )  # fmt: skip
    try:
        yield RawModality(association, reports)
    finally:
        if association.is_established:
            association.release()


def data_of(path: Path) -> bytes:
    """Return a DICOM file's bytes behind its file meta information."""
    content = path.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def _item(class_uid: str, instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = class_uid, instance_uid
    return item
