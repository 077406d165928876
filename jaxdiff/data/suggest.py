"""One sentence for a misspelt name."""

from collections.abc import Iterable
import difflib


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean 'hopper'?; known: ant, hopper.` with the question left out when nothing is near."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    question = f"did you mean {near[0]!r}? " if near else ""
    return f"{question}known: {', '.join(known)}."
