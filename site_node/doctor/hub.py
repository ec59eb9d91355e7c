"""The hub as the agent reaches it: name, proxy, certificate, the hub's key, and whether it still lets this site in.

The same client as the agent's, so that `HTTPS_PROXY`, `NO_PROXY`, `SSL_CERT_FILE` and `SSL_CERT_DIR` count here as
there: run the doctor with the environment of the agent's unit.
"""

import os
import ssl
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import httpx

from protocol.errors import ProtocolError
from protocol.messages import PROTOCOL_VERSION
from protocol.signing import PublicKey, SigningKey
from site_node.agent.hub_client import HubClient, connect
from site_node.agent.state import AgentState, read_state
from site_node.doctor import clock
from site_node.doctor.finding import Finding, fine, problem
from site_node.errors import EnrolmentError, HubRefusedError, HubUnreachableError
from site_node.settings import SiteSettings

CHECK = "hub"
SERVICE = "wardround-hub"
PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
BUNDLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
ENROL = "Run `wardround site enroll DIR --code CODE` with the code of the hub's operator."


def examine(settings: SiteSettings) -> list[Finding]:
    """Ask the hub who it is, compare clocks, and ask for the mailbox as the agent would; nothing is taken from it."""
    environment = os.environ
    findings = [*verdict_on_bundle(environment, os.path.exists), clock.verdict_on_ntp(clock.is_kept_by_ntp())]
    try:
        with connect(settings.hub_url) as http:
            asked_at = clock.now()
            response = http.get("/v1/info")
            skew = clock.skew_of(response.headers.get("date"), asked_at, clock.now())
            state = _state(settings)
            answered = verdict_on_answer(response, state, settings.hub_url, environment)
            findings += [answered, clock.verdict_on_skew(skew)]
            if answered.level == "ok" and state is not None:
                findings.append(_admission(settings, http, state))
    except (httpx.HTTPError, OSError) as error:  # httpx raises OSError for a bundle that is not there
        findings.append(verdict_on_failure(error, settings.hub_url, environment))
    if _state(settings) is None:
        findings.append(problem("enrolment", "The agent knows no hub: this site is not enrolled.", ENROL))
    return findings


def verdict_on_bundle(environment: Mapping[str, str], exists: Callable[[str], bool]) -> list[Finding]:
    """Say which CA bundle the agent trusts, if one is named. Pure."""
    named = {name: environment[name] for name in BUNDLES if environment.get(name)}
    missing = [name for name, path in named.items() if not exists(path)]
    if missing:
        remedy = "Correct the variable in the agent's unit; the file holds the authorities in PEM."
        return [problem("ca bundle", f"{missing[0]} names a bundle that is not there for this user.", remedy)]
    return [fine("ca bundle", f"Trusted are the authorities of {' and '.join(named)}.")] if named else []


def verdict_on_failure(error: Exception, hub_url: str, environment: Mapping[str, str]) -> Finding:
    """Say why no answer came: proxy, certificate, name, or nobody there. Pure; no password of a proxy is repeated."""
    proxy = _proxy_of(hub_url, environment)
    way = f" through the proxy {proxy}" if proxy else ""
    if isinstance(error, httpx.ProxyError):
        remedy = "Check HTTPS_PROXY, its user and password, and that the proxy lets the hub's address through."
        return problem(CHECK, f"The proxy{' ' + proxy if proxy else ''} does not let us to the hub.", remedy)
    if _is_about_certificates(error):
        remedy = (
            "If the hospital's firewall opens TLS, set SSL_CERT_FILE to a bundle with its authority in the agent's "
            "unit; else ask the hub's operator for the certificate's chain. Check the clock too."
        )
        return problem(CHECK, f"The certificate shown at {hub_url}{way} is of no authority trusted here.", remedy)
    if isinstance(error, httpx.TimeoutException):
        remedy = "Ask for outbound HTTPS to this address in the firewall, or set HTTPS_PROXY in the agent's unit."
        return problem(CHECK, f"Nothing answers at {hub_url}{way} within the time allowed.", remedy)
    remedy = "Check the address in site.yaml, the name service, the firewall and HTTPS_PROXY in the agent's unit."
    return problem(CHECK, f"The hub at {hub_url}{way} cannot be reached ({type(error).__name__}).", remedy)


def verdict_on_answer(
    response: httpx.Response, state: AgentState | None, hub_url: str, environment: Mapping[str, str]
) -> Finding:
    """Say whether what answered is this site's hub, in a protocol that is spoken here. Pure."""
    proxy = _proxy_of(hub_url, environment)
    if response.status_code == httpx.codes.PROXY_AUTHENTICATION_REQUIRED:
        return problem(CHECK, "The proxy wants a user and a password.", "Write them into HTTPS_PROXY: http://USER:...@")
    try:
        told = response.json()
        service, versions, key = told["service"], told["protocol_versions"], PublicKey.from_text(told["hub_key"])
    except (ValueError, KeyError, TypeError, ProtocolError):
        remedy = "Correct `hub` in site.yaml; a proxy's or firewall's own page answers like this too."
        return problem(CHECK, f"What answers at {hub_url} (status {response.status_code}) is no Wardround hub.", remedy)
    if service != SERVICE or PROTOCOL_VERSION not in versions:
        return problem(CHECK, f"The hub does not speak protocol {PROTOCOL_VERSION}.", "Upgrade the older of the two.")
    if state is not None and key.text != state.hub_key.text:
        remedy = "Somebody may be in between. Ask the hub's operator by telephone before the agent runs again."
        return problem(CHECK, "What answers shows another key than the hub that this site enrolled with.", remedy)
    return fine(CHECK, f"The hub at {hub_url} answers{' through the proxy ' + proxy if proxy else ''}.")


def verdict_on_refusal(error: HubRefusedError | HubUnreachableError) -> Finding:
    """Say that the hub knows this site no more, or not yet. Pure."""
    remedy = error.remedy or "Ask the hub's operator: a suspended site is let in again with `wardround hub resume`."
    return problem("enrolment", f"The hub does not let this site in: {error.message}", remedy)


def _admission(settings: SiteSettings, http: httpx.Client, state: AgentState) -> Finding:
    if not settings.paths.transport_key.exists():  # never made anew here: the hub knows the old one
        remedy = "Restore it: `wardround site restore`; without a backup the site must enrol again."
        return problem("enrolment", "The agent's transport key is gone.", remedy)
    key = SigningKey.load_or_create(settings.paths.transport_key)
    try:
        waiting = HubClient(http, settings.name, key).mailbox(state.cursor, 0.0)
    except (HubRefusedError, HubUnreachableError) as error:
        return verdict_on_refusal(error)
    return fine("enrolment", f"The hub lets this site in; {len(waiting)} messages wait to be fetched.")


def _state(settings: SiteSettings) -> AgentState | None:
    try:
        return read_state(settings.paths)
    except EnrolmentError:
        return None


def _proxy_of(hub_url: str, environment: Mapping[str, str]) -> str | None:
    scheme = urlsplit(hub_url).scheme
    names = [name for name in PROXIES if name.lower() in (f"{scheme}_proxy", "all_proxy")]
    value = next((environment[name] for name in names if environment.get(name)), None)
    if value is None:
        return None
    parts = urlsplit(value if "://" in value else f"http://{value}")
    return f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname


def _is_about_certificates(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
