"""Which encoders are compared: the pretrained ones, a random one of each architecture, and band means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmearth_data.store import Store
from mmearth_train.evaluate.gather import BandMeans, FrozenEncoder
from mmearth_train.evaluate.results import EvaluationError
from mmearth_train.pretrained import FILE_NAME, PretrainedEncoder, load_encoder, random_encoder


@dataclass(frozen=True)
class Entry:
    """An encoder to compare; ``encoders`` holds one for each seed, or one for all of them."""

    name: str
    kind: str
    source: str
    pretext: tuple[str, ...]
    encoders: tuple[FrozenEncoder, ...]


@dataclass(frozen=True)
class OnDevice:
    """A pretrained encoder that computes where there is a GPU; images may lie anywhere."""

    encoder: PretrainedEncoder
    device: torch.device

    @property
    def bands(self) -> tuple[str, ...]:
        """The bands of sentinel2 it wants, in order."""
        return self.encoder.bands

    def features(self, images: Tensor, level: Tensor) -> Tensor:
        """The mean over all patches, (N, C)."""
        return self.encoder.features(images.to(self.device), level.to(self.device))


def encoder_file(path: Path) -> Path:
    """The exported encoder that ``path`` names: itself, or the one in the folder of a run (or of runs)."""
    return path / FILE_NAME if path.is_dir() else path


def runs_in(path: Path) -> tuple[Path, ...]:
    """The finished runs in the folder ``path``, shorter names first, so seed-2 before seed-10; names of one length in
    the order of their letters. None where it is no folder of runs but a run itself, or a file.
    """
    if not path.is_dir() or encoder_file(path).is_file():
        return ()
    return tuple(
        sorted((file.parent for file in path.glob(f"*/{FILE_NAME}")), key=lambda run: (len(run.name), run.name))
    )


def compared(paths: Sequence[Path], store: Store, seeds: int) -> tuple[tuple[Entry, ...], int]:
    """Every encoder to compare, and the crop in pixels that all of them look at.

    A folder of runs is one encoder that was trained once for each seed. Raises CheckpointError where a file is not an
    encoder, EvaluationError where a folder holds another number of runs than ``seeds`` or runs with other pretext
    tasks, or where the encoders want different crops or a larger one than the tiles.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    groups = [runs_in(path) or (path,) for path in paths]
    loaded = [tuple(load_encoder(run) for run in group) for group in groups]
    pretrained = [encoder for group in loaded for encoder in group]
    crop = _common_crop([encoder_file(run) for group in groups for run in group], pretrained, store)
    for path, group, encoders in zip(paths, groups, loaded, strict=True):
        _check_group(path, group, encoders, seeds)
    files = [encoder_file(path) for path in paths]
    entries = [
        Entry(
            name, "pretrained", str(file), encoders[0].pretext, tuple(OnDevice(e.to(device), device) for e in encoders)
        )
        for name, file, encoders in zip(_names(files), files, loaded, strict=True)
    ]
    models = {encoder.spec.model: encoder for encoder in reversed(pretrained)}
    for model, encoder in sorted(models.items()):
        name = "random" if len(models) == 1 else f"random {model}"
        drawn = tuple(OnDevice(random_encoder(encoder, seed).to(device), device) for seed in range(seeds))
        entries.append(Entry(name, "random", "", (), drawn))
    entries.append(Entry("band means", "band_means", "", (), (BandMeans.of_store(store),)))
    return tuple(entries), crop


def _check_group(path: Path, runs: Sequence[Path], encoders: Sequence[PretrainedEncoder], seeds: int) -> None:
    if len(runs) > 1 and len(runs) != seeds:
        raise EvaluationError(f"{path} holds {len(runs)} runs and there are {seeds} seeds; give --seeds {len(runs)}")
    for run, encoder in zip(runs, encoders, strict=True):
        if (encoder.pretext, encoder.spec.model) != (encoders[0].pretext, encoders[0].spec.model):
            raise EvaluationError(
                f"{run} is another model than {runs[0]} or has other pretext tasks; name them one by one"
            )


def _common_crop(files: Sequence[Path], encoders: Sequence[PretrainedEncoder], store: Store) -> int:
    crop = encoders[0].input_size
    for file, encoder in zip(files, encoders, strict=True):
        if encoder.input_size != crop:
            raise EvaluationError(
                f"{files[0]} looks at {crop} px and {file} at {encoder.input_size} px, which are different questions; "
                "evaluate them one by one"
            )
    if crop > store.tile_pixels:
        raise EvaluationError(
            f"{files[0]} looks at {crop} px but the tiles of {store.path} have {store.tile_pixels}; "
            "use an encoder with a smaller input size or a store with larger tiles"
        )
    return crop


def _names(files: Sequence[Path]) -> list[str]:
    """A short name for each file: its run's folder or its stem, the whole path where that is not unique."""
    short = [file.resolve().parent.name if file.name == FILE_NAME else file.stem for file in files]
    taken = Counter([*short, "random", "band means"])
    return [name if taken[name] == 1 else str(file) for name, file in zip(short, files, strict=True)]
