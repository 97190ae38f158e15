"""spec.podFailurePolicy of a Job: what a failed pod means for it. Pure."""

from dataclasses import dataclass
from typing import Literal

from codetune_local.machinery.objects import Obj, get_condition, name_of, namespace_of

Action = Literal["FailJob", "Ignore", "Count"]


@dataclass(frozen=True)
class Verdict:
    """The action of the first rule that matches."""

    action: Action
    message: str = ""


def judge_failed_pod(job: Obj, pod: Obj) -> Verdict:
    """Apply the rules in order; without a match the failure counts."""
    rules = (job["spec"].get("podFailurePolicy") or {}).get("rules") or []
    for number, rule in enumerate(rules):
        message = _match_exit_codes(rule, pod, number) or _match_conditions(rule, pod, number)
        if message:
            action = rule["action"]
            return Verdict(action if action in ("FailJob", "Ignore") else "Count", message)
    return Verdict("Count")


def _match_exit_codes(rule: Obj, pod: Obj, number: int) -> str:
    wanted = rule.get("onExitCodes")
    if not wanted:
        return ""
    status = pod.get("status") or {}
    for entry in [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]:
        ended = entry["state"].get("terminated")
        if wanted.get("containerName") not in (None, entry["name"]) or ended is None or ended["exitCode"] == 0:
            continue
        if (ended["exitCode"] in wanted["values"]) == (wanted["operator"] == "In"):
            return (
                f"Container {entry['name']} for pod {namespace_of(pod)}/{name_of(pod)} failed with exit code "
                f"{ended['exitCode']} matching {rule['action']} rule at index {number}"
            )
    return ""


def _match_conditions(rule: Obj, pod: Obj, number: int) -> str:
    for pattern in rule.get("onPodConditions") or []:
        found = get_condition(pod, pattern["type"])
        if found is not None and found["status"] == pattern.get("status", "True"):
            return (
                f"Pod {namespace_of(pod)}/{name_of(pod)} has condition {pattern['type']} matching "
                f"{rule['action']} rule at index {number}"
            )
    return ""
