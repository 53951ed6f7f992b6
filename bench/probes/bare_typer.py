"""The least that a program with Typer is: what `autoloader --help` is held against."""

import typer

cli = typer.Typer(name="bare", no_args_is_help=True, pretty_exceptions_enable=False)


@cli.command()
def load(source: str, *, to: str = "table") -> None:
    """Load what is new in SOURCE."""
    print(source, to)


@cli.command()
def plan(source: str, *, to: str = "table") -> None:
    """Say what a load would do."""
    print(source, to)


if __name__ == "__main__":
    cli()
