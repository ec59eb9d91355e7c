"""Sites and people: load, apply the rule, save, audit: one transaction each."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from hub.audit.log import append
from hub.auth.enrolment import (
    INVITATION_SECONDS,
    SiteEvent,
    SiteState,
    check_code,
    code_hash,
    new_code,
    next_site_state,
)
from hub.auth.identity import Caller, MessageType, open_signed
from hub.auth.passwords import hash_password, password_matches
from hub.auth.roles import PERSON_ROLES, SITE_ROLE
from hub.auth.sign_in import check_password
from hub.auth.tokens import Bearer, assertion_issuer, check_assertion, issue_token, read_token
from hub.errors import AuthenticationError, InvitationError, NotFoundError, NotPermittedError, RequestError, StateError
from hub.services import Services
from hub.settings import token_secret
from hub.storage import stores
from hub.storage.database import Session
from hub.storage.tables import PersonRow, SiteRow
from protocol.messages import PROTOCOL_VERSION, Enrolment, expect
from protocol.signing import PublicKey, open_envelope, read_unverified
from protocol.study_parts import NAME_PATTERN


@dataclass(frozen=True)
class Invitation:
    """An invitation as the operator hands it over; the code is shown once and never stored."""

    name: str
    code: str
    expires_at: float


@dataclass(frozen=True)
class Token:
    """A token and whose it is."""

    access_token: str
    expires_in: int
    name: str
    role: str


def invite_site(services: Services, name: str, actor: str) -> Invitation:
    """Invite a site by name, or give an invited one a new code; the old one is void.

    Raises: RequestError for an unusable name, StateError if the site is enrolled already.
    """
    _check_name(name)
    invitation = Invitation(name, new_code(), services.clock() + INVITATION_SECONDS)
    with services.transaction() as session:
        site = stores.find_site(session, name)
        state = next_site_state(site.state if site else None, SiteEvent.INVITE)
        if site is None:
            site = SiteRow(name=name)
            session.add(site)
        site.state, site.code_hash, site.code_expires_at = state, code_hash(invitation.code), invitation.expires_at
        append(session, services.clock(), actor, "site.invited", name, {"expires_at": invitation.expires_at})
    return invitation


def enrol_site(services: Services, envelope: bytes) -> str:
    """Enrol a site by its code, and return its name. The same enrolment again changes nothing.

    Raises: InvitationError for a wrong, used or expired code; SignatureError if the identity key did not sign.
    """
    enrolment = expect(read_unverified(envelope), Enrolment)
    open_envelope(envelope, PublicKey.from_text(enrolment.identity_key))
    PublicKey.from_text(enrolment.transport_key)
    if enrolment.protocol_version != PROTOCOL_VERSION:
        raise RequestError(
            f"The hub speaks protocol {PROTOCOL_VERSION}, the site protocol {enrolment.protocol_version}.",
            "Install the same version of Wardround at both ends.",
        )
    with services.transaction() as session:
        site = stores.find_site(session, enrolment.site)
        check_code(enrolment.code, site.code_hash if site else None, _expiry(site), services.clock())
        if site is not None and not _is_repeated(site, enrolment):
            _enrol(session, services, site, enrolment)
    return enrolment.site


def site_token(services: Services, assertion: str) -> Token:
    """Give a site its token for an assertion signed by its transport key.

    Raises: AuthenticationError, ClockSkewError, NotPermittedError.
    """
    name = assertion_issuer(assertion)
    with services.reading() as session:
        key = PublicKey.from_text(enrolled_site(session, name).transport_key or "")
    check_assertion(assertion, name, key, services.clock())
    token, seconds = issue_token(Bearer("site", name), token_secret(services.settings), services.clock())
    return Token(token, seconds, name, SITE_ROLE)


def person_token(services: Services, name: str, password: str, address: str = "") -> Token:
    """Sign a person in, who calls from an address.

    Raises: AuthenticationError, SignInDelayedError; see `sign_in.check_password`.
    """
    person = check_password(services, name, password, address)
    token, seconds = issue_token(Bearer("person", name), token_secret(services.settings), services.clock())
    return Token(token, seconds, name, person.role)


def bearer_of(services: Services, token: str) -> Bearer:
    """Return to whom this hub issued a token.

    Raises: AuthenticationError.
    """
    return read_token(token, token_secret(services.settings), services.clock())


def person_of(services: Services, name: str) -> Caller:
    """Return a person as they stand now.

    Raises: AuthenticationError if the account is disabled or gone.
    """
    with services.reading() as session:
        person = stores.find_person(session, name)
    if person is None or person.disabled:
        raise AuthenticationError("This account does not exist or is disabled.", "Ask the hub's operator.")
    return Caller("person", person.name, person.role)


def note_seen(services: Services, name: str) -> Callable[[], None] | None:
    """Note that a site called; return what writes it down, every few seconds for all sites together. Not audited."""
    times = services.last_seen.note(name, services.clock())
    if times is None:
        return None

    def write() -> None:
        with services.transaction() as session:
            stores.heard_from(session, times)

    return write


def check_enrolled(state: str | None) -> None:
    """Check that a site may call; `state` is None for one that has no keys here.

    Raises: AuthenticationError if it is not known, NotPermittedError if it is suspended.
    """
    if state is None:
        raise AuthenticationError("No site of this name is enrolled.", "Enrol it with `wardround site enroll`.")
    if state != SiteState.ENROLLED:
        raise NotPermittedError(f"The site is {state}.", "Ask the hub's operator.")


def enrolled_site(session: Session, name: str) -> SiteRow:
    """Return a site that is enrolled.

    Raises: AuthenticationError, NotPermittedError; see `check_enrolled`.
    """
    site = stores.find_site(session, name)
    check_enrolled(site.state if site is not None and site.identity_key is not None else None)
    return stores.site(session, name)


def open_from_site(session: Session, site: str, envelope: bytes, kind: type[MessageType]) -> MessageType:
    """Return the message in an envelope that an enrolled site's gate signed; see `identity.open_signed`."""
    return open_signed(enrolled_site(session, site).identity_key or "", site, envelope, kind)


def add_person(services: Services, name: str, role: str, password: str, actor: str) -> None:
    """Make an account. The same account again, with the same password, changes nothing.

    Raises: RequestError for an unusable name, role or password; StateError if the name is taken.
    """
    _check_name(name)
    if role not in PERSON_ROLES:
        raise RequestError(f"{role!r} is not a role.", f"The roles are {', '.join(PERSON_ROLES)}.")
    hashed = hash_password(password)
    with services.transaction() as session:
        known = stores.find_person(session, name)
        if known is not None:
            if known.role == role and not known.disabled and password_matches(known.password_hash, password):
                return
            raise StateError(f"There is an account {name!r} already.", "Choose another name.")
        session.add(PersonRow(name=name, role=role, password_hash=hashed, created_at=services.clock(), disabled=False))
        append(session, services.clock(), actor, "person.added", name, {"role": role})


def disable_person(services: Services, name: str, actor: str) -> None:
    """Disable an account; its tokens stop working at once. Again changes nothing.

    Raises: NotFoundError.
    """
    with services.transaction() as session:
        person = stores.find_person(session, name)
        if person is None:
            raise NotFoundError(f"There is no account {name!r}.", "See `wardround hub users list`.")
        if not person.disabled:
            person.disabled = True
            append(session, services.clock(), actor, "person.disabled", name, {})


def change_site(services: Services, name: str, event: SiteEvent, actor: str) -> SiteState:
    """Suspend a site (its tokens stop working at once) or let it come back, and return its state.

    Raises: NotFoundError, StateError.
    """
    with services.transaction() as session:
        site = stores.site(session, name)
        state = next_site_state(site.state, event)
        site.state = state
        append(session, services.clock(), actor, f"site.{state}", name, {})
    return state


def _enrol(session: Session, services: Services, site: SiteRow, enrolment: Enrolment) -> None:
    if site.state != SiteState.INVITED:
        raise InvitationError(
            f"The site is {site.state} with other keys.",
            "Enrol again from the folder that holds the site's first keys.",
        )
    site.state = next_site_state(site.state, SiteEvent.ENROL)
    site.identity_key, site.transport_key = enrolment.identity_key, enrolment.transport_key
    site.enrolled_at = site.last_seen_at = services.clock()
    keys = {"identity_key": site.identity_key, "transport_key": site.transport_key}
    append(session, services.clock(), f"site:{site.name}", "site.enrolled", site.name, keys)


def _is_repeated(site: SiteRow, enrolment: Enrolment) -> bool:
    """Tell whether this very enrolment was taken before, and only its answer was lost."""
    kept = (site.identity_key, site.transport_key)
    return site.state == SiteState.ENROLLED and kept == (enrolment.identity_key, enrolment.transport_key)


def _expiry(site: SiteRow | None) -> float | None:
    return site.code_expires_at if site else None


def _check_name(name: str) -> None:
    if re.fullmatch(NAME_PATTERN, name) is None:
        raise RequestError(
            f"{name[:80]!r} is not a usable name.", "Use 1 to 63 lower-case letters, digits and dashes, e.g. 'st-anna'."
        )
