"""What the programs beside this one share: the question on standard input, the answer on standard output."""

import json
import sys

question = json.load(sys.stdin)


def answer(value):
    print(json.dumps(value))


def check(holds, what):
    if not holds:
        raise AssertionError(f"it does not hold that {what}")


def refused(what, attempt, *errors):
    """Something that must raise one of these errors; what it said."""
    try:
        attempt()
    except errors as error:
        return str(error)
    raise AssertionError(f"accepted: {what}")
