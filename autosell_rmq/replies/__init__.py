"""Requests and their replies."""

from autosell_rmq.replies.requests import Requests

__all__ = ["Requests"]
