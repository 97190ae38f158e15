"""Team: who completes with which model, through a gateway that takes the team's own keys."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from codetune_api.common import Conditions, Failure, LocalRef, Resource, Scheduling, SecretRef, object_rules
from codetune_api.model import ApiModel, list_map, rules
from codetune_api.modeldeployment import ModelName, NetworkPolicySpec, ServiceSpec


class CompletionModel(ApiModel):
    """A model that a ModelDeployment of the namespace serves."""

    deployment_ref: LocalRef
    """The ModelDeployment."""
    model: ModelName | None = None
    """Name of one of its adapters, or of its base model; unset: its base model."""


class TeamProject(ApiModel):
    """What the team completes with in one project."""

    project_ref: LocalRef
    """The Project; requests name it as `project/NAME`, or in the header `X-Codetune-Project`."""
    completion_model: CompletionModel | None = None
    """Unset: the team's own `completionModel`."""


class Limits(ApiModel):
    """What the team may use."""

    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Completions in a minute, by all keys together; further ones are answered with 429. Each pod of the gateway admits
    its share. Unset: no limit."""


class TeamSpec(ApiModel):
    """Who is admitted, and to which models."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.completionModel) || (size(self.projects) > 0 && "
                "self.projects.all(entry, has(entry.completionModel)))",
                "give the team a completionModel, or one to each of its projects, of which there is then at least one",
            )
        )
    )

    api_keys_secret_ref: SecretRef
    """Secret whose values hold the team's API keys, one a line; a key opens this team's models and nothing else."""
    completion_model: CompletionModel | None = None
    """For requests that name no project; unset: each request must name one."""
    projects: Annotated[
        list[TeamProject],
        Field(
            max_length=64,
            json_schema_extra={
                "x-kubernetes-list-type": "atomic",
                **rules(
                    (
                        "self.all(entry, self.exists_one(other, other.projectRef.name == entry.projectRef.name))",
                        "a project can be in projects only once: remove the second entry",
                    )
                ),
            },
        ),
    ] = []
    """Projects that have a model of their own, or are to be named in requests."""
    limits: Limits = Limits()
    replicas: Annotated[int, Field(ge=0, le=100)] = 1
    """Pods of the gateway; 0 stops it."""
    service: ServiceSpec = ServiceSpec()
    scheduling: Scheduling = Scheduling()
    network_policy: NetworkPolicySpec = NetworkPolicySpec()


class TeamModel(ApiModel):
    """A model that the team's keys open."""

    project: str
    """The project that it is for; empty: the team's default."""
    deployment: str
    model: str = ""
    """Its name there; empty while it is not known."""
    ready: bool
    """Whether it answers now."""
    reason: str = ""
    """CamelCase, e.g. ModelNotServed; empty when nothing is amiss. ProjectNotFound: the model answers all the same."""
    message: str = ""


class TeamStatus(ApiModel):
    """What the team can use."""

    phase: Literal["Pending", "Starting", "Ready", "Updating", "Stopped", "Failed"] | None = None
    observed_generation: int | None = None
    conditions: Conditions = []
    endpoint: str | None = None
    """Base URL of the OpenAI-compatible gateway, without `/v1`."""
    replicas: int = 0
    ready_replicas: int = 0
    models: Annotated[list[TeamModel], Field(json_schema_extra=list_map("project"))] = []
    failure: Failure | None = None


class Team(Resource):
    """Who completes with which model: API keys, a default model, and one for each project."""

    model_config = ConfigDict(json_schema_extra=object_rules())

    spec: TeamSpec
    status: TeamStatus = TeamStatus()
