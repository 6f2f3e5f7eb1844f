"""Prediction as a service over HTTP: jobs in a queue that survive a crash, and a client.

`segweave.serve.app.create_app` makes the application, `segweave.serve.run.serve` runs it. They need
the extra `serve`; what is imported here does not.
"""

from segweave.serve.client import RemoteSession
from segweave.serve.limits import Limits, RefusedError

__all__ = ["Limits", "RefusedError", "RemoteSession"]
