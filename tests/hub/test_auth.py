"""Enrolment, tokens, passwords and roles: who gets in, and which sentence the others get."""

import asyncio
import re

import jwt
import pytest

from hub.api.callers import Callers
from hub.auth import coordinator
from hub.auth.coordinator import add_person, enrol_site, invite_site, person_token, site_token
from hub.auth.enrolment import INVITATION_SECONDS, SiteEvent, SiteState, next_site_state
from hub.auth.identity import Caller
from hub.auth.passwords import hash_password, password_matches
from hub.auth.roles import PERMISSIONS, Permission, permits
from hub.auth.tokens import PERSON_TOKEN_SECONDS, Bearer, issue_token, read_token
from hub.errors import (
    AuthenticationError,
    ClockSkewError,
    InvitationError,
    NotPermittedError,
    RequestError,
    StateError,
)
from hub.services import Services
from hub.storage import audit_stores, stores
from protocol.errors import SignatureError
from protocol.signing import read_unverified, sign
from tests.fakes.hospital import Hospital
from tests.hub.conftest import PASSWORD, Clock

pytestmark = pytest.mark.both_databases

SECRET = b"s" * 32
OPERATOR = "operator:console"


@pytest.fixture
def anna(clock: Clock) -> Hospital:
    return Hospital("anna", clock)


def test_the_table_of_a_sites_states() -> None:
    assert next_site_state(None, SiteEvent.INVITE) == SiteState.INVITED
    assert next_site_state("invited", SiteEvent.ENROL) == SiteState.ENROLLED
    assert next_site_state("enrolled", SiteEvent.SUSPEND) == SiteState.SUSPENDED
    assert next_site_state("suspended", SiteEvent.RESUME) == SiteState.ENROLLED
    for state, event in [(None, SiteEvent.ENROL), ("enrolled", SiteEvent.ENROL), ("suspended", SiteEvent.INVITE)]:
        with pytest.raises(StateError):
            next_site_state(state, event)


def test_a_code_enrols_a_site_once_and_is_stored_only_as_a_hash(services: Services, anna: Hospital) -> None:
    invitation = invite_site(services, "anna", OPERATOR)
    assert enrol_site(services, anna.enrolment(invitation.code)) == "anna"
    with services.reading() as session:
        site = stores.site(session, "anna")
        logged = b"".join(row.entry for row in audit_stores.entries(session, 0, 100))
    assert site.state == SiteState.ENROLLED
    assert site.identity_key == anna.identity.public.text
    assert invitation.code not in f"{site.code_hash}"
    assert invitation.code.encode() not in logged
    with pytest.raises(InvitationError, match="other keys"):
        enrol_site(services, Hospital("anna", anna.clock).enrolment(invitation.code))


def test_the_same_enrolment_again_gets_the_same_answer(services: Services, anna: Hospital) -> None:
    envelope = anna.enrolment(invite_site(services, "anna", OPERATOR).code)
    assert enrol_site(services, envelope) == enrol_site(services, envelope) == "anna"
    with services.reading() as session:
        assert audit_stores.head(session)[0] == 2


def test_an_enrolled_site_whose_answer_was_lost_enrols_again_with_a_new_code(
    services: Services, anna: Hospital
) -> None:
    enrol_site(services, anna.enrolment(invite_site(services, "anna", OPERATOR).code))
    assert enrol_site(services, anna.enrolment(invite_site(services, "anna", OPERATOR).code)) == "anna"


def test_a_code_may_be_typed_in_lower_case_without_dashes(services: Services, anna: Hospital) -> None:
    code = invite_site(services, "anna", OPERATOR).code
    assert enrol_site(services, anna.enrolment(code.lower().replace("-", " "))) == "anna"


def test_a_wrong_code_and_an_unknown_site_get_the_same_sentence(services: Services, anna: Hospital) -> None:
    invite_site(services, "anna", OPERATOR)
    with pytest.raises(InvitationError) as wrong:
        enrol_site(services, anna.enrolment("AAAAA"))
    with pytest.raises(InvitationError) as unknown:
        enrol_site(services, Hospital("nobody", anna.clock).enrolment("AAAAA"))
    assert str(wrong.value) == str(unknown.value)
    assert "wardround hub invite" in wrong.value.remedy


def test_a_code_expires_and_a_new_one_voids_it(services: Services, anna: Hospital, clock: Clock) -> None:
    first = invite_site(services, "anna", OPERATOR).code
    clock.now += INVITATION_SECONDS + 1
    with pytest.raises(InvitationError, match="expired"):
        enrol_site(services, anna.enrolment(first))
    second = invite_site(services, "anna", OPERATOR).code
    with pytest.raises(InvitationError, match="does not belong"):
        enrol_site(services, anna.enrolment(first))
    assert enrol_site(services, anna.enrolment(second)) == "anna"


def test_an_enrolment_must_be_signed_by_the_identity_key_that_it_names(services: Services, anna: Hospital) -> None:
    code = invite_site(services, "anna", OPERATOR).code
    honest = anna.enrolment(code)
    with pytest.raises(SignatureError):
        enrol_site(services, sign(read_unverified(honest), anna.transport))


def caller_of(services: Services, token: str) -> Caller:
    return asyncio.run(Callers(services).of(token))


def test_a_site_gets_a_token_for_its_assertion(services: Services, hospitals: list[Hospital]) -> None:
    token = site_token(services, hospitals[0].assertion())
    assert (token.name, token.role) == ("anna", "site")
    caller = caller_of(services, token.access_token)
    assert (caller.kind, caller.name, caller.actor) == ("site", "anna", "site:anna")


@pytest.mark.parametrize(("seconds", "sentence"), [(-400, "400 seconds behind"), (90, "90 seconds ahead")])
def test_a_wrong_clock_is_told_by_how_much(
    services: Services, hospitals: list[Hospital], clock: Clock, seconds: float, sentence: str
) -> None:
    wrong = Hospital("anna", lambda: clock.now + seconds, hospitals[0].identity, hospitals[0].transport)
    with pytest.raises(ClockSkewError, match=sentence):
        site_token(services, wrong.assertion())


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "bela"},
        {"sub": "bela"},
        {"aud": "another"},
        {"jti": ""},
        {"exp": 1_800_009_999},
        {"iat": "now"},
        {"iat": True},
    ],
    ids=str,
)
def test_an_assertion_that_says_something_else_is_refused(
    services: Services, hospitals: list[Hospital], changes: dict[str, object]
) -> None:
    with pytest.raises(AuthenticationError):
        site_token(services, hospitals[0].assertion(**changes))


def test_the_identity_key_cannot_open_the_connection(
    services: Services, hospitals: list[Hospital], clock: Clock
) -> None:
    mixed = Hospital("anna", clock, transport=hospitals[0].identity)
    with pytest.raises(AuthenticationError):
        site_token(services, mixed.assertion())


def test_an_assertion_with_another_algorithm_is_refused(services: Services, hospitals: list[Hospital]) -> None:
    now = int(services.clock())
    claims = {"iss": "anna", "sub": "anna", "aud": "wardround-hub", "iat": now, "exp": now + 60, "jti": "1"}
    forged = jwt.encode(claims, hospitals[0].transport.public.text.ljust(40), algorithm="HS256")
    with pytest.raises(AuthenticationError):
        site_token(services, forged)


def test_a_suspended_site_is_out_at_once(services: Services, hospitals: list[Hospital]) -> None:
    token = site_token(services, hospitals[0].assertion()).access_token
    coordinator.change_site(services, "anna", SiteEvent.SUSPEND, OPERATOR)
    with pytest.raises(NotPermittedError, match="suspended"):
        caller_of(services, token)
    coordinator.change_site(services, "anna", SiteEvent.RESUME, OPERATOR)
    assert caller_of(services, token).name == "anna"


def test_a_token_is_for_who_it_says_until_it_expires() -> None:
    token, seconds = issue_token(Bearer("person", "alice"), SECRET, 1000.0)
    assert seconds == PERSON_TOKEN_SECONDS
    assert read_token(token, SECRET, 1000.0 + seconds - 1) == Bearer("person", "alice")
    with pytest.raises(AuthenticationError, match="expired"):
        read_token(token, SECRET, 1000.0 + seconds)
    with pytest.raises(AuthenticationError):
        read_token(token, b"t" * 32, 1000.0)


@pytest.mark.parametrize(
    "token", ["", "a.b.c", "x" * 10_000, jwt.encode({"sub": "person:alice"}, SECRET, algorithm="HS256")]
)
def test_what_is_no_token_is_refused_without_a_trace_of_it(token: str) -> None:
    with pytest.raises(AuthenticationError) as refused:
        read_token(token, SECRET, 1000.0)
    assert not token or token not in str(refused.value)


def test_an_unsigned_token_is_refused() -> None:
    claims = {"iss": "wardround-hub", "aud": "wardround-api", "sub": "person:alice", "iat": 1, "exp": 9999, "jti": "1"}
    with pytest.raises(AuthenticationError):
        read_token(jwt.encode(claims, "", algorithm="none"), SECRET, 10.0)


def test_people_sign_in_with_their_password(services: Services, people: dict[str, str]) -> None:
    assert person_token(services, "clinician", people["clinician"]).role == "clinician"


@pytest.mark.parametrize(("name", "password"), [("researcher", "wrong password"), ("nobody", PASSWORD), ("", "")])
def test_a_wrong_name_and_a_wrong_password_get_the_same_sentence(
    services: Services, people: dict[str, str], name: str, password: str
) -> None:
    with pytest.raises(AuthenticationError, match=re.escape("Name and password do not belong together.")):
        person_token(services, name, password)


def test_a_disabled_person_is_out_at_once(services: Services, people: dict[str, str]) -> None:
    token = person_token(services, "researcher", PASSWORD).access_token
    coordinator.disable_person(services, "researcher", OPERATOR)
    with pytest.raises(AuthenticationError, match="disabled"):
        caller_of(services, token)
    with pytest.raises(AuthenticationError):
        person_token(services, "researcher", PASSWORD)


def test_an_account_made_twice_is_made_once_and_another_password_is_refused(services: Services) -> None:
    add_person(services, "alice", "operator", PASSWORD, OPERATOR)
    add_person(services, "alice", "operator", PASSWORD, OPERATOR)
    with pytest.raises(StateError):
        add_person(services, "alice", "operator", PASSWORD + "!", OPERATOR)
    with services.reading() as session:
        assert audit_stores.head(session)[0] == 1


@pytest.mark.parametrize(
    ("name", "role", "password"),
    [("Al ice", "operator", PASSWORD), ("a", "king", PASSWORD), ("a", "operator", "short")],
)
def test_an_unusable_account_is_refused(services: Services, name: str, role: str, password: str) -> None:
    with pytest.raises(RequestError):
        add_person(services, name, role, password, OPERATOR)


def test_passwords_are_salted_and_checked() -> None:
    stored = hash_password(PASSWORD)
    assert stored.startswith("$argon2id$")
    assert stored != hash_password(PASSWORD)
    assert password_matches(stored, PASSWORD)
    assert not password_matches(stored, PASSWORD + "x")
    assert not password_matches(None, "nobody has this password")
    assert not password_matches("not a hash", PASSWORD)


def test_the_table_of_roles() -> None:
    assert [role for role in PERMISSIONS if permits(role, Permission.PROPOSE)] == ["researcher"]
    assert [role for role in PERMISSIONS if permits(role, Permission.DECIDE)] == ["clinician"]
    assert [role for role in PERMISSIONS if permits(role, Permission.ADMINISTER)] == ["operator"]
    assert [role for role in PERMISSIONS if permits(role, Permission.TAKE_PART)] == ["site"]
    assert not permits("site", Permission.READ)
    assert not permits("king", Permission.ANYONE)
