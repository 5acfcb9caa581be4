"""Checkpoints of the Hugging Face hub: hf:ORGANISATION/NAME[@REVISION], in the hub's own cache."""

import re
from pathlib import Path

from dav.errors import ConfigError, DavError
from dav.weights.checkpoint import INDEX_SUFFIX, choose_weights, shard_paths

PREFIX = "hf:"
SPEC = re.compile(r"hf:(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
TIMEOUT_S = 10.0
NO_FILE = "no file has this name"  # a pattern with which a snapshot's folder alone is looked up


def fetch(spec):
    """(path of the weights or of their index, repository's name): downloads what the cache lacks.

    Only config.json and the weights are fetched. Without a network, and with HF_HUB_OFFLINE=1,
    what the cache holds is used. Raises ConfigError for a spec of another form or a repository
    without weights, DavError if the repository, the revision or the network is not there.
    """
    match = SPEC.fullmatch(spec)
    if not match:
        raise ConfigError(f"{spec} is not of the form hf:ORGANISATION/NAME or …@REVISION")
    repository, revision = match["repository"], match["revision"]
    files = _list_files(spec, repository, revision)
    if files is None:
        folder = _cached_folder(spec, repository, revision)
        return folder / choose_weights([path.name for path in folder.iterdir()], spec), repository
    weights = choose_weights(files, spec)
    if "config.json" in files:
        _download(spec, repository, revision, "config.json")
    path = _download(spec, repository, revision, weights)
    if weights.endswith(INDEX_SUFFIX):
        for shard in shard_paths(path, spec):
            _download(spec, repository, revision, shard.name)
    return path, repository


def _list_files(spec, repository, revision):
    """The names of a repository's files, or None if the hub cannot be asked."""
    from huggingface_hub import HfApi
    from huggingface_hub import errors as hub

    try:
        info = HfApi().model_info(repository, revision=revision, timeout=TIMEOUT_S)
        return [file.rfilename for file in info.siblings or ()]
    except hub.GatedRepoError:
        raise DavError(
            f"{spec} is open only to those who accepted its terms; accept them on its page of the "
            "hub and log in: hf auth login"
        ) from None
    except hub.RepositoryNotFoundError:
        raise DavError(
            f"{spec}: the hub has no such repository, or it is private; check the name, or log in: "
            "hf auth login"
        ) from None
    except hub.RevisionNotFoundError:
        raise DavError(
            f"{spec}: the repository has no revision {revision!r}; name a branch, tag or commit of "
            "it, or none"
        ) from None
    except hub.HFValidationError as error:
        raise ConfigError(f"{spec} is no name of a repository ({error})") from None
    except Exception:  # no network or none allowed: each HTTP library has its own errors
        return None


def _cached_folder(spec, repository, revision):
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            repository, revision=revision, local_files_only=True, allow_patterns=NO_FILE
        )
    except Exception:  # likewise
        raise DavError(
            f"{spec} is not in the hub's cache, and the hub cannot be reached; connect to the "
            "network (and unset HF_HUB_OFFLINE), or fetch it elsewhere: hf download "
            f"{repository}"
        ) from None
    return Path(folder)


def _download(spec, repository, revision, name):
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, name, revision=revision))
    except Exception as error:  # likewise
        if isinstance(error, OSError) and error.errno:  # a full disk, a cache that is read-only
            raise
        raise DavError(
            f"{spec}: the download of {name} failed ({type(error).__name__}); run the same command "
            "again: it continues"
        ) from None
