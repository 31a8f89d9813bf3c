"""What every section of the recipe is made of."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """Base of all recipe sections: frozen, unknown keys refused, and numbers that are none or infinite."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


def setting(default: Any, help_text: str, *, outcome: bool = True, **constraints: Any) -> Any:
    """A recipe field with its help text; `outcome=False` if it cannot change the result."""
    extra: dict[str, Any] = {} if outcome else {"outcome": False}
    return Field(default=default, description=help_text, json_schema_extra=extra, **constraints)
