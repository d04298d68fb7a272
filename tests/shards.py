"""How the proof is spread over machines: the quick tests run on each Python, the slow ones once, in equal shards.

``pytest --shard=2/4`` runs the second of four shards of what it collects; ``python tests/shards.py`` prints what
``.github/workflows/ci.yml`` reads: the matrix on Linux, the Pythons of the other systems, and every Python.
"""

import json
import math
import sys
from itertools import groupby

import pytest
from conftest import PYTHONS, QUESTIONS, ROOT, run

# A shard has about as many: smaller ones would mostly start servers, build images and make environments.
TESTS = 200


def shard(text: str) -> tuple[int, int]:
    """Read which shard of how many is meant."""
    number, shards = map(int, text.split("/"))
    if not 0 < number <= shards:
        raise ValueError(text)
    return number, shards


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer to run a part of the tests."""
    parser.addoption("--shard", type=shard, default=(1, 1), metavar="N/M", help="run the N-th of M shards of the tests")


@pytest.hookimpl(trylast=True)  # of what -m and -k leave
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep a slice of each file: its tests cost alike, and neighbours share a Python, a server or a project.

    Which slice differs from file to file, or the tests that are left over would all go to one shard.
    """
    number, shards = config.option.shard
    kept: list[pytest.Item] = []
    for file, (_path, group) in enumerate(groupby(items, key=lambda item: item.path)):
        tests, turn = list(group), (number + file) % shards
        kept += tests[len(tests) * turn // shards : len(tests) * (turn + 1) // shards]
    if left := set(items) - set(kept):
        config.hook.pytest_deselected(items=list(left))
        items[:] = kept


def matrix() -> dict[str, list[dict[str, str]]]:
    """What the jobs on Linux do; the slow tests run on the Python that projects ask for by default."""
    slow = run(sys.executable, "-m", "pytest", "-n0", "--collect-only", "-q", "-m", "slow", cwd=ROOT).stdout
    shards = math.ceil(slow.count("::test_") / TESTS)
    default = QUESTIONS["python_version"]["default"]
    rows = [(python, "not slow", "1/1") for python in PYTHONS]
    rows += [(default, "slow", f"{number}/{shards}") for number in range(1, shards + 1)]
    return {"include": [dict(zip(("python", "tests", "shard"), row, strict=True)) for row in rows]}


if __name__ == "__main__":
    print(f"linux={json.dumps(matrix())}")
    print(f"elsewhere={json.dumps([PYTHONS[0], PYTHONS[-1]])}")
    print(f"pythons={' '.join(PYTHONS)}")
