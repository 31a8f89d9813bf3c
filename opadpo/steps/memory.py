"""What training by a recipe would need of this machine's memory, as data: for the app, which asks in a process apart.

    python -m opadpo.steps.memory STAGE < recipe.yaml        prints one line of JSON

The estimate builds the model without memory and rehearses a step, which takes seconds and hundreds of MB: too much for
a server that answers others meanwhile.
"""

import json
import sys
from dataclasses import asdict
from typing import Any

from opadpo.errors import OpadpoError
from opadpo.recipe import Recipe, parse_recipe


def needed(recipe: Recipe, stage: str) -> dict[str, Any]:
    """Bytes at the peak of one process, by what for, beside what there is here, and advice where it is short.

    Raises:
        ModelError: if the sizes of the base model are not known here.
    """
    from opadpo.training.fitting import planned

    fit = next(each for each in planned(recipe) if each.stage.key == f"train.{stage}")
    return {
        "parts": asdict(fit.estimate),
        "total": fit.estimate.total,
        "memory": fit.memory.bytes,
        "device": fit.memory.name,
        "gpu": fit.memory.gpu,
        "close": fit.close,
        "impossible": fit.impossible,
        "cards": fit.on_cards(),
        "advice": fit.advice() if fit.close else [],
    }


def main() -> int:
    """Answer one question; what is wrong is printed as JSON too."""
    try:
        answer = needed(parse_recipe(sys.stdin.read()), sys.argv[1])
    except OpadpoError as error:
        answer = {"error": {"what": error.what, "seen": str(error.seen or ""), "remedy": error.remedy or ""}}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
