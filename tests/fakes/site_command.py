"""`wardround site` in this process, as an administrator types it."""

from typer.testing import CliRunner

from site_node.cli import app


def run(*words: object, typed: str | None = None) -> tuple[int, str]:
    """Run a command of a site, with what is typed at its prompts; return its exit status and all that it says."""
    result = CliRunner().invoke(app, [str(word) for word in words], input=typed)
    return result.exit_code, result.output
