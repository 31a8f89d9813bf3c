"""Settings of model servers and of asking them: for the expert, and for judges of benchmarks."""

from typing import Literal

from opadpo.recipe.base import Section, setting


class EndpointSection(Section):
    """A server that speaks the OpenAI protocol."""

    provider: Literal["openai", "azure"] = setting(
        "openai",
        "`openai`: OpenAI itself or anything that speaks its protocol (vLLM, SGLang, `transformers serve`, a gateway);"
        " `azure`: Azure OpenAI.",
        outcome=False,
    )
    base_url: str | None = setting(
        None,
        "Address of the API, for example https://host/v1; none: OpenAI's, or what `server_command` starts. For"
        " `azure` the resource, for example https://NAME.openai.azure.com.",
        outcome=False,
    )
    api_version: str | None = setting(
        None,
        "Version of Azure's API, for example 2024-10-21; none: its unversioned form below /openai/v1/.",
        outcome=False,
    )
    api_key_env: str = setting(
        "OPENAI_API_KEY",
        "Environment variable that holds the key, never the key itself. If it is not set, the key of that"
        " variable in the service `opadpo` of the system's keyring is taken.",
        outcome=False,
    )
    api_key_required: bool = setting(True, "False for servers that take no key.", outcome=False)
    entra: bool = setting(
        False, "Azure: sign in with Microsoft Entra (needs azure-identity) instead of a key.", outcome=False
    )
    model: str = setting("gpt-4o", "Model to ask for; for `azure` the deployment's name.")
    server_command: list[str] = setting(
        [],
        "Command of a local server that the step starts and stops; `{python}` and `{port}` are replaced, and"
        " `base_url` becomes http://127.0.0.1:{port}/v1.",
        outcome=False,
    )
    timeout: float = setting(120.0, "Seconds to wait for an answer.", outcome=False, gt=0)
    concurrency: int | None = setting(
        None, "Requests in flight at this server; none: as many as the step has.", outcome=False, ge=1
    )
    requests_per_minute: int | None = setting(
        None, "Requests sent in any 60 seconds; none: no limit of our own.", outcome=False, ge=1
    )
    tokens_per_minute: int | None = setting(
        None, "Tokens, asked and answered, in any 60 seconds; none: no limit of our own.", outcome=False, ge=1
    )


class PriceSection(Section):
    """What a model costs, in US dollars per million tokens."""

    input: float = setting(0.0, "A million tokens of requests.", outcome=False, ge=0)
    output: float = setting(0.0, "A million tokens of answers.", outcome=False, ge=0)
    cached_input: float | None = setting(
        None, "A million tokens of requests that the server had in its cache; none: as `input`.", outcome=False, ge=0
    )


class BatchSection(Section):
    """The provider's batch service: answers within a day, at half the price."""

    max_requests: int = setting(50_000, "Requests in one file.", outcome=False, ge=1)
    max_megabytes: float = setting(200.0, "Size of one file, in millions of bytes.", outcome=False, gt=0)
    poll_seconds: float = setting(60.0, "How often to look whether a batch is done.", outcome=False, gt=0, le=86_400)
    price_factor: float = setting(
        0.5, "Price of a request in a batch, as a share of the full price.", outcome=False, ge=0, le=1
    )


class AskingSection(Section):
    """Settings of every step that asks models over the network."""

    endpoint: EndpointSection = setting(EndpointSection(), "The server that is asked.")
    more_endpoints: list[EndpointSection] = setting(
        [],
        "Further servers of the same model, each with the settings of an endpoint: requests go where there is most"
        " room, and when one server dies the others take over.",
        outcome=False,
    )
    concurrency: int = setting(16, "Requests in flight, over all servers.", outcome=False, ge=1)
    max_retries: int = setting(4, "Retries of a request after a passing error.", outcome=False, ge=0)
    prices: dict[str, PriceSection] = setting(
        {},
        "Prices by the beginning of the model's name, before those that ship with the package; each has"
        " `input`, `output` and `cached_input` in US dollars per million tokens.",
        outcome=False,
    )
    ask_above_usd: float = setting(
        5.0,
        "Ask before a run whose estimate is above this many US dollars, or that needs a key and has a model without a"
        " price; `--yes` answers.",
        outcome=False,
        ge=0,
    )
    max_cost_usd: float | None = setting(
        None,
        "Stop before all requests of this workspace together cost more US dollars than this, what is in flight"
        " included; none: no limit.",
        outcome=False,
        gt=0,
    )
    batch: BatchSection = setting(BatchSection(), "The provider's batch service, for `--batch`.")
