"""`zerolabel`: one command per job, imported only when it is called."""

from __future__ import annotations

import io
import os
import sys
from importlib import import_module

import click

from zerolabel import __version__
from zerolabel.errors import UsageError, ZerolabelError, unknown_name

COMMANDS = {
    "segment": "zerolabel.cli.segment:segment",
    "fit": "zerolabel.cli.fit:fit",
    "predict": "zerolabel.cli.predict:predict",
    "evaluate": "zerolabel.cli.evaluate:evaluate",
    "compare": "zerolabel.cli.compare:compare",
    "name": "zerolabel.cli.name:name",
    "refine": "zerolabel.cli.refine:refine",
    "export": "zerolabel.cli.export:export",
    "models": "zerolabel.cli.models:models",
    "doctor": "zerolabel.cli.doctor:doctor",
    "demo": "zerolabel.cli.demo:demo",
    "pretrain": "zerolabel.cli.pretrain:pretrain",
    "attention": "zerolabel.cli.attention:attention",
    "explain": "zerolabel.cli.explain:explain",
    "sweep": "zerolabel.cli.sweep:sweep",
    "reproduce": "zerolabel.cli.reproduce:reproduce",
    "data": "zerolabel.cli.data:data",
}
FAILED, WRONG_USAGE = 1, 2  # exit codes; 0 is all done, 3 done with failures
NO_MEMORY = ("OutOfMemoryError", "can't allocate memory", "not enough memory")  # torch's words


class Commands(click.Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Import one command; an unknown name is wrong usage."""
        if cmd_name not in COMMANDS:
            raise unknown_name("command", cmd_name, COMMANDS)
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="zerolabel")
def cli() -> None:
    """Semantic segmentation with zero labels.

    zerolabel segment PHOTOS --out RUN   a folder of photos in, masks and a report out

    Exit codes: 0 all done, 1 failed, 2 wrong usage, 3 done, but some images could not be read
    (see failures.json in the run).
    """


def main() -> None:
    """Run the command line; errors come out as words, never as a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal need not know every character that a file name may hold.
            stream.reconfigure(errors="backslashreplace")
    try:
        code = cli(prog_name="zerolabel", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        code = _complain("Interrupted. Run the same command again to go on from here.", FAILED)
    except Exception as error:
        code = _explain(error)
    sys.exit(code if isinstance(code, int) else 0)


def _explain(error: Exception) -> int:
    """Say in words what went wrong, and return the exit code."""
    if isinstance(error, ZerolabelError):
        return _complain(str(error), WRONG_USAGE if isinstance(error, UsageError) else FAILED)
    if os.environ.get("ZEROLABEL_DEBUG"):
        raise error
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or any(words in text for words in NO_MEMORY):
        return _complain("Out of memory. Give a smaller --size, or fewer large images.", FAILED)
    if isinstance(error, OSError):
        return _complain(f"The operating system refused: {error}", FAILED)
    return _complain(
        f"This is a bug in zerolabel: {text}. Set ZEROLABEL_DEBUG=1 and run the same command again "
        "for the details that a report of it needs.",
        FAILED,
    )


def _complain(message: str, code: int) -> int:
    click.echo(f"zerolabel: {message}", err=True)
    return code
