"""Running snippets: with ``await`` at the top level, as the seed writes them."""

import ast
import inspect
from types import CodeType
from typing import Any


def compiled(code: str, name: str = "<snippet>") -> CodeType:
    code_object = compile(code, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    assert isinstance(code_object, CodeType)
    return code_object


async def execute(code: str | CodeType, namespace: dict[str, Any]) -> dict[str, Any]:
    """Run it in `namespace` and return that."""
    if isinstance(code, str):
        code = compiled(code)
    if code.co_flags & inspect.CO_COROUTINE:
        await eval(code, namespace)
    else:
        exec(code, namespace)
    return namespace
