"""The smallest step that asks a model: each row is a text, its result the answer. Also as a process to be killed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opadpo.llm.asking import Asker
from opadpo.llm.requests import Answer, ChatRequest, Failure, Message, Picture
from opadpo.llm.store import RequestStore
from opadpo.llm.working import Asking, Work, carry_out
from opadpo.progress import SilentProgress
from opadpo.recipe.endpoints import AskingSection, EndpointSection


def section(url: str | None, **settings: Any) -> AskingSection:
    """Settings for a server that takes no key; those of the endpoint in `endpoint`."""
    endpoint = {"base_url": url, "model": "m", "api_key_required": False, **settings.pop("endpoint", {})}
    return AskingSection(endpoint=EndpointSection(**endpoint), **{"max_retries": 0, **settings})


def request(text: str, picture: Picture | None = None, **options: Any) -> ChatRequest:
    return ChatRequest("m", (Message("user", text, picture),), **options)


def ask_all(
    settings: AskingSection, path: Path, texts: Sequence[str], *, progress: SilentProgress | None = None, **how: Any
) -> dict[str, Answer | Failure]:
    """The outcome of each text. An answer that begins with "again" is asked back once, as a judge may do."""
    results: dict[str, Answer | Failure] = {}

    async def talk(text: str, asker: Asker) -> Answer | Failure:
        outcome = await asker.ask(request(text, max_tokens=100))
        if isinstance(outcome, Answer) and outcome.text.startswith("again"):
            outcome = await asker.ask(request(f"{text}, really", max_tokens=100))
        return outcome

    def take(text: str, outcome: Answer | Failure) -> None:
        assert text not in results
        results[text] = outcome

    with RequestStore.open(path) as store:
        asking = Asking(settings, store, progress or SilentProgress(), **how)
        carry_out(Work("ask", lambda: iter(texts), talk, take), asking)
    return results


def as_process(settings: AskingSection, path: Path, texts: Sequence[str], how: dict[str, Any]) -> None:
    """The same, for a child process."""
    ask_all(settings, path, texts, **how)
