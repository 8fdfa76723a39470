"""The custom resource definitions of Labrats: fields, limits, validation rules and columns for kubectl."""

from copy import deepcopy
from typing import Any, Final

from labrats.api.routes.agents import AgentBody
from labrats.api.routes.ai_models import AiModelBody
from labrats.api.routes.config import DefaultsBody
from labrats.api.routes.instructions import InstructionBody
from labrats.api.routes.webhook_sources import MAX_OVERRIDES, POLL_PROBLEM, WebhookSourceBody
from labrats.api.schemas.mcp_servers import MAX_MCP_SERVERS
from labrats.api.schemas.patterns import DATA_KEY, MCP_SERVER, NAME, PATTERN_MESSAGES, QUANTITY, REPOSITORY
from labrats.api.schemas.submission import MAX_FILES, ConfigBody, Submission
from labrats.manifests.schema import Schema, add_constraints, merge_schema, structural_schema
from labrats.model.agent import AiAgentSpec, AiAgentStatus
from labrats.model.ai_config import AI_CONFIG_NAME, AiConfigSpec
from labrats.model.ai_model import DEFAULT_SLOTS, AiModelSpec, AiModelStatus
from labrats.model.condition import Condition
from labrats.model.config import JobConfig
from labrats.model.instruction import AiInstructionSpec, Scope
from labrats.model.job import (
    DEFAULT_PRIORITY,
    FILE_PATH,
    PROMPT_BYTES,
    SESSION_ID,
    STATUS_LOG_LINES,
    UPLOAD_ID,
    JobSpec,
    JobStatus,
)
from labrats.model.phases import Phase
from labrats.model.provider_spec import LOCAL_PROVIDERS, PROVIDERS
from labrats.model.record import Record
from labrats.model.webhook_source import DEFAULT_ASSOCIATIONS, WEBHOOK, WebhookSourceSpec, WebhookSourceStatus

GROUP: Final = "labrats.work"
VERSION: Final = "v1alpha1"

MAX_ATTEMPTS: Final = 1_000_000
"""The maximum number of attempts of a job: far more than a job can make. The engine looks for the files of each."""

MAX_JOB_NAME_LENGTH: Final = 52
"""The maximum length of a job's name. Attempts append a number, and a Kubernetes Job's name is limited to 63."""


def custom_resource_definitions() -> list[dict[str, Any]]:
    """Return the definitions of all custom resources."""
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
    properties = {"spec": structural_schema(spec), "status": structural_schema(status)}
    return {"type": "object", "description": description, "properties": properties, "required": ["spec"]}


def _object(description: str, spec: Schema) -> Schema:
    return {"type": "object", "description": description, "properties": {"spec": spec}, "required": ["spec"]}


def _agent_schema() -> Schema:
    schema = _schema(
        "An agent: the events that start it, and the instructions and settings of its jobs.", AiAgentSpec, AiAgentStatus
    )
    spec = merge_schema(add_constraints(schema["properties"]["spec"], AgentBody), _AGENT_SPEC)
    return schema | {"properties": schema["properties"] | {"spec": spec}}


def _instruction_schema() -> Schema:
    spec = merge_schema(add_constraints(structural_schema(AiInstructionSpec), InstructionBody), _INSTRUCTION_SPEC)
    return _object("An instruction: a text that agents follow.", spec)


def _webhook_source_schema() -> Schema:
    schema = _schema("A source of webhooks.", WebhookSourceSpec, WebhookSourceStatus)
    spec = add_constraints(schema["properties"]["spec"], WebhookSourceBody)
    spec = merge_schema(spec, _WEBHOOK_SOURCE_SPEC)
    return schema | {"properties": schema["properties"] | {"spec": spec}}


def _ai_config_schema() -> Schema:
    spec = merge_schema(add_constraints(structural_schema(AiConfigSpec), DefaultsBody), _AI_CONFIG_SPEC)
    schema = _object("The default settings of all jobs.", spec)
    only_one = _rule(f"self.metadata.name == '{AI_CONFIG_NAME}'", f"the only AiConfig is named {AI_CONFIG_NAME!r}")
    return schema | {"x-kubernetes-validations": [only_one]}


def _job_schema() -> Schema:
    return {
        "type": "object",
        "description": "A job: a request to run an AI agent, and its status.",
        "properties": {
            "spec": _with_limits_of_resolved(
                merge_schema(add_constraints(structural_schema(JobSpec), Submission), _JOB_SPEC)
            ),
            "status": _with_conditions(
                _with_limits_of_resolved(merge_schema(structural_schema(JobStatus), _JOB_STATUS))
            ),
        },
        "required": ["spec"],
        "x-kubernetes-validations": [
            _rule(
                f"self.metadata.name.size() <= {MAX_JOB_NAME_LENGTH}",
                f"the name must have at most {MAX_JOB_NAME_LENGTH} characters: the attempts are named after it",
            ),
        ],
    }


def _with_limits_of_resolved(part: Schema) -> Schema:
    """Apply the limits of requested settings to resolved ones, which a person may also write."""
    config = add_constraints(structural_schema(JobConfig), ConfigBody)
    return merge_schema(part, {"properties": {"resolved": {"properties": {"config": config}}}})


def _with_conditions(status: Schema) -> Schema:
    conditions = {
        "type": "array",
        "description": "The conditions of the job: Accepted, Started, Finished, Succeeded.",
        "items": structural_schema(Condition),
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    }
    return status | {"properties": status["properties"] | {"conditions": conditions}}


def _ai_model_schema() -> Schema:
    schema = _schema("A model that runs jobs, and the number of jobs that it runs at once.", AiModelSpec, AiModelStatus)
    with_slots = {"properties": {"slots": {"default": DEFAULT_SLOTS}}}
    spec = merge_schema(add_constraints(schema["properties"]["spec"], AiModelBody), with_slots)
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
        _rule("self.all(name, name in ['requests', 'limits'])", "must have only requests and limits")
    ],
}
"""Rules for resource requests and limits of a container."""


_MCP_SERVERS: Final = {
    "maxProperties": MAX_MCP_SERVERS,
    "x-kubernetes-validations": [
        _rule(f"self.all(name, name.matches('{MCP_SERVER}'))", f"each name {PATTERN_MESSAGES[MCP_SERVER]}"),
        _rule(
            "self.all(name, has(self[name].command) != has(self[name].url))",
            "each must have either a `command` or a `url`",
        ),
    ],
}

_RULES_BY_FIELD: Final = {"executorResources": _RESOURCES, "mcpServers": _MCP_SERVERS}
"""Rules by the name of a field. They apply at every place where the field occurs."""


def _with_rules(schema: Schema) -> Schema:
    """Return `schema` with `_RULES_BY_FIELD` applied at every level."""
    checked = dict(schema)
    if "properties" in schema:
        checked["properties"] = {
            name: _with_rules(each) | deepcopy(_RULES_BY_FIELD.get(name, {}))
            for name, each in schema["properties"].items()
        }
    if "items" in schema:
        checked["items"] = _with_rules(schema["items"])
    return checked


_NAME: Final = {"minLength": 1, "maxLength": 253, "pattern": NAME}
"""Limits of the name of a Kubernetes object."""

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
        # None in `eventTriggers`: the list has one owner, so a default in it conflicts with what each manager applies.
    }
}

_WEBHOOK_SOURCE_SPEC: Final = {
    "properties": {
        "enabled": {"default": True},
        "allowedAssociations": {"default": list(DEFAULT_ASSOCIATIONS)},
        "mode": {"default": WEBHOOK},
        "repoOverrides": {
            "maxProperties": MAX_OVERRIDES,
            "x-kubernetes-validations": [
                _rule(f"self.all(name, name.matches('{REPOSITORY}'))", f"each name {PATTERN_MESSAGES[REPOSITORY]}")
            ],
        },
    },
    "x-kubernetes-validations": [
        _rule(
            "self.mode != 'poll' || (self.type == 'github' && has(self.credentialsRef) && "
            "has(self.repositories) && self.repositories.size() > 0)",
            POLL_PROBLEM,
        )
    ],
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
            "description": "Files for the workspace. Set by the engine; the content is on the uploads volume.",
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
                        "description": "The path of the content on the uploads volume.",
                        "x-kubernetes-validations": [
                            _rule(f"self.matches('{FILE_PATH}')", "must be jobs/FOLDER/NAME, in the folder of one job")
                        ],
                    },
                    "size": {"minimum": 0, "description": "The size in bytes."},
                }
            },
        },
        "workspaceUploads": {
            "maxItems": MAX_FILES,
            "description": "Earlier uploads for the workspace. They must exist until the job has ended.",
            "items": {
                "properties": {
                    "id": {"pattern": UPLOAD_ID},
                    "name": {"maxLength": 200, "pattern": "^[^/]+$"},
                }
            },
        },
        "chain": {"properties": {"depth": {"minimum": 0}}},
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
    "description": "The status of the job. Set by the engine.",
    "properties": {
        "phase": {"default": Phase.PENDING.value},
        "attempts": {"default": 0, "minimum": 0, "maximum": MAX_ATTEMPTS},
        "logs": {"maxItems": STATUS_LOG_LINES},
        "session": {"properties": {"id": {"pattern": SESSION_ID}, "attempt": {"minimum": 1, "maximum": MAX_ATTEMPTS}}},
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
        "schema": {"openAPIV3Schema": _with_rules(schema)},
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
    """Return the path of a resolved setting: in the spec, or in the status of a job applied with kubectl."""
    return f".*.resolved.config.{setting}"


def _column(name: str, path: str, kind: str = "string", priority: int = 0) -> dict[str, Any]:
    """Define a column of `kubectl get`. A column with a priority above 0 is shown with `-o wide` only."""
    return {"name": name, "jsonPath": path, "type": kind, "priority": priority}
