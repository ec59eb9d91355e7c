"""Case codes: how a reader names a patient of one study, and nobody else can.

A code is an HMAC-SHA256 (RFC 2104) under a key of its own, which neither the ledger's pseudonyms nor those of exports
come from: a code in a reader's notes leads to no pseudonym, and the same patient has another code in another study.
"""

import base64
import hashlib
import hmac
import re
import secrets
from pathlib import Path

from site_node.durable import write_durably
from site_node.errors import SettingsError

KEY_BYTES = 32
CODE_BYTES = 10
CASE_CODE = re.compile(r"C-[a-z2-7]{16}")


def case_key(path: Path) -> bytes:
    """Return the key of the case codes; it is made when the first is needed.

    Raises: SettingsError if the file is damaged.
    """
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_durably(path, secrets.token_bytes(KEY_BYTES), mode=0o600)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise SettingsError("The key of the case codes is damaged.", "Restore it, or remove it: codes are then new.")
    return key


def case_code(key: bytes, study_digest: str, patient: str) -> str:
    """Return a patient's code in a study. Pure.

    Guarantee: 80 bits; codes in order are patients in no order.
    """
    name = hmac.digest(key, f"{study_digest}\0{patient}".encode("utf-8", "surrogateescape"), hashlib.sha256)
    return "C-" + base64.b32encode(name[:CODE_BYTES]).decode().lower()
