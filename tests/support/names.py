"""Names that no other test, run or person uses."""

import uuid


def unique(purpose: str) -> str:
    """``test.orders.3f2a…`` for ``orders``."""
    return f"test.{purpose}.{uuid.uuid4().hex[:12]}"
