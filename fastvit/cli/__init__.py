"""The command line: one file a command, gathered here."""

import typer

from . import bench, classify, convert, embed, evaluate, export, models, train, verify

app = typer.Typer(
    name="fastvit",
    help="FastViT vision encoders: classify, train, evaluate, convert, and prove that folding changes nothing.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for module in (bench, classify, convert, embed, evaluate, export, models, train, verify):
    app.command(module.__name__.rpartition(".")[2])(module.main)
