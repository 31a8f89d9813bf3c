"""The web server: Gradio pages, images by record id, nothing else of the disk."""

import contextlib
import logging
import os
import socket
import sys
import threading
import warnings
from typing import TYPE_CHECKING

from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse

from app.access.doors import AccountDoor, LinkDoor
from app.access.gate import Gate
from app.access.guard import name_of
from app.access.hosts import Hosts
from app.listening import Address, bind, opened
from app.markup import PAGES
from opadpo.accounts.database import Database
from opadpo.accounts.people import People
from opadpo.accounts.sessions import Sessions
from opadpo.errors import UserError
from opadpo.workspace import Workspace

if TYPE_CHECKING:
    import gradio as gr

    from opadpo.review.desk import Desk

IDLE_SECONDS = 0.05
"""How long Gradio's queue of events rests when it is empty; our pages wait for none of its events."""


def create(workspace: Workspace) -> FastAPI:
    """The application of one workspace, without the gate before it: whoever calls it is the owner."""
    # Gradio asks a server of its makers for a newer version unless it is told not to; this must precede its import.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    import gradio as gr

    from app import files
    from app.api import asking, compare, errors, jobs, review
    from app.jobs.refreshing import Refresher
    from app.theme import ASSETS, STYLES, theme
    from opadpo.comparing.live import LiveAsking
    from opadpo.comparing.service import Comparing
    from opadpo.jobs.service import Jobs
    from opadpo.review.desk import Desk

    desk = Desk(workspace)
    api = FastAPI(title="opadpo", docs_url=None, redoc_url=None, openapi_url=None)
    api.state.desk = desk
    api.state.comparing = Comparing(workspace, lambda: desk.catalogue.store)
    api.state.live = LiveAsking(workspace)
    api.state.jobs = Jobs(workspace)
    api.state.refresher = Refresher(api.state.jobs)
    errors.install(api)
    api.include_router(review.router(desk))
    api.include_router(compare.router(api.state.comparing))
    api.include_router(asking.router(api.state.live))
    api.include_router(jobs.router(api.state.jobs, api.state.refresher))

    files.serve(api)

    _serve_pictures(api, workspace, desk)
    pages = _pages(workspace)
    script = f"<script>{(ASSETS / 'app.js').read_text(encoding='utf-8')}</script>"
    with warnings.catch_warnings():
        # Gradio says that several pages switch server-side rendering off, also to those who did so themselves.
        warnings.filterwarnings("ignore", message="SSR mode is not supported", category=UserWarning)
        return gr.mount_gradio_app(
            api,
            pages,
            path="/",
            theme=theme(),
            css_paths=STYLES,
            head=script,
            footer_links=[],
            run_history=False,
            auth_dependency=name_of,
            show_error=False,
            ssr_mode=False,
        )


def _serve_pictures(api: FastAPI, workspace: Workspace, desk: "Desk") -> None:
    """Images by the ids of their prompts, figures by their names: nothing else of the disk."""
    from opadpo.plots import FIGURES

    @api.get("/images")
    def image(prompt: str) -> FileResponse:
        """The image of a prompt, by the prompt's id only."""
        try:
            record = desk.catalogue.prompt(prompt)
        except UserError as error:  # damaged prompts or rollouts; the page itself says what to do
            raise HTTPException(404, "no such image in this workspace") from error
        folder = workspace.prompts.resolve()
        path = (folder / record["image_file"]).resolve() if record else None
        if path is None or folder not in path.parents or not path.is_file():
            raise HTTPException(404, "no such image in this workspace")
        return FileResponse(
            path, headers={"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}
        )

    @api.get("/figures/{name}")
    def figure(name: str) -> FileResponse:
        """A figure of the workspace, by one of the known names."""
        path = workspace.root / "figures" / name
        if name not in FIGURES or not path.is_file():
            raise HTTPException(404, "no such figure in this workspace")
        return FileResponse(path, headers={"Cache-Control": "no-cache"})


def _pages(workspace: Workspace) -> "gr.Blocks":
    """The tabs: the first is Gradio's, in the others it gives the frame to scripts of our own."""
    import gradio as gr

    from app.pages import component, state

    # Whoever may come in can send Gradio files, which no page of ours asks for: they are gone after an hour.
    with gr.Blocks(
        title=f"{workspace.root.name} - opadpo", analytics_enabled=False, delete_cache=(3600, 3600)
    ) as pages:
        gr.Navbar(visible=False)
        state.build(workspace, pages)
    for name, script, *styles in (
        ("Rollouts", "rollouts.js", "desk.css", "rollouts.css"),
        ("Review", "main.js", "desk.css"),
        ("Train", "train.js", "desk.css", "train.css"),
        ("Compare", "compare.js", "desk.css", "compare.css"),
    ):
        with pages.route(name, PAGES[name]):
            gr.Navbar(visible=False)
            component.build(name, workspace.root.name, script, styles)
    # Gradio looks into its queue of events a thousand times a second, which costs an idle app 5 to 8 % of a core.
    pages._queue.sleep_when_free = IDLE_SECONDS
    return pages


def serve(workspace: Workspace, address: Address, *, open_browser: bool = False) -> None:
    """Serve the app until it is interrupted.

    Raises:
        PortInUse: if another program listens there.
        UserError: for an address that other machines can reach while there are no accounts, and for a certificate,
            key, proxy or public address that cannot be used.
    """
    import uvicorn

    database = Database.open(workspace.users_db)
    with_accounts = bool(People(database).list())
    hosts = Hosts.of(address.host, address.public_url)
    listener = bind(address.host, address.port, with_accounts=with_accounts)
    address.check()
    kind = AccountDoor if with_accounts else LinkDoor
    door = kind(workspace, Sessions(database), secure=(hosts.public or "").startswith("https:"))
    link = door.link(address.url(listener.getsockname()[1]))
    application = create(workspace)
    # A new index of many records takes a while: whoever asks for records meanwhile waits for the rest of it only.
    for part in (application.state.desk, application.state.comparing):
        threading.Thread(target=part.prepare, daemon=True).start()
    application.state.refresher.start()
    config = uvicorn.Config(
        Gate(application, door, hosts),
        log_level="warning",
        access_log=False,  # it would hold the token
        server_header=False,
        # An open page keeps connections for as long as it is open: without a limit Ctrl+C would wait for it.
        timeout_graceful_shutdown=1,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
        proxy_headers=address.proxy is not None,
        forwarded_allow_ips=address.proxy or "",
    )
    print(f"opadpo: {workspace.root.name} is open at {link}   (Ctrl+C ends it)", flush=True)
    for warning in address.warnings():
        print(f"warning: {warning}", file=sys.stderr, flush=True)

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # a page that is cut off now is no error
            await super().shutdown(sockets)

    with contextlib.closing(application.state.live), opened(link) if open_browser else contextlib.nullcontext():
        Server(config).run(sockets=[listener])
