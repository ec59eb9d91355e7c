"""Sign-in to a hospital's own pages: with the token of its own API, which goes into the HttpOnly cookie and no further.

The same doorkeeper, cookie and refusals of other origins as at a hub's pages (`sign_in.py`). A sign-in lasts at most
half a day, however long the token counts.
"""

import time
from urllib.parse import urlsplit

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ui.errors import SignedOutError, UiError
from ui.settings import UiSettings
from ui.sign_in import (
    NOTICES,
    SIGN_IN,
    form_of,
    safe_path,
    same_origin,
    sign_in_page,
    sign_out_route,
    signed_in,
)
from ui.site_client import SiteClient, open_site_http
from ui.site_views import SitePerson

MOST_SECONDS = 12 * 3600
MOST_CHARACTERS = 200
FIELDS = """\
<label for="token">Token</label><input id="token" name="token" type="password" autocomplete="current-password"
   spellcheck="false" required autofocus>"""
FOOT = "No token yet? The hospital's administrator makes one: wardround site tokens add."


def site_sign_in_routes(settings: UiSettings) -> list[Route]:
    """Return the routes that set and clear the cookie, for `st.App`."""
    lead = f"to the hospital's own node at {urlsplit(settings.site_url).netloc}"

    def page(target: str, *, problem: str = "", info: str = "", status: int = 200) -> Response:
        return sign_in_page(lead, FIELDS, FOOT, target, problem=problem, info=info, status=status)

    async def show(request: Request) -> Response:
        return page(request.query_params.get("next", "/"), info=NOTICES.get(request.query_params.get("notice", ""), ""))

    async def enter(request: Request) -> Response:
        if not same_origin(request):
            return page("/", problem="That form came from another site. Sign in here.", status=403)
        form = await form_of(request)
        token, target = form.get("token", "").strip(), safe_path(form.get("next", "/"))
        if not token.isascii() or not token.isprintable() or not 0 < len(token) <= MOST_CHARACTERS:
            return page(target, problem=NO_TOKEN, status=401)
        try:
            person = await anyio.to_thread.run_sync(_person, settings.site_url, token)
        except SignedOutError:
            return page(target, problem=NO_TOKEN, status=401)
        except UiError as error:
            return page(target, problem=f"{error.message} {error.remedy}", status=502)
        seconds = min(MOST_SECONDS, max(0, int(person.ends_at - time.time())))
        return signed_in(request, settings, target, token, seconds)

    return [Route(SIGN_IN, show, methods=["GET"]), Route(SIGN_IN, enter, methods=["POST"]), sign_out_route(settings)]


NO_TOKEN = "That token does not count here: it ended, was revoked, or is of another hospital."  # noqa: S105 - words


def _person(site_url: str, token: str) -> SitePerson:
    with open_site_http(site_url) as http:
        return SiteClient(http, token).me()
