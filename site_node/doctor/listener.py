"""The listener as the ingest process would start it: address and port, certificates, room, and whether it runs.

Nobody is called and nothing is written; the port is bound for a moment, where no listener of this site holds it.
"""

import errno
import os
import shutil
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from site_node.doctor.finding import Finding, fine, problem, warning
from site_node.doctor.registration import is_running
from site_node.errors import SettingsError
from site_node.ingest.listener_paths import ListenerPaths
from site_node.ingest.tls import server_context
from site_node.listener_settings import ListenerSettings, ListenerTls
from site_node.settings import SiteSettings

CHECK, CERTIFICATES, ROOM = "listener", "listener tls", "listener room"
GIB, MEGABYTE = 1 << 30, 1 << 20
SOON = timedelta(days=30)
START = "Start it as the ingest process's user: `wardround site listen DIR`, or its unit."
RENEW = "Have a new certificate signed, put it where listener.tls of site.yaml says, and start the listener again."
RENEW_AUTHORITY = "Ask the authority of the modalities' certificates for its new one, and put it into listener.tls.ca."
MAKE_ROOM = "Make room, or lower min_free_mb in the block listener of site.yaml."
BIND_REMEDIES = {
    errno.EADDRINUSE: "Another program listens there: end it, or name another port and tell the modalities.",
    errno.EADDRNOTAVAIL: "This machine has no such address: see `ip address`, and correct it in site.yaml.",
    errno.EACCES: "Ports below 1024 are for root: name a higher one and tell the modalities.",
}


@dataclass(frozen=True)
class Place:
    """What was seen: whether a listener of this site runs, and why its port cannot be had (None: it can)."""

    is_running: bool
    bind_error: int | None


def examine(settings: SiteSettings) -> list[Finding]:
    """Look at the listener, if site.yaml has one."""
    listener = settings.listener
    if listener is None:
        return [fine(CHECK, "No listener is set up in site.yaml.")]
    paths = ListenerPaths.of(settings.paths)
    findings = verdict_on_place(listener, Place(is_running(paths.lock), _bind_error(listener)))
    findings += _certificates(listener.tls) if listener.tls else []
    folders = {_there(folder) for folder in (paths.images, paths.own)}
    free = min(shutil.disk_usage(folder).free for folder in folders)
    may_write = all(os.access(folder, os.W_OK | os.X_OK) for folder in folders)
    return [*findings, verdict_on_room(free, listener.min_free_mb, may_write=may_write)]


def verdict_on_place(listener: ListenerSettings, place: Place) -> list[Finding]:
    """Say whether it runs where site.yaml says, or could; and whether anybody may call. Pure."""
    findings, where = [], f"{listener.address} port {listener.port}"
    if not listener.callers:
        remedy = "Name the systems that send, as callers in the block listener of site.yaml."
        findings.append(warning(CHECK, "Nobody may call the listener: site.yaml names no callers.", remedy))
    if place.is_running and listener.port and place.bind_error != errno.EADDRINUSE:
        says = f"A listener of this site runs, and not on {where}, which site.yaml names now."
        findings.append(warning(CHECK, says, "Start it again, so that it reads site.yaml."))
    elif place.is_running:
        findings.append(fine(CHECK, f"The listener runs on {where}."))
    elif place.bind_error is not None:
        says = f"Nothing can listen on {where}: {os.strerror(place.bind_error)}."
        remedy = BIND_REMEDIES.get(place.bind_error, "Correct address and port in the block listener of site.yaml.")
        findings.append(problem(CHECK, says, remedy))
    else:
        findings.append(warning(CHECK, f"The listener does not run; it could, on {where}.", START))
    return findings


def verdict_on_certificate(name: str, first: datetime, last: datetime, now: datetime, remedy: str) -> Finding:
    """Say whether a certificate is good from `first` until `last`, and for how long still. Pure."""
    if now > last:
        return problem(CERTIFICATES, f"{name} ended on {last:%Y-%m-%d}: no modality can connect.", remedy)
    if now < first:
        return problem(CERTIFICATES, f"{name} is good only from {first:%Y-%m-%d} on. Is the clock right?", remedy)
    if now > last - SOON:
        return warning(CERTIFICATES, f"{name} ends on {last:%Y-%m-%d}.", remedy)
    return fine(CERTIFICATES, f"{name} is good until {last:%Y-%m-%d}.")


def verdict_on_room(free_bytes: int, min_free_mb: int, *, may_write: bool) -> Finding:
    """Say whether objects would be taken, as far as the disk goes. Pure."""
    if not may_write:
        remedy = "Give received and ingest to the ingest process's user; docs/images_in.md shows it."
        return problem(ROOM, "This user may not write where the listener keeps what comes.", remedy)
    says = f"{free_bytes / GIB:.1f} GiB are free for what is sent"
    if free_bytes < min_free_mb * MEGABYTE:
        says = f"Only {says}, less than min_free_mb ({min_free_mb / 1024:.1f} GiB): every object is refused."
        return problem(ROOM, says, MAKE_ROOM)
    return fine(ROOM, f"{says}; below {min_free_mb / 1024:.1f} GiB nothing is taken.")


def _certificates(tls: ListenerTls) -> list[Finding]:
    try:
        server_context(tls)
    except SettingsError as error:
        return [problem(CERTIFICATES, error.message, error.remedy)]
    now = datetime.now(UTC)
    ours, authorities = (x509.load_pem_x509_certificates(path.read_bytes()) for path in (tls.certificate, tls.ca))
    longest = max(authorities, key=lambda found: found.not_valid_after_utc)  # one good authority lets somebody in
    shown: Iterable[tuple[str, x509.Certificate, str]] = (
        ("The listener's certificate", ours[0], RENEW),
        ("The modalities' authority in listener.tls.ca", longest, RENEW_AUTHORITY),
    )
    return [
        verdict_on_certificate(name, found.not_valid_before_utc, found.not_valid_after_utc, now, remedy)
        for name, found, remedy in shown
    ]


def _bind_error(listener: ListenerSettings) -> int | None:
    family = socket.AF_INET6 if listener.address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the listener itself does
            probe.bind((str(listener.address), listener.port))
    except OSError as error:
        return error.errno
    return None


def _there(folder: Path) -> Path:
    """Return the folder, or the nearest above it that is there."""
    return next(one for one in (folder, *folder.absolute().parents) if one.exists())
