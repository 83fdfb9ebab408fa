"""The document as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from autosell_rmq.exceptions import MissingExtra


def asyncapi_json(document: Mapping[str, Any]) -> str:
    """Write the document as JSON, indented."""
    return json.dumps(document, indent=2, ensure_ascii=False)


def asyncapi_yaml(document: Mapping[str, Any]) -> str:
    """Write the document as YAML.

    Raises:
        MissingExtra: PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError:
        raise MissingExtra("YAML needs PyYAML: pip install 'autosell-rmq[fastapi]', or take JSON") from None

    class Dumper(yaml.SafeDumper):
        """Repeats what stands in two places, where YAML's default would write an alias."""

        def ignore_aliases(self, data: object) -> bool:
            return True

    text: str = yaml.dump(dict(document), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text
