"""A site's part in a round under homomorphic encryption: the shared key, and the one sum that it decrypts.

    shares opened    -> the round's key, derived when it is needed and stored nowhere
    proof + request  -> every signed ciphertext verified, added here, compared with the hub's sum, decrypted; once

It rests on the masked round (`masking.py`): the same keys, sealed messages, survivors and proof, and the same record,
in which a round that has been opened can never be opened again. A request for any other set of updates than the one
that this site and the threshold of survivors have signed is refused, and with it the round.
"""

from collections.abc import Mapping
from pathlib import Path

import structlog

from protocol.digest import digest_of_bytes, hex_of
from protocol.errors import EncryptionError, MaskingError, ProtocolError
from protocol.homomorphic.scheme import SecretKeyCipher, require_library
from protocol.homomorphic.shared_key import new_contribution, shared_secret
from protocol.homomorphic.vector_form import form_of
from protocol.homomorphic_messages import DecryptionRequest
from protocol.messages import RoundTask, TaskKind, UpdateNotice, expect
from protocol.secure_aggregation.key_agreement import unseal
from protocol.secure_aggregation.phases import SitePhase
from protocol.secure_aggregation.roster import Roster
from protocol.secure_aggregation.vector import vector_terms
from protocol.secure_messages import MaskingDelivery
from protocol.signing import PublicKey, open_envelope, read_unverified
from protocol.study import StudySpec
from site_node.errors import BaseNotHereError, SiteError
from site_node.governance.base_versions import base_manifest
from site_node.governance.context import GateContext
from site_node.governance.encrypted_output import write_decrypted
from site_node.governance.masking_records import MaskedRound, masking_mail, open_rounds
from site_node.governance.records import output_digest, study_record, task_record

HALF_BYTES = 33
MEGABYTE = 1 << 20
_log = structlog.get_logger()


def is_encrypted(study: StudySpec) -> bool:
    """Tell whether a study's updates are added as ciphertexts."""
    return study.secure_aggregation.method == "homomorphic"


def contribution_for_all(names: tuple[str, ...]) -> dict[str, tuple[bytes, bytes]]:
    """Draw this site's part of the round's key, in two halves as messages carry it, the same for every member.

    Raises: EncryptionError if this site could not encrypt.
    """
    require_library()
    part = new_contribution()
    return dict.fromkeys(names, (part[:HALF_BYTES], part[HALF_BYTES:]))


def round_cipher(context: GateContext, known: MaskedRound, roster: Roster, delivery: bytes) -> SecretKeyCipher:
    """Derive the round's key from all members' contributions.

    Raises: MaskingError or EncryptionError if one does not open: then this site has no key, and nothing leaves.
    """
    own = context.settings.name
    if known.channel_key is None or known.own_shares is None:
        raise MaskingError("The round's secrets were erased.")
    parts = {own: b"".join(known.own_shares)}
    for sender, text in expect(delivery, MaskingDelivery).sealed.items():
        parts[sender] = unseal(known.channel_key, roster, own, sender, bytes.fromhex(text))
    return SecretKeyCipher(shared_secret(roster.study_digest, roster.round, roster.digest, parts))


def awaited_request(context: GateContext, known: MaskedRound) -> DecryptionRequest | None:
    """Return the hub's request to this site to open a round's sum, or None if it has not come."""
    body = masking_mail(context.database, known, "request")
    return None if body is None else expect(body, DecryptionRequest)


def awaited_requests(context: GateContext) -> list[DecryptionRequest]:
    """Return the requests for which the agent is to fetch ciphertexts: of rounds that wait for nothing else.

    A request that names more files than there are survivors, or larger ones than this site's policy takes, is none.
    """
    waiting = [known for known in open_rounds(context.database) if known.phase is SitePhase.SEEN]
    found = [(known, request) for known in waiting if (request := awaited_request(context, known)) is not None]
    if not found:
        return []
    largest = context.policy().maximum_update_megabytes * MEGABYTE
    return [
        request
        for known, request in found
        if len(request.ciphertexts) == len(known.survivors or ())
        and all(blob.bytes <= largest for blob in request.blobs)
    ]


def has_fetched(context: GateContext, request: DecryptionRequest) -> bool:
    """Tell whether the agent has brought all that a request names; a base that a power cut damaged comes again."""
    if not all(_blob(context, blob.blob).exists() for blob in request.blobs):
        return False
    try:
        base_manifest(context.paths, request.base.blob)
    except BaseNotHereError as error:
        if context.is_news(f"base awaited: {request.task_id}"):
            _log.warning("base_awaited", task=request.task_id, why=error.message, remedy=error.remedy)
        return False
    return True


def open_sum(context: GateContext, known: MaskedRound, roster: Roster, pinned: Mapping[str, PublicKey]) -> UpdateNotice:
    """Verify what the hub asks to decrypt, decrypt it into the gate's folder, and return the notice that answers.

    The caller has checked the proof: the threshold has signed `known.survivors`, as this site did.
    Raises: EncryptionError if anything is not what the survivors' gates have signed; nothing is decrypted then.
    """
    request, study = awaited_request(context, known), study_record(context.database, known.study)
    record = task_record(context.database, known.task_id)
    if request is None or study is None or record is None or known.delivery is None:
        raise EncryptionError("A request to decrypt a sum came for no round of this site.")
    _check_request(context, known, roster, request, record.task, study.study)
    cipher = round_cipher(context, known, roster, known.delivery)
    try:
        manifest = base_manifest(context.paths, request.base.blob)
        terms = vector_terms(study.study, manifest.parameters)
        form = form_of(terms, known.study, known.round, cipher.key_id)
        digests = _signed_ciphertexts(context, known, request, record.task, pinned, (form.key_id, form.file_bytes))
        files = [_blob(context, digest) for digest in digests]
        hub_sum = _blob(context, request.sum.blob)
        digest, size = write_decrypted(context.paths, files, digests, hub_sum, terms, form, cipher)
    except SiteError as error:
        raise EncryptionError(str(error)) from error
    context.checkpoint("sum decrypted")
    return _notice(context, request, record.task, (digest, size), cipher.key_id)


def decryption_id(study: StudySpec, number: int, site: str) -> str:
    """Return the name of a site's task to decrypt a round's sum."""
    return f"{study.name}.r{number}.{site}.{TaskKind.DECRYPT.value}"


def _check_request(
    context: GateContext,
    known: MaskedRound,
    roster: Roster,
    request: DecryptionRequest,
    task: RoundTask,
    study: StudySpec,
) -> None:
    if (request.study_digest, request.round, request.roster_digest) != (known.study, known.round, roster.digest):
        raise EncryptionError("A request to decrypt a sum is of another round or other members.")
    if request.task_id != decryption_id(study, known.round, context.settings.name):
        raise EncryptionError("A request to decrypt a sum is not for this site.")
    if task.base is None or request.base.blob != task.base.weights_digest:
        raise EncryptionError("A request to decrypt a sum names another version than the round started from.")


def _signed_ciphertexts(
    context: GateContext,
    known: MaskedRound,
    request: DecryptionRequest,
    task: RoundTask,
    pinned: Mapping[str, PublicKey],
    expected: tuple[str, int],
) -> list[str]:
    """Return the digests of the survivors' ciphertexts, in the order of names, each from its site's signed notice.

    Raises: EncryptionError if they are not one for each survivor, this site's own among them, under one key.
    """
    digests: dict[str, str] = {}
    for envelope in request.notices:
        notice, body = _verified(envelope.encode(), pinned)
        own = notice.site == context.settings.name
        if own and digest_of_bytes(body) != output_digest(context.database, task):
            raise EncryptionError("A request to decrypt a sum does not hold this site's own update.")
        same = (notice.study_digest, notice.round, notice.steps[-1:]) == (known.study, known.round, ["encrypted"])
        if not same or (notice.key_id, notice.payload_bytes) != expected or notice.site in digests:
            raise EncryptionError(f"The update of {notice.site} is not encrypted for this round, or not as ours.")
        digests[notice.site] = notice.payload_digest
    if list(digests) != list(known.survivors or ()) or context.settings.name not in digests:
        raise EncryptionError("A request to decrypt a sum is of other updates than the survivors have signed.")
    if [blob.blob for blob in request.ciphertexts] != list(digests.values()):
        raise EncryptionError("A request to decrypt a sum names other files than its notices.")
    return list(digests.values())


def _verified(envelope: bytes, pinned: Mapping[str, PublicKey]) -> tuple[UpdateNotice, bytes]:
    try:
        claimed = expect(read_unverified(envelope), UpdateNotice).site
        if claimed not in pinned:
            raise EncryptionError(f"The site {claimed} has no pinned key here.")
        body = open_envelope(envelope, pinned[claimed])
        return expect(body, UpdateNotice), body
    except EncryptionError:
        raise
    except ProtocolError as error:
        raise EncryptionError("A notice is not signed with the key that is pinned for its site.") from error


def _notice(
    context: GateContext, request: DecryptionRequest, task: RoundTask, payload: tuple[str, int], key_id: str
) -> UpdateNotice:
    digest, size = payload
    return UpdateNotice(
        site=context.settings.name,
        task_id=request.task_id,
        task_digest=request.task_digest,
        study_digest=task.study_digest,
        round=task.round,
        base_digest=request.base.blob,
        payload_digest=digest,
        payload_bytes=size,
        manifest_digest=task.base.manifest_digest if task.base is not None else "",
        steps=["decrypted"],
        weight=1.0,
        privacy=None,
        key_id=key_id,
    )


def _blob(context: GateContext, digest: str) -> Path:
    return context.paths.blobs / hex_of(digest)
