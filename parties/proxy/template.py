"""Chat templates of checkpoints: Jinja, as transformers renders them, in Jinja's sandbox.

A template is a program from whoever published the checkpoint. The sandbox keeps it from files and from Python's
internals; it cannot keep it from taking long.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from hush.mpc.errors import ModelError, UserError

Message = Mapping[str, str]


def render(template: str, messages: Sequence[Message], special: Mapping[str, str]) -> str:
    """A conversation as the model expects it, up to where its answer begins. UserError if the template refuses it."""
    try:
        compiled = _compiled(template)
    except TemplateError as error:
        raise ModelError(f"the model's chat template is no valid template: {error}") from None
    try:
        return compiled.render(messages=[dict(m) for m in messages], add_generation_prompt=True, **special)
    except TemplateError as error:
        raise UserError(f"the model's chat template refuses this conversation: {error}") from None
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
        raise UserError(f"the model's chat template fails on this conversation ({type(error).__name__})") from None


@lru_cache(maxsize=16)
def _compiled(template: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    # `range` stays the sandbox's, which has a limit
    environment.globals |= {"dict": lambda **pairs: pairs, "namespace": _Names, "raise_exception": _refuse}
    environment.globals |= {"strftime_now": lambda form: datetime.now().strftime(form)}
    return environment.from_string(template)


class _Generation(Extension):
    """`{% generation %}` marks the assistant's words for training, and means nothing here."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own convention

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """What is between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Names(Namespace):
    """No names with an underscore, which lead to Python's internals."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"a chat template may not store {name!r}")
        super().__setitem__(name, value)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    """Without the HTML escapes of Jinja's own."""
    allowed = {name: options[name] for name in ("separators", "sort_keys") if name in options}
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **allowed)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
