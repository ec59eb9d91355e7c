"""The listener's process: where it listens, in which folders it writes, and how it begins and ends.

Source: DICOM PS3.4 Annex A (Verification), B (Storage) and J (Storage Commitment).
"""

import fcntl
import logging
import os
import shutil
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import structlog
from pydicom.dataset import Dataset
from pynetdicom import AE, _config, build_role, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance, Verification

from site_node.errors import ListenerError
from site_node.ingest.callers import MAX_PDU_BYTES, ListenerServer, make_server
from site_node.ingest.commitment import SUCCESS, Commitments, Transaction
from site_node.ingest.counts import Counts
from site_node.ingest.intake import Room
from site_node.ingest.listener_paths import ListenerPaths
from site_node.ingest.quarantine import Quarantine
from site_node.ingest.received_images import ReceivedImages
from site_node.ingest.reception import Reception
from site_node.ingest.tls import client_context, server_context
from site_node.listener_settings import ListenerSettings

MEGABYTE = 1 << 20
HANDSHAKE_SECONDS = 15.0
ANSWER_SECONDS = 30.0
FAREWELL_SECONDS = 10.0
ROUND_SECONDS = 1.0

log = structlog.get_logger()


class Listener:
    """A listener that is bound and serving. Use `listening`."""

    def __init__(self, settings: ListenerSettings, paths: ListenerPaths, room: Room | None = None) -> None:
        self.settings = settings
        self.counts = Counts(paths.counts)
        images = ReceivedImages(paths.images)
        self.commitments = Commitments(paths.commitments, images, self._carry, self.counts.add)
        room = room or _room(settings, paths)
        quarantine = Quarantine(paths.quarantine)
        self.reception = Reception(settings, room, images, quarantine, self.counts, self.commitments)
        self._application = self._entity()
        self._tls = client_context(settings.tls) if settings.tls else None
        self.server = self._bind()

    @property
    def port(self) -> int:
        """Return the port that is listened on; of interest where settings say 0."""
        return int(self.server.server_address[1])

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop`; then let running objects end for a while, and hang up."""
        serving = threading.Thread(target=self.server.serve_forever, name="listener", daemon=True)
        serving.start()
        log.info("listening", port=self.port, callers=len(self.settings.callers), tls=self.settings.tls is not None)
        if not self.settings.callers:
            log.warning("nobody_may_call", remedy="name callers in the block listener of site.yaml")
        while not stop.wait(ROUND_SECONDS):
            self._go_round()
        self.server.shutdown()
        self._wait_for_the_last()
        self._application.shutdown()
        self._go_round()

    def _go_round(self) -> None:
        try:
            self.commitments.carry_due()
            self.counts.save()
        except OSError as error:  # a full disk; the next round tries again
            log.error("round_not_finished", error=type(error).__name__)

    def _wait_for_the_last(self) -> None:
        waited = threading.Event()
        for _ in range(int(FAREWELL_SECONDS * 10)):
            if self.server.connections == 0:
                return
            waited.wait(0.1)

    def _entity(self) -> AE:
        entity = AE(self.settings.ae_title)
        entity.maximum_associations = self.settings.max_associations
        entity.maximum_pdu_size = MAX_PDU_BYTES
        entity.require_called_aet = True
        entity.acse_timeout = min(HANDSHAKE_SECONDS, self.settings.idle_seconds)
        entity.dimse_timeout = ANSWER_SECONDS
        entity.network_timeout, entity.connection_timeout = self.settings.idle_seconds, HANDSHAKE_SECONDS
        entity.add_supported_context(Verification)
        entity.add_supported_context(StorageCommitmentPushModel)
        return entity

    def _bind(self) -> ListenerServer:
        handlers = [
            (evt.EVT_C_ECHO, lambda _: SUCCESS),
            (evt.EVT_C_STORE, self.reception.on_store),
            (evt.EVT_N_ACTION, self.reception.on_action),
        ]
        tls = server_context(self.settings.tls) if self.settings.tls else None
        try:
            return make_server(
                self._application, self.reception, tls,
                contexts=self._application.supported_contexts, evt_handlers=handlers,
            )  # fmt: skip
        except OSError as error:
            raise ListenerError(
                f"Nothing can listen on {self.settings.address} port {self.settings.port}: {error.strerror}.",
                "Correct address and port in the block listener of site.yaml.",
            ) from None

    def _carry(self, transaction: Transaction, event_type: int, information: Dataset) -> bool:
        """Carry a result of storage commitment to the caller's own port."""
        caller = self.settings.caller(transaction.caller, transaction.address)
        if caller is None or caller.commitment_port is None:
            return False
        entity = AE(self.settings.ae_title)
        entity.acse_timeout, entity.dimse_timeout, entity.connection_timeout = HANDSHAKE_SECONDS, ANSWER_SECONDS, 15
        entity.add_requested_context(StorageCommitmentPushModel)
        association = entity.associate(
            transaction.address, caller.commitment_port, ae_title=caller.ae_title,
            ext_neg=[build_role(StorageCommitmentPushModel, scp_role=True)],
            tls_args=(self._tls, transaction.address) if caller.commitment_tls and self._tls else None,
        )  # fmt: skip
        if not association.is_established:
            return False
        status: Any = Dataset()
        with suppress(RuntimeError, ValueError):
            status, _ = association.send_n_event_report(
                information, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
        if association.is_established:
            association.release()
        return bool(status.get("Status") == SUCCESS)


def _room(settings: ListenerSettings, paths: ListenerPaths) -> Room:
    """Return the bounds of settings; the disk that has less left counts, should the folders lie on two."""
    return Room(
        paths.incoming,
        settings.min_free_mb * MEGABYTE,
        settings.max_object_mb * MEGABYTE,
        lambda incoming: min(shutil.disk_usage(folder).free for folder in (incoming, paths.images)),
    )


@contextmanager
def listening(settings: ListenerSettings, paths: ListenerPaths, room: Room | None = None) -> Iterator[Listener]:
    """Make the folders, hold the site's only listener, and keep the libraries quiet, for the time of the block.

    Raises: ListenerError if another listener runs or the address is taken; SettingsError for a bad certificate.
    """
    paths.make()
    with _alone(paths), _quiet_libraries():
        for left in paths.incoming.glob("*.part"):
            left.unlink(missing_ok=True)  # of a listener that was killed: success was never answered for it
        listener = Listener(settings, paths, room)
        try:
            yield listener
        finally:
            listener.server.server_close()


@contextmanager
def _alone(paths: ListenerPaths) -> Iterator[None]:
    with os.fdopen(os.open(paths.lock, os.O_RDWR | os.O_CREAT, 0o600), "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ListenerError("Another listener of this site runs.", "Stop it first, or let it serve.") from None
        yield


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep what the libraries would say off the log, because it quotes what came; and take every SOP class.

    Both are settings of the whole process, which is why they stand here and not in a thread.
    """
    loggers = [logging.getLogger(name) for name in ("pynetdicom", "pydicom")]
    levels = [logger.level for logger in loggers]
    before = (_config.UNRESTRICTED_STORAGE_SERVICE, _config.LOG_HANDLER_LEVEL, threading.excepthook)
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    _config.UNRESTRICTED_STORAGE_SERVICE, _config.LOG_HANDLER_LEVEL = True, "none"
    threading.excepthook = lambda told: log.error("thread_ended", error=told.exc_type.__name__)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        _config.UNRESTRICTED_STORAGE_SERVICE, _config.LOG_HANDLER_LEVEL, threading.excepthook = before
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
