"""Who asks, and what only an admin may do: checked on the server, wherever the request comes from."""

import functools
import getpass
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import Depends, HTTPException, Request

from opadpo.accounts.people import User

if TYPE_CHECKING:
    import gradio as gr

T = TypeVar("T")
REFUSED = "Only an admin may do this"


def owner() -> User:
    """The user whom this process belongs to; without accounts, everything is theirs to do."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "owner"
    return User(name, "admin")


def user_of(request: "Request | gr.Request | None") -> User | None:
    """Who asks; None if the request did not come through the gate."""
    return getattr(getattr(request, "state", None), "user", None)


def name_of(request: "Request | gr.Request | None") -> str:
    """The name of who asks; the owner's where there is no gate."""
    return (user_of(request) or owner()).name


def admin(request: Request) -> User:
    """The admin who asks; a dependency for routes of the API.

    Raises:
        HTTPException: 403, if it is anybody else.
    """
    user = user_of(request)
    if user is None or user.role != "admin":
        raise HTTPException(403, REFUSED)
    return user


Admin = Annotated[User, Depends(admin)]
"""Type of a route's parameter: `def route(me: Admin)` is an admin's only."""


def admin_only(handler: Callable[..., T]) -> Callable[..., T]:
    """Decorate a handler of a Gradio event: whoever else calls it, by whatever address, gets an error.

    Gradio offers every event over HTTP, also those of hidden buttons, so the check must be in the handler.
    """
    import gradio as gr

    def check(request: "gr.Request | None") -> None:
        user = user_of(request)
        if user is None or user.role != "admin":
            raise gr.Error(REFUSED, print_exception=False)

    call: Any = handler
    # Gradio looks at what kind of function it has.
    if inspect.isasyncgenfunction(handler):

        async def guarded(request: gr.Request, *arguments: Any):  # pyright: ignore[reportRedeclaration]
            check(request)
            async for value in call(*arguments):
                yield value

    elif inspect.iscoroutinefunction(handler):

        async def guarded(request: gr.Request, *arguments: Any):  # pyright: ignore[reportRedeclaration]
            check(request)
            return await call(*arguments)

    elif inspect.isgeneratorfunction(handler):

        def guarded(request: gr.Request, *arguments: Any):  # pyright: ignore[reportRedeclaration]
            check(request)
            yield from call(*arguments)

    else:

        def guarded(request: gr.Request, *arguments: Any):
            check(request)
            return call(*arguments)

    # It hands in the request, and what the handler itself asks for, by the signature's types.
    own = inspect.signature(handler)
    asked = inspect.Parameter("_asking", inspect.Parameter.POSITIONAL_ONLY, annotation=gr.Request)
    positional = [p.replace(kind=inspect.Parameter.POSITIONAL_ONLY) for p in own.parameters.values()]
    wrapped: Any = functools.wraps(handler)(guarded)
    wrapped.__signature__ = own.replace(parameters=[asked, *positional])
    wrapped.__annotations__ = {**handler.__annotations__, "_asking": gr.Request}
    return wrapped
