"""How a site begins: its directory, keys, settings and policy; then, once, its enrolment with a hub.

Three secrets are made here and never leave: the identity key (the gate signs with it), the transport key (the agent
opens its connection with it) and the noise key (the worker draws from it). The hub learns the two public keys.
"""

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import httpx
import yaml

from protocol.messages import PROTOCOL_VERSION, Enrolment
from protocol.signing import PublicKey, SigningKey, sign
from site_node.agent.hub_client import HubClient
from site_node.agent.state import AgentState, write_state
from site_node.durable import GROUP_WRITES, write_durably
from site_node.errors import EnrolmentError, SettingsError
from site_node.governance.policy import policy_text
from site_node.settings import SitePaths, SiteSettings, load_settings

NOISE_KEY_BYTES = 32
PRIVATE, SHARED = 0o2700, 0o2750  # setgid: what is made or moved within has the folder's group, not its writer's
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
SETTINGS_TEMPLATE = """\
# One hospital's node. Paths are relative to this file's folder.
{keys}
# labels: file with the columns patient_id, sop_instance_uid and a label; by default labels.csv beside the first images
# table: file of a tabular study: the columns patient_id, those that studies name, and perhaps split
# merged_patients: file with the columns old_id and new_id: ids of one patient
# excluded_patients: file with the column patient_id: who has opted out and takes part in nothing
# redis: the site's own Redis, which carries nothing but job ids
# policy: what this hospital allows
# threads: processor threads of a training job
# pacs: where images are fetched from, with host or url (see `wardround site retrieve --help`)
# train_hours: when a training may begin: "20:00-06:00", or hours, days and time_zone (docs/site_operations.md)
# keep_gpus_free: how many of the machine's last GPUs are left to others (0)
# processes: how many processes train one round together, each with so many threads or a GPU of its own (1)
"""


def create_site(
    root: Path,
    name: str,
    hub_url: str,
    images: Sequence[Path],
    labels: Path | None = None,
    *,
    redis_url: str = "redis://127.0.0.1:6379/0",
    policy: str | None = None,
    threads: int | None = None,
    table: Path | None = None,
) -> SiteSettings:
    """Make a site's directory with folders, keys, site.yaml and policy.yaml.

    Without a folder of images and without a table, its images are those that will come over the network.
    Raises: SettingsError if there is a site already, or a value is not usable.
    """
    paths = SitePaths(root.resolve())
    if paths.configuration.exists():
        raise SettingsError(f"{paths.configuration} is there already.", "Choose another folder, or edit that file.")
    _check_data(images, table)
    _make_folders_and_keys(paths)
    only_received = not images and table is None
    keys = {
        "name": name,
        "hub": hub_url,
        "images": [paths.received.name] if only_received else [str(folder.resolve()) for folder in images] or None,
        "table": None if table is None else str(table.resolve()),
        "redis": redis_url,
        "policy": "policy.yaml",
        "labels": str(labels.resolve()) if labels is not None else "labels.csv" if only_received else None,
        "threads": threads,
    }
    stated = {key: value for key, value in keys.items() if value is not None}
    if not (paths.root / "policy.yaml").exists():
        write_durably(paths.root / "policy.yaml", (policy or policy_text()).encode())
    text = SETTINGS_TEMPLATE.format(keys=yaml.safe_dump(stated, sort_keys=False).rstrip())
    write_durably(paths.configuration, text.encode())
    try:
        return load_settings(paths.root)
    except SettingsError:
        paths.configuration.unlink()
        raise


def make_folders(paths: SitePaths) -> None:
    """Make the folders of a site that are missing, with the rights that keep its processes apart."""
    for folder in paths.folders():
        if not folder.is_dir():
            folder.mkdir(parents=True)
            folder.chmod(_mode_of(paths, folder))


def _make_folders_and_keys(paths: SitePaths) -> None:
    make_folders(paths)
    for folder in paths.folders():
        folder.chmod(_mode_of(paths, folder))
    SigningKey.load_or_create(paths.identity_key)
    SigningKey.load_or_create(paths.transport_key)
    _create_secret(paths.noise_key)


def _check_data(images: Sequence[Path], table: Path | None) -> None:
    missing = [str(folder) for folder in images if not folder.is_dir()]
    if missing:
        raise SettingsError(f"There is no folder of images at {', '.join(missing)}.", "Check --images, or --table.")
    if table is not None and not table.is_file():
        raise SettingsError(f"There is no file at {table}.", "Check --table.")


def enroll_site(settings: SiteSettings, hub: HubClient, code: str, expected_hub_key: str | None = None) -> PublicKey:
    """Hand the site's public keys to the hub with the one-time code, and keep the hub's key.

    Raises: HubUnreachableError if the hub is not there; HubRefusedError for a wrong code; EnrolmentError if it is
        another hub than expected, speaks another protocol, or the site is enrolled already.
    """
    paths = settings.paths
    if paths.hub_key.exists():
        raise EnrolmentError("This site is enrolled already.", "To enrol it elsewhere, make a new site directory.")
    info = hub.info()
    hub_key = PublicKey.from_text(str(info.get("hub_key", "")))
    if info.get("service") != "wardround-hub" or PROTOCOL_VERSION not in info.get("protocol_versions", []):
        remedy = "Upgrade the older of the two."
        raise EnrolmentError(f"The hub does not speak protocol {PROTOCOL_VERSION}.", remedy)
    if expected_hub_key is not None and hub_key.text != expected_hub_key:
        raise EnrolmentError("The hub's key is not the expected one.", "Ask its operator; somebody may be in between.")
    identity = SigningKey.load_or_create(paths.identity_key)
    enrolment = Enrolment(
        site=settings.name,
        code=code,
        identity_key=identity.public.text,
        transport_key=SigningKey.load_or_create(paths.transport_key).public.text,
        protocol_version=PROTOCOL_VERSION,
    )
    answer = hub.enroll(sign(enrolment.canonical_bytes(), identity))
    if answer.get("hub_key") != hub_key.text:
        raise EnrolmentError("The hub answered with two different keys.", "Ask its operator before anything else.")
    write_state(paths, AgentState(0, hub_key))
    write_durably(paths.hub_key, hub_key.text.encode())
    return hub_key


def exposure_of(hub_url: str) -> str | None:
    """Return a warning if the way to the hub would not be encrypted; None over HTTPS or within this machine."""
    url = httpx.URL(hub_url)
    if url.scheme == "https" or url.host in LOOPBACK_NAMES:
        return None
    return (
        f"Warning: {hub_url} is not encrypted: who listens on the way sees the weights and can take the site's tokens. "
        "Give the hub a certificate and write https:// into site.yaml before you enrol."
    )


def _mode_of(paths: SitePaths, folder: Path) -> int:
    if {paths.gate, paths.mark, paths.agent, paths.worker, paths.ingest} & {folder, *folder.parents}:
        return PRIVATE
    # the gate takes away what lies in these
    taken = {paths.handover, paths.receipts} & {folder, *folder.parents}
    return GROUP_WRITES if taken else SHARED


def _create_secret(path: Path) -> None:
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(NOISE_KEY_BYTES))
