"""One sentence for a name that is not in a table."""

from collections.abc import Iterable
import difflib


def unknown_name(kind: str, word: str, known: Iterable[str]) -> KeyError:
    """The error to raise: what was asked for, the nearest known name if one is near, and all known names."""
    names = list(known)
    near = difflib.get_close_matches(word, names, n=1)
    question = f"; did you mean {near[0]!r}?" if near else ";"
    return KeyError(f"unknown {kind} {word!r}{question} known: {', '.join(names)}")
