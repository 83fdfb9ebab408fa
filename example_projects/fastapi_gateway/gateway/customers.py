"""Who asks."""

from typing import Annotated

from fastapi import Depends, Header


def customer(
    x_customer: Annotated[
        str, Header(pattern=r"^[^@\s]+@[^@\s]+$", max_length=200, examples=["ann@example.com"])
    ],
) -> str:
    """The customer's address. A real gateway has it from a login; this one believes a header."""
    return x_customer


Customer = Annotated[str, Depends(customer)]
