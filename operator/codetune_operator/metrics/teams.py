"""What Teams tell besides what every resource does. Pure."""

from codetune_operator.metrics.families import RESOURCE, Family
from codetune_operator.metrics.series import Obj, Series, Values


def _read_models(obj: Obj) -> Values:
    models = (obj.get("status") or {}).get("models") or ()
    ready = sum(1 for model in models if model["ready"])
    return [(("true",), float(ready)), (("false",), float(len(models) - ready))]


TEAMS = (
    Series(
        Family(
            "codetune_team_models",
            "gauge",
            (*RESOURCE, "ready"),
            "Models that the team's keys open: those that answer now (true), and those that don't (false).",
        ),
        _read_models,
    ),
)
