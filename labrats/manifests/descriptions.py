"""What those fields of resources mean that no caller of the API sends: `kubectl explain` shows it."""

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
from labrats.model.webhook_source import WebhookSourceStatus

WORDS: Final[Mapping[type[msgspec.Struct], Mapping[str, str]]] = {
    Condition: {
        "type": "Which respect, in CamelCase.",
        "status": "Whether it is so: `True`, `False` or `Unknown`.",
        "reason": "Why, for programs.",
        "message": "Why, for people.",
        "lastTransitionTime": "Since when the status is this.",
        "observedGeneration": "The generation of the resource that this was said of.",
    },
    KeyReference: {"name": "Its name.", "key": "Which of its keys."},
    JobConfig: {"executorResources": "What the attempt's container asks for and may use, as in a pod."},
    McpServer: {"credentialsRef": "The Secret whose keys are added to `env`, or to `headers`."},
    ResolvedConfig: {"origins": "For each setting the layer that it is from: `request`, `agent`, `ai-config`, …"},
    WorkspaceSetup: {"tokenFrom": "The Secret by which each attempt gets a token of its own for the repository."},
    ChainLink: {
        "agentTriggerName": "The agent's `triggerName`.",
        "condition": "How the job must have ended.",
        "failurePolicy": "What a failure does to an `on-success` chain.",
        "allowCycles": "It may be one that the chain has visited before.",
    },
    Chain: {
        "id": "The same for all jobs of the chain.",
        "depth": "How many jobs came before this one.",
        "path": "The `triggerName` of each agent, from the first to this job's.",
        "parentJobId": "The job that this one follows.",
    },
    JobSpec: {
        "promptRef": "The ConfigMap with what the agent is asked, instead of `prompt`.",
        "instructionsRef": "The ConfigMap with what the agent works by, beside what it is asked.",
        "eventRef": "The ConfigMap with the event that the chain began with. The engine writes this.",
        "resolved": "The settings it runs with, and where each is from. The engine writes this.",
        "untrusted": "An outsider wrote what made it, whom a person has let in. The engine writes this.",
        "owner": "The API key that asked. Its holder sees the job.",
        "apiKeyRef": "The Secret of that API key, where it is a stored one.",
    },
    Usage: {
        "inputTokens": "Fresh ones: those that came from a cache are apart.",
        "outputTokens": "What the model wrote.",
        "cacheReadTokens": "What it read once more, from the provider's cache.",
        "cacheWriteTokens": "The share of the input that was written to the provider's cache.",
        "reasoningTokens": "How many of the output tokens nobody saw.",
        "costUsd": "In US dollars, where the price is known.",
        "turns": "Answers of a model.",
        "seconds": "How long it held its slot.",
    },
    Outputs: {
        "branch": "What is checked out, where that is another than before.",
        "commit": "What is checked out, where that is another than before.",
        "pullRequestUrl": "The pull request that it opened.",
        "commits": "New ones, newest first.",
        "filesChanged": "How many files the patch of the workspace is about.",
    },
    CallbackStatus: {
        "phase": "That of the last message that is done with.",
        "settledAt": "When it was done with.",
        "attempts": "Those of the job, as the message told them.",
        "finishedAt": "When the job had ended, as the message told it.",
        "problem": "Why the message was given up. Absent when it was delivered.",
        "isUnwanted": "The receiver wants to hear nothing more.",
    },
    JobStatus: {
        "phase": "Where it stands.",
        "attempts": "How often it was started.",
        "pauses": "How many of the attempts ended because the model had to be left alone.",
        "slot": "The AiModel, or `provider/model`, whose slot it holds or held.",
        "startedAt": "When the latest attempt was admitted.",
        "deadlineAt": "When the engine ends the latest attempt.",
        "finishedAt": "When it reached its final phase.",
        "notBefore": "A job that was put back waits until then.",
        "cancelRequestedAt": "When somebody asked for its end.",
        "failedCode": "Why it failed, for programs.",
        "failedReason": "Why it failed, for people.",
        "result": "What the agent answered, as far as it fits here.",
        "resultCut": "The result is larger than what is here; the attempt's output has all of it.",
        "logs": "The last lines of the latest attempt.",
        "session": "With which the next attempt goes on, where there is one and its workspace is still there.",
        "childJobId": "The job that follows in the chain.",
        "chainEnded": "Why no job follows in the chain.",
        "resolved": "Of a job written by hand: the settings it runs with, and where each is from.",
        "promptRef": "Of a job written by hand: where its prompt is, if that is too long for a pod.",
        "instructionsRef": "Of a job written by hand: where its agent's instructions are.",
    },
    AgentSession: {
        "provider": "Whose program's it is.",
        "id": "What that program calls it.",
        "attempt": "The attempt in whose workspace it began.",
    },
    AiModelStatus: {"conditions": "What is wrong with it, where that is so or was."},
    AiAgentStatus: {"conditions": "What is wrong with it, where that is so or was."},
    WebhookSourceStatus: {
        "url": "Where deliveries are received.",
        "conditions": "How it stands.",
        "lastDeliveryAt": "When the last delivery was accepted.",
        "deliveries": "How many were accepted.",
    },
}
"""By record, and by the field's name in JSON. What the bodies of the API say of the same field comes before it."""
