"""The custom resources of Labrats, as the API server is told of them: fields, limits, rules, and columns of kubectl."""

from copy import deepcopy
from typing import Any, Final

from labrats.api.routes.agents import AgentBody
from labrats.api.routes.ai_models import AiModelBody
from labrats.api.routes.config import DefaultsBody
from labrats.api.routes.instructions import InstructionBody
from labrats.api.routes.webhook_sources import MAX_OVERRIDES, WebhookSourceBody
from labrats.api.schemas.mcp_servers import MAX_MCP_SERVERS
from labrats.api.schemas.patterns import DATA_KEY, IN_WORDS, MCP_SERVER, NAME, QUANTITY, REPOSITORY
from labrats.api.schemas.submission import MAX_FILES, ConfigBody, Submission
from labrats.manifests.schema import Schema, borrow, refine, structure_of
from labrats.model.agent import AiAgentSpec, AiAgentStatus, ChainCondition, FailurePolicy
from labrats.model.ai_config import AI_CONFIG_NAME, AiConfigSpec
from labrats.model.ai_model import DEFAULT_SLOTS, AiModelSpec, AiModelStatus
from labrats.model.condition import Condition
from labrats.model.config import LOCAL_PROVIDERS, PROVIDERS, JobConfig
from labrats.model.instruction import AiInstructionSpec, Scope
from labrats.model.job import DEFAULT_PRIORITY, PROMPT_BYTES, SESSION_ID, STATUS_LOG_LINES, JobSpec, JobStatus
from labrats.model.phases import Phase
from labrats.model.record import Record
from labrats.model.webhook_source import DEFAULT_ASSOCIATIONS, WebhookSourceSpec, WebhookSourceStatus

GROUP: Final = "labrats.work"
VERSION: Final = "v1alpha1"

MOST_ATTEMPTS: Final = 10**9
LONGEST_JOB_NAME: Final = 52
"""Attempts are named after their job, and a Job of Kubernetes has at most 63 characters."""


def custom_resource_definitions() -> list[dict[str, Any]]:
    """All of them, ready to be applied."""
    return [
        _definition(
            kind="InferenceRequest",
            plural="inferencerequests",
            short_name="ir",
            schema=_job_schema(),
            columns=[
                _column("Type", ".spec.type"),
                _column("Source", ".spec.source"),
                _column("Agent", ".spec.agentRole"),
                _column("Model", _resolved("model")),
                _column("Phase", ".status.phase"),
                _column("Attempts", ".status.attempts", "integer"),
                _column("Age", ".metadata.creationTimestamp", "date"),
                _column("Provider", _resolved("provider"), priority=1),
                _column("Reason", ".status.failedReason", priority=1),
            ],
        ),
        _definition(
            kind="AiModel",
            plural="aimodels",
            short_name="aim",
            schema=_ai_model_schema(),
            columns=[
                _column("Provider", ".spec.provider"),
                _column("Model", ".spec.model"),
                _column("Slots", ".spec.slots", "integer"),
                _column("Problem", ".status.conditions[?(@.status=='False')].message"),
                _column("Age", ".metadata.creationTimestamp", "date"),
                _column("Endpoint", ".spec.endpoint", priority=1),
            ],
        ),
        _definition(
            kind="AiAgent",
            plural="aiagents",
            short_name="aia",
            schema=_agent_schema(),
            columns=[
                _column("Trigger name", ".spec.triggerName"),
                _column("Enabled", ".spec.enabled", "boolean"),
                _column("Provider", ".spec.defaultProvider"),
                _column("Model", ".spec.defaultModel"),
                _column("Problem", ".status.conditions[?(@.status=='False')].message"),
                _column("Age", ".metadata.creationTimestamp", "date"),
            ],
        ),
        _definition(
            kind="AiInstruction",
            plural="aiinstructions",
            short_name="aii",
            schema=_instruction_schema(),
            columns=[
                _column("Scope", ".spec.scope"),
                _column("Priority", ".spec.priority", "integer"),
                _column("Name", ".spec.displayName"),
                _column("Age", ".metadata.creationTimestamp", "date"),
            ],
        ),
        _definition(
            kind="AiConfig",
            plural="aiconfigs",
            short_name="aic",
            schema=_ai_config_schema(),
            columns=[
                _column("Model", ".spec.model"),
                _column("Effort", ".spec.effort"),
                _column("Age", ".metadata.creationTimestamp", "date"),
            ],
        ),
        _definition(
            kind="WebhookSource",
            plural="webhooksources",
            short_name="whs",
            schema=_webhook_source_schema(),
            columns=[
                _column("Type", ".spec.type"),
                _column("Enabled", ".spec.enabled", "boolean"),
                _column("URL", ".status.url"),
                _column("Ready", ".status.conditions[?(@.type=='Ready')].status"),
                _column("Deliveries", ".status.deliveries", "integer"),
                _column("Problem", ".status.conditions[?(@.status=='False')].message"),
                _column("Age", ".metadata.creationTimestamp", "date"),
            ],
        ),
    ]


def _schema(description: str, spec: type[Record], status: type[Record]) -> Schema:
    properties = {"spec": structure_of(spec), "status": structure_of(status)}
    return {"type": "object", "description": description, "properties": properties, "required": ["spec"]}


def _object(description: str, spec: Schema) -> Schema:
    return {"type": "object", "description": description, "properties": {"spec": spec}, "required": ["spec"]}


def _agent_schema() -> Schema:
    schema = _schema("An agent: which events start it, and what it lends to its jobs.", AiAgentSpec, AiAgentStatus)
    spec = refine(borrow(schema["properties"]["spec"], AgentBody), _AGENT_SPEC)
    return schema | {"properties": schema["properties"] | {"spec": spec}}


def _instruction_schema() -> Schema:
    spec = refine(borrow(structure_of(AiInstructionSpec), InstructionBody), _INSTRUCTION_SPEC)
    return _object("A text that agents work by.", spec)


def _webhook_source_schema() -> Schema:
    schema = _schema("A source of webhooks.", WebhookSourceSpec, WebhookSourceStatus)
    spec = borrow(schema["properties"]["spec"], WebhookSourceBody)
    spec = refine(spec, _WEBHOOK_SOURCE_SPEC)
    return schema | {"properties": schema["properties"] | {"spec": spec}}


def _ai_config_schema() -> Schema:
    spec = refine(borrow(structure_of(AiConfigSpec), DefaultsBody), _AI_CONFIG_SPEC)
    schema = _object("What jobs use unless somebody says otherwise.", spec)
    only_one = _rule(f"self.metadata.name == '{AI_CONFIG_NAME}'", f"there is one AiConfig, named {AI_CONFIG_NAME!r}")
    return schema | {"x-kubernetes-validations": [only_one]}


def _job_schema() -> Schema:
    return {
        "type": "object",
        "description": "A job: what an AI agent is asked to do, and what became of it.",
        "properties": {
            "spec": _with_limits_of_resolved(refine(borrow(structure_of(JobSpec), Submission), _JOB_SPEC)),
            "status": _with_conditions(_with_limits_of_resolved(refine(structure_of(JobStatus), _JOB_STATUS))),
        },
        "required": ["spec"],
        "x-kubernetes-validations": [
            _rule(
                f"self.metadata.name.size() <= {LONGEST_JOB_NAME}",
                f"the name must have at most {LONGEST_JOB_NAME} characters: the attempts are named after it",
            ),
        ],
    }


def _with_limits_of_resolved(part: Schema) -> Schema:
    """A person may write the settings that the engine resolves: they have the limits of those that are asked for."""
    config = borrow(structure_of(JobConfig), ConfigBody)
    return refine(part, {"properties": {"resolved": {"properties": {"config": config}}}})


def _with_conditions(status: Schema) -> Schema:
    conditions = {
        "type": "array",
        "description": "What has happened to the job: Accepted, Started, Finished.",
        "items": structure_of(Condition),
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    }
    return status | {"properties": status["properties"] | {"conditions": conditions}}


def _ai_model_schema() -> Schema:
    schema = _schema("A model that jobs run on, and how many of them at once.", AiModelSpec, AiModelStatus)
    with_slots = {"properties": {"slots": {"default": DEFAULT_SLOTS}}}
    spec = refine(borrow(schema["properties"]["spec"], AiModelBody), with_slots)
    return schema | {"properties": schema["properties"] | {"spec": spec}}


def _rule(condition: str, message: str) -> dict[str, str]:
    return {"rule": condition, "message": message}


_RESOURCES: Final = {
    "maxProperties": 2,
    "additionalProperties": {
        "type": "object",
        "maxProperties": 20,
        "additionalProperties": {"type": "string", "maxLength": 40, "pattern": QUANTITY},
    },
    "x-kubernetes-validations": [
        _rule("self.all(name, name in ['requests', 'limits'])", "must have nothing but requests and limits")
    ],
}
"""What a container asks for and may use."""


_MCP_SERVERS: Final = {
    "maxProperties": MAX_MCP_SERVERS,
    "x-kubernetes-validations": [
        _rule(f"self.all(name, name.matches('{MCP_SERVER}'))", f"each name {IN_WORDS[MCP_SERVER]}"),
        _rule(
            "self.all(name, has(self[name].command) != has(self[name].url))",
            "each must have either a `command` to start or the `url` of one that runs",
        ),
    ],
}

_WHEREVER: Final = {"executorResources": _RESOURCES, "mcpServers": _MCP_SERVERS}
"""What holds of a field by its name, wherever it stands."""


def _checked(schema: Schema) -> Schema:
    """`schema` with what holds wherever a field stands."""
    checked = dict(schema)
    if "properties" in schema:
        checked["properties"] = {
            name: _checked(each) | deepcopy(_WHEREVER.get(name, {})) for name, each in schema["properties"].items()
        }
    if "items" in schema:
        checked["items"] = _checked(schema["items"])
    return checked


_NAME: Final = {"minLength": 1, "maxLength": 253, "pattern": NAME}
"""Of an object of the cluster."""

_KEY_OF: Final = {"properties": {"name": _NAME, "key": {"pattern": DATA_KEY}}}

_AI_CONFIG_SPEC: Final = {
    "properties": {
        "providers": {
            "maxProperties": len(PROVIDERS),
            "x-kubernetes-validations": [
                _rule(f"self.all(name, name in {list(PROVIDERS)})", f"the providers are {', '.join(PROVIDERS)}"),
                _rule(
                    f"self.all(name, !has(self[name].files) || name in {list(LOCAL_PROVIDERS)})",
                    f"only {', '.join(LOCAL_PROVIDERS)} run models from files",
                ),
            ],
        },
    }
}

_AGENT_SPEC: Final = {
    "properties": {
        "enabled": {"default": True},
        "eventTriggers": {
            "items": {
                "properties": {
                    "enabled": {"default": True},
                    "next": {
                        "properties": {
                            "condition": {"default": ChainCondition.ON_SUCCESS.value},
                            "failurePolicy": {"default": FailurePolicy.STOP.value},
                        }
                    },
                }
            }
        },
    }
}

_WEBHOOK_SOURCE_SPEC: Final = {
    "properties": {
        "enabled": {"default": True},
        "allowedAssociations": {"default": list(DEFAULT_ASSOCIATIONS)},
        "repoOverrides": {
            "maxProperties": MAX_OVERRIDES,
            "x-kubernetes-validations": [
                _rule(f"self.all(name, name.matches('{REPOSITORY}'))", f"each name {IN_WORDS[REPOSITORY]}")
            ],
        },
    }
}

_INSTRUCTION_SPEC: Final = {
    "properties": {"scope": {"default": Scope.LOCAL.value}, "priority": {"default": 0}},
}

_JOB_SPEC: Final = {
    "properties": {
        "prompt": {"maxLength": PROMPT_BYTES},
        "promptRef": _KEY_OF,
        "instructionsRef": _KEY_OF,
        "eventRef": _KEY_OF,
        "priority": {"minimum": -1000, "maximum": 1000, "default": DEFAULT_PRIORITY},
        "workspaceSetup": {
            "properties": {
                "gitRepo": {
                    "maxLength": 2048,
                    "x-kubernetes-validations": [
                        _rule(
                            "!self.matches('^[a-z]+://[^/]*:[^/]*@') && !self.matches('^https?://[^/]*@')",
                            "must not carry a credential: put it into a Secret, as `username` and `password`, "
                            "and name that in credentialsRef",
                        )
                    ],
                },
                "credentialsRef": {
                    "description": "The Secret with `username` and `password` for the repository.",
                    **_NAME,
                },
                "tokenFrom": _NAME,
            }
        },
        "workspaceFiles": {
            "maxItems": MAX_FILES,
            "description": "Files for the workspace. The engine writes this; the bytes lie on the uploads volume.",
            "items": {
                "properties": {
                    "name": {
                        "maxLength": 1024,
                        "x-kubernetes-validations": [
                            _rule(
                                "!self.matches('(^|/)([.][.]?|[.]git)?(/|$)')",
                                "must be a relative path inside the workspace",
                            )
                        ],
                    },
                    "path": {
                        "maxLength": 1024,
                        "description": "Where the bytes lie on the uploads volume.",
                        "x-kubernetes-validations": [
                            _rule(
                                "!self.matches('(^|/)([.][.]?)?(/|$)')", "must be a relative path on the uploads volume"
                            )
                        ],
                    },
                    "size": {"minimum": 0, "description": "In bytes."},
                }
            },
        },
        "workspaceUploads": {
            "maxItems": MAX_FILES,
            "description": "Files for the workspace that were uploaded before, and are kept until the job has ended.",
            "items": {
                "properties": {
                    "id": {"pattern": "^up-[0-9a-f]{16}$"},
                    "name": {"maxLength": 200, "pattern": "^[^/]+$"},
                }
            },
        },
        "owner": {"maxLength": 253},
        "apiKeyRef": _NAME,
    },
    "x-kubernetes-validations": [
        _rule("self == oldSelf", "a job cannot be changed after it was submitted; submit another one"),
        _rule("has(self.prompt) != has(self.promptRef)", "exactly one of prompt and promptRef must be set"),
    ],
}

_JOB_STATUS: Final = {
    "default": {},
    "description": "What became of the job. The engine writes this.",
    "properties": {
        "phase": {"default": Phase.PENDING.value},
        "attempts": {"default": 0, "minimum": 0, "maximum": MOST_ATTEMPTS},
        "logs": {"maxItems": STATUS_LOG_LINES},
        "session": {"properties": {"id": {"pattern": SESSION_ID}, "attempt": {"minimum": 1, "maximum": MOST_ATTEMPTS}}},
        "promptRef": _KEY_OF,
        "instructionsRef": _KEY_OF,
    },
}


def _definition(
    *, kind: str, plural: str, short_name: str, schema: Schema, columns: list[dict[str, Any]]
) -> dict[str, Any]:
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _checked(schema)},
        "additionalPrinterColumns": columns,
    }
    if "status" in schema["properties"]:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short_name],
                "categories": ["labrats"],
            },
            "versions": [version],
        },
    }


def _resolved(setting: str) -> str:
    """Where a job has it: in its spec, or in its status where a person wrote the spec."""
    return f".*.resolved.config.{setting}"


def _column(name: str, path: str, kind: str = "string", priority: int = 0) -> dict[str, Any]:
    """A column of `kubectl get`; one of another priority than 0 is shown with `-o wide` only."""
    return {"name": name, "jsonPath": path, "type": kind, "priority": priority}
