"""``kifiya``: everything a person does with the gateway. Each command lives in a module of its own, loaded when used."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import click
import typer

# command or group -> (module, attribute, one line of help); a group's attribute is a typer.Typer
COMMANDS: Final = {
    "up": ("ops.cli.up", "up", "Run the whole gateway until Ctrl-C."),
    "demo": ("ops.cli.demo", "demo", "Send 24 records through a fresh gateway and check what came of them."),
    "status": ("ops.cli.status", "status", "What runs, where, and what waits."),
    "send": ("ops.cli.send", "send", "Send a payment straight to Kafka."),
    "topics": ("ops.cli.topics", "app", "Create, list and read the topics."),
    "dead-letters": ("ops.cli.dead_letters", "app", "List, show and replay what waits for a person."),
    "doctor": ("ops.cli.doctor", "doctor", "Check this machine and the services, and say how to mend."),
    "version": ("ops.cli.version", "version", "Print the versions of the gateway and what it stands on."),
}


class _Lazy(typer.core.TyperGroup):
    """Loads a command's module only when it is asked for: `kifiya --help` stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order a newcomer meets them."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> Any:
        """The command of this name, or None."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, attribute, help_text = COMMANDS[cmd_name]
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            found.info.name, found.info.help = cmd_name, help_text
            return typer.main.get_group(found)
        app = typer.Typer(add_completion=False)
        app.command(cmd_name, help=found.__doc__ or help_text)(found)
        return typer.main.get_command(app)


app = typer.Typer(cls=_Lazy, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})


@app.callback()
def _root() -> None:
    """Kifiya Payment Gateway: takes payments in spikes, calls providers at their pace."""


def run() -> None:
    """The console script."""
    app(prog_name="kifiya")


if __name__ == "__main__":
    run()
