"""The `http.*` actions: requests that can't be turned against the network that the worker is in."""

from parallelizer.actions.http.action import request

__all__ = ["request"]
