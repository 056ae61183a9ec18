"""Renders the HTML templates: self-contained pages, everything escaped."""

import base64
import functools
from typing import Any

import jinja2

from gmmas_jax.cases.findings import STATEMENT


def render(template: str, **context: Any) -> str:
    """Renders a template of this package.

    Args:
        template: file name in `templates/`.
        **context: its variables; one that is missing is an error, never an empty place.

    Returns:
        The page. It loads nothing from anywhere: a content policy in it forbids that.
    """
    lead, rest = STATEMENT.split(". ", 1)
    return (
        _environment()
        .get_template(template)
        .render(statement_lead=lead + ".", statement_rest=rest, **context)
    )


def data_uri(png: bytes) -> str:
    """Returns a picture as an address that holds its own content."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("gmmas_jax.clinical", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
