"""Ids: as unguessable as the system's randomness, and never the same one twice."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from autosell_rmq.ids import new_id


def test_an_id_has_128_random_bits() -> None:
    ids = [new_id() for _ in range(2000)]

    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)
    # Every bit of them changes: no version, no counter, no prefix that the process shares.
    ones = [sum(int(each, 16) >> bit & 1 for each in ids) for bit in range(128)]
    assert all(800 < count < 1200 for count in ones)


def test_threads_never_share_one() -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: new_id(), range(20_000)))

    assert len(set(ids)) == len(ids)


FORK = """
import os
from autosell_rmq.ids import new_id
new_id()  # there is a block that both would share
child = os.fork()
if child:
    os.waitpid(child, 0)  # two lines, one after the other
print(" ".join(new_id() for _ in range(300)), flush=True)
"""


def test_a_forked_child_does_not_give_out_its_parents() -> None:
    output = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=True).stdout
    first, second = (set(line.split()) for line in output.splitlines())

    assert (len(first), len(second), first & second) == (300, 300, set())
