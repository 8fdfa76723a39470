"""The texts and secrets of an attempt on this machine, which the store has or the engine's environment."""

from collections.abc import Mapping
from contextlib import suppress

from labrats.files.attempt_inputs import (
    PROMPT_FILE,
    SECRETS_FOLDER,
    AttemptInputs,
    SecretInput,
    TextInput,
    inputs_of,
)
from labrats.model.core_resources import ConfigMap, Secret
from labrats.model.errors import GiveUp, NotFound
from labrats.model.provider_spec import provider_spec
from labrats.ports import Attempt, Store


class StoredInputs:
    """Reads the inputs of attempts. environment: that of the engine, with credentials of models that have no Secret."""

    def __init__(self, store: Store, environment: Mapping[str, str]) -> None:
        self._store, self._environment = store, environment

    async def read(self, attempt: Attempt) -> dict[str, str]:
        """Return the texts and secrets of the attempt, by the paths of their files. Raises GiveUp if one is missing."""
        inputs = inputs_of(attempt)
        secrets = await self._secrets(attempt, inputs)
        return {f"{SECRETS_FOLDER}/{name}": value for name, value in secrets.items()} | await self._texts(inputs)

    async def _texts(self, inputs: AttemptInputs) -> dict[str, str]:
        texts = {} if inputs.prompt is None else {PROMPT_FILE: inputs.prompt}
        return texts | {text.file: await self._text(text) for text in inputs.texts}

    async def _text(self, text: TextInput) -> str:
        found = None
        with suppress(NotFound):
            found = await self._store.get(ConfigMap, text.ref.name)
        return text.read_from(found)

    async def _secrets(self, attempt: Attempt, inputs: AttemptInputs) -> dict[str, str]:
        """Return the contents of `secrets/`.

        A model without a Secret has its credentials from the engine's environment, except for a model with a server
        of its own: that would get the key of Codex.
        """
        secrets: dict[str, str] = {}
        for secret in inputs.secrets:
            data = await self._secret(secret)
            secrets |= {file: data[key] for file, key in secret.files(data).items()}
        ai_model, provider = attempt.ai_model.spec if attempt.ai_model else None, attempt.job.resolved.provider
        has_own_server = ai_model is not None and ai_model.endpoint and provider_spec(provider).is_self_hosted
        if not (has_own_server or (ai_model and ai_model.credentials_ref)):
            names = provider_spec(provider).keys
            secrets |= {name: value for name in names if (value := self._environment.get(name))}
        return secrets

    async def _secret(self, wanted: SecretInput) -> dict[str, str]:
        try:
            secret = await self._store.get(Secret, wanted.name)
        except NotFound as error:
            command = f"labrats secret set {wanted.name} {next(iter(wanted.keys or ()), 'KEY')}"
            raise GiveUp(wanted.failed_code, f"{wanted.missing} (run `{command}`)") from error
        if problem := wanted.problem_of(secret, None, labelled_only=False):
            raise GiveUp(wanted.failed_code, problem)
        return secret.data
