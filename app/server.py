"""The web server: Gradio pages, images by record id, nothing else of the disk."""

import errno
import logging
import os
import socket
import threading
import warnings

from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse

from opadpo.errors import PortInUse, UserError
from opadpo.workspace import Workspace

LOOPBACK = ("127.0.0.1", "localhost", "::1")
DEFAULT_PORT = 7860


def create(workspace: Workspace) -> FastAPI:
    """The application of one workspace."""
    # Gradio asks a server of its makers for a newer version unless it is told not to; this must precede its import.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    import gradio as gr

    from app import files
    from app.api import errors, review
    from app.pages import component, state
    from app.theme import ASSETS, CSS, theme
    from opadpo.plots import FIGURES
    from opadpo.review.desk import Desk

    desk = Desk(workspace)
    api = FastAPI(title="opadpo", docs_url=None, redoc_url=None, openapi_url=None)
    api.state.desk = desk
    errors.install(api)
    api.include_router(review.router(desk))

    files.serve(api)

    @api.get("/images")
    def image(prompt: str) -> FileResponse:
        """The image of a prompt, by the prompt's id only."""
        try:
            record = desk.catalogue.prompt(prompt)
        except UserError as error:  # damaged prompts or rollouts; the page itself says what to do
            raise HTTPException(404, "no such image in this workspace") from error
        path = workspace.prompts / record["image_file"] if record else None
        if path is None or not path.is_file() or workspace.prompts not in path.resolve().parents:
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

    with gr.Blocks(title=f"{workspace.root.name} - opadpo", analytics_enabled=False) as pages:
        gr.Navbar(visible=False)
        state.build(workspace, pages)
    with pages.route("Rollouts", "/rollouts"):
        gr.Navbar(visible=False)
        component.build("Rollouts", workspace.root.name, "rollouts.js", ("desk.css", "rollouts.css"))
    with pages.route("Review", "/review"):
        gr.Navbar(visible=False)
        component.build("Review", workspace.root.name, "main.js", ("desk.css",))
    script = f"<script>{(ASSETS / 'app.js').read_text(encoding='utf-8')}</script>"
    with warnings.catch_warnings():
        # Gradio says that several pages switch server-side rendering off, also to those who did so themselves.
        warnings.filterwarnings("ignore", message="SSR mode is not supported", category=UserWarning)
        return gr.mount_gradio_app(
            api,
            pages,
            path="/",
            theme=theme(),
            css_paths=[CSS],
            head=script,
            footer_links=[],
            show_error=False,
            ssr_mode=False,
        )


def serve(
    workspace: Workspace, *, host: str = "127.0.0.1", port: int = DEFAULT_PORT, open_browser: bool = False
) -> None:
    """Serve the app until it is interrupted.

    Raises:
        PortInUse: if another program listens there.
        UserError: for an address that other machines can reach: there are no accounts.
    """
    import uvicorn

    listener = bind(host, port)
    application = create(workspace)
    # A new index of many records takes a while: whoever asks for records meanwhile waits for the rest of it only.
    threading.Thread(target=application.state.desk.prepare, daemon=True).start()
    url = f"http://{host}:{listener.getsockname()[1]}/"
    print(f"opadpo: {workspace.root.name} is open at {url}   (Ctrl+C ends it)", flush=True)
    if open_browser:
        import webbrowser

        webbrowser.open(url)

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # a page that is cut off now is no error
            await super().shutdown(sockets)

    # An open page keeps connections for as long as it is open: without a limit Ctrl+C would wait for it.
    server = Server(uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=1))
    server.run(sockets=[listener])


def bind(host: str, port: int) -> socket.socket:
    """A listening socket, bound before anything heavy starts so that a taken port is told at once.

    Raises:
        PortInUse, UserError: as `serve`.
    """
    if host not in LOOPBACK:
        raise UserError(
            "The app has no accounts, so it listens on this machine only",
            seen=f"--host {host}",
            remedy="leave --host away, and reach it from elsewhere through an SSH tunnel (ssh -L 7860:127.0.0.1:7860)",
        )
    # Without the protocol's number asyncio leaves Nagle's algorithm on: every answer would wait 40 ms for an ACK.
    family = socket.AF_INET6 if host == "::1" else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise PortInUse(
                "The app cannot listen on this port",
                seen=f"{host}:{port} ({error.strerror})",
                remedy="choose another with --port",
            ) from error
        raise
    return listener
