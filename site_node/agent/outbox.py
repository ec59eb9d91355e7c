"""What the gate put into the outbox, carried to the hub: messages whole, payloads resumed where they broke off."""

import os
from dataclasses import dataclass
from pathlib import Path

from protocol.digest import digest_of_bytes
from protocol.errors import ProtocolError
from protocol.messages import Receipt, UpdateNotice, expect, parse_message
from protocol.signing import PublicKey, open_envelope, read_unverified
from site_node.agent.hub_client import FilePart, HubClient, UploadState
from site_node.durable import finished_files, write_durably
from site_node.errors import HubRefusedError, HubUnreachableError
from site_node.settings import SitePaths

PART_BYTES = 64 << 20
"""Sent in one request: what breaks off goes on where the hub stands, and a large update shows progress."""
PROBE_BYTES = 256 << 10
"""Sent first where a transfer goes on: a hub that is not done with the broken request refuses it, whole."""
CONFLICT = 409
ENVELOPE_SUFFIX = ".dsse.json"


@dataclass(frozen=True)
class Outbox:
    """The site's outbox and the way out of it."""

    paths: SitePaths
    hub: HubClient
    hub_key: PublicKey

    def waiting(self) -> list[Path]:
        """Return the envelopes that have no receipt yet, oldest first."""
        found = finished_files(self.paths.outbox, ENVELOPE_SUFFIX)
        return [path for path in found if not (self.paths.receipts / path.name).exists()]

    def deliver(self, path: Path) -> bool:
        """Bring one message, with its payload if it has one, to the hub and keep the receipt.

        Returns False if the gate took it away in the meantime.
        Raises: HubUnreachableError if the hub is away; HubRefusedError if it will not have it.
        """
        try:
            return self._deliver(path, path.read_bytes())
        except FileNotFoundError:
            return False

    def _deliver(self, path: Path, envelope: bytes) -> bool:
        try:
            message = parse_message(read_unverified(envelope))
        except ProtocolError as error:
            raise HubRefusedError(
                "A file of the outbox is no message.", "Remove it; the gate writes it again."
            ) from error
        is_update = isinstance(message, UpdateNotice)
        receipt = self._upload(path, envelope) if is_update else self.hub.post_message(envelope)
        self._check(receipt, envelope)
        write_durably(self.paths.receipts / path.name, receipt)
        return True

    def _upload(self, path: Path, notice: bytes) -> bytes:
        payload = path.with_name(path.name.removesuffix(ENVELOPE_SUFFIX) + ".payload")
        state = self.hub.open_upload(notice)
        with payload.open("rb", buffering=0) as file:
            size, most = os.fstat(file.fileno()).st_size, PROBE_BYTES if state.offset else PART_BYTES
            while state.receipt is None:
                part = FilePart(file, state.offset, min(most, size - state.offset), payload)
                if part.count <= 0:
                    raise HubUnreachableError("The hub holds a whole upload and gave no receipt.", "It is asked again.")
                state, most = self._send(state, part), PART_BYTES
        return state.receipt

    def _send(self, state: UploadState, part: FilePart) -> UploadState:
        try:
            return self.hub.send_part(state.upload_id, part)
        except HubRefusedError as error:
            if error.status != CONFLICT:
                raise
        known = self.hub.upload_state(state.upload_id)
        if known.offset == state.offset and known.receipt is None:
            raise HubUnreachableError("The hub does not take the next piece of an upload.", "It is tried again.")
        return known

    def _check(self, receipt: bytes, envelope: bytes) -> None:
        try:
            found = expect(open_envelope(receipt, self.hub_key), Receipt)
        except ProtocolError as error:
            raise HubUnreachableError(
                "A receipt is not signed with the hub's key of the enrolment.",
                "Is somebody between us and the hub? Ask its operator for the key's fingerprint.",
            ) from error
        if found.message_digest != digest_of_bytes(read_unverified(envelope)):
            raise HubUnreachableError("A receipt is of another message.", "The message is sent again.")
