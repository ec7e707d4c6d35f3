"""Mailed links: asking for them, using them, and the pages that they open."""

from base64 import b64encode
from hashlib import sha256
from html import escape
from typing import NamedTuple

from fastapi import APIRouter, status
from fastapi.responses import HTMLResponse

from app.api.deps import (
    AccountsDep,
    ClientDep,
    FreshUser,
    LoggedIn,
    RuntimeDep,
    SessionDep,
)
from app.schemas.link import Accepted, AddressForm, Confirmation, PasswordReset
from app.schemas.user import UserRead

router = APIRouter(prefix="/auth", tags=["auth"])
pages = APIRouter(include_in_schema=False)


@router.post("/verify-email")
async def verify_email(
    session: SessionDep,
    accounts: AccountsDep,
    logged_in: LoggedIn,
    client: ClientDep,
    form: Confirmation,
) -> UserRead:
    """Confirm an address: that of a new account, or the new one of an account.

    The link proves who has the address. That they signed up, too, shows the network
    address, or else `password`, or an access token of the account.
    """
    user = await accounts.verify(session, form, client, logged_in=logged_in)
    return UserRead.model_validate(user)


@router.post("/resend-verification", status_code=status.HTTP_202_ACCEPTED)
async def resend_verification(
    session: SessionDep, accounts: AccountsDep, client: ClientDep, form: AddressForm
) -> Accepted:
    """Ask for another link to verify an address; the answer is the same for any."""
    await accounts.resend(session, form.email, client)
    return Accepted()


@router.post("/forgot-password", status_code=status.HTTP_202_ACCEPTED)
async def forgot_password(
    session: SessionDep, accounts: AccountsDep, client: ClientDep, form: AddressForm
) -> Accepted:
    """Ask for a link to choose a new password; the answer is the same for any."""
    await accounts.forgot(session, form.email, client)
    return Accepted()


@router.post("/reset-password", status_code=status.HTTP_204_NO_CONTENT)
async def reset_password(
    session: SessionDep, accounts: AccountsDep, client: ClientDep, form: PasswordReset
) -> None:
    """Choose a new password with a mailed link; every session of the account ends."""
    await accounts.reset(session, form, client)


@router.post("/change-email", status_code=status.HTTP_202_ACCEPTED)
async def change_email(
    session: SessionDep,
    accounts: AccountsDep,
    user: FreshUser,
    client: ClientDep,
    form: AddressForm,
) -> Accepted:
    """Ask for another address: it counts once the link mailed there is used."""
    await accounts.change_email(session, user, form.email, client)
    return Accepted()


# The pages. A mailed link only opens one: what reads mail before its owner does, and
# follows the links, uses none up.

_SCRIPT = """
const form = document.querySelector('form'), note = document.querySelector('output');
const token = new URLSearchParams(location.hash.slice(1)).get('token');
form.onsubmit = async (event) => {
  event.preventDefault();
  const body = Object.fromEntries(new FormData(form));
  if (token) body.token = token;
  const answer = await fetch(form.dataset.call, {
    method: 'POST', body: JSON.stringify(body),
    headers: {'Content-Type': 'application/json'}
  });
  if (answer.ok) form.hidden = true;
  note.textContent = answer.ok ? form.dataset.done : (await answer.json()).detail;
};
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex, nofollow">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.6 system-ui, sans-serif; max-width: 26rem; margin: 15vh auto;
  padding: 0 1.5rem; }}
h1 {{ font-size: 1.6rem; }}
label, input, button {{ display: block; width: 100%; box-sizing: border-box;
  font: inherit; }}
input, button {{ padding: .5rem; margin: .3rem 0 1rem; }}
[hidden] {{ display: none; }}
</style>
</head>
<body>
<h1>{title}</h1>
<form data-call="api/v1/auth/{call}" data-done="{done}">
{fields}<button>{button}</button>
</form>
<output></output>
<p>{name}</p>
<script>{script}</script>
</body>
</html>
"""
_HASH = b64encode(sha256(_SCRIPT.encode()).digest()).decode()
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    f"script-src 'sha256-{_HASH}'; connect-src 'self'; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'none'",
}


class _Page(NamedTuple):
    title: str
    call: str
    button: str
    done: str
    fields: str = ""


_VERIFY = _Page(
    "Confirm your address",
    "verify-email",
    "Confirm",
    "Your address is confirmed. You can log in now.",
    "<p>If you did not sign up, close this page, and nothing happens.</p>\n"
    '<label>Your password<input name="password" type="password" '
    'autocomplete="current-password" maxlength="256"></label>\n',
)
_RESET = _Page(
    "Choose a password",
    "reset-password",
    "Save",
    "Your new password is saved. Log in with it.",
    '<label>Password, at least 8 characters<input name="password" type="password" '
    'autocomplete="new-password" minlength="8" maxlength="256" required></label>\n',
)
_FORGOT = _Page(
    "Forgot your password?",
    "forgot-password",
    "Send me a link",
    "If there is an account with this address, a link is on its way there.",
    '<label>E-mail address<input name="email" type="email" autocomplete="email" '
    "required></label>\n",
)


@pages.get("/verify-email", response_class=HTMLResponse)
async def show_verify_email(runtime: RuntimeDep) -> HTMLResponse:
    return _show(_VERIFY, runtime.settings.server.app_name)


@pages.get("/reset-password", response_class=HTMLResponse)
async def show_reset_password(runtime: RuntimeDep) -> HTMLResponse:
    return _show(_RESET, runtime.settings.server.app_name)


@pages.get("/forgot-password", response_class=HTMLResponse)
async def show_forgot_password(runtime: RuntimeDep) -> HTMLResponse:
    return _show(_FORGOT, runtime.settings.server.app_name)


def _show(page: _Page, app_name: str) -> HTMLResponse:
    html = _PAGE.format(**page._asdict(), script=_SCRIPT, name=escape(app_name))
    return HTMLResponse(html, headers=_HEADERS)
