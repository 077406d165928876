"""The card beside a dataset file: where the data came from, and hashes that tell whether they are still the same."""

from collections.abc import Mapping
import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
from typing import Any
import warnings

from jaxdiff.data.columns import Columns, content_sha256

FORMAT = "jaxdiff-dataset/1"
# Whose versions can change a regenerated file's bytes.
PACKAGES = ("jaxdiff", "jax", "jaxlib", "numpy", "h5py", "brax", "flax", "optax")


@dataclasses.dataclass(frozen=True)
class Origin:
    """What only the maker of a dataset knows."""

    name: str
    generator: str  # a sentence for a reader: how the rows came about
    licence: str
    env: str | None = None  # a name for jaxdiff.envs.make, where the data's task is one of ours
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int | None = None
    reference_scores: tuple[float, float] | None = None
    true_next_observations: bool = False  # the file's next_observations, not the next rows, are what follows a row


@dataclasses.dataclass(frozen=True)
class Card(Origin):
    """Origin and measured facts; stored as `<file>.json`. No date, so that the same seed gives the same bytes."""

    sha256: str = ""  # of the file's bytes
    content_sha256: str = ""  # of its arrays, whatever the compression (columns.content_sha256)
    num_rows: int = 0
    num_transitions: int = 0
    num_episodes: int = 0  # that ended in the file
    obs_dim: int = 0
    action_dim: int = 0
    num_agents: int | None = None
    return_mean: float | None = None
    return_std: float | None = None
    normalised_score: float | None = None  # of return_mean by reference_scores
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)


def card_path(path: pathlib.Path) -> pathlib.Path:
    """`data/hopper.hdf5` has its card at `data/hopper.hdf5.json`."""
    return path.with_name(path.name + ".json")


def read_card(path: pathlib.Path) -> Card | None:
    """Card of a dataset file, None where there is none.

    Raises:
      ValueError: a file lies in the card's place that is not one.
    """
    where = card_path(path)
    if not where.exists():
        return None
    known = {field.name for field in dataclasses.fields(Card)}
    try:
        fields = json.loads(where.read_text(encoding="utf-8"))
        if fields.pop("format") != FORMAT:
            raise ValueError("another format")
        card = Card(**{name: value for name, value in fields.items() if name in known})
        scores = None if card.reference_scores is None else (card.reference_scores[0], card.reference_scores[1])
        return dataclasses.replace(card, reference_scores=scores)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(
            f"{where}: not a {FORMAT} card ({error}); move it away to read {path.name} without, or make the data again."
        ) from error


def verify(path: pathlib.Path, columns: Columns) -> Card | None:
    """Reads the card of `path` and compares its hashes with the rows that were read.

    Warns where the bytes of the file differ but its arrays do not (a file packed anew).

    Raises:
      ValueError: the arrays are not those the card was written for.
    """
    card = read_card(path)
    if card is None:
        return None
    found = content_sha256(columns)
    if found != card.content_sha256:
        raise ValueError(
            f"{path}: content sha256 is {found[:12]}..., its card says {card.content_sha256[:12]}...: the file changed "
            f"after its card was written. Make or fetch it again, or move {card_path(path).name} away to accept it."
        )
    if file_sha256(path) != card.sha256:
        warnings.warn(f"{path}: the arrays match the card but the file's bytes do not; was it repacked?", stacklevel=2)
    return card


def to_json(card: Card) -> str:
    """The card's text, keys in the order of the fields."""
    return json.dumps({"format": FORMAT, **dataclasses.asdict(card)}, indent=1, allow_nan=False) + "\n"


def file_sha256(path: pathlib.Path) -> str:
    """Hash of the bytes on disk."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Installed versions of PACKAGES; a package that is not installed is left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
