"""The secrets of an attempt: a folder with one file for each."""

from collections.abc import Mapping
from pathlib import Path

from labrats.model.login_tokens import tokens_in


def read_secrets(folder: Path) -> dict[str, str]:
    """Return the secrets in `folder`, by name."""
    return {file.name: file.read_text("utf-8", "replace").rstrip("\r\n") for file in secret_files(folder)}


def secret_files(folder: Path) -> list[Path]:
    """List the files of the secrets in `folder`, which may be missing."""
    files = folder.iterdir() if folder.is_dir() else ()
    return [file for file in files if file.is_file() and not file.name.startswith(".")]  # a mounted Secret has `..data`


def values_to_redact(secrets: Mapping[str, str]) -> list[str]:
    """Return all secrets except a user name with a password, since it may be a word that the agent needs to print.

    A user name without a password is a token. The tokens in a login, such as `auth.json`, are secrets of their own.
    """
    visible = "git-username" if secrets.get("git-password") else None
    values = [value for name, value in secrets.items() if name != visible]
    return values + [token for value in values for token in tokens_in(value.encode())]
