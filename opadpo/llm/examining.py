"""Whether a server can be used, found out with one cheap call."""

from typing import NamedTuple

from opadpo.errors import OpadpoError
from opadpo.llm.endpoint import Endpoint
from opadpo.llm.prices import PriceTable
from opadpo.llm.running import run_to_end
from opadpo.recipe.endpoints import EndpointSection


class Examined(NamedTuple):
    """What was found."""

    seen: str
    """One line for people."""
    problem: OpadpoError | None = None
    """Why it cannot be used; None if it can."""
    model_listed: bool = True
    """False if the server lists its models and the recipe's is not among them."""


def examine_endpoint(section: EndpointSection) -> Examined:
    """Ask a server for its list of models: that needs an address and a key that are right, and costs nothing."""
    return run_to_end(_examine(section))


async def _examine(section: EndpointSection) -> Examined:
    try:
        endpoint = Endpoint(section, PriceTable(), 1)
        try:
            models = await endpoint.make_contact()
        finally:
            await endpoint.close()
    except OpadpoError as error:
        return Examined(f"{error.what}: {error.seen}", error)
    # Azure lists the models that a resource could have, not its deployments.
    listed = not models or section.model in models or section.provider == "azure"
    seen = f"{endpoint.base_url} answers" + ("" if listed else f", but does not list the model {section.model}")
    return Examined(seen, None, listed)
