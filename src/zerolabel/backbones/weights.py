"""Weights files: in the cache, on the hub, on disk. The only file that touches the network.

Nothing is downloaded unless `get` is called, and `get` runs only when a user asked for it by name.
Nothing but tensors is ever read from a file: safetensors, or pickles with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import os
import threading
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerolabel.backbones.registry import CLIP, VOCABULARIES, Entry, entry
from zerolabel.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor

PATIENCE = 4.0  # seconds for the hub's first answer; HF_HUB_ETAG_TIMEOUT overrules it
# Where checkpoints keep the network, best first: the teacher is what DINO evaluates.
NESTS = ("teacher", "model", "state_dict", "student")


def find(item: Entry) -> Path | None:
    """Look for cached weights, at once and offline.

    Args:
        item: a registry entry.

    Returns:
        The file in this package or in the cache of huggingface_hub, or None.
    """
    if item.packaged:
        packaged = Path(__file__).with_name(item.packaged)
        return packaged if packaged.is_file() else None
    return find_cached(item, *item.filenames)


def find_cached(item: Entry, *filenames: str) -> Path | None:
    """Look into the hub's cache, offline, for the first of these files of an entry's repository."""
    if not item.repo:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(item.repo, filename) for filename in filenames)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def get(name: str) -> Path:
    """Return the weights file of a backbone, downloading what it needs and is not cached.

    Args:
        name: a registry name of a backbone that needs weights.

    Returns:
        The file in the cache of huggingface_hub.

    Raises:
        UsageError: no backbone has this name, or it needs no weights.
        WeightsError: the hub is switched off, does not answer within seconds, lacks the file, or
            sends one with another hash than the registry's.
    """
    item = entry(name)
    if not item.repo:
        what = "comes with its weights" if item.packaged else "needs no weights"
        raise UsageError(f"{name} {what}; use it with --backbone {name}.")
    path = find(item)
    if path is None:
        path = _download(item)
    for companion in item.companions:
        if find_cached(item, companion) is None:
            _download(item, companion)
    if item.sha256 is not None and _sha256(path) != item.sha256:
        raise WeightsError(
            f"{path} is not the file that {name} names: expected sha256 {item.sha256}, found "
            f"{_sha256(path)}. Delete it and run `zerolabel models get {name}` again."
        )
    return path


def cached(name: str) -> Path:
    """Return the weights file of a backbone without ever downloading.

    Raises:
        WeightsError: it is not cached; the message says how to get it, its size and licence.
    """
    item = entry(name)
    path = find(item)
    if path is None and item.packaged:
        raise WeightsError(
            f"{item.packaged} is missing from this installation. Install zerolabel again, or use "
            "--backbone filterbank."
        )
    if path is None:
        raise WeightsError(
            f"The weights of {name} are not on this machine. Run `zerolabel models get {name}` "
            f"(about {megabytes(item)} from {item.source}, licence {item.licence}), or "
            f"{_otherwise(item)}."
        )
    return path


def megabytes(item: Entry) -> str:
    """The approximate download size, for people."""
    return f"{item.download_bytes / 1e6:.0f} MB"


def load_file(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a weights file.

    Args:
        path: a `.safetensors` file, or anything that `torch.save` wrote; of a training checkpoint
            the teacher is taken.

    Returns:
        Tensors on the CPU by the names they have in the file.

    Raises:
        WeightsError: the file is missing or damaged, holds no tensors, or is a pickle that wants
            to run code when it is read.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path} is not a file. Pass a weights file with --weights FILE.")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    tensors = _tensors(content)
    if not tensors:
        raise WeightsError(
            f"{path} holds no tensors by name. Expected a state dict of a vision transformer."
        )
    return tensors


def digest(state: Mapping[str, Tensor]) -> str:
    """Hash weights: names, types, shapes and bytes, in the order of the names.

    Args:
        state: tensors by name.

    Returns:
        64 hexadecimal digits.
    """
    import torch

    total = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _otherwise(item: Entry) -> str:
    """What to do if weights cannot be fetched."""
    if item.is_clip:  # no other backbone reads words
        names = " or ".join(VOCABULARIES)
        return f"pass a file with --weights FILE, its vocabulary ({names}) in the same folder"
    return "pass a file with --weights FILE, or use --backbone embedded, which comes with zerolabel"


def _download(item: Entry, *filenames: str) -> Path:
    """Fetch the first of the files, by default the weights, that an entry's repository has."""
    from huggingface_hub import hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    from huggingface_hub.file_download import get_hf_file_metadata

    patience = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or PATIENCE)
    filenames = filenames or item.filenames
    for filename in filenames:
        url = hf_hub_url(item.repo, filename)
        try:
            # Ask once and briefly: hf_hub_download alone retries a dead host for minutes.
            _within(patience, partial(get_hf_file_metadata, url, timeout=patience))
            return Path(hf_hub_download(item.repo, filename))
        except LocalEntryNotFoundError as error:  # a subclass of the next, but it means offline
            raise _unreachable(item, error) from None
        except EntryNotFoundError:
            continue
        except Exception as error:  # the hub's HTTP library, and so its errors, differ by version
            raise _unreachable(item, error) from None
    raise WeightsError(
        f"{item.source} has none of {', '.join(filenames)} any more. Find it elsewhere and "
        f"{_otherwise(item)}."
    )


def _within(seconds: float, call: Callable[[], object]) -> None:
    """Run a call, but wait no longer than this: looking a host's name up knows no timeout."""
    raised: list[Exception] = []

    def run() -> None:
        try:
            call()
        except Exception as error:  # handed to the caller below
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:g} s")
    if raised:
        raise raised[0]


def _unreachable(item: Entry, error: Exception) -> WeightsError:
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    return WeightsError(
        f"The weights of {item.name} could not be fetched from {item.source} ({reason}). Run "
        f"`zerolabel models get {item.name}` on a machine with a network (HF_HUB_OFFLINE unset) "
        f"and copy its Hugging Face cache here, or {_otherwise(item)}."
    )


def _sha256(path: Path) -> str:
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            total.update(chunk)
    return total.hexdigest()


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file as read

    try:
        tensors: dict[str, Tensor] = read(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path} cannot be read as safetensors ({error}). Fetch it again."
        ) from None
    return tensors


def _read_pickle(path: Path) -> object:
    import torch

    if _is_program(path):
        raise WeightsError(
            f"{path} is a TorchScript archive, as OpenAI publishes CLIP: a program, which reading "
            "it would run. Pass the file of transformers (`zerolabel models get "
            f"{CLIP}`), or save the state dict of the network alone as safetensors and "
            "pass that."
        )
    try:
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        reason = str(error).strip().split("\n")[0]
        raise WeightsError(
            f"{path} was not read: it is damaged, or holds more than tensors, which could run code "
            f"({reason}). Where you trust it, save the network's tensors alone, e.g. "
            "`torch.save(checkpoint['teacher'], 'teacher.pth')`, and pass that file."
        ) from None
    return content


def _is_program(path: Path) -> bool:
    """Tell whether a file is a TorchScript archive, by the one record that only those have."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):  # damaged, which torch will say
        return False


def _tensors(content: object) -> dict[str, Tensor]:
    """Descend to the network in a checkpoint, and keep tensors only."""
    import torch

    while isinstance(content, Mapping):
        nested: list[Mapping[Any, Any]] = [
            content[key] for key in NESTS if isinstance(content.get(key), Mapping)
        ]
        if not nested:
            items = content.items()
            return {str(k): v.detach() for k, v in items if isinstance(v, torch.Tensor)}
        content = nested[0]
    return {}
