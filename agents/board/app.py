"""The web application: pages and JSON from memory, and actions for those who have logged in."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agents.board.access import COOKIE, HEADERS, SESSION_S, Access, Session, same_origin
from agents.board.actions import REPAIRS, Actions
from agents.board.memory import Look, Memory
from agents.board.panels import countdown, groups, letters, nights, subscriptions, system
from agents.board.reading import Reading
from agents.board.sparkline import sparkline
from agents.board.words import FILTERS, UNKNOWN, utc
from agents.delivery.redrive import MOST, parse
from agents.plan_changes.reasons import in_words
from streams.core.errors import CurfewError

HERE: Final = Path(__file__).parent
#: From top to bottom.
PANELS: Final = {one.NAME: one.TITLE for one in (countdown, nights, letters, groups, subscriptions, system)}
#: Seconds from one refresh to the next that can be chosen; 0 is a pause.
PACES: Final = (2, 5, 15, 60, 0)
DEFAULT_PACE: Final = 5
#: A form of the board is a few hundred bytes, with the places of some hundred letters in it.
MOST_FORM_BYTES: Final = 64_000
#: Forms that are known to have been sent: a click too many, or a page that is loaded again, is no second redrive.
REMEMBERED: Final = 1_000
LONGEST_NAME: Final = 60

log = structlog.get_logger(__name__)

Form = dict[str, list[str]]


class Board:
    """One board over what a :class:`Reading` keeps in ``memory``; :attr:`app` is what a server runs."""

    def __init__(
        self, memory: Memory, reading: Reading, actions: Actions, access: Access, *, hosts: Sequence[str]
    ) -> None:
        self._memory = memory
        self._reading = reading
        self._actions = actions
        self._access = access
        self._used: deque[str] = deque(maxlen=REMEMBERED)
        self._templates = Jinja2Templates(directory=HERE / "templates")
        self._templates.env.filters |= FILTERS
        self._templates.env.globals |= {"sparkline": sparkline}
        self._templates.env.trim_blocks = self._templates.env.lstrip_blocks = True
        self.app = Starlette(
            routes=[
                Route("/", self._read(self.page)),
                Route("/panels/{name}", self._read(self.panel)),
                Route("/changes/{service_id:path}", self._read(self.change)),
                Route("/changes/{service_id:path}", self._act(self.repair), methods=["POST"]),
                Route("/waiting", self._read(self.waiting)),
                Route("/waiting", self._act(self.repair_all), methods=["POST"]),
                Route("/letters", self._read(self.letters)),
                Route("/letters/{place:path}", self._read(self.letter)),
                Route("/redrive", self._act(self.redrive), methods=["POST"]),
                Route("/login", self.login_page),
                Route("/login", self.login, methods=["POST"]),
                Route("/logout", self._act(self.logout), methods=["POST"]),
                Route("/health", self.health),
                Mount("/static", StaticFiles(directory=HERE / "static")),
            ],
            middleware=[
                Middleware(_WithHeaders),
                # A name of somebody else that points here (DNS rebinding) must not make this page theirs.
                Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
            ],
            exception_handlers={HTTPException: self._refused, CurfewError: self._failed},
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self._reading.start()
        try:
            yield
        finally:
            await asyncio.to_thread(self._reading.stop)

    # -- who may do what --------------------------------------------------------------------------------------------

    def _read(self, page: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """A page that changes nothing; beyond loopback it needs a login too."""

        async def guarded(request: Request) -> Response:
            if self._access.private and self._access.session(request) is None:
                if _wants_json(request) or "hx-request" in request.headers:
                    raise HTTPException(401, "log in first")
                return RedirectResponse("/login", 303)
            return await page(request)

        return guarded

    def _act(
        self, action: Callable[[Request, Session, Form], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """An action: from a page of this board, by somebody who has logged in."""

        async def guarded(request: Request) -> Response:
            session = self._access.session(request)
            why = None
            if self._access.read_only:
                why = "this board is read-only: it has no token (setting board_token, CURFEW_BOARD_TOKEN)"
            elif not same_origin(request):
                why = "this did not come from a page of this board"
            elif session is None:
                why = "log in first"
            if why is not None or session is None:
                log.warning("board.refused", path=request.url.path, why=why)
                raise HTTPException(403, why)
            return await action(request, session, await _form(request))

        return guarded

    # -- pages ------------------------------------------------------------------------------------------------------

    async def page(self, request: Request) -> Response:
        """Everything."""
        if _wants_json(request):
            return JSONResponse({name: self._json(name) for name in PANELS})
        pace = _pace(request)
        looks = {name: self._memory.look(name) for name in PANELS}
        return self._render(request, "board.html", pace=pace, looks=looks)

    async def panel(self, request: Request) -> Response:
        """One panel, as a part of the page, or as JSON."""
        name = request.path_params["name"]
        if name not in PANELS:
            raise HTTPException(404, f"there is no panel {name}; there are {', '.join(PANELS)}")
        if _wants_json(request):
            return JSONResponse(self._json(name))
        return self._render(request, "panel.html", name=name, look=self._memory.look(name), pace=_pace(request))

    async def change(self, request: Request) -> Response:
        """A change that waits for a person, and what may be done."""
        service_id = request.path_params["service_id"]
        found = self._memory.detail("change", service_id)
        if _wants_json(request):
            return _json_of(found, f"no change of {service_id} waits for a person")
        return self._render(
            request, "change.html", status=200 if found else 404,
            service_id=service_id, change=found, request_id=str(uuid.uuid4()),
        )  # fmt: skip

    async def waiting(self, request: Request) -> Response:
        """All changes that wait for a person for one reason, to be repaired together."""
        state, reason = (request.query_params.get(name, "") for name in ("state", "reason"))
        found = self._waiting(state, reason)
        if _wants_json(request):
            return JSONResponse(found)
        return self._render(
            request, "waiting.html", changes=found, state=state, reason=reason, once=str(uuid.uuid4())
        )  # fmt: skip

    def _waiting(self, state: str, reason: str) -> list[Any]:
        kept = self._memory.details("change").values()
        found = [one for one in kept if one["state"] == state and (one["reason"] or "") == reason]
        return found[:MOST]

    async def letters(self, request: Request) -> Response:
        """The newest letters of one worker and reason, together."""
        app, reason = (request.query_params.get(name, "") for name in ("app", "reason"))
        kept = self._memory.details("letter").values()
        found = [one for one in kept if (one["app"], one["reason"]) == (app, reason) and one["redriven"] is None]
        if _wants_json(request):
            return JSONResponse(found)
        return self._render(request, "letters.html", app=app, reason=reason, letters=found[-MOST:])

    async def letter(self, request: Request) -> Response:
        """One dead letter."""
        place = request.path_params["place"]
        found = self._memory.detail("letter", place)
        if _wants_json(request):
            return _json_of(found, f"{place} is not among the newest letters")
        return self._render(request, "letter.html", status=200 if found else 404, place=place, letter=found)

    async def health(self, request: Request) -> Response:
        """For a supervisor: this process answers; what it sees is on the page."""
        return JSONResponse({"panels": {name: self._memory.look(name).problem for name in PANELS}})

    # -- actions ----------------------------------------------------------------------------------------------------

    async def repair(self, request: Request, session: Session, form: Form) -> Response:
        """Retry or resolve a change."""
        service_id, repair = request.path_params["service_id"], _one(form, "repair")
        found = self._memory.detail("change", service_id)
        if repair not in REPAIRS:
            raise HTTPException(400, f"choose one of {', '.join(REPAIRS)}")
        if found is None or str(found["revision"]) != _one(form, "revision"):
            raise HTTPException(409, f"the change of {service_id} is another one by now: look again")
        request_id = _uuid(form, "request_id")
        if repair == "abandon" and _one(form, "confirm") != "yes":
            return self._render(request, "abandon.html", change=found, request_id=request_id)
        reply = await asyncio.to_thread(self._actions.repair, found, repair, request_id, session.name)
        log.info("board.repaired", service_id=service_id, repair=repair, by=session.name)
        self._reading.soon()
        words = [] if reply is None else in_words(reply.reasons, reply.state)
        return self._render(request, "repaired.html", change=found, repair=repair, reply=reply, words=words)

    async def repair_all(self, request: Request, session: Session, form: Form) -> Response:
        """Those changes that the person has seen, if they still wait for the same reason."""
        repair, once = _one(form, "repair"), _uuid(form, "once")
        if repair not in REPAIRS or repair == "abandon":
            raise HTTPException(400, "choose one of retry, finish_late, roll; abandon is for one change at a time")
        wanted = set(zip(form.get("service_id", []), form.get("revision", []), strict=False))
        found = [
            one
            for one in self._waiting(_one(form, "state"), _one(form, "reason"))
            if (one["service_id"], str(one["revision"])) in wanted
        ]
        if not found:
            raise HTTPException(409, "none of these changes waits any more: look again")
        await asyncio.to_thread(self._actions.repair_all, found, repair, once, session.name)
        log.info("board.repaired_all", changes=len(found), repair=repair, by=session.name)
        self._reading.soon()
        return self._render(request, "sent.html", changes=found, repair=repair)

    async def redrive(self, request: Request, session: Session, form: Form) -> Response:
        """First what would happen, then, confirmed, that it happens."""
        places = form.get("place", [])
        if not places or len(places) > MOST:
            raise HTTPException(400, f"choose 1 to {MOST} letters at once")
        try:
            for place in places:
                parse(place)
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        if _one(form, "confirm") != "yes":
            steps = await asyncio.to_thread(self._actions.dry_run, places)
            return self._render(request, "redrive.html", steps=steps, sent=None, once=str(uuid.uuid4()))
        once = _uuid(form, "once")
        if once in self._used:
            raise HTTPException(409, "this was sent already; look at the letters before you send them again")
        self._used.append(once)
        steps = await asyncio.to_thread(self._actions.redrive, places, session.name)
        log.info("board.redriven", letters=len(steps), by=session.name)
        self._reading.soon()
        sent = sum(one.refused is None for one in steps)
        return self._render(request, "redrive.html", steps=steps, sent=sent, once=None)

    async def login_page(self, request: Request) -> Response:
        """The form."""
        return self._render(request, "login.html", wrong=False)

    async def login(self, request: Request) -> Response:
        """A cookie for the right token."""
        if not same_origin(request):
            raise HTTPException(403, "this did not come from a page of this board")
        form = await _form(request)
        name = " ".join(_one(form, "name").split())[:LONGEST_NAME]
        value = self._access.login(_one(form, "token"), name) if name else None
        if value is None:
            log.warning("board.wrong_token", name=name)
            return self._render(request, "login.html", status=403, wrong=True)
        log.info("board.logged_in", name=name)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            COOKIE, value, max_age=SESSION_S, httponly=True, samesite="strict", secure=request.url.scheme == "https"
        )
        return answer

    async def logout(self, request: Request, session: Session, form: Form) -> Response:
        """Forget the session."""
        self._access.logout(request)
        answer = RedirectResponse("/", 303)
        answer.delete_cookie(COOKIE)
        return answer

    # -- how it is told ---------------------------------------------------------------------------------------------

    def _json(self, name: str) -> dict[str, Any]:
        look = self._memory.look(name)
        return {"panel": name, "read_at": utc(look.read_at), "problem": look.problem, "data": look.data}

    def _render(self, request: Request, template: str, *, status: int = 200, **about: Any) -> Response:
        context = {
            "panels": PANELS,
            "paces": PACES,
            "word": lambda look: _word(look),
            "session": self._access.session(request),
            "read_only": self._access.read_only,
            **about,
        }
        return self._templates.TemplateResponse(request, template, context, status_code=status)

    async def _refused(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if _wants_json(request):
            return JSONResponse({"problem": error.detail}, error.status_code)
        return self._render(request, "refused.html", status=error.status_code, why=error.detail)

    async def _failed(self, request: Request, error: Exception) -> Response:
        log.warning("board.action_failed", path=request.url.path, error=str(error))
        return self._render(request, "refused.html", status=503, why=str(error))


class _WithHeaders:
    """Puts the security headers on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                have = {name for name, _ in message["headers"]}
                extra = [(name.lower().encode(), text.encode()) for name, text in HEADERS.items()]
                message["headers"] = [*message["headers"], *(pair for pair in extra if pair[0] not in have)]
            await send(message)

        await self._app(scope, receive, sending)


def _wants_json(request: Request) -> bool:
    return request.query_params.get("format") == "json"


def _json_of(found: Any | None, missing: str) -> Response:
    return JSONResponse({"problem": missing}, 404) if found is None else JSONResponse(found)


def _word(look: Look) -> str:
    """The word beside a panel's name."""
    return UNKNOWN if look.data is None or look.problem is not None else str(look.data["word"])


def _pace(request: Request) -> int:
    try:
        wanted = int(request.query_params.get("every", DEFAULT_PACE))
    except ValueError:
        return DEFAULT_PACE
    return wanted if wanted in PACES else DEFAULT_PACE


async def _form(request: Request) -> Form:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_FORM_BYTES:
            raise HTTPException(413, "this is more than a form of the board")
    return parse_qs(body.decode("utf-8", "replace"))


def _one(form: Form, name: str) -> str:
    return form.get(name, [""])[-1]


def _uuid(form: Form, name: str) -> str:
    try:
        return str(uuid.UUID(_one(form, name)))
    except ValueError:
        raise HTTPException(400, f"{name} must be a UUID") from None
