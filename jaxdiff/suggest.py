"""Floor 0: one sentence for a misspelt name."""

from collections.abc import Iterable
import difflib

MOST_SHOWN = 40  # names that a line can list and still be read


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean 'sweep'? known: bench, data, sweep.`, the question left out when nothing is near.

    Of more than MOST_SHOWN names the nearest ten are listed: `known, of 60 the nearest: ...`.
    """
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    question = f"did you mean {near[0]!r}? " if near else ""
    if len(known) > MOST_SHOWN:
        nearest = sorted(difflib.get_close_matches(word, known, n=10, cutoff=0.0))
        return f"{question}known, of {len(known)} the nearest: {', '.join(nearest)}."
    return f"{question}known: {', '.join(known) or 'none'}."


def unknown_name(kind: str, word: str, known: Iterable[str]) -> KeyError:
    """The error to raise: `unknown sampler 'ddmp'; did you mean 'ddpm'? known: ddim, ddpm.`"""
    return KeyError(f"unknown {kind} {word!r}; {did_you_mean(word, known)}")
