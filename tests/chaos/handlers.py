"""The handler of the exactly-once mode: a sync one of Django's, whose effect is a row.

Imported into ``manage.py rmq_consume`` by the shop of Django's tests.
"""

import os
import sys
import time
import uuid
from typing import Any

from autosell_rmq_django import handler
from tests.django.shop.models import Effect


@handler(f"{os.environ['RMQ_TEST_PREFIX']}.pay")
def pay(data: dict[str, Any]) -> dict[str, str]:
    """An effect, with its time; the result tells two runs apart."""
    sys.stdout.write(f"begun {data['key']}\n")
    sys.stdout.flush()
    time.sleep(data["seconds"])
    Effect.objects.create(key=data["key"], note=str(time.monotonic()))
    return {"key": data["key"], "run": uuid.uuid4().hex}
