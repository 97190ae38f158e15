"""FineTunes that an `adapterSelector` finds: label selectors as Kubernetes reads them. Pure."""

from collections.abc import Mapping

from codetune_api.common import LocalRef
from codetune_api.finetune import FineTune
from codetune_api.modeldeployment import AdapterSelector, AdapterSpec, LabelRequirement, ModelDeploymentSpec

MAX_ADAPTERS = 256
"""Most adapters of one ModelDeployment, those that were named included."""


def select_adapters(spec: ModelDeploymentSpec, finetunes: Mapping[str, FineTune]) -> tuple[AdapterSpec, ...]:
    """An adapter for each FineTune that matches, by name; one that is being deleted is let go of.

    A FineTune whose name an adapter of the spec has already is left out, and so is what would be too many.
    """
    selector = spec.adapter_selector
    if selector is None:
        return ()
    taken = {adapter.name for adapter in spec.adapters}
    found = [
        AdapterSpec(
            name=name,
            fine_tune_ref=LocalRef(name=name),
            checkpoint=selector.checkpoint,
            min_improvement=selector.min_improvement,
        )
        for name, finetune in sorted(finetunes.items())
        if name not in taken and not finetune.metadata.deletion_timestamp and matches(selector, finetune)
    ]
    return tuple(found[: MAX_ADAPTERS - len(taken)])


def matches(selector: AdapterSelector, finetune: FineTune) -> bool:
    """Whether a FineTune carries the labels."""
    labels = finetune.metadata.labels
    return all(labels.get(key) == value for key, value in selector.match_labels.items()) and all(
        _holds(requirement, labels) for requirement in selector.match_expressions
    )


def _holds(requirement: LabelRequirement, labels: Mapping[str, str]) -> bool:
    has, value = requirement.key in labels, labels.get(requirement.key, "")
    if requirement.operator == "Exists":
        return has
    if requirement.operator == "DoesNotExist":
        return not has
    is_listed = has and value in requirement.values
    # As in Kubernetes: NotIn holds where there is no such label.
    return is_listed if requirement.operator == "In" else not is_listed
