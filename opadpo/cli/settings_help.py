"""Help of the steps: the settings that each one reads, written out from the recipe's own fields."""

from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand

if TYPE_CHECKING:
    from opadpo.recipe.model import FieldInfo


class _CommandWithSettings(TyperCommand):
    """A command whose help ends with the settings of some sections; they are looked up when help is asked for."""

    sections: tuple[str, ...] = ()

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the list after the options."""
        from opadpo.recipe import describe

        infos = [info for info in describe() if info.key.partition(".")[0] in self.sections]
        if not infos:
            return
        with formatter.section("Settings of the recipe (in recipe.yaml, or --set KEY=VALUE)"):
            formatter.write_dl([(info.key, _explained(info)) for info in infos])


def command_with_settings(*sections: str) -> type[TyperCommand]:
    """A command class whose help lists the settings of these sections of the recipe."""
    return type("CommandWithSettings", (_CommandWithSettings,), {"sections": sections})


def _explained(info: "FieldInfo") -> str:
    return f"{info.help} [{info.type}; default {info.default}]"
