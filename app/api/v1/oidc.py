"""Logging in by another identity provider; Google's addresses are its own."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, status
from fastapi.responses import RedirectResponse

from app.api.deps import ClientDep, RuntimeDep, SessionDep
from app.schemas.oidc import OidcExchange, OidcReturn, ProvidersRead
from app.schemas.user import TokenPair

router = APIRouter(prefix="/auth", tags=["auth"])

_HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
_MAX_AGE = 600  # seconds, as long as a login may take


class Browser:
    """The mark of a browser: a cookie that no other site, nor a sibling's, can set."""

    def __init__(self, request: Request, runtime: RuntimeDep) -> None:
        self._secure = runtime.settings.server.url.startswith("https://")
        self._name = f"{'__Host-' if self._secure else ''}workroom_login"
        self.mark = request.cookies.get(self._name)

    def go(self, url: str, *, mark: str) -> RedirectResponse:
        response = RedirectResponse(url, status.HTTP_302_FOUND, _HEADERS)
        response.set_cookie(
            self._name,
            mark,
            max_age=_MAX_AGE,
            secure=self._secure,
            httponly=True,
            samesite="lax",
        )
        return response


BrowserDep = Annotated[Browser, Depends()]
ReturnDep = Annotated[OidcReturn, Query()]


@router.get("/oidc")
async def identity_providers(runtime: RuntimeDep) -> ProvidersRead:
    return ProvidersRead(items=runtime.oidc.names)


@router.get("/oidc/{provider}/login", status_code=status.HTTP_302_FOUND)
async def oidc_login(
    runtime: RuntimeDep, browser: BrowserDep, provider: str
) -> RedirectResponse:
    begun = await runtime.oidc.begin(provider, browser.mark)
    return browser.go(begun.url, mark=begun.browser)


@router.get("/oidc/{provider}/callback", status_code=status.HTTP_302_FOUND)
async def oidc_callback(
    runtime: RuntimeDep, browser: BrowserDep, provider: str, query: ReturnDep
) -> RedirectResponse:
    page = await runtime.oidc.finish(
        provider, state=query.state, code=query.code, browser=browser.mark
    )
    return RedirectResponse(page, status.HTTP_302_FOUND, _HEADERS)


@router.post("/oidc/{provider}/exchange")
async def oidc_exchange(
    session: SessionDep,
    runtime: RuntimeDep,
    client: ClientDep,
    provider: str,
    form: OidcExchange,
) -> TokenPair:
    return await runtime.oidc.exchange(session, provider, form, client)


@router.get("/google/login", status_code=status.HTTP_302_FOUND)
async def google_login(runtime: RuntimeDep, browser: BrowserDep) -> RedirectResponse:
    return await oidc_login(runtime, browser, "google")


@router.get("/google/callback", status_code=status.HTTP_302_FOUND)
async def google_callback(
    runtime: RuntimeDep, browser: BrowserDep, query: ReturnDep
) -> RedirectResponse:
    return await oidc_callback(runtime, browser, "google", query)


@router.post("/google/exchange")
async def google_exchange(
    session: SessionDep, runtime: RuntimeDep, client: ClientDep, form: OidcExchange
) -> TokenPair:
    return await runtime.oidc.exchange(session, "google", form, client)
