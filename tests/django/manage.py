"""``manage.py`` of Django's tests, for processes of their own."""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    # The first entry is this folder, whose `shop` would be a second copy of `tests.django.shop`.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.django.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
