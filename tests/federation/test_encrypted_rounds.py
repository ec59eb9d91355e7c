"""Whole federations under homomorphic encryption in one process: exact sums, lost sites, killed processes, liars."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hub.aggregation.ciphertexts import summed
from hub.rounds import decrypting as hub_decrypting
from hub.storage import round_stores
from protocol.digest import digest_of_bytes, hex_of
from protocol.homomorphic.ciphertexts import CiphertextForm
from protocol.homomorphic_messages import DecryptionRequest
from protocol.messages import TaskKind, UpdateNotice, parse_message
from protocol.signing import read_unverified
from site_node.errors import HubRefusedError
from site_node.governance import decrypting, encrypted_output, masking
from site_node.governance.hidden_answers import is_difference
from site_node.governance.masking_records import masked_round
from site_node.governance.records import task_record
from site_node.governance.spool import kept_payload
from site_node.settings import SitePaths
from tests.fakes.power_cuts import PowerCutError
from tests.federation.masked_federation import (
    ALL,
    HOUR,
    LEFT_AFTER_LOSS,
    PHASE_IS_OVER,
    MaskedFederation,
    assert_exact,
    masked_federation,
)

ENCRYPTED: dict[str, Any] = {
    "secure_aggregation": {"method": "homomorphic", "maximum_sites": 5, "maximum_weight": 100, "value_bits": 8}
}


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[MaskedFederation]:
    with masked_federation(tmp_path, **ENCRYPTED) as opened:
        opened.propose()
        yield opened


def test_the_version_is_the_plain_sum_of_the_sites_integers_to_the_bit(federation: MaskedFederation) -> None:
    federation.rest()
    assert_exact(federation, ALL)


def decryptions(federation: MaskedFederation) -> dict[str, str]:
    """Return the state of each task to decrypt, by site."""
    with federation.services.reading() as session:
        rows = round_stores.tasks_of_round(session, federation.study.digest, 1, TaskKind.DECRYPT)
        return {row.site: row.state for row in rows}


def site_rounds(federation: MaskedFederation, name: str) -> list[dict[str, Any]]:
    rows = federation.site(name).gate._context.database.execute("SELECT * FROM masking")
    return [dict(row) for row in rows]


def test_what_lies_at_the_hub_are_ciphertexts_and_one_sum_that_two_sites_decrypted(
    federation: MaskedFederation,
) -> None:
    federation.rest()
    assert_exact(federation, ALL)
    assert decryptions(federation) == {"anna": "accepted", "bela": "accepted"}
    blobs = [path.read_bytes() for path in (federation.folder / "hub" / "blobs").rglob("*") if path.is_file()]
    opened = [blob for blob in blobs if len(blob) == federation.terms.payload_bytes]
    assert len(opened) == 1  # one sum in clear, the same from both sites
    encrypted = [blob for blob in blobs if b"wardround.bfv-update/1" in blob[:400]]
    assert len(encrypted) == 5
    assert sum(b"wardround.bfv-sum/1" in blob[:400] for blob in blobs) == 1
    for site in federation.sites:
        plain = site.handed[1].data
        assert not any(plain[:64] in blob or plain[-64:] in blob for blob in blobs)


def test_the_sum_is_of_weights_too_and_no_weight_is_told(federation: MaskedFederation) -> None:
    federation.rest()
    with federation.services.reading() as session:
        updates = round_stores.updates_of_round(session, federation.study.digest, 1)
        assert {update.weight for update in updates} == {1.0}
        assert {update.norm for update in updates} == {0.0}


@pytest.mark.parametrize(("phase", "survivors"), LEFT_AFTER_LOSS.items())
def test_a_site_lost_in_a_phase_costs_the_others_nothing_but_its_part(
    federation: MaskedFederation, phase: str, survivors: tuple[str, ...]
) -> None:
    federation.until(phase)
    federation.lose("clara")
    federation.outlast()
    assert_exact(federation, survivors)


def test_a_site_that_was_to_decrypt_and_is_lost_is_made_up_for_by_the_others(federation: MaskedFederation) -> None:
    federation.until("reveals")
    federation.lose("anna")
    assert federation.state()[0] == "running"
    assert decryptions(federation)["bela"] == "accepted"
    federation.pass_time(PHASE_IS_OVER)
    assert_exact(federation, ALL)
    found = decryptions(federation)
    assert sorted(found) == list(ALL)
    assert list(found.values()).count("accepted") >= 2


def test_a_base_that_a_power_cut_damaged_is_waited_for_and_costs_no_round(federation: MaskedFederation) -> None:
    federation.until("seen")
    site = federation.site("anna")
    (known,) = site_rounds(federation, "anna")
    record = task_record(site.gate._context.database, known["task_id"])
    assert record is not None
    assert record.task.base is not None
    base = site.settings.paths.blobs / hex_of(record.task.base.weights_digest)
    whole = base.read_bytes()
    base.write_bytes(bytes(len(whole)))
    site.start()
    federation.rest()
    assert decryptions(federation)["anna"] != "accepted"
    assert site_rounds(federation, "anna")[0]["phase"] == "seen"
    base.write_bytes(whole)
    federation.rest()
    assert decryptions(federation) == {"anna": "accepted", "bela": "accepted"}
    assert_exact(federation, ALL)


def test_with_fewer_than_two_sites_to_decrypt_the_round_fails_closed(federation: MaskedFederation) -> None:
    federation.until("reveals")
    federation.lose(*ALL[1:])
    federation.pass_time(PHASE_IS_OVER)
    federation.pass_time(PHASE_IS_OVER)
    state, reason = federation.state()
    assert state == "failed"
    assert "1 sites decrypted the sum; 2 are needed" in reason


def test_two_sites_that_decrypt_differently_fail_the_round(
    federation: MaskedFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = encrypted_output.write_decrypted

    def lying(paths: SitePaths, *arguments: Any) -> tuple[str, int]:
        digest, size = true(paths, *arguments)
        if paths.root.parent.name != "bela":
            return digest, size
        forged = kept_payload(paths, digest).read_bytes()[:-2] + b"\x01\x00"
        kept_payload(paths, digest_of_bytes(forged)).write_bytes(forged)
        return digest_of_bytes(forged), size

    monkeypatch.setattr(decrypting, "write_decrypted", lying)
    federation.rest()
    state, reason = federation.state()
    assert state == "failed"
    assert "anna, bela decrypted different sums" in reason


def test_ciphertexts_are_given_to_nobody_but_the_sites_that_are_asked_to_decrypt(
    federation: MaskedFederation,
) -> None:
    federation.until("reveals")
    federation.lose("anna")
    with federation.services.reading() as session:
        updates = round_stores.updates_of_round(session, federation.study.digest, 1)
    ciphertext = updates[2].blob

    def can_fetch(name: str) -> bool:
        try:
            with federation.site(name).client.blob(ciphertext, 0) as download:
                return digest_of_bytes(b"".join(download.pieces)) == ciphertext
        except HubRefusedError:
            return False

    # anna was asked and has not answered; bela has; nobody asked the others.
    assert {name: can_fetch(name) for name in ALL} == {**dict.fromkeys(ALL, False), "anna": True}


LIES: dict[str, Callable[[DecryptionRequest], dict[str, Any]]] = {
    "one update fewer": lambda r: {"notices": r.notices[:-1], "ciphertexts": r.ciphertexts[:-1]},
    "one update twice": lambda r: {
        "notices": [*r.notices[:-1], r.notices[0]],
        "ciphertexts": [*r.ciphertexts[:-1], r.ciphertexts[0]],
    },
    "updates in another order": lambda r: {"notices": r.notices[::-1], "ciphertexts": r.ciphertexts[::-1]},
    "files of other names": lambda r: {"ciphertexts": r.ciphertexts[::-1]},
    "one ciphertext as the sum": lambda r: {"sum": r.ciphertexts[0]},
    "a file too large for the site": lambda r: {"sum": r.sum.model_copy(update={"bytes": 1 << 40})},
    "another round": lambda r: {"round": 2},
    "other members": lambda r: {"roster_digest": r.task_digest},
    "another task": lambda r: {"task_id": f"x{r.task_id}"},
    "another version": lambda r: {"base": r.ciphertexts[0]},
    "a notice of its own making": lambda r: {"notices": [r.notices[0].replace("a", "b", 1), *r.notices[1:]]},
}


@pytest.mark.parametrize("lie", sorted(LIES))
def test_a_hub_that_asks_for_anything_but_the_agreed_sum_gets_nothing(
    federation: MaskedFederation, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    def lying(**fields: Any) -> DecryptionRequest:
        request = DecryptionRequest(**fields)
        return request.model_copy(update=LIES[lie](request))

    monkeypatch.setattr(hub_decrypting, "DecryptionRequest", lying)
    federation.until("reveals")
    federation.rest()
    federation.pass_time(PHASE_IS_OVER)
    federation.pass_time(PHASE_IS_OVER)
    assert federation.state()[0] == "failed"
    assert "accepted" not in decryptions(federation).values()
    blobs = [path.stat().st_size for path in (federation.folder / "hub" / "blobs").rglob("*") if path.is_file()]
    assert federation.terms.payload_bytes not in blobs


def test_a_hub_that_adds_wrongly_is_noticed_by_every_site(
    federation: MaskedFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_the_last(paths: list[Path], digests: list[str], form: CiphertextForm) -> Iterator[bytes]:
        pieces = summed(paths[:-1], digests[:-1], form)
        next(pieces)
        return iter([form.sum_header(digests), *pieces])

    monkeypatch.setattr(hub_decrypting, "summed", without_the_last)
    federation.rest()
    federation.pass_time(PHASE_IS_OVER)
    federation.pass_time(PHASE_IS_OVER)
    assert federation.state()[0] == "failed"
    assert "accepted" not in decryptions(federation).values()


def test_a_site_opens_a_round_once_whatever_it_is_asked(federation: MaskedFederation) -> None:
    federation.rest()
    (opened,) = site_rounds(federation, "anna")
    assert opened["phase"] == "revealed"
    database = federation.site("anna").gate._context.database
    with pytest.raises(sqlite3.IntegrityError, match="the round is over"):
        database.execute("UPDATE masking SET phase = 'seen'")
    outputs = [dict(row) for row in database.execute("SELECT kind FROM outputs WHERE round = 1 ORDER BY kind")]
    assert outputs == [{"kind": "decrypt"}, {"kind": "train"}]
    with pytest.raises(sqlite3.IntegrityError, match="one output"):
        database.execute("UPDATE outputs SET digest = 'sha256:0' WHERE kind = 'decrypt'")


def test_members_that_were_told_different_parts_of_the_key_open_nothing(
    federation: MaskedFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = decrypting.contribution_for_all

    def two_faced(names: tuple[str, ...]) -> dict[str, tuple[bytes, bytes]]:
        return {name: true(names)[name] for name in names}  # another part for each

    monkeypatch.setattr(masking, "contribution_for_all", two_faced)
    federation.rest()
    federation.pass_time(2 * HOUR)
    state, reason = federation.state()
    assert state == "failed"
    assert "hold different keys" in reason
    assert decryptions(federation) == {}


def test_a_hub_that_is_ended_in_any_phase_goes_on_where_it_was(federation: MaskedFederation) -> None:
    for phase in ("keys", "shares", "uploads", "seen", "reveals", "opened"):
        federation.until(phase)
        federation.restart_hub()
    federation.rest()
    federation.pass_time(PHASE_IS_OVER)
    assert_exact(federation, ALL)


def test_a_lost_order_to_add_is_given_again(federation: MaskedFederation, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as lost:  # the worker is killed before it takes the order
        lost.setattr("hub.rounds.decrypting.order_work", lambda *_: None)
        federation.rest()
    assert federation.phase() == "reveals"
    assert decryptions(federation) == {}
    federation.pass_time(PHASE_IS_OVER)
    assert_exact(federation, ALL)


def test_gates_that_are_ended_in_any_phase_go_on_where_they_were(federation: MaskedFederation) -> None:
    for phase in ("keys", "shares", "uploads", "seen", "reveals"):
        federation.until(phase)
        for site in federation.sites:
            site.start()
    federation.rest()
    assert_exact(federation, ALL)


def test_after_the_study_no_secret_is_left_at_any_site(federation: MaskedFederation) -> None:
    federation.until("uploads")
    secrets = []
    for name in ALL:
        for row in site_rounds(federation, name):
            secrets += [bytes(row["channel_key"]), *(bytes.fromhex(share) for share in json.loads(row["own_shares"]))]
    assert len(secrets) == 15
    federation.rest()
    assert federation.state()[0] == "completed"
    for name in ALL:
        (row,) = site_rounds(federation, name)
        assert (row["channel_key"], row["mask_key"], row["seed"], row["own_shares"]) == (None, None, None, None)
    for path in federation.folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(secret in data or secret.hex().encode() in data for secret in secrets), path.name


@pytest.mark.parametrize("name", ["anna", "clara"])  # one that decrypts and one that does not
def test_a_gate_that_is_killed_between_its_steps_sends_one_ciphertext_and_one_sum(
    federation: MaskedFederation, name: str
) -> None:
    site, left = federation.site(name), ["shares made", "payload kept", "vector encrypted", "sum decrypted"]

    def cut(step: str) -> None:
        if step in left:
            left.remove(step)
            raise PowerCutError

    site.checkpoint = cut
    for _ in range(10):
        try:
            federation.rest()
            break
        except PowerCutError:
            site.start()
    assert_exact(federation, ALL)
    assert left == ([] if name == "anna" else ["sum decrypted"])
    sent = [
        message
        for row in site.gate._context.database.execute("SELECT envelope FROM envelopes ORDER BY number")
        if isinstance(message := parse_message(read_unverified(row["envelope"])), UpdateNotice)
    ]
    steps = [notice.steps[-1] for notice in sent if notice.round == 1]
    assert steps == (["encrypted", "decrypted"] if name == "anna" else ["encrypted"])


UNNOISED: dict[str, Any] = {**ENCRYPTED, "privacy": {"epsilon": None, "spare_tasks": 1}}


def test_no_gate_that_saw_the_survivors_answers_for_the_same_weights_again(tmp_path: Path) -> None:
    """Two sites open the sum, and the others cannot know whether they did."""
    with masked_federation(tmp_path, **UNNOISED) as federation:
        federation.propose()
        federation.rest()
        for name in ALL:
            context = federation.site(name).gate._context
            known = masked_round(context.database, federation.study.digest, 1)
            assert known is not None
            first = task_record(context.database, known.task_id)
            assert first is not None
            again = first.task.model_copy(update={"round": 9})
            assert is_difference(context.database, again, federation.study), (name, known.phase)
            elsewhere = (
                again.base.model_copy(update={"weights_digest": digest_of_bytes(b"other")}) if again.base else None
            )
            assert not is_difference(context.database, again.model_copy(update={"base": elsewhere}), federation.study)
