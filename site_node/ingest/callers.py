"""What the listener changes in pynetdicom: bounds on all that a caller may send, and who is let in.

pynetdicom reads a message of any length into memory and lets everybody in where no title is listed. Here a caller is
checked by title and address before anything is negotiated; a PDU, a command, a dataset other than an object's, and the
number of waiting messages are bounded; an object goes straight to the disk (`Intake`); a TLS handshake is made in the
caller's own thread and within the time for silence. The bounds hold before a byte too many is in memory.

Only this file overrides what pynetdicom keeps to itself, which is why pyproject.toml allows one minor version of it.
"""

import contextlib
import functools
import socket
import ssl
import threading
from collections import Counter
from typing import Any, Protocol

from pynetdicom.acse import ACSE
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE, N_ACTION
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from site_node.ingest.intake import Intake
from site_node.ingest.object_check import Announced
from site_node.listener_settings import ListenerSettings

MAX_PDU_BYTES = 1 << 17  # what we tell callers; they cut larger messages into PDUs of this size
MOST_PDU_BYTES = 1 << 20  # a request for an association is longer the more it proposes
MAX_COMMAND_BYTES = 1 << 16
MAX_DATASET_BYTES = 16 << 20  # of a message that is no object: a storage commitment of 100,000 instances
MOST_WAITING = 4
MAX_UID_LENGTH = 64  # characters, PS3.5 section 9.1
RECEIVE_BYTES = 1 << 16
NOT_RECOGNISED = (0x01, 0x01, 0x03)  # rejected for good, by the service user: calling AE title not recognised
CANNOT_UNDERSTAND = 0xC000


class Desk(Protocol):
    """Who is asked about a caller and an object."""

    settings: ListenerSettings

    def admitted(self, association: Association) -> None:
        """Hear of an association that was let in."""

    def turned_away(self, title: str, address: str) -> None:
        """Hear of one that was not."""

    def ended(self, association: Association) -> None:
        """Hear that an admitted association has ended, however."""

    def begin(self, announced: Announced | None) -> Intake:
        """Return where an object's bytes go; None if it was not said what it is."""

    def unannounced(self, association: Association, intake: Intake | None) -> None:
        """Hear of an object that came without saying what it is."""

    def action_answered(self, association: Association, context_id: int) -> None:
        """Hear that a request for storage commitment has its answer."""


class GuardedAcse(ACSE):  # type: ignore[misc]  # the library is not followed by mypy
    """Refuses whoever is not listed before anything is negotiated."""

    desk: Desk

    def _negotiate_as_acceptor(self) -> None:
        title = str(self.requestor.primitive.calling_ae_title).strip()
        address = self.requestor.address_info.address
        if self.desk.settings.caller(title, address) is None:
            self.send_reject(*NOT_RECOGNISED)
            self.desk.turned_away(title, address)
            self.assoc.kill()
            return
        super()._negotiate_as_acceptor()
        if self.assoc.is_established:
            self.desk.admitted(self.assoc)


class BoundedDimse(DIMSEServiceProvider):  # type: ignore[misc]
    """Puts an object's bytes where the desk says, and ends the association of a caller that exceeds a bound."""

    desk: Desk

    def __init__(self, assoc: Association) -> None:
        super().__init__(assoc)
        self.tally: Counter[str] = Counter()
        self.owed: list[Any] = []  # results of storage commitment to be told here
        self._over = False

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take a PDU's pieces one by one.

        Guarantee: no exception; what a library raises over a malformed message ends the association, and is not shown.
        """
        try:
            for context_id, data in primitive.presentation_data_value_list:
                if not self._over:
                    self._receive(context_id, data)
        except Exception:
            self._end()

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """Send a message; tell the desk when a storage commitment has been answered."""
        super().send_msg(primitive, context_id)
        if isinstance(primitive, N_ACTION) and primitive.MessageIDBeingRespondedTo is not None:
            self.desk.action_answered(self.assoc, context_id)

    def drop(self) -> None:
        """Remove the files of objects that were not served when the association ended."""
        self._over = True
        waiting = [message for _, message in list(self.msg_queue.queue) if message is not None]
        files = [getattr(message, "_dataset_file", None) for message in waiting]
        for file in (*files, getattr(self.message, "_data_set_file", None)):
            if isinstance(file, Intake):
                file.close()

    def _receive(self, context_id: int, data: bytes) -> None:
        message: DIMSEMessage = self.message or DIMSEMessage()
        self.message: DIMSEMessage | None = message
        if self._exceeds(message, data):
            self._end()
            return
        if not data[0] & 1 and isinstance(message, C_STORE_RQ) and message._data_set_file is None:
            message._data_set_file = self.desk.begin(self._announced(message))
        one = P_DATA()
        one.presentation_data_value_list = [[context_id, data]]
        intake = message._data_set_file
        super().receive_primitive(one)
        finished = self.message is None
        if finished and isinstance(message, C_STORE_RQ) and not _is_announced(message):
            self._answer_unannounced(message, intake, context_id)

    def _exceeds(self, message: DIMSEMessage, data: bytes) -> bool:
        if data[0] & 1:
            return bool(message.encoded_command_set.tell() + len(data) > MAX_COMMAND_BYTES)
        if isinstance(message, C_STORE_RQ):
            return bool(self.msg_queue.qsize() >= MOST_WAITING)
        return message.data_set is None or message.data_set.tell() + len(data) > MAX_DATASET_BYTES

    def _announced(self, message: C_STORE_RQ) -> Announced | None:
        syntax = self.assoc._accepted_cx[message.context_id].transfer_syntax[0]
        command = message.command_set
        for keyword in ("AffectedSOPClassUID", "AffectedSOPInstanceUID"):
            value = command.get(keyword)
            if not isinstance(value, str) or not 0 < len(value) <= MAX_UID_LENGTH:
                command.pop(keyword, None)  # the library would end the association over it; without it, it passes over
        if not _is_announced(message):
            return None
        return Announced(str(command.AffectedSOPClassUID), str(command.AffectedSOPInstanceUID), str(syntax))

    def _answer_unannounced(self, message: Any, intake: Intake | None, context_id: int) -> None:
        """Answer an object that the library passes over in silence, for which its sender would wait."""
        self.desk.unannounced(self.assoc, intake)
        answer = C_STORE()
        answer.MessageIDBeingRespondedTo = int(message.command_set.get("MessageID") or 0)
        answer.Status = CANNOT_UNDERSTAND
        self.send_msg(answer, context_id)

    def _end(self) -> None:
        self._over = True
        self.dul.event_queue.put("Evt19")  # as for a PDU that is none: the association is aborted


class CallerHandler(RequestHandler):  # type: ignore[misc]
    """One connection, from its first byte until its association has ended."""

    server: "ListenerServer"

    def handle(self) -> None:
        """Serve the connection, and clear up after it."""
        association = self._create_association()
        association.start()
        association.join()
        association.dimse.drop()
        self.server.desk.ended(association)

    def _create_association(self) -> Association:
        association = super()._create_association()
        association.acse, association.dimse = GuardedAcse(association), BoundedDimse(association)
        association.acse.desk = association.dimse.desk = self.server.desk
        connection = association.dul.socket
        connection.recv = functools.partial(_receive_exactly, connection)
        return association


class ListenerServer(ThreadedAssociationServer):  # type: ignore[misc]
    """The listening socket. `tls` is kept from pynetdicom, which would make handshakes in the accepting thread."""

    daemon_threads = True
    request_queue_size = 32
    desk: Desk
    tls: ssl.SSLContext | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.connections = 0
        self._counting = threading.Lock()
        super().__init__(*args, **kwargs)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection on which neither a read nor a write may hang longer than a caller may be silent."""
        connection, address = self.socket.accept()
        connection.settimeout(self.desk.settings.idle_seconds)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Hang up at once on an address from which nobody may call, and on too many connections."""
        known = self.desk.settings.anybody_calls_from(client_address[0])
        if not known:
            self.desk.turned_away("", client_address[0])
        return known and self.connections < 2 * self.desk.settings.max_associations

    def process_request(self, request: Any, client_address: Any) -> None:
        """Count the connection, and serve it in a thread of its own."""
        self._count(1)
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._count(-1)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Make the TLS handshake, if there is one, then serve the association to its end."""
        try:
            if self.tls is not None:
                request = self.tls.wrap_socket(request, server_side=True)
            super().process_request_thread(request, client_address)
        except OSError:  # no handshake: no certificate that we trust, or no TLS at all
            self.desk.turned_away("", client_address[0])
            with contextlib.suppress(OSError):
                self.shutdown_request(request)
        finally:
            self._count(-1)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: the library would print a traceback, which may quote what came."""

    def _count(self, change: int) -> None:
        with self._counting:
            self.connections += change


def make_server(
    application: ApplicationEntity, desk: Desk, tls: ssl.SSLContext | None, **kwargs: Any
) -> ListenerServer:
    """Bind the listening socket.

    Raises: OSError if the address or port cannot be had.
    """
    settings = desk.settings
    where = (str(settings.address), settings.port)
    server: ListenerServer = application.make_server(
        where, ae_title=settings.ae_title, server_class=ListenerServer, request_handler=CallerHandler, **kwargs
    )
    server.desk, server.tls = desk, tls
    application._servers.append(server)
    return server


def _receive_exactly(connection: Any, wanted: int) -> bytearray:
    """Read so many bytes; fewer if the caller went away, none if it announces more than is accepted."""
    found = bytearray()
    while wanted <= MOST_PDU_BYTES and len(found) < wanted:
        piece = connection.socket.recv(min(RECEIVE_BYTES, wanted - len(found)))
        if not piece:
            break
        found += piece
    return found


def _is_announced(message: Any) -> bool:
    needed = ("MessageID", "AffectedSOPClassUID", "AffectedSOPInstanceUID", "Priority")
    return all(message.command_set.get(keyword) not in (None, "") for keyword in needed)
