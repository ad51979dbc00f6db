"""``kifiya``: everything a person does with the gateway. A command's module loads what is heavy only when it runs."""

from __future__ import annotations

import typer

from ops.cli import chaos, dead_letters, tenants, topics, verify
from ops.cli.demo import demo
from ops.cli.doctor import doctor
from ops.cli.rebuild import rebuild
from ops.cli.send import send
from ops.cli.status import status
from ops.cli.up import up
from ops.cli.version import version

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo)
app.command()(up)
app.command()(status)
app.command()(send)
app.command()(doctor)
app.command()(rebuild)
app.command()(version)
app.add_typer(tenants.merchants, name="merchants")
app.add_typer(tenants.keys, name="keys")
app.add_typer(topics.app, name="topics")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(verify.app, name="verify")
app.add_typer(chaos.app, name="chaos")


@app.callback()
def _root() -> None:
    """Kifiya Payment Gateway: takes payments in spikes, calls providers at their pace."""


def run() -> None:
    """The console script."""
    app(prog_name="kifiya")


if __name__ == "__main__":
    run()
