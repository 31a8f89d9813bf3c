"""Verbs that say who may come into the app."""

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from opadpo.cli import layout
from opadpo.cli.running import Outcome, Run, verb
from opadpo.errors import UserError

if TYPE_CHECKING:
    from opadpo.accounts.people import People

Name = Annotated[str, typer.Argument(metavar="NAME", help="The account's name; reviews carry it.", show_default=False)]
FromStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input instead of asking for it.")
]


@verb()
def add(
    run: Run,
    name: Name,
    role: Annotated[
        Literal["reviewer", "admin"], typer.Option(metavar="reviewer|admin", help="What the user may do.")
    ] = "reviewer",
    password_stdin: FromStdin = False,
) -> Outcome:
    """Make an account; the first one must be an admin's."""
    from opadpo.accounts.people import checked_name

    name, people = checked_name(name), _people(run)
    first = not people.list()
    made = people.add(name, role, _password(name, from_stdin=password_stdin))
    data = {"step": "users add", "name": made.name, "role": made.role}
    text = f"{made.name} may come in as {made.role}."
    restart = "\nIf the app is running, end it and start it again: it asks for names and passwords from then on."
    return Outcome(data, text + restart if first else text)


@verb()
def show(run: Run) -> Outcome:
    """Show all accounts."""
    found = _people(run).list()
    rows = [(account.name, account.role, f"{account.created_at:%d %b %Y}") for account in found]
    data = [{**account._asdict(), "created_at": account.created_at.isoformat()} for account in found]
    text = layout.table(rows, header=("name", "role", "since")) if rows else "There are no accounts."
    return Outcome({"step": "users list", "accounts": data}, text, always=True)


@verb()
def remove(run: Run, name: Name) -> Outcome:
    """Remove an account and end its sessions at once; its reviews stay."""
    _people(run).remove(name)
    return Outcome({"step": "users remove", "name": name}, f"{name} may no longer come in.")


@verb()
def password(run: Run, name: Name, password_stdin: FromStdin = False) -> Outcome:
    """Change an account's password and end its sessions at once."""
    _people(run).set_password(name, _password(name, from_stdin=password_stdin))
    return Outcome({"step": "users password", "name": name}, f"The password of {name} is changed; its sessions ended.")


def _people(run: Run) -> "People":
    from opadpo.accounts.database import Database
    from opadpo.accounts.people import People

    return People(Database.open(run.workspace.users_db))


def _password(name: str, *, from_stdin: bool) -> str:
    """A new password: the first line of standard input, or typed twice at the terminal without being shown.

    Raises:
        UserError: if there is no terminal to ask at.
    """
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise UserError(
            "There is no terminal to ask for the password",
            seen="standard input is a file or a pipe",
            remedy="add --password-stdin to read it from there",
        )
    return typer.prompt(f"Password of {name}", hide_input=True, confirmation_prompt="Once more", err=True)


def register(cli: typer.Typer) -> None:
    """Add the verbs to the command line."""
    users = typer.Typer(name="users", help="Say who may come into the app.", no_args_is_help=True)
    users.command("add")(add)
    users.command("list")(show)
    users.command("remove")(remove)
    users.command("password")(password)
    cli.add_typer(users)
