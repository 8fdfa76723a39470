"""The parts of a stored job that a later one gets: its texts, its conversation, and its repository with credential."""

from labrats.intake.request import Texts
from labrats.model.conversation import Conversation, decode_conversation
from labrats.model.core_resources import ConfigMap, Secret, problem_of_credentials
from labrats.model.errors import NotFound
from labrats.model.git_repo import GitRepo
from labrats.model.job import Job, KeyReference
from labrats.ports import Store


async def texts_of_job(store: Store, job: Job) -> Texts:
    """Return the job's texts. Raises NotFound if they are not stored any more."""
    prompt = job.spec.prompt if job.prompt_ref is None else await _text(store, job.prompt_ref)
    instructions = await _text(store, job.instructions_ref) if job.instructions_ref else None
    return Texts(prompt or "", instructions or None)


async def conversation_of_job(store: Store, job: Job) -> Conversation:
    """Return the conversation that the job continued; an empty one if it started it, or if it was deleted."""
    if (reference := job.spec.conversation_ref) is None:
        return ()
    try:
        return decode_conversation(await _text(store, reference))
    except NotFound:
        return ()


async def _text(store: Store, reference: KeyReference) -> str:
    return (await store.get(ConfigMap, reference.name)).data.get(reference.key, "")


async def repo_of_job(store: Store, job: Job, *, labelled_only: bool) -> GitRepo | None:
    """Return the job's repository with its credential, unless each attempt gets a token.

    Raises NotFound if the credential does not exist or is not the job's to use. A job applied with kubectl may name any
    Secret, and may have been refused because of that: a later job must not get a copy.

    labelled_only: true if a Secret must be labelled for jobs.
    """
    if (setup := job.spec.workspace_setup) is None:
        return None
    if setup.credentials_ref is None or setup.token_from:
        return GitRepo(setup.git_repo)
    if not job.is_resolved:
        raise NotFound("the job was refused before its credential was checked")
    secret = await store.get(Secret, setup.credentials_ref)
    if problem := problem_of_credentials(secret, job.metadata.uid, labelled_only=labelled_only):
        raise NotFound(problem)
    credential = secret.data
    return GitRepo(setup.git_repo, username=credential.get("username", ""), password=credential.get("password", ""))
