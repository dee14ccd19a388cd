"""Files of the Hugging Face hub: ``hf://owner/repo[/file][@revision]``, pinned to a commit.

The hub's own client does the work, with its cache (``HF_HOME``) and its token (``hf auth login`` or ``HF_TOKEN``); it
is imported only where such a file is asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inkbatch.errors import ConfigError, DataError, InkbatchError, StorageError

SCHEME = "hf://"
COMMIT = re.compile(r"[0-9a-f]{40}")
CHECKPOINT_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
USUAL_FILE = "model.safetensors"
CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class HubReference:
    """A file of a repository, as a user names it.

    Attributes:
        repo: ``owner/repo``.
        file: Path in the repository; None takes its only checkpoint.
        revision: Branch, tag or commit; None is the default branch.
    """

    repo: str
    file: str | None = None
    revision: str | None = None

    @staticmethod
    def parse(text: str) -> HubReference:
        """Read ``hf://owner/repo[/file][@revision]``.

        Raises:
            ConfigError: Anything else.
        """
        rest, _, revision = text.removeprefix(SCHEME).partition("@")
        parts = rest.split("/")
        wrong_revision = "@" in text and (not revision or ("/" in revision and not revision.startswith("refs/")))
        if not text.startswith(SCHEME) or len(parts) < 2 or "" in parts or ".." in parts or wrong_revision:
            raise ConfigError(
                f"{text}: expected hf://owner/repo, hf://owner/repo/file or hf://owner/repo/file@revision"
            )
        return HubReference("/".join(parts[:2]), "/".join(parts[2:]) or None, revision or None)

    def __str__(self) -> str:
        file = f"/{self.file}" if self.file else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{SCHEME}{self.repo}{file}{revision}"


@dataclass(frozen=True)
class HubFile:
    """A fetched file.

    Attributes:
        path: Where it lies in the hub's cache.
        reference: The file with the commit that it was taken from.
        config: The repository's ``config.json`` of that commit, which may say what the weights do not; empty where it
            has none.
    """

    path: Path
    reference: HubReference
    config: Mapping[str, Any] = field(default_factory=dict)


def fetch(reference: HubReference) -> HubFile:
    """Fetch a file of one commit; what is in the cache already is not fetched again.

    A full commit and a file name need no question to the hub: with the file in the cache, no network is needed.

    Raises:
        ConfigError: The hub cannot be reached from here.
        DataError: No such repository, revision or file, or no right to read it; several checkpoints and none is named.
        StorageError: The hub failed; a later try may help.
    """
    file, commit = reference.file, reference.revision
    names: list[str] | None = None  # not asked for
    try:
        from huggingface_hub import HfApi, hf_hub_download

        if file is None or commit is None or not COMMIT.fullmatch(commit):
            found = HfApi().model_info(reference.repo, revision=reference.revision)
            if found.sha is None:
                raise DataError(f"{reference}: the hub names no commit; give one: hf://owner/repo/file@commit")
            commit = found.sha
            names = [sibling.rfilename for sibling in found.siblings or []]
            file = file or only_checkpoint(str(reference), names, f"{SCHEME}{reference.repo}/")
        path = hf_hub_download(reference.repo, file, revision=commit)
        config = _config(reference.repo, commit, names)
    except InkbatchError:
        raise
    except Exception as error:  # the client raises its own errors, its HTTP library's, and those of the socket
        raise _explained(reference, error) from error
    return HubFile(Path(path), HubReference(reference.repo, file, commit), config)


def _config(repo: str, commit: str, names: list[str] | None) -> dict[str, Any]:
    """Fetch the repository's ``config.json`` where it is listed; from the cache alone if the host was not asked."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    if names is not None and CONFIG_FILE not in names:
        return {}
    try:
        path = hf_hub_download(repo, CONFIG_FILE, revision=commit, local_files_only=names is None)
        values = json.loads(Path(path).read_bytes())
    except (EntryNotFoundError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def only_checkpoint(place: str, names: list[str], prefix: str = "") -> str:
    """Choose the file that a repository or folder is about.

    Args:
        place: Its name in messages.
        names: Files in it.
        prefix: Goes before the files' names in messages.

    Raises:
        DataError: There is none, or there are several.
    """
    found = [name for name in names if name.endswith(CHECKPOINT_SUFFIXES)]
    if len(found) == 1 or USUAL_FILE in found:
        return USUAL_FILE if USUAL_FILE in found else found[0]
    kind = "repository" if place.startswith(SCHEME) else "folder"
    if not found:
        raise DataError(f"{place}: the {kind} holds no checkpoint ({', '.join(CHECKPOINT_SUFFIXES)}); name another")
    raise DataError(
        f"{place}: the {kind} holds {len(found)} checkpoints; name one of them: "
        + ", ".join(f"{prefix}{name}" for name in found)
    )


def _explained(reference: HubReference, error: Exception) -> InkbatchError:
    """Translate an error of the client into one of ours."""
    from huggingface_hub import errors

    reason = (str(error).splitlines() or [""])[0][:300] or type(error).__name__
    if isinstance(error, errors.GatedRepoError | errors.RepositoryNotFoundError):
        return DataError(
            f"{reference}: no such repository, or it is not open to everyone: {reason}; check its name, accept its "
            "terms on its page, and log in (hf auth login, or HF_TOKEN)"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return DataError(f"{reference}: the repository has no such revision; name a branch, a tag or a full commit")
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return DataError(f"{reference}: the repository has no such file; check its name on the repository's page")
    if isinstance(error, errors.HFValidationError):
        return ConfigError(f"{reference}: not a repository's name: {reason}")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 429 or (status is not None and status >= 500):
        return StorageError(f"{reference}: the hub answered {status}: {reason}; try again later")
    return ConfigError(
        f"{reference}: cannot be fetched from here: {reason}; download the file where there is a network and give its "
        "path, or mount a Hugging Face cache that holds it (HF_HOME) and name file and commit: "
        f"hf://{reference.repo}/FILE@COMMIT"
    )
