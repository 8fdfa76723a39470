"""Descriptions of resource fields that no API body describes. `kubectl explain` shows them."""

from collections.abc import Mapping
from typing import Final

import msgspec

from labrats.model.agent import AiAgentStatus, ChainLink
from labrats.model.ai_model import AiModelStatus
from labrats.model.condition import Condition
from labrats.model.config import JobConfig, ResolvedConfig
from labrats.model.job import (
    AgentSession,
    CallbackStatus,
    Chain,
    JobSpec,
    JobStatus,
    KeyReference,
    Outputs,
    Usage,
    WorkspaceSetup,
)
from labrats.model.mcp_server import McpServer
from labrats.model.webhook_source import DeliveryRecord, WebhookSourceStatus

DESCRIPTIONS: Final[Mapping[type[msgspec.Struct], Mapping[str, str]]] = {
    Condition: {
        "type": "The type of the condition, in CamelCase.",
        "status": "The status: `True`, `False` or `Unknown`.",
        "reason": "The reason for the status, for programs.",
        "message": "The reason for the status, for people.",
        "lastTransitionTime": "The time at which the status last changed.",
        "observedGeneration": "The generation of the resource that the condition describes.",
    },
    KeyReference: {"name": "The name of the Secret or ConfigMap.", "key": "The key in it."},
    JobConfig: {"executorResources": "Resource requests and limits of the executor container, as in a pod."},
    McpServer: {"credentialsRef": "The Secret whose keys are added to `env`, or to `headers`."},
    ResolvedConfig: {
        "origins": "The layer that each setting comes from: `request`, `agent`, `ai-config`, …",
        "isolation": "The isolation that the job gets.",
    },
    WorkspaceSetup: {"tokenFrom": "The Secret from which each attempt gets its own token for the repository."},
    ChainLink: {
        "agentTriggerName": "The `triggerName` of the agent to start.",
        "condition": "The outcome of the job that starts the agent.",
        "failurePolicy": "The effect of a failure on an `on-success` link.",
        "allowCycles": "True if the agent may already be part of the chain.",
    },
    Chain: {
        "id": "The id of the chain, the same for all its jobs.",
        "depth": "The number of jobs before this one.",
        "path": "The `triggerName` of each agent, from the first to the agent of this job.",
        "parentJobId": "The job that this job follows.",
    },
    JobSpec: {
        "title": "The first line of the prompt.",
        "rerunOf": "The job that this one repeats.",
        "promptRef": "The ConfigMap with the prompt, instead of `prompt`.",
        "instructionsRef": "The ConfigMap with the agent's instructions, which come in addition to the prompt.",
        "eventRef": "The ConfigMap with the event that started the chain. Set by the engine.",
        "resolved": "The resolved settings of the job and the origin of each. Set by the engine.",
        "untrusted": "True if the job comes from an external contributor whom a person admitted. Set by the engine.",
        "owner": "The API key that submitted the job. Its holder may see the job.",
        "apiKeyRef": "The Secret of that API key, if the key is stored.",
    },
    Usage: {
        "inputTokens": "Input tokens, without those read from a cache.",
        "outputTokens": "Output tokens.",
        "cacheReadTokens": "Input tokens read from the provider's cache.",
        "cacheWriteTokens": "The part of the input tokens that was written to the provider's cache.",
        "reasoningTokens": "The part of the output tokens that the model used for hidden reasoning.",
        "costUsd": "The cost in US dollars, if the price is known.",
        "turns": "The number of answers of a model.",
        "seconds": "The time in seconds for which the job held its slot.",
    },
    Outputs: {
        "branch": "The branch that is checked out, if the agent changed it.",
        "commit": "The commit that is checked out, if the agent changed it.",
        "pullRequestUrl": "The pull request that the agent opened.",
        "commits": "New commits, newest first.",
        "filesChanged": "The number of files in the patch of the workspace.",
        "bundleBytes": "The size of the git bundle with the new commits. Absent if there is none.",
        "keyExposed": "True if the agent could read the credentials of its model.",
        "refusedHosts": "Hosts, each with its port, that the network rule of the job has refused to the agent.",
    },
    CallbackStatus: {
        "phase": "The phase in the last settled message.",
        "settledAt": "The time at which the message was delivered or given up.",
        "attempts": "The job's number of attempts, as in the message.",
        "finishedAt": "The time at which the job ended, as in the message.",
        "problem": "The reason why the message was given up. Absent if it was delivered.",
        "isUnwanted": "True if the receiver declined further messages.",
    },
    JobStatus: {
        "phase": "The phase of the job.",
        "attempts": "The number of attempts that were started.",
        "pauses": "The number of attempts that ended because the model was paused.",
        "slot": "The AiModel, or `provider/model`, whose slot the job holds or held.",
        "startedAt": "The time at which the latest attempt was admitted.",
        "deadlineAt": "The time at which the engine stops the latest attempt.",
        "finishedAt": "The time at which the job reached its final phase.",
        "notBefore": "The time until which a requeued job waits.",
        "cancelRequestedAt": "The time at which a user requested cancellation.",
        "failedCode": "The reason for the failure, for programs.",
        "failedReason": "The reason for the failure, for people.",
        "result": "The answer of the agent, as far as it fits here.",
        "resultCut": "True if the result was cut. The attempt's output has all of it.",
        "logs": "The last lines of the latest attempt's log.",
        "session": "The agent session that the next attempt resumes, if there is one and its workspace still exists.",
        "childJobId": "The next job of the chain.",
        "chainEnded": "The reason why the chain has no next job.",
        "resolved": "For a job applied with kubectl: the resolved settings and the origin of each.",
        "promptRef": "For a job applied with kubectl: the ConfigMap with the prompt, if it is too long for a pod.",
        "instructionsRef": "For a job applied with kubectl: the ConfigMap with the agent's instructions.",
    },
    AgentSession: {
        "provider": "The provider whose program owns the session.",
        "id": "The session's id in that program.",
        "attempt": "The attempt in whose workspace the session began.",
    },
    AiModelStatus: {"conditions": "The current or past problems of the model."},
    AiAgentStatus: {"conditions": "The current or past problems of the agent."},
    WebhookSourceStatus: {
        "url": "The URL that receives deliveries.",
        "conditions": "The conditions of the source.",
        "lastDeliveryAt": "The time of the last accepted delivery.",
        "deliveries": "The number of accepted deliveries.",
        "recentDeliveries": "The latest deliveries, in order.",
    },
    DeliveryRecord: {
        "at": "The time of the delivery.",
        "outcome": "Its outcome: started, unmatched, ignored, ping or refused.",
        "id": "Its id, which sorts by time.",
        "payloadBytes": "The size of its stored payload; 0 if none is stored.",
        "event": "The event, such as issues.labeled.",
        "repo": "The repository, as owner/name.",
        "reason": "Why it started no agent.",
        "jobs": "The names of the jobs that it started.",
    },
}
"""The descriptions by record and by JSON name of the field. A description in a body of the API takes precedence."""
