"""Models of the Hugging Face Hub: the small files first, judged by the caller, then one form of the weights.

Of a repository with torch's pickles alone, the Hub's bot keeps a conversion to safetensors as a pull request; it is
fetched in their place where it is of the same files.
"""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from medclip.atomic_io import PLAIN_NAME, read_json
from medclip.errors import UserError
from medclip.hosts import check_hub_endpoint
from medclip.model.folder_files import SMALL_FILES
from medclip.model.open_clip.open_clip_config import CONFIG_FILE as OPEN_CLIP_CONFIG_FILE
from medclip.model.sentence_modules import MODULES_FILE
from medclip.model.tokenizer.vocab_files import TOKENIZER_FILES, has_tokenizer
from medclip.model.unsupported import describe_other_files
from medclip.model.weights.weight_files import (
    OPEN_CLIP_FILES,
    TRANSFORMERS_FILES,
    choose_weights,
    find_conversions,
    shard_names,
)

LOG = logging.getLogger("medclip.model")
CONFIG_FILES = ("config.json", OPEN_CLIP_CONFIG_FILE)
_BOT = "SFconvertbot"
Inspect = Callable[[Path, Collection[str]], Sequence[str]]


def fetch_tokenizer(name: str) -> Path:
    """The snapshot of a repository with its small files alone. Raises UserError as `fetch_model` does."""
    return fetch_model(name, None, lambda folder, files: (), has_tokenizer)


def fetch_model(
    name: str, revision: str | None, inspect: Inspect, is_whole: Callable[[Path], bool] | None = None
) -> Path:
    """The snapshot of a repository in the Hub's cache, with every file that a model is read from.

    `inspect` is called before weights are fetched, with the folder and the names of all files of the repository's root;
    it gives the names that weights may have, best first, or raises UserError for a model that would not open. Without
    the Hub, the snapshot that the cache holds if it `is_whole` (has weights). Raises UserError for what is in neither.
    A name may end with its revision, OWNER/NAME@REVISION.
    """
    from huggingface_hub import constants

    name, _, tagged = name.partition("@")
    revision = revision or tagged or None
    reason = "HF_HUB_OFFLINE is set, and the cache does not hold all of it."
    if not constants.HF_HUB_OFFLINE:
        try:
            return _download(name, revision, inspect)
        except UserError:
            raise
        except Exception as error:
            if not _is_from_the_hub(error):
                raise
            reason = str(error).strip().splitlines()[0]
    if (folder := _cached_snapshot(name, revision, is_whole or _holds_weights)) is not None:
        return folder
    at_revision = f" at revision {revision}" if revision else ""
    raise UserError(
        f"{name}{at_revision} is neither a folder here nor a model that the Hub gives: {reason} A private or gated "
        "one needs HF_TOKEN; HF_HUB_OFFLINE=1 reads the cache alone."
    )


def module_folders(folder: Path) -> list[str]:
    """The subfolders that the `modules.json` of a sentence-transformers folder names."""
    if not (folder / MODULES_FILE).is_file():
        return []
    modules = read_json(folder / MODULES_FILE, "a model folder")
    paths = [module.get("path") for module in modules if isinstance(module, dict)] if isinstance(modules, list) else []
    return sorted({path for path in paths if isinstance(path, str) and re.fullmatch(PLAIN_NAME, path)})


def _download(name: str, revision: str | None, inspect: Inspect) -> Path:
    from huggingface_hub import HfApi

    check_hub_endpoint()
    commit = HfApi().resolve_revision(name, revision=revision)
    hashes = _list_files(name, commit)
    root = _names_in(hashes)
    if not {*CONFIG_FILES, MODULES_FILE, *TOKENIZER_FILES} & set(root):
        raise UserError(f"{name} is not a model: it has no {', '.join(CONFIG_FILES)}.{describe_other_files(hashes)}")
    folder = _fetch(name, commit, _small_files(hashes))
    modules = module_folders(folder)
    _fetch(name, commit, [file for module in modules for file in _small_files(hashes, module)])
    if not (names := inspect(folder, root)):
        return folder
    best = choose_weights(root, names)
    if best is None and not modules:
        raise UserError(f"{name} has no weights: looked for {', '.join(names)}.{describe_other_files(hashes)}")
    if best is not None and not best.endswith(".safetensors") and _fetch_conversion(name, hashes, names):
        best = None
    wanted = [] if best is None else _weight_files(folder, root, best)
    for module in modules:
        files = _names_in(hashes, module)
        if (weights := choose_weights(files)) is not None:
            wanted += [f"{module}/{file}" for file in _weight_files(folder / module, files, weights)]
    _fetch(name, commit, wanted)
    return folder


def _fetch(name: str, revision: str, files: Collection[str]) -> Path:
    """Download files of a revision into the cache and return their snapshot."""
    from huggingface_hub import snapshot_download

    if not files:  # an empty list of patterns is none
        return Path()
    return Path(snapshot_download(name, revision=revision, allow_patterns=[glob.escape(file) for file in files]))


def _fetch_conversion(name: str, hashes: Mapping[str, str], names: Sequence[str]) -> bool:
    """Download the bot's safetensors, if it has made any of the config and the weights that a repository holds now."""
    from huggingface_hub.errors import HfHubHTTPError

    for reference in _bot_references(name):
        try:
            theirs = _list_files(name, reference)
        except HfHubHTTPError:  # closed, and its branch deleted
            continue
        files = _names_in(theirs)
        sources = [file for file in hashes if file == "config.json" or Path(file).suffix == ".bin"]
        if any(theirs.get(file) != hashes[file] for file in sources if file == "config.json" or file in theirs):
            continue
        if (weights := choose_weights(files, names)) is not None and weights.endswith(".safetensors"):
            index = [] if weights in files else [f"{weights}.index.json"]
            folder = _fetch(name, reference, index)
            _fetch(name, reference, _weight_files(folder, files, weights))
            return True
    return False


def _bot_references(name: str) -> list[str]:
    """The bot's pull requests. Anybody may open one with weights of their own; only the bot's are conversions."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        discussions = list(HfApi().get_repo_discussions(name, author=_BOT, discussion_type="pull_request"))
    except (HfHubHTTPError, KeyError):  # a repository without discussions
        return []
    return [f"refs/pr/{each.num}" for each in discussions if each.author == _BOT and each.is_pull_request]


def _list_files(name: str, revision: str) -> dict[str, str]:
    """Path and content hash of every file of a revision."""
    from huggingface_hub import HfApi, RepoFile

    tree = HfApi().list_repo_tree(name, recursive=True, revision=revision)
    return {
        file.path: file.lfs.sha256 if file.lfs is not None else file.blob_id
        for file in tree
        if isinstance(file, RepoFile)
    }


def _names_in(files: Iterable[str], folder: str = "") -> list[str]:
    """The names of the files that lie directly in a folder of the repository."""
    return [Path(file).name for file in files if str(Path(file).parent) == (folder or ".")]


def _small_files(files: Iterable[str], folder: str = "") -> list[str]:
    """Config, processor, tokenizer and card, and the indexes of shards."""
    return [str(Path(folder) / name) for name in _names_in(files, folder) if SMALL_FILES.fullmatch(name)]


def _weight_files(folder: Path, files: Collection[str], name: str) -> list[str]:
    """The file of that name, or its shards, whose index has been fetched."""
    return [name] if name in files else shard_names(folder / f"{name}.index.json")


def _cached_snapshot(name: str, revision: str | None, is_whole: Callable[[Path], bool]) -> Path | None:
    """The folder of a snapshot that the cache holds whole; weights may be a conversion's.

    Of the default revision, that of a pull request will do where the cache holds it alone; then with a warning.
    """
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:  # no name that a repository may have
        return None
    references = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "refs/refs/pr"
    others = [] if revision else [f"refs/pr/{path.name}" for path in sorted(references.glob("*"))]
    for reference in (revision or constants.DEFAULT_REVISION, *others):
        for config in (*CONFIG_FILES, MODULES_FILE, *TOKENIZER_FILES):
            path = try_to_load_from_cache(name, config, revision=reference)
            if isinstance(path, str) and is_whole(folder := Path(path).parent):
                if reference in others:
                    LOG.warning("%s: the cache holds no main, only %s; that is read.", name, reference)
                return folder
    return None


def _holds_weights(folder: Path) -> bool:
    names = (*OPEN_CLIP_FILES, *TRANSFORMERS_FILES)
    folders = [folder, *(folder / module for module in module_folders(folder) if (folder / module).is_dir())]
    own = any(choose_weights([file.name for file in each.iterdir()], names) for each in folders)
    return own or bool(find_conversions(folder, names))


def _is_from_the_hub(error: Exception) -> bool:
    """Whether an error is of the Hub's client, its HTTP library or the system."""
    from huggingface_hub.errors import HFValidationError, RevisionResolutionError

    kinds = (OSError, HFValidationError, RevisionResolutionError)
    return isinstance(error, kinds) or type(error).__module__.startswith("httpx")
